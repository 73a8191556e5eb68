"""`posegate evaluate`: accuracy of a served model on a set of annotated images."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli.connection import GatewayCommand, Target, gateway_of
from service.cli.evaluation_run import BATCH, BadRun, Conditions, Run, Shape, batch_size, detect_all, model_of
from service.cli.failures import FAILED, Interrupted
from service.cli.files import write_whole
from service.core.drawing.poses import OverlayStyle, draw_poses
from service.core.poses import Poses
from service.evaluation.bootstrap import ap_difference
from service.evaluation.dataset import Dataset, DatasetError, read_dataset
from service.evaluation.judge import (
    STATISTICS,
    ImageScore,
    Judgement,
    image_scores,
    judge,
    keypoint_errors,
)
from service.skeletons import shipped

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

app = typer.Typer(add_completion=False)

_SHOWN = 10
_DRAWN_SCORE = 0.3  # detections below are not drawn beside the annotation


@dataclass(frozen=True)
class EvaluateConfig:
    """What is evaluated, and how.

    Attributes:
        gateway: to call.
        images: folder of the image files.
        annotations: file in COCO's layout.
        model: empty for the service's default.
        against: a second model, on the same images; empty for none.
        limit: the first so many images; None for all.
        out: folder for detections, results and drawings; None for none.
        min_score: lower bound of a person's score.
        iou_threshold: of NMS.
        shape: of the images that are sent: as they are, or padded to squares.
        batch: images in a call.
        timeout_s: of each call.
    """

    gateway: Target
    images: Path
    annotations: Path
    model: str = ""
    against: str = ""
    limit: int | None = None
    out: Path | None = None
    min_score: float = 0.001
    iou_threshold: float = 0.7
    shape: Shape = "rectangle"
    batch: int = BATCH
    timeout_s: float = 300.0


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One model, judged.

    Attributes:
        model: its name.
        run: its detections.
        judgements: one for each part.
    """

    model: str
    run: Run
    judgements: Sequence[Judgement]


@app.command(cls=GatewayCommand)
def command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder of the images.")],
    annotations: Annotated[
        Path,
        typer.Option(help="COCO person_keypoints, coco_wholebody, CrowdPose or OCHuman in COCO's layout."),
    ],
    model: Annotated[str, typer.Option(help="Model name; empty: the service's default.")] = "",
    against: Annotated[str, typer.Option(help="A second model, compared on the same images.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results and drawings; a run that was stopped goes on from there."),
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Lower bound of a person's score, as for COCO.")
    ] = 0.001,
    nms: Annotated[float, typer.Option(min=0, max=1, help="IoU above which a person is a duplicate.")] = 0.7,
    shape: Annotated[
        Shape,
        typer.Option(help="Images as they are, or padded to squares: --imgsz of Ultralytics, rect or not."),
    ] = "rectangle",
    batch: Annotated[int, typer.Option(min=1, help="Images in a call.")] = BATCH,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for each call.")] = 300.0,
) -> None:
    """Measure the accuracy of a model on annotated images. AP and AR by pycocotools, speed, the worst images.

    Exit code 1 if the service refused an image; it counts as one without detections.
    """
    config = EvaluateConfig(
        gateway=gateway_of(context),
        images=folder,
        annotations=annotations,
        model=model,
        against=against,
        limit=limit,
        out=out,
        min_score=confidence,
        iou_threshold=nms,
        shape=shape,
        batch=batch,
        timeout_s=timeout,
    )
    try:
        outcomes = asyncio.run(evaluate(config))
    except KeyboardInterrupt:
        kept = "run the same command again to go on" if out else "with --out a run can be continued"
        raise Interrupted(f"interrupted: {kept}") from None
    if any(outcome.run.failed for outcome in outcomes):
        raise typer.Exit(FAILED)


async def evaluate(config: EvaluateConfig) -> list[Evaluated]:
    """Evaluate one model or two, print the outcome, and write it where asked for.

    Raises:
        BadRun: the set or a model cannot be evaluated.
        OSError: a file cannot be read or written.
        grpc.aio.AioRpcError: a call failed.
    """
    _need_pycocotools()
    try:
        dataset = read_dataset(config.annotations, limit=config.limit)
    except DatasetError as error:
        raise BadRun(str(error)) from error
    digest = hashlib.sha256(config.annotations.read_bytes()).hexdigest()
    names = [config.model, *([config.against] if config.against else [])]
    async with config.gateway.connect() as channel:
        stub = PoseServiceStub(channel)
        outcomes = [await _one(stub, dataset, digest, replace(config, model=name)) for name in names]
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    for outcome in outcomes:
        _print(console, dataset, outcome)
    if len(outcomes) == 2:
        _print_comparison(console, outcomes[0], outcomes[1])
    return outcomes


