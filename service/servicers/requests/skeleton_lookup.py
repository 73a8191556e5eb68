"""Skeleton lookup: resolves the name in a request to a shipped or a custom skeleton."""

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
            Unavailable: the store of skeletons cannot be reached.
        """


class SkeletonLookup:
    """Finds skeletons by name. Shipped ones are found without access to the store.

    Args:
        shipped: skeletons that come with the service, by name.
        custom: source of the tenants' own; None where there are none.
    """

    def __init__(self, shipped: Mapping[str, Skeleton], custom: SkeletonSource | None = None) -> None:
        self._shipped = shipped
        self._custom = custom

    def shipped(self, name: str) -> Skeleton:
        """The shipped skeleton of that name, such as a model's own; KeyError if there is none."""
        return self._shipped[name]

    async def find(self, tenant: str, name: str) -> Skeleton:
        """The shipped skeleton of that name, else the tenant's own.

        Raises:
            NotFound: there is none; the message lists those that ship.
            Unavailable: it is not a shipped one, and the store of skeletons cannot be reached.
        """
        name_nfc = nfc(name)
        skeleton = self._shipped.get(name_nfc)
        if skeleton is None and self._custom is not None and 1 <= len(name_nfc) <= MAX_NAME:
            skeleton = await self._custom.get(tenant, name_nfc)
        if skeleton is None:
            raise NotFound(
                f"There is no skeleton {shown(name)}. With the service come {', '.join(self._shipped)}.",
                reason="SKELETON_NOT_FOUND",
                metadata={"skeleton": name[:MAX_NAME]},
            )
        return skeleton

    async def named(self, violations: Violations, tenant: str, name: str) -> Skeleton:
        """The skeleton that a request has to name.

        Args:
            violations: of the request so far; they are raised in place of NotFound.
            tenant: of the request.
            name: value of the field `skeleton`.

        Raises:
            InvalidRequest: there is no name; or no such skeleton, and there are violations.
            NotFound, Unavailable: as `find`.
        """
        if not name:
            violations.add("skeleton", "must be the name of a skeleton")
            violations.raise_any()
        try:
            return await self.find(tenant, name)
        except NotFound:
            violations.raise_any()
            raise
