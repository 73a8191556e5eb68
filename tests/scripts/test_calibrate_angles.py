from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.calibrate_angles import _packed, _read, is_still, same_person
from scripts.fit_noise import (
    Scattered,
    against_mirrored,
    angle_scatter,
    fit,
    fit_correlations,
    fit_factors,
    in_errors,
    in_errors_by_person,
    share_within,
)
from scripts.picture_variants import MIRRORED, Variant, variants
from service.core.angles import MEASUREMENTS
from service.core.angles.noise import correlations, mixing
from service.core.poses import Floats
from service.skeletons import shipped
from tests.core.angles.figures import array_of, frontal, profile

COCO = shipped()["coco_17"]
WIDTH, HEIGHT = 320, 240
NOISE_PX = 3.0


def with_a_dot(x: float, y: float) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[int(y) - 4 : int(y) + 4, int(x) - 4 : int(x) + 4] = 250
    return image


def center_of_the_dot(variant: Variant) -> tuple[float, float]:
    """Px, with the centre of the first one at 0.5, weighted by the brightness."""
    weights = np.clip(variant.image[..., 0].astype(float) - 120, 0, None)
    rows, columns = np.indices(weights.shape) + 0.5
    return float((columns * weights).sum() / weights.sum()), float((rows * weights).sum() / weights.sum())


def test_every_variant_leads_back_to_the_same_place() -> None:
    found = list(variants(with_a_dot(100, 80)))
    assert len(found) == 40
    np.testing.assert_array_equal(found[0].image, with_a_dot(100, 80))
    np.testing.assert_array_equal(found[MIRRORED].image, with_a_dot(100, 80)[:, ::-1])
    assert {one.kind for one in found} == {"shift", "scale", "jpeg", "brightness", "mirror"}
    for one in found:
        keypoints = np.zeros((1, 17, 3), np.float32)
        keypoints[0, COCO.index("left_knee")] = *center_of_the_dot(one), 0.9
        back = one.keypoints_back(keypoints, COCO, WIDTH)
        name = "right_knee" if one.mirrored else "left_knee"
        np.testing.assert_allclose(back[0, COCO.index(name)], (100, 80, 0.9), atol=0.3)
        assert (np.delete(back[0], COCO.index(name), axis=0) == 0).all()


def test_boxes_lead_back_with_their_corners_in_order() -> None:
    box = np.array([[20, 30, 90, 200]], np.float32)
    for one in variants(with_a_dot(100, 80)):
        corners = box.reshape(1, 2, 2).copy()
        if one.mirrored:
            corners[..., 0] = WIDTH - corners[:, ::-1, 0]
        changed = (corners * one.scale + np.array(one.shift_xy, np.float32)).reshape(1, 4)
        np.testing.assert_allclose(one.boxes_back(changed, WIDTH), box, atol=1e-3)


def person(at: float = 0.0) -> Floats:
    keypoints = array_of(frontal(abduction=(60, 40), thighs=(12, 8), valgus=(5, -4)), COCO)
    keypoints[:, 0] += np.float32(at)
    return keypoints


def box_of(keypoints: Floats) -> Floats:
    low, high = keypoints[:, :2].min(axis=0), keypoints[:, :2].max(axis=0)
    return np.concatenate([low, high]).astype(np.float32)


def test_a_person_is_found_again_among_others_and_missed_where_it_is_not() -> None:
    two = np.stack([person(), person(400)])
    first = two, np.stack([box_of(one) for one in two])
    again = two[::-1] + np.float32(2), first[1][::-1]
    keypoints, box = same_person(first, 0, again)
    np.testing.assert_allclose(keypoints, two[0] + 2)
    np.testing.assert_allclose(box, first[1][0])
    other = two[1:], first[1][1:]
    empty = two[:0], first[1][:0]
    for answer in (other, empty):
        keypoints, box = same_person(first, 0, answer)
        assert np.isnan(keypoints).all()
        assert np.isnan(box).all()


@pytest.mark.parametrize(("speed", "still"), [(0.0, True), (0.02, True), (1.0, False)])
def test_a_body_that_goes_on_moving_is_not_still(speed: float, still: bool) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, (60, 17, 2))
    frames = np.stack([person(speed * number) for number in range(60)])
    frames[..., :2] += noise.astype(np.float32)
    assert is_still(frames, np.stack([box_of(one) for one in frames])) is still


def scattered(seed: int, count: int = 40, mixing: NDArray[np.float64] | None = None) -> Scattered:
    """A person whose keypoints are off by NOISE_PX in each variant, independent or mixed."""
    rng = np.random.default_rng(seed)
    figure = profile(knee=40, hip=30, shoulder=50) if seed % 2 else None
    body = person() if figure is None else array_of(figure, COCO)
    keypoints = np.repeat(body[None], count, axis=0)
    keypoints[..., 2] = 0.98
    noise = rng.normal(0, NOISE_PX, (count, 17, 2))
    if mixing is not None:
        noise = np.einsum("vpx,pq->vqx", noise, mixing)
    keypoints[..., :2] += noise.astype(np.float32)
    boxes = np.repeat(box_of(body)[None], count, axis=0)
    keypoints[3], boxes[3] = np.nan, np.nan  # in one variant the person was not found
    return Scattered(f"{seed}.jpg#0", "yolo11n_pose", keypoints, boxes, (2000, 2000))


