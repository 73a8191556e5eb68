"""The annotated copy of a video: poses and angles drawn on its frames, encoded as MP4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from service.core.angles import goniometers
from service.core.drawing.angles import draw_angles
from service.core.drawing.poses import OverlayStyle, draw_poses
from service.core.geometry import Rgb8
from service.core.skeleton.template import Skeleton
from service.errors import Unimplemented
from service.media.video_writer import NoEncoder
from service.pipeline.sequence_analyzer import FrameAnalysis


class FrameWriter(Protocol):
    """An encoder of frames, as `Mp4Writer`."""

    def add(self, image: Rgb8, time_s: float) -> bytes:
        """Encode a frame; the bytes that can be sent now."""

    def finish(self) -> bytes:
        """End the file; its last bytes."""

    def close(self) -> None:
        """Free the encoder; idempotent, also after `finish`."""


class Annotator:
    """Draws analysed frames and encodes them. Its methods block: for a worker thread, one call at a time.

    Args:
        make_writer: makes the encoder from the frame size (W, H) in px and the frame rate; may raise
            `NoEncoder`.
        skeleton: of the poses that are drawn.
        style: how they are drawn.
    """

    def __init__(
        self,
        make_writer: Callable[[tuple[int, int], float], FrameWriter],
        skeleton: Skeleton,
        style: OverlayStyle,
    ) -> None:
        self._make_writer = make_writer
        self._skeleton = skeleton
        self._style = style
        self._writer: FrameWriter | None = None

    def open(self, size_wh: tuple[int, int], fps: float) -> None:
        """Make the encoder.

        Raises:
            Unimplemented: this installation has no encoder.
        """
        try:
            self._writer = self._make_writer(size_wh, fps)
        except NoEncoder as error:
            raise Unimplemented(
                "This service cannot encode video: leave `annotated_video` unset.", reason="NO_ENCODER"
            ) from error

    def draw(self, image: Rgb8, analysis: FrameAnalysis, time_s: float) -> bytes:
        """Draw one frame and encode it.

        Args:
            image: (H, W, 3) RGB, upright.
            analysis: the persons on it.
            time_s: presentation time; must rise.

        Returns:
            The bytes that can be sent now; often none.
        """
        assert self._writer is not None  # noqa: S101 - open() comes first
        return self._writer.add(_drawn(image, analysis, self._skeleton, self._style), time_s)

    def finish(self) -> bytes:
        """End the file; its last bytes."""
        assert self._writer is not None  # noqa: S101 - open() comes first
        return self._writer.finish()

    def close(self) -> None:
        """Free the encoder; idempotent."""
        if self._writer is not None:
            self._writer.close()


def _drawn(image: Rgb8, analysis: FrameAnalysis, skeleton: Skeleton, style: OverlayStyle) -> Rgb8:
    poses = analysis.poses
    if analysis.smoothed is not None and analysis.measured is None:  # angles lie on the raw keypoints
        poses = replace(poses, keypoints=analysis.smoothed)
    numbers = None
    if analysis.track_ids is not None:
        numbers = [analysis.track_ids[analysis.owner(place)] for place in range(len(poses))]
    drawn = draw_poses(image, poses, skeleton, style, numbers=numbers)
    if analysis.measured is None or not len(analysis.measured):
        return drawn
    dials = [dial for row in range(len(analysis.measured)) for dial in goniometers(analysis.measured, row)]
    return draw_angles(drawn, dials, labels=style.labels)
