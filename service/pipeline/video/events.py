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


@dataclass(frozen=True, eq=False)
class FrameDone:
    """One analysed frame.

    Attributes:
        index: zero-based number in the source.
        time_s: presentation time from the start of the video.
        analysis: the persons on it.
        timings: by stage.
        total_ms: from the start of decoding to the result.
    """

    index: int
    time_s: float
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
    """

    frame: int
    total: int | None
    percent: float
    fps: float
    elapsed_s: float
    eta_s: float | None
    bytes_received: int


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
        persons_tracked: distinct tracks; 0 where tracking is off.
        wall_s: duration of the call.
        motions: every measurement of every person over time.
    """

    fps: float
    size_wh: tuple[int, int]
    total_frames: int
    frames_analyzed: int
    frames_with_persons: int
    persons_tracked: int
    wall_s: float
    motions: list[MeasurementMotion]


Event: TypeAlias = Started | FrameDone | Progress | AnnotatedChunk | Summary
