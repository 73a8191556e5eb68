"""Wrong keys by the address that they came from."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from service.accounts.rates import TokenBuckets

_ADDRESSES = 10_000  # that are remembered; some 200 bytes each
_A_SECOND, _BURST = 1.0, 10
_IPV6_SITE = 64  # bits of an IPv6 address that one customer of a network shares


class WrongKeys:
    """How many wrong keys an address may send before each of them has to wait."""

    def __init__(self) -> None:
        self._buckets = TokenBuckets(max_names=_ADDRESSES)

    def add(self, peer: str) -> None:
        """Count one.

        Args:
            peer: as gRPC has it, ipv4:192.0.2.1:5000.
        """
        self._buckets.take(address_of(peer), per_second=_A_SECOND, burst=_BURST)

    def too_many(self, peer: str) -> bool:
        """Whether the address sent too many of late."""
        return self._buckets.wait_s(address_of(peer), per_second=_A_SECOND, burst=_BURST) > 0


@lru_cache(maxsize=1024)
def address_of(peer: str) -> str:
    """The address of a peer without its port; of IPv6 the network that one customer has."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    host = rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return kind
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _IPV6_SITE), strict=False).network_address)
    return str(address)
