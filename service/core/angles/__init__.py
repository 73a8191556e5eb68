"""Joint angles from keypoints, with their standard errors and the reasons to doubt them.

`parse_names` reads a request and `measure` measures all people at once, as arrays. `person_measures`
is one person's answer in words and numbers, `goniometers` what to draw of it.
"""

from service.core.angles.captions import reason_text, title_text, value_text
from service.core.angles.definitions import Measurement, Side
from service.core.angles.flags import Flag, Status
from service.core.angles.measure import measure
from service.core.angles.registry import MEASUREMENTS, parse_names
from service.core.angles.report import (
    AngleValue,
    Goniometer,
    MeasurementResult,
    PersonMeasures,
    goniometers,
    person_measures,
)
from service.core.angles.result import Measured, Sides
from service.core.angles.thresholds import Facing, Neutral, Options, Thresholds

__all__ = [
    "MEASUREMENTS",
    "AngleValue",
    "Facing",
    "Flag",
    "Goniometer",
    "Measured",
    "Measurement",
    "MeasurementResult",
    "Neutral",
    "Options",
    "PersonMeasures",
    "Side",
    "Sides",
    "Status",
    "Thresholds",
    "goniometers",
    "measure",
    "parse_names",
    "person_measures",
    "reason_text",
    "title_text",
    "value_text",
]
