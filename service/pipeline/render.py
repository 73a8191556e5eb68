"""Use case RenderPoses: given persons drawn on an image or on a blank canvas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from service.core.geometry import Rgb8
from service.core.poses import Poses
from service.core.skeleton.template import Rgb, Skeleton
from service.pipeline.overlay import Overlay, OverlayConfig, draw_overlay
from service.telemetry.call_context import StageTimer


@dataclass(frozen=True)
class Canvas:
    """A blank image of one colour."""

    size_wh: tuple[int, int]
    color: Rgb

    def load(self) -> Rgb8:
        """Its pixels (H, W, 3)."""
        width, height = self.size_wh
        return np.full((height, width, 3), self.color, np.uint8)


def render(
    load: Callable[[], Rgb8],
    poses: Poses,
    numbers: Sequence[int],
    skeleton: Skeleton,
    config: OverlayConfig,
    timer: StageTimer,
) -> Overlay:
    """Load an image, draw persons on it and encode it. In one call of a worker thread, so that no more images
    are held than there are threads.

    Args:
        load: gives the upright RGB image; its errors pass through.
        poses: in the skeleton's order, px of the image.
        numbers: label of each person.
        skeleton: edges and colours.
        config: style and format.
        timer: records the durations of loading and drawing.

    Raises:
        ImageTooLarge: the image does not fit into the format.
    """
    with timer.timed("decode"):
        image = load()
    timer.size_wh = (image.shape[1], image.shape[0])
    with timer.timed("draw"):
        return draw_overlay(image, poses, skeleton, config, numbers=numbers)
