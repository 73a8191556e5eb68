"""How each side of each measurement is measured: rays, signs, substitutes and details.

Arms of the goniometer (fulcrum, stationary and moving arm) follow C. C. Norkin and D. J. White,
Measurement of Joint Motion: A Guide to Goniometry, 5th edition, as far as keypoints allow; the
frontal-plane projection angle of the knee follows Herrington & Munro (2010).
"""

from __future__ import annotations

from typing import Literal

from service.core.angles import anatomy
from service.core.angles.definitions import (
    DOWN,
    UP,
    Angle,
    Choice,
    Detail,
    Orientation,
    Ratio,
    Ray,
    Side,
    SideDescription,
    Wrap,
)

_Sign = Literal[1, -1]


def _kappa(side: Side) -> _Sign:
    return 1 if side == "left" else -1


def _anti(side: Side) -> _Sign:
    return -1 if side == "left" else 1


def _sagittal(reference: Ray, moving: Ray, factor: _Sign, *, outer: _Sign = 1) -> Angle:
    return Angle(reference, moving, Orientation.SAGITTAL, factor, outer=outer, unsigned=True)


def _knee(side: Side, outer: _Sign = 1) -> Angle:
    return _sagittal(anatomy.thigh(side), anatomy.shank(side), 1, outer=outer)


def _hip(side: Side) -> Angle:
    return _sagittal(anatomy.flank(side), anatomy.thigh(side), -1)


def _knee_interior(side: Side) -> Angle:
    return Angle(anatomy.thigh(side).reversed(), anatomy.shank(side))


def _hip_interior(side: Side) -> Angle:
    return Angle(anatomy.flank(side).reversed(), anatomy.thigh(side))


def _elbow_interior(side: Side) -> Angle:
    return Angle(anatomy.upper_arm(side).reversed(), anatomy.forearm(side))


def _trunk(side: Side, outer: _Sign = 1) -> Angle:
    return Angle(UP, anatomy.flank(side).reversed(), Orientation.SAGITTAL, outer=outer)


def _three_point(interior: Angle, flexion: Angle) -> tuple[Detail, ...]:
    return (Detail("interior_deg", interior), Detail("flexion_deg", flexion))


def _bend(reference: Ray, moving: Ray) -> Angle:
    """180 minus the interior angle: how far a limb is from straight, in either direction."""
    return Angle(reference, moving)


def _pelvis() -> Detail:
    # positive: the left hip is lower
    return Detail("pelvic_obliquity_deg", Angle(UP, anatomy.HIPS, Orientation.FRONTAL, offset_deg=-90.0))


def shoulder_abduction(side: Side) -> SideDescription:
    """Upper arm against the midline of the trunk, as the stationary arm lies along the sternum."""
    arm = anatomy.upper_arm(side)
    midline = Angle(anatomy.MIDLINE, arm, Orientation.FRONTAL, _anti(side), wrap=Wrap.OVERHEAD)
    shoulder_line = Angle(
        anatomy.SHOULDERS,
        arm,
        Orientation.FRONTAL,
        _anti(side),
        offset_deg=90.0 * _kappa(side),
        wrap=Wrap.OVERHEAD,
    )
    return SideDescription(
        (Choice(midline, "trunk_midline"), Choice(shoulder_line, "shoulder_line", fallback=True))
    )


def shoulder_flexion(side: Side, outer: _Sign) -> SideDescription:
    """Upper arm against the trunk in profile; the extension is the same with the sign turned."""
    arm = anatomy.upper_arm(side)

    def against(trunk: Ray) -> Angle:
        return Angle(trunk, arm, Orientation.SAGITTAL, -1, wrap=Wrap.OVERHEAD, outer=outer)

    lean = Angle(UP, anatomy.MIDLINE.reversed(), Orientation.SAGITTAL)
    # In profile the midline and either flank coincide; at most one flank is usable without the midline.
    flanks = (side, anatomy.other(side))
    return SideDescription(
        (
            Choice(against(anatomy.MIDLINE), "trunk_midline"),
            *(Choice(against(anatomy.flank(s)), f"{s}_trunk") for s in flanks),
        ),
        (Detail("trunk_inclination_deg", lean),),
    )


