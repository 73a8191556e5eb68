"""StreamPoses over real gRPC, with a scripted model behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.pipeline.stream import StreamFrame
from tests.fakes import candidate, rows, until
from tests.running import Failure, Service, failure_of, of_status, running

ONE_EURO = pb.SMOOTHING_ONE_EURO
WHO = candidate((200, 100, 440, 500), 0.9)
JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(stream_keep_alive_s=0.2, video_look_ahead=4, video_spool=tmp_path) as one:
        one.triton.answer = rows(WHO)
        yield one


def picture(frame_id: str, **changes: Any) -> pb.StreamPosesRequest:
    return pb.StreamPosesRequest(frame=pb.StreamFrame(frame_id=frame_id, encoded=JPEG, **changes))


def raw(frame_id: str, width: int, height: int, count: int) -> pb.StreamPosesRequest:
    image = pb.RawImage(rgb=bytes(count), size=types_pb2.ImageSize(width=width, height=height))
    return pb.StreamPosesRequest(frame=pb.StreamFrame(frame_id=frame_id, raw=image))


async def sent(config: pb.StreamConfig, pictures: Sequence[pb.StreamPosesRequest]) -> AsyncIterator[Any]:
    yield pb.StreamPosesRequest(config=config)
    for one in pictures:
        yield one


async def stream(
    service: Service, pictures: Sequence[pb.StreamPosesRequest], **config: Any
) -> list[pb.StreamPosesResponse]:
    requests = sent(pb.StreamConfig(**config), pictures)
    return [answer async for answer in service.poses.StreamPoses(requests, timeout=20)]


async def refusal(service: Service, requests: Sequence[pb.StreamPosesRequest]) -> Failure:
    async def send() -> AsyncIterator[pb.StreamPosesRequest]:
        for request in requests:
            yield request

    return await ended(service.poses.StreamPoses(send(), timeout=20))


async def ended(call: AsyncIterable[object]) -> Failure:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return failure_of(error)
    raise AssertionError("it was accepted")


def results(answers: Sequence[pb.StreamPosesResponse]) -> list[pb.StreamResult]:
    """The answers that are of a frame: signs of life come between them where the machine is slow."""
    return [answer.result for answer in answers if answer.HasField("result")]


async def test_every_picture_is_answered_in_order_with_its_name(service: Service) -> None:
    answers = await stream(service, [picture(f"p{number}") for number in range(30)])
    assert answers[0].started.model == "yolo11n_pose"
    assert answers[0].started.effective_config.frame_policy == pb.FRAME_POLICY_EVERY
    results = [answer.result for answer in answers if answer.HasField("result")]
    assert [result.frame_id for result in results] == [f"p{number}" for number in range(30)]
    assert all(result.persons[0].track_id == 1 for result in results)
    assert all(result.timings.total_ms > 0 and not result.dropped_frames for result in results)
    assert (results[0].image_size.width, results[0].image_size.height) == (64, 48)
    summary = answers[-1].summary
    assert (summary.frames_received, summary.frames_answered, summary.frames_dropped) == (30, 30, 0)
    assert summary.persons_tracked == 1


async def test_raw_pixels_are_taken_as_they_are(service: Service) -> None:
    (result,) = results(await stream(service, [raw("good", 64, 48, 64 * 48 * 3)]))
    assert result.image_size.width == 64
    assert len(result.persons) == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (
            pb.StreamPosesRequest(frame=pb.StreamFrame(frame_id="bad", encoded=b"no picture")),
            "IMAGE_UNDECODABLE",
        ),
        (pb.StreamPosesRequest(frame=pb.StreamFrame(frame_id="bad")), "IMAGE_UNDECODABLE"),
        (raw("bad", 64, 48, 5), "IMAGE_UNDECODABLE"),
        (raw("bad", 0, 48, 0), "IMAGE_UNDECODABLE"),
        (raw("bad", 40_000, 40_000, 12), "IMAGE_TOO_LARGE"),
    ],
    ids=["no picture", "nothing", "too few bytes", "no size", "too large"],
)
async def test_a_bad_picture_is_told_and_the_stream_goes_on(
    service: Service, bad: pb.StreamPosesRequest, reason: str
) -> None:
    answers = await stream(service, [picture("a"), bad, picture("b")])
    results = [answer.result for answer in answers if answer.HasField("result")]
    assert [result.frame_id for result in results] == ["a", "bad", "b"]
    assert of_status(results[1].error).reason == reason
    assert not results[1].persons
    assert answers[-1].summary.frames_failed == 1


async def test_an_error_inside_tells_the_caller_nothing(service: Service) -> None:
    service.triton.script = [RuntimeError("secret")]
    first, second = results(await stream(service, [picture("a"), picture("b")]))
    failed, answered = (first, second) if first.HasField("error") else (second, first)
    assert failed.error.message == "internal error"
    assert len(answered.persons) == 1


async def test_latest_drops_what_waits_and_counts_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.triton.gate.clear()
    received = 0

    def counted(*args: Any) -> StreamFrame:
        nonlocal received
        received += 1
        return StreamFrame(*args)

    monkeypatch.setattr("service.servicers.requests.uploads.StreamFrame", counted)
    config = pb.StreamConfig(frame_policy=pb.FRAME_POLICY_LATEST)
    call = service.poses.StreamPoses(sent(config, [picture(f"p{n}") for n in range(50)]))
    answered = aiter(call)
    await anext(answered)
    await until(lambda: service.triton.under_way == 2)
    await until(lambda: received == 50)
    assert (await anext(answered)).HasField("keep_alive")
    service.triton.gate.set()
    answers = [answer async for answer in answered]
    results = [answer.result for answer in answers if answer.HasField("result")]
    assert [result.frame_id for result in results] == ["p0", "p1", "p49"]
    assert [result.dropped_frames for result in results] == [0, 0, 47]
    summary = answers[-1].summary
    assert (summary.frames_received, summary.frames_answered, summary.frames_dropped) == (50, 3, 47)


async def test_every_slows_the_sender_down(service: Service) -> None:
    service.triton.gate.clear()
    taken = 0

    async def send() -> AsyncIterator[pb.StreamPosesRequest]:
        nonlocal taken
        yield pb.StreamPosesRequest(config=pb.StreamConfig())
        for number in range(200):
            yield raw(str(number), 640, 480, 640 * 480 * 3)
            taken += 1

    call = service.poses.StreamPoses(send())
    answered = aiter(call)
    await anext(answered)
    await until(lambda: service.triton.under_way == 4)
    for _ in range(3):
        assert (await anext(answered)).HasField("keep_alive")
    assert taken < 60  # what gRPC buffers, and four at the model
    assert service.triton.under_way == 4
    service.triton.gate.set()
    answers = [answer async for answer in answered]
    assert answers[-1].summary.frames_answered == 200


async def test_silence_is_broken_by_signs_of_life(service: Service) -> None:
    over = asyncio.Event()

    async def send() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig())
        await over.wait()

    call = service.poses.StreamPoses(send())
    answers = aiter(call)
    assert (await anext(answers)).HasField("started")
    assert (await anext(answers)).HasField("keep_alive")
    over.set()
    assert [answer.WhichOneof("response") async for answer in answers][-1] == "summary"


async def test_capture_times_are_echoed_and_followed_by(service: Service) -> None:
    pictures = []
    for number in range(3):
        one = picture(str(number))
        one.frame.capture_time.FromMilliseconds(1000 + 40 * number)
        pictures.append(one)
    answers = await stream(service, pictures)
    times = [answer.result.capture_time.ToMilliseconds() for answer in answers if answer.HasField("result")]
    assert times == [1000, 1040, 1080]


async def test_angles_and_smoothing_come_with_every_picture(service: Service) -> None:
    answers = await stream(
        service, [picture("a")], measurements=["elbow_side"], smoothing=pb.SMOOTHING_ONE_EURO
    )
    (result,) = results(answers)
    assert result.angles[0].name == "elbow_side"
    assert len(result.persons[0].smoothed_keypoints) == 17
    assert answers[-1].summary.measurements[0].name == "elbow_side"


@pytest.mark.parametrize(
    ("what", "requests"),
    [
        ("nothing", []),
        ("frame first", [picture("a")]),
        ("config twice", [pb.StreamPosesRequest(config=pb.StreamConfig())] * 2),
        ("empty", [pb.StreamPosesRequest(config=pb.StreamConfig()), pb.StreamPosesRequest()]),
        ("smoothing alone", [pb.StreamPosesRequest(config=pb.StreamConfig(smoothing=ONE_EURO, track=False))]),
    ],
)  # fmt: skip
async def test_the_wrong_order_and_wrong_configs_are_refused(
    service: Service, what: str, requests: list[pb.StreamPosesRequest]
) -> None:
    assert (await refusal(service, requests)).code == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("measurements", [[], [" , "]], ids=["none", "blank"])
async def test_angle_options_need_measurements(service: Service, measurements: list[str]) -> None:
    config = pb.StreamConfig(measurements=measurements)
    config.angle_options.mirrored = True
    failed = await refusal(service, [pb.StreamPosesRequest(config=config)])
    assert failed.code == grpc.StatusCode.INVALID_ARGUMENT
    assert list(failed.violations) == ["config.angle_options"]
    config.measurements[:] = ["elbow_side"]
    answers = [answer async for answer in service.poses.StreamPoses(sent(config, [picture("a")]), timeout=20)]
    assert answers[0].started.effective_config.angle_options.mirrored
    assert results(answers)[0].angles[0].name == "elbow_side"


async def test_a_caller_who_leaves_frees_the_place(service: Service) -> None:
    service.triton.gate.clear()
    call = service.poses.StreamPoses(sent(pb.StreamConfig(), [picture("a")] * 10))
    await call.read()
    await until(lambda: service.triton.under_way > 0)
    call.cancel()
    await until(lambda: service.streams.running == 0 and service.triton.under_way == 0)


async def test_a_stopping_service_ends_the_stream(service: Service) -> None:
    async def send() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig())
        await asyncio.sleep(20)

    call = service.poses.StreamPoses(send())
    answers = aiter(call)
    await anext(answers)
    service.streams.end()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await until_end(answers)
    assert failure_of(ended.value).reason == "DRAINING"


async def until_end(call: AsyncIterator[Any]) -> None:
    async for _ in call:
        pass


def taken(name: str, seconds: float | None, **changes: Any) -> pb.StreamPosesRequest:
    request = picture(name)
    if seconds is not None:
        request.frame.capture_time.FromNanoseconds(round(seconds * 1e9))
    for field, value in changes.items():
        setattr(request.frame, field, value)
    return request


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (taken("bad", 2e10), "frame.capture_time"),
        (taken("bad", 0.5), "frame.capture_time"),
        (taken("bad", -1), "frame.capture_time"),
        (taken("bad", None), "frame.capture_time"),
        (taken("bad" + "x" * 200, 2.0), "frame.frame_id"),
    ],
    ids=["too far", "falling", "negative", "missing", "long name"],
)
async def test_a_wrong_frame_is_told_by_field_and_not_followed(
    service: Service, bad: pb.StreamPosesRequest, field: str
) -> None:
    frames = [taken("a", 1.0), bad, taken("b", 1.1), taken("c", 1.2)]
    answers = await stream(service, frames)
    results = [answer.result for answer in answers if answer.HasField("result")]
    assert [result.frame_id[:3] for result in results] == ["a", "bad", "b", "c"]
    failed = of_status(results[1].error)
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(failed.violations) == [field]
    assert [result.persons[0].track_id for result in results if not result.HasField("error")] == [1, 1, 1]


async def test_a_capture_time_comes_back_to_the_nanosecond(service: Service) -> None:
    request = picture("a")
    request.frame.capture_time.FromNanoseconds(1_763_000_000_123_456_789)
    (result,) = [one.result for one in await stream(service, [request]) if one.HasField("result")]
    assert result.capture_time.ToNanoseconds() == 1_763_000_000_123_456_789


async def test_a_stream_without_pictures_is_ended() -> None:
    async def silent() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig())
        yield picture("a")
        await asyncio.sleep(60)

    async with running(stream_quiet_s=0.3, stream_keep_alive_s=0.1) as service:
        failed = await ended(service.poses.StreamPoses(silent(), timeout=30))
        assert (failed.code, failed.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "STREAM_IDLE")
        await until(lambda: service.streams.running == 0)
