"""Detections of a model on a set of images: sent in batches, kept line by line, continued after a stop."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.cli.failures import CommandError
from service.evaluation.dataset import Dataset, Image
from service.evaluation.judge import MAX_PERSONS, Detection

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

BATCH = 8
_BATCHES_IN_FLIGHT = 2
_BATCH_BYTES = 12 << 20  # of encoded images; the service bounds a message


Shape = Literal["rectangle", "square"]

_GREY = 114  # of what is around an image in a model's input, as Ultralytics has it


class BadRun(CommandError):
    """The detections cannot be made or continued; the text says why."""


@dataclass(frozen=True)
class Conditions:
    """What detections depend on; a run is continued only under the same.

    Attributes:
        model: as the service calls it.
        model_version: that answered.
        sha256: of its weights; empty where the service does not know it.
        skeleton: of the keypoints.
        min_score: lower bound of a person's score.
        iou_threshold: of NMS.
        annotations: SHA-256 of the annotation file.
        shape: of the images that are sent: as they are, or padded to squares.
    """

    model: str
    model_version: str
    sha256: str
    skeleton: str
    min_score: float
    iou_threshold: float
    annotations: str
    shape: Shape = "rectangle"


@dataclass(eq=False)
class Run:
    """Detections so far.

    Attributes:
        detections: in COCO's result format, by image.
        inference_ms: time at the model, for each image of this process's share.
        failed: image → why the service refused it.
        seconds: wall time of this process's share.
    """

    detections: dict[int, list[Detection]] = field(default_factory=dict)
    inference_ms: list[float] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    sent: int = 0

    def results(self, dataset: Dataset) -> list[Detection]:
        """All detections, in the order of the set."""
        return [one for image in dataset.images for one in self.detections.get(image.id, [])]

    def speed(self) -> str:
        """Images a second and the median at the model; empty if nothing was sent."""
        if not self.sent or not self.inference_ms:
            return "speed: not measured, every detection was there"
        return (
            f"speed: {self.sent / self.seconds:.1f} images/s, "
            f"{statistics.median(self.inference_ms):.1f} ms at the model (median)"
        )


async def detect_all(
    stub: PoseServiceAsyncStub,
    dataset: Dataset,
    folder: Path,
    conditions: Conditions,
    *,
    kept: Path | None,
    batch: int,
    timeout_s: float,
) -> Run:
    """Detections for every image of the set.

    Args:
        folder: holds the image files.
        kept: file of detections made so far, which grows by a line for each image; None keeps none.
        batch: images in a call at most.

    Raises:
        BadRun: an image is missing, or `kept` belongs to other conditions.
        OSError: an image cannot be read, or `kept` not be written.
        grpc.aio.AioRpcError: a call failed as a whole.
    """
    run = Run()
    if kept is not None:
        _continue(run, kept, conditions, dataset)
    missing = [image for image in dataset.images if image.id not in run.detections]
    _check_files(missing, folder)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    started = time.monotonic()
    with (
        closing(_open(kept, conditions)) as file,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task(conditions.model, total=len(dataset.images))
        progress.update(task, completed=len(run.detections))
        batches = _batches(missing, folder, batch, conditions.shape)
        async for sent, answer in _answers(stub, batches, conditions, timeout_s):
            for one, result in zip(sent, answer.responses, strict=True):
                _take(run, one, result, dataset, file)
            progress.advance(task, len(sent))
    if missing and len(run.failed) == len(missing) == len(dataset.images):
        raise BadRun(f"the service refused every image: {run.failed[missing[0].id]}")
    run.seconds, run.sent = time.monotonic() - started, len(missing) - len(run.failed)
    return run


@dataclass(frozen=True, eq=False)
class _Sent:
    """An image as it is sent, and the place of its own upper left corner in that, px."""

    image: Image
    content: bytes
    corner_xy: tuple[int, int] = (0, 0)


def _take(run: Run, sent: _Sent, result: pb.BatchDetectPosesResult, dataset: Dataset, file: _Lines) -> None:
    image = sent.image
    if result.HasField("error"):
        run.failed[image.id] = result.error.message
        run.detections[image.id] = []
        return
    response = result.response
    run.inference_ms.append(response.timings.inference_ms)
    run.detections[image.id] = [_result(person, sent, dataset) for person in response.persons]
    file.write({"image_id": image.id, "detections": run.detections[image.id]})


def _result(person: types_pb2.Person, sent: _Sent, dataset: Dataset) -> Detection:
    """A person in COCO's result format, in the keypoints of the set; points it has not are 0, 0, 0."""
    left, top = sent.corner_xy

    def triple(point: types_pb2.Keypoint) -> tuple[float, float, float]:
        there = point.x or point.y or point.score
        return (point.x - left, point.y - top, point.score) if there else (0.0, 0.0, 0.0)

    return {
        "image_id": sent.image.id,
        "category_id": dataset.category,
        "keypoints": [
            value
            for index in dataset.places
            for value in (
                triple(person.keypoints[index])
                if index >= 0 and index < len(person.keypoints)
                else (0.0, 0.0, 0.0)
            )
        ],
        "score": person.score,
    }


