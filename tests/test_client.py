"""The channel that other services copy: retries, large messages."""

import asyncio
import random
import time
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.ports import free_address
from service import client
from service.client import connect, is_loopback
from service.errors import DeadlineExceeded, NotFound, Overloaded, PosegateError, Unavailable
from tests.fakes import until
from tests.pictures import encoded, noise
from tests.running import Service, detect_request, failure, running

LARGE = encoded(noise((400, 300)), "PNG")


class Clock:
    """The clock of a channel's retries. Their pauses take none of a test's time, and what the machine takes
    counts for nothing.

    Attributes:
        now: seconds.
        overshoot_s: by which every pause is longer than it should be.
    """

    def __init__(self) -> None:
        self.now = self.overshoot_s = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds + self.overshoot_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=one.monotonic))
    monkeypatch.setattr(client, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": one.sleep}))
    return one


def test_the_picture_is_larger_than_what_grpc_keeps_for_a_retry_by_itself() -> None:
    assert len(LARGE) > 300_000 > 256 << 10


@pytest.mark.parametrize(
    "refusal",
    [Overloaded("full", retry_after_s=0.05), Unavailable("away", retry_after_s=0.05)],
    ids=["RESOURCE_EXHAUSTED", "UNAVAILABLE"],
)
async def test_a_large_picture_is_sent_again_when_that_can_help(
    service: Service, refusal: PosegateError
) -> None:
    service.triton.script = [refusal]
    async with connect(service.address) as channel:
        answer = await PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=60)
    assert answer.image_size.width == 400
    assert len(service.triton.calls) == 2


async def test_a_full_service_is_tried_again_when_it_says_so() -> None:
    async with running(max_in_flight=1) as service:
        service.triton.gate.clear()
        busy = asyncio.create_task(service.detect(LARGE))
        await service.triton.entered.wait()
        with capture_logs() as lines:
            async with connect(service.address) as channel:
                started = time.monotonic()
                call = PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=30)
                await until(lambda: any(line.get("code") == "RESOURCE_EXHAUSTED" for line in lines))
                service.triton.gate.set()
                await busy
                await call
                assert time.monotonic() - started > 0.2  # the service had asked for 0.25 s
    assert len(service.triton.calls) == 2


async def test_it_tries_until_its_timeout_and_gives_the_last_answer(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    monkeypatch.setattr(client, "_LONGEST_PAUSE_S", 100.0)  # so that the last attempt has much time left
    service.triton.answer = Overloaded("full", reason="QUEUE_FULL", retry_after_s=0.01)
    async with connect(service.address) as channel:
        failed = await failure(PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=50))
    assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert len(service.triton.calls) == 9  # pauses of 0.11, 0.21, 0.41 to 12.81 s; 25.61 more are too many
    assert clock.now == pytest.approx(0.1 * (2**8 - 1) + 8 * 0.01)


async def test_pauses_between_attempts_do_not_grow_for_ever(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    service.triton.script = [Overloaded("full", reason="QUEUE_FULL", retry_after_s=0.01)] * 10
    async with connect(service.address) as channel:
        await PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=50)
    assert clock.now == pytest.approx(0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 5 * 2.0 + 10 * 0.01)


async def test_no_attempt_is_begun_that_has_no_time_for_an_answer(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt that was refused took 10 s: one more, a second before the end, would only time out."""
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    service.triton.answer = Overloaded("full", reason="QUEUE_FULL", retry_after_s=0.2)
    infer = service.triton.infer

    async def slow(*args: Any, **kwargs: Any) -> Any:
        clock.now += 10.0
        return await infer(*args, **kwargs)

    monkeypatch.setattr(service.triton, "infer", slow)
    async with connect(service.address) as channel:
        failed = await failure(PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=11))
    assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert len(service.triton.calls) == 1


async def test_time_spent_on_the_way_to_a_gateway_that_restarts_leaves_the_rest_for_attempts(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt waited for the connection, and found a queue that all others have come to as well."""
    service.triton.script = [Overloaded("full", reason="QUEUE_FULL", retry_after_s=0.2)]
    infer = service.triton.infer

    async def after_a_wait(*args: Any, **kwargs: Any) -> Any:
        clock.now += 0.0 if service.triton.calls else 11.0
        return await infer(*args, **kwargs)

    monkeypatch.setattr(service.triton, "infer", after_a_wait)
    async with connect(service.address) as channel:
        answer = await PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=20)
    assert answer.image_size.width == 400


