"""The table of `scripts/chaos`."""

from __future__ import annotations

from collections import Counter

from scripts.chaos_callers import Outcomes, quantile
from scripts.chaos_run import as_json, table
from scripts.chaos_service import Watched
from scripts.chaos_world import Row


def test_a_row_has_its_numbers_and_shows_the_bound_that_does_not_hold() -> None:
    outcomes = Outcomes(Counter(OK=3, UNAVAILABLE=1), [0.1, 0.2, 0.3], [0.5], 2.0)
    watched = Watched([0.01, 0.02], [100 << 20, 90 << 20], 5, 6, 1, [3 << 20, 0])
    row = Row("kill", outcomes, watched, [("0 lost", False), ("lives", True)])
    assert not row.holds
    numbers = as_json(row)
    assert (numbers["sent"], numbers["answered"], numbers["lost"]) == (4, 3, {"UNAVAILABLE": 1})
    assert (numbers["rss_peak_mib"], numbers["rss_after_mib"], numbers["p50_ms"]) == (100, 90, 200)
    assert (numbers["spool_peak_mib"], numbers["spool_after_bytes"]) == (3, 0)
    assert "| kill | 4 | 3 | 1 UNAVAILABLE |" in table([row])
    assert "**0 lost**; lives | **no** |" in table([row])


def test_quantiles_of_few_values_are_among_them() -> None:
    assert quantile([], 0.99) == 0
    assert quantile([1.0], 0.99) == 1.0
    assert 1.9 < quantile([1.0, 2.0], 0.99) <= 2.0
