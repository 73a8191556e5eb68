"""Callers who leave, dawdle, or send too much: nothing of them stays behind."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import suppress

import grpc
import pytest

from tests.pictures import jpeg
from tests.web.running import FakeGateway, RunningDoor, multipart, refusal, running_door, until

PICTURE = jpeg((64, 128))
SOON_S = 30.0  # far more than the second that is promised: a loaded machine is no bug


async def send(door: RunningDoor, content: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(content)
    await writer.drain()
    return reader, writer


def post(path: str, length: int, content_type: str = "image/jpeg") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n"
        f"content-length: {length}\r\n\r\n"
    ).encode()


async def test_a_caller_who_leaves_cancels_the_call(fake: FakeGateway, faked: RunningDoor) -> None:
    fake.hold.clear()
    _, writer = await send(faked, post("/v1/pose", len(PICTURE)) + PICTURE)
    await until(lambda: fake.started == 1)
    writer.close()
    await asyncio.wait_for(fake.cancelled.wait(), SOON_S)
    await until(lambda: not faked.server.server_state.tasks)


async def test_a_caller_who_leaves_in_the_middle_of_a_video_cancels_it(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    content_type, body = multipart(("video", "a.mp4", b"x" * 100_000))
    _, writer = await send(faked, post("/v1/video/upload", 10_000_000, content_type) + body[:50_000])
    await until(lambda: fake.video_bytes > 0)
    writer.close()
    await asyncio.wait_for(fake.cancelled.wait(), SOON_S)
    await until(lambda: not faked.server.server_state.tasks)


async def test_a_caller_who_leaves_while_the_gateway_takes_nothing_cancels_it(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    fake.hold.clear()
    _, writer = await asyncio.open_connection(faked.host, faked.port)
    writer.write(post("/v1/video/upload", 1 << 30, "video/mp4"))
    sent = 0
    try:
        async with asyncio.timeout(3):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
    except TimeoutError:
        pass
    assert sent < 200 << 20, "a slow gateway slows the upload"
    assert fake.video_bytes < sent
    # A plain end of the connection would queue behind what the door does not read; a reset does not.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await asyncio.wait_for(fake.cancelled.wait(), SOON_S)
    await until(lambda: not faked.server.server_state.tasks)


async def test_a_caller_who_leaves_with_little_unread_cancels_the_call(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    """Reading is paused, so uvicorn alone would not see it."""
    fake.hold.clear()
    _, writer = await send(faked, post("/v1/video/upload", 1 << 30, "video/mp4"))
    paused = 0
    async with asyncio.timeout(60):
        while paused < 10:  # in a row: the door reads no more until the gateway takes something
            flows = [getattr(one, "flow", None) for one in faked.server.server_state.connections]
            paused = paused + 1 if any(flow and flow.read_paused for flow in flows) else 0
            if not paused:
                writer.write(b"x" * 65536)
                await writer.drain()
            await asyncio.sleep(0.005)
    writer.close()
    await asyncio.wait_for(fake.cancelled.wait(), SOON_S)


async def test_a_gateway_that_takes_nothing_more_is_given_up(fake: FakeGateway) -> None:
    fake.hold.clear()
    async with running_door(fake.address, gateway_idle_s=0.5) as door:
        answer = await door.client.post(
            "/v1/video/upload", content=b"x" * 50_000_000, headers={"content-type": "video/mp4"}
        )
        assert (answer.status_code, answer.json()["reason"]) == (504, "GATEWAY_STALLED")


async def test_a_thousand_uploads_broken_off_leave_nothing_behind(fake: FakeGateway) -> None:
    content_type, body = multipart(("video", "a.mp4", b"x" * 5_000))
    begun = post("/v1/video/upload", 1_000_000, content_type) + body[:3_000]
    async with running_door(fake.address, max_streams=64) as door:

        async def break_off(place: int) -> None:
            _, writer = await send(door, begun[: len(begun) - place])
            await asyncio.sleep(0.001 * (place % 7))
            if place % 2:
                writer.transport.abort()
            else:
                writer.close()

        for _ in range(20):
            await asyncio.gather(*(break_off(place) for place in range(50)))
        await until(lambda: not door.server.server_state.tasks)
        await until(lambda: not door.server.server_state.connections)
        answer = await door.client.post("/v1/pose", content=PICTURE, headers={"content-type": "image/jpeg"})
        assert answer.status_code == 200


async def test_slow_headers_end_the_connection(fake: FakeGateway) -> None:
    async with running_door(fake.address, header_timeout_s=0.3) as door:
        for begun in (b"", b"POST /v1/pose HTTP/1.1\r\nhost: localhost\r\n"):
            with suppress(ConnectionError):  # where the time was over before a loaded machine sent this
                reader, writer = await send(door, begun)
                assert await asyncio.wait_for(reader.read(), SOON_S) == b""
                writer.close()
        await until(lambda: not door.server.server_state.connections)


async def test_slow_headers_of_a_second_request_end_the_connection_too(fake: FakeGateway) -> None:
    answered = False
    for timeout_s in (0.3, 3.0, 30.0):  # the next one where a loaded machine took all of it for the first
        async with running_door(fake.address, header_timeout_s=timeout_s) as door:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                reader, writer = await send(door, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
                await asyncio.wait_for(reader.readuntil(b'"ok"}'), SOON_S)
                answered = True
                writer.write(b"GET /livez HTT")
                assert await asyncio.wait_for(reader.read(), 2 * SOON_S) == b""
                writer.close()
        if answered:
            break
    assert answered


async def test_large_headers_are_431(fake: FakeGateway) -> None:
    async with running_door(fake.address, max_header_bytes=4096) as door:
        for ended in (b"\r\n\r\n", b""):
            request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-long: " + b"a" * 5000 + ended
            reader, writer = await send(door, request)
            assert (await asyncio.wait_for(reader.read(), SOON_S)).startswith(b"HTTP/1.1 431 ")
            writer.close()


async def test_an_idle_body_is_408(fake: FakeGateway) -> None:
    async with running_door(fake.address, body_idle_s=0.3) as door:
        for begun in (
            post("/v1/pose", 1000) + b"x",
            post("/v1/video/upload", 1000, "video/mp4") + b"x",
        ):
            reader, writer = await send(door, begun)
            answer = await asyncio.wait_for(reader.read(), SOON_S)
            assert answer.startswith(b"HTTP/1.1 408 "), answer
            assert b"UPLOAD_IDLE" in answer
            writer.close()
        await until(lambda: not door.server.server_state.tasks)


async def test_an_idle_connection_is_closed(fake: FakeGateway) -> None:
    async with running_door(fake.address, keep_alive_s=0.3) as door:
        reader, writer = await send(door, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), SOON_S)
        assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_caller_who_takes_no_answer_is_given_up(fake: FakeGateway) -> None:
    fake.frames = 20_000
    async with running_door(fake.address, send_idle_s=0.5) as door:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # soon full
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (door.host, door.port))
        _, writer = await asyncio.open_connection(sock=connection, limit=1024)
        request = post("/v1/video/upload", 1, "video/mp4").replace(
            b"host: localhost", b"host: localhost\r\naccept: text/event-stream"
        )
        writer.write(request + b"x")
        await until(lambda: fake.started == 1)
        # The system takes megabytes of small events on the way first.
        await asyncio.wait_for(fake.cancelled.wait(), 6 * SOON_S)
        await until(lambda: not door.server.server_state.tasks)
        writer.transport.abort()


async def test_who_is_refused_early_can_send_the_rest_and_read_why(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    fake.error = refusal(grpc.StatusCode.UNAUTHENTICATED, "API_KEY_MISSING")
    answer = await faked.client.post(
        "/v1/video/upload", content=b"x" * 20_000_000, headers={"content-type": "video/mp4"}
    )
    assert answer.status_code == 401
    assert (await faked.client.get("/livez")).status_code == 200


async def test_who_never_stops_sending_after_a_refusal_is_cut_off(
    fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.web.connection._LINGER_S", 0.3)
    async with running_door(fake.address, max_video_bytes=1000) as door:
        reader, writer = await send(door, post("/v1/video/upload", 1 << 40, "video/mp4"))
        answer = await asyncio.wait_for(reader.readuntil(b"}"), SOON_S)
        assert answer.startswith(b"HTTP/1.1 413 ")
        started = time.monotonic()
        cut_off = False
        try:
            while time.monotonic() < started + SOON_S:
                writer.write(b"x" * 65536)
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            cut_off = True
        assert cut_off
        writer.close()


async def test_curl_that_waits_for_100_continue_is_refused_before_it_sends(fake: FakeGateway) -> None:
    async with running_door(fake.address, max_body_bytes=1000) as door:
        request = post("/v1/pose", 5000).replace(b"localhost", b"localhost\r\nexpect: 100-continue")
        reader, writer = await send(door, request)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), SOON_S)).startswith(b"HTTP/1.1 413 ")
        writer.close()


async def test_a_body_that_trickles_is_408(fake: FakeGateway) -> None:
    content_type, form = multipart(("model", None, b"a" * 1000), ("video", "a.mp4", b"x"))
    async with running_door(fake.address, body_timeout_s=0.5) as door:
        for head, body in (
            (post("/v1/pose", 1000), b"x" * 1000),
            (post("/v1/video/upload", len(form), content_type), form),
        ):
            reader, writer = await send(door, head)
            answer = asyncio.ensure_future(reader.readuntil(b"}"))
            for number in range(500):
                if answer.done():
                    break
                writer.write(body[number : number + 1])
                await asyncio.sleep(0.05)
            told = await asyncio.wait_for(answer, SOON_S)
            assert told.startswith(b"HTTP/1.1 408 ")
            assert b"UPLOAD_TOO_SLOW" in told
            writer.close()
