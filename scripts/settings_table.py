"""The tables of settings in service/README.md and service/web/README.md, made from the settings themselves.

python -m scripts.settings_table            # rewrites the tables
python -m scripts.settings_table --check    # fails where it has drifted, or a setting is described twice
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from scripts.marked_sections import ROOT, SectionError, outside, row_pattern, update
from service.settings import MIB, Settings
from service.web.settings import WebSettings

README = ROOT / "service" / "README.md"
WEB_README = ROOT / "service" / "web" / "README.md"
NAME, WRITER = "settings", "scripts.settings_table"
_NAMED = {
    "workers": "the CPUs",
    "max_memory": "at most 4 GiB",
    "max_in_flight_bytes": "an eighth of `POSEGATE_MAX_MEMORY`",
    "max_video_memory_bytes": "a quarter of `POSEGATE_MAX_MEMORY`",
    "angles": "see service/core/angles/thresholds.py",
}
_HEAD = "| variable | default | what it sets |\n|---|---|---|\n"


def table(kind: type[BaseSettings] = Settings) -> str:
    """One row per setting."""
    rows = []
    prefix = kind.model_config.get("env_prefix", "")
    for name, field in kind.model_fields.items():
        is_computed = field.default in (None, PydanticUndefined)
        default = _NAMED.get(name, "") if is_computed else ""
        default = default or _text(field.default)
        rows.append(f"| `{prefix}{name.upper()}` | {default} | {field.description} |\n")
    return _HEAD + "".join(rows)


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, int) and not isinstance(value, bool) and value >= MIB and value % MIB == 0:
        return f"{value} ({value // MIB} MiB)"
    if value is None or value == "":
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def described_elsewhere(text: str) -> list[str]:
    """Settings that have a row outside the section, and the table's header where it stands there.

    Raises:
        SectionError: the text has no such section.
    """
    rest = outside(text, NAME, WRITER)
    variables = {f"POSEGATE_{name.upper()}" for name in Settings.model_fields}
    found = [name for name in row_pattern("POSEGATE_[A-Z0-9_]+").findall(rest) if name in variables]
    return found + [_HEAD.partition("\n")[0]] * rest.count(_HEAD.partition("\n")[0])


def main(arguments: list[str], readme: Path = README) -> int:
    """Write or check the tables; the exit code."""
    check = "--check" in arguments
    failed = update(readme, NAME, WRITER, table(), check=check)
    failed |= update(WEB_README, NAME, WRITER, table(WebSettings), check=check)
    try:
        doubled = described_elsewhere(readme.read_text(encoding="utf-8"))
    except SectionError:
        return 1  # `update` has said so
    for name in doubled:
        print(f"{readme.name} has a second row or header outside the section: {name}", file=sys.stderr)
    return int(bool(failed or doubled))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
