from __future__ import annotations

from pathlib import Path

import pytest

from scripts.marked_sections import SectionError, outside, replaced, update

BEGIN, END = "<!-- x: written by python -m w -->\n", "<!-- end of x -->\n"


def test_everything_between_the_marks_is_replaced() -> None:
    text = f"before\n{BEGIN}old\nand a sentence\n{END}after\n"
    assert replaced(text, "x", "w", "new\n") == f"before\n{BEGIN}\nnew\n\n{END}after\n"
    assert "sentence" not in outside(text, "x", "w")


@pytest.mark.parametrize(
    "text",
    ["", BEGIN, END, f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}", f"{END}{BEGIN}"],
    ids=["no marks", "no end", "no begin", "two begins", "two ends", "wrong order"],
)
def test_marks_that_are_not_there_once_in_order_are_refused(text: str) -> None:
    with pytest.raises(SectionError):
        replaced(text, "x", "w", "new\n")


def test_check_says_what_drifted_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"{BEGIN}old\n{END}", encoding="utf-8")
    assert update(path, "x", "w", "new\n", check=True) == 1
    assert "python -m w" in capsys.readouterr().err
    assert "old" in path.read_text(encoding="utf-8")
    assert update(path, "x", "w", "new\n", check=False) == 0
    assert update(path, "x", "w", "new\n", check=True) == 0
