"""The limits in force for a caller: the lower of the service's and the plan's."""

from __future__ import annotations

from google.protobuf import duration_pb2

from posegate.v1 import pose_service_pb2 as pb
from service.core.plan import Plan


def for_plan(limits: pb.Limits, plan: Plan | None) -> pb.Limits:
    """The service's own limits, lowered to those of a plan; None for no plan."""
    effective = pb.Limits()
    effective.CopyFrom(limits)
    if plan is None:
        effective.own_models = True
        return effective
    effective.max_batch_size = _lower(limits.max_batch_size, plan.max_batch_size)
    effective.max_skeletons = _lower(limits.max_skeletons, plan.max_skeletons)
    effective.max_in_flight = _lower(limits.max_in_flight, plan.calls_at_once)
    effective.max_streams = _lower(limits.max_streams, plan.streams_at_once)
    effective.own_models = plan.own_models
    if plan.max_video_seconds is not None:
        longest = _duration(plan.max_video_seconds)
        effective.max_stream_duration.CopyFrom(longest)
        if longest.ToNanoseconds() < limits.max_video_duration.ToNanoseconds():
            effective.max_video_duration.CopyFrom(longest)
    if plan.calls_per_second is not None:
        effective.calls_per_second = plan.calls_per_second
        effective.burst = plan.burst
    return effective


def _lower(own: int, of_plan: int | None) -> int:
    return own if of_plan is None else min(own, of_plan)


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
