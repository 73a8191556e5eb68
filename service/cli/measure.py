"""`posegate measure`: joint angles of the people in images, as a table, JSON Lines or overlays."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli import options
from service.cli.angles import AngleConfig
from service.cli.connection import GatewayCommand, gateway_of
from service.cli.failures import FAILED, BadOption
from service.cli.images import ImageAnswer, ImageConfig, OverlayPaths, run, send

app = typer.Typer(add_completion=False)

_STYLES = {
    pb.ANGLE_STATUS_OK: "green",
    pb.ANGLE_STATUS_DEGRADED: "yellow",
    pb.ANGLE_STATUS_UNAVAILABLE: "red",
}
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


@dataclass(frozen=True)
class MeasureConfig(ImageConfig):
    """What to measure, and on which people.

    Attributes:
        angles: the measurements and how they are taken.
        model: empty for the service's default.
        model_version: empty for the newest.
        min_score: people below are left out; None for the service's default.
        all_people: every person instead of the largest.
        person: the person of that zero-based number, by falling score, instead of the largest.
        overlay_each: an overlay for each measurement instead of one with all.
    """

    angles: AngleConfig = field(default_factory=AngleConfig)
    model: str = ""
    model_version: str = ""
    min_score: float | None = None
    all_people: bool = False
    person: int | None = None
    overlay_each: bool = False


@app.command(cls=GatewayCommand)
def command(
    context: typer.Context,
    images: options.Images,
    measurements: options.Measurements = None,
    side: options.Side = options.BodySide.both,
    all_people: Annotated[
        bool, typer.Option("--all", help="Measure every person, not only the largest.")
    ] = False,
    person: Annotated[
        int | None, typer.Option(min=0, help="Measure the person of this number, by falling score, from 0.")
    ] = None,
    facing: options.PersonFacing = None,
    mirrored: options.Mirrored = False,
    camera_roll: options.CameraRoll = 0.0,
    baseline: options.Baseline = None,
    min_score: options.MinScore = None,
    results: options.Results = None,
    overlay: options.Overlay = None,
    overlay_format: options.OverlayEncoding = None,
    overlay_each: Annotated[
        bool, typer.Option("--overlay-each", help="One overlay for each measurement.")
    ] = False,
    model: options.ModelName = "",
    model_version: options.ModelVersion = "",
    timeout: options.Timeout = 60.0,
) -> None:
    """Measure joint angles in images. Exit code 1 if an image failed, with one line for each."""
    angles = AngleConfig(
        tuple(measurements or ()), side, facing, mirrored, camera_roll, tuple(baseline or ())
    )
    config = MeasureConfig(
        gateway=gateway_of(context),
        timeout_s=timeout,
        results=results,
        overlay=overlay,
        overlay_format=overlay_format,
        angles=angles,
        model=model,
        model_version=model_version,
        min_score=min_score,
        all_people=all_people,
        person=person,
        overlay_each=overlay_each,
    )
    if not run(measure(images, config), results):
        raise typer.Exit(FAILED)


async def measure(images: Sequence[Path], config: MeasureConfig) -> int:
    """Send every image; the number that failed, each with a line on stderr.

    Raises:
        BadOption: an option has no valid meaning; nothing was sent.
        OSError: an output cannot be written.
    """
    template = _request(config)
    overlays = OverlayPaths(images, config)
    if overlays.options is not None:
        template.overlay.CopyFrom(overlays.options)
    async with config.gateway.connect() as channel:
        stub = PoseServiceStub(channel)

        async def ask(content: bytes) -> ImageAnswer[pb.MeasureAnglesResponse]:
            request = pb.MeasureAnglesRequest()
            request.CopyFrom(template)
            request.image.content = content
            return _without_overlays(await stub.MeasureAngles(request, timeout=config.timeout_s))

        return await send(images, config, overlays, ask, _show)


def _request(config: MeasureConfig) -> pb.MeasureAnglesRequest:
    """The request but for image and overlay."""
    if not config.angles.measurements:
        raise BadOption("--measure is missing: name what to measure, as in --measure knee_flexion,splits")
    if config.all_people and config.person is not None:
        raise BadOption("--all and --person: give one of them")
    if config.overlay_each and config.overlay is None:
        raise BadOption("--overlay-each needs --overlay: say where the overlays go")
    angles = config.angles.options()
    request = pb.MeasureAnglesRequest(
        measurements=config.angles.measurements,
        side=angles.side,
        facing=angles.facing,
        mirrored=angles.mirrored,
        camera_roll_deg=angles.camera_roll_deg,
        baseline=angles.baseline,
        model=config.model,
        model_version=config.model_version,
        min_score=config.min_score,
    )
    if config.all_people:
        request.person.choice = pb.PERSON_CHOICE_ALL
    elif config.person is not None:
        request.person.index = config.person
    if config.overlay_each:
        request.overlay_mode = pb.ANGLE_OVERLAY_MODE_PER_MEASUREMENT
    return request


def _without_overlays(answer: pb.MeasureAnglesResponse) -> ImageAnswer[pb.MeasureAnglesResponse]:
    """An answer and its overlays: keys are measurements, with the person where there are several."""
    overlays: dict[str, bytes] = {}
    if answer.HasField("overlay"):
        overlays[""] = answer.overlay.content
        answer.ClearField("overlay")
    for person in answer.persons:
        of_person = f"-{person.person_index}" if len(answer.persons) > 1 else ""
        for measurement in person.measurements:
            if measurement.HasField("overlay"):
                overlays[f"{measurement.name}{of_person}"] = measurement.overlay.content
                measurement.ClearField("overlay")
    return ImageAnswer(answer, overlays)


def _show(image: Path, answer: pb.MeasureAnglesResponse, overlays: list[Path]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False, emoji=False)
    found = answer.persons_found
    none = "no people" if not found else f"none of the {found} people found has that number"
    console.print(f"{image}:" if answer.persons else f"{image}: {none}", markup=False, soft_wrap=True)
    for person in answer.persons:
        console.print(_table(person))
    for path in overlays:
        console.print(f"overlay: {path}", markup=False, soft_wrap=True)


def _table(person: pb.PersonAngles) -> Table:
    facing = pb.Facing.Name(person.facing).removeprefix("FACING_").lower().replace("_", " ")
    facing = "facing unknown" if person.facing == pb.FACING_UNSPECIFIED else f"facing {facing}"
    posture = pb.Posture.Name(person.posture).removeprefix("POSTURE_").lower()
    posture = "" if person.posture == pb.POSTURE_UNSPECIFIED else f", {posture}"
    table = Table(title=f"person {person.person_index}, {facing}{posture}", title_justify="left")
    for title in ("measurement", "side", "angle", "status", "why"):
        table.add_column(title, overflow="fold", justify="right" if title == "angle" else "left")
    for measurement in person.measurements:
        for side in _SIDES:
            if not measurement.HasField(side):
                continue
            value = measurement.left if side == "left" else measurement.right
            status = pb.AngleStatus.Name(value.status).removeprefix("ANGLE_STATUS_")
            table.add_row(
                measurement.title,
                side,
                _angle(value),
                f"[{_STYLES[value.status]}]{status}[/]",
                ", ".join(value.reasons),
            )
    return table


def _angle(value: pb.AngleValue) -> str:
    if not value.HasField("degrees"):
        return "n/a"
    error = f" ± {value.std_error_deg:.0f}" if value.HasField("std_error_deg") else ""
    return f"{value.degrees:.1f}°{error}"
