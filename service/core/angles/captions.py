"""Short texts about a measurement, for labels on overlays and for tables."""

from __future__ import annotations

from service.core.angles.definitions import Measurement, Side
from service.core.angles.report import AngleValue

_REASONS = {
    "FACING_UNKNOWN": "facing unknown",
    "PLANAR_CROSSTALK": "leg points at camera",
    "POSTURE": "needs another posture",
    "IMPLAUSIBLE": "beyond the joint's range",
    "DEGENERATE": "points coincide",
}
_ABOUT_POINTS = {"MISSING": "no {}", "LOW_CONFIDENCE": "{} unsure"}
_VIEWS = {"frontal": "needs a front view", "sagittal": "needs a side view"}


def title_text(measurement: Measurement, side: Side | None) -> str:
    """Side, joint and movement, such as Left Knee Flexion; no side for what belongs to both."""
    title = measurement.title
    if measurement.body_part.lower() not in title.lower():
        title = f"{title} ({measurement.body_part})"
    return title if side is None else f"{side.capitalize()} {title}"


def value_text(value: AngleValue, measurement: Measurement) -> str:
    """The number with its unit and its standard error, or why there is none."""
    if value.degrees is None:
        return f"n/a: {reason_text(value, measurement)}"
    error = value.std_error_deg
    # digits that the noise drowns are not shown
    digits = 1 if error is not None and error < 1 else 0
    number = f"{value.degrees:.{digits}f}".replace("-", "−")
    number = number.removeprefix("−") if not number.strip("−0.") else number
    return f"{number}°" if error is None else f"{number}° ±{error:.{digits}f}°"


def reason_text(value: AngleValue, measurement: Measurement) -> str:
    """The most severe reason in a few words, empty without one."""
    code, _, about = value.reasons[0].partition(":") if value.reasons else ("", "", "")
    if code in _ABOUT_POINTS:
        return _ABOUT_POINTS[code].format(about.replace("_", " "))
    if code == "VIEW_MISMATCH":
        return _VIEWS.get(measurement.view, "wrong view")
    return _REASONS.get(code, code.replace("_", " ").lower())
