"""Progress of the analysis of a video: when to report, and how far the work is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from service.media.frame_sampler import Sampling
from service.media.video_reader import VideoFacts
from service.pipeline.video.events import Progress

_MIN_INTERVAL_S, _MAX_INTERVAL_S = 0.11, 1.0
_RATE_WINDOW_S = 3.0
_MAX_UNFINISHED = 99.9  # percent; 100 is for the end only
_MIN_SHARE_FOR_ETA = 0.01  # of the work; the rest cannot be extrapolated from less


@dataclass(frozen=True)
class WorkDone:
    """State of an analysis at one moment.

    Attributes:
        facts: None until the container is open.
        frames_analyzed: after sampling.
        last_time_s: presentation time of the frame analysed last.
        frames_seen: frames decoded between start and end of the part, before sampling.
        bytes_decoded: position of the decoder in the file.
        bytes_received: of the upload.
        upload_complete: whether that is the whole file.
        frames_damaged, gaps: of the file, as far as it was decoded.
    """

    facts: VideoFacts | None = None
    frames_analyzed: int = 0
    last_time_s: float = 0.0
    frames_seen: int = 0
    bytes_decoded: int = 0
    bytes_received: int = 0
    upload_complete: bool = False
    frames_damaged: int = 0
    gaps: int = 0


class ProgressReporter:
    """Reports progress at most nine times a second, at least once, and never less than before.

    Args:
        sampling: which part of the video is analysed.
        clock: seconds; the analysis starts now.
    """

    def __init__(self, sampling: Sampling, clock: Callable[[], float] = time.perf_counter) -> None:
        self._sampling = sampling
        self._clock = clock
        self._percent = 0.0
        self._started_at = self._reported_at = clock()
        self._recent: deque[tuple[float, int]] = deque([(self._started_at, 0)])

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started_at

    def patience_s(self) -> float:
        """Seconds until a report is due even if no frame is done."""
        return max(self._reported_at + _MAX_INTERVAL_S - self._clock(), 0.0)

    def is_due(self, done: WorkDone) -> bool:
        """Whether to report now: sooner when frames were analysed since the last report."""
        advanced = done.frames_analyzed > self._recent[-1][1]
        return self._clock() - self._reported_at >= (_MIN_INTERVAL_S if advanced else _MAX_INTERVAL_S)

    def report(self, done: WorkDone) -> Progress:
        """The progress of an analysis under way."""
        now = self._reported_at = self._clock()
        self._recent.append((now, done.frames_analyzed))
        while len(self._recent) > 2 and self._recent[1][0] < now - _RATE_WINDOW_S:
            self._recent.popleft()
        since, before = self._recent[0]
        share = _share(done, self._sampling)
        self._percent = max(self._percent, min(100 * (share or 0.0), _MAX_UNFINISHED))
        elapsed_s = now - self._started_at
        return Progress(
            frame=done.frames_analyzed,
            total=_total(done, self._sampling),
            percent=self._percent,
            fps=(done.frames_analyzed - before) / (now - since) if now > since else 0.0,
            elapsed_s=elapsed_s,
            eta_s=elapsed_s * (1 - share) / share if share and share >= _MIN_SHARE_FOR_ETA else None,
            bytes_received=done.bytes_received,
            frames_damaged=done.frames_damaged,
            gaps=done.gaps,
        )

    def final(self, done: WorkDone) -> Progress:
        """The progress of a finished analysis."""
        elapsed_s = self.elapsed_s
        return Progress(
            frame=done.frames_analyzed,
            total=done.frames_analyzed,
            percent=100.0,
            fps=done.frames_analyzed / elapsed_s if elapsed_s > 0 else 0.0,
            elapsed_s=elapsed_s,
            eta_s=0.0,
            bytes_received=done.bytes_received,
            frames_damaged=done.frames_damaged,
            gaps=done.gaps,
        )


def _total(done: WorkDone, sampling: Sampling) -> int | None:
    """Frames to analyse in all; None where the container does not say, or is wrong about its length."""
    if done.facts is None or done.facts.fps is None:
        return None
    seconds = _seconds(done.facts, sampling)
    if seconds is None:
        return None
    if done.last_time_s - sampling.start_s > seconds:  # the container is wrong about its length
        whole = _frame_count(done.facts, sampling)
        return None if whole is None else max(1, whole // sampling.every_nth, done.frames_analyzed)
    frames = seconds * done.facts.fps
    if sampling.target_fps is not None:
        frames = min(frames, seconds * sampling.target_fps)
    else:
        frames /= sampling.every_nth
    return max(1, round(frames), done.frames_analyzed)


def _share(done: WorkDone, sampling: Sampling) -> float | None:
    """Share of the work that is done, 0 to 1: by time, where the container's length is known and not yet
    exceeded; else by the number of frames, or by bytes once the upload is complete. None where none of
    these is known."""
    if done.facts is None or not done.frames_analyzed:
        return None
    seconds = _seconds(done.facts, sampling)
    done_s = done.last_time_s - sampling.start_s
    if seconds is not None and done_s <= seconds:
        return done_s / seconds
    whole = _frame_count(done.facts, sampling)
    if whole is not None and done.frames_seen < whole:
        return done.frames_seen / whole
    if done.upload_complete and 0 < done.bytes_decoded < done.bytes_received:
        return done.bytes_decoded / done.bytes_received
    return None


def _seconds(facts: VideoFacts, sampling: Sampling) -> float | None:
    """Length of the part that is analysed, by the container's duration; None where unknown."""
    if facts.duration_s is None:
        return None
    end_s = min(facts.duration_s, sampling.end_s or facts.duration_s)
    return max(end_s - sampling.start_s, 0.0) or None


def _frame_count(facts: VideoFacts, sampling: Sampling) -> int | None:
    """Frames of the source, by the container; None where only a part of it is analysed."""
    if sampling.start_s > 0 or sampling.end_s is not None or sampling.target_fps:
        return None
    return facts.frame_count
