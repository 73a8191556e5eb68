from __future__ import annotations

from pathlib import Path

import pytest

from scripts import examples
from scripts.marked_sections import ROOT


def test_a_block_is_kept_equal_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print(1)\n", encoding="utf-8")
    text = "x\n<!-- example: a.py -->\n```python\nold\n\nlines\n```\ny\n```python\nown\n```\n"
    new = examples.renewed(text, tmp_path)
    assert new == "x\n<!-- example: a.py -->\n```python\nprint(1)\n```\ny\n```python\nown\n```\n"
    assert examples.renewed(new, tmp_path) == new


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<!-- example: a.py -->\n\n```python\nold\n```\n", "has no code block"),
        ("<!-- example: a.py -->\n", "has no code block"),
        ("<!-- example: b.py -->\n```python\nold\n```\n", "b.py cannot be read"),
    ],
    ids=["blank line", "no block", "no file"],
)
def test_a_mark_that_shows_nothing_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.py").write_text("print(1)\n", encoding="utf-8")
    with pytest.raises(examples.ExampleError, match=says):
        examples.renewed(text, tmp_path)


def test_the_documents_show_the_examples_as_they_are() -> None:
    assert examples.main(["--check"]) == 0


def test_the_documents_of_the_repository_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in examples.documents()}
    assert {"README.md", "service/README.md", "helm/posegate/README.md"} <= names
    assert not any("node_modules" in name for name in names)
