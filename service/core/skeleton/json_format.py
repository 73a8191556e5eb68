"""Skeletons as data: what template files and `posegate skeletons create` hold.

The form is that of the contract's `Skeleton` message as JSON. What is not needed may be left out, a
point that is nothing but its name may be that name, and pairs may be lists of two:

    {
      "name": "upper_body",
      "title": "Upper body with a neck",
      "keypoints": [
        "left_shoulder",
        "right_shoulder",
        {"name": "left_wrist", "color": "#00BEFF", "sigma": 0.062, "optional": true},
        {"name": "neck", "sources": ["left_shoulder", {"name": "right_shoulder", "weight": 1}]}
      ],
      "edges": [["left_shoulder", "neck"], {"start": "neck", "end": "right_shoulder", "color": "#FFFFFF"}],
      "flip_pairs": [["left_shoulder", "right_shoulder"]]
    }

Two things are for files only, the message does not have them. `"drawing_only": true` at an edge: an
outline that is drawn but is no limb, so exports leave it out. And `instances`, for models that have
the same points under other names: `[{"names": {"nose": "blazepose_nose"}}]`; with a side for each part
that a person has twice, `[{"side": "left", "names": {"wrist": "left_hand_root"}}, …]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar, cast

from service.core.skeleton.template import Edge, Instance, Keypoint, Rgb, Side, Skeleton
from service.core.skeleton.validation import checked, refuse, shown, skeleton_problems
from service.errors import Violation

_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
_SET_BY_THE_SERVICE = ("etag", "shipped", "create_time", "update_time")
_MAX_LISTED = 20_000  # items of one list that are looked at; the checks refuse so many anyhow

T = TypeVar("T")


def parse_skeleton(data: Mapping[str, object]) -> Skeleton:
    """A checked skeleton from its data, names in NFC.

    Args:
        data: in the form that the module describes; what the service sets (`etag`, for example) is
            passed over.

    Raises:
        InvalidRequest: with every problem; fields are paths as in the data: `edges[3].start`.
    """
    reader = _Reader()
    skeleton = reader.skeleton(data)
    if not reader.problems:
        return checked(skeleton)
    # What could not be read has a stand-in; nothing further is said about that.
    unread = {problem.field for problem in reader.problems}
    further = [item for item in skeleton_problems(skeleton) if not _within(item.field, unread)]
    refuse(skeleton.name, [*reader.problems, *further])
    raise AssertionError("there were problems")


def skeleton_data(skeleton: Skeleton) -> dict[str, object]:
    """A skeleton as the data that `parse_skeleton` reads; fit for JSON."""
    data: dict[str, object] = {
        "name": skeleton.name,
        "title": skeleton.title,
        "keypoints": [_keypoint_data(point) for point in skeleton.keypoints],
        "edges": [_edge_data(edge) for edge in skeleton.edges],
        "flip_pairs": [[left, right] for left, right in skeleton.flip_pairs],
    }
    if skeleton.instances:
        data["instances"] = [_instance_data(one) for one in skeleton.instances]
    return data


def parse_color(text: str) -> Rgb | None:
    """RGB of "#RRGGBB"; None for anything else."""
    if _COLOR.fullmatch(text) is None:
        return None
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def color_text(color: Rgb) -> str:
    """RGB as "#RRGGBB"."""
    red, green, blue = color
    return f"#{red:02X}{green:02X}{blue:02X}"


def _keypoint_data(point: Keypoint) -> dict[str, object]:
    data: dict[str, object] = {"name": point.name}
    if point.sigma is not None:
        data["sigma"] = point.sigma
    if point.color is not None:
        data["color"] = color_text(point.color)
    if point.optional:
        data["optional"] = True
    if point.sources:
        data["sources"] = [{"name": name, "weight": weight} for name, weight in point.sources]
    return data


def _edge_data(edge: Edge) -> dict[str, object]:
    data: dict[str, object] = {"start": edge.start, "end": edge.end}
    if edge.color is not None:
        data["color"] = color_text(edge.color)
    if edge.drawing_only:
        data["drawing_only"] = True
    return data


def _instance_data(instance: Instance) -> dict[str, object]:
    names: dict[str, object] = {"names": dict(instance.names)}
    return names if instance.side is None else {"side": instance.side, **names}


def _within(field: str, unread: set[str]) -> bool:
    """Whether a field, or what it is part of, is among those that could not be read."""
    while field:
        if field in unread:
            return True
        field = field[: max(field.rfind("."), field.rfind("["), 0)]
    return False


class _Reader:
    """Takes data of any type apart; what does not fit is noted, and a stand-in takes its place."""

    def __init__(self) -> None:
        self.problems: list[Violation] = []

    def skeleton(self, data: object) -> Skeleton:
        known = ("name", "title", "keypoints", "edges", "flip_pairs", "instances", *_SET_BY_THE_SERVICE)
        fields = self._object("", data, known)
        return Skeleton(
            name=self._text("name", fields),
            title=self._text("title", fields),
            keypoints=self._list("keypoints", fields, self._keypoint),
            edges=self._list("edges", fields, self._edge),
            flip_pairs=self._list("flip_pairs", fields, self._flip_pair),
            instances=self._list("instances", fields, self._instance),
        )

    def _keypoint(self, path: str, data: object) -> Keypoint:
        if isinstance(data, str):
            return Keypoint(data)
        fields = self._object(path, data, ("name", "color", "sigma", "optional", "sources"))
        return Keypoint(
            name=self._text(f"{path}.name", fields),
            sigma=self._number(f"{path}.sigma", fields, None),
            color=self._color(f"{path}.color", fields),
            optional=self._flag(f"{path}.optional", fields),
            sources=self._list(f"{path}.sources", fields, self._source),
        )

    def _source(self, path: str, data: object) -> tuple[str, float]:
        if isinstance(data, str):
            return data, 1.0
        fields = self._object(path, data, ("name", "weight"))
        weight = self._number(f"{path}.weight", fields, 1.0)
        return self._text(f"{path}.name", fields), 1.0 if weight is None else weight

    def _edge(self, path: str, data: object) -> Edge:
        fields = self._pair(path, data, ("start", "end"), ("color", "drawing_only"))
        return Edge(
            start=self._text(f"{path}.start", fields),
            end=self._text(f"{path}.end", fields),
            color=self._color(f"{path}.color", fields),
            drawing_only=self._flag(f"{path}.drawing_only", fields),
        )

    def _flip_pair(self, path: str, data: object) -> tuple[str, str]:
        fields = self._pair(path, data, ("left", "right"))
        return self._text(f"{path}.left", fields), self._text(f"{path}.right", fields)

    def _instance(self, path: str, data: object) -> Instance:
        fields = self._object(path, data, ("side", "names"))
        names = fields.get("names", {})
        if not isinstance(names, Mapping) or not all(
            isinstance(name, str) for pair in names.items() for name in pair
        ):
            self._note(f"{path}.names", "must be an object of names")
            names = {}
        side = cast("Side", self._text(f"{path}.side", fields)) or None
        return Instance(side=side, names=tuple(names.items()))

    def _note(self, path: str, what: str) -> None:
        self.problems.append(Violation(path, what))

    def _object(self, path: str, data: object, known: tuple[str, ...]) -> Mapping[str, object]:
        if not isinstance(data, Mapping):
            self._note(path, f"must be an object, not {_kind(data)}")
            return {}
        for name in data:
            if name not in known:
                place = f"{path}.{name}" if path else str(name)
                self._note(place, f"is unknown; known are {', '.join(known)}")
        return data

    def _pair(
        self, path: str, data: object, ends: tuple[str, str], further: tuple[str, ...] = ()
    ) -> Mapping[str, object]:
        """[a, b] or an object with the two ends."""
        if not isinstance(data, list | tuple):
            return self._object(path, data, (*ends, *further))
        if len(data) == 2:
            return dict(zip(ends, data, strict=True))
        self._note(path, f"must be two names, not {len(data)}")
        return {}

    def _list(
        self, path: str, fields: Mapping[str, object], read: Callable[[str, object], T]
    ) -> tuple[T, ...]:
        data = fields.get(_last(path), [])
        if not isinstance(data, list | tuple):
            self._note(path, f"must be a list, not {_kind(data)}")
            return ()
        return tuple(read(f"{path}[{index}]", item) for index, item in enumerate(data[:_MAX_LISTED]))

    def _text(self, path: str, fields: Mapping[str, object]) -> str:
        data = fields.get(_last(path), "")
        if isinstance(data, str):
            return data
        self._note(path, f"must be text, not {_kind(data)}")
        return ""

    def _number(self, path: str, fields: Mapping[str, object], default: float | None) -> float | None:
        data = fields.get(_last(path))
        if data is None:
            return default
        if isinstance(data, int | float) and not isinstance(data, bool):
            return _float(data)
        self._note(path, f"must be a number, not {_kind(data)}")
        return default

    def _flag(self, path: str, fields: Mapping[str, object]) -> bool:
        data = fields.get(_last(path), False)
        if isinstance(data, bool):
            return data
        self._note(path, f"must be true or false, not {_kind(data)}")
        return False

    def _color(self, path: str, fields: Mapping[str, object]) -> Rgb | None:
        text = self._text(path, fields)
        color = parse_color(text)
        if text and color is None:
            self._note(path, f"must be #RRGGBB, not {shown(text)}")
        return color


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _kind(data: object) -> Literal["an object", "a list", "text", "true or false", "a number", "nothing"]:
    match data:
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case str():
            return "text"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case _:
            return "nothing"
