"""Whether a plan gives what its graph gives, by part of the body.

A plan in fp16 may look right on bodies and bend every finger (open-mmlab/mmpose#2789, #2913). So a new plan
and its reference run on the same images, and distances between their keypoints are measured against the
size of the part: body, feet, face and hands on their own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.core.geometry import Affine, Rgb8, letterbox
from service.core.model import Model
from service.core.poses import Floats, Poses
from service.core.skeleton.template import Skeleton
from service.core.topdown import crop_people
from service.core.yolo import decode_candidates
from service.models.errors import EngineError
from service.models.manifest import PartAccuracy
from service.models.runners import Images, Runner

MIN_PART_PX = 32.0  # a smaller part is measured as if it were so large: pixels and bins have a size
MIN_PERSON_SCORE = 0.25  # YOLO's own default
SURE_PERSON_SCORE = 0.4  # a person found with such a score must be found by the other too
MAX_PERSONS = 100
IOU_OF_DOUBLES = 0.7
IOU_OF_THE_SAME = 0.5
STATURE_M = 1.70  # distances in depth are measured against it

_VISIBLE = {"yolo_pose": 0.5, "top_down": 0.3}  # RTMW's scores are no probabilities; 0.3 is its own threshold
_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Tolerance:
    """How far a plan may be from its reference.

    TF32 and fp16 stay under a tenth of it where they are safe; a plan that bends fingers is far beyond.

    Attributes:
        median, p95: distance of keypoints, as a share of the size of their part.
        score: 95th percentile of the relative difference of keypoint scores.
    """

    median: float = 0.01
    p95: float = 0.05
    score: float = 0.10


@dataclass(frozen=True, eq=False)
class Sample:
    """An image, and where persons are in it: (N, 4) x1, y1, x2, y2 in px."""

    name: str
    image: Rgb8
    boxes_xyxy: Floats


@dataclass(frozen=True)
class Comparison:
    """Measured differences by part, and a sentence for each that is too large."""

    parts: Mapping[str, PartAccuracy]
    problems: tuple[str, ...]


def compare(
    reference: Runner,
    plan: Runner,
    model: Model,
    skeleton: Skeleton,
    samples: Sequence[Sample],
    tolerance: Tolerance | None = None,
) -> Comparison:
    """Run both on the samples, in every shape that the model allows.

    Raises:
        EngineError: there are no samples, or a runner fails.
    """
    tolerance = tolerance or Tolerance()
    if not samples:
        raise EngineError("there are no images to compare the plan on; name a folder with --samples")
    groups = parts_of(skeleton)
    found = _Differences()
    if model.family == "yolo_pose":
        for shape in model.typical_hw:
            _compare_yolo(reference, plan, model, shape, samples, groups, found)
    else:
        for shape in model.typical_hw:
            _compare_top_down(reference, plan, model, shape, samples, groups, found)
    parts = {
        part: PartAccuracy(len(values), *(float(v) for v in np.percentile(values, [50, 95], method="higher")))
        for part, values in found.distances.items()
    }
    return Comparison(parts, tuple(_verdict(parts, found, groups, tolerance)))


def parts_of(skeleton: Skeleton) -> dict[str, tuple[str, NDArray[np.intp]]]:
    """Keypoints that are measured together: group → (part of the body, indices). Each hand is a group."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(skeleton.names):
        groups[_group(name)].append(index)
    return {
        group: (group.removeprefix("left ").removeprefix("right "), np.array(indices, np.intp))
        for group, indices in groups.items()
    }


def shipped_samples() -> list[Sample]:
    """The images that come with the package: three persons, a clear face, hands and feet."""
    return load_samples(Path(str(files("service.models") / "samples")))


def load_samples(folder: Path) -> list[Sample]:
    """Every image of a folder. `boxes.json` says where persons are: {"file.jpg": [[x1, y1, x2, y2], …]};
    an image that it does not name shows one person from edge to edge.

    Raises:
        EngineError: the folder has no images, or one that cannot be read.
    """
    try:
        boxes = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        boxes = {}
    except (OSError, ValueError) as exc:
        raise EngineError(f"{folder / 'boxes.json'} cannot be read: {exc}") from exc
    samples = []
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() not in _PICTURES:
            continue
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise EngineError(f"{path} is no image that can be read")
        height, width = image.shape[:2]
        try:
            people = np.array(boxes.get(path.name, [[0, 0, width, height]]), np.float32).reshape(-1, 4)
        except (ValueError, TypeError, AttributeError) as exc:
            raise EngineError(f"{folder / 'boxes.json'} has no usable boxes for {path.name}") from exc
        rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        samples.append(Sample(path.name, rgb, people))
    if not samples:
        raise EngineError(f"{folder} has no images (jpg or png)")
    return samples


@dataclass
class _Differences:
    """The differences measured so far."""

    distances: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    scores: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)


Groups = Mapping[str, tuple[str, NDArray[np.intp]]]


