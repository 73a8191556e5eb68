"""AP and AR of detections, by pycocotools with the sigmas of the skeleton."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.evaluation.dataset import Dataset, Part

STATISTICS = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
"""What `COCOeval.stats` holds for keypoints, in order. −1: no annotation of that kind."""

MAX_PERSONS = 20
"""Detections of an image that count: `maxDets` of COCO's keypoint evaluation."""

Detection = Mapping[str, Any]
"""One entry of COCO's results: image_id, category_id, keypoints (3K), score."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """The outcome for one part.

    Attributes:
        part: what was judged.
        statistics: by the names of STATISTICS.
        evaluator: pycocotools' COCOeval after `accumulate`.
    """

    part: Part
    statistics: Mapping[str, float]
    evaluator: Any


@dataclass(frozen=True)
class ImageScore:
    """How well the persons of one image were met.

    Attributes:
        image_id: number in the set.
        persons: annotated with keypoints.
        missed: of those, without a detection at OKS 0.5.
        oks: mean over the persons; 0 for a missed one.
    """

    image_id: int
    persons: int
    missed: int
    oks: float


def judge(dataset: Dataset, detections: Sequence[Detection], part: Part) -> Judgement:
    """Judge one part of all detections.

    Args:
        detections: with the K keypoints of the set.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": image.id, "file_name": image.file_name} for image in dataset.images]
    categories = [{"id": dataset.category, "name": "person"}]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = {
            "images": images,
            "categories": categories,
            "annotations": [_cut(one, part.indices) for one in dataset.annotations],
        }
        truth.createIndex()
        if detections:
            found = truth.loadRes([_cut_result(one, part.indices) for one in detections])
        else:  # loadRes looks at the first result
            found.dataset = {"images": images, "categories": categories, "annotations": []}
            found.createIndex()
        evaluator = COCOeval(truth, found, "keypoints")
        evaluator.params.kpt_oks_sigmas = np.array(part.sigmas)
        evaluator.params.imgIds = sorted(image.id for image in dataset.images)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return Judgement(part, dict(zip(STATISTICS, map(float, evaluator.stats), strict=True)), evaluator)


def image_scores(judgement: Judgement) -> list[ImageScore]:
    """Every image with annotated persons, worst first."""
    scores = []
    for entry in _of_all_areas(judgement.evaluator):
        counted = [index for index, ignored in enumerate(entry["gtIgnore"]) if not ignored]
        if not counted:
            continue
        oks = [_oks_of(judgement.evaluator, entry, index) for index in counted]
        missed = sum(value == 0 for value in oks)
        scores.append(ImageScore(int(entry["image_id"]), len(counted), missed, float(np.mean(oks))))
    return sorted(scores, key=lambda score: (score.oks, score.image_id))


def matches(judgement: Judgement) -> dict[int, int]:
    """Annotation → detection at OKS 0.5, both by pycocotools' ids, of persons that count."""
    return {
        int(entry["gtIds"][index]): int(entry["gtMatches"][0, index])
        for entry in _of_all_areas(judgement.evaluator)
        for index, ignored in enumerate(entry["gtIgnore"])
        if not ignored and entry["gtMatches"][0, index] > 0
    }


def keypoint_errors(
    judgement: Judgement, other: Judgement
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Distances of labelled keypoints over the persons that both models met, in units of √area.

    Returns:
        Of the first model from the annotation, of the other from it, and between both; (points,) each.
    """
    first, second = matches(judgement), matches(other)
    rows: list[NDArray[np.float64]] = []
    for number in sorted(first.keys() & second.keys()):
        truth = judgement.evaluator.cocoGt.anns[number]
        points = np.reshape(truth["keypoints"], (-1, 3))
        a = np.reshape(judgement.evaluator.cocoDt.anns[first[number]]["keypoints"], (-1, 3))
        b = np.reshape(other.evaluator.cocoDt.anns[second[number]]["keypoints"], (-1, 3))
        labelled = points[:, 2] > 0
        pairs = ((a, points), (b, points), (a, b))
        size = np.sqrt(truth["area"])
        rows.append(
            np.stack([np.linalg.norm(p[labelled, :2] - q[labelled, :2], axis=1) / size for p, q in pairs])
        )
    joined = np.concatenate(rows, axis=1) if rows else np.zeros((3, 0))
    return joined[0], joined[1], joined[2]


def _of_all_areas(evaluator: Any) -> list[Any]:
    """Entries of `evalImgs` for the area range `all`, which comes first; one for each image."""
    count = len(evaluator.params.imgIds)
    return [entry for entry in evaluator.evalImgs[:count] if entry is not None]


def _oks_of(evaluator: Any, entry: Any, index: int) -> float:
    """OKS of the detection that met this annotation at 0.5; 0 without one."""
    met = entry["gtMatches"][0, index]
    if met <= 0:
        return 0.0
    key = (entry["image_id"], entry["category_id"])
    # Rows of `ious`: detections by falling score; columns: annotations in the order of the set.
    annotations = [one["id"] for one in evaluator._gts[key]]
    row = list(entry["dtIds"]).index(met)
    return float(evaluator.ious[key][row, annotations.index(entry["gtIds"][index])])


def _cut(annotation: Mapping[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    points = _points(annotation["keypoints"], indices)
    return {
        **annotation,
        "keypoints": points,
        "num_keypoints": sum(value > 0 for value in points[2::3]),
    }


def _cut_result(detection: Detection, indices: Sequence[int]) -> dict[str, Any]:
    return {
        "image_id": detection["image_id"],
        "category_id": detection["category_id"],
        "keypoints": _points(detection["keypoints"], indices),
        "score": detection["score"],
    }


def _points(keypoints: Sequence[float], indices: Sequence[int]) -> list[float]:
    return [keypoints[3 * index + offset] for index in indices for offset in range(3)]
