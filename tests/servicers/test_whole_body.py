"""Top-down models: people of the first stage, crops, and keypoints back in px of the picture."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.skeletons import shipped
from tests.fakes import MODEL, Tensors, candidate, rows
from tests.pictures import jpeg
from tests.running import Service, failure, running

VGA = jpeg((640, 480))
SHAPE_HW = (512, 384)
WHOLE = replace(
    MODEL,
    name="whole",
    family="top_down",
    skeleton="coco_wholebody_133",
    keypoint_count=133,
    shapes_hw=(SHAPE_HW,),
    max_batch_size=4,
    first_stage=MODEL.name,
    takes_body=True,
)
BOX = (100.0, 60.0, 220.0, 380.0)


def middle_of_each_crop(inputs: Tensors) -> Tensors:
    """Every keypoint in the middle of the crop, but the right hand beside it, and the first 17 where the
    first stage saw them."""
    count = len(inputs["crops"])
    keypoints = np.full((count, 133, 2), (SHAPE_HW[1] / 2, SHAPE_HW[0] / 2), np.float32)
    keypoints[:, 112:] += 20
    if "body" in inputs:
        keypoints[:, :17] = inputs["body"][..., :2]
    positions = np.arange(count * 133 * 3, dtype=np.float32).reshape(count, 133, 3)
    return {"keypoints": keypoints, "scores": np.full((count, 133), 0.8, np.float32), "positions": positions}


def depth_only(inputs: Tensors) -> Tensors:
    answer = dict(middle_of_each_crop(inputs))
    positions = np.full(answer["positions"].shape, np.nan, np.float32)
    positions[..., 2] = 0.1
    return {**answer, "positions": positions}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running() as service:
        service.triton.served = [MODEL, WHOLE]
        service.triton.second_stage = middle_of_each_crop
        await service.catalog.refresh()
        yield service


async def detect(service: Service, **changes: Any) -> pb.DetectPosesResponse:
    return await service.detect(VGA, model="whole", **changes)


async def test_zero_persons_are_an_empty_answer_and_the_second_model_is_not_called(service: Service) -> None:
    answer = await detect(service)
    assert not answer.persons
    assert (answer.model, answer.skeleton) == ("whole", "coco_wholebody_133")
    assert [call.model.name for call in service.triton.calls] == [MODEL.name]


async def test_crops_come_back_as_px_of_the_picture_and_the_body_as_it_was(service: Service) -> None:
    service.triton.answer = rows(candidate(BOX, 0.9))
    (person,) = (await detect(service)).persons
    assert len(person.keypoints) == 133
    first, seventeenth, hand = person.keypoints[0], person.keypoints[16], person.keypoints[100]
    assert (first.x, first.y) == pytest.approx(BOX[:2], abs=0.01)
    assert (seventeenth.x, seventeenth.y) == pytest.approx(BOX[2:], abs=0.01)
    assert (hand.x, hand.y) == pytest.approx(((BOX[0] + BOX[2]) / 2, (BOX[1] + BOX[3]) / 2), abs=0.01)
    assert (person.box.x1, person.box.y2) == (BOX[0], BOX[3])
    assert not person.positions
    assert person.depth_source == types_pb2.DEPTH_SOURCE_NONE


async def test_positions_are_given_when_they_are_asked_for(service: Service) -> None:
    service.triton.answer = rows(candidate(BOX, 0.9))
    (person,) = (await detect(service, include_positions=True)).persons
    assert len(person.positions) == 133
    assert (person.positions[1].x, person.positions[1].y, person.positions[1].z) == (3, 4, 5)
    assert person.depth_source == types_pb2.DEPTH_SOURCE_MEASURED
    assert person.depth_assumption == ""


async def test_depth_alone_is_lifted_under_an_assumption_that_is_named(service: Service) -> None:
    service.triton.answer = rows(candidate(BOX, 0.9))
    service.triton.second_stage = depth_only
    (person,) = (await detect(service, include_positions=True)).persons
    assert person.depth_source == types_pb2.DEPTH_SOURCE_LIFTED
    assert "1.70 m" in person.depth_assumption


async def test_many_people_go_in_batches_that_the_model_takes(service: Service) -> None:
    people = [candidate((40.0 * k, 50, 40.0 * k + 30, 200), 0.9 - k / 100) for k in range(11)]
    service.triton.answer = rows(*people)
    answer = await detect(service)
    assert len(answer.persons) == 11
    crops = [len(call.inputs["crops"]) for call in service.triton.calls if "crops" in call.inputs]
    assert crops == [4, 4, 3]
    middles = [(person.box.x1 + person.box.x2) / 2 for person in answer.persons]
    assert [person.keypoints[100].x for person in answer.persons] == pytest.approx(middles, abs=0.01)


async def test_max_persons_bounds_the_second_stage_too(service: Service) -> None:
    people = [candidate((40.0 * k, 50, 40.0 * k + 30, 200), 0.9 - k / 100) for k in range(11)]
    service.triton.answer = rows(*people)
    assert len((await detect(service, max_persons=2)).persons) == 2
    assert [len(call.inputs["crops"]) for call in service.triton.calls if "crops" in call.inputs] == [2]


@pytest.mark.parametrize(
    "box",
    [(-80.0, -50.0, 60.0, 200.0), (600.0, 400.0, 900.0, 700.0), (10.0, 10.0, 11.0, 12.0)],
    ids=["cut at the left", "cut at the corner", "a pixel or two"],
)
async def test_people_at_the_edge_and_tiny_ones_are_cropped(
    service: Service, box: tuple[float, float, float, float]
) -> None:
    service.triton.answer = rows(candidate(box, 0.9))
    (person,) = (await detect(service)).persons
    (call,) = [call for call in service.triton.calls if "crops" in call.inputs]
    assert call.inputs["crops"].shape == (1, *SHAPE_HW, 3)
    assert person.keypoints[100].x == pytest.approx((box[0] + box[2]) / 2, abs=0.05)


async def test_a_model_that_does_not_take_the_body_gets_crops_alone(service: Service) -> None:
    service.triton.served = [MODEL, replace(WHOLE, takes_body=False)]
    await service.catalog.refresh()
    service.triton.answer = rows(candidate(BOX, 0.9))
    await detect(service)
    (call,) = [call for call in service.triton.calls if "crops" in call.inputs]
    assert set(call.inputs) == {"crops"}


ON_IMAGE = replace(WHOLE, takes_image=True, shapes_hw=((640, 640),))


def hand_at_each_box(inputs: Tensors) -> Tensors:
    """The body where the first stage saw it and every other keypoint in the middle of the box, the right hand
    beside it."""
    boxes, bodies = inputs["boxes"][0], inputs["bodies"][0]
    keypoints = np.repeat(((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None], 133, axis=1)
    keypoints[:, :17] = bodies[: len(boxes), :, :2]
    keypoints[:, 112:] += 20
    scores = np.full((1, len(boxes), 133), 0.8, np.float32)
    return {
        "keypoints": keypoints[None],
        "scores": scores,
        "positions": np.zeros((*scores.shape, 3), np.float32),
    }


async def on_image(service: Service, *people: Any, **changes: Any) -> pb.DetectPosesResponse:
    service.triton.served = [MODEL, ON_IMAGE]
    service.triton.second_stage = hand_at_each_box
    await service.catalog.refresh()
    service.triton.answer = rows(*people)
    return await detect(service, **changes)


def second_inputs(service: Service) -> list[Tensors]:
    return [call.inputs for call in service.triton.calls if "image" in call.inputs]


async def test_a_model_that_takes_the_image_gets_it_with_boxes_and_bodies(service: Service) -> None:
    (person,) = (await on_image(service, candidate(BOX, 0.9))).persons
    (inputs,) = second_inputs(service)
    assert set(inputs) == {"image", "boxes", "bodies"}
    image, boxes = inputs["image"], inputs["boxes"]
    # 320 px high, so the square around it is 560 px wide: it reaches beyond the image on three sides.
    assert image.shape == (1, 480, 440, 3)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(boxes, [[BOX]], atol=0.01)
    assert inputs["bodies"].shape == (1, 1, 17, 3)
    assert (person.keypoints[0].x, person.keypoints[0].y) == pytest.approx(BOX[:2], abs=0.01)
    assert (person.keypoints[100].x, person.keypoints[100].y) == pytest.approx((160, 220), abs=0.01)


async def test_persons_in_batches_know_all_of_their_neighbours(service: Service) -> None:
    people = [candidate((40.0 * k, 50, 40.0 * k + 30, 200), 0.9 - k / 100) for k in range(11)]
    answer = await on_image(service, *people)
    calls = second_inputs(service)
    assert [inputs["boxes"].shape[1] for inputs in calls] == [4, 4, 3]
    assert [inputs["bodies"].shape[1] for inputs in calls] == [11, 11, 11]
    for inputs in calls:
        asked = inputs["bodies"][0, : inputs["boxes"].shape[1], 0, :2]
        np.testing.assert_allclose(asked, inputs["boxes"][0, :, :2], atol=0.01)
    middles = [(person.box.x1 + person.box.x2) / 2 for person in answer.persons]
    assert [person.keypoints[100].x for person in answer.persons] == pytest.approx(middles, abs=0.01)


async def test_two_persons_never_share_a_hand(service: Service) -> None:
    """Two boxes with one middle, so that the model gives both the same hands."""
    unsure = candidate((180, 20, 220, 380), 0.8, [(200, 200, 0.2)] * 17)
    answer = await on_image(service, candidate((100, 100, 300, 300), 0.9), unsure)
    assert len(answer.persons) == 2
    for hand in (91, 112):
        assert sorted(person.keypoints[hand].score for person in answer.persons) == pytest.approx([0, 0.8])


async def test_zero_persons_are_an_empty_answer_of_a_model_that_takes_the_image_too(service: Service) -> None:
    assert not (await on_image(service)).persons
    assert not second_inputs(service)


@pytest.mark.parametrize(
    "first_stage",
    [None, replace(MODEL, keypoint_count=133, skeleton="coco_wholebody_133"), replace(MODEL, ready=False)],
    ids=["not served", "of other keypoints", "not ready"],
)
async def test_without_a_fitting_first_stage_it_is_unavailable(service: Service, first_stage: Any) -> None:
    service.triton.served = [WHOLE] if first_stage is None else [first_stage, WHOLE]
    await service.catalog.refresh()
    failed = await failure(service.detect(VGA, model="whole"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_NOT_READY")
    assert failed.retry_s


async def test_parts_of_a_whole_body_can_be_asked_for(service: Service) -> None:
    service.triton.answer = rows(candidate(BOX, 0.9))
    hands = await detect(service, skeleton="mediapipe_hand_21")
    assert [person.side for person in hands.persons] == [types_pb2.SIDE_LEFT, types_pb2.SIDE_RIGHT]
    assert {person.person_index for person in hands.persons} == {0}
    body = await detect(service, skeleton="coco_17")
    assert len(body.persons[0].keypoints) == len(shipped()["coco_17"].keypoints)


async def test_the_picture_is_drawn_after_both_stages(service: Service) -> None:
    service.triton.answer = rows(candidate(BOX, 0.9))
    overlay = types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_JPEG)
    answer = await detect(service, overlay=overlay)
    assert answer.overlay.size.width == 640


async def test_angles_are_measured_on_a_whole_body_too(service: Service) -> None:
    service.triton.answer = rows(candidate(BOX, 0.9))
    request = pb.MeasureAnglesRequest(
        image=types_pb2.Image(content=VGA), measurements=["ankle_dorsiflexion"], model="whole"
    )
    answer = await service.poses.MeasureAngles(request, timeout=60)
    assert answer.persons[0].measurements[0].extension


async def test_a_panel_in_space_widens_the_picture_and_needs_positions(service: Service) -> None:
    service.triton.answer = rows(candidate(BOX, 0.9))
    overlay = types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_PNG, space_panel=True)
    answer = await detect(service, overlay=overlay)
    assert answer.overlay.size.width > 640
    failed = await failure(service.detect(VGA, overlay=overlay))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "overlay.space_panel" in failed.violations
    angles = pb.MeasureAnglesRequest(
        image=types_pb2.Image(content=VGA), measurements=["splits"], overlay=overlay, model="whole"
    )
    failed = await failure(service.poses.MeasureAngles(angles, timeout=60))
    assert "overlay.space_panel" in failed.violations
