"""The 19 joint measurements and two extensions: names, titles, views and what each means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from service.core.angles import specs
from service.core.angles.definitions import Measurement, Side, SideDescription
from service.errors import InvalidRequest, Violation

# Typical error of a single camera beyond keypoint noise, one standard deviation in degrees, rounded
# from: hip 4.0 and knee 5.6 mean absolute error in gait (Stenum et al. 2021), shoulder and elbow in
# photographs (Moreira et al. 2024), ankle 5.4 (Doerks et al. 2025). Neck and wrist are estimates.
_FORM, _FORM_ELBOW, _FORM_NECK, _FORM_ANKLE, _FORM_WRIST = 5.0, 8.0, 6.0, 6.0, 8.0


def _table() -> Iterable[Measurement]:
    def sides(build: Callable[[Side], SideDescription]) -> tuple[SideDescription, SideDescription]:
        return build("left"), build("right")

    yield Measurement(
        "shoulder_abduction",
        "Shoulder Abduction",
        "shoulder",
        "frontal",
        "Upper arm against the midline of the trunk in the frontal plane; 0 with the arm along the trunk, "
        "positive away from the body, up to 190 past overhead. Arms relaxed at the side read about 9.",
        *sides(specs.shoulder_abduction),
        form_error_deg=_FORM,
        strict_view=True,
    )
    yield Measurement(
        "shoulder_forward_flexion",
        "Shoulder Forward Flexion",
        "shoulder",
        "sagittal",
        "Upper arm against the trunk in profile; 0 with the arm along the trunk, positive forward and up.",
        *sides(lambda side: specs.shoulder_flexion(side, 1)),
        form_error_deg=_FORM,
        opposite=True,
    )
    yield Measurement(
        "shoulder_extension",
        "Shoulder Extension",
        "shoulder",
        "sagittal",
        "The negative of shoulder_forward_flexion: positive with the arm behind the trunk. The trunk "
        "leans forward in this motion; details give its inclination.",
        *sides(lambda side: specs.shoulder_flexion(side, -1)),
        form_error_deg=_FORM,
        opposite=True,
    )
    yield Measurement(
        "back_side_flexion",
        "Back Side Flexion",
        "back",
        "frontal",
        "Midline of the trunk against gravity in the frontal plane; positive for a lean to that side, so "
        "right is always minus left. Follows the roll of the camera.",
        *sides(specs.back_side_flexion),
        form_error_deg=_FORM,
        strict_view=True,
        mirror="antisymmetric",
    )
    yield Measurement(
        "back_lumbar_forward_flexion",
        "Back Lumbar Forward Flexion",
        "back",
        "sagittal",
        "Inclination of the whole trunk (shoulder over hip) against gravity; 0 upright, positive forward. "
        "Hips, lumbar and thoracic spine together: lumbar-only norms do not apply. Follows the roll of "
        "the camera.",
        *sides(lambda side: specs.trunk_flexion(side, 1)),
        form_error_deg=_FORM,
        opposite=True,
    )
    yield Measurement(
        "back_lumbar_extension",
        "Back Lumbar Extension",
        "back",
        "sagittal",
        "The negative of back_lumbar_forward_flexion: positive for a lean backward.",
        *sides(lambda side: specs.trunk_flexion(side, -1)),
        form_error_deg=_FORM,
        opposite=True,
    )
    yield Measurement(
        "knee_flexion",
        "Knee Flexion",
        "knee",
        "sagittal",
        "Shank against the line of the thigh in profile; 0 straight, positive flexed, negative "
        "hyperextended. Without a known facing the magnitude.",
        *sides(lambda side: specs.knee_flexion(side, 1)),
        form_error_deg=_FORM,
    )
    yield Measurement(
        "knee_extension",
        "Knee Extension",
        "knee",
        "sagittal",
        "The negative of knee_flexion: positive hyperextended, negative where extension is lacking.",
        *sides(lambda side: specs.knee_flexion(side, -1)),
        form_error_deg=_FORM,
    )
    yield Measurement(
        "neck_lateral_flexion",
        "Neck Lateral Flexion",
        "neck",
        "frontal",
        "Line of the ears (of the face where the skeleton has it, of the eyes at worst) against the line "
        "of the shoulders; positive with the ear toward that shoulder, so right is always minus left.",
        *sides(specs.neck_lateral_flexion),
        form_error_deg=_FORM_NECK,
        strict_view=True,
        mirror="antisymmetric",
    )
    yield Measurement(
        "neck_forward_flexion",
        "Neck Forward Flexion",
        "neck",
        "sagittal",
        "Pitch of the head (ear to nose) against the trunk; positive chin to chest. Zero is an assumed "
        "neutral head, 8 ± 6 below the horizontal, unless a baseline is given.",
        *sides(lambda side: specs.neck_flexion(side, 1)),
        form_error_deg=_FORM_NECK,
        opposite=True,
    )
    yield Measurement(
        "neck_extension",
        "Neck Extension",
        "neck",
        "sagittal",
        "The negative of neck_forward_flexion: positive looking up.",
        *sides(lambda side: specs.neck_flexion(side, -1)),
        form_error_deg=_FORM_NECK,
        opposite=True,
    )
    yield Measurement(
        "splits",
        "Splits",
        "hip",
        "any",
        "Angle between the two thighs, through the direction of the trunk, so that an over-split reads "
        "more than 180. One value for both sides.",
        *sides(specs.splits),
        form_error_deg=_FORM,
        mirror="same",
        kinds=(("frontal", "straddle"), ("sagittal", "front")),
    )
    yield Measurement(
        "squats_knee_front",
        "Squats Knee (front view)",
        "knee",
        "frontal",
        "Frontal-plane projection angle of the knee; 0 straight in the image, positive valgus (knee "
        "in). Withheld where the thigh is foreshortened: there it says nothing about valgus.",
        *sides(specs.squat_knee_front),
        form_error_deg=_FORM,
        strict_view=True,
        raw_key="fppa_raw_deg",
    )
    yield Measurement(
        "squats_knee_side",
        "Squats Knee (side view)",
        "knee",
        "sagittal",
        "The same quantity as knee_flexion: 0 straight, positive flexed.",
        *sides(lambda side: specs.knee_flexion(side, 1)),
        form_error_deg=_FORM,
    )
    yield Measurement(
        "squats_hip_front",
        "Squats Hip (front view)",
        "hip",
        "frontal",
        "Thigh against the midline of the trunk in the frontal plane; positive abduction (knee out). "
        "Withheld where the thigh is foreshortened.",
        *sides(specs.squat_hip_front),
        form_error_deg=_FORM,
        strict_view=True,
    )
    yield Measurement(
        "squats_hip_side",
        "Squats Hip (side view)",
        "hip",
        "sagittal",
        "Thigh against the line of the trunk in profile; 0 aligned, positive flexed. It holds lumbar "
        "flexion too and so exceeds the goniometer's hip flexion.",
        *sides(specs.squat_hip_side),
        form_error_deg=_FORM,
    )
    folded = "Interior angle, 180 straight. Noise folds at 180: a straight limb reads a few degrees less."
    yield Measurement(
        "elbow_side",
        "Elbow (side view)",
        "elbow",
        "any",
        f"Shoulder, elbow, wrist. {folded}",
        *sides(specs.elbow_interior),
        form_error_deg=_FORM_ELBOW,
    )
    yield Measurement(
        "hip_side",
        "Hip (side view)",
        "hip",
        "sagittal",
        f"Shoulder, hip, knee. {folded}",
        *sides(specs.hip_interior),
        form_error_deg=_FORM,
    )
    yield Measurement(
        "knee_side",
        "Knee (side view)",
        "knee",
        "sagittal",
        f"Hip, knee, ankle. {folded}",
        *sides(specs.knee_interior),
        form_error_deg=_FORM,
    )
    yield Measurement(
        "ankle_dorsiflexion",
        "Ankle Dorsiflexion",
        "ankle",
        "sagittal",
        "Foot (heel to toe) against the shank; 0 at a right angle, positive toes up.",
        *sides(specs.ankle_dorsiflexion),
        form_error_deg=_FORM_ANKLE,
        extension=True,
    )
    yield Measurement(
        "wrist_flexion",
        "Wrist Flexion",
        "wrist",
        "any",
        "Hand (wrist to middle knuckle) against the line of the forearm; 0 straight, positive the way in "
        "which the fingers curl. Without visible fingers the magnitude.",
        *sides(specs.wrist_flexion),
        form_error_deg=_FORM_WRIST,
        extension=True,
    )


MEASUREMENTS: Mapping[str, Measurement] = {m.name: m for m in _table()}


def parse_names(requested: str | Iterable[str], *, field: str = "measurements") -> tuple[str, ...]:
    """Names of measurements as a request gives them: a list, or one string with commas, or both.

    Blanks, case and repetitions do not matter; the order of first mention is kept. Nothing asked for
    is an empty tuple: what that means is the caller's to say.

    Raises:
        InvalidRequest: names that do not exist, each as a violation, with all that do.
    """
    entries = [requested] if isinstance(requested, str) else list(requested)
    names = (name.strip().lower() for entry in entries for name in entry.split(","))
    wanted = tuple(dict.fromkeys(name for name in names if name))
    unknown = [name if len(name) <= 64 else f"{name[:61]}..." for name in wanted if name not in MEASUREMENTS]
    if unknown:
        known = ", ".join(MEASUREMENTS)
        shown = ", ".join(repr(name) for name in unknown[:10])
        more = "" if len(unknown) <= 10 else f" and {len(unknown) - 10} more"
        raise InvalidRequest(
            f"unknown measurement {shown}{more}; there are: {known}",
            violations=[Violation(field, f"unknown measurement {name!r}") for name in unknown[:10]],
            reason="UNKNOWN_MEASUREMENT",
            metadata={"unknown": ", ".join(unknown[:10]), "known": known},
        )
    return wanted
