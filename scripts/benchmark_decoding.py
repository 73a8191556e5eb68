"""What decoding alone takes, and what it leaves of the bare model's speed.

One thread decodes images, or frames of a video, and fits them into the model's input, as the gateway does.
Every image needs that beside the model, so no gateway on the same CPUs is faster than `most_of_bare`.
"""

from __future__ import annotations

import time
from functools import partial

from service.core.geometry import ScaledImage, choose_shape, fitted_wh, least_scale, letterbox
from service.core.model import Model
from service.media.frame_sampler import Sampling
from service.media.image import ImageLimits, decode_scaled
from service.media.spool import Spool, SpoolSpace
from service.media.video_reader import VideoLimits, VideoReader

_IMAGES = ImageLimits(max_bytes=1 << 30, max_pixels=1 << 30)
_VIDEOS = VideoLimits(max_bytes=1 << 30, max_pixels=1 << 26, max_seconds=3600, max_frames=1 << 20)


def most_of_bare(bare_per_second: float, decoding_s: float, cpus: int) -> float:
    """The share of the bare model's images per second that is left where each is decoded too.

    Args:
        bare_per_second: images per second of the model alone, on all CPUs.
        decoding_s: CPU seconds of decoding one.
        cpus: on which both run; 1 where one image is answered after another, and decoding is waited for.
    """
    return 1 / (1 + decoding_s * bare_per_second / cpus)


def decode_images(content: bytes, model: Model, seconds: float) -> tuple[list[float], float]:
    """Latencies in seconds, and the wall time, of one thread that decodes and fits an image in a loop."""
    needed = partial(least_scale, shapes_hw=model.shapes_hw)
    latencies: list[float] = []
    began = time.perf_counter()
    while (started := time.perf_counter()) < began + seconds:
        _fit(decode_scaled(content, _IMAGES, needed), model)
        latencies.append(time.perf_counter() - started)
    return latencies, time.perf_counter() - began


def frame_cpu_s(content: bytes, model: Model) -> float:
    """CPU seconds of a frame of a video, decoded in the size in which the model sees it."""
    spool = Spool(SpoolSpace(), _VIDEOS.max_bytes)
    spool.append(content)
    spool.finish()
    reader = VideoReader(spool, Sampling(), _VIDEOS)
    try:
        count, started = 0, time.process_time()
        size_wh = reader.open().size_wh
        reader.reduce_to(fitted_wh(size_wh, choose_shape(size_wh, model.shapes_hw)))
        while (frame := reader.next_frame()) is not None:
            _fit(ScaledImage.reduced(frame.image, size_wh), model)
            count += 1
        return (time.process_time() - started) / count
    finally:
        reader.close()
        spool.close()


def _fit(image: ScaledImage, model: Model) -> None:
    letterbox(image.pixels, choose_shape(image.size_wh, model.shapes_hw), image.size_wh)
