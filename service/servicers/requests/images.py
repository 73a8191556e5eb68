"""The image of a request: fetches it where it is a URI, and gives the function that decodes it."""

from __future__ import annotations

import time

from posegate.v1 import types_pb2
from service.media.download import fetch
from service.media.loading import Decode, Loading
from service.pipeline.limits import Limits
from service.telemetry.call_context import current


async def loader(image: types_pb2.Image, limits: Limits, decode: Decode) -> Loading:
    """Function that gives the upright image; to be called in a worker thread.

    Args:
        image: one source is set.
        limits: of bytes and pixels, and the hosts that images may be fetched from.
        decode: how it is decoded.

    Raises:
        NotAllowed, InvalidRequest, ImageTooLarge: the image cannot be fetched. The function raises
            ImageUndecodable and ImageTooLarge.
    """
    content = image.content
    if image.WhichOneof("source") == "uri":
        content = await fetch(
            image.uri,
            policy=limits.downloads,
            max_bytes=limits.image.max_bytes,
            timeout_s=max(0.1, current().deadline - time.monotonic()),
        )
    return decode(content, limits.image)
