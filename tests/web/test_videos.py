"""`POST /v1/video/upload` and `POST /infer/video`: videos in pieces, frames line by line."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import httpx
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from tests.running import Service
from tests.web.running import FakeGateway, RunningDoor, multipart, refusal, running_door, until

CLIP = b"\x00\x01video" * 100_000
NDJSON = {"accept": "application/x-ndjson"}
SSE = {"accept": "text/event-stream"}


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines() if line]


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    pieces = [piece for piece in answer.text.split("\n\n") if piece and not piece.startswith(":")]
    assert all(piece.startswith("data: ") and "\n" not in piece for piece in pieces)
    return [json.loads(piece.removeprefix("data: ")) for piece in pieces]


@pytest.mark.parametrize("name", ["video", "file"])
async def test_a_video_is_answered_as_one_document(fake: FakeGateway, faked: RunningDoor, name: str) -> None:
    answer = await faked.client.post("/v1/video/upload", files={name: ("a.mp4", CLIP)}, data={"model": "x"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert [one["frame_index"] for one in document["frames"]] == [0, 1, 2]
    assert document["frames"][1]["time"] == 0.1
    assert len(document["frames"][1]["persons"][0]["keypoints"]) == 17
    assert document["summary"]["fps"] == 30
    assert document["video"]["frame_count"] == 3
    assert fake.video_bytes == len(CLIP)
    assert fake.requests[0].model == "x"


async def test_a_long_result_is_whole(fake: FakeGateway, faked: RunningDoor) -> None:
    fake.frames = 12_000  # more than is kept in memory
    answer = await faked.client.post("/v1/video/upload", files={"video": b"x"})
    assert [one["frame_index"] for one in answer.json()["frames"]] == list(range(12_000))


async def test_lines_and_events_come_one_by_one(fake: FakeGateway, faked: RunningDoor) -> None:
    fake.trailing = (("ratelimit-remaining", "5"),)
    by_line = await faked.client.post("/v1/video/upload", files={"video": CLIP}, headers=NDJSON)
    by_event = await faked.client.post("/v1/video/upload", files={"video": CLIP}, headers=SSE)
    assert by_line.headers["content-type"] == "application/x-ndjson"
    assert by_event.headers["content-type"].startswith("text/event-stream")
    assert lines(by_line) == events(by_event)
    kinds = [one["type"] for one in lines(by_line)]
    assert kinds == ["started", *["frame", "annotated_chunk"] * 3, "summary", "quota"]
    assert lines(by_line)[-1] == {"type": "quota", "ratelimit-remaining": "5"}


async def test_the_annotated_video_comes_alone_where_that_is_accepted(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    answer = await faked.client.post(
        "/v1/video/upload", files={"video": CLIP}, headers={"accept": "video/mp4"}
    )
    assert (answer.headers["content-type"], answer.content) == ("video/mp4", b"mp4 0 mp4 1 mp4 2 ")
    assert fake.requests[0].annotated_video == pb.ANNOTATED_VIDEO_MP4


async def test_every_option_reaches_the_gateway(fake: FakeGateway, faked: RunningDoor) -> None:
    options = {
        "model": "a",
        "version": "1",
        "template": "t",
        "measurement": "splits,knee_flexion",
        "side": "left",
        "facing": "toward",
        "mirrored": "true",
        "camera_roll": "2",
        "every_nth_frame": "4",
        "start": "0.5",
        "end": "2",
        "track": "false",
        "include_positions": "true",
        "max_persons": "2",
        "min_score": "0.5",
        "iou_threshold": "0.5",
        "min_keypoint_score": "0.25",
        "annotated_video": "mp4",
    }
    wanted = pb.VideoConfig(
        model="a",
        model_version="1",
        skeleton="t",
        measurements=["splits", "knee_flexion"],
        every_nth_frame=4,
        track=False,
        include_positions=True,
        max_persons=2,
        min_score=0.5,
        iou_threshold=0.5,
        min_keypoint_score=0.25,
        annotated_video=pb.ANNOTATED_VIDEO_MP4,
        angle_options=pb.AngleOptions(
            side=types_pb2.SIDE_LEFT, facing=pb.FACING_TOWARD_CAMERA, mirrored=True, camera_roll_deg=2
        ),
    )
    wanted.start.FromMilliseconds(500)
    wanted.end.FromMilliseconds(2000)
    await faked.client.post("/v1/video/upload", data=options, files={"video": CLIP}, headers=NDJSON)
    await faked.client.post(
        "/v1/video/upload", params=options, content=CLIP, headers={"content-type": "video/mp4", **NDJSON}
    )
    assert list(fake.requests) == [wanted, wanted]
    await faked.client.post("/v1/video/upload", params={"target_fps": "5", "smoothing": "true"}, content=CLIP)
    assert fake.requests[-1] == pb.VideoConfig(target_fps=5, smoothing=pb.SMOOTHING_ONE_EURO)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"every_nth_frame": "2", "target_fps": "5"}, "target_fps"),
        ({"every_nth_frame": "0"}, "every_nth_frame"),
        ({"start": "-1"}, "start"),
        ({"annotated_video": "mp4"}, "annotated_video"),
        ({"annotated_video": "gif"}, "annotated_video"),
        ({"image": "x"}, "image"),
    ],
)
async def test_a_wrong_option_is_refused_before_the_gateway_sees_it(
    fake: FakeGateway, faked: RunningDoor, options: dict[str, str], field: str
) -> None:
    answer = await faked.client.post("/v1/video/upload", data=options, files={"video": CLIP})
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert not fake.requests


async def test_a_field_after_the_video_is_refused_and_the_call_cancelled(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    content_type, body = multipart(("video", "a.mp4", b"x" * 10), ("model", None, b"m"))
    answer = await faked.client.post("/v1/video/upload", content=body, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": "model", "detail": "comes after the video"}]


async def test_a_form_that_breaks_off_is_400(fake: FakeGateway, faked: RunningDoor) -> None:
    content_type, body = multipart(("video", "a.mp4", b"x" * 1000))
    for headers in ({}, NDJSON):
        answer = await faked.client.post(
            "/v1/video/upload", content=body[:500], headers={"content-type": content_type, **headers}
        )
        assert (answer.status_code, answer.json()["reason"]) == (400, "FORM_UNREADABLE")


@pytest.mark.parametrize("headers", [{}, NDJSON, SSE, {"accept": "video/mp4"}])
async def test_an_error_that_comes_first_has_its_own_status(
    fake: FakeGateway, faked: RunningDoor, headers: dict[str, str]
) -> None:
    fake.error = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", retry_ms=2000)
    answer = await faked.client.post("/v1/video/upload", files={"video": CLIP}, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (429, "TOO_MANY_STREAMS")
    assert answer.headers["retry-after"] == "2"


async def test_an_error_in_the_middle_is_the_last_line(fake: FakeGateway, faked: RunningDoor) -> None:
    fake.error, fake.break_after = refusal(grpc.StatusCode.DATA_LOSS, "VIDEO_DAMAGED", "It breaks off."), 2
    answer = await faked.client.post("/v1/video/upload", files={"video": CLIP}, headers=NDJSON)
    assert answer.status_code == 200
    last = lines(answer)[-1]
    assert (last["type"], last["code"], last["message"]) == ("error", "VIDEO_DAMAGED", "It breaks off.")
    assert sum(one["type"] == "frame" for one in lines(answer)) == 2
    whole = await faked.client.post("/v1/video/upload", files={"video": CLIP})
    assert (whole.status_code, whole.json()["reason"]) == (500, "VIDEO_DAMAGED")


async def test_what_is_not_there_to_accept_is_406(faked: RunningDoor) -> None:
    answer = await faked.client.post(
        "/v1/video/upload", files={"video": CLIP}, headers={"accept": "image/gif"}
    )
    assert answer.status_code == 406


async def test_more_videos_at_once_than_allowed_are_429(fake: FakeGateway) -> None:
    fake.hold.clear()
    async with running_door(fake.address, max_streams=1) as door:
        first = asyncio.create_task(door.client.post("/v1/video/upload", files={"video": CLIP}))
        await until(lambda: fake.started == 1)
        second = await door.client.post("/v1/video/upload", files={"video": b"x"})
        assert (second.status_code, second.json()["reason"]) == (429, "TOO_MANY_STREAMS")
        fake.hold.set()
        assert (await first).status_code == 200
        assert (await door.client.post("/v1/video/upload", files={"video": b"x"})).status_code == 200


async def test_a_video_that_is_too_large_is_413(fake: FakeGateway) -> None:
    async with running_door(fake.address, max_video_bytes=100_000) as door:
        answer = await door.client.post("/v1/video/upload", files={"video": b"x" * 200_000})
    assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")


async def test_the_whole_body_comes_as_the_product_has_it(fake: FakeGateway, faked: RunningDoor) -> None:
    answer = await faked.client.post("/infer/video", files={"file": ("a.mp4", CLIP)})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer)
    assert [one["type"] for one in told] == ["progress"] * 3 + ["result"]
    for number, one in enumerate(told[:-1], 1):
        assert list(one) == ["type", "frame", "total", "pct", "fps", "elapsed", "eta"]
        assert (one["frame"], one["total"]) == (number, 3)
    assert told[2]["pct"] == 100
    result = told[-1]
    assert {
        name: result[name] for name in ("fps", "frame_width", "frame_height", "total_frames", "n_kpts")
    } == {
        "fps": 30,
        "frame_width": 4,
        "frame_height": 2,
        "total_frames": 3,
        "n_kpts": 133,
    }
    assert [len(frame) for frame in result["frames"]] == [133 * 6] * 3
    assert result["frames"][2][:3] == [2, 2, 2]
    assert result["frames"][2][-1] == 0, "what is not known is zero"
    config = fake.requests[-1]
    assert (config.layout, config.skeleton) == (pb.FRAME_LAYOUT_FLAT, "coco_wholebody_133")
    assert config.model == "d_model", "ready, and with this skeleton of its own"


async def test_the_operator_may_name_the_whole_body_model(fake: FakeGateway) -> None:
    async with running_door(fake.address, whole_body_model="mine") as door:
        await door.client.post("/infer/video", files={"file": CLIP})
    assert fake.requests[-1].model == "mine"


async def test_a_broken_file_is_an_event_of_its_own(fake: FakeGateway, faked: RunningDoor) -> None:
    fake.error = refusal(grpc.StatusCode.INVALID_ARGUMENT, "VIDEO_UNDECODABLE", "Send a video.")
    async with running_door(fake.address, whole_body_model="mine") as door:
        answer = await door.client.post("/infer/video", files={"file": CLIP})
    assert answer.status_code == 200
    assert events(answer) == [{"type": "error", "code": "VIDEO_UNDECODABLE", "message": "Send a video."}]
    fake.error, fake.break_after = refusal(grpc.StatusCode.DATA_LOSS, "VIDEO_DAMAGED", "It ends."), 1
    async with running_door(fake.address, whole_body_model="mine") as door:
        answer = await door.client.post("/infer/video", files={"file": CLIP})
    assert [one["type"] for one in events(answer)] == ["progress", "error"]


async def test_who_may_not_or_cannot_now_gets_a_status(fake: FakeGateway) -> None:
    fake.error = refusal(grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")
    async with running_door(fake.address, whole_body_model="mine") as door:
        answer = await door.client.post("/infer/video", files={"file": CLIP})
    assert (answer.status_code, answer.json()["reason"]) == (401, "API_KEY_INVALID")


async def test_a_form_without_a_file_is_400(faked: RunningDoor) -> None:
    answer = await faked.client.post("/infer/video", data={"a": "b"}, files={"x": (None, "y")})
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": "video", "detail": "is missing"}]


async def test_the_real_servicers_refuse_what_is_no_video(service: Service, door: RunningDoor) -> None:
    answer = await door.client.post("/v1/video/upload", files={"video": b"no video at all"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "VIDEO_UNDECODABLE")


async def test_fields_before_a_video_are_bounded_together(fake: FakeGateway, faked: RunningDoor) -> None:
    content_type, body = multipart(
        *(("model", None, b"a" * 60_000) for _ in range(5)), ("video", "a.mp4", b"x")
    )
    answer = await faked.client.post("/v1/video/upload", content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "body")
    assert not fake.started


async def test_refused_uploads_give_their_place_back(fake: FakeGateway) -> None:
    async with running_door(fake.address, max_streams=1) as door:
        for _ in range(3):
            for path in ("/v1/video/upload?colour=1", "/infer/video?colour=1"):
                answer = await door.client.post(path, content=b"x", headers={"content-type": "video/mp4"})
                assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_REQUEST")
        answer = await door.client.post(
            "/v1/video/upload", content=b"x", headers={"content-type": "video/mp4"}
        )
        assert answer.status_code == 200
