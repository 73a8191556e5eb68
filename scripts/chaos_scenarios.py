"""The scenarios of `scripts/chaos` by name, in the order of a whole run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from scripts.chaos_bombs import bombs
from scripts.chaos_hostile import cancelled, half_open, slow
from scripts.chaos_loads import burst, full, overload, soak
from scripts.chaos_memory import half_sent, large_frames, unread
from scripts.chaos_outages import kill, restart, roll, stop, stop_model
from scripts.chaos_world import Row, World

Scenario = Callable[[World], Awaitable[Row]]

SCENARIOS: dict[str, Scenario] = {
    one.__name__: one
    for one in (
        *(kill, stop, stop_model, restart, roll),
        *(full, overload, burst),
        *(half_open, half_sent, unread, large_frames, slow, bombs, cancelled),
        soak,
    )
}

SHORT = ("kill", "restart", "burst", "half_open", "bombs", "cancelled")
