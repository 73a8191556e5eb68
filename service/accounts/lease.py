"""Leases: the units of a tenant's monthly quota that one gateway may spend without asking the database.

A gateway holds at most one block of them, which is at most 1 % of the quota and shrinks with what remains; so
much is lost where a gateway is killed. What calls at work hold counts among it.
"""

from __future__ import annotations

from dataclasses import dataclass

_SHARE = 100  # of the quota, in one block
_NEAR_END = 8  # a block is at most this part of what remains, so that gateways end together


def block_size(quota: int, remaining: int) -> int:
    """Units that a gateway may hold at once.

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

    def wanted(self, needed: int, remaining: int) -> int:
        """Units to take from those that remain: to fill the block, and one where calls wait beside a full
        block; they ask in rounds."""
        room = block_size(self.quota, remaining) - self.unspent - self.reserved
        return min(remaining, max(room, 1 if needed > 0 else 0))

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
