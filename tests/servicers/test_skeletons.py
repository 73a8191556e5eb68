"""SkeletonService through a real server, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1 import types_pb2
from service.skeletons import shipped
from tests.fakes import candidate, rows
from tests.pictures import jpeg
from tests.running import Service, detect_request, failure, running
from tests.store.conftest import database_url as database_url  # a fixture

SHIPPED = sorted(shipped())
NECK = pb.Skeleton(
    name="with_neck",
    title="Shoulders and neck",
    keypoints=[
        pb.SkeletonKeypoint(name="left_shoulder", color="#FF0010", sigma=0.079),
        pb.SkeletonKeypoint(name="right_shoulder"),
        pb.SkeletonKeypoint(
            name="neck",
            sources=[
                pb.KeypointSource(name="left_shoulder"),
                pb.KeypointSource(name="right_shoulder", weight=1),
            ],
        ),
        pb.SkeletonKeypoint(name="left_big_toe", optional=True),
    ],
    edges=[pb.SkeletonEdge(start="left_shoulder", end="neck")],
    flip_pairs=[pb.FlipPair(left="left_shoulder", right="right_shoulder")],
)


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with running(database_url=database_url, max_skeletons=5) as service:
        yield service


def named(name: str) -> pb.Skeleton:
    skeleton = pb.Skeleton()
    skeleton.CopyFrom(NECK)
    skeleton.name = name
    return skeleton


async def create(service: Service, skeleton: pb.Skeleton = NECK) -> pb.Skeleton:
    answer = await service.skeletons.CreateSkeleton(pb.CreateSkeletonRequest(skeleton=skeleton), timeout=60)
    return answer.skeleton


async def refused(call: Any, code: grpc.StatusCode, reason: str) -> dict[str, str]:
    failed = await failure(call)
    assert (failed.code, failed.reason) == (code, reason)
    return failed.violations


async def test_what_is_created_is_got_listed_updated_and_deleted(service: Service) -> None:
    skeletons = service.skeletons
    created = await create(service)
    assert created.etag
    assert not created.shipped
    assert created.create_time == created.update_time
    got = await skeletons.GetSkeleton(pb.GetSkeletonRequest(name="with_neck"), timeout=60)
    assert got.skeleton == created
    assert list(got.skeleton.keypoints)[2].sources[0].weight == 1
    listed = await skeletons.ListSkeletons(pb.ListSkeletonsRequest(), timeout=60)
    assert [one.name for one in listed.skeletons] == [*SHIPPED, "with_neck"]
    assert listed.next_page_token == ""
    created.title = "Renamed"
    updated = await skeletons.UpdateSkeleton(pb.UpdateSkeletonRequest(skeleton=created), timeout=60)
    assert updated.skeleton.title == "Renamed"
    assert updated.skeleton.etag != created.etag
    await refused(
        skeletons.UpdateSkeleton(pb.UpdateSkeletonRequest(skeleton=created), timeout=60),
        grpc.StatusCode.ABORTED,
        "SKELETON_CHANGED",
    )
    await refused(
        skeletons.DeleteSkeleton(pb.DeleteSkeletonRequest(name="with_neck", etag=created.etag), timeout=60),
        grpc.StatusCode.ABORTED,
        "SKELETON_CHANGED",
    )
    await skeletons.DeleteSkeleton(pb.DeleteSkeletonRequest(name="with_neck"), timeout=60)
    await refused(
        skeletons.GetSkeleton(pb.GetSkeletonRequest(name="with_neck"), timeout=60),
        grpc.StatusCode.NOT_FOUND,
        "SKELETON_NOT_FOUND",
    )


async def test_a_custom_skeleton_can_be_asked_for_in_detection_at_once(service: Service) -> None:
    await create(service)
    service.triton.answer = rows(candidate((100, 50, 200, 350), 0.9))
    answer = await service.detect(jpeg((640, 480)), skeleton="with_neck")
    assert answer.skeleton == "with_neck"
    left, right, neck, toe = answer.persons[0].keypoints
    assert neck.x == pytest.approx((left.x + right.x) / 2)
    assert (toe.x, toe.y, toe.score) == (0, 0, 0)
    await service.skeletons.DeleteSkeleton(pb.DeleteSkeletonRequest(name="with_neck"), timeout=60)
    failed = await failure(
        service.poses.DetectPoses(detect_request(jpeg((640, 480)), skeleton="with_neck"), timeout=60)
    )
    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "SKELETON_NOT_FOUND")


async def test_a_name_is_taken_once(service: Service) -> None:
    calls = [
        service.skeletons.CreateSkeleton(pb.CreateSkeletonRequest(skeleton=NECK), timeout=60)
        for _ in range(6)
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refusals = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert len(refusals) == 5
    assert {refusal.code() for refusal in refusals} == {grpc.StatusCode.ALREADY_EXISTS}


async def test_a_tenant_has_at_most_so_many(service: Service) -> None:
    for number in range(5):
        await create(service, named(f"s{number}"))
    call = service.skeletons.CreateSkeleton(pb.CreateSkeletonRequest(skeleton=named("s5")), timeout=60)
    failed = await failure(call)
    assert failed.reason == "TOO_MANY_SKELETONS"
    assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failed.retry_s is None


async def test_shipped_ones_can_be_got_and_not_changed(service: Service) -> None:
    skeletons = service.skeletons
    got = await skeletons.GetSkeleton(pb.GetSkeletonRequest(name="coco_17"), timeout=60)
    assert got.skeleton.shipped
    assert len(got.skeleton.keypoints) == 17
    await refused(
        skeletons.UpdateSkeleton(pb.UpdateSkeletonRequest(skeleton=named("coco_17")), timeout=60),
        grpc.StatusCode.PERMISSION_DENIED,
        "SKELETON_SHIPPED",
    )
    await refused(
        skeletons.DeleteSkeleton(pb.DeleteSkeletonRequest(name="coco_17"), timeout=60),
        grpc.StatusCode.PERMISSION_DENIED,
        "SKELETON_SHIPPED",
    )
    await refused(
        skeletons.CreateSkeleton(pb.CreateSkeletonRequest(skeleton=named("coco_17")), timeout=60),
        grpc.StatusCode.ALREADY_EXISTS,
        "SKELETON_EXISTS",
    )


async def test_pages_lead_through_shipped_and_custom_ones(service: Service) -> None:
    for name in ("b", "a", "zz"):
        await create(service, named(name))
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListSkeletonsRequest(page_size=2, page_token=token)
        page = await service.skeletons.ListSkeletons(request, timeout=60)
        assert len(page.skeletons) <= 2
        seen += [skeleton.name for skeleton in page.skeletons]
        token = page.next_page_token
        if not token:
            break
    assert seen == [*SHIPPED, "a", "b", "zz"]


@pytest.mark.parametrize("token", ["x", "AAAA", "1", "🕺"])
async def test_a_token_that_was_not_given_is_refused(service: Service, token: str) -> None:
    violations = await refused(
        service.skeletons.ListSkeletons(pb.ListSkeletonsRequest(page_token=token), timeout=60),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
    )
    assert "page_token" in violations


async def test_every_problem_is_told_at_once(service: Service) -> None:
    wrong = pb.Skeleton(
        name="",
        keypoints=[
            pb.SkeletonKeypoint(name="a", color="red"),
            pb.SkeletonKeypoint(name="a"),
            pb.SkeletonKeypoint(name="b", sources=[pb.KeypointSource(name="c")]),
            pb.SkeletonKeypoint(name="c", sources=[pb.KeypointSource(name="b")]),
            pb.SkeletonKeypoint(name="d", sigma=float("nan")),
        ],
        edges=[pb.SkeletonEdge(start="a", end="nowhere"), pb.SkeletonEdge(start="a", end="a")],
        flip_pairs=[pb.FlipPair(left="a", right="b"), pb.FlipPair(left="a", right="c")],
    )
    failed = await failure(
        service.skeletons.CreateSkeleton(pb.CreateSkeletonRequest(skeleton=wrong), timeout=60)
    )
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(failed.violations) >= 7
    assert all(field.startswith("skeleton.") for field in failed.violations)


async def test_no_skeleton_is_refused(service: Service) -> None:
    failed = await failure(service.skeletons.CreateSkeleton(pb.CreateSkeletonRequest(), timeout=60))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "skeleton" in failed.violations


async def test_without_its_database_the_service_detects_and_says_when_to_ask_again() -> None:
    async with running(database_url="sqlite:////proc/nowhere/posegate.db") as service:
        service.triton.answer = rows(candidate((100, 50, 200, 350), 0.9))
        answer = await service.detect(jpeg((640, 480)), skeleton="coco_17")
        assert answer.persons
        for call in (
            service.skeletons.ListSkeletons(pb.ListSkeletonsRequest(), timeout=60),
            service.skeletons.CreateSkeleton(pb.CreateSkeletonRequest(skeleton=NECK), timeout=60),
            service.poses.DetectPoses(detect_request(jpeg((640, 480)), skeleton="mine"), timeout=60),
        ):
            failed = await failure(call)
            assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
            assert failed.retry_s
        got = await service.skeletons.GetSkeleton(pb.GetSkeletonRequest(name="coco_17"), timeout=60)
        assert got.skeleton.shipped


async def test_people_are_rendered_and_exported_with_a_custom_skeleton(service: Service) -> None:
    await create(service)
    person = types_pb2.Person(
        box=types_pb2.Box(x1=10, y1=10, x2=90, y2=90),
        score=0.9,
        keypoints=[types_pb2.Keypoint(x=20 + 15 * k, y=30, score=0.9) for k in range(4)],
    )
    drawn = await service.skeletons.RenderPoses(
        pb.RenderPosesRequest(
            skeleton="with_neck",
            persons=[person],
            canvas=pb.Canvas(size=types_pb2.ImageSize(width=120, height=100)),
        ),
        timeout=60,
    )
    assert (drawn.overlay.size.width, drawn.overlay.media_type) == (120, "image/png")
