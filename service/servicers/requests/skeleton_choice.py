"""Skeleton of an answer: the model's own, or the one that the request names."""

from __future__ import annotations

from service.core.model import PoseModel
from service.core.skeleton.mapping import MappingPlan, plan_mapping
from service.core.skeleton.template import Skeleton
from service.errors import SkeletonNotSupplied
from service.servicers.requests.skeleton_lookup import SkeletonLookup
from service.telemetry.call_context import current
from service.triton.catalog import ModelCatalog

_MAX_NAMED = 10  # models that a message names: errors travel in headers, which are short


async def choose_skeleton(
    skeletons: SkeletonLookup, catalog: ModelCatalog, name: str, model: PoseModel
) -> MappingPlan:
    """The mapping from the model's own skeleton to the named one; an empty name is the model's own.

    Raises:
        NotFound: there is no such skeleton.
        SkeletonNotSupplied: the model does not give its points; the text names the served models that do.
    """
    target = await skeletons.find(current().tenant, name) if name else model.skeleton
    try:
        return plan_mapping(model.skeleton, target)
    except SkeletonNotSupplied as error:
        raise _with_models(error, catalog, target) from None


def _with_models(error: SkeletonNotSupplied, catalog: ModelCatalog, target: Skeleton) -> SkeletonNotSupplied:
    models = [
        name
        for name, native in catalog.ready_skeletons(current().tenant).items()
        if _supplies(native, target)
    ]
    named = ", ".join(models[:_MAX_NAMED])
    more = f" and {len(models) - _MAX_NAMED} more" if len(models) > _MAX_NAMED else ""
    text = f"Models that do: {named}{more}." if models else "No model that is served does."
    return SkeletonNotSupplied(f"{error.message} {text}", metadata={**error.metadata, "models": named})


def _supplies(native: Skeleton, target: Skeleton) -> bool:
    try:
        plan_mapping(native, target)
    except SkeletonNotSupplied:
        return False
    return True
