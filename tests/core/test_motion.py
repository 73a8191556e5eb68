from __future__ import annotations

import numpy as np
import pytest

from service.core.motion import Motion, MotionSeen, symmetry


def seen(values: np.ndarray, fps: float = 60.0) -> MotionSeen:
    motion = Motion()
    for number, value in enumerate(values):
        motion.add(number / fps, float(value))
    found = motion.result()
    assert found is not None
    return found


def test_nothing_was_seen_of_what_was_never_measured() -> None:
    assert Motion().result() is None


def test_one_value_is_a_motion_of_no_range() -> None:
    found = seen(np.array([12.0]))
    assert (found.min_deg, found.max_deg, found.range_deg, found.repetitions) == (12.0, 12.0, 0.0, ())


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("noise_deg", [0.0, 3.0])
def test_squats_are_counted_with_their_times(sign: int, noise_deg: float) -> None:
    times = np.arange(600) / 60
    wave = 50 * (1 - np.cos(2 * np.pi * times / 2))  # five in ten seconds, from 0 to 100
    found = seen(sign * wave + np.random.default_rng(3).normal(0, noise_deg, 600))
    assert len(found.repetitions) == 5
    for number, one in enumerate(found.repetitions):
        assert one.start_s == pytest.approx(2 * number, abs=0.2)
        assert one.peak_s == pytest.approx(2 * number + 1, abs=0.2)
        assert one.end_s == pytest.approx(2 * number + 2, abs=0.2)
        assert one.peak_deg == pytest.approx(sign * 100, abs=4)
        assert one.range_deg == pytest.approx(100, abs=6)
    assert found.range_deg == pytest.approx(100, abs=6)


def test_trembling_makes_no_repetitions() -> None:
    assert seen(30 + np.random.default_rng(4).normal(0, 4, 600)).repetitions == ()


def test_single_frames_that_go_astray_do_not_count() -> None:
    values = np.full(300, 20.0)
    values[[50, 120, 121, 200]] = 170
    found = seen(values)
    assert (found.max_deg, found.repetitions) == (20.0, ())


def test_half_a_movement_is_no_repetition_and_one_that_is_nearly_back_is() -> None:
    there = np.linspace(0, 90, 60)
    assert seen(there).repetitions == ()
    assert seen(np.concatenate([there, there[::-1][:20]])).repetitions == ()
    assert len(seen(np.concatenate([there, there[::-1][:50]])).repetitions) == 1


def test_gaps_are_bridged() -> None:
    motion = Motion()
    for time_s, value in ((0.0, 0.0), (0.1, 0.0), (5.0, 80.0), (5.1, 80.0), (9.0, 1.0), (9.1, 1.0)):
        motion.add(time_s, value)
    found = motion.result()
    assert found is not None
    assert [(one.start_s, one.peak_s) for one in found.repetitions] == [(0.1, 5.0)]


def test_few_frames_a_second_are_enough() -> None:
    times = np.arange(40) / 4
    assert len(seen(50 * (1 - np.cos(2 * np.pi * times / 2)), fps=4).repetitions) == 5


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(0, 0, (0, 0)), (50, 100, (-50, -50)), (100, 50, (50, 50)), (80, 80, (0, 0))],
    ids=["still", "less on the left", "more on the left", "alike"],
)
def test_sides_are_compared(left: float, right: float, expected: tuple[float, float]) -> None:
    assert symmetry(left, right) == expected
