"""MeasureAngles: every field of the request honoured or refused, every side with a value or a reason."""

from typing import Any

import grpc
import numpy as np
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import MEASUREMENTS
from tests.core.angles.vectors import FRONTAL
from tests.fakes import candidate, rows
from tests.pictures import jpeg
from tests.running import Service, failure
from tests.servicers.test_detect_poses import picture_of

SQUARE = jpeg((640, 640))  # fits the input of 640x640 as it is, so px of the input are px of the picture
POINTS = [(float(x), float(y), float(s)) for x, y, s in FRONTAL]
BOX = (150.0, 180.0, 480.0, 570.0)
FIGURE = candidate(BOX, 0.9, POINTS)
SMALL = candidate((0, 0, 60, 120), 0.95, [(x / 6, y / 6, s) for x, y, s in POINTS])


def request(names: str = "shoulder_abduction", **fields: Any) -> pb.MeasureAnglesRequest:
    return pb.MeasureAnglesRequest(image=types_pb2.Image(content=SQUARE), measurements=[names], **fields)


async def measure(
    service: Service, names: str = "shoulder_abduction", **fields: Any
) -> pb.MeasureAnglesResponse:
    return await service.poses.MeasureAngles(request(names, **fields), timeout=60)


async def only(service: Service, names: str = "shoulder_abduction", **fields: Any) -> pb.AngleMeasurement:
    answer = await measure(service, names, **fields)
    return answer.persons[0].measurements[0]


async def test_zero_persons_are_an_empty_answer(service: Service) -> None:
    answer = await measure(service)
    assert not answer.persons
    assert answer.persons_found == 0
    assert (answer.model, answer.model_version, answer.skeleton) == ("yolo11n_pose", "1", "coco_17")


async def test_a_known_figure_reads_as_it_was_drawn(service: Service) -> None:
    service.triton.answer = rows(FIGURE)
    angle = await only(service)
    assert angle.left.degrees == pytest.approx(90, abs=0.3)
    assert angle.right.degrees == pytest.approx(170, abs=0.3)
    assert (angle.title, angle.body_part) == ("Shoulder Abduction", "shoulder")
    assert angle.left.std_error_deg > 0
    assert angle.view.required == angle.view.detected == pb.VIEW_FRONTAL
    assert not angle.extension


async def test_all_measurements_come_in_the_order_asked_for_each_side_with_a_value_or_a_reason(
    service: Service,
) -> None:
    service.triton.answer = rows(FIGURE)
    names = list(MEASUREMENTS)[::-1]
    answer = await measure(service, ", ".join(names))
    (person,) = answer.persons
    assert [each.name for each in person.measurements] == names
    for each in person.measurements:
        for value in (each.left, each.right):
            if value.status == pb.ANGLE_STATUS_UNAVAILABLE:
                assert not value.HasField("degrees")
                assert value.reasons
            else:
                assert value.HasField("degrees")
    ankle = next(each for each in person.measurements if each.name == "ankle_dorsiflexion")
    assert ankle.extension
    assert ankle.left.status == pb.ANGLE_STATUS_UNAVAILABLE


async def test_names_may_be_a_list_or_one_string_in_any_case(service: Service) -> None:
    service.triton.answer = rows(FIGURE)
    asked = pb.MeasureAnglesRequest(
        image=types_pb2.Image(content=SQUARE), measurements=["SPLITS , knee_side", "splits"]
    )
    answer = await service.poses.MeasureAngles(asked, timeout=60)
    assert [each.name for each in answer.persons[0].measurements] == ["splits", "knee_side"]


@pytest.mark.parametrize(
    ("side", "fields"),
    [
        (types_pb2.SIDE_LEFT, {"left"}),
        (types_pb2.SIDE_RIGHT, {"right"}),
        (types_pb2.SIDE_BOTH, {"left", "right"}),
        (types_pb2.SIDE_UNSPECIFIED, {"left", "right"}),
    ],
)
async def test_only_the_sides_asked_for_are_answered(
    service: Service, side: types_pb2.Side.ValueType, fields: set[str]
) -> None:
    service.triton.answer = rows(FIGURE)
    angle = await only(service, side=side)
    assert {field for field in ("left", "right") if angle.HasField(field)} == fields


