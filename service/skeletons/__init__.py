"""The skeleton templates that ship with the gateway: data files, read and checked once.

README.md in this folder says where their names, links and numbers come from. May import: `core`, `errors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import structlog

from service.core.skeleton.template import Skeleton
from service.errors import InvalidRequest
from service.skeletons.format import parse_skeleton

_log = structlog.get_logger()


@cache
def shipped() -> Mapping[str, Skeleton]:
    """Every shipped template, by name, in the order of the names.

    Raises:
        InvalidRequest: a file does not hold a skeleton; it lists every problem.
    """
    entries = (entry for entry in files(__name__).iterdir() if entry.name.endswith(".json"))
    templates = (parse_skeleton(json.loads(entry.read_text(encoding="utf-8"))) for entry in entries)
    return MappingProxyType({template.name: template for template in sorted(templates, key=_name)})


def known(folder: Path) -> Mapping[str, Skeleton]:
    """The shipped templates and those of the operator: JSON files in a folder beside the models.

    A file that holds no skeleton, or one with a shipped name, is logged and left out, so that the models that
    do not need it are still served.
    """
    templates = dict(shipped())
    for path in sorted(folder.glob("*.json")):
        try:
            template = read(path)
        except ValueError as error:
            _log.warning("skeleton_refused", file=path.name, why=str(error))
            continue
        templates[template.name] = template
    return MappingProxyType(templates)


def read(path: Path) -> Skeleton:
    """A template of the operator.

    Raises:
        ValueError: the file holds no skeleton, or one with a shipped name; the text says what is wrong.
    """
    try:
        template = parse_skeleton(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except InvalidRequest as error:
        raise ValueError(f"{path}: {error.message}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if template.name in shipped():
        raise ValueError(f"{path}: '{template.name}' is the name of a skeleton that ships: choose another")
    return template


def _name(template: Skeleton) -> str:
    return template.name
