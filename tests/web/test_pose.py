"""`POST /v1/pose` and `/v1/pose/batch`: every form of body and every option."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from posegate.v1 import types_pb2
from tests.fakes import rows
from tests.pictures import jpeg
from tests.running import Service
from tests.servicers.test_measure_angles import FIGURE
from tests.web.running import FakeGateway, RunningDoor, multipart, running_door, until

PICTURE = jpeg((64, 128))
JPEG = {"content-type": "image/jpeg"}
AS_JSON = {"content-type": "application/json"}


async def test_the_people_come_as_the_product_has_them(service: Service, door: RunningDoor) -> None:
    service.triton.answer = rows(FIGURE)
    answer = await door.client.post(
        "/v1/pose", files={"image": ("a.jpg", jpeg((640, 640)))}, data={"return_overlay": "true"}
    )
    assert answer.status_code == 200
    found = answer.json()
    assert found["image"] == {"width": 640, "height": 640}
    assert found["model"] == "yolo11n_pose"
    person = found["persons"][0]
    assert len(person["box"]) == 4
    assert 0 < person["score"] <= 1
    assert [len(point) for point in person["keypoints"]] == [3] * 17
    head, _, data = found["overlay"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


async def test_zero_persons_found_are_an_empty_list(door: RunningDoor) -> None:
    answer = await door.client.post("/v1/pose", content=PICTURE, headers=JPEG)
    assert answer.json()["persons"] == []
    assert "overlay" not in answer.json()


async def test_a_template_gives_its_own_keypoints(service: Service, door: RunningDoor) -> None:
    service.triton.answer = rows(FIGURE)
    answer = await door.client.post("/v1/pose?template=coco_17", content=jpeg((640, 640)), headers=JPEG)
    assert answer.json()["skeleton"] == "coco_17"
    unknown = await door.client.post("/v1/pose?template=nope", content=PICTURE, headers=JPEG)
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "SKELETON_NOT_FOUND")


FORM, BODY = multipart(("image", None, PICTURE))
BASE64 = base64.b64encode(PICTURE).decode()


@pytest.mark.parametrize(
    "sent",
    [
        {"files": {"image": ("a.jpg", PICTURE, "image/jpeg")}},
        {"files": {"image": PICTURE}},
        {"content": BODY, "headers": {"content-type": FORM}},
        {"content": PICTURE, "headers": JPEG},
        {"content": PICTURE, "headers": {"content-type": "application/octet-stream"}},
        {"content": PICTURE},
        {"json": {"image": BASE64}},
        {"json": {"image": f"data:image/jpeg;base64,{BASE64}"}},
        {"data": {"image": BASE64}},
        {"files": {"image": (None, BASE64)}},
        {"files": {"image": (None, BASE64.replace("+", "-").replace("/", "_").rstrip("="))}},
    ],
    ids=[
        "file", "file by bytes", "part without a file name", "bare jpeg", "bare bytes", "no content-type",
        "json", "json data uri", "urlencoded", "base64 part", "base64 for addresses",
    ],
)  # fmt: skip
async def test_a_picture_may_come_in_many_forms(
    fake: FakeGateway, faked: RunningDoor, sent: dict[str, Any]
) -> None:
    answer = await faked.client.post("/v1/pose", **sent)
    assert answer.status_code == 200, answer.text
    assert fake.requests[0].image.content == PICTURE


async def test_every_option_reaches_the_gateway(fake: FakeGateway, faked: RunningDoor) -> None:
    options = {
        "template": "coco_17",
        "model": "a",
        "version": "3",
        "min_score": "0.5",
        "iou_threshold": "0.6",
        "max_persons": "7",
        "min_keypoint_score": "0.1",
        "include_positions": "true",
        "return_overlay": "true",
        "overlay_format": "jpeg",
    }
    for sent in (
        {"data": options, "files": {"image": PICTURE}},
        {"params": options, "content": PICTURE, "headers": JPEG},
        {"json": {**options, "image": BASE64, "min_score": 0.5, "max_persons": 7, "return_overlay": True}},
    ):
        assert (await faked.client.post("/v1/pose", **sent)).status_code == 200
        request = fake.requests[-1]
        assert (request.skeleton, request.model, request.model_version) == ("coco_17", "a", "3")
        assert (round(request.min_score, 3), round(request.iou_threshold, 3)) == (0.5, 0.6)
        assert (request.max_persons, round(request.min_keypoint_score, 3), request.include_positions) == (
            7,
            0.1,
            True,
        )
        assert request.overlay.format == types_pb2.OVERLAY_FORMAT_JPEG


async def test_options_that_are_not_given_stay_unset(fake: FakeGateway, faked: RunningDoor) -> None:
    await faked.client.post("/v1/pose", content=PICTURE, headers=JPEG)
    request = fake.requests[0]
    assert not any(
        request.HasField(name) for name in ("min_score", "iou_threshold", "max_persons", "overlay")
    )


async def test_every_wrong_field_is_named_at_once(fake: FakeGateway, faked: RunningDoor) -> None:
    answer = await faked.client.post(
        "/v1/pose",
        data={"min_score": "much", "max_persons": "0", "return_overlay": "maybe", "colour": "red"},
        files={"image": PICTURE},
    )
    assert answer.status_code == 400
    named = [one["field"] for one in answer.json()["errors"]]
    assert sorted(named) == ["colour", "max_persons", "min_score", "return_overlay"]
    assert not fake.requests


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        ({"data": {"model": "x"}, "files": {"other": (None, "y")}}, 400, "INVALID_REQUEST"),
        ({"files": [("image", PICTURE), ("image", PICTURE)]}, 400, "INVALID_REQUEST"),
        ({"json": {"image": "data:image/jpeg,xx"}}, 400, "IMAGE_UNDECODABLE"),
        ({"json": {"image": "A"}}, 400, "IMAGE_UNDECODABLE"),
        ({"json": {"image": BASE64, "template": "\ud800"}}, 400, "INVALID_REQUEST"),
        ({"json": {"image": BASE64, "model": {"a": 1}}}, 400, "INVALID_REQUEST"),
        ({"content": b"[1]", "headers": AS_JSON}, 400, "JSON_UNREADABLE"),
        ({"content": b"{", "headers": AS_JSON}, 400, "JSON_UNREADABLE"),
        ({"content": b"[" * 100_000, "headers": AS_JSON}, 400, "JSON_UNREADABLE"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "FORM_UNREADABLE"),
        ({"content": BODY[:-20], "headers": {"content-type": FORM}}, 400, "FORM_UNREADABLE"),
        ({"content": b"", "headers": {"content-type": FORM}}, 400, "FORM_UNREADABLE"),
        ({"content": b"%", "headers": {"content-type": "text/html"}}, 415, "CONTENT_TYPE_UNSUPPORTED"),
        (
            {"content": PICTURE, "headers": {"content-type": "application/x-www-form-urlencoded"}},
            415,
            "CONTENT_TYPE_UNSUPPORTED",
        ),
        ({"files": {"template": (None, "x" * 70_000), "image": PICTURE}}, 400, "INVALID_REQUEST"),
        ({"files": {"template": (None, b"\xff\xfe"), "image": PICTURE}}, 400, "INVALID_REQUEST"),
    ],
)  # fmt: skip
async def test_a_body_that_cannot_be_read_says_what_to_change(
    fake: FakeGateway, faked: RunningDoor, sent: dict[str, Any], status: int, reason: str
) -> None:
    if sent.get("json", {}).get("template") == "\ud800":
        sent = {"content": json.dumps(sent["json"]).encode(), "headers": {"content-type": "application/json"}}
    answer = await faked.client.post("/v1/pose", **sent)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
    assert not fake.requests


async def test_an_address_is_for_the_gateway_to_fetch(
    fake: FakeGateway, faked: RunningDoor, door: RunningDoor
) -> None:
    await faked.client.post("/v1/pose", json={"image_url": "https://a.example/b.jpg"})
    assert fake.requests[0].image.uri == "https://a.example/b.jpg"
    refused = await door.client.post("/v1/pose", json={"image_url": "https://a.example/b.jpg"})
    assert (refused.status_code, refused.json()["reason"]) == (403, "URI_OFF")


async def test_what_is_no_picture_gets_the_gateways_own_words(door: RunningDoor) -> None:
    answer = await door.client.post("/v1/pose", content=b"\xff\xd8 no picture", headers=JPEG)
    assert (answer.status_code, answer.json()["reason"]) == (400, "IMAGE_UNDECODABLE")
    words = await door.client.post("/v1/pose", json={"image": "not a picture!"})
    assert (words.status_code, words.json()["reason"]) == (400, "IMAGE_UNDECODABLE")


async def test_each_picture_of_a_batch_has_a_result_or_an_error(service: Service, door: RunningDoor) -> None:
    service.triton.answer = rows(FIGURE)
    good = jpeg((640, 640))
    files = [("images", ("a.jpg", good)), ("images", ("b.jpg", b"\x00no")), ("images", ("c.jpg", good))]
    answer = await door.client.post("/v1/pose/batch", files=files)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["name"] for one in results] == ["a.jpg", "b.jpg", "c.jpg"]
    assert len(results[0]["result"]["persons"]) == len(results[2]["result"]["persons"]) == 1
    error = results[1]["error"]
    assert (error["status"], error["reason"]) == (400, "IMAGE_UNDECODABLE")
    assert "result" not in results[1]


async def test_broken_base64_in_a_batch_fails_alone(fake: FakeGateway, faked: RunningDoor) -> None:
    answer = await faked.client.post("/v1/pose/batch", json={"images": [BASE64, "data:x", BASE64]})
    results = answer.json()["results"]
    assert [sorted(one) for one in results] == [["result"], ["error"], ["result"]]
    assert len(fake.requests[0].requests) == 2


async def test_more_pictures_than_a_batch_may_have_are_400(door: RunningDoor) -> None:
    files = [("images", (f"{n}.jpg", PICTURE)) for n in range(33)]
    answer = await door.client.post("/v1/pose/batch", files=files)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"].startswith("images")
    none = await door.client.post("/v1/pose/batch", files={"model": (None, "")})
    assert none.json()["errors"] == [{"field": "images", "detail": "is missing"}]


async def test_a_body_that_is_too_large_is_413_with_and_without_its_length(fake: FakeGateway) -> None:
    async with running_door(fake.address, max_body_bytes=10_000) as door:
        announced = await door.client.post("/v1/pose", content=b"x" * 10_001, headers=JPEG)
        assert (announced.status_code, announced.json()["reason"]) == (413, "BODY_TOO_LARGE")

        async def chunks() -> Any:
            for _ in range(20):
                yield b"x" * 1000

        chunked = await door.client.post("/v1/pose", content=chunks(), headers=JPEG)
        assert (chunked.status_code, chunked.json()["metadata"]) == (413, {"limit_bytes": "10000"})
        assert (await door.client.post("/v1/pose", content=b"x" * 10_000, headers=JPEG)).status_code == 200


async def test_bodies_at_work_are_bounded_together_and_forgotten_afterwards(fake: FakeGateway) -> None:
    async with running_door(fake.address, max_in_flight_bytes=10_000) as door:
        for _ in range(3):
            assert (await door.client.post("/v1/pose", content=b"x" * 9_000, headers=JPEG)).status_code == 200
        assert (await door.client.post("/v1/pose", content=b"x" * 90_000, headers=JPEG)).status_code == 200, (
            "alone"
        )
        fake.hold.clear()
        first = asyncio.create_task(door.client.post("/v1/pose", content=b"x" * 9_000, headers=JPEG))
        await until(lambda: fake.started >= 5)
        second = await door.client.post("/v1/pose", content=b"x" * 9_000, headers=JPEG)
        assert (second.status_code, second.json()["reason"]) == (429, "TOO_MANY_BYTES_IN_FLIGHT")
        fake.hold.set()
        assert (await first).status_code == 200