async def _one(
    stub: PoseServiceAsyncStub, dataset: Dataset, digest: str, config: EvaluateConfig
) -> Evaluated:
    model = await model_of(stub, config.model, config.timeout_s)
    whole = dataset.layout == "coco_wholebody" and model.keypoint_count > len(shipped()["coco_17"].names)
    skeleton = shipped()["coco_wholebody_133" if whole else "coco_17"]
    mapped = dataset.supplied_by(skeleton.names)
    conditions = Conditions(
        model=model.name,
        model_version=model.version,
        sha256=model.sha256,
        skeleton=skeleton.name,
        min_score=config.min_score,
        iou_threshold=config.iou_threshold,
        annotations=digest,
        shape=config.shape,
    )
    folder = None if config.out is None else config.out / model.name
    run = await detect_all(
        stub,
        mapped,
        config.images,
        conditions,
        kept=None if folder is None else folder / "detections.jsonl",
        batch=await batch_size(stub, config.batch, config.timeout_s),
        timeout_s=config.timeout_s,
    )
    results = run.results(mapped)
    judgements = [judge(mapped, results, part) for part in mapped.parts(skeleton.names)]
    outcome = Evaluated(model.name, run, judgements)
    if folder is not None:
        write_whole(folder / "results.json", json.dumps(results).encode())
        write_whole(folder / "summary.json", json.dumps(_summary(outcome, conditions), indent=2).encode())
        _draw(mapped, outcome, config.images, folder / "worst")
    return outcome


def _summary(outcome: Evaluated, conditions: Conditions) -> Mapping[str, Any]:
    return {
        "conditions": asdict(conditions),
        "parts": {one.part.name: dict(one.statistics) for one in outcome.judgements},
        "failed": outcome.run.failed,
    }


def _print(console: Console, dataset: Dataset, outcome: Evaluated) -> None:
    table = Table(title=f"{outcome.model} on {len(dataset.images)} images ({dataset.layout})")
    table.add_column("part")
    table.add_column("keypoints", justify="right")
    for name in STATISTICS[:6]:
        table.add_column(name, justify="right")
    for one in outcome.judgements:
        values = [one.statistics[name] for name in STATISTICS[:6]]
        shown = ["–" if value < 0 else f"{100 * value:.1f}" for value in values]
        table.add_row(one.part.name, str(len(one.part.indices)), *shown)
    console.print(table)
    if dataset.layout == "crowdpose":
        console.print("head and neck of CrowdPose are in no COCO skeleton and are left out")
    console.print(outcome.run.speed())
    for number, reason in list(outcome.run.failed.items())[:_SHOWN]:
        console.print(f"image {number} has no detections: {reason}", style="red")
    worst = Table(title="worst images")
    for name in ("image", "persons", "missed", "mean OKS"):
        worst.add_column(name, justify="right")
    files = {image.id: image.file_name for image in dataset.images}
    for score in image_scores(outcome.judgements[-1])[:_SHOWN]:
        worst.add_row(files[score.image_id], str(score.persons), str(score.missed), f"{score.oks:.3f}")
    console.print(worst)


def _print_comparison(console: Console, first: Evaluated, second: Evaluated) -> None:
    table = Table(title=f"{first.model} less {second.model}")
    for name in ("part", "AP", "95 % interval", "error", "error of the other", "apart"):
        table.add_column(name, justify="right")
    others = {one.part.name: one for one in second.judgements}
    for one in first.judgements:
        other = others.get(one.part.name)
        if other is None or other.part != one.part:
            continue
        difference = ap_difference(one, other)
        errors = [
            f"{100 * np.median(part):.2f}" if len(part) else "–" for part in keypoint_errors(one, other)
        ]
        table.add_row(
            one.part.name,
            f"{100 * difference.value:+.1f}",
            f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}",
            *errors,
        )
    console.print(table)
    console.print("errors: median distance of keypoints, % of √area, over persons that both models met")


def _draw(dataset: Dataset, outcome: Evaluated, images: Path, folder: Path) -> None:
    """Draw the worst images: annotation left, detections right."""
    judgement = outcome.judgements[-1]
    files = {image.id: image.file_name for image in dataset.images}
    skeleton = shipped()[dataset.skeleton]
    if dataset.layout == "crowdpose":
        return  # its skeleton is not one that can be drawn
    folder.mkdir(parents=True, exist_ok=True)
    for place, score in enumerate(image_scores(judgement)[:_SHOWN], 1):
        picture = cv2.imread(str(images / files[score.image_id]), cv2.IMREAD_COLOR)
        if picture is None:
            continue
        rgb = np.ascontiguousarray(picture[..., ::-1], np.uint8)
        annotated = [one for one in dataset.annotations if one["image_id"] == score.image_id]
        found = [one for one in outcome.run.detections[score.image_id] if one["score"] >= _DRAWN_SCORE]
        style = OverlayStyle()
        sides = [
            draw_poses(rgb, _poses(annotated, annotation=True), skeleton, style),
            draw_poses(rgb, _poses(found, annotation=False), skeleton, style),
        ]
        encoded, content = cv2.imencode(".jpg", np.hstack(sides)[..., ::-1])
        if encoded:
            write_whole(folder / _drawing_name(place, score, files), content.tobytes())


def _drawing_name(place: int, score: ImageScore, files: Mapping[int, str]) -> str:
    return f"{place:02}-{Path(files[score.image_id]).stem}.jpg"


def _poses(people: Sequence[Mapping[str, Any]], *, annotation: bool) -> Poses:
    count = len(people[0]["keypoints"]) // 3 if people else 0
    if not people:
        return Poses.empty(17)
    keypoints = np.array([np.reshape(one["keypoints"], (count, 3)) for one in people], np.float32)
    if annotation:
        keypoints[..., 2] = keypoints[..., 2] > 0
    boxes = np.full((len(people), 4), np.nan, np.float32)
    scores = np.array([one.get("score", 1.0) for one in people], np.float32)
    return Poses(boxes_xyxy=boxes, scores=scores, keypoints=keypoints)


def _need_pycocotools() -> None:
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise BadRun("pycocotools is not installed: pip install 'posegate[evaluate]'") from error
