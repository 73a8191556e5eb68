"""The threads that hand items to OpenVINO: one for all CPU threads, or several at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Workers(Generic[Job]):
    """As many threads as OpenVINO has items at the same time. Each takes its next item by itself.

    Args:
        count: number of threads.
        run: runs an item, and raises nothing; `alone` where no other one is run beside it.
    """

    def __init__(self, count: int, run: Callable[[Job, bool], None]) -> None:
        self._count = count
        self._run = run
        self._free = count
        self._waiting: deque[tuple[Job, int]] = deque()  # with the number of threads that it keeps to itself
        self._closed = False
        lock = threading.Lock()
        self._arrived = threading.Condition(lock)
        self._begun = threading.Condition(lock)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def begin(self, jobs: Sequence[Job]) -> None:
        """Wait until every one of these items is with OpenVINO, or has ended; for one thread at a time.

        A single item that finds no other one runs alone. One that does runs beside it: more may follow, and
        together they are done sooner.
        """
        with self._arrived:
            alone = len(jobs) == 1 and self._free == self._count
            self._waiting.extend((job, self._count if alone else 1) for job in jobs)
            self._arrived.notify(len(jobs))
            self._begun.wait_for(lambda: not self._waiting)

    def close(self) -> None:
        """Wait until the items have ended, and end the threads."""
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        taken = 0
        while True:
            with self._arrived:
                self._free += taken
                if taken > 1:
                    self._arrived.notify(taken - 1)
                self._arrived.wait_for(self._may_go_on)
                if not self._waiting:
                    return
                job, taken = self._waiting.popleft()
                self._free -= taken
                if not self._waiting:
                    self._begun.notify()
            self._run(job, taken == self._count)
            del job  # with the memory of its tensors, which is Triton's

    def _may_go_on(self) -> bool:
        return self._free >= self._waiting[0][1] if self._waiting else self._closed
