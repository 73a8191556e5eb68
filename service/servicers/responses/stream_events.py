"""Events of StreamPoses as messages."""

from __future__ import annotations

from dataclasses import dataclass

from posegate.v1 import pose_service_pb2 as pb
from service.core.model import Model
from service.pipeline.stream import Event, FrameAnswer, KeepAlive, StreamResult, StreamSummary
from service.servicers.requests.video_config import StreamOptions
from service.servicers.responses import frames, messages
from service.servicers.responses.durations import duration, duration_of_ns
from service.servicers.responses.error_status import to_status
from service.telemetry.call_context import current
from service.telemetry.caller_error import caller_error


@dataclass(frozen=True, eq=False)
class StreamResponses:
    """Makes the responses of one call.

    Attributes:
        options: of the call.
        effective: its config in force.
        model: that answers it.
        keypoint_count: of the skeleton that was asked for.
    """

    options: StreamOptions
    effective: pb.StreamConfig
    model: Model
    keypoint_count: int

    def started(self) -> pb.StreamPosesResponse:
        """The first response."""
        return pb.StreamPosesResponse(
            started=pb.StreamStarted(
                effective_config=self.effective,
                model=self.model.name,
                model_version=self.model.version,
                skeleton=self.effective.skeleton,
                n_kpts=self.keypoint_count,
            )
        )

    def response(self, event: Event) -> pb.StreamPosesResponse:
        """One event as a response."""
        match event:
            case StreamResult():
                return pb.StreamPosesResponse(result=self._result(event))
            case KeepAlive():
                return pb.StreamPosesResponse(keep_alive=pb.StreamKeepAlive())
            case StreamSummary():
                return pb.StreamPosesResponse(summary=_summary(event))

    def _result(self, result: StreamResult) -> pb.StreamResult:
        message = pb.StreamResult(
            frame_id=result.frame_id,
            dropped_frames=result.dropped,
            capture_time=duration_of_ns(result.capture_ns),
        )
        answer = result.answer
        if isinstance(answer, FrameAnswer):
            message.persons.extend(frames.tracked_persons(answer.analysis, self.options.persons))
            message.angles.extend(frames.frame_angles(answer.analysis, flat=False))
            message.image_size.CopyFrom(messages.size(answer.size_wh))
            message.timings.CopyFrom(messages.timings(answer.timings, total_ms=result.total_ms))
        else:
            message.timings.total_ms = result.total_ms
            message.error.CopyFrom(to_status(caller_error(answer), current().request_id))
        return message


def _summary(summary: StreamSummary) -> pb.StreamSummary:
    return pb.StreamSummary(
        frames_received=summary.received,
        frames_answered=summary.answered,
        frames_dropped=summary.dropped,
        frames_failed=summary.failed,
        persons_tracked=summary.persons_tracked,
        wall_time=duration(summary.wall_s),
        measurements=frames.motions(summary.motions),
    )
