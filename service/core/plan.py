"""What a tenant may use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from service.errors import PlanDoesNotAllow

_TENANT = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Plan:
    """Limits of a tenant; None is no limit but the service's own.

    Attributes:
        name: of the plan.
        calls_per_month: calls that may succeed in a UTC calendar month.
        max_batch_size: images in one batch.
        max_skeletons: custom skeletons.
        max_video_seconds: seconds of one video, and of one live stream.
        own_models: whether models of the tenant's own answer.
        calls_at_once: unary calls at work, on each gateway.
        streams_at_once: videos and live streams at work, on each gateway.
        calls_per_second: calls of any kind, on each gateway.
        burst: calls that may come together before the rate counts.
        batch_counts: what a batch counts as: one call, or each of its images.
    """

    name: str
    calls_per_month: int | None
    max_batch_size: int | None
    max_skeletons: int | None
    max_video_seconds: float | None
    own_models: bool
    calls_at_once: int | None
    streams_at_once: int | None
    calls_per_second: float | None
    burst: int
    batch_counts: Literal["call", "picture"] = "call"


def is_tenant_name(name: str) -> bool:
    """Whether a tenant can have that name: 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first
    and last."""
    return _TENANT.fullmatch(name) is not None


def allow(plan: Plan | None, limit_name: str, actual: float) -> None:
    """Hold what was asked for against one limit of a plan.

    Args:
        plan: None for no limits.
        limit_name: name of the attribute.
        actual: what was asked for.

    Raises:
        PlanDoesNotAllow: it is more.
    """
    limit = None if plan is None else getattr(plan, limit_name)
    if plan is not None and limit is not None and actual > limit:
        raise PlanDoesNotAllow.of(plan.name, limit_name, limit=limit, actual=actual)
