"""Every number that decides between a value, a doubtful value and none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Literal

from service.core.angles.definitions import Side
from service.errors import InvalidRequest, Violation

Facing = Literal["auto", "left", "right", "toward", "away"]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the service. They are choices that settings may change.

    Attributes:
        min_score: keypoints below it are not used (Sports2D's likelihood threshold, mmpose's kpt_thr).
        sure_score: keypoints below it make a value doubtful.
        edge_fraction: a point this close to an edge, as a fraction of width or height, is out of frame.
        profile_ratio: shoulder width over body scale, at most, in profile.
        frontal_ratio: the same, at least, seen from the front or the back; oblique in between.
        foreshortened: projected over expected length below which a segment leaves the image plane.
        crosstalk_doubtful, crosstalk_withheld: thigh over shank below which a frontal-plane angle of
            the leg is doubtful, and below which it is withheld.
        crosstalk_doubtful_above, crosstalk_withheld_above: the same, above which. Standing bodies have
            1.0 to 1.15; more is a shank that points at the camera, or a wrong keypoint.
        min_length_px: shorter rays are too coarse.
        max_std_error_deg: values with more noise are too coarse.
        coincident_px: points closer than this coincide.
        facing_margin: the vote on left or right needs at least this much, with scores of 1 as the unit.
        facing_margin_frontal: the same where the body is seen from the front or the back.
        facing_agreement: of left or right, votes for less votes against over all, at least.
        toward_margin: the vote on toward or away needs at least this much; 1 is unanimous and square.
        lying_trunk_deg, lying_legs_deg: a body whose trunk and legs are inclined by as much is lying.
        lying_without_legs_deg: the trunk, where no leg is seen.
        unsupported: level distance from the ankles to the centre of mass, over stature, from which the
            feet do not carry the body. A foot reaches 0.11 before the ankle.
        sitting_bend_deg: hips or knees of a sitting body are bent by as much.
        squatting_thigh_deg: thighs inclined by as much are those of a squat.
        implausible_errors: a value farther outside its range than so many standard errors is withheld.
        cue_dead_zone_deg: a cue that points this close to the trunk's axis does not vote.
        knee_bend_deg, elbow_bend_deg, finger_bend_deg: joints bent by more tell front from back.
        swap_width: shoulders and hips that disagree about front and back, both wider than this
            fraction of the trunk, suggest that left and right are swapped.
        opposite_deg: a movement the other way counts from here.
        neck_neutral_deg: pitch of the ear-nose line below the horizontal in a neutral head.
        neck_neutral_sd_deg: how much that differs between persons, one standard deviation.
        straight_deg: a limb within this of 0 is straight.
        spread_scale: factor of λ, the scatter of keypoints over the spread among annotators (`noise`).
        spread_floor_px, spread_floor_fraction: least standard deviation of a keypoint, in px and as a
            fraction of the person's height.
    """

    min_score: float = 0.30
    sure_score: float = 0.50
    edge_fraction: float = 0.01
    profile_ratio: float = 0.30
    frontal_ratio: float = 0.42
    foreshortened: float = 0.75
    crosstalk_doubtful: float = 0.90
    crosstalk_withheld: float = 0.75
    crosstalk_doubtful_above: float = 1.25
    crosstalk_withheld_above: float = 1.6
    min_length_px: float = 30.0
    max_std_error_deg: float = 10.0
    coincident_px: float = 0.01
    facing_margin: float = 0.25
    facing_margin_frontal: float = 1.0
    facing_agreement: float = 0.25
    toward_margin: float = 0.3
    lying_trunk_deg: float = 60.0
    lying_legs_deg: float = 50.0
    lying_without_legs_deg: float = 75.0
    unsupported: float = 0.13
    sitting_bend_deg: float = 40.0
    squatting_thigh_deg: float = 45.0
    implausible_errors: float = 2.0
    cue_dead_zone_deg: float = 10.0
    knee_bend_deg: float = 20.0
    elbow_bend_deg: float = 30.0
    finger_bend_deg: float = 10.0
    swap_width: float = 0.2
    opposite_deg: float = 5.0
    neck_neutral_deg: float = 8.0
    neck_neutral_sd_deg: float = 6.0
    straight_deg: float = 15.0
    spread_scale: float = 1.0
    # the floor and λ were fitted together: scripts/calibrate angles
    spread_floor_px: float = 0.5
    spread_floor_fraction: float = 0.0015


@dataclass(frozen=True)
class Neutral:
    """A value of the same measurement in the person's neutral pose, as this service gave it."""

    degrees: float
    std_error_deg: float = 0.0


@dataclass(frozen=True)
class AngleOptions:
    """Options of one measurement call.

    Attributes:
        thresholds: numbers that decide about the status.
        size_wh: of the image; without it nothing is out of frame.
        facing: where the subject's front points in the image. "left" and "right" settle the profile,
            "toward" and "away" (from the camera) the frontal view; "auto" estimates it.
        mirrored: the image is mirrored (a selfie): what looks like a left hand is the right.
        camera_roll_deg: by how much the camera was turned clockwise, seen from behind it; plumb lines
            then lean anticlockwise in the image. Only measurements against gravity depend on it.
        baseline: (measurement, side) to what is subtracted from it.

    Raises:
        InvalidRequest: a number that is not finite, or a negative standard error.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    size_wh: tuple[int, int] | None = None
    facing: Facing = "auto"
    mirrored: bool = False
    camera_roll_deg: float = 0.0
    baseline: Mapping[tuple[str, Side], Neutral] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = []
        if not isfinite(self.camera_roll_deg):
            wrong.append(Violation("camera_roll_deg", "must be a finite number"))
        for (name, side), neutral in self.baseline.items():
            if not (isfinite(neutral.degrees) and isfinite(neutral.std_error_deg)):
                wrong.append(Violation(f"baseline[{name}].{side}", "must be finite numbers"))
            elif neutral.std_error_deg < 0:
                wrong.append(Violation(f"baseline[{name}].{side}", "a standard error is not negative"))
        wrong += [
            Violation(f"thresholds.{line.name}", "must be a finite number")
            for line in fields(self.thresholds)
            if not isfinite(getattr(self.thresholds, line.name))
        ]
        if wrong:
            problems = "; ".join(f"{violation.field}: {violation.description}" for violation in wrong)
            raise InvalidRequest(problems, violations=wrong)
