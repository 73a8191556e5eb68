"""Events of the analysis of a video, in the order in which a caller gets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from service.core.sequence.recording import MeasurementMotion
from service.media.video_reader import VideoFacts
from service.pipeline.sequence_analyzer import FrameAnalysis
from service.telemetry.call_context import Timings


@dataclass(frozen=True)
class Started:
    """The container was opened."""

    facts: VideoFacts


@dataclass(frozen=True)
class DecodedFrame:
    """What is known of a frame beside its pixels.

    Attributes:
        index: zero-based number among the presented frames of the source.
        time_s: presentation time from the first frame.
        damaged: its data were damaged, and the decoder concealed what was missing.
        frames_damaged, gaps: as in `Progress`, up to this frame.
    """

    index: int
    time_s: float
    damaged: bool
    frames_damaged: int
    gaps: int


@dataclass(frozen=True, eq=False)
class FrameDone:
    """One analysed frame.

    Attributes:
        source: its place in the video.
        analysis: the persons on it.
        timings: by stage.
        total_ms: from the start of decoding to the result.
    """

    source: DecodedFrame
    analysis: FrameAnalysis
    timings: Timings
    total_ms: float


@dataclass(frozen=True)
class Progress:
    """Progress of the analysis.

    Attributes:
        frame: frames analysed.
        total: frames to analyse; None where the container does not say.
        percent: 0 to 100, never falling.
        fps: frames analysed per second of late.
        elapsed_s: since the start of the call.
        eta_s: remaining time; None where unknown.
        bytes_received: of the upload.
        frames_damaged: damaged frames so far, and frames lost with damaged packets.
        gaps: places so far where bytes or packets are missing, or the clock of the container jumps.
    """

    frame: int
    total: int | None
    percent: float
    fps: float
    elapsed_s: float
    eta_s: float | None
    bytes_received: int
    frames_damaged: int
    gaps: int


@dataclass(frozen=True)
class AnnotatedChunk:
    """The next bytes of the annotated MP4."""

    content: bytes


@dataclass(frozen=True)
class Summary:
    """Totals of the whole video; the last event.

    Attributes:
        fps: measured frame rate of the source.
        size_wh: of the upright frames, px.
        total_frames: of the source, between start and end.
        frames_analyzed: after sampling.
        frames_with_persons: of those.
        frames_damaged, gaps: as in `Progress`.
        persons_tracked: distinct tracks; 0 where tracking is off.
        wall_s: duration of the call.
        motions: every measurement of every person over time.
    """

    fps: float
    size_wh: tuple[int, int]
    total_frames: int
    frames_analyzed: int
    frames_with_persons: int
    frames_damaged: int
    gaps: int
    persons_tracked: int
    wall_s: float
    motions: list[MeasurementMotion]


Event: TypeAlias = Started | FrameDone | Progress | AnnotatedChunk | Summary