async def test_a_mirrored_picture_changes_the_sides(service: Service) -> None:
    service.triton.answer = rows(FIGURE)
    plain, mirrored = await only(service), await only(service, mirrored=True)
    assert mirrored.left.degrees == pytest.approx(plain.right.degrees)
    assert mirrored.right.degrees == pytest.approx(plain.left.degrees)


async def test_a_baseline_is_subtracted_and_its_error_added_in_quadrature(service: Service) -> None:
    service.triton.answer = rows(FIGURE)
    plain = await only(service)
    neutral = pb.BaselineAngle(
        name="Shoulder_Abduction", side=types_pb2.SIDE_LEFT, degrees=9, std_error_deg=4
    )
    reduced = await only(service, baseline=[neutral])
    assert reduced.left.degrees == pytest.approx(plain.left.degrees - 9)
    assert reduced.left.std_error_deg == pytest.approx(np.hypot(plain.left.std_error_deg, 4), rel=1e-3)
    assert reduced.right.degrees == pytest.approx(plain.right.degrees)


async def test_camera_roll_turns_what_is_measured_against_gravity_and_nothing_else(service: Service) -> None:
    service.triton.answer = rows(FIGURE)
    for name, turned in (("back_side_flexion", 10.0), ("shoulder_abduction", 0.0)):
        plain, rolled = await only(service, name), await only(service, name, camera_roll_deg=10)
        assert abs(rolled.left.degrees - plain.left.degrees) == pytest.approx(turned, abs=1e-3)


async def test_facing_may_be_given(service: Service) -> None:
    service.triton.answer = rows(FIGURE)
    answer = await measure(service, facing=pb.FACING_AWAY_FROM_CAMERA)
    assert answer.persons[0].facing == pb.FACING_AWAY_FROM_CAMERA


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [
        (pb.PersonSelection(), [1]),
        (pb.PersonSelection(choice=pb.PERSON_CHOICE_LARGEST), [1]),
        (pb.PersonSelection(choice=pb.PERSON_CHOICE_ALL), [0, 1]),
        (pb.PersonSelection(index=0), [0]),
        (pb.PersonSelection(index=7), []),
    ],
    ids=["unset", "largest", "all", "index", "past the last"],
)
async def test_people_are_chosen_as_asked(
    service: Service, selection: pb.PersonSelection, numbers: list[int]
) -> None:
    service.triton.answer = rows(SMALL, FIGURE)
    answer = await measure(service, person=selection)
    assert [person.person_index for person in answer.persons] == numbers
    assert answer.persons_found == 2


async def test_min_score_leaves_people_out(service: Service) -> None:
    service.triton.answer = rows(SMALL, FIGURE)
    assert (await measure(service, min_score=0.92)).persons_found == 1


async def test_one_overlay_has_all_or_each_measurement_its_own(service: Service) -> None:
    service.triton.answer = rows(FIGURE)
    png = types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_PNG)
    names = "shoulder_abduction,splits"
    combined = await measure(service, names, overlay=png)
    each = await measure(service, names, overlay=png, overlay_mode=pb.ANGLE_OVERLAY_MODE_PER_MEASUREMENT)
    assert picture_of(combined.overlay).shape == (640, 640, 3)
    assert not any(one.HasField("overlay") for one in combined.persons[0].measurements)
    assert not each.HasField("overlay")
    drawn = [picture_of(one.overlay) for one in each.persons[0].measurements]
    assert (drawn[0] != drawn[1]).any()
    assert not (await measure(service, names)).HasField("overlay")


async def test_the_mode_both_gives_the_overlays_of_the_two_other_modes(service: Service) -> None:
    service.triton.answer = rows(FIGURE)
    png = types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_PNG)
    names = "shoulder_abduction,splits"
    both = await measure(service, names, overlay=png, overlay_mode=pb.ANGLE_OVERLAY_MODE_BOTH)
    combined = await measure(service, names, overlay=png)
    each = await measure(service, names, overlay=png, overlay_mode=pb.ANGLE_OVERLAY_MODE_PER_MEASUREMENT)
    assert both.overlay == combined.overlay
    assert [one.overlay for one in both.persons[0].measurements] == [
        one.overlay for one in each.persons[0].measurements
    ]


