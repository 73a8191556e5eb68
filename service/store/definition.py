"""Skeleton <-> the JSON it is kept as: the form of the shipped templates, without the name.

What was written once is read for ever: change the form only by adding to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from service.core.skeleton import Edge, Keypoint, Rgb, Skeleton


def dump(skeleton: Skeleton) -> str:
    """The definition as JSON."""
    document = {
        "title": skeleton.title,
        "keypoints": [_keypoint(keypoint) for keypoint in skeleton.keypoints],
        "edges": [_edge(edge) for edge in skeleton.edges],
        "flip_pairs": [list(pair) for pair in skeleton.flip_pairs],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def load(name: str, text: str) -> Skeleton:
    """The skeleton of that name and definition."""
    document = json.loads(text)
    return Skeleton(
        name=name,
        title=document["title"],
        keypoints=tuple(_read_keypoint(keypoint) for keypoint in document["keypoints"]),
        edges=tuple(Edge(edge[0], edge[1], _read_color(*edge[2:])) for edge in document["edges"]),
        flip_pairs=tuple((left, right) for left, right in document["flip_pairs"]),
    )


def _keypoint(keypoint: Keypoint) -> dict[str, object]:
    document: dict[str, object] = {"name": keypoint.name}
    if keypoint.sigma is not None:
        document["sigma"] = keypoint.sigma
    if keypoint.color is not None:
        document["color"] = _color(keypoint.color)
    if keypoint.optional:
        document["optional"] = True
    if keypoint.sources:
        document["sources"] = [list(source) for source in keypoint.sources]
    return document


def _edge(edge: Edge) -> list[str]:
    return [edge.start, edge.end] if edge.color is None else [edge.start, edge.end, _color(edge.color)]


def _read_keypoint(document: Mapping[str, Any]) -> Keypoint:
    return Keypoint(
        name=document["name"],
        sigma=document.get("sigma"),
        color=_read_color(document.get("color")),
        optional=document.get("optional", False),
        sources=tuple((name, float(weight)) for name, weight in document.get("sources", ())),
    )


def _color(color: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _read_color(text: str | None = None) -> Rgb | None:
    if text is None:
        return None
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue
