"""The skeletons that detection asks for, over and over: parsed once, and never out of date."""

from __future__ import annotations

import time
from collections import OrderedDict

import structlog

from service.core.skeleton.template import Skeleton
from service.errors import Unavailable
from service.store.skeletons import KeptSkeleton, SkeletonStore

_log = structlog.get_logger()

_SIZE = 64
_REST_S = 1.0


class SkeletonCache:
    """Custom skeletons by tenant and name, from memory while the database says that they are unchanged.

    Every call asks for the etag, which is one look into an index: a gateway never answers with a
    skeleton that was changed or removed through another. Only while the database is away is what
    was last known taken for true, so that detection goes on.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: SkeletonStore) -> None:
        self._store = store
        self._known: OrderedDict[tuple[str, str], KeptSkeleton] = OrderedDict()
        self._rests_until = 0.0

    async def get(self, tenant: str, name: str) -> Skeleton | None:
        """The tenant's skeleton of that name.

        Raises:
            Unavailable: the database is away, and the skeleton was not asked for before.
        """
        known = self._known.get((tenant, name))
        try:
            if known is not None:
                if time.monotonic() < self._rests_until:  # a frame a call must not each wait for a timeout
                    return known.skeleton
                if await self._store.etag(tenant, name) == known.etag:
                    self._known.move_to_end((tenant, name))
                    return known.skeleton
            found = await self._store.get(tenant, name)
        except Unavailable as error:
            if known is None:
                raise
            self._rests_until = time.monotonic() + _REST_S
            _log.warning("skeleton_from_memory", why=error.message)
            return known.skeleton
        self._keep(tenant, name, found)
        return None if found is None else found.skeleton

    def _keep(self, tenant: str, name: str, found: KeptSkeleton | None) -> None:
        self._known.pop((tenant, name), None)
        if found is None:
            return
        self._known[tenant, name] = found
        if len(self._known) > _SIZE:
            self._known.popitem(last=False)
