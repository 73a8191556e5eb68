"""`posegate web` where it cannot start."""

from __future__ import annotations

import pytest
import typer

from service.cli import web


def test_without_the_extra_one_line_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web, "_PACKAGES", ("starlette", "no_such_package"))
    with pytest.raises(typer.Exit):
        web.command()
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "no_such_package" in lines[0]
    assert "posegate[web]" in lines[0]
