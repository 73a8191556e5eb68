"""`skeleton` in DetectPoses and BatchDetectPoses."""

import cv2
import grpc
import numpy as np
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.errors import SkeletonNotSupplied
from service.servicers.responses.error_status import DOMAIN
from tests.servicers.two_persons import found, grey, pose_stub, reason_of


def points(person: types_pb2.Person) -> list[tuple[float, float, float]]:
    return [(point.x, point.y, point.score) for point in person.keypoints]


async def test_an_empty_name_is_the_models_own(channel: grpc.aio.Channel) -> None:
    answer = await pose_stub(channel).DetectPoses(pb.DetectPosesRequest(image=grey()))

    assert answer.skeleton == "coco_17"
    np.testing.assert_allclose([points(p) for p in answer.persons], found("coco_17").keypoints, rtol=1e-5)
    assert all(p.side == types_pb2.SIDE_UNSPECIFIED for p in answer.persons)
    assert not any(p.HasField("person_index") for p in answer.persons)


async def test_the_body_of_a_whole_body(channel: grpc.aio.Channel) -> None:
    request = pb.DetectPosesRequest(image=grey(), model="whole", skeleton="coco_17")

    answer = await pose_stub(channel).DetectPoses(request)

    assert answer.skeleton == "coco_17"
    expected = found("coco_wholebody_133").keypoints[:, :17]
    np.testing.assert_allclose([points(p) for p in answer.persons], expected, rtol=1e-5)


async def test_the_hands_of_a_whole_body(channel: grpc.aio.Channel) -> None:
    request = pb.DetectPosesRequest(image=grey(), model="whole", skeleton="mediapipe_hand_21")

    answer = await pose_stub(channel).DetectPoses(request)

    assert [(p.side, p.person_index) for p in answer.persons] == [
        (types_pb2.SIDE_LEFT, 0),
        (types_pb2.SIDE_RIGHT, 0),
        (types_pb2.SIDE_RIGHT, 1),
    ]
    for person in answer.persons:
        xy = np.array(points(person))[:, :2]
        box = (person.box.x1, person.box.y1, person.box.x2, person.box.y2)
        assert box == pytest.approx((*xy.min(axis=0), *xy.max(axis=0)))


async def test_a_custom_skeleton_with_a_neck(channel: grpc.aio.Channel) -> None:
    request = pb.DetectPosesRequest(image=grey(), skeleton="body_with_neck", min_keypoint_score=0)
    request.overlay.format = types_pb2.OVERLAY_FORMAT_PNG
    request.overlay.labels = False
    request.overlay.boxes = False

    answer = await pose_stub(channel).DetectPoses(request)

    assert answer.skeleton == "body_with_neck"
    left, right = found("coco_17").keypoints[0, 5], found("coco_17").keypoints[0, 6]
    neck = points(answer.persons[0])[1]
    assert neck == pytest.approx((*((left + right)[:2] / 2), min(left[2], right[2])), rel=1e-4)
    assert points(answer.persons[0])[2] == (0, 0, 0)
    drawn = cv2.imdecode(np.frombuffer(answer.overlay.content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert drawn is not None
    # The tail is not there: nothing is drawn in the corner, and no limb leads to it.
    assert (drawn[:3, :3] == 90).all()
    red, green = drawn[..., 0].astype(int), drawn[..., 1].astype(int)
    assert (green - red > 40).any()  # points below 0.5 are drawn faint


async def test_an_unknown_skeleton_is_not_found(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pose_stub(channel).DetectPoses(pb.DetectPosesRequest(image=grey(), skeleton="cat_9"))

    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert reason_of(caught.value) == "SKELETON_NOT_FOUND"
    assert "coco_17" in str(caught.value.details())


async def test_one_that_the_model_cannot_supply_names_the_missing_points(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pose_stub(channel).DetectPoses(pb.DetectPosesRequest(image=grey(), skeleton="animal_24"))

    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == SkeletonNotSupplied.reason
    assert "front_left_paw" in str(caught.value.details())


async def test_in_a_batch_each_picture_has_its_own_skeleton(channel: grpc.aio.Channel) -> None:
    requests = [
        pb.DetectPosesRequest(image=grey(), model="whole", skeleton=name)
        for name in ("mediapipe_hand_21", "animal_24", "body_with_neck", "")
    ]

    answer = await pose_stub(channel).BatchDetectPoses(pb.BatchDetectPosesRequest(requests=requests))

    assert [one.WhichOneof("outcome") for one in answer.responses] == [
        "response",
        "error",
        "response",
        "response",
    ]
    assert [len(one.response.persons) for one in answer.responses] == [3, 0, 2, 2]
    assert answer.responses[1].error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert DOMAIN.encode() in answer.responses[1].error.details[0].value


async def test_detection_goes_on_without_the_store(
    channel_without_store: grpc.aio.Channel,
) -> None:
    channel = channel_without_store
    stub = pose_stub(channel)

    for name in ("", "coco_17"):
        assert len((await stub.DetectPoses(pb.DetectPosesRequest(image=grey(), skeleton=name))).persons) == 2
    requests = [pb.DetectPosesRequest(image=grey(), skeleton="body_with_neck")]
    answer = await stub.BatchDetectPoses(pb.BatchDetectPosesRequest(requests=requests))
    assert answer.responses[0].error.code == grpc.StatusCode.UNAVAILABLE.value[0]
