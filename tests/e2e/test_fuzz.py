"""Damaged pictures through the running service: an answer or INVALID_ARGUMENT, and nothing else."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import grpc
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from tests.e2e.conftest import DATA, Service

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

pytestmark = pytest.mark.e2e

CASES, SEED, AT_ONCE = 2000, 20_240_917, 8
ALLOWED = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}

Mutation = Callable[[random.Random, bytearray, list[bytes]], bytearray]


def flip_bits(rng: random.Random, content: bytearray, _seeds: list[bytes]) -> bytearray:
    # Half of the flips hit the first bytes, where sizes and types stand.
    for _ in range(rng.randint(1, 30)):
        end = len(content) if rng.random() < 0.5 else min(len(content), 256)
        content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return content


def truncate(rng: random.Random, content: bytearray, _seeds: list[bytes]) -> bytearray:
    return content[: rng.randrange(len(content))]


def splice_header(rng: random.Random, content: bytearray, seeds: list[bytes]) -> bytearray:
    length = rng.randint(4, 400)
    return bytearray(rng.choice(seeds)[:length]) + content[length:]


def declare_giant_size(rng: random.Random, content: bytearray, _seeds: list[bytes]) -> bytearray:
    giant = rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 100_000])
    order = rng.choice("<>")
    packed = (
        struct.pack(order + "I", giant) if rng.random() < 0.6 else struct.pack(order + "H", giant & 0xFFFF)
    )
    start = rng.randrange(min(len(content) - len(packed), 300))
    content[start : start + len(packed)] = packed
    return content


def repeat_a_piece(rng: random.Random, content: bytearray, _seeds: list[bytes]) -> bytearray:
    start = rng.randrange(len(content))
    return content[: start + rng.randrange(1, 2000)] + content[start:]


MUTATIONS: tuple[Mutation, ...] = (flip_bits, truncate, splice_header, declare_giant_size, repeat_a_piece)


def seeds() -> list[bytes]:
    """The same small real picture in every accepted format, and in several forms of some."""
    picture = cv2.resize(cv2.imread(str(DATA / "astronaut.png")), (192, 160))  # type: ignore[arg-type]
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    forms = [
        (".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80]),
        (".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".jpg", grey, []),
        (".png", picture, []),
        (".png", grey.astype("uint16") * 257, []),
        (".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 80]),
        (".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 101]),
        (".bmp", picture, []),
        (".tiff", picture, []),
        (".tiff", picture, [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
        (".tiff", grey, [cv2.IMWRITE_TIFF_COMPRESSION, 32946]),
    ]
    return [cv2.imencode(suffix, image, options)[1].tobytes() for suffix, image, options in forms]


async def test_two_thousand_damaged_pictures_do_no_harm(service: Service, stub: PoseServiceAsyncStub) -> None:
    rng = random.Random(SEED)  # noqa: S311 - repeatable damage, not a secret
    valid = seeds()
    codes: Counter[grpc.StatusCode] = Counter()
    wrong: list[tuple[str, str, bytes]] = []
    room = asyncio.Semaphore(AT_ONCE)

    async def send(content: bytes) -> None:
        async with room:
            try:
                await stub.DetectPoses(
                    pb.DetectPosesRequest(image=types_pb2.Image(content=content)), timeout=300
                )
            except grpc.aio.AioRpcError as error:
                codes[error.code()] += 1
                if error.code() not in ALLOWED:
                    wrong.append((error.code().name, str(error.details()), content[:64]))
            else:
                codes[grpc.StatusCode.OK] += 1

    await asyncio.gather(*(send(content) for content in valid))
    assert codes == {grpc.StatusCode.OK: len(valid)}, "the seeds themselves must be valid"
    before = service.process.memory_info().rss
    cases = []
    for _ in range(CASES):
        content = rng.choice(MUTATIONS)(rng, bytearray(rng.choice(valid)), valid)
        if rng.random() < 0.2:
            content = rng.choice(MUTATIONS)(rng, content or bytearray(b"x" * 400), valid)
        cases.append(bytes(content))
    await asyncio.gather(*(send(content) for content in cases))
    assert not wrong
    assert service.process.is_running()
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] > CASES / 4, codes
    assert codes[grpc.StatusCode.OK] > CASES / 20, codes
    # 50 megapixels may be decoded in each of two workers; nothing of that may stay.
    assert service.process.memory_info().rss < before + 400 * 2**20