async def _answers(
    stub: PoseServiceAsyncStub,
    batches: Iterator[list[_Sent]],
    conditions: Conditions,
    timeout_s: float,
) -> AsyncIterator[tuple[list[_Sent], pb.BatchDetectPosesResponse]]:
    """Answers in the order of the batches, a few calls under way."""
    waiting: list[tuple[list[_Sent], asyncio.Task[pb.BatchDetectPosesResponse]]] = []
    more = True
    try:
        while True:
            while more and len(waiting) < _BATCHES_IN_FLIGHT:
                chosen = await asyncio.to_thread(next, batches, None)
                if chosen is None:
                    more = False
                    break
                call = _call(stub, [one.content for one in chosen], conditions, timeout_s)
                waiting.append((chosen, asyncio.create_task(call)))
            if not waiting:
                return
            sent, task = waiting.pop(0)
            yield sent, await task
    finally:
        for _, task in waiting:
            task.cancel()


async def _call(
    stub: PoseServiceAsyncStub, contents: Sequence[bytes], conditions: Conditions, timeout_s: float
) -> pb.BatchDetectPosesResponse:
    request = pb.BatchDetectPosesRequest(
        requests=[
            pb.DetectPosesRequest(
                image=types_pb2.Image(content=content),
                model=conditions.model,
                model_version=conditions.model_version,
                skeleton=conditions.skeleton,
                min_score=conditions.min_score,
                iou_threshold=conditions.iou_threshold,
                max_persons=MAX_PERSONS,
            )
            for content in contents
        ]
    )
    return await stub.BatchDetectPoses(request, timeout=timeout_s)


def _batches(images: Sequence[Image], folder: Path, count: int, shape: Shape) -> Iterator[list[_Sent]]:
    batch: list[_Sent] = []
    size = 0
    for image in images:
        content = (folder / image.file_name).read_bytes()
        one = _Sent(image, content) if shape == "rectangle" else _squared(image, content)
        if batch and (len(batch) == count or size + len(one.content) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one.content)
    if batch:
        yield batch


def _squared(image: Image, content: bytes) -> _Sent:
    """The image in the middle of a grey square; as it is where it cannot be decoded: the service says so."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        return _Sent(image, content)
    height, width = pixels.shape[:2]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    square = np.full((side, side, 3), _GREY, np.uint8)
    square[top : top + height, left : left + width] = pixels
    done, encoded = cv2.imencode(".png", square, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return _Sent(image, encoded.tobytes(), (left, top)) if done else _Sent(image, content)


def _check_files(images: Sequence[Image], folder: Path) -> None:
    absent = [image.file_name for image in images if not (folder / image.file_name).is_file()]
    if absent:
        raise BadRun(
            f"{folder}: {len(absent)} annotated images are not there, such as {absent[0]}; "
            "name the folder that holds them, or fewer with --limit"
        )


class _Lines:
    """A file of JSON lines that grows, or nothing."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _open(kept: Path | None, conditions: Conditions) -> _Lines:
    if kept is None:
        return _Lines(None)
    kept.parent.mkdir(parents=True, exist_ok=True)
    new = not kept.is_file() or not kept.stat().st_size
    lines = _Lines(kept.open("a", encoding="utf-8"))
    if new:
        lines.write({"conditions": asdict(conditions)})
    return lines


def _continue(run: Run, kept: Path, conditions: Conditions, dataset: Dataset) -> None:
    """Take over the detections of an earlier run; a last line that was cut short is dropped."""
    if not kept.is_file():
        return
    content = kept.read_bytes()
    end = content.rfind(b"\n") + 1
    if end != len(content):
        with kept.open("r+b") as file:
            file.truncate(end)
    wanted = {image.id for image in dataset.images}
    try:
        lines = [json.loads(line) for line in content[:end].splitlines()]
        if lines and lines[0]["conditions"] != asdict(conditions):
            raise BadRun(
                f"{kept} holds detections of another model, annotation file or setting; "
                "name another folder with --out, or delete it"
            )
        for line in lines[1:]:
            if line["image_id"] in wanted:
                run.detections[line["image_id"]] = line["detections"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadRun(f"{kept} holds no detections of this command; name another folder with --out") from error


async def batch_size(stub: PoseServiceAsyncStub, wanted: int, timeout_s: float) -> int:
    """Images in a call: as wanted, within the limit of the service.

    Raises:
        grpc.aio.AioRpcError: the call failed.
    """
    info = await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=timeout_s)
    return min(wanted, info.limits.max_batch_size or wanted)


async def model_of(stub: PoseServiceAsyncStub, name: str, timeout_s: float) -> pb.Model:
    """The served model of that name, the newest version that is ready; the default for an empty name.

    Raises:
        BadRun: there is none.
        grpc.aio.AioRpcError: the call failed.
    """
    token = ""
    models: list[pb.Model] = []
    while True:
        page = await stub.ListModels(pb.ListModelsRequest(page_token=token), timeout=timeout_s)
        models += page.models
        token = page.next_page_token
        if not token:
            break
    fitting = [one for one in models if one.ready and (one.name == name if name else one.default)]
    if not fitting:
        ready = ", ".join(sorted({one.name for one in models if one.ready})) or "none"
        raise BadRun(f"model {name or 'by default'} is not ready; there are {ready}")
    return max(fitting, key=lambda one: int(one.version) if one.version.isdecimal() else 0)
