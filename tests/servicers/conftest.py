"""One gateway for each test, with custom skeletons."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from posegate.v1 import skeleton_service_pb2 as pb
from service.core.skeleton.template import Edge, Keypoint, Skeleton
from service.servicers.responses.skeletons import skeleton_message
from tests.core.persons import ODD, big_skeleton
from tests.running import running
from tests.servicers.two_persons import TwoPersons

NECK = Skeleton(
    name="body_with_neck",
    title="",
    keypoints=(
        Keypoint("nose"),
        Keypoint("neck", color=(255, 0, 0), sources=(("left_shoulder", 1.0), ("right_shoulder", 1.0))),
        Keypoint("tail", optional=True),
    ),
    edges=(Edge("nose", "neck", color=(0, 255, 0)), Edge("neck", "tail")),
)


LIMITS: dict[str, Any] = {
    "default_model": "body",
    "max_image_bytes": 1_000_000,
    "max_persons": 10,
    "max_message_bytes": 64 << 20,
}


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    """To a gateway that finds two persons, and keeps three custom skeletons."""
    async with running(TwoPersons(), **LIMITS) as service:
        for skeleton in (NECK, ODD, big_skeleton()):
            await service.skeletons.CreateSkeleton(
                pb.CreateSkeletonRequest(skeleton=skeleton_message(skeleton)), timeout=60
            )
        yield service.channel


@pytest.fixture
async def channel_without_store() -> AsyncIterator[grpc.aio.Channel]:
    """To the same gateway, whose database is away."""
    async with running(TwoPersons(), database_url="sqlite:////proc/nowhere/posegate.db", **LIMITS) as service:
        yield service.channel
