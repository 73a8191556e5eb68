"""Joint angles from keypoints, with their standard errors and the reasons to doubt them.

definitions    the data types: rays, angles, choices, measurements; the sign convention of all angles
anatomy        named points and segments of the body, their proportions and OKS sigmas
specs          how each measurement is measured on each side: rays, signs (such as that of knee flexion)
limits         range of the joint and posture that each measurement presumes, with the sources
registry       the 19 measurements and two extensions by name; `parse_names` reads those of a request
compile        specifications to matrices (`compiled`) for one skeleton, cached
directions, orientation, posture, uncertainty   rays of all persons, view and facing, posture, keypoint noise
measure        `measure`: values, standard errors and flags of all persons at once (`result`)
flags          the reasons that degrade or withhold a value
report         `person_measures`: one person in words and numbers; `goniometers`: what to draw
noise          scatter of the keypoints, as measured
captions, thresholds   short texts for overlays; every number that decides about a status

May import: numpy and the rest of `core`.
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
from service.core.angles.result import Measured, SideSelection
from service.core.angles.thresholds import AngleOptions, Facing, Neutral, Thresholds

__all__ = [
    "MEASUREMENTS",
    "AngleOptions",
    "AngleValue",
    "Facing",
    "Flag",
    "Goniometer",
    "Measured",
    "Measurement",
    "MeasurementResult",
    "Neutral",
    "PersonMeasures",
    "Side",
    "SideSelection",
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
