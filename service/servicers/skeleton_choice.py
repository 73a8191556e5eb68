"""In which skeleton a request is answered."""

from __future__ import annotations

from service.core.model import Model
from service.core.skeleton.mapping import MappingPlan, plan_mapping
from service.servicers.skeleton_lookup import SkeletonLookup


async def choose_skeleton(skeletons: SkeletonLookup, name: str, model: Model, tenant: str) -> MappingPlan:
    """From the model's own skeleton to the one of that name, or to itself where none is named.

    Raises:
        NotFound: there is no such skeleton.
        SkeletonNotSupplied: the model does not give its points.
    """
    native = skeletons.shipped(model.skeleton)
    return plan_mapping(native, await skeletons.find(tenant, name) if name else native)
