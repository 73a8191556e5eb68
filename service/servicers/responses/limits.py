"""The limits in force for a caller: the lower of the service's and the plan's."""

from __future__ import annotations

from posegate.v1 import pose_service_pb2 as pb
from service.core.plan import Plan
from service.pipeline.limits import Limits
from service.servicers.responses.durations import duration


def effective_limits(limits: Limits, plan: Plan | None) -> pb.Limits:
    """The service's limits, lowered to those of a plan; None for no plan."""
    effective = pb.Limits(
        max_image_bytes=limits.image.max_bytes,
        max_image_pixels=limits.image.max_pixels,
        max_batch_size=limits.max_batch_size,
        max_persons=limits.max_persons,
        max_in_flight=limits.max_in_flight,
        max_in_flight_bytes=limits.max_in_flight_bytes,
        max_message_bytes=limits.max_message_bytes,
        max_skeletons=limits.max_skeletons,
        allowed_uri_hosts=sorted(limits.uri_hosts),
        max_video_bytes=limits.video.max_bytes,
        max_video_duration=duration(limits.video.max_seconds),
        max_video_frames=limits.video.max_frames,
        max_streams=limits.max_streams,
        own_models=plan is None or plan.own_models,
    )
    if plan is None:
        return effective
    effective.max_batch_size = _lower(limits.max_batch_size, plan.max_batch_size)
    effective.max_skeletons = _lower(limits.max_skeletons, plan.max_skeletons)
    effective.max_in_flight = _lower(limits.max_in_flight, plan.calls_at_once)
    effective.max_streams = _lower(limits.max_streams, plan.streams_at_once)
    if plan.max_video_seconds is not None:
        effective.max_stream_duration.CopyFrom(duration(plan.max_video_seconds))
        seconds = min(limits.video.max_seconds, plan.max_video_seconds)
        effective.max_video_duration.CopyFrom(duration(seconds))
    if plan.calls_per_second is not None:
        effective.calls_per_second = plan.calls_per_second
        effective.burst = plan.burst
    return effective


def _lower(own: int, of_plan: int | None) -> int:
    return own if of_plan is None else min(own, of_plan)
