"""Real weights on real pictures, held against what Ultralytics' own `predict` found on them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import grpc
import numpy as np
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.client import connect
from tests.e2e.conftest import DATA, Service, start, stop, wait_for

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

REFERENCE = json.loads((DATA / "yolo11n_pose_reference.json").read_text(encoding="utf-8"))["images"]
PICTURES = sorted(REFERENCE)
SURE_KEYPOINT, SURE_PERSON = 0.5, 0.35

pytestmark = pytest.mark.e2e


def request_for(picture: str, **fields: Any) -> pb.DetectPosesRequest:
    return pb.DetectPosesRequest(image=types_pb2.Image(content=(DATA / picture).read_bytes()), **fields)


def arrays(answer: pb.DetectPosesResponse) -> tuple[Any, Any, Any]:
    """Boxes (N, 4), scores (N,) and keypoints (N, K, 3)."""
    boxes = np.array([[p.box.x1, p.box.y1, p.box.x2, p.box.y2] for p in answer.persons])
    scores = np.array([person.score for person in answer.persons])
    keypoints = np.array([[[k.x, k.y, k.score] for k in person.keypoints] for person in answer.persons])
    return boxes, scores, keypoints


async def test_the_people_and_keypoints_are_those_of_the_reference(stub: PoseServiceAsyncStub) -> None:
    distances = []
    for picture in PICTURES:
        answer = await stub.DetectPoses(request_for(picture), timeout=60)
        expected = REFERENCE[picture]["rect"]
        height, width = REFERENCE[picture]["shape_hw"]
        assert (answer.image_size.width, answer.image_size.height) == (width, height)
        assert answer.skeleton == "coco_17"
        _, scores, keypoints = arrays(answer)
        sure = np.array(expected["scores"]) > SURE_PERSON
        wanted = np.array(expected["keypoints_xys"])[sure]
        assert (scores > SURE_PERSON).sum() == len(wanted), "somebody was missed or invented"
        for mine in keypoints[scores > SURE_PERSON]:
            apart = np.linalg.norm(wanted[..., :2] - mine[:, :2], axis=2).mean(axis=1)
            nearest = wanted[np.argmin(apart)]
            points = nearest[:, 2] > SURE_KEYPOINT
            # Of the 640 px input, whatever the picture's size.
            distances.append(
                np.linalg.norm(nearest[points, :2] - mine[points, :2], axis=1) * 640 / max(width, height)
            )
    assert np.median(np.concatenate(distances)) <= 0.6


async def test_the_overlay_is_the_picture_with_something_drawn_on_it(stub: PoseServiceAsyncStub) -> None:
    overlay = types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_PNG)
    answer = await stub.DetectPoses(request_for("two_people.jpg", overlay=overlay), timeout=60)
    drawn = cv2.imdecode(np.frombuffer(answer.overlay.content, np.uint8), cv2.IMREAD_COLOR)
    original = cv2.imread(str(DATA / "two_people.jpg"))
    assert drawn is not None
    assert original is not None
    assert drawn.shape == original.shape
    changed = (drawn != original).any(axis=2)
    assert 0.005 < changed.mean() < 0.2
    assert answer.overlay.media_type == "image/png"


async def test_shared_memory_and_plain_grpc_give_the_same_answer(
    service: Service, stub: PoseServiceAsyncStub, tmp_path: Path
) -> None:
    plain = start(
        "serve", tmp_path, POSEGATE_TRITON_URL=service.triton_url, POSEGATE_TRITON_SHARED_MEMORY="off"
    )
    try:
        await wait_for(plain.address, "SERVING")
        async with connect(plain.address) as channel:
            over_grpc = await PoseServiceStub(channel).DetectPoses(request_for("two_people.jpg"), timeout=60)
    finally:
        assert stop(plain) == 0
    in_memory = await stub.DetectPoses(request_for("two_people.jpg"), timeout=60)
    assert "shared_memory_on" in service.log.read_text(encoding="utf-8")
    assert "shared_memory" not in plain.log.read_text(encoding="utf-8")
    assert over_grpc.persons == in_memory.persons


async def test_a_batch_gives_what_single_calls_give_and_a_bad_picture_harms_no_neighbour(
    stub: PoseServiceAsyncStub,
) -> None:
    singles = [await stub.DetectPoses(request_for(picture), timeout=60) for picture in PICTURES]
    requests = [request_for(picture) for picture in PICTURES]
    requests.insert(1, pb.DetectPosesRequest(image=types_pb2.Image(content=b"not a picture")))
    batch = await stub.BatchDetectPoses(pb.BatchDetectPosesRequest(requests=requests), timeout=60)
    bad = batch.responses.pop(1)
    assert bad.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [list(each.response.persons) for each in batch.responses] == [list(one.persons) for one in singles]


async def test_a_region_gives_coordinates_of_the_whole_picture(stub: PoseServiceAsyncStub) -> None:
    whole = await stub.DetectPoses(request_for("two_people.jpg"), timeout=60)
    region = types_pb2.Box(x1=380, y1=780, x2=1088, y2=1920)
    part = await stub.DetectPoses(request_for("two_people.jpg", region_of_interest=region), timeout=60)
    woman = whole.persons[1]
    assert min(abs(person.box.y2 - woman.box.y2) for person in part.persons) < 20
    assert all(person.box.x1 > 360 and person.box.y1 > 760 for person in part.persons)


async def test_many_callers_at_once_all_get_the_same_answer(stub: PoseServiceAsyncStub) -> None:
    request = request_for("astronaut.png")
    answers = await asyncio.gather(*(stub.DetectPoses(request, timeout=60) for _ in range(40)))
    assert all(answer.persons == answers[0].persons for answer in answers)


async def test_a_deadline_that_is_too_short_is_exceeded_and_the_service_goes_on(
    stub: PoseServiceAsyncStub,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.DetectPoses(request_for("two_people.jpg"), timeout=0.004)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await stub.DetectPoses(request_for("two_people.jpg"), timeout=60)).persons


async def test_the_models_name_their_licence(stub: PoseServiceAsyncStub) -> None:
    listed = await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    yolo = next(model for model in listed.models if model.name == "yolo11n_pose")
    assert yolo.default
    assert yolo.ready
    assert yolo.licence == "AGPL-3.0"
    assert yolo.sha256 == "869e83fcdffdc7371fa4e34cd8e51c838cc729571d1635e5141e3075e9319dc0"


async def test_the_server_tells_tritons_version(stub: PoseServiceAsyncStub) -> None:
    info = await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
    assert info.triton_version.startswith("2.")
    assert "yolo11n_pose" in info.models_ready
