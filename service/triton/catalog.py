"""Model catalog: the models that Triton serves, as of the last refresh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from service.core.model import BODY_KEYPOINTS, Model, PoseModel
from service.core.skeleton.template import Skeleton
from service.errors import NotFound, Unavailable

_log = structlog.get_logger()


class ModelSource(Protocol):
    """Port: the models that are served."""

    async def models(self) -> Sequence[Model]:
        """Every usable model, each version on its own, and those that did not load, without a family.

        Raises:
            Unavailable: Triton does not answer.
        """


class ModelCatalog:
    """Models by name and version. `refresh` asks the source; all other methods answer from memory.

    Attributes:
        default_model: name of the model that answers when a request names none.
        away: Triton does not answer, or has not yet: what it serves will be known once it does.
    """

    def __init__(self, source: ModelSource, skeletons: Mapping[str, Skeleton], default_model: str) -> None:
        self._source = source
        self._skeletons = skeletons
        self._refused: set[tuple[str, str]] = set()
        self._models: tuple[Model, ...] = ()
        self.default_model = default_model
        self.away = True

    async def refresh(self) -> None:
        """Ask the source again. Raises Unavailable when it does not answer; then no model is ready."""
        try:
            models = await self._source.models()
        except Unavailable:
            self.mark_away()
            raise
        self.away = False
        models = [model for model in models if self._fits(model)]
        before, now = _loaded(self._models), _loaded(models)
        if before != now:
            _log.info("models", served=sorted(f"{name}:{version}" for name, version in now))
        self._models = tuple(sorted(models, key=lambda model: (model.name, _number(model.version))))

    def _fits(self, model: Model) -> bool:
        """Whether the model's native skeleton is known and has as many points as the model.

        One that is not loaded is kept all the same, so that requests for it and ListModels show its state.
        """
        if not model.family:
            return True
        skeleton = self._skeletons.get(model.skeleton)
        if skeleton is not None and len(skeleton.keypoints) == model.keypoint_count:
            return True
        if (model.name, model.version) not in self._refused:
            self._refused.add((model.name, model.version))
            why = "unknown" if skeleton is None else f"of {len(skeleton.keypoints)} keypoints"
            _log.warning(
                "model_refused",
                model=model.name,
                why=f"{model.keypoint_count} keypoints; skeleton '{model.skeleton}' is {why}",
            )
        return False

    def mark_away(self) -> None:
        """Mark all models as not ready: Triton does not answer."""
        self.away = True
        self._models = tuple(_not_ready(model) for model in self._models)

    def models(self, tenant: str | None = None) -> tuple[Model, ...]:
        """Every known model, by name and version.

        Args:
            tenant: only those that it may use; None for all.
        """
        if tenant is None:
            return self._models
        return tuple(model for model in self._models if model.tenant in ("", tenant))

    def resolve(self, name: str, version: str = "", *, tenant: str | None = None) -> Model:
        """The model of that name; of several versions the one asked for, or the newest.

        Args:
            name: empty for the service's default.
            version: empty for the newest one that is ready.
            tenant: of the caller; models of other tenants do not exist for it. None for the service itself.

        Raises:
            NotFound: no such model or version; the message lists those there are.
            Unavailable: it is known but not ready.
        """
        wanted = name or self.default_model
        models = self.models(tenant)
        named = [model for model in models if model.name == wanted]
        if not named:
            if not models or not name:
                raise Unavailable(
                    f"Model '{wanted}' is not loaded yet: try again.",
                    reason="MODEL_NOT_READY",
                    metadata={"model": wanted},
                    retry_after_s=1.0,
                )
            known = ", ".join(sorted({model.name for model in models}))
            raise NotFound(
                f"There is no model '{wanted}'. Models: {known}.",
                reason="MODEL_NOT_FOUND",
                metadata={"model": wanted},
            )
        matching = [model for model in named if version in ("", model.version)]
        if not matching:
            known = ", ".join(model.version for model in named)
            raise NotFound(
                f"Model '{wanted}' has no version '{version}'. Versions: {known}.",
                reason="MODEL_VERSION_NOT_FOUND",
                metadata={"model": wanted, "model_version": version},
            )
        ready = [model for model in matching if model.ready]
        if not ready:
            raise Unavailable(
                f"Model '{wanted}' is not ready: try again.",
                reason="MODEL_NOT_READY",
                metadata={"model": wanted},
                retry_after_s=1.0,
            )
        return ready[-1]

    def pose_model(self, name: str, version: str = "", *, tenant: str | None = None) -> PoseModel:
        """The model of that name with its detector and its native skeleton.

        Args:
            name: empty for the service's default.
            version: empty for the newest one that is ready.
            tenant: of the caller; models of other tenants do not exist for it. None for the service itself.

        Raises:
            NotFound: no such model or version; the message lists the existing ones.
            Unavailable: the model or its detector is not ready.
        """
        model = self.resolve(name, version, tenant=tenant)
        return PoseModel(model, self._detector(model), self._skeletons[model.skeleton])

    def ready_skeletons(self, tenant: str | None = None) -> dict[str, Skeleton]:
        """The native skeleton of every model that is ready, by the model's name; as for `models`."""
        return {model.name: self._skeletons[model.skeleton] for model in self.models(tenant) if model.ready}

    def _detector(self, model: Model) -> Model | None:
        if model.family != "top_down":
            return None
        known = self._knows(model.first_stage, model.tenant)
        first = self.resolve(model.first_stage, tenant=model.tenant) if known else None
        fits = first is not None and first.family == "yolo_pose"
        if fits and model.takes_body:
            fits = first is not None and first.keypoint_count == BODY_KEYPOINTS
        if not fits:
            raise Unavailable(
                f"Model '{model.name}' needs '{model.first_stage}' to find people, which is not served.",
                reason="MODEL_NOT_READY",
                metadata={"model": model.name, "first_stage": model.first_stage},
                retry_after_s=1.0,
            )
        return first

    def _knows(self, name: str, tenant: str) -> bool:
        return any(model.name == name for model in self.models(tenant))


def _loaded(models: Sequence[Model]) -> set[tuple[str, str]]:
    return {(model.name, model.version) for model in models if model.family}


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else -1


def _not_ready(model: Model) -> Model:
    return replace(model, ready=False)
