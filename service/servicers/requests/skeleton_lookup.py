"""Which skeleton a name in a request means: a shipped one, or one of the caller's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from service.core.skeleton.template import Skeleton
from service.core.skeleton.validation import MAX_NAME, nfc, shown
from service.errors import NotFound
from service.servicers.requests.validation import Violations


class SkeletonSource(Protocol):
    """Port: custom skeletons of a tenant."""

    async def get(self, tenant: str, name: str) -> Skeleton | None:
        """The tenant's skeleton of that name (NFC), None if there is none.

        Raises:
            Unavailable: it cannot be asked.
        """


class SkeletonLookup:
    """Finds skeletons by name. Shipped ones are found without asking anybody.

    Args:
        shipped: those that come with the service, by name.
        custom: where the callers' own are kept; None where there are none.
    """

    def __init__(self, shipped: Mapping[str, Skeleton], custom: SkeletonSource | None = None) -> None:
        self._shipped = shipped
        self._custom = custom

    def shipped(self, name: str) -> Skeleton:
        """The shipped skeleton of that name, such as a model's own; KeyError if there is none."""
        return self._shipped[name]

    async def find(self, tenant: str, name: str) -> Skeleton:
        """The skeleton that the tenant means.

        Raises:
            NotFound: there is none; the message lists those that ship.
            Unavailable: it is not a shipped one, and those of tenants cannot be asked for.
        """
        known = nfc(name)
        skeleton = self._shipped.get(known)
        if skeleton is None and self._custom is not None and 1 <= len(known) <= MAX_NAME:
            skeleton = await self._custom.get(tenant, known)
        if skeleton is None:
            raise NotFound(
                f"There is no skeleton {shown(name)}. With the service come {', '.join(self._shipped)}.",
                reason="SKELETON_NOT_FOUND",
                metadata={"skeleton": name[:MAX_NAME]},
            )
        return skeleton

    async def named(self, found: Violations, tenant: str, name: str) -> Skeleton:
        """The skeleton that a request has to name.

        Args:
            found: violations of the request so far; they are raised before an unknown name is.
            tenant: whose request.
            name: in its field `skeleton`.

        Raises:
            InvalidRequest: no name is given, or something else is wrong and there is no such skeleton.
            NotFound, Unavailable: as `find`.
        """
        if not name:
            found.add("skeleton", "must be the name of a skeleton")
            found.raise_any()
        try:
            return await self.find(tenant, name)
        except NotFound:
            found.raise_any()
            raise
