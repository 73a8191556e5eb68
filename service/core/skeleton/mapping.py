"""Maps persons from the model's skeleton to the requested one, by keypoint name.

A point of the wanted skeleton is the model's point of the same name, or, where it names sources,
their weighted mean with the lowest of their scores. No point is invented: one that the model does not
supply fails the whole call, unless the point is optional and so may be missing.

A point that is missing is x = y = score = 0 and its position NaN. So is a derived point of which a
source is missing in the person at hand: averaging with a missing (0, 0) point gives a meaningless position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.core.poses import Floats, Poses, extents, present
from service.core.skeleton.template import Instance, Laterality, Skeleton
from service.core.skeleton.validation import shown
from service.errors import SkeletonNotSupplied

_ONE_SIDED: dict[Laterality | None, str] = {"left": "left", "right": "right"}
_NAMED = 10  # missing points that are named in a message: errors travel in headers, which are short


@dataclass(frozen=True, eq=False)
class MappingPlan:
    """Mapping of persons from one skeleton to persons, or parts of persons, of another.

    Attributes:
        source: the skeleton that persons come in.
        target: the skeleton that they leave in.
        parts: one for whole persons; for a part that a person has twice one for each.
    """

    source: Skeleton
    target: Skeleton
    parts: tuple[_Part, ...]

    @property
    def is_identity(self) -> bool:
        """Whether source and target are the same."""
        return not self.parts


@dataclass(frozen=True, eq=False)
class _Part:
    """Source of each of the K points.

    Attributes:
        side: of the part; None for a whole person.
        first: (K,) place of the point's first, often only, source.
        missing: (K,) whether the model does not supply the point.
        derived: (D,) places of the points with several sources.
        sources: (D, M) places of their sources; shorter rows repeat their first.
        weights: (D, M) their shares, which add up to 1; 0 for a repeated first.
    """

    side: Laterality | None
    first: NDArray[np.intp]
    missing: NDArray[np.bool_]
    derived: NDArray[np.intp]
    sources: NDArray[np.intp]
    weights: Floats


@lru_cache(maxsize=128)
def plan_mapping(source: Skeleton, target: Skeleton) -> MappingPlan:
    """The plan for a pair of skeletons; cached per pair.

    Args:
        source: the model's own.
        target: the wanted one. Its `instances` come first, those that the model supplies whole;
            if there are none its points are found by their own names.

    Raises:
        SkeletonNotSupplied: it names the points that the model does not supply.
    """
    if source == target:
        return MappingPlan(source, target, ())
    tries = [_try(source, target, instance) for instance in target.instances]
    parts = tuple(part for part, missing in tries if not missing and not part.missing.all())
    if parts:
        whole = next((part for part in parts if part.side is None), None)
        return MappingPlan(source, target, parts if whole is None else (whole,))
    own, missing = _try(source, target, Instance())
    if not missing and not own.missing.all():
        return MappingPlan(source, target, (own,))
    least = min([missing, *(lacking for _, lacking in tries)], key=len)
    raise _not_supplied(source, target, least or target.names)


def apply(plan: MappingPlan, poses: Poses) -> Poses:
    """The persons in the plan's target skeleton.

    Args:
        plan: of the skeleton that the persons are in.
        poses: N persons with the K points of the plan's source.

    Returns:
        Whole persons: as many persons in the same order, boxes and scores as they were. Parts: for
        every person those parts of which at least one point is there, left before right, with side
        and person, a part in the middle without a side; boxes go around the points, scores are the
        person's.

    Raises:
        ValueError: the persons have another number of keypoints than the plan's source.
    """
    if poses.keypoint_count != len(plan.source.keypoints):
        raise ValueError(f"{poses.keypoint_count} keypoints do not fit skeleton {plan.source.name}")
    if plan.is_identity:
        return poses
    if len(plan.parts) == 1 and plan.parts[0].side is None:
        keypoints, positions = _take(plan.parts[0], poses)
        return replace(poses, keypoints=keypoints, positions=positions)
    return _parts(plan, poses)


def _parts(plan: MappingPlan, poses: Poses) -> Poses:
    count, people = len(plan.parts), len(poses)
    taken = [_take(part, poses) for part in plan.parts]
    shape = (people * count, len(plan.target.keypoints), 3)
    keypoints = np.stack([points for points, _ in taken], axis=1).reshape(shape)  # (N · parts, K, 3)
    positions = None
    if poses.positions is not None:
        positions = np.stack([place for _, place in taken if place is not None], axis=1).reshape(shape)
    numbers = np.arange(people) if poses.person_index is None else poses.person_index
    parts = Poses(
        boxes_xyxy=extents(keypoints),
        scores=np.repeat(poses.scores, count),
        keypoints=keypoints,
        positions=positions,
        depth_source=poses.depth_source,
        sides=np.tile(np.array([_ONE_SIDED.get(part.side, "") for part in plan.parts], np.str_), people),
        person_index=np.repeat(numbers, count),
    )
    return parts.select(np.flatnonzero(present(keypoints).any(axis=1)))


def _take(part: _Part, poses: Poses) -> tuple[Floats, Floats | None]:
    """Keypoints (N, K, 3), and positions (N, K, 3) if there are any."""
    there = present(poses.keypoints)  # (N, S)
    keypoints = poses.keypoints[:, part.first]
    positions = None if poses.positions is None else poses.positions[:, part.first]
    missing = np.broadcast_to(part.missing, keypoints.shape[:2])  # (N, K)
    if part.derived.size:
        sources = poses.keypoints[:, part.sources]  # (N, D, M, 3)
        keypoints[:, part.derived, :2] = _mean(sources[..., :2], part.weights)
        keypoints[:, part.derived, 2] = sources[..., 2].min(axis=2)
        if positions is not None and poses.positions is not None:
            positions[:, part.derived] = _mean(poses.positions[:, part.sources], part.weights)
        missing = missing.copy()
        missing[:, part.derived] |= ~there[:, part.sources].all(axis=2)
    keypoints[missing] = 0
    if positions is not None:
        positions[missing] = np.nan
    return keypoints, positions


def _mean(points: Floats, weights: Floats) -> Floats:
    """Weighted means (N, D, C) of points (N, D, M, C), held between their extremes against rounding."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity in, NaN or infinity out
        means: Floats = (points * weights[None, :, :, None]).sum(axis=2)
    clipped: Floats = np.clip(means, points.min(axis=2), points.max(axis=2))
    return clipped


