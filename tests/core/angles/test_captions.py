from __future__ import annotations

import pytest

from service.core.angles import (
    MEASUREMENTS,
    AngleValue,
    Side,
    Status,
    reason_text,
    title_text,
    value_text,
)


def value(degrees: float | None, error: float | None = 2.0, *reasons: str) -> AngleValue:
    status = Status.OK if degrees is not None else Status.UNAVAILABLE
    return AngleValue(degrees, status, reasons, 1.0, error, "thigh", {})


@pytest.mark.parametrize(
    ("degrees", "error", "text"),
    [
        (None, None, "n/a: "),
        (70.4, 5.2, "70° ±5°"),
        (70.4, 0.62, "70.4° ±0.6°"),
        (-12.3, 4.0, "−12° ±4°"),
        (-0.3, 4.0, "0° ±4°"),
        (-0.04, 0.5, "0.0° ±0.5°"),
        (12.0, None, "12°"),
    ],
    ids=str,
)
def test_values_have_units_errors_and_no_drowned_digits(
    degrees: float | None, error: float | None, text: str
) -> None:
    assert value_text(value(degrees, error), MEASUREMENTS["knee_flexion"]) == text


@pytest.mark.parametrize(
    ("name", "side", "text"),
    [
        ("knee_flexion", "left", "Left Knee Flexion"),
        ("elbow_side", "right", "Right Elbow (side view)"),
        ("splits", None, "Splits (hip)"),
    ],
)
def test_titles_name_side_and_joint(name: str, side: Side | None, text: str) -> None:
    assert title_text(MEASUREMENTS[name], side) == text


@pytest.mark.parametrize(
    ("name", "reason", "text"),
    [
        ("knee_flexion", "MISSING:left_knee", "no left knee"),
        ("knee_flexion", "LOW_CONFIDENCE:left_knee", "left knee unsure"),
        ("knee_flexion", "VIEW_MISMATCH", "needs a side view"),
        ("shoulder_abduction", "VIEW_MISMATCH", "needs a front view"),
        ("squats_knee_front", "PLANAR_CROSSTALK", "leg points at camera"),
        ("squats_knee_front", "POSTURE", "needs another posture"),
        ("squats_knee_front", "IMPLAUSIBLE", "beyond the joint's range"),
        ("shoulder_extension", "FACING_UNKNOWN", "facing unknown"),
        ("knee_side", "DEGENERATE", "points coincide"),
        ("knee_side", "SOMETHING_NEW", "something new"),
    ],
)
def test_reasons_are_said_in_words(name: str, reason: str, text: str) -> None:
    assert reason_text(value(None, None, reason), MEASUREMENTS[name]) == text
