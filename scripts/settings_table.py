"""The README's configuration table, made from the settings themselves.

python -m scripts.settings_table            # rewrites the table in README.md
python -m scripts.settings_table --check    # fails where it has drifted
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from service.settings import MIB, Settings

README = Path(__file__).resolve().parent.parent / "README.md"
_NAMED = {"workers": "the CPUs", "angles": "see service/core/angles/thresholds.py"}
_HEAD = "| variable | default | what it sets |\n|---|---|---|\n"


def table() -> str:
    """One row per setting."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = _NAMED.get(name) or _text(field.default)
        rows.append(f"| `POSEGATE_{name.upper()}` | {default} | {field.description} |\n")
    return _HEAD + "".join(rows)


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= MIB and value % MIB == 0:
        return f"{value} ({value // MIB} MiB)"
    if value == "":
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> int:
    """Write or check the table."""
    text = README.read_text(encoding="utf-8")
    pattern = re.escape(_HEAD) + r"(?:\|.*\n|SETTINGS_TABLE\n)*"
    renewed, count = re.subn(pattern, lambda _: table(), text, count=1)
    if count != 1:
        print(f"{README.name} has no configuration table", file=sys.stderr)
        return 1
    if "--check" in sys.argv:
        if renewed != text:
            print(f"{README.name}'s configuration table has drifted: run python -m scripts.settings_table")
        return int(renewed != text)
    README.write_text(renewed, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
