"""The options of joint angles, which images and videos share, as messages."""

from __future__ import annotations

from dataclasses import dataclass

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.cli.failures import BadOption
from service.cli.options import BodySide, Facing

_SIDES = {
    BodySide.left: types_pb2.SIDE_LEFT,
    BodySide.right: types_pb2.SIDE_RIGHT,
    BodySide.both: types_pb2.SIDE_BOTH,
}
_FACINGS = {
    None: pb.FACING_UNSPECIFIED,
    Facing.toward: pb.FACING_TOWARD_CAMERA,
    Facing.away: pb.FACING_AWAY_FROM_CAMERA,
    Facing.left: pb.FACING_IMAGE_LEFT,
    Facing.right: pb.FACING_IMAGE_RIGHT,
}


@dataclass(frozen=True)
class AngleConfig:
    """What to measure and how.

    Attributes:
        measurements: names; an entry may hold several, separated by commas.
        side: sides of the body.
        facing: where the person faces; None: from the keypoints.
        mirrored: the images are mirror images.
        camera_roll_deg: clockwise turn of the camera, seen from behind it.
        baseline: angles to subtract, each NAME=DEGREES for both sides or NAME:SIDE=DEGREES for one.
    """

    measurements: tuple[str, ...] = ()
    side: BodySide = BodySide.both
    facing: Facing | None = None
    mirrored: bool = False
    camera_roll_deg: float = 0.0
    baseline: tuple[str, ...] = ()

    def options(self) -> pb.AngleOptions:
        """The message that videos and streams have; images have the same fields in their request.

        Raises:
            BadOption: a baseline has another form.
        """
        return pb.AngleOptions(
            side=_SIDES[self.side],
            facing=_FACINGS[self.facing],
            mirrored=self.mirrored,
            camera_roll_deg=self.camera_roll_deg,
            baseline=[_baseline(text) for text in self.baseline],
        )


def _baseline(text: str) -> pb.BaselineAngle:
    key, equals, degrees = text.partition("=")
    name, colon, side = key.partition(":")
    try:
        if not (equals and name):
            raise ValueError
        of = _SIDES[BodySide(side) if colon else BodySide.both]
        return pb.BaselineAngle(name=name, side=of, degrees=float(degrees))
    except ValueError:
        raise BadOption(
            f"--baseline {text}: must be NAME=DEGREES or NAME:left=DEGREES, as in knee_flexion:left=4.5"
        ) from None
