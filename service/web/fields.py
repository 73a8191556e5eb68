"""Options of a call by name, from a form, JSON or the query; every wrong one is reported at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from service.errors import Violation
from service.web.measurements import NAMES
from service.web.problems import Problem, invalid

Values = Mapping[str, Sequence[str]]
Choice = TypeVar("Choice")

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off", ""})
_MAX_TEXT = 4096


class Fields:
    """Reads options. Each read names a field that the call has; `check` refuses all others.

    Args:
        values: every value of every field.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self._known: set[str] = set()
        self._measurements = ""
        self.violations: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Note that a field is wrong."""
        self.violations.append(Violation(field, description))

    def known(self, *names: str) -> None:
        """Name fields that are read elsewhere, for the list of those that the call has."""
        self._known.update(names)

    def given(self, name: str) -> bool:
        """Whether the field is there."""
        self._known.add(name)
        return bool(self._values.get(name))

    def text(self, name: str) -> str:
        """One text; empty where the field is missing."""
        self._known.add(name)
        values = self._values.get(name, ())
        if len(values) > 1:
            self.add(name, f"is there {len(values)} times: give it once")
        text = values[0].strip() if values else ""
        if len(text) > _MAX_TEXT:
            self.add(name, f"has {len(text)} characters, at most {_MAX_TEXT} are allowed")
            return ""
        return text

    def flag(self, name: str, *, default: bool | None = None) -> bool | None:
        """True or false; the default where the field is missing."""
        if not self.given(name):
            return default
        text = self.text(name).lower()
        if text in _TRUE:
            return True
        if text not in _FALSE:
            self.add(name, 'must be "true" or "false"')
        return False

    def number(self, name: str, least: float, most: float = math.inf) -> float | None:
        """A number within a range; None where the field is missing or empty."""
        text = self.text(name)
        if not text:
            return None
        try:
            number = float(text)
        except ValueError:
            self.add(name, "must be a number")
            return None
        if not math.isfinite(number) or not least <= number <= most:
            self.add(name, f"must be {_range(least, most)}, not {text[:40]}")
            return None
        return number

    def integer(self, name: str, least: int, most: int = (1 << 31) - 1) -> int | None:
        """A whole number within a range; None where the field is missing or empty."""
        text = self.text(name)
        if not text:
            return None
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
            self.add(name, "must be a whole number")
            return None
        if not least <= int(text) <= most:
            self.add(name, f"must be {_range(least, most)}, not {text}")
            return None
        return int(text)

    def choice(self, name: str, choices: Mapping[str, Choice], default: Choice) -> Choice:
        """One of several words; the default where the field is missing or empty."""
        text = self.text(name).lower()
        if not text:
            return default
        if text not in choices:
            self.add(name, f"must be {_or(list(choices))}, not {text[:40]!r}")
            return default
        return choices[text]

    def names(self, name: str) -> list[str]:
        """Several names, from repeated fields or separated by commas."""
        self._known.add(name)
        joined = ",".join(self._values.get(name, ()))
        if len(joined) > _MAX_TEXT:
            self.add(name, f"has {len(joined)} characters, at most {_MAX_TEXT} are allowed")
            return []
        return [part.strip() for part in joined.split(",") if part.strip()]

    def measurements(self, name: str = "measurement") -> list[str]:
        """Names of measurements. The gateway judges them, unless something else is wrong already."""
        self._measurements = name
        return self.names(name)

    def check(self) -> None:
        """Problem 400 with everything that is wrong; nothing where all is well."""
        fields = _and(sorted(self._known)) if self._known else "none"
        for name in self._values:
            if name not in self._known:
                self.add(name[:100], f"is not a field of this call, which has {fields}")
        if not self.violations:
            return
        if self._measurements:
            unknown = [one for one in self.names(self._measurements) if one.lower() not in NAMES]
            if unknown:
                shown = _or([repr(one[:40]) for one in unknown])
                self.add(self._measurements, f"{shown} is unknown; known are {', '.join(NAMES)}")
        raise self.problem()

    def problem(self) -> Problem:
        """The problem with every violation."""
        told = "; ".join(f"{one.field} {one.description}" for one in self.violations)
        return invalid(f"{told}."[:2000], self.violations)


def merged(*sources: Values) -> dict[str, list[str]]:
    """The values of several sources together."""
    values: dict[str, list[str]] = {}
    for source in sources:
        for name, given in source.items():
            values.setdefault(name, []).extend(given)
    return values


def _range(least: float, most: float) -> str:
    return f"{least:g} or more" if math.isinf(most) or most >= (1 << 31) - 1 else f"{least:g} to {most:g}"


def _or(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
