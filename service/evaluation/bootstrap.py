"""Uncertainty of a difference in AP: both models on the same resampled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.evaluation.judge import Judgement

SAMPLES = 1000
_RECALLS = np.linspace(0, 1, 101)  # COCO's `recThrs`


@dataclass(frozen=True)
class Difference:
    """AP of the first model less that of the second, and its interval of 95 %.

    Attributes:
        value: on the images as they are.
        low, high: 2.5 % and 97.5 % of the resampled differences.
    """

    value: float
    low: float
    high: float


def ap_difference(
    first: Judgement, second: Judgement, *, samples: int = SAMPLES, seed: int = 0
) -> Difference:
    """Percentile bootstrap over images (Efron & Tibshirani 1993, chapter 13), paired: each resample takes the
    same images for both models.

    Args:
        first, second: of the same part and set.
    """
    a, b = _Ranked(first.evaluator), _Ranked(second.evaluator)
    rng = np.random.default_rng(seed)
    count = len(first.evaluator.params.imgIds)
    differences = []
    for _ in range(samples):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        if (weights * a.persons).sum():  # else no annotated person was drawn
            differences.append(a.ap(weights) - b.ap(weights))
    low, high = np.percentile(differences, [2.5, 97.5]) if differences else (np.nan, np.nan)
    value = first.statistics["AP"] - second.statistics["AP"]
    return Difference(value, float(low), float(high))


class _Ranked:
    """Detections of all images by falling score, so that AP can be had for any weights of the images."""

    def __init__(self, evaluator: Any) -> None:
        images = evaluator.evalImgs[: len(evaluator.params.imgIds)]  # area range `all`
        thresholds = len(evaluator.params.iouThrs)
        scores, places = [np.zeros(0)], [np.zeros(0, np.intp)]
        matched, ignored = [np.zeros((thresholds, 0), bool)], [np.zeros((thresholds, 0), bool)]
        self.persons: NDArray[np.int64] = np.zeros(len(images), np.int64)
        for place, entry in enumerate(images):
            if entry is None:
                continue
            self.persons[place] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
            scores.append(np.asarray(entry["dtScores"], float))
            places.append(np.full(len(entry["dtScores"]), place))
            matched.append(np.asarray(entry["dtMatches"]) > 0)
            ignored.append(np.asarray(entry["dtIgnore"]) > 0)
        order = np.argsort(-np.concatenate(scores), kind="mergesort")  # as pycocotools
        self._places = np.concatenate(places)[order]
        counts = ~np.concatenate(ignored, axis=1)[:, order]
        hit = np.concatenate(matched, axis=1)[:, order]
        self._true, self._false = hit & counts, ~hit & counts

    def ap(self, weights: NDArray[np.intp]) -> float:
        """AP over OKS 0.5 to 0.95 with each image counted as often as its weight says."""
        persons = (weights * self.persons).sum()
        of_detections = weights[self._places]
        values = []
        for hits, misses in zip(self._true, self._false, strict=True):
            true, false = np.cumsum(hits * of_detections), np.cumsum(misses * of_detections)
            recall = true / persons
            precision = true / np.maximum(true + false, np.spacing(1))
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            at = np.searchsorted(recall, _RECALLS, side="left")
            values.append(np.where(at < len(precision), np.append(precision, 0)[at], 0).mean())
        return float(np.mean(values))
