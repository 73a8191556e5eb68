"""Events of AnalyzeVideo as messages."""

from __future__ import annotations

from dataclasses import dataclass

from posegate.v1 import pose_service_pb2 as pb
from service.core.model import Model
from service.media.video_reader import VideoFacts
from service.pipeline.video.events import AnnotatedChunk, Event, FrameDone, Progress, Started, Summary
from service.servicers.requests.video_config import VideoOptions
from service.servicers.responses import frames, messages
from service.servicers.responses.durations import duration


@dataclass(frozen=True, eq=False)
class VideoResponses:
    """Makes the responses of one call.

    Attributes:
        options: of the call.
        effective: its config in force.
        model: that answers it.
        keypoint_count: of the skeleton that was asked for.
    """

    options: VideoOptions
    effective: pb.VideoConfig
    model: Model
    keypoint_count: int

    def response(self, event: Event) -> pb.AnalyzeVideoResponse:
        """One event as a response."""
        match event:
            case FrameDone():
                return pb.AnalyzeVideoResponse(frame=self._frame(event))
            case Progress():
                return pb.AnalyzeVideoResponse(progress=_progress(event))
            case AnnotatedChunk(content):
                return pb.AnalyzeVideoResponse(annotated_chunk=content)
            case Started(facts):
                return pb.AnalyzeVideoResponse(started=self._started(facts))
            case Summary():
                return pb.AnalyzeVideoResponse(summary=self._summary(event))

    def _started(self, facts: VideoFacts) -> pb.VideoStarted:
        return pb.VideoStarted(
            video=pb.VideoInfo(
                container=facts.container,
                codec=facts.codec,
                frame_size=messages.size(facts.size_wh),
                rotation_deg=facts.rotation_deg,
                fps=facts.fps,
                duration=duration(facts.duration_s) if facts.duration_s is not None else None,
                frame_count=facts.frame_count,
                mirrored=facts.mirrored,
                pixel_aspect=float(facts.pixel_aspect),
                begin=duration(facts.begin_s),
            ),
            effective_config=self.effective,
            model=self.model.name,
            model_version=self.model.version,
            skeleton=self.effective.skeleton,
            n_kpts=self.keypoint_count,
        )

    def _frame(self, done: FrameDone) -> pb.FrameResult:
        persons = self.options.persons
        result = pb.FrameResult(
            frame_index=done.source.index,
            time=duration(done.source.time_s),
            damaged=done.source.damaged,
            frames_damaged=done.source.frames_damaged,
            gaps=done.source.gaps,
            angles=frames.frame_angles(done.analysis, flat=self.options.flat),
            timings=messages.timings(done.timings, total_ms=done.total_ms),
        )
        if self.options.flat:
            raw, smoothed = frames.flat_values(done.analysis, persons, self.keypoint_count)
            result.values.extend(raw)
            result.smoothed_values.extend(smoothed)
        else:
            result.persons.extend(frames.tracked_persons(done.analysis, persons))
        return result

    def _summary(self, summary: Summary) -> pb.VideoSummary:
        return pb.VideoSummary(
            fps=summary.fps,
            frame_width=summary.size_wh[0],
            frame_height=summary.size_wh[1],
            total_frames=summary.total_frames,
            n_kpts=self.keypoint_count,
            frames_analyzed=summary.frames_analyzed,
            frames_with_persons=summary.frames_with_persons,
            frames_damaged=summary.frames_damaged,
            gaps=summary.gaps,
            persons_tracked=summary.persons_tracked,
            wall_time=duration(summary.wall_s),
            measurements=frames.motions(summary.motions),
        )


def _progress(progress: Progress) -> pb.VideoProgress:
    return pb.VideoProgress(
        frame=progress.frame,
        total=progress.total,
        percent=progress.percent,
        fps=progress.fps,
        elapsed=duration(progress.elapsed_s),
        eta=duration(progress.eta_s) if progress.eta_s is not None else None,
        bytes_received=progress.bytes_received,
        frames_damaged=progress.frames_damaged,
        gaps=progress.gaps,
    )
