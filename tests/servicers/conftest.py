"""One gateway for each test."""

from collections.abc import AsyncIterator

import grpc
import pytest

from service.client import connect
from service.core.skeleton.template import Edge, Keypoint, Skeleton
from tests.core.persons import ODD, big_skeleton
from tests.servicers.gateway import CustomSkeletons, gateway

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


@pytest.fixture
def custom() -> CustomSkeletons:
    return CustomSkeletons(NECK, ODD, big_skeleton())


@pytest.fixture
async def channel(custom: CustomSkeletons) -> AsyncIterator[grpc.aio.Channel]:
    async with gateway(custom) as address, connect(address) as opened:
        yield opened
