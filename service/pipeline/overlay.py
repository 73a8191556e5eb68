"""Overlays: persons drawn on an image, encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.core.drawing.poses import OverlayStyle, draw_poses
from service.core.drawing.space import with_space_panel
from service.core.geometry import Rgb8
from service.core.poses import Poses
from service.core.skeleton.template import Skeleton
from service.media.image import MEDIA_TYPES, Format, encode


@dataclass(frozen=True)
class OverlayConfig:
    """How persons are drawn and encoded.

    Attributes:
        media_format: of the encoded image.
        jpeg_quality: 1 to 100, for JPEG only.
        style: of the drawing.
        space_panel: add a panel with the persons in space.
    """

    media_format: Format
    jpeg_quality: int
    style: OverlayStyle
    space_panel: bool = False


@dataclass(frozen=True)
class Overlay:
    """An encoded image."""

    content: bytes
    media_type: str
    size_wh: tuple[int, int]


def draw_overlay(
    image: Rgb8,
    poses: Poses,
    skeleton: Skeleton,
    config: OverlayConfig,
    *,
    numbers: Sequence[int] | None = None,
) -> Overlay:
    """Draw persons and encode the result. For a worker thread.

    Args:
        image: (H, W, 3) uint8 RGB; left as it is.
        poses: in the skeleton's order, px of the image.
        skeleton: edges and colours.
        config: style and format.
        numbers: label of each person; None for the place in `poses`.

    Raises:
        ImageTooLarge: the image does not fit into the format.
    """
    drawn = draw_poses(image, poses, skeleton, config.style, numbers=numbers)
    if config.space_panel:
        drawn = with_space_panel(drawn, poses, skeleton, config.style)
    return encode_overlay(drawn, config)


def encode_overlay(drawn: Rgb8, config: OverlayConfig) -> Overlay:
    """Encode a drawn image. For a worker thread.

    Raises:
        ImageTooLarge: the image does not fit into the format.
    """
    return Overlay(
        content=encode(drawn, config.media_format, jpeg_quality=config.jpeg_quality),
        media_type=MEDIA_TYPES[config.media_format],
        size_wh=(drawn.shape[1], drawn.shape[0]),
    )
