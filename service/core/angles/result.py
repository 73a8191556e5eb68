"""Results of `measure`: arrays for all persons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.core.angles.compiled import CompiledAngles, Doubles, Indices
from service.core.angles.definitions import Measurement
from service.core.angles.directions import Directions
from service.core.angles.flags import Flags
from service.core.angles.orientation import Orientations
from service.core.angles.thresholds import AngleOptions

SideSelection = Literal["left", "right", "both"]


@dataclass(frozen=True, eq=False)
class Workings:
    """Intermediate results that `report` reads.

    Attributes:
        plan, options, found, turned: inputs and earlier stages of the computation.
        choice: (N, G) which choice of a slot was taken.
        chosen: (N, G) its row.
        values_deg: (N, G) values before any is withheld.
        sweep_deg: (N, G) from the reference ray to the moving one, clockwise positive.
        direction_flags: (N, J) what is wrong with every direction, foreshortening included.
        rows_deg: (N, R) every angle, NaN where it cannot be had.
        ratios: (N, Q) every ratio, NaN where it cannot be had.
    """

    plan: CompiledAngles
    options: AngleOptions
    found: Directions
    turned: Orientations
    choice: Indices
    chosen: Indices
    values_deg: Doubles
    sweep_deg: Doubles
    direction_flags: Flags
    rows_deg: Doubles
    ratios: Doubles


@dataclass(frozen=True, eq=False)
class Measured:
    """M measurements of N persons, left then right in the last axis.

    Attributes:
        measurements: M of them.
        side: which sides were asked for; the arrays hold both.
        degrees: (N, M, 2), NaN where UNAVAILABLE.
        statuses: (N, M, 2) uint8 of `Status`.
        std_errors_deg: (N, M, 2), NaN without geometry.
        keypoint_scores: (N, M, 2)
        flags: (N, M, 2) uint32 of `Flag`.
        view_ratios: (N,) shoulder width over body scale, NaN where unknown.
        workings: what the accessors draw on.
    """

    measurements: tuple[Measurement, ...]
    side: SideSelection
    degrees: Doubles
    statuses: NDArray[np.uint8]
    std_errors_deg: Doubles
    keypoint_scores: Doubles
    flags: Flags
    view_ratios: Doubles
    workings: Workings

    def __len__(self) -> int:
        return len(self.view_ratios)
