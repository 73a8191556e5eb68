"""The One Euro filter on whole arrays of values at once.

Géry Casiez, Nicolas Roussel, Daniel Vogel: "1 € Filter: A Simple Speed-based Low-pass Filter for Noisy
Input in Interactive Systems", CHI 2012, https://gery.casiez.net/1euro/. A low-pass filter whose cut-off
rises with the speed of the value: jitter is removed from slow values, and fast ones do not lag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class OneEuroSettings:
    """How strongly values are smoothed.

    Attributes:
        min_cutoff_hz: cut-off of a value at rest; lower is smoother.
        beta: rise of the cut-off with speed, Hz per (unit of the value and second); higher lags less.
        derivative_cutoff_hz: cut-off of the speed itself.
    """

    min_cutoff_hz: float
    beta: float
    derivative_cutoff_hz: float = 1.0


class OneEuro:
    """One Euro filters, one for each element of an array; a value that is missing (NaN) leaves its own
    filter as it was, and every element has its own time.

    Args:
        shape: of the arrays.
        settings: the same for all elements.

    Attributes:
        settings: may be changed between two calls.
    """

    def __init__(self, shape: tuple[int, ...], settings: OneEuroSettings) -> None:
        self.settings = settings
        self._value = np.full(shape, np.nan)
        self._speed = np.zeros(shape)
        self._time_s = np.zeros(shape)

    def smooth(self, values: Doubles, time_s: float) -> Doubles:
        """Smoothed values of this moment; NaN where `values` is.

        Args:
            values: of the filter's shape.
            time_s: seconds, from any fixed point; a time that does not advance repeats the last value.
        """
        there = np.isfinite(values)
        first = there & np.isnan(self._value)
        elapsed_s = np.where(there & ~first, time_s - self._time_s, 0.0)
        moved = elapsed_s > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            speed = np.where(moved, (values - self._value) / elapsed_s, 0.0)
            weight = _weight(np.full(values.shape, self.settings.derivative_cutoff_hz), elapsed_s)
            self._speed = np.where(moved, weight * speed + (1 - weight) * self._speed, self._speed)
            cutoff = self.settings.min_cutoff_hz + self.settings.beta * np.abs(self._speed)
            weight = _weight(cutoff, elapsed_s)
            blended = weight * values + (1 - weight) * self._value
        self._value = np.where(first, values, np.where(moved, blended, self._value))
        self._time_s = np.where(first | moved, time_s, self._time_s)
        return np.where(there, self._value, np.nan)


def _weight(cutoff_hz: Doubles, elapsed_s: Doubles) -> Doubles:
    """Share of the new value in exponential smoothing; 0 where no time has passed."""
    radians: Doubles = 2 * math.pi * cutoff_hz * elapsed_s
    return radians / (radians + 1)
