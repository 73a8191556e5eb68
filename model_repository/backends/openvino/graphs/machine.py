"""CPUs that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cpus_available() -> int:
    """CPUs that this process may use: its affinity, and the quota of its container."""
    count = len(os.sched_getaffinity(0))
    if quota := cgroup_cpu_quota(Path("/sys/fs/cgroup")):
        count = min(count, math.ceil(quota))
    return max(count, 1)


def cgroup_cpu_quota(root: Path) -> float | None:
    """The CPU limit of the container in CPUs, None without one; cgroup v2, then v1."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit == "max" or int(limit) <= 0:
        return None
    return int(limit) / int(period)
