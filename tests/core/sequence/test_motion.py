from __future__ import annotations

import numpy as np
import pytest

from service.core.sequence.motion import Motion, MotionSeen, symmetry


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
        assert one.start_s == pytest.approx(2 * number, abs=0.3)
        assert one.peak_s == pytest.approx(2 * number + 1, abs=0.2)
        assert one.end_s == pytest.approx(2 * number + 2, abs=0.3)
        assert one.peak_deg == pytest.approx(sign * 100, abs=4)
        assert one.range_deg == pytest.approx(100, abs=6)
    assert found.range_deg == pytest.approx(100, abs=6)


def test_trembling_makes_no_repetitions() -> None:
    assert seen(30 + np.random.default_rng(4).normal(0, 4, 600)).repetitions == ()


def test_outliers_of_single_frames_do_not_count() -> None:
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


def squats(count: int, fps: int = 30) -> np.ndarray:
    """Movements of two seconds, from 0 to 100 degrees and back."""
    return np.tile(50 * (1 - np.cos(2 * np.pi * np.arange(2 * fps) / (2 * fps))), count)


@pytest.mark.parametrize("noise_deg", [0.0, 2.0])
def test_pauses_are_no_part_of_a_movement(noise_deg: float) -> None:
    rest, fps = np.zeros(8 * 30), 30
    values = np.concatenate([rest, squats(1), np.zeros(6 * fps), squats(1), rest])
    found = seen(values + np.random.default_rng(1).normal(0, noise_deg, len(values)), fps=fps)
    times = [(one.start_s, one.peak_s, one.end_s) for one in found.repetitions]
    assert times == [pytest.approx((8, 9, 10), abs=0.35), pytest.approx((16, 17, 18), abs=0.35)]


@pytest.mark.parametrize("fps", [5, 8, 10, 15, 30, 60])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_outlier_does_not_count_at_any_rate(fps: int, place: str) -> None:
    values = np.full(20 * fps, 20.0)
    values[{"first": 0, "middle": 10 * fps, "last": -1}[place]] = 170
    found = seen(values, fps=fps)
    assert (found.min_deg, found.max_deg, found.repetitions) == (20.0, 20.0, ())


def test_a_wobble_beside_large_movements_is_no_repetition() -> None:
    values = np.concatenate([squats(1), 0.2 * squats(1), squats(2), 0.5 * squats(1)])
    peaks = [one.peak_deg for one in seen(values, fps=30).repetitions]
    assert peaks == pytest.approx([100, 100, 100, 50], abs=2)


def test_memory_does_not_grow_with_a_pause() -> None:
    motion = Motion()
    for number in range(100_000):
        motion.add(number / 60, 10 + number % 7)
    assert len(motion._path) <= 4096
    assert len(motion._window) < 60
