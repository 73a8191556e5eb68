from __future__ import annotations

from pathlib import Path

import pytest

from scripts import errors_table
from service.errors import DESCRIPTIONS, REASONS, Overloaded


def test_every_reason_has_one_row_with_its_code() -> None:
    rows = [line.split("|") for line in errors_table.table().splitlines()[2:]]
    assert sorted(row[2].strip(" `") for row in rows) == sorted(REASONS)
    codes = {row[2].strip(" `"): row[1].strip() for row in rows}
    assert codes["IMAGE_TOO_LARGE"] == "INVALID_ARGUMENT"
    assert codes["DRAINING"] == "UNAVAILABLE"
    assert codes["INTERNAL"] == "INTERNAL"
    retried = {row[2].strip(" `") for row in rows if row[4].strip() == "yes"}
    assert {"QUEUE_FULL", "DRAINING", "DATABASE_BUSY"} <= retried
    assert not {"IMAGE_TOO_LARGE", "TOO_MANY_SKELETONS", "VIDEO_DAMAGED", "DEADLINE_EXCEEDED"} & retried


def test_the_guide_in_the_repository_is_up_to_date() -> None:
    assert errors_table.main(["--check"]) == 0


def test_a_reason_that_the_code_gives_and_the_table_lacks_is_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text('raise Overloaded("x", reason="TOO_HOT")\n', encoding="utf-8")
    assert list(errors_table.problems(tmp_path)) == ["module.py:1: TOO_HOT is not described"]


def test_a_reason_of_another_code_than_its_description_is_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text('raise NotFound("x", reason="QUEUE_FULL")\n', encoding="utf-8")
    [problem] = errors_table.problems(tmp_path)
    assert problem == "module.py:1: QUEUE_FULL has the code NOT_FOUND, its description RESOURCE_EXHAUSTED"


def test_a_reason_without_a_description_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(errors_table, "REASONS", REASONS | {"NEW"})
    assert list(errors_table.problems(tmp_path)) == ["NEW is in only one of REASONS and DESCRIPTIONS"]
    described = {**DESCRIPTIONS, Overloaded: {"QUEUE_FULL": "x", "INTERNAL": "y"}}
    monkeypatch.setattr(errors_table, "DESCRIPTIONS", described)
    assert "a reason is described twice" in list(errors_table.problems(tmp_path))
