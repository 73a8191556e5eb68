"""Requests are checked and parsed, those of many elements apart from the event loop."""

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from typing_extensions import override

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import skeleton_service_pb2 as skeletons_pb
from posegate.v1 import types_pb2
from service.errors import InvalidRequest, Overloaded
from service.server import reading
from service.server.bounds import MAX_ELEMENTS
from service.server.reading import RequestReader, bytes_read
from tests.fakes import until
from tests.pictures import jpeg
from tests.running import detect_request, failure, running

DETECT = "/posegate.v1.PoseService/DetectPoses"
EXPORT = "/posegate.v1.SkeletonService/ExportPoses"
NAME_AGAIN = b"\x12\x00"  # the field `skeleton`, of which the last one counts


class Counted(ThreadPoolExecutor):
    """A thread that counts what it is given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.given = 0

    @override
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given += 1
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
def thread() -> Iterator[Counted]:
    with Counted() as one:
        yield one


def reader(thread: Counted) -> RequestReader:
    return RequestReader(1 << 28, lambda count: None, thread)


def deserializer(one: RequestReader, method: str = EXPORT) -> Callable[[bytes], Any]:
    kinds: dict[str, Any] = {EXPORT: skeletons_pb.ExportPosesRequest, DETECT: pb.DetectPosesRequest}
    read = one.deserializer(method, kinds[method].FromString)
    assert read is not None
    return read


async def test_a_small_request_is_read_at_once(thread: Counted) -> None:
    one = reader(thread)
    request = skeletons_pb.ExportPosesRequest(skeleton="coco_17")
    assert await one.read(deserializer(one)(request.SerializeToString())) == request
    assert thread.given == 0


async def test_the_size_of_a_request_is_known_to_its_task_and_no_other(thread: Counted) -> None:
    read = deserializer(reader(thread), DETECT)

    async def size_of(content: bytes) -> int:
        read(content)
        await asyncio.sleep(0)  # others read theirs
        return bytes_read()

    contents = [
        pb.DetectPosesRequest(image=types_pb2.Image(content=bytes(size))).SerializeToString()
        for size in (10, 1000, 100)
    ]
    assert await asyncio.gather(*map(size_of, contents)) == list(map(len, contents))
    assert bytes_read() == 0


async def test_a_request_of_many_elements_is_read_in_the_thread(thread: Counted) -> None:
    one = reader(thread)
    request = skeletons_pb.ExportPosesRequest(skeleton="coco_17")
    content = NAME_AGAIN * 100_000 + request.SerializeToString()
    assert await one.read(deserializer(one)(content)) == request
    assert thread.given == 1


async def test_a_request_of_too_many_elements_is_refused_from_the_thread(thread: Counted) -> None:
    one = reader(thread)
    read = deserializer(one)(NAME_AGAIN * (MAX_ELEMENTS + 1))
    with pytest.raises(InvalidRequest, match="more than 1000000 elements"):
        await one.read(read)
    assert thread.given == 1


async def test_a_list_that_is_too_long_needs_no_thread(thread: Counted) -> None:
    one = reader(thread)
    with pytest.raises(InvalidRequest, match="at most 10000 elements"):
        await one.read(deserializer(one)(b"\x1a\x00" * MAX_ELEMENTS))
    assert thread.given == 0


async def test_bytes_that_are_no_message_are_told_from_the_thread_too(thread: Counted) -> None:
    one = reader(thread)
    for content in (b"\xff", NAME_AGAIN * 100_000 + b"\x12\x02\xff\xff"):
        with pytest.raises(InvalidRequest) as refused:
            await one.read(deserializer(one)(content))
        assert refused.value.reason == "MESSAGE_UNREADABLE"


async def test_a_stream_raises_at_the_request_that_cannot_be_read(thread: Counted) -> None:
    one = reader(thread)
    read = deserializer(one, DETECT)
    request = pb.DetectPosesRequest(model="m")

    async def received() -> AsyncIterator[Any]:
        yield read(request.SerializeToString())
        yield read(b"\xff")

    requests = await one.read(received())
    assert await anext(requests) == request
    with pytest.raises(InvalidRequest):
        await anext(requests)


async def test_a_caller_of_too_many_elements_is_told() -> None:
    async with running() as service:
        export: Any = service.channel.unary_unary(EXPORT)
        failed = await failure(export(NAME_AGAIN * (MAX_ELEMENTS + 1), timeout=60))
        assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "more than 1000000 elements" in failed.message


async def test_no_more_than_some_wait_for_the_thread(
    thread: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_IN_THREAD", 2)
    one = reader(thread)
    read = deserializer(one)
    content = NAME_AGAIN * 100_000
    go = threading.Event()
    thread.submit(go.wait)
    waiting = [asyncio.create_task(one.read(read(content))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await one.read(read(content))
    assert refused.value.reason == "TOO_MANY_IN_FLIGHT"
    waiting.pop().cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.append(asyncio.create_task(one.read(read(content))))
    go.set()
    await asyncio.gather(*waiting)


async def test_a_call_that_waits_for_the_thread_ends_at_the_deadline_of_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()
    monkeypatch.setattr(reading._Unread, "read", lambda unread: go.wait())
    async with running(request_timeout_s=0.5) as service:
        export: Any = service.channel.unary_unary(EXPORT)
        try:
            async with asyncio.timeout(60):
                failed = await failure(export(NAME_AGAIN * 100_000))
        finally:
            go.set()
    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_bytes_are_not_kept_while_the_call_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    unread: list[weakref.ref[Any]] = []
    read = reading._Unread.read

    def seen(self: Any) -> Any:
        unread.append(weakref.ref(self))
        return read(self)

    monkeypatch.setattr(reading._Unread, "read", seen)
    async with running() as service:
        service.triton.gate.clear()
        detect: Any = service.channel.unary_unary(DETECT)
        content = b"\x7a\x00" * 30_000 + detect_request(jpeg((64, 48))).SerializeToString()
        call = asyncio.ensure_future(detect(content, timeout=60))
        await service.triton.entered.wait()
        await until(lambda: len(unread) == 1 and unread[0]() is None)
        service.triton.gate.set()
        await call
