"""Small videos made on the spot: a bright square that wanders over a dark ground."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from service.core.geometry import Rgb8

FPS = 25


def picture(number: int, size_wh: tuple[int, int] = (96, 64)) -> Rgb8:
    """Frame of that number: its grey level tells it apart."""
    width, height = size_wh
    image = np.full((height, width, 3), 16 + number * 5 % 200, np.uint8)
    image[: height // 4, : width // 4] = (230, 40, 40)  # the upper left corner is red
    return image


def clip(
    container: str = "mp4",
    codec: str = "libx264",
    *,
    count: int = 40,
    size_wh: tuple[int, int] = (96, 64),
    times: Iterable[float] | None = None,
    gop: int = 10,
    pix_fmt: str = "yuv420p",
    rotation_deg: int = 0,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    images: Callable[[int], Rgb8] | None = None,
    sound: bool = False,
    full_range: bool = False,
    display_matrix: list[int] | None = None,
    pixel_aspect: tuple[int, int] | None = None,
) -> bytes:
    """An encoded video.

    Args:
        container: FFmpeg's name of it.
        codec: FFmpeg's name of the encoder.
        count: of frames.
        size_wh: px.
        times: when each frame is shown, seconds; 25 a second by default.
        gop: frames between two key frames.
        pix_fmt: of the coded frames.
        rotation_deg: counter-clockwise, that the display matrix asks for.
        options: of the container.
        codec_options: of the encoder.
        images: frame by number.
        sound: a second of silence beside the pictures.
        full_range: samples from 0 to 255.
        display_matrix: nine fixed-point numbers, instead of a rotation.
        pixel_aspect: width and height of a pixel.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"  # a real file: an index is moved to the front by a second reading
        _write(
            path,
            container,
            codec,
            count=count,
            size_wh=size_wh,
            times=times,
            gop=gop,
            pix_fmt=pix_fmt,
            rotation_deg=rotation_deg,
            options=options,
            codec_options=codec_options,
            images=images,
            sound=sound,
            full_range=full_range,
            display_matrix=display_matrix,
            pixel_aspect=pixel_aspect,
        )
        return path.read_bytes()


def _write(
    path: Path,
    container: str,
    codec: str,
    *,
    count: int,
    size_wh: tuple[int, int],
    times: Iterable[float] | None,
    gop: int,
    pix_fmt: str,
    rotation_deg: int,
    options: dict[str, str] | None,
    codec_options: dict[str, str] | None,
    images: Callable[[int], Rgb8] | None,
    sound: bool,
    full_range: bool,
    display_matrix: list[int] | None,
    pixel_aspect: tuple[int, int] | None,
) -> None:
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=FPS)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size_wh
        clock = Fraction(1, FPS) if times is None else Fraction(1, 1000)
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.time_base = clock
        context.gop_size = gop
        context.options = codec_options or {}
        if full_range:
            context.color_range = 2
        if rotation_deg:
            stream.set_display_rotation(rotation_deg)
        if display_matrix is not None:
            stream.set_display_matrix(display_matrix)
        if pixel_aspect is not None:
            context.sample_aspect_ratio = Fraction(*pixel_aspect)
        audio = output.add_stream("aac", rate=48000) if sound else None
        shown = list(times) if times is not None else [number / FPS for number in range(count)]
        for number, time_s in enumerate(shown):
            image = images(number) if images is not None else picture(number, size_wh)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time_s / clock), clock
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if audio is not None:
            for start in range(0, 48000, 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                silence.sample_rate, silence.pts = 48000, start
                output.mux(audio.encode(silence))
            output.mux(audio.encode(None))


def sound_only() -> bytes:
    """An M4A."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        audio = output.add_stream("aac", rate=48000)
        for start in range(0, 48000, 1024):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 48000, start
            output.mux(audio.encode(silence))
        output.mux(audio.encode(None))
    return file.getvalue()


def fast_start(**changes: object) -> bytes:
    """An MP4 whose index stands in front."""
    return clip("mp4", options={"movflags": "faststart"}, **changes)  # type: ignore[arg-type]


def grey(image: NDArray[np.uint8]) -> float:
    """The level of the ground, from which the frame's number can be told."""
    return float(image[image.shape[0] // 2 :, image.shape[1] // 2 :].mean())
