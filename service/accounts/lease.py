"""Leases: the units of a tenant's monthly quota that one gateway may spend without asking the database.

A gateway fills its lease up to a block, which is at most 1 % of the quota and shrinks with what remains.
Calls that wait may go beyond the block, up to 1 % of the quota (at least 1): so much, and no more, is lost
where a gateway is killed. What calls at work have reserved counts among it. Only a single call that counts
for more than that, a batch that counts by image, is given its units in full, while nothing else is
reserved.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

_SHARE = 100  # of the quota, in one block
_NEAR_END = 8  # a block is at most this part of what remains, so that gateways end together


def most_held(quota: int, units: int = 1) -> int:
    """Units that a gateway may hold at most, reserved by calls at work or not.

    Args:
        quota: of the month.
        units: of the largest call that waits.
    """
    return max(1, quota // _SHARE, units)


def block_size(quota: int, remaining: int) -> int:
    """Units that a gateway holds in advance.

    Args:
        quota: of the month.
        remaining: units that no gateway holds.
    """
    return min(remaining, max(1, min(quota // _SHARE, remaining // _NEAR_END)))


@dataclass(eq=False)
class Lease:
    """What one gateway holds of one tenant's quota.

    Attributes:
        tenant: the owner.
        month: as 2026-11.
        quota: units of the whole month, as the plan says.
        epoch: of the database's row; empty before the first grant.
        generation: another one after a change of month or quota: what was reserved before is not taken back.
        unspent: units that calls may reserve.
        reserved: units of calls at work.
        remaining: units that no gateway held when the database was asked last.
        block: size of a block at that time.
    """

    tenant: str
    month: str
    quota: int
    epoch: str = ""
    generation: int = 0
    unspent: int = 0
    reserved: int = 0
    remaining: int = 0
    block: int = 0

    @property
    def left(self) -> int:
        """Units of the month that no call has reserved or spent, as far as is known here."""
        return self.remaining + self.unspent

    def reserve(self, units: int) -> bool:
        """Set units aside for a call; False where there are too few."""
        if units > self.unspent:
            return False
        self.unspent -= units
        self.reserved += units
        return True

    def settle(self, generation: int, reserved: int, spent: int) -> None:
        """End a reservation; what the call did not spend is free for others."""
        if generation == self.generation:
            self.reserved -= reserved
            self.unspent += reserved - spent

    def granted(self, units: int, remaining: int, epoch: str) -> None:
        """Add units that the database gave."""
        self.unspent += units
        self.remaining = remaining
        self.epoch = epoch
        self.block = block_size(self.quota, remaining + units)

    def wanted(self, waiting: Collection[int], remaining: int) -> int:
        """Units to take from those that remain: to fill the block, and beyond it what calls wait for, as far
        as it may be held.

        Args:
            waiting: units of each call that waits.
            remaining: units that no gateway holds.
        """
        held = self.unspent + self.reserved
        fill = block_size(self.quota, remaining) - held
        needed = sum(waiting) - self.unspent
        room = most_held(self.quota, max(waiting, default=1)) - held
        return max(0, min(remaining, max(fill, min(needed, room))))

    def is_full_for(self, units: int) -> bool:
        """Whether calls at work hold so much that a call cannot have its units before one of them ends."""
        return self.reserved + units > most_held(self.quota, units)

    def runs_low(self) -> bool:
        """Whether to ask for more before a call has to wait for it."""
        held = self.unspent + self.reserved
        return self.remaining > 0 and 2 * self.unspent <= self.block and held < self.block

    def turn(self, month: str, quota: int) -> int:
        """Begin another month, or another quota. Returns the units to give back to the old one."""
        left, self.unspent, self.reserved = self.unspent, 0, 0
        self.month, self.quota, self.epoch = month, quota, ""
        self.generation += 1
        self.remaining = self.block = 0
        return left
