"""Joint angles from keypoints, with their standard errors and the reasons to doubt them.

`parse_names` reads a request and `measure` measures all people at once, as arrays. `person_measures`
is one person's answer in words and numbers, `goniometers` what to draw of it.
"""

from service.core.measurements.answers import (
    AngleValue,
    Goniometer,
    MeasurementResult,
    PersonMeasures,
    goniometers,
    person_measures,
)
from service.core.measurements.captions import reason_text, title_text, value_text
from service.core.measurements.catalogue import MEASUREMENTS, parse_names
from service.core.measurements.description import Measurement, Side
from service.core.measurements.measured import Measured, Sides
from service.core.measurements.measuring import measure
from service.core.measurements.reasons import Flag, Status
from service.core.measurements.thresholds import Facing, Neutral, Options, Thresholds

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
