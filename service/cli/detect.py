"""`posegate detect`: the people in images, as JSON Lines, overlays or a summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli import options
from service.cli.connection import GatewayCommand, gateway_of
from service.cli.failures import FAILED
from service.cli.images import ImageAnswer, ImageConfig, OverlayPaths, run, send

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class DetectConfig(ImageConfig):
    """How to find people.

    Attributes:
        model: empty for the service's default.
        model_version: empty for the newest.
        skeleton: of the keypoints; empty for the model's own.
        min_score: people below are left out; None for the service's default.
        space_panel: draw the people in space beside the image.
    """

    model: str = ""
    model_version: str = ""
    skeleton: str = ""
    min_score: float | None = None
    space_panel: bool = False


@app.command(cls=GatewayCommand)
def command(
    context: typer.Context,
    images: options.Images,
    results: options.Results = None,
    overlay: options.Overlay = None,
    overlay_format: options.OverlayEncoding = None,
    space_panel: Annotated[
        bool, typer.Option("--space-panel", help="Draw the people in space beside the image.")
    ] = False,
    model: options.ModelName = "",
    model_version: options.ModelVersion = "",
    skeleton: options.SkeletonName = "",
    min_score: options.MinScore = None,
    timeout: options.Timeout = 60.0,
) -> None:
    """Find the people in images. Exit code 1 if an image failed, with one line for each."""
    config = DetectConfig(
        gateway=gateway_of(context),
        timeout_s=timeout,
        results=results,
        overlay=overlay,
        overlay_format=overlay_format,
        model=model,
        model_version=model_version,
        skeleton=skeleton,
        min_score=min_score,
        space_panel=space_panel,
    )
    if not run(detect(images, config), results):
        raise typer.Exit(FAILED)


async def detect(images: Sequence[Path], config: DetectConfig) -> int:
    """Send every image; the number that failed, each with a line on stderr.

    Raises:
        BadOption: the overlays cannot be written as asked for.
        OSError: an output cannot be written.
    """
    overlays = OverlayPaths(images, config)
    async with config.gateway.connect() as channel:
        stub = PoseServiceStub(channel)

        async def ask(content: bytes) -> ImageAnswer[pb.DetectPosesResponse]:
            answer = await stub.DetectPoses(_request(content, config, overlays), timeout=config.timeout_s)
            drawn = {"": answer.overlay.content} if answer.HasField("overlay") else {}
            answer.ClearField("overlay")
            return ImageAnswer(answer, drawn)

        return await send(images, config, overlays, ask, _show)


def count_people(persons: Sequence[types_pb2.Person]) -> int:
    """How many people; two parts of one person, such as hands, are one."""
    return len({one.person_index if one.HasField("person_index") else -n for n, one in enumerate(persons, 1)})


def counted_people(count: int) -> str:
    """The number with its noun."""
    return f"{count} {'person' if count == 1 else 'people'}"


def _request(content: bytes, config: DetectConfig, overlays: OverlayPaths) -> pb.DetectPosesRequest:
    request = pb.DetectPosesRequest(
        image=types_pb2.Image(content=content),
        model=config.model,
        model_version=config.model_version,
        skeleton=config.skeleton,
        min_score=config.min_score,
        include_positions=True,
        overlay=overlays.options,
    )
    if config.space_panel:
        request.overlay.space_panel = True
    return request


def _show(image: Path, answer: pb.DetectPosesResponse, overlays: list[Path]) -> None:
    size = answer.image_size
    parts = any(person.HasField("person_index") for person in answer.persons)
    of_parts = f" ({len(answer.persons)} × {answer.skeleton})" if parts else ""
    people = counted_people(count_people(answer.persons))
    print(
        f"{image}: {people}{of_parts} in {size.width}×{size.height} px, "
        f"{answer.model}:{answer.model_version}, {answer.timings.total_ms:.1f} ms"
    )
    for number, person in enumerate(answer.persons):
        box = person.box
        sure = sum(point.score >= 0.5 for point in person.keypoints)
        print(
            f"  {number}. {_part(person)}score {person.score:.2f}  "
            f"box {box.x1:.0f},{box.y1:.0f} to {box.x2:.0f},{box.y2:.0f}  "
            f"{sure} of {len(person.keypoints)} keypoints with score ≥ 0.5"
        )
    for path in overlays:
        print(f"  overlay: {path}")


def _part(person: types_pb2.Person) -> str:
    """Person and side of a part; empty for a whole person."""
    if not person.HasField("person_index"):
        return ""
    side = types_pb2.Side.Name(person.side).removeprefix("SIDE_").lower()
    return f"person {person.person_index}{'' if person.side == types_pb2.SIDE_UNSPECIFIED else f' {side}'}  "
