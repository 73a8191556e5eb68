"""Sections of Markdown files that a script writes: between two marks, once in a file.

<!-- settings: written by python -m scripts.settings_table -->
…
<!-- end of settings -->
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class SectionError(Exception):
    """The marks of a section are missing, doubled or in the wrong order; the text says which."""


def replaced(text: str, name: str, writer: str, content: str) -> str:
    """The text with `content` as the whole section `name`.

    Raises:
        SectionError: the two marks are not there once each, in order.
    """
    begin, end = f"<!-- {name}: written by python -m {writer} -->\n", f"<!-- end of {name} -->\n"
    for mark in (begin, end):
        if text.count(mark) != 1:
            raise SectionError(f"has the mark '{mark.strip()}' {text.count(mark)} times, not once")
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise SectionError(f"has '{end.strip()}' before '{begin.strip()}'")
    return f"{head}{begin}\n{content}\n{end}{tail}"


def outside(text: str, name: str, writer: str) -> str:
    """The text without the section."""
    return replaced(text, name, writer, "")


def update(path: Path, name: str, writer: str, content: str, *, check: bool) -> int:
    """Write the section, or only say whether it is up to date; the exit code."""
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    text = path.read_text(encoding="utf-8")
    try:
        renewed = replaced(text, name, writer, content)
    except SectionError as error:
        print(f"{shown} {error}", file=sys.stderr)
        return 1
    if check:
        if renewed != text:
            print(f"{shown}: the section '{name}' has drifted: run python -m {writer}", file=sys.stderr)
        return int(renewed != text)
    path.write_text(renewed, encoding="utf-8")
    return 0


def row_pattern(first_cell: str) -> re.Pattern[str]:
    """Finds table rows whose first cell is that regular expression in backticks."""
    return re.compile(rf"^\|\s*`({first_cell})`\s*\|", re.MULTILINE)