def back_side_flexion(side: Side) -> SideDescription:
    """Midline of the trunk against the plumb line, seen from the front or the back."""
    angle = Angle(UP, anatomy.MIDLINE.reversed(), Orientation.FRONTAL, _kappa(side))
    return SideDescription((Choice(angle, "gravity"),), (_pelvis(),))


def trunk_flexion(side: Side, outer: _Sign) -> SideDescription:
    """Shoulder over hip against the plumb line, in profile, on each side's own line."""
    return SideDescription(
        (Choice(_trunk(side, outer), "gravity"),),
        (
            Detail("trunk_thigh_deg", _hip(side)),
            # positive: the knee is in front of the hip
            Detail("thigh_inclination_deg", Angle(DOWN, anatomy.thigh(side), Orientation.SAGITTAL, -1)),
            Detail("midline_deg", Angle(UP, anatomy.MIDLINE.reversed(), Orientation.SAGITTAL)),
        ),
    )


def knee_flexion(side: Side, outer: _Sign) -> SideDescription:
    """Shank against the prolonged thigh; straight is 0."""
    return SideDescription(
        (Choice(_knee(side, outer), "thigh"),),
        _three_point(_knee_interior(side), _knee(side)),
    )


def neck_lateral_flexion(side: Side) -> SideDescription:
    """Line of the head against the line of the shoulders."""

    def head(line: Ray) -> Angle:
        return Angle(anatomy.SHOULDERS, line, Orientation.FRONTAL, _kappa(side))

    return SideDescription(
        (
            *(Choice(head(line), "shoulder_line", notes=(("head_line", "face"),)) for line in anatomy.FACES),
            Choice(head(anatomy.EARS), "shoulder_line", notes=(("head_line", "ears"),)),
            Choice(head(anatomy.EYES), "shoulder_line", fallback=True, notes=(("head_line", "eyes"),)),
        ),
        # positive: the left shoulder is lower
        (Detail("shoulder_tilt_deg", Angle(UP, anatomy.SHOULDERS, Orientation.FRONTAL, offset_deg=-90.0)),),
    )


def neck_flexion(side: Side, outer: _Sign) -> SideDescription:
    """From the ear to the nose, as the goniometer's arm from the ear canal to the nostrils, on the trunk."""
    face = Ray(anatomy.joint(side, "ear"), anatomy.NOSE)

    def pitch(reference: Ray | Literal["up"]) -> Angle:
        axis = UP if reference == "up" else reference
        return Angle(axis, face, Orientation.SAGITTAL, offset_deg=-90.0, outer=outer, neutral=True)

    return SideDescription(
        (
            Choice(pitch(anatomy.flank(side).reversed()), "trunk"),
            Choice(pitch("up"), "gravity", fallback=True),
        )
    )


def splits(_side: Side) -> SideDescription:
    """From thigh to thigh by way of the trunk's direction; each thigh from its own hip."""
    left, right = anatomy.thigh("left"), anatomy.thigh("right")
    legs = {s: Ray(anatomy.joint(s, "hip"), anatomy.joint(s, "ankle")) for s in ("left", "right")}
    through_down = Angle(right, left, wrap=Wrap.NONE, through=anatomy.MIDLINE, anchor=anatomy.MID_HIP)
    whole_legs = Angle(legs["right"], legs["left"], wrap=Wrap.NONE, through=anatomy.MIDLINE)
    return SideDescription(
        (
            Choice(through_down, "thighs"),
            Choice(Angle(right, left, anchor=anatomy.MID_HIP), "thighs_without_trunk", fallback=True),
        ),
        (
            Detail("left_contribution_deg", Angle(anatomy.MIDLINE, left)),
            Detail("right_contribution_deg", Angle(anatomy.MIDLINE, right)),
            Detail("legs_deg", whole_legs, when_straight=(_knee("left"), _knee("right"))),
        ),
    )


