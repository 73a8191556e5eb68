"""A short run of `scripts/chaos`: what breaks does not reach callers."""

from __future__ import annotations

import asyncio

import pytest

from scripts.chaos_run import SHORT_SCALE, run
from scripts.chaos_scenarios import SHORT

pytestmark = pytest.mark.e2e


async def test_what_breaks_does_not_reach_callers() -> None:
    rows = await asyncio.wait_for(run(SHORT, scale=SHORT_SCALE, soak_s=0), 600)
    assert len(rows) == len(SHORT) + 1
    assert not [(row.scenario, row.bounds, row.outcomes.lost) for row in rows if not row.holds]
