"""`/v1/stream`: a camera by WebSocket, on the real servicers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.fakes import rows
from tests.pictures import jpeg
from tests.running import Service
from tests.servicers.test_measure_angles import FIGURE
from tests.web.running import FakeGateway, RunningDoor, running_door

PICTURE = jpeg((640, 640))


def opened(door: RunningDoor, **options: Any) -> connect:
    return connect(door.url.replace("http", "ws") + "/v1/stream", **options)


async def heard(socket: ClientConnection) -> dict[str, Any]:
    message = json.loads(await asyncio.wait_for(socket.recv(), 10))
    assert isinstance(message, dict)
    return message


async def test_every_picture_has_a_result_and_the_end_a_summary(service: Service, door: RunningDoor) -> None:
    service.triton.answer = rows(FIGURE)
    async with opened(door) as socket:
        await socket.send(json.dumps({"frame_policy": "every", "measurement": "splits", "side": "left"}))
        assert (await heard(socket))["skeleton"] == "coco_17"
        for number in range(3):
            await socket.send(PICTURE)
            result = await heard(socket)
            assert (result["type"], result["frame"]) == ("result", number)
            assert result["image"] == {"width": 640, "height": 640}
            assert len(result["persons"][0]["keypoints"]) == 17
            assert result["persons"][0]["track_id"] == 1
            assert result["angles"][0]["left"]["degrees"] is not None
            assert "right" not in result["angles"][0]
        await socket.send(b"no picture")
        broken = await heard(socket)
        assert (broken["frame"], broken["error"]["reason"]) == (3, "IMAGE_UNDECODABLE")
        await socket.send(json.dumps({"type": "end"}))
        summary = await heard(socket)
        assert (summary["type"], summary["frames_received"], summary["frames_failed"]) == ("summary", 4, 1)
        with pytest.raises(ConnectionClosed):
            await heard(socket)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ('{"model": "nope"}', "MODEL_NOT_FOUND"),
        ('{"colour": 1, "min_score": 7}', "INVALID_REQUEST"),
        ("no json", "JSON_UNREADABLE"),
        (PICTURE, "INVALID_REQUEST"),
        (r'{"model": "\ud800"}', "INVALID_REQUEST"),
        (r'{"\ud800": "a"}', "INVALID_REQUEST"),
        ('{"model": "' + "a" * 70_000 + '"}', "INVALID_REQUEST"),
    ],
)
async def test_wrong_options_are_told_and_end_the_stream(
    door: RunningDoor, first: str | bytes, code: str
) -> None:
    async with opened(door) as socket:
        await socket.send(first)
        told = await heard(socket)
        assert (told["type"], told["code"]) == ("error", code)
        with pytest.raises(ConnectionClosed):
            await heard(socket)


async def test_a_page_of_another_site_may_not_use_it(fake: FakeGateway, faked: RunningDoor) -> None:
    for origin, allowed in ((faked.url, True), ("https://evil.example.com", False)):
        if allowed:
            async with opened(faked, origin=origin):
                pass
        else:
            with pytest.raises(InvalidStatus):
                await asyncio.wait_for(opened(faked, origin=origin).__aenter__(), 10)
    async with (
        running_door(fake.address, cors_origins="https://app.example.com") as door,
        opened(door, origin="https://app.example.com"),
    ):
        pass


async def test_a_camera_that_goes_away_frees_its_place(door: RunningDoor) -> None:
    async with asyncio.timeout(120):
        cameras = 0
        while cameras < 6:  # the gateway of the test has four places
            async with opened(door) as socket:
                await socket.send("{}")
                if (await heard(socket))["type"] == "started":
                    cameras += 1
                    await socket.send(PICTURE)
                    socket.transport.abort()


async def test_more_cameras_than_allowed_are_refused(service: Service) -> None:
    async with running_door(service.address, max_streams=1) as door, opened(door) as first:
        await first.send("{}")
        await heard(first)
        async with opened(door) as second:
            await second.send("{}")
            told = await heard(second)
            assert (told["code"], told["retry_after_s"]) == ("TOO_MANY_STREAMS", 0.5)


async def test_a_camera_without_options_takes_no_place(service: Service) -> None:
    async with (
        running_door(service.address, max_streams=1) as door,
        opened(door),
        opened(door) as second,
    ):
        await second.send("{}")
        assert (await heard(second))["type"] == "started"


async def test_more_sockets_than_calls_are_refused(fake: FakeGateway) -> None:
    async with running_door(fake.address, max_calls=1) as door, opened(door), opened(door) as second:
        assert (await heard(second))["code"] == "TOO_MANY_IN_FLIGHT"


async def test_a_socket_by_a_foreign_host_is_refused(faked: RunningDoor) -> None:
    foreign = f"ws://rebound.example.com:{faked.port}/v1/stream"
    with pytest.raises(InvalidStatus):
        await asyncio.wait_for(connect(foreign, host=faked.host, port=faked.port).__aenter__(), 10)
