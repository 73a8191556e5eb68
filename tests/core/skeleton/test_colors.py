"""Colours as text."""

from __future__ import annotations

import pytest

from service.core.skeleton.colors import color_text, parse_color


@pytest.mark.parametrize(
    ("text", "color"),
    [("#000000", (0, 0, 0)), ("#FFaa01", (255, 170, 1)), ("", None), ("#FFF", None), ("#GG0000", None),
     ("000000", None), ("#0000000", None), ("#00000\n", None), ("#٠٠٠٠٠٠", None)],
)  # fmt: skip
def test_colors(text: str, color: tuple[int, int, int] | None) -> None:
    assert parse_color(text) == color
    if color is not None:
        assert color_text(color) == text.upper()
