"""Validation of skeletons: every problem is reported at once, with its field."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace

from service.core.skeleton.template import Edge, Instance, Keypoint, Rgb, Skeleton
from service.errors import InvalidRequest, Violation

# The contract's limits, see skeleton_service.proto.
MAX_NAME = 128
MAX_TITLE = 256
MAX_KEYPOINTS = 1000
MAX_EDGES = 10_000
MAX_PAIRS = MAX_KEYPOINTS // 2
MAX_SOURCES = 16
MAX_WEIGHT = 1000.0
MAX_INSTANCES = 16

_SHOWN = 40  # characters of a name in a message
# Control characters, halves of surrogate pairs, and the two separators that end a line.
_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def skeleton_problems(skeleton: Skeleton) -> list[Violation]:
    """All problems of a skeleton; fields are paths as in the contract's message.

    A list that is longer than allowed is reported, and its items are not checked.
    """
    violations = _name_problems("name", skeleton.name) + _title_problems(skeleton.title)
    sizes = _size_problems(skeleton)
    if sizes:
        return violations + sizes
    point_names = {nfc(point.name) for point in skeleton.keypoints}
    derived = {nfc(point.name) for point in skeleton.keypoints if point.sources}
    for index, point in enumerate(skeleton.keypoints):
        violations += _keypoint_problems(f"keypoints[{index}]", point, derived)
    violations += _repeated("keypoints[{}].name", (point.name for point in skeleton.keypoints))
    for index, edge in enumerate(skeleton.edges):
        violations += _edge_problems(f"edges[{index}]", edge, point_names)
    violations += _flip_problems(skeleton.flip_pairs, point_names)
    for index, instance in enumerate(skeleton.instances):
        violations += _instance_problems(f"instances[{index}]", instance, point_names)
    return violations


def checked(skeleton: Skeleton) -> Skeleton:
    """The same skeleton, names in NFC and the title filled in, if it is valid.

    Raises:
        InvalidRequest: with every problem.
    """
    refuse(skeleton.name, skeleton_problems(skeleton))
    return replace(
        skeleton,
        name=nfc(skeleton.name),
        title=skeleton.title or nfc(skeleton.name),
        keypoints=tuple(
            replace(
                point,
                name=nfc(point.name),
                sources=tuple((nfc(name), weight) for name, weight in point.sources),
            )
            for point in skeleton.keypoints
        ),
        edges=tuple(replace(edge, start=nfc(edge.start), end=nfc(edge.end)) for edge in skeleton.edges),
        flip_pairs=tuple((nfc(left), nfc(right)) for left, right in skeleton.flip_pairs),
        instances=tuple(
            replace(one, names=tuple((nfc(ours), nfc(theirs)) for ours, theirs in one.names))
            for one in skeleton.instances
        ),
    )


def refuse(name: str, problems: Sequence[Violation]) -> None:
    """InvalidRequest, reason SKELETON_INVALID, with all the problems, if there are any."""
    if problems:
        listed = "; ".join(f"{problem.field} {problem.description}" for problem in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InvalidRequest(
            f"Skeleton {shown(name)} is invalid: {listed}{more}.",
            violations=problems,
            reason="SKELETON_INVALID",
        )


def nfc(name: str) -> str:
    """The form in which names are compared and kept: Unicode NFC."""
    return unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
    """A name as a message shows it: quoted, cut, with characters that cannot be printed as \\uXXXX."""
    letters = (letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in name[:_SHOWN])
    return f"'{''.join(letters)}{'…' if len(name) > _SHOWN else ''}'"


def _name_problems(field: str, name: str) -> list[Violation]:
    length = len(nfc(name))
    if not 1 <= length <= MAX_NAME:
        return [Violation(field, f"must have 1 to {MAX_NAME} characters, not {length}")]
    violations = []
    if has_control_characters(name):
        violations.append(Violation(field, f"must have no control characters: {shown(name)}"))
    if name != name.strip():
        violations.append(Violation(field, f"must have no blanks at either end: {shown(name)}"))
    return violations


def _title_problems(title: str) -> list[Violation]:
    if len(title) > MAX_TITLE:
        return [Violation("title", f"must have at most {MAX_TITLE} characters, not {len(title)}")]
    if has_control_characters(title):
        return [Violation("title", "must have no control characters")]
    return []


def has_control_characters(text: str) -> bool:
    """Whether a text holds control characters, line separators or surrogates."""
    return not text.isprintable() and any(unicodedata.category(letter) in _FORBIDDEN for letter in text)


def _size_problems(skeleton: Skeleton) -> list[Violation]:
    violations = []
    points = len(skeleton.keypoints)
    if not 1 <= points <= MAX_KEYPOINTS:
        violations.append(Violation("keypoints", f"must be 1 to {MAX_KEYPOINTS}, not {points}"))
    for field, count, limit in (
        ("edges", len(skeleton.edges), MAX_EDGES),
        ("flip_pairs", len(skeleton.flip_pairs), MAX_PAIRS),
        ("instances", len(skeleton.instances), MAX_INSTANCES),
    ):
        if count > limit:
            violations.append(Violation(field, f"must be at most {limit}, not {count}"))
    return violations


def _keypoint_problems(field: str, point: Keypoint, derived: set[str]) -> list[Violation]:
    violations = _name_problems(f"{field}.name", point.name) + _color_problems(f"{field}.color", point.color)
    if point.sigma is not None and not 0 < point.sigma <= 1:  # so that NaN is refused too
        violations.append(
            Violation(f"{field}.sigma", f"must be more than 0 and at most 1, not {point.sigma:g}")
        )
    if len(point.sources) > MAX_SOURCES:
        too_many = f"must be at most {MAX_SOURCES}, not {len(point.sources)}"
        return [*violations, Violation(f"{field}.sources", too_many)]
    for index, (name, weight) in enumerate(point.sources):
        place = f"{field}.sources[{index}]"
        violations += _name_problems(f"{place}.name", name)
        if nfc(name) in derived:
            what = f"must be a point of the model; {shown(name)} is itself derived here: name its sources"
            violations.append(Violation(f"{place}.name", what))
        if not 0 < weight <= MAX_WEIGHT:
            what = f"must be more than 0 and at most {MAX_WEIGHT:g}, not {weight:g}"
            violations.append(Violation(f"{place}.weight", what))
    return violations + _repeated(f"{field}.sources[{{}}].name", (name for name, _ in point.sources))


def _color_problems(field: str, color: Rgb | None) -> list[Violation]:
    if color is None or (len(color) == 3 and all(0 <= channel <= 255 for channel in color)):
        return []
    return [Violation(field, f"must be red, green and blue from 0 to 255, not {color}")]


def _edge_problems(field: str, edge: Edge, point_names: set[str]) -> list[Violation]:
    violations = _unknown(f"{field}.start", edge.start, point_names) + _unknown(
        f"{field}.end", edge.end, point_names
    )
    if nfc(edge.start) == nfc(edge.end):
        violations.append(
            Violation(f"{field}.end", f"must be another point than the start, {shown(edge.start)}")
        )
    return violations + _color_problems(f"{field}.color", edge.color)


def _flip_problems(pairs: Sequence[tuple[str, str]], point_names: set[str]) -> list[Violation]:
    violations: list[Violation] = []
    first: dict[str, str] = {}
    for index, (left, right) in enumerate(pairs):
        for end, name in (("left", left), ("right", right)):
            field = f"flip_pairs[{index}].{end}"
            violations += _unknown(field, name, point_names)
            before = first.setdefault(nfc(name), field)
            if before != field:
                what = f"must be a point that no pair has yet; {shown(name)} is {before}"
                violations.append(Violation(field, what))
    return violations


def _instance_problems(field: str, instance: Instance, point_names: set[str]) -> list[Violation]:
    violations: list[Violation] = []
    if instance.side not in (None, "left", "right", "middle"):
        violations.append(
            Violation(f"{field}.side", f"must be left, right or middle, not {shown(instance.side)}")
        )
    for ours, theirs in instance.names:
        violations += _unknown(f"{field}.names", ours, point_names)
        violations += _name_problems(f"{field}.names", theirs)
    return violations + _repeated(f"{field}.names", (ours for ours, _ in instance.names))


def _unknown(field: str, name: str, point_names: set[str]) -> list[Violation]:
    if nfc(name) in point_names:
        return []
    return [Violation(field, f"must be a keypoint of the skeleton; there is no {shown(name)}")]


def _repeated(field: str, names: Iterable[str]) -> list[Violation]:
    """A problem for every repeated name; `{}` in the field is replaced by its index."""
    violations = []
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        before = first.setdefault(nfc(name), index)
        if before != index:
            what = f"must be unique; {shown(name)} is {field.format(before)} too"
            violations.append(Violation(field.format(index), what))
    return violations
