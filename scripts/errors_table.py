"""The table of errors in service/README.md, made from service/errors.py and the codes of the server.

python -m scripts.errors_table            # rewrites the table
python -m scripts.errors_table --check    # fails where it has drifted, or a reason lacks its description
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.marked_sections import ROOT, update
from service import errors
from service.errors import DESCRIPTIONS, REASONS, PosegateError
from service.servicers.responses.error_status import code_of

README = ROOT / "service" / "README.md"
NAME, WRITER = "errors", "scripts.errors_table"
_HEAD = "| code | reason | when | retry |\n|---|---|---|---|\n"


def code(kind: type[PosegateError]) -> str:
    """The canonical code of a kind of error."""
    return code_of(kind("")).name


def table() -> str:
    """One row per reason, by code and then by reason."""
    retried = retried_in(ROOT / "service")
    rows = [
        (code(kind), reason, when, "yes" if kind.__name__ in retried else "")
        for kind, reasons in DESCRIPTIONS.items()
        for reason, when in reasons.items()
    ]
    return _HEAD + "".join(f"| {row[0]} | `{row[1]}` | {row[2]} | {row[3]} |\n" for row in sorted(rows))


def problems(folder: Path = ROOT / "service") -> Iterator[str]:
    """What is wrong with the descriptions, a sentence each: held against the reasons, the defaults of the
    classes, and every place in `folder` that names a reason."""
    described = {reason: kind for kind, reasons in DESCRIPTIONS.items() for reason in reasons}
    count = sum(len(reasons) for reasons in DESCRIPTIONS.values())
    if count != len(described):
        yield "a reason is described twice"
    for reason in sorted(REASONS ^ set(described)):
        yield f"{reason} is in only one of REASONS and DESCRIPTIONS"
    raised = [(kind.__name__, kind.reason, "service/errors.py") for kind in kinds()]
    for name, reason, where in (*raised, *raised_in(folder)):
        kind = getattr(errors, name)
        if reason not in described:
            yield f"{where}: {reason} is not described"
        elif code(described[reason]) != code(kind):
            yield f"{where}: {reason} has the code {code(kind)}, its description {code(described[reason])}"


def kinds() -> list[type[PosegateError]]:
    """Every class of error."""
    return [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PosegateError)
    ]


def raised_in(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Class, reason and place of every error in the code whose reason is written out beside its class."""
    for name, arguments, where in _constructed(folder):
        reason = arguments.get("reason")
        if isinstance(reason, ast.Constant):
            yield name, str(reason.value), where


def retried_in(folder: Path) -> set[str]:
    """Classes of errors that the code gives a time after which another attempt can help."""
    return {name for name, arguments, _ in _constructed(folder) if "retry_after_s" in arguments}


def _constructed(folder: Path) -> Iterator[tuple[str, dict[str | None, ast.expr], str]]:
    """Class, keyword arguments and place of every error that the code makes."""
    names = {kind.__name__ for kind in kinds()}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                arguments = {keyword.arg: keyword.value for keyword in node.keywords}
                yield node.func.id, arguments, f"{path.name}:{node.lineno}"


def main(arguments: list[str], readme: Path = README) -> int:
    """Write or check the table; the exit code."""
    found = list(problems())
    for problem in found:
        print(problem, file=sys.stderr)
    failed = update(readme, NAME, WRITER, table(), check="--check" in arguments)
    return int(bool(found or failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
