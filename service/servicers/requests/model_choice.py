"""Model choice: resolves the model name and version of a request."""

from __future__ import annotations

from service.core.model import PoseModel
from service.errors import PlanDoesNotAllow
from service.telemetry.call_context import current
from service.triton.catalog import ModelCatalog


def choose_model(catalog: ModelCatalog, name: str, version: str) -> PoseModel:
    """The model of that name that the caller may use.

    Args:
        catalog: models that are served.
        name: empty for the service's default.
        version: empty for the newest one that is ready.

    Raises:
        NotFound: there is none, or it is another tenant's.
        PlanDoesNotAllow: it is the caller's own, and its plan has no models of its own.
        Unavailable: the model or its detector is not ready.
    """
    call = current()
    pose_model = catalog.pose_model(name, version, tenant=call.tenant)
    if pose_model.model.tenant and call.plan is not None and not call.plan.own_models:
        raise PlanDoesNotAllow.of(call.plan.name, "own_models", limit=0, actual=1)
    return pose_model
