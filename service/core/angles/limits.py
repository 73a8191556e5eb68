"""What every measurement presumes: the range that a joint can have, and the posture of the body.

The ranges are the widest that the sources give, about two standard deviations above the means, and contain
what a keypoint method adds, as the comments say: the line from shoulder to hip bends with the lumbar spine,
so it goes beyond the goniometer's hip. A value outside is no rare body but a wrong keypoint, a wrong view or
a wrong side. Angles are those of the registry, signed as there.

Sources:
    AAOS      American Academy of Orthopaedic Surgeons, Joint Motion: Method of Measuring and Recording (1965)
    Boone     D. C. Boone and S. P. Azen, J Bone Joint Surg Am 61:756 (1979), means and standard deviations
    Norkin    C. C. Norkin and D. J. White, Measurement of Joint Motion, 5th edition, appendix A
    Soucie    J. M. Soucie et al., Haemophilia 17:500 (2011), the CDC's normal joint study
    Herrington  L. Herrington and A. Munro, Phys Ther Sport 11:56 (2010), frontal-plane projection angles
    Straub    R. K. Straub and C. M. Powers, review of the projection angle against 3D valgus (2022)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.core.angles.posture import LYING, SITTING, SQUATTING, STANDING, UNKNOWN

ANY_POSTURE = frozenset({UNKNOWN, STANDING, SQUATTING, SITTING, LYING})
UPRIGHT = frozenset({UNKNOWN, STANDING, SQUATTING, SITTING})
ON_THE_FEET = frozenset({UNKNOWN, STANDING, SQUATTING})


@dataclass(frozen=True)
class Limits:
    """Limits of one measurement.

    Attributes:
        lowest_deg, highest_deg: what the joint can have, before a baseline is subtracted.
        postures: in which the measurement means what its name says. An unknown posture counts as one of them.
        source: of the range.
    """

    lowest_deg: float
    highest_deg: float
    postures: frozenset[int]
    source: str


_SHOULDER = "Boone: flexion 167 ± 5, extension 62 ± 10; Norkin: AAOS 180 and 60"
_TRUNK = (
    "AAOS: thoracolumbar flexion 80, extension 30; with the hips, Boone: flexion 122 ± 6, extension 10 ± 5"
)
_KNEE = "Boone: flexion 142 ± 5; Soucie: extension to 10 beyond straight; heel on the buttock 160"
_NECK = "AAOS: extension 76 ± 9, flexion 45; flexion of 64 in studies of living necks"
_HIP = "Boone: flexion 122 ± 6, extension 10 ± 5; with AAOS's 30 and more of the lumbar spine"

LIMITS: Mapping[str, Limits] = {
    # An arm across the chest is adducted by 50; Boone: abduction 184 ± 7.
    "shoulder_abduction": Limits(-50, 195, ANY_POSTURE, "Boone: abduction 184 ± 7; AAOS: adduction 50"),
    "shoulder_forward_flexion": Limits(-80, 195, ANY_POSTURE, _SHOULDER),
    "shoulder_extension": Limits(-195, 80, ANY_POSTURE, _SHOULDER),
    # Against the plumb line the hips take part: 35 of the spine and 30 of the hips.
    "back_side_flexion": Limits(-65, 65, UPRIGHT, "AAOS: lateral flexion 35, hip adduction 30"),
    "back_lumbar_forward_flexion": Limits(-50, 160, UPRIGHT, _TRUNK),
    "back_lumbar_extension": Limits(-160, 50, UPRIGHT, _TRUNK),
    "knee_flexion": Limits(-20, 160, ANY_POSTURE, _KNEE),
    "knee_extension": Limits(-160, 20, ANY_POSTURE, _KNEE),
    "neck_lateral_flexion": Limits(-65, 65, ANY_POSTURE, "AAOS: 45; 49 ± 8 in studies of living necks"),
    "neck_forward_flexion": Limits(-95, 80, ANY_POSTURE, _NECK),
    "neck_extension": Limits(-80, 95, ANY_POSTURE, _NECK),
    "splits": Limits(0, 230, ANY_POSTURE, "gymnasts' splits go beyond 180; 230 leaves 25 to each hip"),
    "squats_knee_front": Limits(
        -35, 35, ON_THE_FEET, "Herrington: 1 to 13 valgus in landings; Straub: limits of agreement −30 to 17"
    ),
    "squats_knee_side": Limits(-20, 160, ON_THE_FEET, _KNEE),
    # Wide stances turn the thigh out, which adds to the abduction that is seen.
    "squats_hip_front": Limits(-35, 75, ON_THE_FEET, "AAOS: adduction 30, abduction 45, and 30 turned out"),
    "squats_hip_side": Limits(-45, 165, ON_THE_FEET, _HIP),
    "elbow_side": Limits(15, 180, ANY_POSTURE, "Boone: flexion 143 ± 6; Soucie: 150; interior: 180 − 165"),
    "hip_side": Limits(15, 180, ANY_POSTURE, f"{_HIP}; interior: 180 − 165"),
    "knee_side": Limits(20, 180, ANY_POSTURE, f"{_KNEE}; interior: 180 − 160"),
    # Dancers on their toes have the foot in line with the shank.
    "ankle_dorsiflexion": Limits(-90, 50, ANY_POSTURE, "AAOS: 20 and 50; 45 under load; on the toes −90"),
    "wrist_flexion": Limits(-90, 95, ANY_POSTURE, "Boone: flexion 76 ± 6, extension 75 ± 7"),
}
