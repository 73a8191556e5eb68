"""Data types of measurements: signed differences between directions of weighted keypoint means.

Every angle of the service has one form,

    value = ±wrap(σ · (arg moving − arg reference) + offset)

where `moving` and `reference` run from one weighted mean of keypoints to another (or along gravity)
and σ carries the orientation of the body. Value, rays of the overlay and standard error all come
from this one description, and points go by name, so it fits any skeleton that has them.

Directions are clockwise on the screen, because y points down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from service.core.skeleton.template import Side as Side  # re-exported for the measurements

View = Literal["frontal", "sagittal", "any"]
SIDES: tuple[Side, Side] = ("left", "right")


class Orientation(Enum):
    """Which property of the body gives an angle its sign.

    NONE: nothing, the angle is a magnitude. FRONTAL: whether the body faces the camera (+1) or turns
    its back (−1). SAGITTAL: whether its front points to the right of the image when upright (+1) or
    to the left (−1). PALM_LEFT, PALM_RIGHT: the way in which the fingers of that hand curl.
    """

    NONE = 0
    FRONTAL = 1
    SAGITTAL = 2
    PALM_LEFT = 3
    PALM_RIGHT = 4


class Wrap(Enum):
    """Where a turn of 360° is cut.

    HALF: (−180, 180]. OVERHEAD: (−120, 240], so that an arm past overhead reads 190, not −170.
    NONE: as it comes, for an angle measured through a third direction.
    """

    HALF = 0
    OVERHEAD = 1
    NONE = 2


@dataclass(frozen=True)
class Point:
    """A weighted mean of named keypoints; the weights sum to one."""

    weights: tuple[tuple[str, float], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Keypoints it is made of."""
        return tuple(name for name, _ in self.weights)


@dataclass(frozen=True)
class Ray:
    """The direction from `origin` to `tip`."""

    origin: Point
    tip: Point

    @property
    def weights(self) -> Mapping[str, float]:
        """Keypoint name to its weight in tip − origin; the weights sum to zero."""
        total: dict[str, float] = {}
        for name, weight in self.tip.weights:
            total[name] = total.get(name, 0.0) + weight
        for name, weight in self.origin.weights:
            total[name] = total.get(name, 0.0) - weight
        return total

    def reversed(self) -> Ray:
        """The same line the other way."""
        return Ray(self.tip, self.origin)


@dataclass(frozen=True)
class Vertical:
    """The direction of gravity: up (+1) or down (−1)."""

    sign: Literal[1, -1]


UP = Vertical(1)
DOWN = Vertical(-1)


@dataclass(frozen=True)
class Angle:
    """outer · wrap(σ · (arg moving − arg reference) + offset), in degrees.

    Attributes:
        reference, moving: the two directions. Zero is at `reference` turned by σ · −offset.
        orientation: what σ depends on; NONE takes the magnitude of the difference.
        factor: ±1, multiplied into σ. It holds the side (left +1, right −1) where that matters.
        offset_deg: added after σ.
        wrap: where the turn is cut.
        outer: ±1, applied last: an extension is the flexion with −1.
        through: measure from reference to moving by way of this direction; no wrap.
        unsigned: where the orientation is unknown, the magnitude still means something.
        neutral: subtract the assumed neutral pitch of the head as well.
        anchor: where the overlay's arc is centred; None for the origin of `moving`.
    """

    reference: Ray | Vertical
    moving: Ray
    orientation: Orientation = Orientation.NONE
    factor: Literal[1, -1] = 1
    offset_deg: float = 0.0
    wrap: Wrap = Wrap.HALF
    outer: Literal[1, -1] = 1
    through: Ray | None = None
    unsigned: bool = False
    neutral: bool = False
    anchor: Point | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Keypoints that it needs, each once, in order of use."""
        points = [self.moving.origin, self.moving.tip]
        for ray in (self.reference, self.through):
            if isinstance(ray, Ray):
                points += [ray.origin, ray.tip]
        return tuple(dict.fromkeys(name for point in points for name in point.names))


@dataclass(frozen=True)
class Choice:
    """One way to measure; of several, the first whose keypoints are all usable is taken.

    Attributes:
        angle: what is measured.
        reference: what the value is measured against, for the answer.
        fallback: a substitute, reported as REFERENCE_FALLBACK.
        notes: further details in words.
    """

    angle: Angle
    reference: str
    fallback: bool = False
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Ratio:
    """Length of one ray divided by that of another, as projected into the image."""

    numerator: Ray
    denominator: Ray

    @property
    def names(self) -> tuple[str, ...]:
        """Keypoints that it needs, each once."""
        rays = (self.numerator, self.denominator)
        return tuple(dict.fromkeys(n for ray in rays for p in (ray.origin, ray.tip) for n in p.names))


@dataclass(frozen=True)
class Detail:
    """A further number that is reported beside a value when its keypoints are usable.

    Attributes:
        key: its name in `details`; angles end in `_deg`.
        quantity: an angle in degrees, or a ratio of projected lengths.
        when_straight: report it only while these angles are within the straight-limb threshold of 0.
    """

    key: str
    quantity: Angle | Ratio
    when_straight: tuple[Angle, ...] = ()


@dataclass(frozen=True)
class SideDescription:
    """How one side of a measurement is measured, preferred choice first.

    Attributes:
        choices: the ways to measure it.
        details: what is reported beside it.
        gate: thigh over shank; below the thresholds a deep squat foreshortens the thigh so far that
            the frontal-plane angle no longer means valgus or abduction. None: not gated.
    """

    choices: tuple[Choice, ...]
    details: tuple[Detail, ...] = ()
    gate: Ratio | None = None


@dataclass(frozen=True)
class Measurement:
    """One named measurement, for both sides.

    Attributes:
        name: its name in a request.
        title: display text.
        body_part: the joint or region.
        view: the camera view that it is defined for.
        description: what is measured, where zero is, which direction is positive, and its limits.
        left, right: the two sides, the subject's own.
        form_error_deg: typical error of the method beyond keypoint noise, one standard deviation.
        strict_view: in profile the value is withheld, not merely degraded.
        opposite: a clearly negative value means that the body moved the other way (OPPOSITE_DIRECTION).
        mirror: how the sides relate. "own": each has its joint; "same": one value for both;
            "antisymmetric": the two are one movement with opposite signs.
        raw_key: name of the withheld value in `details`.
        kinds: detected view to the word that goes into `details.kind`.
        extension: not one of the 19 that are always offered; needs points beyond COCO-17.
    """

    name: str
    title: str
    body_part: str
    view: View
    description: str
    left: SideDescription
    right: SideDescription
    form_error_deg: float
    strict_view: bool = False
    opposite: bool = False
    mirror: Literal["own", "same", "antisymmetric"] = "own"
    raw_key: str = "raw_deg"
    kinds: tuple[tuple[str, str], ...] = ()
    extension: bool = False

    def of(self, side: Side) -> SideDescription:
        """The description of one side."""
        return self.left if side == "left" else self.right
