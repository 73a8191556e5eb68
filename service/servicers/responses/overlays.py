"""People drawn on a picture, as a message."""

from __future__ import annotations

from collections.abc import Sequence

from posegate.v1 import types_pb2
from service.core.drawing.poses import draw_poses
from service.core.drawing.space import with_space_panel
from service.core.geometry import Rgb8
from service.core.poses import Poses
from service.core.skeleton.template import Skeleton
from service.media.image import MEDIA_TYPES, encode
from service.servicers.requests.validation import OverlayConfig
from service.servicers.responses import messages


def draw_overlay(
    image: Rgb8,
    poses: Poses,
    skeleton: Skeleton,
    wish: OverlayConfig,
    *,
    numbers: Sequence[int] | None = None,
) -> types_pb2.Overlay:
    """Draws and encodes; for a worker thread.

    Args:
        image: (H, W, 3) uint8 RGB; left as it is.
        poses: in the skeleton's order, px of the picture.
        skeleton: limbs and colours.
        wish: how, and as what.
        numbers: what the labels call each person; None: the place.

    Raises:
        ImageTooLarge: the picture does not fit into the format.
    """
    drawn = draw_poses(image, poses, skeleton, wish.style, numbers=numbers)
    if wish.space_panel:
        drawn = with_space_panel(drawn, poses, skeleton, wish.style)
    return types_pb2.Overlay(
        content=encode(drawn, wish.media_format, jpeg_quality=wish.jpeg_quality),
        media_type=MEDIA_TYPES[wish.media_format],
        size=messages.size((drawn.shape[1], drawn.shape[0])),
    )
