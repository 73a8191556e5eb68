"""People of a batch, shared out over the processor cores.

Small networks do not get twice as fast on two cores. So people are worked on side by side, each on one core;
a person that is left over gets all cores for the pose, then a core for each hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wholebody.assembly import Person, assemble
from wholebody.networks import Networks, compile_networks
from wholebody.pipeline import (
    Parts,
    Subject,
    find_face,
    find_hand,
    find_parts,
    find_pose,
    find_pose_square,
    subject,
)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Found = TypeVar("Found")

NOWHERE = np.zeros(2, np.float32)


class Estimator:
    """Finds the whole body of each person of a batch. One batch at a time."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Compile the networks in `folder`, whose files have been verified, for `threads` cores."""
        compiled = compile_networks(folder, threads)
        self._wide_pose = compiled.wide_pose
        self._threads = threads
        self._idle: SimpleQueue[Networks] = SimpleQueue()
        for one in compiled.sets:
            self._idle.put(one)
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="wholebody")

    def __call__(self, crops: Sequence[Bytes], bodies: Sequence[Floats]) -> list[Person]:
        """The people of a batch, in its order; what one is does not depend on the others.

        Args:
            crops: each (H, W, 3) uint8 RGB.
            bodies: each (17, 3), the first stage's keypoints in px of the crop with score; may be NaN.
        """
        people = [subject(crop, body) for crop, body in zip(crops, bodies, strict=True)]
        alone = len(people) % self._threads == 1 or self._threads == 1
        side_by_side = people[:-1] if alone else people
        jobs = [self._start(find_parts, person) if person else None for person in side_by_side]
        parts = [job.result() if job else Parts() for job in jobs]
        parts += [self._find_alone(person) if person else Parts() for person in people[len(side_by_side) :]]
        return [
            assemble(body, found, person.origin if person else NOWHERE)
            for body, found, person in zip(bodies, parts, people, strict=True)
        ]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _find_alone(self, person: Subject) -> Parts:
        square = self._start(find_pose_square, person).result()
        pose = find_pose(person.picture, square, self._wide_pose) if square else None
        if pose is None:
            return Parts()
        left = self._start(find_hand, person.picture, pose, "left")
        right = self._start(find_hand, person.picture, pose, "right")
        face = self._start(find_face, person.picture, pose)
        return Parts(pose, left.result(), right.result(), face.result())

    def _start(self, find: Callable[..., Found], *args: object) -> Future[Found]:
        """Run `find` on a thread of the pool with a set of networks that nobody else uses meanwhile."""
        return self._pool.submit(self._with_networks, find, *args)

    def _with_networks(self, find: Callable[..., Found], *args: object) -> Found:
        networks = self._idle.get()
        try:
            return find(*args, networks)
        finally:
            self._idle.put(networks)
