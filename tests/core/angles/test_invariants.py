"""What must not change, and what must change with what, whoever is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.core.angles import MEASUREMENTS, AngleOptions, Neutral, measure
from service.core.angles.limits import ANY_POSTURE, LIMITS
from service.core.angles.result import Measured
from service.core.poses import Floats, Poses
from tests.core.angles.figures import (
    ALL,
    COCO,
    WHOLEBODY,
    array_of,
    degrees,
    frontal,
    measured,
    poses_of,
    profile,
)
from tests.core.angles.vectors import FRONTAL, LEFTWARD, OVER_SPLIT, RIGHTWARD

# keypoints are float32: 1e-4 px at 1,000 px, on rays of 20 px and more
WITHIN = 0.02
AGAINST_GRAVITY = ("back_side_flexion", "back_lumbar_forward_flexion", "back_lumbar_extension")
OF_FRONTAL_VIEW = (*(name for name, m in MEASUREMENTS.items() if m.view == "frontal"), "splits")

bend = st.floats(-30, 120, width=32)
small = st.floats(-25, 25, width=32)


@st.composite
def people(draw: st.DrawFn) -> Floats:
    """One of the known people or one with drawn angles, every keypoint moved by up to 4 px."""
    kind = draw(st.sampled_from(["known", "profile", "frontal"]))
    if kind == "known":
        person = draw(st.sampled_from([FRONTAL, RIGHTWARD, LEFTWARD, OVER_SPLIT])).copy()
    elif kind == "profile":
        figure = profile(
            facing=draw(st.sampled_from([1, -1])),
            lean=draw(small),
            hip=draw(bend),
            knee=draw(st.floats(5, 120)),
            shoulder=draw(st.floats(-50, 170)),
            elbow=draw(st.floats(5, 120)),
            neck=draw(small),
        )
        person = array_of(figure, COCO)
    else:
        figure = frontal(
            toward=draw(st.sampled_from([1, -1])),
            lean=draw(small),
            abduction=(draw(st.floats(0, 170)), draw(st.floats(0, 170))),
            thighs=(draw(st.floats(0, 80)), draw(st.floats(0, 80))),
            valgus=(draw(small), draw(small)),
            neck=draw(small),
            elbow=draw(st.floats(5, 120)),
        )
        person = array_of(figure, COCO)
    seed = draw(st.integers(0, 2**32 - 1))
    person[:, :2] += np.random.default_rng(seed).uniform(-4, 4, (len(person), 2)).astype(np.float32)
    return person


def moved(person: Floats, *, scale: float = 1.0, turn_deg: float = 0.0, by: complex = 0.0) -> Floats:
    z = (person[:, 0] + 1j * person[:, 1]).astype(np.complex128)
    z = (z - 400 - 400j) * scale * np.exp(1j * np.radians(turn_deg)) + 400 + 400j + by
    return np.stack([z.real, z.imag, person[:, 2]], axis=1).astype(np.float32)


def mirrored(person: Floats) -> Floats:
    other = person.copy()
    other[:, 0] = 800 - other[:, 0]
    return other


def relabelled(person: Floats) -> Floats:
    names = COCO.names
    swap = {"left": "right", "right": "left"}
    order = [names.index("_".join(swap.get(part, part) for part in name.split("_"))) for name in names]
    return person[order]


def assert_same(found: Measured, expected: Measured, names: tuple[str, ...], swap: bool = False) -> None:
    """The same angles, up to whole turns: noise may lift a value over the cut."""
    for name in names:
        a, b = np.array(degrees(found, name)), np.array(degrees(expected, name))
        apart = (a - (b[::-1] if swap else b) + 180) % 360 - 180
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b[::-1] if swap else b), err_msg=name)
        assert np.nanmax(np.abs(apart), initial=0) < WITHIN, name


@given(people(), st.floats(0.6, 4), st.complex_numbers(max_magnitude=2000, allow_nan=False))
@settings(max_examples=60, deadline=None)
def test_a_size_and_place_do_not_matter(person: Floats, scale: float, by: complex) -> None:
    assert_same(measured(moved(person, scale=scale, by=by)), measured(person), ALL)


@given(people(), st.floats(-180, 180))
@settings(max_examples=60, deadline=None)
def test_b_a_turned_picture_changes_only_what_is_measured_against_gravity(
    person: Floats, turn_deg: float
) -> None:
    names = tuple(name for name in ALL if name not in AGAINST_GRAVITY)
    # the posture is read against gravity too, and may withhold what presumes one
    of_any = tuple(name for name in names if LIMITS[name].postures == ANY_POSTURE)
    turned, upright = measured(moved(person, turn_deg=turn_deg)), measured(person)
    assert_same(turned, upright, of_any)
    for name in names:
        apart = np.subtract(degrees(turned, name), degrees(upright, name))
        assert np.nanmax(np.abs((apart + 180) % 360 - 180), initial=0) < WITHIN, name


@given(people(), st.floats(-60, 60))
@settings(max_examples=30, deadline=None)
def test_b_and_that_turns_with_the_picture(person: Floats, turn_deg: float) -> None:
    before, after = measured(person), measured(moved(person, turn_deg=turn_deg))
    for name in AGAINST_GRAVITY:
        for was, now in zip(degrees(before, name), degrees(after, name), strict=True):
            if np.isfinite(was) and np.isfinite(now):  # a turned body may be taken for a lying one
                apart = abs((now - was + 180) % 360 - 180)
                assert apart == pytest.approx(abs(turn_deg), abs=WITHIN), name


@given(people())
@settings(max_examples=60, deadline=None)
def test_c_a_mirrored_and_relabelled_person_exchanges_left_and_right(person: Floats) -> None:
    assert_same(measured(relabelled(mirrored(person))), measured(person), ALL, swap=True)


@given(people())
@settings(max_examples=60, deadline=None)
def test_d_the_same_person_from_behind_has_the_same_frontal_values(person: Floats) -> None:
    assert_same(measured(mirrored(person)), measured(person), OF_FRONTAL_VIEW)


@given(people())
@settings(max_examples=40, deadline=None)
def test_e_bends_to_the_side_are_antisymmetric(person: Floats) -> None:
    found = measured(person)
    for name in ("back_side_flexion", "neck_lateral_flexion"):
        left, right = degrees(found, name)
        assert (np.isnan(left) and np.isnan(right)) or left + right == pytest.approx(0, abs=1e-9)


@given(people())
@settings(max_examples=40, deadline=None)
def test_f_an_extension_is_minus_the_flexion(person: Floats) -> None:
    found = measured(person)
    for flexion, extension in (
        ("shoulder_forward_flexion", "shoulder_extension"),
        ("back_lumbar_forward_flexion", "back_lumbar_extension"),
        ("knee_flexion", "knee_extension"),
        ("neck_forward_flexion", "neck_extension"),
    ):
        for bent, stretched in zip(degrees(found, flexion), degrees(found, extension), strict=True):
            assert stretched == pytest.approx(-bent, nan_ok=True)


@given(people())
@settings(max_examples=40, deadline=None)
def test_g_the_interior_angle_of_the_knee_is_180_minus_its_flexion(person: Floats) -> None:
    found = measured(person)
    for interior, flexion in zip(degrees(found, "knee_side"), degrees(found, "knee_flexion"), strict=True):
        assert interior == pytest.approx(180 - abs(flexion), nan_ok=True)


@given(people(), st.data())
@settings(max_examples=60, deadline=None)
def test_h_coincident_points_give_null_and_say_so(person: Floats, data: st.DataObject) -> None:
    first, second = data.draw(st.sampled_from([("hip", "knee"), ("knee", "ankle"), ("shoulder", "hip")]))
    side = data.draw(st.sampled_from(["left", "right"]))
    person = person.copy()
    person[COCO.index(f"{side}_{second}")] = person[COCO.index(f"{side}_{first}")]
    found = measured(person)
    name = {"hip": "knee_side", "knee": "knee_side", "shoulder": "hip_side"}[first]
    assert np.isnan(degrees(found, name)[side == "right"])
    assert not np.isinf(found.degrees).any()
    measurement, s = ALL.index(name), int(side == "right")
    assert found.statuses[0, measurement, s] == 2
    assert np.isnan(found.std_errors_deg[0, measurement, s])


@given(people(), st.sampled_from(["coco", "wholebody"]))
@settings(max_examples=25, deadline=None)
def test_i_the_standard_error_of_one_keypoint_is_the_slope_of_the_angle(person: Floats, which: str) -> None:
    skeleton = COCO
    if which == "wholebody":
        skeleton = WHOLEBODY
        person = array_of(profile(hip=40, knee=50, shoulder=60, wrist=20, ankle=5), WHOLEBODY)
    used = [i for i in range(len(person)) if person[i, 2] > 0]
    step = 0.25
    people_moved = [person]
    for i in used:
        for axis in (0, 1):
            for sign in (step, -step):
                other = person.copy()
                other[i, axis] += sign
                people_moved.append(other)
    # one person per keypoint, whose other keypoints are exactly known
    sigmas = np.zeros((len(people_moved), len(person)), np.float32)
    for row, i in enumerate(used):
        sigmas[1 + 4 * row, i] = 1.0
    stack = np.stack(people_moved)
    # with a baseline there is no assumed neutral head in the error; a facing that is told does not flip
    neutral = {(name, side): Neutral(0.0) for name in ALL for side in ("left", "right")}
    options = AngleOptions(baseline=neutral, facing="right")  # type: ignore[arg-type]
    still = np.repeat(person[None], len(stack), axis=0)
    slopes = measure(_poses(still), skeleton, ALL, options, sigmas_px=sigmas).std_errors_deg
    values = measure(_poses(stack), skeleton, ALL, options).degrees
    for row in range(len(used)):
        up_x, down_x, up_y, down_y = values[1 + 4 * row : 5 + 4 * row]
        dx, dy = _difference(up_x, down_x) / (2 * step), _difference(up_y, down_y) / (2 * step)
        expected = slopes[1 + 4 * row]
        smooth = np.isfinite(dx) & np.isfinite(dy) & np.isfinite(expected) & ~_folded(values[0])
        np.testing.assert_allclose(
            np.hypot(dx, dy)[smooth], expected[smooth], rtol=0.02, atol=0.01, err_msg=str(used[row])
        )


def _poses(people: Floats) -> Poses:
    return poses_of(people)


def _difference(a: Any, b: Any) -> Any:
    return (a - b + 180) % 360 - 180


def _folded(values: Any) -> Any:
    """Where a magnitude is about to fold over: the slope is not defined there."""
    return (np.abs(values) < 4) | (np.abs(values) > 176)


@given(
    arrays(
        np.float32,
        (2, 17, 3),
        elements=st.one_of(
            st.floats(width=32, allow_nan=True, allow_infinity=True),
            st.sampled_from([0.0, 1.0, -1.0, 100.0, 101.0, 0.5, 1e38, -1e38, 1e-38]),
        ),
    ),
    st.sampled_from(["auto", "left", "away"]),
)
@settings(max_examples=150, deadline=None)
def test_no_numbers_are_too_odd_to_be_answered(keypoints: Floats, facing: str) -> None:
    odd = Poses(keypoints[:, :4, 0].copy(), keypoints[:, 0, 2].copy(), keypoints)
    found = measure(odd, COCO, ALL, AngleOptions(size_wh=(640, 480), facing=facing))  # type: ignore[arg-type]
    null = np.isnan(found.degrees)
    assert not np.isinf(found.degrees).any()
    np.testing.assert_array_equal(null, found.statuses == 2)
    assert (found.flags[null] != 0).all()
    assert not np.isnan(found.keypoint_scores).any()
    assert not (found.std_errors_deg < 0).any()
