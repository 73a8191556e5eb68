from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from service.core.angles import AngleOptions, Goniometer, SideSelection, goniometers, measure
from service.core.drawing.angles import BOTH, DOUBTFUL, LEFT, RIGHT, draw_angles, lay_out
from service.core.drawing.text import plate_size_wh
from service.core.geometry import Rgb8
from service.core.skeleton.template import Rgb
from tests.core.angles.figures import (
    COCO,
    COCO_NAMES,
    NINETEEN,
    WHOLEBODY,
    array_of,
    frontal,
    poses_of,
    profile,
)

SIZES = [(320, 240), (640, 480), (1080, 1920), (3840, 2160)]


def blank(size_wh: tuple[int, int] = (1000, 1000)) -> Rgb8:
    return np.full((size_wh[1], size_wh[0], 3), 60, np.uint8)


def of_profile(*names: str, side: SideSelection = "both", **angles: float) -> tuple[Goniometer, ...]:
    poses = poses_of(array_of(profile(**angles), COCO))  # type: ignore[arg-type]
    return goniometers(measure(poses, COCO, names, AngleOptions(), side=side), 0)


def in_size(size_wh: tuple[int, int], names: tuple[str, ...] = NINETEEN) -> tuple[Goniometer, ...]:
    """A person that fills a picture of this size, from the front."""
    person = array_of(frontal(abduction=(40, 120), thighs=(25, 5), neck=10), COCO)
    low, high = person[:, :2].min(axis=0), person[:, :2].max(axis=0)
    person[:, :2] = (person[:, :2] - low) / (high - low).max() * (0.8 * min(size_wh)) + 0.1 * min(size_wh)
    return goniometers(measure(poses_of(person), COCO, names, AngleOptions(size_wh=size_wh)), 0)


def has(picture: Rgb8, color: Rgb) -> bool:
    return bool((np.abs(picture.astype(int) - color).max(axis=2) < 12).sum() > 20)


def test_nothing_to_draw_is_a_copy() -> None:
    image = blank()
    drawn = draw_angles(image, ())
    np.testing.assert_array_equal(drawn, image)
    assert drawn is not image
    assert not np.shares_memory(drawn, image)


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 10, 3), (1, 1, 3), (8, 8, 3), (40, 2000, 3)], ids=str)
def test_pictures_of_any_size_are_drawn_on(shape: tuple[int, int, int]) -> None:
    drawn = draw_angles(np.zeros(shape, np.uint8), of_profile(*NINETEEN))
    assert drawn.shape == shape


def test_the_input_is_left_as_it_was_even_when_read_only_and_not_contiguous() -> None:
    image = blank()[::2, ::-1]
    image.flags.writeable = False
    before = image.copy()
    drawn = draw_angles(image, of_profile("knee_flexion"))
    np.testing.assert_array_equal(image, before)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


def test_drawing_twice_is_drawing_the_same() -> None:
    wanted = in_size((640, 480))
    image = blank((640, 480))
    np.testing.assert_array_equal(draw_angles(image, wanted), draw_angles(image, wanted))


@pytest.mark.parametrize("size_wh", SIZES, ids=str)
def test_plates_stay_inside_and_apart(size_wh: tuple[int, int]) -> None:
    plates = lay_out(in_size(size_wh), size_wh)
    assert plates
    boxes = []
    for plate in plates:
        wide, high = plate_size_wh(plate.lines)
        x, y = plate.corner
        assert 0 <= x <= size_wh[0] - wide
        assert 0 <= y <= size_wh[1] - high
        boxes.append((x, y, x + wide, y + high))
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_where_there_is_no_room_the_rest_is_counted() -> None:
    size_wh = (320, 240)
    wanted = in_size(size_wh)
    texts = [line.text for plate in lay_out(wanted, size_wh) for line in plate.lines]
    (more,) = [text for text in texts if text.endswith("more")]
    shown = (len(texts) - 1) // 2
    assert more == f"+{len(wanted) - shown} more"


def test_on_a_large_picture_everything_has_its_plate() -> None:
    wanted = in_size((1920, 1080))
    texts = [line.text for plate in lay_out(wanted, (1920, 1080)) for line in plate.lines]
    assert len(texts) == 2 * len(wanted)


def test_a_plate_names_side_joint_and_number() -> None:
    plates = lay_out(of_profile("knee_flexion", side="right", knee=45.0), (1000, 1000))
    title, number = plates[0].lines
    assert title.text == "Right Knee Flexion"
    assert number.text.startswith("45° ±")


def test_sides_have_their_colors_and_doubt_is_grey() -> None:
    image = blank()
    assert has(draw_angles(image, of_profile("knee_side", side="right", knee=50)), RIGHT)
    left = draw_angles(image, of_profile("knee_side", side="left", knee=50))  # the far side
    assert has(left, DOUBTFUL)
    assert not has(left, LEFT)
    person = poses_of(array_of(frontal(abduction=(60, 20), thighs=(30, 10)), COCO))
    for name, side, color in (("shoulder_abduction", "left", LEFT), ("splits", "both", BOTH)):
        found = measure(person, COCO, (name,), AngleOptions(), side=side)  # type: ignore[arg-type]
        assert has(draw_angles(image, goniometers(found, 0)), color)