def _compare_yolo(
    reference: Runner,
    plan: Runner,
    model: Model,
    shape_hw: tuple[int, int],
    samples: Sequence[Sample],
    groups: Groups,
    found: _Differences,
) -> None:
    images = np.stack([letterbox(sample.image, shape_hw)[0] for sample in samples])
    answers = _both(reference, plan, images, model.max_batch_size)
    for sample, (wanted, given) in zip(samples, answers, strict=True):
        where = f"{sample.name} at {shape_hw[0]}x{shape_hw[1]}"
        people, others = (_people(answer["candidates"]) for answer in (wanted, given))
        overlap = _overlap(people.boxes_xyxy, others.boxes_xyxy)
        for index in range(len(people)):
            same = int(overlap[index].argmax()) if len(others) else -1
            if same >= 0 and overlap[index, same] > IOU_OF_THE_SAME:
                _measure(people.keypoints[index], others.keypoints[same], groups, "yolo_pose", found)
            elif people.scores[index] > SURE_PERSON_SCORE:
                found.missed.append(where)
        for index in range(len(others)):
            known = len(people) > 0 and overlap[:, index].max() > IOU_OF_THE_SAME
            if not known and others.scores[index] > SURE_PERSON_SCORE:
                found.invented.append(where)


def _compare_top_down(
    reference: Runner,
    plan: Runner,
    model: Model,
    shape_hw: tuple[int, int],
    samples: Sequence[Sample],
    groups: Groups,
    found: _Differences,
) -> None:
    crops = np.concatenate([crop_people(sample.image, sample.boxes_xyxy, shape_hw)[0] for sample in samples])
    for wanted, given in _both(reference, plan, crops, model.max_batch_size):
        keypoints = [
            np.concatenate([answer["keypoints"], answer["scores"][:, None]], 1) for answer in (wanted, given)
        ]
        seen = _measure(keypoints[0], keypoints[1], groups, "top_down", found)
        apart = given["positions"][seen] - wanted["positions"][seen]
        there = np.isfinite(wanted["positions"][seen])  # a model that knows z only leaves x and y open
        apart = np.where(there, np.where(np.isfinite(apart), apart, np.inf), 0)
        found.distances["depth"].extend(np.linalg.norm(apart[there.any(1)], axis=1) / STATURE_M)


def _both(
    reference: Runner, plan: Runner, images: Images, max_batch: int
) -> Iterator[tuple[dict[str, Floats], dict[str, Floats]]]:
    """Run both on the images in batches; the outputs of each image."""
    for start in range(0, len(images), max_batch):
        batch = images[start : start + max_batch]
        wanted, given = reference.run(batch), plan.run(batch)
        for name, values in wanted.items():
            shape = given[name].shape if name in given else None
            if shape != values.shape:
                raise EngineError(f"the plan gives '{name}' as {shape}, its graph as {values.shape}")
        for index in range(len(batch)):
            yield tuple({name: values[name][index] for name in wanted} for values in (wanted, given))  # type: ignore[misc]


def _people(candidates: Floats) -> Poses:
    """The persons among the candidates, in px of the input."""
    return decode_candidates(
        candidates,
        Affine(),
        min_score=MIN_PERSON_SCORE,
        iou_threshold=IOU_OF_DOUBLES,
        max_persons=MAX_PERSONS,
    )


def _measure(
    wanted: Floats, given: Floats, groups: Groups, family: str, found: _Differences
) -> NDArray[np.bool_]:
    """Measure one person's keypoints (K, 3); which of them the reference sees."""
    seen: NDArray[np.bool_] = (wanted[:, 2] >= _VISIBLE[family]) & np.isfinite(wanted).all(1)
    for part, indices in groups.values():
        points = indices[seen[indices]]
        if not len(points):
            continue
        extent = np.ptp(wanted[points, :2], axis=0).max()
        distances = np.linalg.norm(given[points, :2] - wanted[points, :2], axis=1) / max(extent, MIN_PART_PX)
        found.distances[part].extend(np.where(np.isfinite(distances), distances, np.inf))
        scores = np.abs(given[points, 2] / wanted[points, 2] - 1)
        found.scores.extend(np.where(np.isfinite(scores), scores, np.inf))
    return seen


def _overlap(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
    """Intersection over union of every box of `a` with every one of `b`: (A, B)."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(2)
    areas = [np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(1) for boxes in (a_xyxy, b_xyxy)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)


def _verdict(
    parts: Mapping[str, PartAccuracy], found: _Differences, groups: Groups, tolerance: Tolerance
) -> Iterator[str]:
    if found.missed:
        yield f"it misses people: {', '.join(sorted(set(found.missed)))}"
    if found.invented:
        yield f"it finds people who are not there: {', '.join(sorted(set(found.invented)))}"
    for part in dict.fromkeys(part for part, _ in groups.values()):
        if part not in parts:
            yield f"the images show no {part}; add some that do, with --samples"
    for part, measured in parts.items():
        if not (measured.median <= tolerance.median and measured.p95 <= tolerance.p95):
            yield (
                f"{part}: keypoints are off by {measured.median:.2%} of its size (median) and "
                f"{measured.p95:.2%} (95th percentile); {tolerance.median:.0%} and {tolerance.p95:.0%} "
                "are allowed"
            )
    score = float(np.percentile(found.scores, 95, method="higher")) if found.scores else 0.0
    if score > tolerance.score:
        yield f"keypoint scores are off by {score:.1%} (95th percentile); {tolerance.score:.0%} is allowed"


def _group(name: str) -> str:
    """The group of a keypoint, by its name in the shipped skeletons."""
    side = name.partition("_")[0]
    if any(word in name for word in ("hand_", "thumb", "finger")):
        return f"{side} hands" if side in ("left", "right") else "hands"
    if any(word in name for word in ("toe", "heel", "foot")):
        return f"{side} feet" if side in ("left", "right") else "feet"
    return "face" if name.startswith("face_") else "body"
