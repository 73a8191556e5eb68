"""The caller of `scripts/chaos` that writes prepared frames, against gRPC's own server and a bare socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import pytest

from scripts.chaos_frames import ConnectionLost, FrameCaller

METHOD = "/posegate.v1.PoseService/DetectPoses"
MESSAGE = bytes(range(256)) * 1200  # several windows of a stream

SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
TRAILERS = b"\0\x0bgrpc-status\x01"  # a field without a table; its value follows


class Service(grpc.GenericRpcHandler):
    """Answers the method, or refuses it before the request is read."""

    def __init__(self) -> None:
        self.refuses = False
        self.received: list[bytes] = []
        self.timeouts: list[float] = []
        self.at_work = self.most_at_work = 0

    def service(self, details: Any) -> Any:
        return grpc.stream_unary_rpc_method_handler(self._call) if details.method == METHOD else None

    async def _call(self, requests: Any, context: Any) -> bytes:
        if self.refuses:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many", (("x-request-id", "a"),))
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.timeouts.append(context.time_remaining())
        self.received += [request async for request in requests]
        self.at_work -= 1
        return b"answer" * 20_000


@asynccontextmanager
async def serving(*options: tuple[str, int]) -> AsyncIterator[tuple[Service, str, grpc.aio.Server]]:
    service, server = Service(), grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield service, f"127.0.0.1:{port}", server
    finally:
        await server.stop(None)


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, threading.Event]]:
    """A server that answers the first bytes it gets; the event is set when it has."""
    listening, answered = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(SETTINGS)
            while METHOD.encode() not in connection.recv(1 << 16):
                pass
            connection.sendall(answer)
            answered.set()
            while connection.recv(1 << 16):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}", answered
    finally:
        listening.close()
        thread.join()


def headers(flags: int, content: bytes, kind: int = 1) -> bytes:
    """A frame of the first stream."""
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + b"\0\0\0\x01" + content


async def test_messages_of_many_calls_arrive_whole_and_are_answered() -> None:
    async with serving() as (service, address, _), FrameCaller(address, METHOD, MESSAGE, 60) as caller:
        ends = await asyncio.gather(*(caller.call() for _ in range(20)))
    assert [code for code, _ in ends] == ["OK"] * 20
    assert service.received == [MESSAGE] * 20
    assert all(0 < seconds < 60 for _, seconds in ends)
    assert all(0 < left <= 60 for left in service.timeouts)


async def test_a_refusal_is_told_by_its_code_and_calls_after_it_are_answered() -> None:
    async with serving() as (service, address, _), FrameCaller(address, METHOD, MESSAGE, 60) as caller:
        service.refuses = True
        ends = await asyncio.gather(*(caller.call() for _ in range(50)))
        assert {code for code, _ in ends} == {"RESOURCE_EXHAUSTED"}
        service.refuses = False
        assert (await caller.call())[0] == "OK"
    assert service.received == [MESSAGE]


async def test_an_unknown_method_has_its_code() -> None:
    async with serving() as (_, address, _), FrameCaller(address, "/other.Service/Method", b"", 60) as caller:
        assert (await caller.call())[0] == "UNIMPLEMENTED"


async def test_no_more_calls_are_open_than_the_server_allows() -> None:
    options = ("grpc.max_concurrent_streams", 2)
    async with serving(options) as (service, address, _), FrameCaller(address, METHOD, MESSAGE, 60) as caller:
        ends = await asyncio.gather(*(caller.call() for _ in range(10)))
    assert [code for code, _ in ends] == ["OK"] * 10
    assert service.received == [MESSAGE] * 10
    assert service.most_at_work <= 2


async def test_calls_fail_when_the_connection_is_lost() -> None:
    async with serving() as (_, address, server), FrameCaller(address, METHOD, MESSAGE, 60) as caller:
        assert (await caller.call())[0] == "OK"
        await server.stop(None)
        with pytest.raises(ConnectionLost):
            await caller.call()


async def test_a_call_ends_when_the_kernel_has_its_answer_not_when_the_caller_reads_it() -> None:
    with answering(headers(0x5, TRAILERS + b"0")) as (address, answered):
        async with FrameCaller(address, METHOD, b"", 60) as caller:
            begun = time.time()
            call = asyncio.create_task(caller.call())
            await asyncio.sleep(0)  # it is written
            assert answered.wait(60)  # and the loop stands still
            there = time.time() - begun
            time.sleep(0.3)  # noqa: ASYNC251
            code, seconds = await call
    assert code == "OK"
    assert 0 < seconds <= there


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(headers(0x5, TRAILERS + b"8"), "RESOURCE_EXHAUSTED", id="trailers only"),
        pytest.param(
            headers(0x4, b"\x88") + headers(0, b"body", kind=0) + headers(0x5, TRAILERS + b"0"),
            "OK",
            id="with an answer",
        ),
        pytest.param(
            headers(0x1, b"\x20\x88" + TRAILERS[:5]) + headers(0x4, TRAILERS[5:] + b"1", kind=9),
            "CANCELLED",
            id="in two frames",
        ),
        pytest.param(
            headers(0x5, b"\x5f\x10application/grpc" + TRAILERS + b"5"), "NOT_FOUND", id="after a known name"
        ),
        pytest.param(headers(0x5, b"\x88"), "UNKNOWN", id="without a code"),
        pytest.param(headers(0, b"\0\0\0\x0b", kind=3), "RESOURCE_EXHAUSTED", id="reset"),
    ],
)
async def test_the_code_is_found_in_any_answer(answer: bytes, code: str) -> None:
    with answering(answer) as (address, _):
        async with FrameCaller(address, METHOD, b"", 60) as caller:
            assert (await caller.call())[0] == code
