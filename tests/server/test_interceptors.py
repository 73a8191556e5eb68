"""What every call goes through, on a real server: request ids, errors, one log line."""

import asyncio
import json
import math
import re
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Overloaded,
    PosegateError,
    SkeletonNotSupplied,
    Unavailable,
    Unimplemented,
    Violation,
)
from service.server.interceptors import RequestInterceptor
from service.server.reading import RequestReader
from service.telemetry.call_context import Observer
from service.telemetry.tracing import from_environment
from tests.fakes import until
from tests.pictures import encoded, jpeg, noise
from tests.running import Service, cancelled, detect_request, failure, running

PICTURE = jpeg((64, 48))


@contextmanager
def logged() -> Iterator[list[Any]]:
    """Log lines with the context that they are written in."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        yield lines


def list_models(service: Service, *metadata: tuple[str, str], timeout: float | None = 10) -> Any:
    return service.poses.ListModels(pb.ListModelsRequest(), metadata=metadata, timeout=timeout)


def raw(service: Service) -> Any:
    """The channel for calls without stubs, in bytes."""
    return service.channel


# --- request ids --------------------------------------------------------------------------------------


async def initial_id(call: Any) -> Any:
    return dict(await call.initial_metadata()).get("x-request-id")


@pytest.mark.parametrize("mine", ["a", "id-1", "x" * 128, "trace:00-4bf92f3577b34da6/1;~!"])
async def test_the_callers_request_id_is_echoed(service: Service, mine: str) -> None:
    call = list_models(service, ("x-request-id", mine))
    assert await initial_id(call) == mine
    await call


@pytest.mark.parametrize(
    "bad", ["", "x" * 129, "two words", " "], ids=["empty", "too long", "blank inside", "only a blank"]
)
async def test_a_bad_request_id_is_replaced(service: Service, bad: str) -> None:
    call = list_models(service, ("x-request-id", bad))
    assert re.fullmatch(r"[0-9a-f]{32}", await initial_id(call))
    await call


async def test_without_a_request_id_every_call_gets_a_new_one(service: Service) -> None:
    calls = [list_models(service) for _ in range(3)]
    ids = [await initial_id(call) for call in calls]
    await asyncio.gather(*calls)
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)


async def test_of_several_request_ids_the_first_good_one_counts(service: Service) -> None:
    call = list_models(
        service, ("x-request-id", "not good"), ("x-request-id", "good"), ("x-request-id", "late")
    )
    assert await initial_id(call) == "good"
    await call


async def test_the_request_id_reaches_triton(service: Service) -> None:
    await service.poses.DetectPoses(detect_request(PICTURE), metadata=[("x-request-id", "id-7")], timeout=60)
    assert service.triton.calls[0].request_id == "id-7"


# --- errors -------------------------------------------------------------------------------------------

ERRORS: list[tuple[PosegateError, str]] = [
    (InvalidRequest("bad", violations=[Violation("a", "1"), Violation("b", "2")]), "INVALID_ARGUMENT"),
    (NotFound("no such thing", metadata={"model": "x"}), "NOT_FOUND"),
    (NotAllowed("not for you"), "PERMISSION_DENIED"),
    (SkeletonNotSupplied("cannot"), "FAILED_PRECONDITION"),
    (Overloaded("too much", reason="QUEUE_FULL", retry_after_s=0.25), "RESOURCE_EXHAUSTED"),
    (Unavailable("away", retry_after_s=1.0), "UNAVAILABLE"),
    (DeadlineExceeded("too late"), "DEADLINE_EXCEEDED"),
    (Unimplemented("not yet"), "UNIMPLEMENTED"),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=[code for _, code in ERRORS])
async def test_errors_of_the_domain_arrive_with_all_their_details(
    service: Service, impatient: None, error: PosegateError, code: str
) -> None:
    service.triton.answer = error
    failed = await failure(
        service.poses.DetectPoses(detect_request(PICTURE), metadata=[("x-request-id", "id-1")], timeout=60)
    )
    assert failed.code is grpc.StatusCode[code]
    assert failed.message == error.message
    assert (failed.reason, failed.domain) == (error.reason, "posegate")
    assert failed.metadata == error.metadata
    assert failed.request_id == failed.trailing["x-request-id"] == "id-1"
    assert failed.retry_s == error.retry_after_s
    if isinstance(error, InvalidRequest):
        assert failed.violations == {"a": "1", "b": "2"}
    if error.retry_after_s is None:
        assert failed.initial["x-request-id"] == "id-1"
        assert "grpc-retry-pushback-ms" not in failed.trailing
    else:
        # Initial metadata would commit the call, and gRPC would not try again.
        assert "x-request-id" not in failed.initial
        assert failed.trailing["grpc-retry-pushback-ms"] == str(round(error.retry_after_s * 1000))


RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "posegate.v1.PoseService"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


@pytest.mark.parametrize("before_reading", [False, True])
async def test_grpcs_own_retries_try_a_refused_call_again(before_reading: bool) -> None:
    options = [("grpc.service_config", json.dumps(RETRIES))]
    async with (
        running(max_in_flight=1) as service,
        grpc.aio.insecure_channel(service.address, options=options) as channel,
    ):
        detect: Any = channel.unary_unary("/posegate.v1.PoseService/DetectPoses")
        content = detect_request(PICTURE).SerializeToString()
        with logged() as lines:
            if before_reading:
                service.triton.gate.clear()
                task = asyncio.create_task(service.detect(PICTURE))
                await service.triton.entered.wait()
                call = asyncio.ensure_future(detect(content, timeout=20))
                await until(lambda: any(line.get("code") == "RESOURCE_EXHAUSTED" for line in lines))
                service.triton.gate.set()
                await task
                await call  # answered at the next attempt
            else:
                service.triton.answer = Overloaded("full", reason="QUEUE_FULL", retry_after_s=0.01)
                failed = await failure(detect(content, timeout=60))
                assert failed.reason == "QUEUE_FULL"
                assert len(service.triton.calls) == 3


TEXT = "/srv/models/secret.onnx: api_key=abc123"


class Leaky(Exception):
    def __str__(self) -> str:
        return TEXT


@pytest.mark.parametrize("error", [Leaky(), RuntimeError(TEXT), KeyError(TEXT), ValueError()], ids=repr)
async def test_an_internal_error_says_nothing_but_where_to_look(service: Service, error: Exception) -> None:
    service.triton.answer = error
    with logged() as lines:
        failed = await failure(
            service.poses.DetectPoses(
                detect_request(PICTURE), metadata=[("x-request-id", "id-2")], timeout=60
            )
        )
        await until(lambda: any(line["event"] == "call" for line in lines))
    assert failed.code is grpc.StatusCode.INTERNAL
    assert failed.message == "internal error"
    assert (failed.reason, failed.domain) == ("INTERNAL", "posegate")
    assert failed.metadata == {"request_id": "id-2"}
    assert failed.retry_s is None
    assert "secret" not in repr(failed)
    assert "Traceback" not in repr(failed)
    (internal,) = [line for line in lines if line["event"] == "internal_error"]
    assert internal["exc_info"] is error
    assert internal["request_id"] == "id-2"
    (call,) = [line for line in lines if line["event"] == "call"]
    assert call["code"] == "INTERNAL"


async def test_messages_in_any_script_arrive(service: Service) -> None:
    failed = await failure(service.detect(PICTURE, model="modèle 模型 🙂\n"))
    assert failed.code is grpc.StatusCode.NOT_FOUND
    assert "'modèle 模型 🙂\n'" in failed.message
    assert failed.metadata == {"model": "modèle 模型 🙂\n"}


@pytest.mark.parametrize("field", ["model", "model_version", "skeleton"])
@pytest.mark.parametrize("character", ["x", "人"])
async def test_a_name_within_its_bound_is_looked_up_and_one_beyond_is_refused(
    service: Service, field: str, character: str
) -> None:
    failed = await failure(service.detect(PICTURE, **{field: character * 20}))
    assert failed.code is grpc.StatusCode.NOT_FOUND
    assert character * 20 in failed.metadata[field]
    failed = await failure(service.detect(PICTURE, **{field: character * 100_000}))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert list(failed.violations) == [field]


async def test_an_unknown_method_is_unimplemented(service: Service) -> None:
    for method in (
        "/posegate.v1.PoseService/Nothing",
        "/posegate.v1.Nothing/Nothing",
        "/other.Service/Nothing",
    ):
        assert (await failure(raw(service).unary_unary(method)(b"", timeout=60))).code is (
            grpc.StatusCode.UNIMPLEMENTED
        )


async def test_bytes_that_are_no_message_are_the_callers_to_mend(service: Service) -> None:
    method = raw(service).unary_unary("/posegate.v1.PoseService/DetectPoses")
    failed = await failure(method(b"\xff" * 100, metadata=[("x-request-id", "id-5")], timeout=60))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.reason == "MESSAGE_UNREADABLE"
    assert failed.initial["x-request-id"] == "id-5"
    assert "protobuf" not in failed.message
    await service.detect(PICTURE)


# --- streams ------------------------------------------------------------------------------------------


def handlers() -> grpc.GenericRpcHandler:
    """A service of ours with every kind of call; the request says what is to go wrong, and when."""

    async def numbers(request: bytes, context: Any) -> AsyncIterator[bytes]:
        count, _, problem = request.decode().partition(" ")
        try:
            for number in range(int(count)):
                yield str(number).encode()
            _go_wrong(problem)
        finally:
            structlog.contextvars.bind_contextvars(closed=True)

    async def total(requests: AsyncIterator[bytes], context: Any) -> bytes:
        received = [request async for request in requests]
        _go_wrong(received[-1].decode())
        return str(len(received)).encode()

    async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            _go_wrong(request.decode())
            yield request

    return grpc.method_handlers_generic_handler(
        "posegate.v1.TestService",
        {
            "Numbers": grpc.unary_stream_rpc_method_handler(numbers),
            "Total": grpc.stream_unary_rpc_method_handler(total),
            "Echo": grpc.stream_stream_rpc_method_handler(echo),
        },
    )


def _go_wrong(problem: str) -> None:
    problems: dict[str, Exception] = {
        "unavailable": Unavailable("away", retry_after_s=0.5),
        "unknown": NotFound("nothing"),
        "bug": RuntimeError(TEXT),
    }
    if problem in problems:
        raise problems[problem]


@pytest.fixture
async def streaming() -> AsyncIterator[Service]:
    async with running(handlers=[handlers()]) as service:
        yield service


NUMBERS, TOTAL, ECHO = (f"/posegate.v1.TestService/{name}" for name in ("Numbers", "Total", "Echo"))
MINE = [("x-request-id", "id-3")]


async def test_every_kind_of_stream_works_and_has_a_request_id(streaming: Service) -> None:
    numbers = raw(streaming).unary_stream(NUMBERS)(b"3", metadata=MINE, timeout=60)
    assert await initial_id(numbers) == "id-3"
    assert [answer async for answer in numbers] == [b"0", b"1", b"2"]
    total = raw(streaming).stream_unary(TOTAL)(iter([b"a", b"b"]), metadata=MINE, timeout=60)
    assert await initial_id(total) == "id-3"
    assert await total == b"2"
    echo = raw(streaming).stream_stream(ECHO)(iter([b"a", b"b"]), metadata=MINE, timeout=60)
    assert await initial_id(echo) == "id-3"
    assert [answer async for answer in echo] == [b"a", b"b"]


async def test_a_stream_without_answers_has_a_request_id_too(streaming: Service) -> None:
    call = raw(streaming).unary_stream(NUMBERS)(b"0", metadata=MINE, timeout=60)
    assert [answer async for answer in call] == []
    assert await initial_id(call) == "id-3"


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize(
    ("problem", "code"), [("unavailable", "UNAVAILABLE"), ("unknown", "NOT_FOUND"), ("bug", "INTERNAL")]
)
async def test_a_stream_that_fails_says_why_after_what_it_sent(
    streaming: Service, problem: str, code: str, before: int
) -> None:
    call = raw(streaming).unary_stream(NUMBERS)(f"{before} {problem}".encode(), metadata=MINE, timeout=60)
    received: list[bytes] = []

    async def receive() -> None:
        async for answer in call:
            received.append(answer)  # noqa: PERF401 - it fails in the end

    failed = await failure(receive())
    assert len(received) == before
    assert failed.code is grpc.StatusCode[code]
    assert failed.domain == "posegate"
    assert failed.trailing["x-request-id"] == "id-3"
    assert "secret" not in repr(failed)
    # Left out where the call can be tried again.
    assert await initial_id(call) == (None if problem == "unavailable" and not before else "id-3")


async def test_a_stream_whose_caller_leaves_ends_and_is_logged_as_cancelled(streaming: Service) -> None:
    with logged() as lines:
        call = raw(streaming).unary_stream(NUMBERS)(b"1000000000", metadata=MINE, timeout=60)
        assert await call.read() == b"0"
        call.cancel()
        await until(lambda: bool(lines))
    # The handler was closed before, so what it holds is free and what it says is in the line.
    assert [(line["code"], line["closed"], line["request_id"]) for line in lines] == [
        ("CANCELLED", True, "id-3")
    ]


async def test_a_client_stream_that_fails_says_why(streaming: Service) -> None:
    call = raw(streaming).stream_unary(TOTAL)(iter([b"a", b"bug"]), timeout=60)
    assert (await failure(call)).message == "internal error"


# --- deadlines ----------------------------------------------------------------------------------------

# The next one where a loaded machine took the whole time before the inference began.
TIMEOUTS_S = (0.3, 3.0, 30.0)


async def test_the_callers_deadline_stops_the_work(service: Service) -> None:
    service.triton.gate.clear()
    for timeout_s in TIMEOUTS_S:
        started = time.monotonic()
        failed = await failure(service.poses.DetectPoses(detect_request(PICTURE), timeout=timeout_s))
        assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < timeout_s + 20  # of 30 s that the service gives
        if service.triton.calls:
            break
    await until(lambda: service.triton.cancelled > 0)
    assert service.triton.under_way == 0


async def test_the_callers_deadline_reaches_triton(service: Service) -> None:
    before = time.monotonic()
    await service.poses.DetectPoses(detect_request(PICTURE), timeout=20)
    after = time.monotonic()
    assert before + 19 < service.triton.calls[0].deadline < after + 21


async def test_a_caller_without_a_deadline_gets_that_of_the_service() -> None:
    for timeout_s in TIMEOUTS_S:
        async with running(request_timeout_s=timeout_s) as service:
            service.triton.gate.clear()
            before = time.monotonic()
            failed = await failure(service.poses.DetectPoses(detect_request(PICTURE)))
            assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert failed.reason == "DEADLINE_EXCEEDED"
            assert "deadline" in failed.message
            assert failed.retry_s is None
            if service.triton.calls:
                break
    assert before + timeout_s < service.triton.calls[0].deadline < time.monotonic() + timeout_s
    assert service.triton.cancelled == 1


async def test_a_caller_may_wait_for_longer_than_the_service_would() -> None:
    async with running(request_timeout_s=0.1) as service:
        service.triton.gate.clear()
        task = asyncio.create_task(service.detect(PICTURE))
        await asyncio.sleep(0.3)
        service.triton.gate.set()
        await task


async def test_a_deadline_in_the_far_future_is_no_trouble(service: Service) -> None:
    await service.poses.DetectPoses(detect_request(PICTURE), timeout=1e9)


# --- cancellation -------------------------------------------------------------------------------------


async def test_a_cancelled_call_stops_the_inference_and_is_logged_as_cancelled(service: Service) -> None:
    service.triton.gate.clear()
    with logged() as lines:
        call = service.poses.DetectPoses(detect_request(PICTURE), timeout=60)
        await service.triton.entered.wait()
        await cancelled(call)
        await until(lambda: service.triton.cancelled == 1)
        await until(lambda: bool(lines))
    assert [line["code"] for line in lines] == ["CANCELLED"]


async def test_callers_who_go_away_together_leave_nothing_behind(service: Service) -> None:
    service.triton.gate.clear()
    calls = [service.poses.DetectPoses(detect_request(PICTURE), timeout=60) for _ in range(20)]
    await until(lambda: service.triton.under_way == 16)  # as many as the estimator lets in
    await asyncio.gather(*map(cancelled, calls))
    await until(lambda: service.triton.under_way == 0)
    service.triton.gate.set()
    await asyncio.gather(*(service.detect(PICTURE) for _ in range(20)))


# --- log lines ----------------------------------------------------------------------------------------


async def test_a_call_is_one_line_with_fields_and_no_picture(service: Service) -> None:
    content = encoded(noise((64, 48)), "JPEG")
    with logged() as lines:
        await service.poses.DetectPoses(
            detect_request(content),
            metadata=[("x-request-id", "id-4"), ("authorization", "Bearer abc")],
            timeout=60,
        )
        await until(lambda: bool(lines))
    (line,) = lines
    assert line["event"] == "call"
    assert line["log_level"] == "info"
    assert line["rpc"] == "DetectPoses"
    assert line["request_id"] == "id-4"
    assert line["code"] == "OK"
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert (line["width"], line["height"], line["persons"]) == (64, 48, 0)
    assert line["model"] == "yolo11n_pose"
    assert line["image_bytes"] == len(content)
    assert line["wall_ms"] > 0
    assert len(json.dumps(line)) < 600
    assert "Bearer" not in json.dumps(line)


async def test_a_refused_call_is_one_line_with_code_and_reason(service: Service) -> None:
    with logged() as lines:
        await failure(service.detect(b""))
        await until(lambda: bool(lines))
    assert [(line["code"], line["reason"]) for line in lines] == [("INVALID_ARGUMENT", "IMAGE_UNDECODABLE")]


async def test_what_one_call_logs_does_not_show_in_the_next(service: Service) -> None:
    with logged() as lines:
        await service.detect(PICTURE)
        await list_models(service)
        await until(lambda: len(lines) == 2)
    assert "persons" in lines[0]
    assert "persons" not in lines[1]
    assert lines[0]["request_id"] != lines[1]["request_id"]


STAGES_MS = {"decode_ms", "preprocess_ms", "queue_ms", "inference_ms", "postprocess_ms"}


async def line_of(lines: list[Any]) -> dict[str, Any]:
    """The one line of the one call."""
    await until(lambda: bool(lines))
    (line,) = [line for line in lines if line["event"] == "call"]
    return dict(line)


def milliseconds(line: dict[str, Any]) -> set[str]:
    assert all(value > 0 for name, value in line.items() if name.endswith("_ms"))
    return {name for name in line if name.endswith("_ms")} - {"wall_ms"}


async def test_the_line_of_a_call_has_the_time_of_every_stage(service: Service) -> None:
    overlay = types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_JPEG)
    with logged() as lines:
        await service.detect(PICTURE, overlay=overlay)
        line = await line_of(lines)
    assert milliseconds(line) == STAGES_MS | {"draw_ms"}


async def test_the_line_of_a_failed_call_says_how_far_it_came(service: Service) -> None:
    service.triton.answer = DeadlineExceeded("late")
    with logged() as lines:
        await failure(service.detect(PICTURE))
        line = await line_of(lines)
    assert (line["model"], line["width"], line["height"]) == ("yolo11n_pose", 64, 48)
    assert milliseconds(line) == STAGES_MS - {"postprocess_ms"}
    assert "persons" not in line


async def test_the_line_of_a_batch_sums_up_its_pictures(service: Service) -> None:
    pictures = [detect_request(PICTURE), detect_request(b""), detect_request(jpeg((32, 16)))]
    with logged() as lines:
        await service.poses.BatchDetectPoses(pb.BatchDetectPosesRequest(requests=pictures), timeout=60)
        line = await line_of(lines)
    assert (line["pictures"], line["failed"], line["persons"]) == (3, 1, 0)
    assert sorted(line["sizes"]) == ["32x16", "64x48"]
    assert line["model"] == "yolo11n_pose"
    assert milliseconds(line) == STAGES_MS


async def test_the_line_of_a_stream_counts_its_frames_however_it_ends(service: Service) -> None:
    async def frames() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig(frame_policy=pb.FRAME_POLICY_EVERY))
        for _ in range(3):
            yield pb.StreamPosesRequest(frame=pb.StreamFrame(encoded=PICTURE))
        await asyncio.sleep(60)

    with logged() as lines:
        call = service.poses.StreamPoses(frames(), timeout=30)
        for _ in range(4):
            await call.read()
        call.cancel()
        line = await line_of(lines)
    assert (line["code"], line["frames"], line["model"]) == ("CANCELLED", 3, "yolo11n_pose")
    assert (line["width"], line["height"]) == (64, 48)
    assert milliseconds(line) == STAGES_MS


async def test_no_line_holds_a_picture_or_a_key_whatever_goes_wrong(service: Service) -> None:
    content = encoded(noise((64, 48)), "PNG")
    key = [("authorization", "Bearer key-7"), ("x-api-key", "key-7")]

    async def frames() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig())
        yield pb.StreamPosesRequest(frame=pb.StreamFrame(encoded=content))

    with logged() as lines:
        for answer in (service.triton.answer, RuntimeError("boom"), Overloaded("full")):
            service.triton.answer = answer
            batch = pb.BatchDetectPosesRequest(requests=[detect_request(content)])
            for call in (
                service.poses.DetectPoses(detect_request(content), metadata=key, timeout=60),
                service.poses.BatchDetectPoses(batch, metadata=key, timeout=60),
            ):
                with suppress(grpc.aio.AioRpcError):
                    await call
            async for _ in service.poses.StreamPoses(frames(), metadata=key, timeout=60):
                pass
        await until(lambda: [line["event"] for line in lines].count("call") == 9)
    written = repr(lines)
    assert "key-7" not in written
    assert not any(repr(content[start : start + 8])[2:-1] in written for start in range(0, 400, 8))


async def test_no_deadline_in_the_words_of_java_is_the_deadline_of_the_service() -> None:
    reader = RequestReader(1 << 20, Observer().received, ThreadPoolExecutor(1))
    interceptor = RequestInterceptor(30.0, reader, 1 << 20, Observer(), from_environment())

    class Call:
        def time_remaining(self) -> float:
            return 9_223_372_036.0  # Long.MAX_VALUE nanoseconds

    before = time.monotonic()
    assert before + 30 <= interceptor._deadline(Call(), streaming=False) < before + 60  # type: ignore[arg-type]
    assert interceptor._deadline(Call(), streaming=True) == math.inf  # type: ignore[arg-type]
