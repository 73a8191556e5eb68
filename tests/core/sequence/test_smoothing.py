from __future__ import annotations

import numpy as np
import pytest

from service.core.sequence.smoothing import OneEuro, OneEuroSettings

SETTINGS = OneEuroSettings(min_cutoff_hz=1.0, beta=0.05)


def reference(values: list[float], times: list[float]) -> list[float]:
    """The filter as its authors write it down, one value at a time."""
    out = [values[0]]
    speed = 0.0
    for previous, value, before, now in zip(out, values[1:], times, times[1:], strict=False):
        step = now - before
        previous = out[-1]

        def weight(cutoff: float, step: float = step) -> float:
            return 1 / (1 + (1 / (2 * np.pi * cutoff)) / step)

        a = weight(SETTINGS.derivative_cutoff_hz)
        speed = a * (value - previous) / step + (1 - a) * speed
        a = weight(SETTINGS.min_cutoff_hz + SETTINGS.beta * abs(speed))
        out.append(a * value + (1 - a) * previous)
    return out


def test_it_is_the_one_euro_filter() -> None:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.01, 0.05, 50)).tolist()
    values = np.cumsum(rng.normal(0, 5, 50)).tolist()
    euro = OneEuro((), SETTINGS)
    found = [float(euro.smooth(np.array(value), time)) for value, time in zip(values, times, strict=True)]
    expected = [values[0]]
    for count in range(2, len(values) + 1):
        expected = reference(values[:count], times[:count])
    assert found == pytest.approx(expected)


def test_a_value_that_stands_still_stays_where_it_is() -> None:
    euro = OneEuro((2,), SETTINGS)
    for number in range(10):
        assert euro.smooth(np.array([3.0, -7.0]), number / 30).tolist() == pytest.approx([3.0, -7.0])


def test_a_missing_value_is_missing_and_harms_no_other() -> None:
    euro = OneEuro((2,), SETTINGS)
    euro.smooth(np.array([1.0, 1.0]), 0.0)
    gone = euro.smooth(np.array([np.nan, 2.0]), 0.1)
    assert np.isnan(gone[0])
    assert 1 < gone[1] < 2
    back = euro.smooth(np.array([5.0, 2.0]), 5.0)
    assert back[0] == pytest.approx(5.0, abs=0.5)  # after a long time the old value counts for little


def test_a_time_that_stands_still_repeats_the_last_value() -> None:
    euro = OneEuro((), SETTINGS)
    euro.smooth(np.array(1.0), 1.0)
    assert float(euro.smooth(np.array(9.0), 1.0)) == 1.0


def test_jitter_goes_and_movement_stays() -> None:
    rng = np.random.default_rng(2)
    times = np.arange(240) / 60
    still = 50 + rng.normal(0, 2, 240)
    moving = 60 * np.sin(2 * np.pi * times)
    euro = OneEuro((2,), SETTINGS)
    smooth = np.array(
        [euro.smooth(np.array([a, b]), t) for a, b, t in zip(still, moving, times, strict=True)]
    )
    assert np.std(smooth[60:, 0]) < 0.5 * np.std(still[60:])
    assert np.abs(smooth[60:, 1] - moving[60:]).max() < 10
