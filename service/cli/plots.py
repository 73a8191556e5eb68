"""Angles over time as a figure, by matplotlib: a panel for each person and measurement."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.failures import BadOption

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Sample = tuple[float, float | None, bool]
"""Seconds, degrees (None: not measured), and whether the value is doubtful."""

_FORMATS = (".png", ".svg", ".pdf")
_WIDTH_IN, _PANEL_IN, _MARGIN_IN, _DPI = 12.0, 2.6, 1.0, 100
_SIDES = (("left", "#0077B6"), ("right", "#E16C00"))  # as on the overlays, darker for white paper
_FAINT, _GRID = "#6C757D", "#E4E7EB"
_DOUBTFUL_ALPHA = 0.4
_GAP_S = 0.5  # values further apart are not joined


@dataclass
class Curve:
    """One measurement of one person.

    Attributes:
        title: of its panel.
        left: of the person's left, by rising time.
        right: of the person's right.
    """

    title: str
    left: list[Sample] = field(default_factory=list)
    right: list[Sample] = field(default_factory=list)

    def count(self) -> int:
        """Number of values."""
        return sum(degrees is not None for _, degrees, _ in (*self.left, *self.right))


def check(path: Path) -> None:
    """Refuse a plot that cannot be written, before the work for it.

    Raises:
        BadOption: the ending is unknown, or matplotlib is not installed.
    """
    if path.suffix.lower() not in _FORMATS:
        raise BadOption(f"--plot {path}: must end in {', '.join(_FORMATS)}")
    if find_spec("matplotlib") is None:
        raise BadOption("--plot needs matplotlib, which is not installed: pip install 'posegate[plots]'")


def draw_curves(title: str, curves: Sequence[Curve], file_format: str) -> bytes:
    """A figure with a panel for each curve, 1200 px wide as PNG; without curves a line that says so.

    Args:
        title: of the figure.
        curves: from top to bottom.
        file_format: png, svg or pdf.
    """
    # Imported here: it takes most of a second, and only --plot needs it. A Figure of its own draws with Agg
    # (or the SVG and PDF backends) and needs no display.
    from matplotlib.figure import Figure

    panels = max(len(curves), 1)
    height_in = _PANEL_IN * panels + _MARGIN_IN
    figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, layout="constrained")
    figure.suptitle(_plain(title), x=0.01, ha="left", fontweight="bold")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    if not curves:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, "no angle could be measured", ha="center", va="center", color=_FAINT)
    for panel, curve in zip(axes, curves, strict=False):
        _draw(panel, curve)
    if curves:
        axes[-1].set_xlabel("time (s)")
        _legend(axes[0])
    figure.align_ylabels()
    file = io.BytesIO()
    figure.savefig(file, format=file_format)
    return file.getvalue()


def _draw(panel: Axes, curve: Curve) -> None:
    panel.set_title(_plain(curve.title), loc="left", fontsize="medium")
    panel.set_ylabel("degrees")
    panel.grid(color=_GRID)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    for (_, color), samples in zip(_SIDES, (curve.left, curve.right), strict=True):
        for times, degrees, doubtful in _runs(samples):
            marker = "o" if len(times) == 1 else ""
            alpha, width = (_DOUBTFUL_ALPHA, 1.4) if doubtful else (1.0, 2.0)
            panel.plot(times, degrees, color=color, alpha=alpha, linewidth=width, marker=marker, markersize=3)
    low, high = panel.get_ylim()
    if low < 0 < high:
        panel.axhline(0, color=_FAINT, linewidth=0.8, zorder=1)


def _runs(samples: Sequence[Sample]) -> list[tuple[list[float], list[float], bool]]:
    """Values that are joined by a line: without a gap, and all doubtful or all not.

    A run starts with the last value of the run that it continues, so that the line does not break.
    """
    runs: list[tuple[list[float], list[float], bool]] = []
    last: tuple[float, float, bool] | None = None
    for time_s, degrees, doubtful in samples:
        if degrees is None:
            continue
        joined = last is not None and time_s - last[0] <= _GAP_S
        pale = doubtful or (joined and last is not None and last[2])  # a line is as doubtful as its ends
        if not joined or last is None:
            runs.append(([time_s], [degrees], doubtful))
        elif runs[-1][2] == pale or len(runs[-1][0]) == 1:
            runs[-1] = ([*runs[-1][0], time_s], [*runs[-1][1], degrees], pale)
        else:
            runs.append(([last[0], time_s], [last[1], degrees], pale))
        last = time_s, degrees, doubtful
    return runs


def _legend(panel: Axes) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, linewidth=2, label=name) for name, color in _SIDES]
    pale = Line2D([], [], color=_FAINT, linewidth=1.4, alpha=_DOUBTFUL_ALPHA, label="pale: doubtful")
    panel.legend(
        handles=[*handles, pale],
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=3,
        frameon=False,
        fontsize="small",
    )


def _plain(text: str) -> str:
    """Text as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")
