"""Model choice: resolves the model name and version of a request."""

from __future__ import annotations

import time

from service.core.model import PoseModel
from service.errors import PlanDoesNotAllow
from service.pipeline.patience import retry_unavailable
from service.telemetry.call_context import current
from service.triton.catalog import ModelCatalog

_ANSWER_S = 0.2  # before the deadline, so that the caller gets the error and its hint
_PAUSE_S = 0.25  # between two looks at a catalog whose Triton is away


async def choose_model(catalog: ModelCatalog, name: str, version: str, *, longest_wait_s: float) -> PoseModel:
    """The model of that name that the caller may use. Waits for a Triton that is away until the deadline of
    the call; a model that Triton has and cannot serve is an error at once.

    Args:
        catalog: models that are served.
        name: empty for the service's default.
        version: empty for the newest one that is ready.
        longest_wait_s: for Triton, also where the call has no deadline.

    Raises:
        NotFound: there is none, or it is another tenant's.
        PlanDoesNotAllow: it is the caller's own, and its plan has no models of its own.
        Unavailable: the model or its detector is not ready.
    """
    call = current()

    async def choose() -> PoseModel:
        return catalog.pose_model(name, version, tenant=call.tenant)

    if catalog.away:
        patience_s = min(call.deadline - time.monotonic() - _ANSWER_S, longest_wait_s)
        pose_model = await retry_unavailable(choose, patience_s, longest_pause_s=_PAUSE_S)
    else:
        pose_model = await choose()
    if pose_model.model.tenant and call.plan is not None and not call.plan.own_models:
        raise PlanDoesNotAllow.of(call.plan.name, "own_models", limit=0, actual=1)
    return pose_model