def _try(source: Skeleton, target: Skeleton, instance: Instance) -> tuple[_Part, list[str]]:
    """A part's sources, and the names of the missing points that are not optional."""
    renamed: Mapping[str, str] = dict(instance.names)
    lacking: list[str] = []
    missing = np.zeros(len(target.keypoints), np.bool_)
    rows: list[Sequence[tuple[int, float]]] = []
    for place, point in enumerate(target.keypoints):
        if point.name in renamed:
            wanted: Sequence[tuple[str, float]] = ((renamed[point.name], 1.0),)
        else:
            wanted = point.sources or ((point.name, 1.0),)
        if all(name in source.order for name, _ in wanted):
            rows.append([(source.order[name], weight) for name, weight in wanted])
            continue
        rows.append([(0, 1.0)])
        missing[place] = True
        if not point.optional:
            lacking.append(point.name)
    derived = [place for place, row in enumerate(rows) if len(row) > 1]
    widest = max((len(rows[place]) for place in derived), default=0)
    sources = np.empty((len(derived), widest), np.intp)
    weights = np.zeros((len(derived), widest), np.float64)
    for number, place in enumerate(derived):
        row = rows[place]
        sources[number] = row[0][0]
        sources[number, : len(row)] = [index for index, _ in row]
        weights[number, : len(row)] = [weight for _, weight in row]
    part = _Part(
        side=instance.side,
        first=np.array([row[0][0] for row in rows], np.intp),
        missing=missing,
        derived=np.array(derived, np.intp),
        sources=sources,
        weights=(weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
    )
    return part, lacking


def _not_supplied(source: Skeleton, target: Skeleton, missing: Sequence[str]) -> SkeletonNotSupplied:
    named = ", ".join(map(shown, missing[:_NAMED]))
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return SkeletonNotSupplied(
        f"A model of skeleton {shown(source.name)} cannot supply {shown(target.name)}: "
        f"it does not give {named}{more}.",
        metadata={
            "model_skeleton": source.name,
            "skeleton": target.name,
            "missing": named,
            "missing_count": str(len(missing)),
        },
    )