def _thigh_over_shank(side: Side) -> Ratio:
    return Ratio(anatomy.thigh(side), anatomy.shank(side))


def squat_knee_front(side: Side) -> SideDescription:
    """Shank against the prolonged thigh in the frontal plane; knee in is positive."""
    angle = Angle(anatomy.thigh(side), anatomy.shank(side), Orientation.FRONTAL, _anti(side))
    # positive: valgus
    tilt = Angle(DOWN, anatomy.shank(side), Orientation.FRONTAL, _anti(side))
    return SideDescription(
        (Choice(angle, "thigh"),),
        (
            Detail("shank_tilt_deg", tilt),
            Detail("knee_ankle_separation", Ratio(anatomy.KNEES, anatomy.ANKLES)),
            Detail("thigh_shank_ratio", _thigh_over_shank(side)),
            *_three_point(_knee_interior(side), _bend(anatomy.thigh(side), anatomy.shank(side))),
        ),
        gate=_thigh_over_shank(side),
    )


def squat_hip_front(side: Side) -> SideDescription:
    """Thigh against the midline of the trunk in the frontal plane; knee out is positive."""
    angle = Angle(anatomy.MIDLINE, anatomy.thigh(side), Orientation.FRONTAL, _anti(side))
    return SideDescription(
        (Choice(angle, "trunk_midline"),),
        (_pelvis(), Detail("thigh_shank_ratio", _thigh_over_shank(side))),
        gate=_thigh_over_shank(side),
    )


def squat_hip_side(side: Side) -> SideDescription:
    """Thigh against the prolonged trunk, in profile."""
    return SideDescription((Choice(_hip(side), "trunk"),), _three_point(_hip_interior(side), _hip(side)))


def elbow_interior(side: Side) -> SideDescription:
    """From upper arm to forearm; straight is 180."""
    interior = _elbow_interior(side)
    flexion = _bend(anatomy.upper_arm(side), anatomy.forearm(side))
    return SideDescription((Choice(interior, "upper_arm"),), _three_point(interior, flexion))


def hip_interior(side: Side) -> SideDescription:
    """From trunk to thigh; straight is 180."""
    interior = _hip_interior(side)
    return SideDescription((Choice(interior, "trunk"),), _three_point(interior, _hip(side)))


def knee_interior(side: Side) -> SideDescription:
    """From thigh to shank; straight is 180."""
    interior = _knee_interior(side)
    return SideDescription((Choice(interior, "thigh"),), _three_point(interior, _knee(side)))


def ankle_dorsiflexion(side: Side) -> SideDescription:
    """Foot against the shank; a right angle is 0, toes up is positive."""

    # The foot is at more than 0° and less than 180° to the shank, so no facing is needed.
    def foot(toe: str) -> Angle:
        return Angle(anatomy.shank(side), anatomy.segment(side, "heel", toe), offset_deg=-90.0)

    return SideDescription((Choice(foot("big_toe"), "shank"), Choice(foot("foot_index"), "shank")))


def wrist_flexion(side: Side) -> SideDescription:
    """Hand against the prolonged forearm; the direction in which the fingers curl is positive."""
    palm = Orientation.PALM_LEFT if side == "left" else Orientation.PALM_RIGHT
    wrist = anatomy.joint(side, "wrist")
    hand = Ray(wrist, anatomy.joint(side, "middle_finger1"))
    # BlazePose has no middle knuckle: between those of the index and the little finger
    knuckles = Ray(wrist, anatomy.mean(f"{side}_index", f"{side}_pinky"))
    return SideDescription(
        tuple(
            Choice(Angle(anatomy.forearm(side), ray, palm, unsigned=True), "forearm")
            for ray in (hand, knuckles)
        )
    )
