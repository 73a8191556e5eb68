"""Overlays as messages."""

from __future__ import annotations

from posegate.v1 import types_pb2
from service.pipeline.overlay import Overlay
from service.servicers.responses import messages


def overlay_message(overlay: Overlay) -> types_pb2.Overlay:
    """An encoded image with its media type and size."""
    return types_pb2.Overlay(
        content=overlay.content, media_type=overlay.media_type, size=messages.size(overlay.size_wh)
    )
