"""Which model answers a request, and in which skeleton."""

from __future__ import annotations

from service.catalog import ModelCatalog
from service.core.mapping import MappingPlan, plan_mapping
from service.core.model import Model
from service.errors import Unimplemented
from service.servicers.skeleton_lookup import SkeletonLookup


def choose_model(catalog: ModelCatalog, name: str, version: str) -> Model:
    """The model that a request names, or the default.

    Raises:
        NotFound, Unavailable: as `ModelCatalog.resolve`.
        Unimplemented: people cannot be found with it.
    """
    model = catalog.resolve(name, version)
    if model.family != "yolo_pose":
        raise Unimplemented(
            f"Model '{model.name}' of family {model.family} cannot be used yet: name one of family yolo_pose."
        )
    return model


async def choose_skeleton(skeletons: SkeletonLookup, name: str, model: Model, tenant: str) -> MappingPlan:
    """From the model's own skeleton to the one of that name, or to itself where none is named.

    Raises:
        NotFound: there is no such skeleton.
        SkeletonNotSupplied: the model does not give its points.
    """
    native = skeletons.shipped(model.skeleton)
    return plan_mapping(native, await skeletons.find(tenant, name) if name else native)
