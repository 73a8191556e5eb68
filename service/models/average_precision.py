"""Average precision of a plan and of its graph on annotated images: the second gate of a build.

Keypoints may agree within the tolerance of `accuracy` and still lose persons or precision where images are
hard. So both run on the user's annotated images, pycocotools judges both, and a plan that loses more than
a fixed share of AP is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from service.core.geometry import Rgb8, choose_shape, letterbox
from service.core.model import Model
from service.core.poses import Floats
from service.core.skeleton.template import Skeleton
from service.core.topdown import crop_people
from service.core.yolo import decode_candidates
from service.evaluation.dataset import Dataset, DatasetError, read_dataset
from service.evaluation.judge import MAX_PERSONS, Detection, judge
from service.models.errors import EngineError
from service.models.manifest import ApLoss
from service.models.runners import Runner

MAX_LOSS = 0.003
"""AP from 0 to 1. Published APs are repeated within it (0.3 points); fp16 and TF32 cost a tenth of that."""

MIN_SCORE = 0.001  # of a person, as in COCO's evaluations by Ultralytics
IOU_OF_DOUBLES = 0.7


@dataclass(frozen=True, eq=False)
class AnnotatedImages:
    """A folder of images and the annotations of all of them, in COCO's layout."""

    folder: Path
    dataset: Dataset


def read_annotated(folder: Path, annotations: Path) -> AnnotatedImages:
    """The annotated images of a folder.

    Raises:
        EngineError: pycocotools is missing, the file is none of annotations, or an image is not there.
    """
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as exc:
        raise EngineError("AP needs pycocotools: pip install 'posegate[evaluate]'") from exc
    try:
        dataset = read_dataset(annotations)
    except DatasetError as exc:
        raise EngineError(str(exc)) from exc
    except OSError as exc:
        raise EngineError(f"{annotations} cannot be read: {exc.strerror or exc}") from exc
    absent = [image.file_name for image in dataset.images if not (folder / image.file_name).is_file()]
    if absent:
        raise EngineError(
            f"{folder}: {len(absent)} annotated images are not there, such as {absent[0]}; "
            "name their folder with --samples"
        )
    return AnnotatedImages(folder, dataset)


def compare_ap(
    reference: Runner, plan: Runner, model: Model, skeleton: Skeleton, annotated: AnnotatedImages
) -> Mapping[str, ApLoss]:
    """AP of both by part of the body that the set annotates.

    Raises:
        EngineError: an image cannot be decoded, no person is annotated, or a runner fails.
    """
    dataset = annotated.dataset.supplied_by(skeleton.names)
    found: tuple[list[Detection], list[Detection]] = [], []
    for number, image in _decoded(annotated):
        detect = _persons if model.family == "yolo_pose" else _crops
        for runner, detections in zip((reference, plan), found, strict=True):
            detections += detect(runner, model, image, number, dataset)
    losses = {}
    for part in dataset.parts(skeleton.names):
        values = [judge(dataset, detections, part).statistics["AP"] for detections in found]
        if values[0] >= 0:  # −1: nothing of that part is annotated
            losses[part.name] = ApLoss(*values)
    if not losses:
        raise EngineError("the annotations hold no person with keypoints: AP says nothing about the plan")
    return losses


def ap_problems(losses: Mapping[str, ApLoss]) -> Iterator[str]:
    """A sentence for each part whose AP the plan loses."""
    for part, ap in losses.items():
        if ap.reference - ap.plan > MAX_LOSS:
            yield (
                f"{part}: AP {100 * ap.plan:.1f} instead of {100 * ap.reference:.1f} on the annotated "
                f"images; {100 * MAX_LOSS:.1f} may be lost"
            )


def _decoded(annotated: AnnotatedImages) -> Iterator[tuple[int, Rgb8]]:
    for image in annotated.dataset.images:
        path = annotated.folder / image.file_name
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise EngineError(f"{path} is no image that can be read")
        yield image.id, np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _persons(runner: Runner, model: Model, image: Rgb8, number: int, dataset: Dataset) -> Iterator[Detection]:
    """What a model that takes the whole image finds, as the gateway asks for it."""
    height, width = image.shape[:2]
    tensor, to_input = letterbox(image, choose_shape((width, height), model.shapes_hw))
    found = decode_candidates(
        runner.run(tensor[None])["candidates"][0],
        to_input,
        min_score=MIN_SCORE,
        iou_threshold=IOU_OF_DOUBLES,
        max_persons=MAX_PERSONS,
    )
    for keypoints, score in zip(found.keypoints, found.scores, strict=True):
        yield _detection(keypoints, float(score), number, dataset)


def _crops(runner: Runner, model: Model, image: Rgb8, number: int, dataset: Dataset) -> Iterator[Detection]:
    """What a model of single persons finds in the annotated boxes, scored by the mean of the keypoints."""
    boxes = _boxes(dataset).get(number)
    if boxes is None:
        return
    crops, to_crops = crop_people(image, boxes, model.typical_hw[0])
    for start in range(0, len(crops), model.max_batch_size):
        answer = runner.run(crops[start : start + model.max_batch_size])
        for place, scores in enumerate(answer["scores"]):
            back = to_crops[start + place].inverse()
            points = back.apply(answer["keypoints"][place][None])[0]
            keypoints = np.concatenate([points, scores[:, None]], axis=1)
            yield _detection(keypoints, float(np.mean(np.maximum(scores, 0))), number, dataset)


def _boxes(dataset: Dataset) -> Mapping[int, Floats]:
    """Annotated boxes x1, y1, x2, y2 by image, crowds left out."""
    boxes: dict[int, list[list[float]]] = defaultdict(list)
    for one in dataset.annotations:
        x, y, width, height = one["bbox"]
        if not one["iscrowd"] and width > 0 and height > 0:
            boxes[one["image_id"]].append([x, y, x + width, y + height])
    return {number: np.array(rows, np.float32) for number, rows in boxes.items()}


def _detection(keypoints: Floats, score: float, number: int, dataset: Dataset) -> Detection:
    """In COCO's result format and the keypoints of the set; points that the model has not are 0, 0, 0."""
    points: list[Any] = [
        keypoints[place].tolist() if place >= 0 and np.isfinite(keypoints[place]).all() else [0.0, 0.0, 0.0]
        for place in dataset.places
    ]
    return {
        "image_id": number,
        "category_id": dataset.category,
        "keypoints": [value for point in points for value in point],
        "score": score,
    }
