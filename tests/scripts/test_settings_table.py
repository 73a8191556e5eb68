from __future__ import annotations

from pathlib import Path

import pytest

from scripts import settings_table
from service.settings import Settings


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    """A copy of the guide, up to date."""
    path = tmp_path / "README.md"
    path.write_text(settings_table.README.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def test_every_setting_has_one_row_with_a_default_and_a_description() -> None:
    rows = [line.split("|") for line in settings_table.table().splitlines()[2:]]
    assert [row[1].strip() for row in rows] == [
        f"`POSEGATE_{name.upper()}`" for name in Settings.model_fields
    ]
    assert all(row[2].strip() not in ("", "``") and row[3].strip() for row in rows)
    assert {len(row) for row in rows} == {5}


def test_the_guide_in_the_repository_is_up_to_date() -> None:
    assert settings_table.main(["--check"]) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("| `POSEGATE_LISTEN` |", "| `POSEGATE_LISTENS` |"),
        lambda text: text.replace("| `POSEGATE_LISTEN` |", "A sentence.\n| `POSEGATE_LISTEN` |"),
        lambda text: text.replace("<!-- end of settings -->", "A sentence.\n<!-- end of settings -->"),
        lambda text: text + "\n| variable | default | what it sets |\n|---|---|---|\n",
        lambda text: text + "\n| `POSEGATE_LISTEN` | `127.0.0.1:1` | The same again. |\n",
        lambda text: text.replace("<!-- end of settings -->", ""),
        lambda text: text + settings_table.table(),
    ],
    ids=[
        "row",
        "text in the table",
        "text after it",
        "second header",
        "second row",
        "no end",
        "second table",
    ],
)
def test_check_fails_on_whatever_differs(readme: Path, change: object) -> None:
    text = readme.read_text(encoding="utf-8")
    changed = change(text)  # type: ignore[operator]
    assert changed != text
    readme.write_text(changed, encoding="utf-8")
    assert settings_table.main(["--check"], readme) == 1
    assert readme.read_text(encoding="utf-8") == changed


def test_writing_mends_what_is_between_the_marks(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    readme.write_text(
        text.replace("| `POSEGATE_LISTEN` |", "MEMORY\n| `POSEGATE_LISTEN` |"), encoding="utf-8"
    )
    assert settings_table.main([], readme) == 0
    assert readme.read_text(encoding="utf-8") == text


def test_settings_of_another_program_may_have_a_table_of_their_own(readme: Path) -> None:
    with readme.open("a", encoding="utf-8") as file:
        file.write("\n| `POSEGATE_WEB_LISTEN` | x | y |\n")
    assert settings_table.main(["--check"], readme) == 0
