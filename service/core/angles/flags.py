"""Reasons that degrade or withhold a value: bit flags in the arrays, words in a response."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, IntFlag
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.uint32]


class Status(IntEnum):
    """Reliability of a value. UNAVAILABLE means that there is no value."""

    OK = 0
    DEGRADED = 1
    UNAVAILABLE = 2


class Flag(IntFlag):
    """One reason. A reason that can either degrade or withhold has two flags."""

    MISSING = 1 << 0
    UNUSABLE_SCORE = 1 << 1
    DEGENERATE = 1 << 2
    FACING_WITHHELD = 1 << 3
    VIEW_WITHHELD = 1 << 4
    CROSSTALK_WITHHELD = 1 << 5
    WEAK_SCORE = 1 << 6
    OUT_OF_FRAME = 1 << 7
    FACING_UNKNOWN = 1 << 8
    VIEW_MISMATCH = 1 << 9
    PLANAR_CROSSTALK = 1 << 10
    FORESHORTENED = 1 << 11
    LOW_RESOLUTION = 1 << 12
    FAR_SIDE = 1 << 13
    SWAP_SUSPECTED = 1 << 14
    REFERENCE_FALLBACK = 1 << 15
    OPPOSITE_DIRECTION = 1 << 16
    ASSUMED_NEUTRAL = 1 << 17
    IMPLAUSIBLE_WITHHELD = 1 << 18
    IMPLAUSIBLE = 1 << 19
    POSTURE_WITHHELD = 1 << 20
    POSTURE = 1 << 21


# The value is null.
FATAL = (
    Flag.MISSING
    | Flag.UNUSABLE_SCORE
    | Flag.DEGENERATE
    | Flag.FACING_WITHHELD
    | Flag.VIEW_WITHHELD
    | Flag.CROSSTALK_WITHHELD
    | Flag.POSTURE_WITHHELD
    | Flag.IMPLAUSIBLE_WITHHELD
)
# Not even the withheld value exists.
NO_GEOMETRY = Flag.MISSING | Flag.UNUSABLE_SCORE | Flag.DEGENERATE
# Reported without degrading the value: the standard error already contains it.
NOTE = Flag.ASSUMED_NEUTRAL

# Name of each flag in a response and its subject, in the order of reporting: flags that withhold a
# value come first.
_WORDS: tuple[tuple[Flag, str, Literal["", "point", "segment"]], ...] = (
    (Flag.MISSING, "MISSING", "point"),
    (Flag.UNUSABLE_SCORE, "LOW_CONFIDENCE", "point"),
    (Flag.VIEW_WITHHELD, "VIEW_MISMATCH", ""),
    (Flag.DEGENERATE, "DEGENERATE", ""),
    (Flag.FACING_WITHHELD, "FACING_UNKNOWN", ""),
    (Flag.CROSSTALK_WITHHELD, "PLANAR_CROSSTALK", ""),
    (Flag.POSTURE_WITHHELD, "POSTURE", ""),
    (Flag.IMPLAUSIBLE_WITHHELD, "IMPLAUSIBLE", ""),
    (Flag.WEAK_SCORE, "LOW_CONFIDENCE", "point"),
    (Flag.OUT_OF_FRAME, "OUT_OF_FRAME", "point"),
    (Flag.FACING_UNKNOWN, "FACING_UNKNOWN", ""),
    (Flag.VIEW_MISMATCH, "VIEW_MISMATCH", ""),
    (Flag.PLANAR_CROSSTALK, "PLANAR_CROSSTALK", ""),
    (Flag.POSTURE, "POSTURE", ""),
    (Flag.IMPLAUSIBLE, "IMPLAUSIBLE", ""),
    (Flag.FORESHORTENED, "FORESHORTENED", "segment"),
    (Flag.LOW_RESOLUTION, "LOW_RESOLUTION", ""),
    (Flag.FAR_SIDE, "FAR_SIDE", ""),
    (Flag.SWAP_SUSPECTED, "SWAP_SUSPECTED", ""),
    (Flag.REFERENCE_FALLBACK, "REFERENCE_FALLBACK", ""),
    (Flag.OPPOSITE_DIRECTION, "OPPOSITE_DIRECTION", ""),
    (Flag.ASSUMED_NEUTRAL, "ASSUMED_NEUTRAL", ""),
)
_BITS = tuple((int(flag), word, about) for flag, word, about in _WORDS)


def status_of(flags: Flags) -> NDArray[np.uint8]:
    """`Status` of every element."""
    status = np.where((flags & np.uint32(~NOTE & 0xFFFFFFFF)) != 0, np.uint8(Status.DEGRADED), np.uint8(0))
    status[(flags & np.uint32(FATAL)) != 0] = Status.UNAVAILABLE
    return status


def words(
    flags: int, points: Iterable[tuple[str, int]], segments: Iterable[tuple[str, int]]
) -> tuple[str, ...]:
    """The reasons behind `flags`, such as LOW_CONFIDENCE:left_wrist.

    Args:
        flags: of one value.
        points, segments: names and flags of the keypoints and segments that the value uses.
    """
    reasons: list[str] = []
    about = {"point": tuple(points), "segment": tuple(segments)} if flags else {}
    for bit, word, kind in _BITS:
        if flags & bit:
            if kind:
                reasons += [f"{word}:{name}" for name, own in about[kind] if own & bit]
            else:
                reasons.append(word)
    return tuple(dict.fromkeys(reasons))
