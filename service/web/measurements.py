"""Names of the measurements as the contract lists them, for lists and for answers without a person.

The gateway judges names and gives titles; a test compares this table with the gateway's own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One measurement.

    Attributes:
        name: in requests.
        title: for people to read.
        body_part: joint or region.
        extension: needs points beyond the 17 of COCO.
    """

    name: str
    title: str
    body_part: str
    extension: bool = False


MEASUREMENTS = (
    Measurement("shoulder_abduction", "Shoulder Abduction", "Shoulder"),
    Measurement("shoulder_forward_flexion", "Shoulder Forward Flexion", "Shoulder"),
    Measurement("shoulder_extension", "Shoulder Extension", "Shoulder"),
    Measurement("back_side_flexion", "Back Side Flexion", "Back"),
    Measurement("back_lumbar_forward_flexion", "Back Lumbar Forward Flexion", "Back"),
    Measurement("back_lumbar_extension", "Back Lumbar Extension", "Back"),
    Measurement("knee_flexion", "Knee Flexion", "Knee"),
    Measurement("knee_extension", "Knee Extension", "Knee"),
    Measurement("neck_lateral_flexion", "Neck Lateral Flexion", "Neck"),
    Measurement("neck_forward_flexion", "Neck Forward Flexion", "Neck"),
    Measurement("neck_extension", "Neck Extension", "Neck"),
    Measurement("splits", "Splits", "Hip"),
    Measurement("squats_knee_front", "Squats Knee (front view)", "Knee"),
    Measurement("squats_knee_side", "Squats Knee (side view)", "Knee"),
    Measurement("squats_hip_front", "Squats Hip (front view)", "Hip"),
    Measurement("squats_hip_side", "Squats Hip (side view)", "Hip"),
    Measurement("elbow_side", "Elbow (side view)", "Elbow"),
    Measurement("hip_side", "Hip (side view)", "Hip"),
    Measurement("knee_side", "Knee (side view)", "Knee"),
    Measurement("ankle_dorsiflexion", "Ankle Dorsiflexion", "Ankle", extension=True),
    Measurement("wrist_flexion", "Wrist Flexion", "Wrist", extension=True),
)

BY_NAME = {one.name: one for one in MEASUREMENTS}
NAMES = tuple(BY_NAME)
