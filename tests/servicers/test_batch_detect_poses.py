"""BatchDetectPoses: as many results as requests, in order, and nobody harms a neighbour."""

import asyncio
from typing import Any

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.geometry import Rgb8
from service.errors import Overloaded
from tests.fakes import candidate, rows, until
from tests.pictures import encoded, jpeg, plain
from tests.running import Service, cancelled, detect_request, failure, of_status, running

VGA = jpeg((640, 480))


def batch(*requests: pb.DetectPosesRequest) -> pb.BatchDetectPosesRequest:
    return pb.BatchDetectPosesRequest(requests=requests)


def shade(value: int) -> pb.DetectPosesRequest:
    return detect_request(encoded(plain((640, 480), (value, 0, 0)), "PNG"))


def person_at_shade(image: Rgb8) -> Any:
    x = float(image[0, 0, 0])
    return rows(candidate((x, 0, x + 50, 50), 0.9))


async def test_an_empty_batch_is_refused_as_a_whole(service: Service) -> None:
    failed = await failure(service.poses.BatchDetectPoses(batch(), timeout=60))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.violations == {"requests": "must be 1 to 4, not 0"}


async def test_too_many_pictures_are_refused_as_a_whole(service: Service) -> None:
    failed = await failure(service.poses.BatchDetectPoses(batch(*[detect_request(VGA)] * 5), timeout=60))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.violations == {"requests": "must be 1 to 4, not 5"}
    assert service.triton.calls == []


async def test_a_batch_of_one_answers_what_the_single_call_does(service: Service) -> None:
    service.triton.answer = rows(candidate((100, 50, 200, 350), 0.9))
    request = detect_request(VGA, overlay={"format": types_pb2.OVERLAY_FORMAT_PNG})
    (result,) = (await service.poses.BatchDetectPoses(batch(request), timeout=60)).responses
    single = await service.poses.DetectPoses(request, timeout=60)
    for answer in (result.response, single):
        answer.ClearField("timings")
    assert result.response == single


async def test_results_come_in_the_order_of_the_requests_whichever_ends_first(service: Service) -> None:
    first_waits = asyncio.Event()
    infer = service.triton.infer

    async def slow_first(*args: Any, **options: Any) -> Any:
        if args[1]["images"][0, 0, 0, 0] == 10:
            await first_waits.wait()
        elif args[1]["images"][0, 0, 0, 0] == 40:
            first_waits.set()
        return await infer(*args, **options)

    service.triton.infer = slow_first  # type: ignore[method-assign]
    service.triton.answer = person_at_shade
    answer = await service.poses.BatchDetectPoses(
        batch(shade(10), shade(20), shade(30), shade(40)), timeout=60
    )
    assert [result.response.persons[0].box.x1 for result in answer.responses] == [10, 20, 30, 40]


async def test_every_kind_of_bad_picture_leaves_its_neighbours_alone() -> None:
    async with running(max_batch_size=9) as service:
        service.triton.answer = person_at_shade
        answer = await service.poses.BatchDetectPoses(
            batch(
                shade(10),
                detect_request(b""),
                pb.DetectPosesRequest(),
                detect_request(VGA, model="nobody"),
                detect_request(VGA, min_score=7, max_persons=-1),
                detect_request(VGA, skeleton="octopus"),
                detect_request(VGA, region_of_interest=types_pb2.Box(x1=700, x2=800, y2=10)),
                pb.DetectPosesRequest(image=types_pb2.Image(uri="https://localhost/")),
                shade(90),
            ),
            timeout=60,
            metadata=[("x-request-id", "id-1")],
        )
    good = [result.response.persons[0].box.x1 for result in answer.responses if result.HasField("response")]
    assert good == [10, 90]
    failed = [of_status(result.error) for result in answer.responses if result.HasField("error")]
    assert [(one.code.name, one.reason) for one in failed] == [
        ("INVALID_ARGUMENT", "IMAGE_UNDECODABLE"),
        ("INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("NOT_FOUND", "MODEL_NOT_FOUND"),
        ("INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("NOT_FOUND", "SKELETON_NOT_FOUND"),
        ("INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("PERMISSION_DENIED", "URI_OFF"),
    ]
    assert list(failed[1].violations) == ["image"]
    assert list(failed[3].violations) == ["min_score", "max_persons"]
    assert {one.request_id for one in failed} == {"id-1"}


async def test_errors_of_a_picture_are_what_the_single_call_would_say(service: Service) -> None:
    service.triton.answer = Overloaded("full", reason="QUEUE_FULL", retry_after_s=0.25)
    single = await failure(service.detect(VGA))
    answer = await service.poses.BatchDetectPoses(batch(detect_request(VGA)), timeout=60)
    one = of_status(answer.responses[0].error)
    assert (one.code, one.message, one.reason, one.retry_s) == (
        single.code, single.message, single.reason, single.retry_s,
    )  # fmt: skip


async def test_an_internal_error_of_one_picture_says_nothing_and_is_logged(service: Service) -> None:
    service.triton.script = [RuntimeError("/srv/secret"), rows(candidate((0, 0, 9, 9), 0.9))]
    with capture_logs() as lines:
        answer = await service.poses.BatchDetectPoses(
            batch(detect_request(VGA), detect_request(VGA)), timeout=60, metadata=[("x-request-id", "id-2")]
        )
    outcomes = sorted(result.WhichOneof("outcome") or "" for result in answer.responses)
    assert outcomes == ["error", "response"]
    (one,) = [of_status(result.error) for result in answer.responses if result.HasField("error")]
    assert (one.code, one.message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert one.metadata == {"request_id": "id-2"}
    assert "secret" not in str(answer)
    assert [line["event"] for line in lines].count("internal_error") == 1


async def test_a_batch_has_no_more_pictures_at_work_than_the_model_takes() -> None:
    async with running(max_inferences=2) as service:
        service.triton.gate.clear()
        task = asyncio.create_task(_run(service, 4))
        await until(lambda: service.triton.under_way == 2)
        await asyncio.sleep(0.05)
        assert service.triton.under_way == 2
        service.triton.gate.set()
        assert len((await task).responses) == 4
        assert service.triton.most_at_once == 2


async def _run(service: Service, count: int) -> pb.BatchDetectPosesResponse:
    return await service.poses.BatchDetectPoses(batch(*[detect_request(VGA)] * count), timeout=60)


async def test_a_cancelled_batch_stops_all_its_pictures() -> None:
    async with running(max_inferences=2) as service:
        service.triton.gate.clear()
        call = service.poses.BatchDetectPoses(batch(*[detect_request(VGA)] * 4), timeout=60)
        await until(lambda: service.triton.under_way == 2)
        await cancelled(call)
        await until(lambda: service.triton.cancelled == 2)
        service.triton.gate.set()
        await asyncio.sleep(0.05)
        assert len(service.triton.calls) == 2  # those that waited never began


async def test_a_batch_ends_with_its_deadline() -> None:
    async with running(request_timeout_s=0.2) as service:
        service.triton.gate.clear()
        failed = await failure(service.poses.BatchDetectPoses(batch(*[detect_request(VGA)] * 4)))
        assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert service.triton.under_way == 0


@pytest.mark.parametrize("bad", [0, 1, 3])
async def test_the_log_line_counts_pictures_and_failures(service: Service, bad: int) -> None:
    requests = [detect_request(b"")] * bad + [detect_request(VGA)] * (3 - bad)
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await service.poses.BatchDetectPoses(batch(*requests), timeout=60)
        await until(lambda: bool(lines))
    assert [(line["event"], line["pictures"], line["failed"]) for line in lines] == [("call", 3, bad)]
