"""Which frames are analysed."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import pytest

from service.media.frame_sampler import FrameSampler, Sampling, nanoseconds


def selected(sampling: Sampling, times: Iterable[Fraction], duration: Fraction) -> list[int]:
    """Numbers of the frames that a sampling selects."""
    sampler = FrameSampler(sampling)
    numbers = []
    for number, time in enumerate(times):
        if sampler.is_before(time):
            continue
        if sampler.is_past(time):
            break
        if sampler.selects(time, duration):
            numbers.append(number)
    return numbers


def steps(fps: Fraction, count: int) -> list[Fraction]:
    return [number / fps for number in range(count)]


@pytest.mark.parametrize(
    ("sampling", "numbers"),
    [
        (Sampling(), list(range(40))),
        (Sampling(every_nth=15), [0, 15, 30]),
        (Sampling(every_nth=15, start_s=0.04), [1, 16, 31]),
        (Sampling(target_fps=5), list(range(0, 40, 5))),
        (Sampling(target_fps=100), list(range(40))),
        (Sampling(start_s=1.52), [38, 39]),
        (Sampling(end_s=0.08), [0, 1]),
        (Sampling(start_s=9), []),
    ],
)
def test_frames_are_selected_by_number_and_by_time(sampling: Sampling, numbers: list[int]) -> None:
    assert selected(sampling, steps(Fraction(25), 40), Fraction(1, 25)) == numbers


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(24000, 1001)])
def test_the_time_of_a_frame_given_back_as_start_begins_with_that_frame(fps: Fraction) -> None:
    times = steps(fps, 3000)
    for number in range(0, 3000, 7):
        start_s = round(times[number] * 1_000_000_000) / 1e9  # as a Duration carries it
        sampler = FrameSampler(Sampling(start_s=start_s, end_s=start_s))
        assert not sampler.is_before(times[number])
        assert sampler.is_past(times[number])
        assert number == 0 or sampler.is_before(times[number - 1])


def test_an_analysis_that_is_continued_selects_the_same_frames() -> None:
    times = steps(Fraction(30000, 1001), 3000)
    whole = selected(Sampling(target_fps=7), times, Fraction(1001, 30000))
    part = selected(Sampling(target_fps=7, start_s=10), times, Fraction(1001, 30000))
    assert part == [number for number in whole if times[number] >= 10]


def test_floats_that_round_badly_become_their_decimals() -> None:
    assert nanoseconds(0.8) == 800_000_000
    assert nanoseconds(Fraction(2, 3)) == 666_666_667
