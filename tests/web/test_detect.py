"""`POST /detect`: angles with the names of the product's fields, and what only Posegate has beside them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import MEASUREMENTS as OF_THE_CORE
from service.web.measurements import MEASUREMENTS
from tests.fakes import rows
from tests.pictures import jpeg
from tests.running import Service
from tests.servicers.test_measure_angles import FIGURE
from tests.web.running import FakeGateway, RunningDoor

PICTURE = jpeg((640, 640))


def test_the_doors_list_of_measurements_is_the_gateways() -> None:
    assert [(one.name, one.title, one.body_part, one.extension) for one in MEASUREMENTS] == [
        (one.name, one.title, one.body_part.capitalize(), one.extension) for one in OF_THE_CORE.values()
    ]


async def test_the_answer_has_the_shape_of_the_product(service: Service, door: RunningDoor) -> None:
    service.triton.answer = rows(FIGURE)
    answer = await door.client.post(
        "/detect",
        files={"image": ("a.jpg", PICTURE)},
        data={"measurement": "shoulder_abduction, splits", "side": "left"},
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["status"] == "ok"
    assert (found["image"]["width"], found["image"]["height"]) == (640, 640)
    pictures = [found["image"]["data"], *(one["image"]["data"] for one in found["measurements"])]
    assert len(set(pictures)) == 3, "one with everything, and one for each"
    for picture in pictures:
        head, _, data = picture.partition(",")
        assert head == "data:image/jpeg;base64"
        assert base64.b64decode(data).startswith(b"\xff\xd8")
    first = found["measurements"][0]
    assert (first["name"], first["title"], first["bodyPart"]) == (
        "shoulder_abduction",
        "Shoulder Abduction",
        "Shoulder",
    )
    assert first["value"]["right"] is None
    assert first["value"]["left"] == round(first["value"]["left"], 1)
    assert first["std_error"]["left"] > 0
    assert first["status"] == {"left": first["status"]["left"], "right": None}
    assert first["status"]["left"] in ("OK", "DEGRADED")
    assert first["reasons"]["right"] == []


async def test_a_picture_may_be_a_file_base64_or_an_address(fake: FakeGateway, faked: RunningDoor) -> None:
    text = base64.b64encode(PICTURE).decode()
    for image in (text, f"data:image/jpeg;base64,{text}"):
        await faked.client.post("/detect", json={"image": image, "measurement": "splits"})
        assert fake.requests[-1].image.content == PICTURE
    await faked.client.post("/detect", json={"image_url": "https://a.example/b", "measurement": "splits"})
    assert fake.requests[-1].image.uri == "https://a.example/b"


async def test_measurements_may_be_a_list_a_repeated_field_or_one_text(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    url = "https://a.example/b"
    sent: list[dict[str, Any]] = [
        {"json": {"image_url": url, "measurement": ["splits", "knee_flexion"]}},
        {"json": {"image_url": url, "measurement": "splits,knee_flexion"}},
        {"data": {"image_url": url, "measurement": ["splits", "knee_flexion"]}},
    ]
    for one in sent:
        assert (await faked.client.post("/detect", **one)).status_code == 200
        assert list(fake.requests[-1].measurements) == ["splits", "knee_flexion"]
        assert fake.requests[-1].overlay_mode == pb.ANGLE_OVERLAY_MODE_BOTH


async def test_every_option_reaches_the_gateway(fake: FakeGateway, faked: RunningDoor) -> None:
    options = {
        "measurement": "splits",
        "side": "Right",
        "model": "a",
        "version": "2",
        "facing": "away",
        "mirrored": "true",
        "camera_roll": "-3.5",
        "min_score": "0.5",
    }
    await faked.client.post("/detect", data=options, files={"image": PICTURE}, headers={"x-api-key": "k"})
    request = fake.requests[0]
    assert (request.side, request.model, request.model_version) == (types_pb2.SIDE_RIGHT, "a", "2")
    assert (request.facing, request.mirrored, request.camera_roll_deg) == (
        pb.FACING_AWAY_FROM_CAMERA,
        True,
        -3.5,
    )
    assert request.min_score == 0.5
    assert request.overlay_mode == pb.ANGLE_OVERLAY_MODE_COMBINED
    assert fake.metadata["x-api-key"] == "k"


async def test_an_unknown_measurement_is_400_and_lists_the_good_ones(door: RunningDoor) -> None:
    answer = await door.client.post(
        "/detect", files={"image": PICTURE}, data={"measurement": "elbow_flexing"}
    )
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["field"] == "measurement"
    assert "elbow_flexing" in error["detail"]
    assert all(one.name in error["detail"] for one in MEASUREMENTS[:5])


async def test_an_unknown_measurement_beside_another_error_is_named_too(faked: RunningDoor) -> None:
    answer = await faked.client.post(
        "/detect", files={"image": PICTURE}, data={"measurement": "elbow_flexing", "side": "up"}
    )
    assert sorted(one["field"] for one in answer.json()["errors"]) == ["measurement", "side"]


@pytest.mark.parametrize("name", ["knee_flexion", "KNEE_FLEXION"])
async def test_zero_persons_in_the_image_are_null_with_a_reason(door: RunningDoor, name: str) -> None:
    answer = await door.client.post("/detect", files={"image": PICTURE}, data={"measurement": name})
    assert answer.status_code == 200
    (one,) = answer.json()["measurements"]
    assert (one["name"], one["title"], one["bodyPart"]) == ("knee_flexion", "Knee Flexion", "Knee")
    assert one["value"] == {"left": None, "right": None}
    assert one["reasons"]["left"] == ["NO_PERSON"]


async def test_a_body_of_a_million_values_is_refused(faked: RunningDoor) -> None:
    body = b'{"measurement": [' + b"0," * 1_000_000 + b"0]}"
    answer = await faked.client.post("/detect", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "body")