@pytest.mark.parametrize("mode", [mode for mode in pb.AngleOverlayMode.values() if mode])
async def test_a_mode_of_the_overlay_needs_an_overlay(
    service: Service, mode: pb.AngleOverlayMode.ValueType
) -> None:
    failed = await failure(service.poses.MeasureAngles(request(overlay_mode=mode), timeout=60))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(failed.violations) == ["overlay_mode"]


async def test_labels_may_be_left_out_of_the_overlay(service: Service) -> None:
    service.triton.answer = rows(FIGURE)
    options = types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_PNG)
    labelled = picture_of((await measure(service, overlay=options)).overlay)
    options.labels = False
    bare = picture_of((await measure(service, overlay=options)).overlay)
    assert (labelled != bare).any()


async def test_every_wrong_field_is_named_at_once(service: Service) -> None:
    wrong = pb.MeasureAnglesRequest(
        measurements=["knee_flexion, elbow_flexing"],
        side=9,  # type: ignore[arg-type]
        facing=9,  # type: ignore[arg-type]
        camera_roll_deg=float("nan"),
        min_score=2,
        overlay_mode=9,  # type: ignore[arg-type]
        person=pb.PersonSelection(index=-1),
        baseline=[
            pb.BaselineAngle(name="splits", degrees=1),
            pb.BaselineAngle(name="knee_flexion", degrees=500, std_error_deg=-1),
        ],
    )
    failed = await failure(service.poses.MeasureAngles(wrong, timeout=60))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(failed.violations) >= {
        "image",
        "measurements",
        "side",
        "facing",
        "camera_roll_deg",
        "min_score",
        "overlay_mode",
        "person.index",
        "baseline[0].name",
        "baseline[1].degrees",
        "baseline[1].std_error_deg",
    }


@pytest.mark.parametrize("names", ["", " , "], ids=["none", "blank"])
async def test_no_measurement_is_refused(service: Service, names: str) -> None:
    failed = await failure(service.poses.MeasureAngles(request(names), timeout=60))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "measurements" in failed.violations


async def test_an_unknown_name_is_named_and_the_good_ones_are_listed(service: Service) -> None:
    failed = await failure(service.poses.MeasureAngles(request("knee_bend"), timeout=60))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "knee_bend" in failed.message
    assert "knee_flexion" in failed.message


async def test_as_many_wrong_fields_as_a_list_can_hold_still_fit_into_the_answer(service: Service) -> None:
    wrong = [pb.BaselineAngle(name="unknown", degrees=1e9, std_error_deg=-1) for _ in range(64)]
    failed = await failure(service.poses.MeasureAngles(request(baseline=wrong), timeout=60))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "baseline[0].name" in failed.violations
    assert "more fields are wrong" in failed.violations[""]


async def test_a_baseline_given_twice_is_refused(service: Service) -> None:
    twice = [
        pb.BaselineAngle(name="shoulder_abduction", degrees=1),
        pb.BaselineAngle(name="shoulder_abduction", side=types_pb2.SIDE_LEFT, degrees=2),
    ]
    failed = await failure(service.poses.MeasureAngles(request(baseline=twice), timeout=60))
    assert "baseline[1]" in failed.violations


async def test_an_unknown_model_is_not_found(service: Service) -> None:
    failed = await failure(service.poses.MeasureAngles(request(model="yolo99"), timeout=60))
    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


async def test_a_keypoint_that_is_not_a_number_costs_only_what_rests_on_it(service: Service) -> None:
    points = list(POINTS)
    points[7] = (float("nan"), float("nan"), 0.9)  # the left elbow
    service.triton.answer = rows(candidate(BOX, 0.9, points))
    angle = await only(service)
    assert angle.left.status == pb.ANGLE_STATUS_UNAVAILABLE
    assert angle.right.degrees == pytest.approx(170, abs=0.3)
