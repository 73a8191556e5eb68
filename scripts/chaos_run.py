"""Starts the real service, breaks it on purpose, and prints what callers saw, with the bound of each row.

Exit code 1 where a bound does not hold. Callers and service share the machine: durations on a busy one are
noise, the counts of lost calls are not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import traceback
from pathlib import Path

from scripts.chaos_callers import Outcomes, quantile
from scripts.chaos_scenarios import SCENARIOS, SHORT
from scripts.chaos_service import MIB, Process, Watched
from scripts.chaos_world import Row, World
from scripts.marked_sections import ROOT, update
from scripts.ports import free_address

SHORT_SCALE = 0.02

_HEAD = (
    "scenario | sent | answered | lost | answers/s | p50 ms | p99 ms | health max ms | RSS peak MiB "
    "| RSS after MiB | fds | threads | shm | spool peak MiB | spool after | bound | holds"
)


def main() -> None:
    """Run the scenarios that the arguments name."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--short", action="store_true", help="a smaller run of some, in under two minutes")
    parser.add_argument("--scale", type=float, help="of the numbers of calls (default: 1; 0.02 with --short)")
    parser.add_argument("--minutes", type=float, default=2.0, help="of the soak (default: 2)")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    parser.add_argument("--readme", action="store_true", help="write the table into service/README.md too")
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    names = options.scenarios or (SHORT if options.short else tuple(SCENARIOS))
    scale = options.scale or (SHORT_SCALE if options.short else 1.0)
    rows = asyncio.run(run(names, scale=scale, soak_s=60 * options.minutes))
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps([as_json(row) for row in rows], indent=1) + "\n", "utf-8")
    if options.readme:
        update(
            ROOT / "service" / "README.md", "chaos", "scripts.chaos_run --readme", table(rows), check=False
        )
    sys.exit(0 if all(row.holds for row in rows) else 1)


async def run(names: tuple[str, ...], *, scale: float, soak_s: float) -> list[Row]:
    """Run scenarios one after the other on one service; one that raises is a row that does not hold."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="posegate-chaos-") as name:
        up = Process("up", Path(name), free_address())
        world = World(up, Path(name), scale, soak_s)
        try:
            await up.start()
            for one in names:
                print(f"{one} …", file=sys.stderr, flush=True)
                try:
                    rows.append(await SCENARIOS[one](world))
                except Exception as error:
                    traceback.print_exc()
                    rows.append(Row(one, Outcomes(), Watched(), [(f"ended with {error!r}", False)]))
                print(_line(rows[-1]), file=sys.stderr, flush=True)
                if up.process.poll() is not None:
                    rows.append(Row("service", Outcomes(), Watched(), [("lives", False)]))
                    break
                await up.serving()
            if up.process.poll() is None:
                rows.append(Row("end", Outcomes(), Watched(), [("exit code 0", await up.stop() == 0)]))
        finally:
            up.kill()
    return rows


def as_json(row: Row) -> dict[str, object]:
    """The numbers of a row."""
    outcomes, seen = row.outcomes, row.watched
    return {
        "scenario": row.scenario,
        "sent": outcomes.sent,
        "answered": outcomes.answered,
        "lost": outcomes.lost,
        "answers_per_s": round(outcomes.goodput, 1),
        "p50_ms": round(quantile(outcomes.answered_s, 0.5) * 1000),
        "p99_ms": round(quantile(outcomes.answered_s, 0.99) * 1000),
        "health_max_ms": round(max(seen.health_s, default=0) * 1000),
        "rss_peak_mib": max(seen.rss, default=0) // MIB,
        "rss_after_mib": (seen.rss[-1] if seen.rss else 0) // MIB,
        "fds": seen.fds,
        "threads": seen.threads,
        "shared_memory": seen.shared_memory,
        "spool_peak_mib": round(max(seen.spool, default=0) / MIB, 1),
        "spool_after_bytes": seen.spool[-1] if seen.spool else 0,
        "bounds": [{"bound": text, "holds": holds} for text, holds in row.bounds],
    }


def table(rows: list[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = [f"| {_HEAD} |", "|---|" + "---:|" * 14 + "---|---|"]
    return "\n".join([*lines, *map(_line, rows)])


def _line(row: Row) -> str:
    numbers = as_json(row)
    del numbers["bounds"]
    numbers["lost"] = ", ".join(f"{count} {code}" for code, count in row.outcomes.lost.items()) or "0"
    bounds = "; ".join(text if holds else f"**{text}**" for text, holds in row.bounds)
    cells = [*(str(value) for value in numbers.values()), bounds, "yes" if row.holds else "**no**"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
