"""Requests are checked and parsed, those of many elements apart from the event loop."""

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from typing_extensions import override

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import skeleton_service_pb2 as skeletons_pb
from service.errors import InvalidRequest
from service.server.bounds import MAX_ELEMENTS
from service.server.reading import RequestReader
from tests.running import failure, running

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