async def test_no_attempt_is_begun_after_a_pause_that_took_all_of_the_time(
    service: Service, clock: Clock
) -> None:
    """As on a machine that stood still meanwhile."""
    service.triton.answer = Overloaded("full", reason="QUEUE_FULL", retry_after_s=0.2)
    clock.overshoot_s = 30.0
    async with connect(service.address) as channel:
        failed = await failure(PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=20))
    assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert len(service.triton.calls) == 1


async def test_a_call_waits_for_a_gateway_that_is_not_there_yet() -> None:
    address = free_address()
    async with connect(address) as channel:
        call = asyncio.create_task(_detect(channel))
        await asyncio.sleep(0.3)
        async with running(listen=address):
            assert (await call).image_size.width == 400


async def test_a_gateway_that_never_answered_is_given_up_where_the_caller_says_so() -> None:
    started = time.monotonic()
    async with connect("127.0.0.1:9", first_contact_s=0.2) as channel:
        failed = await failure(_detect(channel))
    assert failed.code is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started < 20  # of 30


async def test_an_attempt_to_reach_a_gateway_that_never_answered_has_all_of_the_callers_time(
    clock: Clock,
) -> None:
    """Cut short, it would end with DEADLINE_EXCEEDED on a machine that stands still for a moment."""
    left_s: list[float] = []

    async def refuse_once(request: bytes, context: Any) -> bytes:
        left_s.append(context.time_remaining())
        if len(left_s) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not the gateway's own words")
        return b""

    server = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(refuse_once)
    handler = grpc.method_handlers_generic_handler("posegate.v1.PoseService", {"DetectPoses": method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with connect(f"127.0.0.1:{port}", first_contact_s=2.0) as channel:
            await PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=60)
    finally:
        await server.stop(None)
    assert len(left_s) == 2
    assert left_s[1] > 2.0


async def _detect(channel: grpc.aio.Channel) -> pb.DetectPosesResponse:
    return await PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=30)


@pytest.mark.parametrize(
    "error",
    [NotFound("no"), DeadlineExceeded("late"), RuntimeError("bug")],
    ids=lambda error: type(error).__name__,
)
async def test_what_another_attempt_cannot_help_is_not_sent_again(service: Service, error: Exception) -> None:
    service.triton.answer = error
    async with connect(service.address) as channel:
        await failure(PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=60))
    assert len(service.triton.calls) == 1


async def test_an_answer_larger_than_four_megabytes_arrives(service: Service) -> None:
    request = detect_request(
        encoded(noise((1600, 1000)), "PNG"), overlay={"format": types_pb2.OVERLAY_FORMAT_PNG}
    )
    async with connect(service.address) as channel:
        answer = await PoseServiceStub(channel).DetectPoses(request, timeout=60)
    assert len(answer.overlay.content) > 4 << 20


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:50051", True),
        ("127.1.2.3:50051", True),
        ("localhost:50051", True),
        ("LocalHost", True),
        ("[::1]:50051", True),
        ("unix:/run/posegate.sock", True),
        ("unix:///run/posegate.sock", True),
        ("dns:///localhost:50051", True),
        ("dns://8.8.8.8/posegate:50051", False),
        ("ipv4:127.0.0.1:50051", True),
        ("10.0.0.1:50051", False),
        ("[fe80::1]:50051", False),
        ("posegate.example:50051", False),
        ("localhost.example:50051", False),
        ("", False),
    ],
)
def test_loopback_addresses_are_told_from_others(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
async def test_a_loopback_address_is_never_called_through_a_proxy(
    service: Service, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    options = [("grpc.service_config", "{}"), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(service.address, options=options) as through_proxy:
        failed = await failure(PoseServiceStub(through_proxy).DetectPoses(detect_request(LARGE), timeout=60))
    assert failed.code is grpc.StatusCode.UNAVAILABLE  # the variable has an effect on other channels
    async with connect(service.address) as channel:
        answer = await PoseServiceStub(channel).DetectPoses(detect_request(LARGE), timeout=60)
    assert answer.image_size.width == 400