def test_the_fit_finds_the_noise_that_was_put_in() -> None:
    persons = [(scattered(seed), COCO) for seed in range(8)]
    table = fit(persons, {})
    scatters = [angle_scatter(one, skeleton).correlated({}) for one, skeleton in persons]
    values = in_errors(scatters, [one.errors_with(table) for one in scatters])
    for name in ("shoulder_abduction", "squats_knee_front", "knee_flexion", "back_side_flexion"):
        assert 0.90 <= np.mean(values[name] <= 2) <= 0.985, name
    first = scatters[0]
    place = first.kinds.index("knee")
    in_px = np.hypot(table["knee"][-1] * first.priors_px[0, place], first.floor_px[0])
    assert in_px == pytest.approx(NOISE_PX, rel=0.35)


def test_the_fit_finds_the_correlations_that_were_put_in() -> None:
    put_in = {("hip", "hip"): (0.0, 0.6), ("ear", "eye"): (0.8, 0.0), ("ankle", "knee"): (0.5, 0.0)}
    root = mixing(correlations(put_in, COCO.names))
    persons = [scattered(seed, mixing=root) for seed in range(12)]
    scatters = [angle_scatter(one, COCO) for one in persons]
    found = fit_correlations(persons, scatters)
    assert found["hip", "hip"] == pytest.approx((0.0, 0.6), abs=0.1)
    assert found["ear", "eye"] == pytest.approx((0.8, 0.0), abs=0.1)
    assert found["ankle", "knee"] == pytest.approx((0.5, 0.0), abs=0.1)
    assert ("elbow", "wrist") not in found


def test_the_interval_of_a_share_is_wider_where_the_values_of_a_person_are_alike() -> None:
    inside, outside = np.full(40, 1.0), np.full(40, 3.0)
    mixed = [np.concatenate([inside[:30], outside[:10]])] * 8
    share, low, high = share_within(mixed)
    assert share == pytest.approx(0.75)
    assert (low, high) == pytest.approx((0.70, 0.795), abs=0.005)  # Wilson of 240 of 320
    alike = [inside] * 6 + [outside] * 2
    share, low, high = share_within(alike)
    assert share == pytest.approx(0.75)
    assert (low, high) == pytest.approx((0.41, 0.93), abs=0.005)  # Wilson of 6 of 8
    assert share_within([inside] * 8) == pytest.approx((1.0, 0.676, 1.0), abs=0.005)  # of 8 of 8
    assert share_within([outside]) == pytest.approx((0.0, 0.0, 0.793), abs=0.005)


def test_a_factor_is_fitted_where_the_share_is_beyond_chance_and_to_the_same_rays_alike() -> None:
    persons = [scattered(seed) for seed in range(8)]
    scatters = [angle_scatter(one, COCO) for one in persons]
    right = fit([(one, COCO) for one in persons], {})
    errors = [one.correlated({}).errors_with(right) for one in scatters]
    values = in_errors_by_person(scatters, errors)["knee_side"]
    _, low, high = share_within(values)
    assert low < 0.95 < high  # of four persons; of the same ones four times, by four names, it would not be
    assert share_within(values * 4)[2] < 0.95
    assert "knee_side" not in fit_factors(scatters, errors)
    names = list(MEASUREMENTS)
    knee = [names.index(name) for name in ("knee_flexion", "knee_extension", "knee_side", "squats_knee_side")]
    for one in errors:
        one[:, knee] *= 0.5
    factors = fit_factors(scatters, errors)
    assert factors["knee_flexion"] == pytest.approx(2.0, abs=0.3)
    assert factors["knee_flexion"] == factors["knee_extension"] == factors["knee_side"]
    assert "elbow_side" not in factors


def test_what_was_found_is_kept_and_read_again(tmp_path: Path) -> None:
    one = scattered(1)
    known = {("1.jpg", "yolo11n_pose"): [one], ("empty.png", "yolo11n_pose"): []}
    path = tmp_path / "kept.npz"
    path.write_bytes(_packed(known))
    again = _read(path)
    assert again.keys() == known.keys()
    assert again["empty.png", "yolo11n_pose"] == []
    (read,) = again["1.jpg", "yolo11n_pose"]
    assert (read.source, read.model, read.size_wh) == (one.source, one.model, one.size_wh)
    np.testing.assert_array_equal(read.keypoints, one.keypoints)
    np.testing.assert_array_equal(read.boxes, one.boxes)


def test_an_image_is_held_against_the_mirrored_one_in_standard_errors_of_the_difference() -> None:
    one = scattered(0)
    scatter = angle_scatter(one, COCO)
    values = against_mirrored([one], [scatter])["elbow_side"]
    seen = [number for number in range(40) if number != 3]  # in one variant the person was not found
    plain, mirrored = seen.index(0), seen.index(MIRRORED)
    place = list(MEASUREMENTS).index("elbow_side")
    apart = scatter.degrees[plain, place] - scatter.degrees[mirrored, place]
    error = np.hypot(scatter.errors_deg[plain, place], scatter.errors_deg[mirrored, place])
    np.testing.assert_allclose(values, np.abs(apart) / error)
    still = replace(one, source="1.mp4#0@3")
    assert not against_mirrored([still], [scatter])["elbow_side"].size
    one.boxes[MIRRORED] = np.nan
    assert not against_mirrored([one], [angle_scatter(one, COCO)])["elbow_side"].size
