"""Priority of what computes: threads of the worker pools, and decoder processes."""

from __future__ import annotations

import os
from contextlib import suppress

_NICENESS = 5
"""As much as the models of the CPU backends: none of them starves another."""


def step_back(gateway: int | None = None) -> None:
    """Lower the priority of this thread, and of the threads and processes that it starts from now on.

    The event loop and gRPC's threads need a CPU often and for a moment. At the priority of what computes for
    long they would wait for one, and every caller with them. There is no way back without a privilege.

    Args:
        gateway: number of the process below whose first thread it steps; None for this one. What a thread
            that has stepped back starts has its priority already, and is not to step back twice.
    """
    with suppress(OSError):  # where a sandbox forbids it
        own = os.getpriority(os.PRIO_PROCESS, os.getpid() if gateway is None else gateway)
        os.setpriority(os.PRIO_PROCESS, 0, min(19, own + _NICENESS))  # on Linux, of this thread
