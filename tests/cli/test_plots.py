"""Angles over time as a figure."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from service.cli.failures import BadOption
from service.cli.plots import Curve, _runs, check, draw_curves


def curves(count: int) -> list[Curve]:
    samples = [(number / 10, float(50 + 40 * np.sin(number / 5)), number % 7 == 0) for number in range(60)]
    return [Curve(f"Knee {number} $x_1$", list(samples), [(0.0, None, False)]) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 8])
def test_the_plot_has_a_panel_for_each_curve(count: int) -> None:
    image = cv2.imdecode(np.frombuffer(draw_curves("clip.mp4", curves(count), "png"), np.uint8), 1)
    assert image is not None
    assert image.shape == (100 + 260 * max(count, 1), 1200, 3)
    assert (image < 128).any()


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_other_formats_are_written_too(ending: str, start: bytes) -> None:
    assert draw_curves("clip.mp4", curves(1), ending).startswith(start)


@pytest.mark.parametrize(
    ("samples", "runs"),
    [
        ([], []),
        ([(0.0, None, False)], []),
        ([(0.0, 1.0, True)], [([0.0], [1.0], True)]),
        ([(0.0, 1.0, False), (0.1, 2.0, False)], [([0.0, 0.1], [1.0, 2.0], False)]),
        ([(0.0, 1.0, False), (9.0, 2.0, False)], [([0.0], [1.0], False), ([9.0], [2.0], False)]),
        (
            [(0.0, 1.0, False), (0.1, 2.0, False), (0.2, 3.0, True), (0.3, 4.0, False), (0.4, 5.0, False)],
            [
                ([0.0, 0.1], [1.0, 2.0], False),
                ([0.1, 0.2, 0.3], [2.0, 3.0, 4.0], True),
                ([0.3, 0.4], [4.0, 5.0], False),
            ],
        ),
        (
            [(0.0, 1.0, False), (0.1, None, False), (0.2, 3.0, False)],
            [([0.0, 0.2], [1.0, 3.0], False)],
        ),
    ],
    ids=["none", "not measured", "one value", "a line", "a gap", "doubtful between", "a short gap"],
)
def test_values_are_joined_without_gaps_and_doubt_has_lines_of_its_own(samples: Any, runs: Any) -> None:
    assert _runs(samples) == runs


def test_an_unknown_ending_is_refused() -> None:
    with pytest.raises(BadOption, match=r"plot\.gif: must end in \.png, \.svg, \.pdf"):
        check(Path("plot.gif"))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    present: Callable[..., Any] = importlib.util.find_spec

    def absent(name: str, package: str | None = None) -> Any:
        return None if name == "matplotlib" else present(name, package)

    monkeypatch.setattr("service.cli.plots.find_spec", absent)
    with pytest.raises(BadOption, match=r"pip install 'posegate\[plots\]'"):
        check(Path("plot.png"))
    monkeypatch.undo()
    check(Path("plot.PNG"))
