"""`posegate measure`: a table of joint angles, and the picture with the arcs drawn."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli.connection import Target
from service.cli.files import write_whole

Side = Literal["left", "right", "both"]

_SIDES = {"left": types_pb2.SIDE_LEFT, "right": types_pb2.SIDE_RIGHT, "both": types_pb2.SIDE_BOTH}
_FACING = {
    "toward": pb.FACING_TOWARD_CAMERA,
    "away": pb.FACING_AWAY_FROM_CAMERA,
    "left": pb.FACING_IMAGE_LEFT,
    "right": pb.FACING_IMAGE_RIGHT,
}
_FORMATS = {
    ".png": types_pb2.OVERLAY_FORMAT_PNG,
    ".jpg": types_pb2.OVERLAY_FORMAT_JPEG,
    ".jpeg": types_pb2.OVERLAY_FORMAT_JPEG,
}
_STATUS_STYLES = {
    pb.ANGLE_STATUS_OK: "green",
    pb.ANGLE_STATUS_DEGRADED: "yellow",
    pb.ANGLE_STATUS_UNAVAILABLE: "red",
}


@dataclass(frozen=True)
class Wish:
    """What to measure.

    Attributes:
        gateway: to ask.
        measurements: names, comma-separated.
        side: which side of the body.
        model: empty for the service's default.
        everybody: all people instead of the largest.
        person: that number among those found, zero-based, instead of the largest.
        facing: toward or away from the camera, left or right edge of the picture; empty: found out.
        mirrored: the picture is a mirror image.
        camera_roll_deg: by how much the camera was turned clockwise.
        baseline: angles to subtract, each NAME=DEGREES for both sides or NAME:SIDE=DEGREES for one.
        min_score: people must be above it; None for the service's default.
        overlay: file to draw to, or None; its ending says PNG or JPEG.
        timeout_s: of the call.
    """

    gateway: Target
    measurements: str
    side: Side
    model: str
    everybody: bool
    overlay: Path | None
    timeout_s: float
    person: int | None = None
    facing: str = ""
    mirrored: bool = False
    camera_roll_deg: float = 0.0
    baseline: tuple[str, ...] = ()
    min_score: float | None = None


class BadWish(Exception):
    """The options cannot be meant; the text says which, and what to write."""


async def measure(picture: Path, content: bytes, wish: Wish) -> bool:
    """Print the angles and write the picture; False, with a line on stderr, when the call failed.

    Raises:
        BadWish: an option cannot be meant.
        OSError: the overlay cannot be written.
    """
    request = _request(content, wish)
    try:
        async with wish.gateway.connect() as channel:
            answer = await PoseServiceStub(channel).MeasureAngles(request, timeout=wish.timeout_s)
    except grpc.aio.AioRpcError as error:
        print(f"{picture}: {wish.gateway.explain(error)}", file=sys.stderr)
        return False
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    if not answer.persons:
        console.print(f"{picture}: nobody was found", markup=False)
    for person in answer.persons:
        console.print(_table(person))
    if wish.overlay is not None:
        write_whole(wish.overlay, answer.overlay.content)
        console.print(f"overlay: {wish.overlay}", markup=False)
    return True


def _request(content: bytes, wish: Wish) -> pb.MeasureAnglesRequest:
    request = pb.MeasureAnglesRequest(
        image=types_pb2.Image(content=content),
        measurements=[wish.measurements],
        side=_SIDES[wish.side],
        model=wish.model,
        mirrored=wish.mirrored,
        camera_roll_deg=wish.camera_roll_deg,
        baseline=[_baseline(text) for text in wish.baseline],
        min_score=wish.min_score,
    )
    if wish.facing:
        request.facing = _FACING[wish.facing]
    if wish.everybody and wish.person is not None:
        raise BadWish("--all and --person: give one of them")
    if wish.everybody:
        request.person.choice = pb.PERSON_CHOICE_ALL
    elif wish.person is not None:
        request.person.index = wish.person
    if wish.overlay is not None:
        ending = wish.overlay.suffix.lower()
        if ending not in _FORMATS:
            raise BadWish(f"--overlay {wish.overlay}: must end in {', '.join(_FORMATS)}")
        request.overlay.format = _FORMATS[ending]
    return request


def _baseline(text: str) -> pb.BaselineAngle:
    key, equals, degrees = text.partition("=")
    name, _, side = key.partition(":")
    try:
        if not (equals and name):
            raise ValueError
        return pb.BaselineAngle(name=name, side=_SIDES[side or "both"], degrees=float(degrees))
    except (KeyError, ValueError):
        raise BadWish(
            f"--baseline {text}: must be NAME=DEGREES or NAME:left=DEGREES, as in knee_flexion:left=4.5"
        ) from None


def _table(person: pb.PersonAngles) -> Table:
    facing = pb.Facing.Name(person.facing).removeprefix("FACING_").lower().replace("_", " ")
    facing = "facing unknown" if person.facing == pb.FACING_UNSPECIFIED else f"facing {facing}"
    table = Table(title=f"person {person.person_index}, {facing}", title_justify="left")
    for title in ("measurement", "side", "angle", "status", "why"):
        table.add_column(title, overflow="fold", justify="right" if title == "angle" else "left")
    for measurement in person.measurements:
        for side in ("left", "right"):
            if not measurement.HasField(side):
                continue
            value = measurement.left if side == "left" else measurement.right
            status = pb.AngleStatus.Name(value.status).removeprefix("ANGLE_STATUS_")
            table.add_row(
                measurement.title,
                side,
                _angle(value),
                f"[{_STATUS_STYLES[value.status]}]{status}[/]",
                ", ".join(value.reasons),
            )
    return table


def _angle(value: pb.AngleValue) -> str:
    if not value.HasField("degrees"):
        return "n/a"
    error = f" ± {value.std_error_deg:.0f}" if value.HasField("std_error_deg") else ""
    return f"{value.degrees:.1f}°{error}"
