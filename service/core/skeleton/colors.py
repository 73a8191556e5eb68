"""Colours of keypoints and edges as text: "#RRGGBB"."""

from __future__ import annotations

import re

from service.core.skeleton.template import Rgb

_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")


def parse_color(text: str) -> Rgb | None:
    """RGB of "#RRGGBB"; None for anything else."""
    if _COLOR.fullmatch(text) is None:
        return None
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def color_text(color: Rgb) -> str:
    """RGB as "#RRGGBB"."""
    red, green, blue = color
    return f"#{red:02X}{green:02X}{blue:02X}"
