"""The skeleton templates that ship with the gateway: data files, read once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from service.core.skeleton import Edge, Keypoint, Skeleton


@cache
def shipped() -> Mapping[str, Skeleton]:
    """Every shipped template, by name."""
    folder = files(__name__)
    templates = (
        _parse(json.loads(entry.read_text(encoding="utf-8")))
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    )
    return MappingProxyType({template.name: template for template in templates})


def _parse(data: Mapping[str, Any]) -> Skeleton:
    return Skeleton(
        name=data["name"],
        title=data["title"],
        keypoints=tuple(Keypoint(**keypoint) for keypoint in data["keypoints"]),
        edges=tuple(Edge(start, end) for start, end in data["edges"]),
        flip_pairs=tuple((left, right) for left, right in data["flip_pairs"]),
    )
