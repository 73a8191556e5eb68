"""Skeletons as JSON: the content of template files, of `posegate skeletons create` and of the database.

The form is that of the contract's `Skeleton` message as JSON. Fields may be left out, a keypoint that has
only a name may be that name, and pairs may be lists of two:

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

Two fields are for files only, the message does not have them. `"drawing_only": true` at an edge: an outline
that is drawn but is no limb, so exports leave it out. And `instances`, for models that have the same points
under other names: `[{"names": {"nose": "blazepose_nose"}}]`; with a side for each part that a person has
twice, `[{"side": "left", "names": {"wrist": "left_hand_root"}}, …]`.

pydantic checks types and structure here; `service.core.skeleton.validation` checks names, references and
ranges.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from service.core.skeleton.colors import color_text, parse_color
from service.core.skeleton.template import Edge, Instance, Keypoint, Laterality, Skeleton
from service.core.skeleton.validation import checked, refuse, shown, skeleton_problems
from service.errors import Violation

_MAX_LISTED = 20_000  # items of one list that are read; validation refuses so many anyway
_PAIRS = (("start", "end"), ("left", "right"))
_EXPECTED = {
    "model_type": "an object",
    "list_type": "a list",
    "string_type": "text",
    "float_type": "a number",
    "bool_type": "true or false",
}
Location: TypeAlias = tuple[int | str, ...]


def parse_skeleton(data: object) -> Skeleton:
    """A checked skeleton from parsed JSON, names in NFC.

    Args:
        data: in the form that the module describes; fields that the service sets (`etag`, for example) are
            ignored.

    Raises:
        InvalidRequest: with every problem; fields are paths as in the data: `edges[3].start`.
    """
    try:
        return checked(_SkeletonJson.model_validate(data).skeleton())
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    violations = list(dict.fromkeys(_violation(problem) for problem in problems))
    # Defaults take the place of what could not be read, and nothing further is said about it.
    rest = _SkeletonJson.model_validate(_without(data, [problem["loc"] for problem in problems])).skeleton()
    unread = {violation.field for violation in violations}
    further = [item for item in skeleton_problems(rest) if not _within(item.field, unread)]
    refuse(rest.name, [*violations, *further])
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


def load(text: str) -> Skeleton:
    """The skeleton in a JSON text.

    Raises:
        InvalidRequest: it does not hold one.
        ValueError: it is not JSON.
    """
    return parse_skeleton(json.loads(text))


def dump(skeleton: Skeleton) -> str:
    """A skeleton as a compact JSON text that `load` reads."""
    return json.dumps(skeleton_data(skeleton), ensure_ascii=False, separators=(",", ":"))


def _pair(first: str, second: str) -> Any:
    """Reads [a, b] as an object with the two fields named."""

    def as_object(data: object) -> object:
        if not isinstance(data, list):
            return data
        if len(data) != 2:
            raise PydanticCustomError("pair", "must be two names, not {count}", {"count": len(data)})
        return dict(zip((first, second), data, strict=True))

    return model_validator(mode="before")(as_object)


def _named(data: object) -> object:
    """Reads text as an object that has only this name."""
    return {"name": data} if isinstance(data, str) else data


def _first(data: object) -> object:
    return data[:_MAX_LISTED] if isinstance(data, list) else data


def _finite(data: object) -> object:
    """An integer that no float holds, as infinity, which the ranges refuse."""
    if isinstance(data, int) and not isinstance(data, bool):
        try:
            return float(data)
        except OverflowError:
            return math.inf
    return data


_Number: TypeAlias = Annotated[float, BeforeValidator(_finite)]


class _Json(BaseModel):
    """Types as JSON has them, and no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid")


class _SourceJson(_Json):
    name: str = ""
    weight: _Number | None = None

    _from_text = model_validator(mode="before")(_named)


class _KeypointJson(_Json):
    name: str = ""
    color: str = ""
    sigma: _Number | None = None
    optional: bool = False
    sources: Annotated[list[_SourceJson], BeforeValidator(_first)] = []

    _from_text = model_validator(mode="before")(_named)

    @field_validator("color")
    @classmethod
    def _color(cls, text: str) -> str:
        return _checked_color(text)

    def keypoint(self) -> Keypoint:
        return Keypoint(
            name=self.name,
            sigma=self.sigma,
            color=parse_color(self.color),
            optional=self.optional,
            sources=tuple((one.name, 1.0 if one.weight is None else one.weight) for one in self.sources),
        )


class _EdgeJson(_Json):
    start: str = ""
    end: str = ""
    color: str = ""
    drawing_only: bool = False

    _from_list = _pair(*_PAIRS[0])

    @field_validator("color")
    @classmethod
    def _color(cls, text: str) -> str:
        return _checked_color(text)

    def edge(self) -> Edge:
        return Edge(self.start, self.end, parse_color(self.color), self.drawing_only)


class _FlipPairJson(_Json):
    left: str = ""
    right: str = ""

    _from_list = _pair(*_PAIRS[1])


class _InstanceJson(_Json):
    side: str = ""
    names: dict[str, str] = {}

    def instance(self) -> Instance:
        return Instance(side=cast("Laterality", self.side) or None, names=tuple(self.names.items()))


class _SkeletonJson(_Json):
    name: str = ""
    title: str = ""
    keypoints: Annotated[list[_KeypointJson], BeforeValidator(_first)] = []
    edges: Annotated[list[_EdgeJson], BeforeValidator(_first)] = []
    flip_pairs: Annotated[list[_FlipPairJson], BeforeValidator(_first)] = []
    instances: Annotated[list[_InstanceJson], BeforeValidator(_first)] = []
    etag: Any = None  # this and the following: set by the service, ignored in a file
    shipped: Any = None
    create_time: Any = None
    update_time: Any = None

    def skeleton(self) -> Skeleton:
        return Skeleton(
            name=self.name,
            title=self.title,
            keypoints=tuple(one.keypoint() for one in self.keypoints),
            edges=tuple(one.edge() for one in self.edges),
            flip_pairs=tuple((one.left, one.right) for one in self.flip_pairs),
            instances=tuple(one.instance() for one in self.instances),
        )


_MODELS: Mapping[tuple[str, ...], type[_Json]] = {
    (): _SkeletonJson,
    ("keypoints",): _KeypointJson,
    ("keypoints", "sources"): _SourceJson,
    ("edges",): _EdgeJson,
    ("flip_pairs",): _FlipPairJson,
    ("instances",): _InstanceJson,
}


def _checked_color(text: str) -> str:
    if text and parse_color(text) is None:
        raise PydanticCustomError("color", "must be #RRGGBB, not {text}", {"text": shown(text)})
    return text


def _violation(problem: ErrorDetails) -> Violation:
    """A problem that pydantic found, in the words and with the path of the contract."""
    location = _field(problem["loc"])
    path = _path(location)
    if "names" in location:
        return Violation(path, "must be an object of names")
    kind = problem["type"]
    if kind == "extra_forbidden":
        parents = tuple(part for part in location[:-1] if isinstance(part, str))
        return Violation(path, f"is unknown; known are {', '.join(_MODELS[parents].model_fields)}")
    if kind in _EXPECTED:
        return Violation(path, f"must be {_EXPECTED[kind]}, not {_kind(problem['input'])}")
    return Violation(path, problem["msg"])


def _field(location: Location) -> Location:
    """The place of a problem; that of one entry of `names` is `names` as a whole."""
    return location[: location.index("names") + 1] if "names" in location else location


def _path(location: Location) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _without(data: object, locations: Sequence[Location]) -> object:
    """A copy of the data without what is at those places; items of lists become empty objects."""
    tree: dict[Any, Any] = {}
    for location in locations:
        branch = tree
        for part in _field(location):
            branch = branch.setdefault(part, {})
        branch[None] = True
    return _pruned(data, tree)


def _pruned(data: object, tree: Mapping[Any, Any]) -> object:
    if None in tree:
        return {}
    if isinstance(data, list):
        ends = next((pair for pair in _PAIRS if tree.keys() & set(pair)), None)
        if ends is not None:  # [a, b] in place of an object
            return _pruned(dict(zip(ends, data, strict=True)), tree)
        return [_pruned(item, tree[place]) if place in tree else item for place, item in enumerate(data)]
    if isinstance(data, dict):
        return {
            key: _pruned(value, tree[key]) if key in tree else value
            for key, value in data.items()
            if None not in tree.get(key, {})
        }
    return data


def _within(field: str, unread: set[str]) -> bool:
    """Whether a field, or what it is part of, is among those that could not be read."""
    while field:
        if field in unread:
            return True
        field = field[: max(field.rfind("."), field.rfind("["), 0)]
    return False


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


def _kind(data: object) -> str:
    """A JSON type in words."""
    match data:
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            return "text"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case _:
            return "nothing"
