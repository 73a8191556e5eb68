"""In which skeleton a request is answered."""

from __future__ import annotations

from service.core.model import PoseModel
from service.core.skeleton.mapping import MappingPlan, plan_mapping
from service.servicers.skeleton_lookup import SkeletonLookup
from service.telemetry.call_context import current


async def choose_skeleton(skeletons: SkeletonLookup, name: str, model: PoseModel) -> MappingPlan:
    """From the model's own skeleton to the one of that name, or to itself where none is named.

    Raises:
        NotFound: there is no such skeleton.
        SkeletonNotSupplied: the model does not give its points.
    """
    target = await skeletons.find(current().tenant, name) if name else model.skeleton
    return plan_mapping(model.skeleton, target)
