"""The skeleton templates that ship with the gateway: data files, read and checked once.

README.md in this folder says where their names, links and numbers come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from service.core.skeleton import Skeleton
from service.core.skeleton_data import parse_skeleton


@cache
def shipped() -> Mapping[str, Skeleton]:
    """Every shipped template, by name, in the order of the names.

    Raises:
        InvalidRequest: a file does not hold a skeleton; it lists every problem.
    """
    entries = (entry for entry in files(__name__).iterdir() if entry.name.endswith(".json"))
    templates = (parse_skeleton(json.loads(entry.read_text(encoding="utf-8"))) for entry in entries)
    return MappingProxyType({template.name: template for template in sorted(templates, key=_name)})


def _name(template: Skeleton) -> str:
    return template.name
