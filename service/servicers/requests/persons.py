"""Persons of requests as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posegate.v1 import types_pb2
from service.core.poses import DepthSource, Floats, Poses
from service.core.skeleton.template import Skeleton
from service.core.skeleton.validation import shown
from service.servicers.requests.validation import MAX_LISTED, Violations
from service.servicers.sides import SIDE_NAMES

_AXES = ("x", "y", "score")
_CORNERS = ("x1", "y1", "x2", "y2")
_DEPTH: dict[int, DepthSource] = {
    types_pb2.DEPTH_SOURCE_MEASURED: "measured",
    types_pb2.DEPTH_SOURCE_LIFTED: "lifted",
}
_UNKNOWN = np.array([np.nan] * 4, np.float32)


@dataclass(frozen=True, eq=False)
class PersonArrays:
    """The persons of one image, as arrays.

    Attributes:
        poses: in the order of the request; a missing box is NaN, and so are missing positions. Positions
            are None where no person has any.
        track_ids: of each, None where it was not set.
    """

    poses: Poses
    track_ids: tuple[int | None, ...]

    @property
    def numbers(self) -> list[int]:
        """Number that labels each person in an image: the track id, or the place in the list."""
        return [place if track is None else track for place, track in enumerate(self.track_ids)]


def read_pose_arrays(
    violations: Violations, persons: Sequence[types_pb2.Person], skeleton: Skeleton, path: str
) -> PersonArrays:
    """Read the persons as arrays; where there are violations the arrays have no meaning.

    Args:
        violations: collects the violations of the request.
        persons: messages of the request.
        skeleton: of the persons; gives the number of keypoints.
        path: field of the request that holds them, such as `persons`.
    """
    count = len(skeleton.keypoints)
    sound = True
    for place, person in enumerate(persons):
        if len(person.keypoints) != count:
            given = len(person.keypoints)
            what = f"must be {count}, as skeleton {shown(skeleton.name)} has, not {given}"
            violations.add(f"{path}[{place}].keypoints", what)
            sound = False
        if person.positions and len(person.positions) != count:
            what = f"must be {count} or none, not {len(person.positions)}"
            violations.add(f"{path}[{place}].positions", what)
            sound = False
        if person.side not in SIDE_NAMES:
            violations.add(f"{path}[{place}].side", f"must be LEFT, RIGHT or unset, not {person.side}")
            sound = False
    if not sound:
        return PersonArrays(Poses.empty(count), ())
    poses = Poses(
        boxes_xyxy=_boxes(violations, persons, path),
        scores=_scores(violations, persons, path),
        keypoints=_keypoints(violations, persons, count, path),
        positions=_positions(persons, count),
        depth_source=_depth_source(persons),
        sides=np.array([SIDE_NAMES[person.side] for person in persons], "<U5"),
        person_index=np.array(
            [person.person_index if person.HasField("person_index") else -1 for person in persons], np.intp
        ),
    )
    tracks = tuple(person.track_id if person.HasField("track_id") else None for person in persons)
    return PersonArrays(poses, tracks)


def _keypoints(violations: Violations, persons: Sequence[types_pb2.Person], count: int, path: str) -> Floats:
    values = (
        value for person in persons for point in person.keypoints for value in (point.x, point.y, point.score)
    )
    keypoints = np.fromiter(values, np.float32, len(persons) * count * 3).reshape(len(persons), count, 3)
    wrong = ~np.isfinite(keypoints)
    _add_each(
        violations, wrong, lambda at: f"{path}[{at[0]}].keypoints[{at[1]}].{_AXES[at[2]]}", "must be finite"
    )
    negative = keypoints[..., 2] < 0
    _add_each(
        violations, negative, lambda at: f"{path}[{at[0]}].keypoints[{at[1]}].score", "must be 0 or more"
    )
    return keypoints


def _positions(persons: Sequence[types_pb2.Person], count: int) -> Floats | None:
    if not any(person.positions for person in persons):
        return None
    positions = np.full((len(persons), count, 3), np.nan, np.float32)
    for place, person in enumerate(persons):
        if person.positions:
            values = (value for point in person.positions for value in (point.x, point.y, point.z))
            positions[place] = np.fromiter(values, np.float32, count * 3).reshape(count, 3)
    return positions


def _depth_source(persons: Sequence[types_pb2.Person]) -> DepthSource:
    """Depth source of the first person with positions: the persons of one image are of one model."""
    return next((_DEPTH.get(person.depth_source, "none") for person in persons if person.positions), "none")


def _scores(violations: Violations, persons: Sequence[types_pb2.Person], path: str) -> Floats:
    scores = np.fromiter((person.score for person in persons), np.float32, len(persons))
    wrong = ~(np.isfinite(scores) & (scores >= 0))
    _add_each(violations, wrong, lambda at: f"{path}[{at[0]}].score", "must be 0 or more")
    return scores


def _boxes(violations: Violations, persons: Sequence[types_pb2.Person], path: str) -> Floats:
    boxes = np.empty((len(persons), 4), np.float32)
    for place, person in enumerate(persons):
        if not person.HasField("box"):
            boxes[place] = _UNKNOWN
            continue
        box = person.box
        boxes[place] = corners = box.x1, box.y1, box.x2, box.y2
        if not np.isfinite(corners).all():
            names = [name for name, value in zip(_CORNERS, corners, strict=True) if not np.isfinite(value)]
            for name in names:
                violations.add(f"{path}[{place}].box.{name}", "must be finite")
        elif box.x1 >= box.x2 or box.y1 >= box.y2:
            violations.add(f"{path}[{place}].box", "must have x1 < x2 and y1 < y2, or be unset")
    return boxes


def _add_each(
    violations: Violations, wrong: NDArray[np.bool_], field: Callable[[NDArray[np.intp]], str], what: str
) -> None:
    """Add a violation for every element that is `wrong`."""
    places = np.argwhere(wrong)
    for place in places[:MAX_LISTED]:
        violations.add(field(place), what)
    violations.unlisted(max(0, len(places) - MAX_LISTED))
