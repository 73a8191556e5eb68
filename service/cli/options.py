"""Options that several commands have, each written once: annotated types for their parameters."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class OverlayFormat(StrEnum):
    """Encoding of overlays."""

    png = "png"
    jpeg = "jpeg"


class BodySide(StrEnum):
    """A side of the body, the person's own."""

    left = "left"
    right = "right"
    both = "both"


class Facing(StrEnum):
    """Toward or away from the camera, or in profile to that edge of the image."""

    toward = "toward"
    away = "away"
    left = "left"
    right = "right"


Images = Annotated[list[Path], typer.Argument(help="Image files.")]
ModelName = Annotated[str, typer.Option("--model", help="Model name; empty: the service's default.")]
ModelVersion = Annotated[
    str, typer.Option("--model-version", help="Model version; empty: the newest that is ready.")
]
SkeletonName = Annotated[
    str, typer.Option("--skeleton", help="Skeleton of the keypoints; empty: the model's own.")
]
MinScore = Annotated[
    float | None, typer.Option("--min-score", help="Leave out people with a lower score, 0 to 1.")
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds for each call.")]
Results = Annotated[
    Path | None, typer.Option("--json", help="File for the results as JSON Lines; - for stdout.")
]
Overlay = Annotated[
    Path | None,
    typer.Option("--overlay", help="Folder for the drawn images; for one image also a .png or .jpg file."),
]
OverlayEncoding = Annotated[
    OverlayFormat | None,
    typer.Option("--overlay-format", help="Encoding of the overlays; png, or that of the file's name."),
]
Measurements = Annotated[
    list[str] | None,
    typer.Option("--measure", help="Measurement, such as knee_flexion; repeat it, or separate by commas."),
]
Side = Annotated[BodySide, typer.Option("--side", help="Sides to measure, the person's own.")]
PersonFacing = Annotated[
    Facing | None,
    typer.Option("--facing", help="Where the person faces, if the keypoints do not say it reliably."),
]
Mirrored = Annotated[bool, typer.Option("--mirrored", help="Mirror images: left and right change places.")]
CameraRoll = Annotated[
    float,
    typer.Option("--camera-roll", help="Degrees by which the camera was turned clockwise, seen from behind."),
]
Baseline = Annotated[
    list[str] | None,
    typer.Option("--baseline", help="Angle to subtract, as knee_flexion:left=4.5; may be repeated."),
]