def test_the_moving_ray_is_solid_and_the_reference_is_broken() -> None:
    (wanted,) = of_profile("knee_flexion", side="right", knee=60)
    image = draw_angles(blank(), (wanted,))
    assert wanted.centre_xy is not None
    assert wanted.moving_xy is not None
    knee, shank = complex(*wanted.centre_xy), complex(*wanted.moving_xy)
    thigh = shank * np.exp(-1j * np.radians(wanted.sweep_deg))

    def share_of_color(ray: complex) -> float:
        # from beyond the arc to before the end of the shorter ray
        at = [knee + ray * part for part in np.linspace(0.5, 0.78, 60)]
        on = [np.abs(image[round(z.imag), round(z.real)].astype(int) - RIGHT).max() < 40 for z in at]
        return float(np.mean(on))

    assert share_of_color(shank) > 0.95
    assert 0.25 < share_of_color(thigh) < 0.75


@pytest.mark.parametrize(("knee", "clockwise"), [(40, True), (-12, False)], ids=["flexed", "extended"])
def test_the_arc_runs_the_way_the_angle_is_counted(knee: float, clockwise: bool) -> None:
    (wanted,) = of_profile("knee_flexion", side="right", knee=knee)
    assert (wanted.sweep_deg > 0) == clockwise
    assert wanted.sweep_deg == pytest.approx(knee, abs=0.3)


def test_gravity_is_a_plumb_line() -> None:
    (wanted,) = of_profile("back_lumbar_forward_flexion", side="right", lean=30)
    assert wanted.gravity
    assert wanted.moving_xy is not None
    reference = complex(*wanted.moving_xy) * np.exp(-1j * np.radians(wanted.sweep_deg))
    assert reference.real == pytest.approx(0, abs=0.5)
    assert reference.imag < 0
    (knee,) = of_profile("knee_flexion", side="right")
    assert not knee.gravity


def test_what_was_not_measured_says_why() -> None:
    person = array_of(profile(elbow=50), COCO)
    person[COCO_NAMES.index("right_wrist"), 2] = 0.1
    found = measure(poses_of(person), COCO, ("elbow_side",), AngleOptions(), side="right")
    wanted = goniometers(found, 0)
    (plate,) = lay_out(wanted, (1000, 1000))
    assert [line.text for line in plate.lines] == ["Right Elbow (side view)", "n/a: right wrist unsure"]
    assert plate.color == DOUBTFUL
    image = blank()
    assert (draw_angles(image, wanted) != image).any()


def test_one_movement_of_both_sides_is_drawn_once() -> None:
    person = poses_of(array_of(frontal(lean=-9, neck=5), WHOLEBODY))
    names = ("back_side_flexion", "neck_lateral_flexion", "splits")
    wanted = goniometers(measure(person, WHOLEBODY, names, AngleOptions()), 0)
    # the side that the body bends to
    assert [goniometer.side for goniometer in wanted] == ["right", "left", None]
    only = goniometers(measure(person, WHOLEBODY, names, AngleOptions(), side="left"), 0)
    assert [goniometer.side for goniometer in only] == ["left", "left", None]


def test_measurements_that_lie_the_same_way_share_a_plate() -> None:
    wanted = of_profile("knee_flexion", "knee_extension", "knee_side", side="right", knee=40)
    plates = lay_out(wanted, (1000, 1000))
    assert [len(plate.lines) for plate in plates] == [4, 2]


def test_some_of_what_was_measured_can_be_drawn() -> None:
    person = poses_of(array_of(profile(), COCO))
    found = measure(person, COCO, NINETEEN, AngleOptions(), side="right")
    wanted = goniometers(found, 0, ("splits", "knee_side"))
    assert [goniometer.measurement.name for goniometer in wanted] == ["splits", "knee_side"]


@pytest.mark.parametrize("scale", [1e-3, 1e4, 1e12, 1e30], ids=str)
def test_people_far_outside_the_picture_do_no_harm(scale: float) -> None:
    person = array_of(profile(knee=40), COCO)
    person[:, :2] *= np.float32(scale)
    found = measure(poses_of(person), COCO, NINETEEN, AngleOptions(size_wh=(640, 480)))
    assert draw_angles(blank((640, 480)), goniometers(found, 0)).shape == (480, 640, 3)


def test_keypoints_that_are_no_numbers_leave_plates_only() -> None:
    person = np.full((17, 3), np.nan, np.float32)
    found = measure(poses_of(person), COCO, NINETEEN, AngleOptions())
    plates = lay_out(goniometers(found, 0), (1920, 1080))
    assert all("n/a" in line.text for plate in plates for line in plate.lines[1::2])


def test_a_picture_is_encoded_as_it_was_drawn() -> None:
    """Nothing but uint8 RGB comes out, in a layout that cv2 takes as it is."""
    drawn = draw_angles(blank(), of_profile("hip_side", hip=60))
    ok, _ = cv2.imencode(".png", drawn)
    assert ok
