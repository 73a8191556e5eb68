"""Whole-body estimator: the persons of a batch of images, distributed over the processor cores.

Small networks do not get twice as fast on two cores. So persons are processed in parallel, each on one core;
a person that is left over gets all cores for the pose, then a core for each hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
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
    body_of,
    find_own_face,
    find_own_pose,
    find_parts,
    find_side_hand,
    put_together,
)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Found = TypeVar("Found")

FAR_PX = 1e6
"""No image is so large: a coordinate beyond it is an error of the first stage."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One image and the persons to estimate in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (Q, 4) of the persons that are asked about: x1, y1, x2, y2, px.
        bodies: (P, 17, 3) the first stage's keypoints of them, px and score, may be NaN; then those of the
            neighbours who are not asked about.
    """

    image: Bytes
    boxes: Floats
    bodies: Floats


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

    def __call__(self, scenes: Sequence[Scene]) -> list[list[Person]]:
        """The persons of each image, in the order of its boxes.

        The result for one person depends on the image and its bodies, and on nothing else in the batch.
        """
        people = [person for scene in scenes for person in subjects(scene)]
        alone = len(people) % self._threads == 1 or self._threads == 1
        side_by_side = people[:-1] if alone else people
        jobs = [self._start(find_parts, person) for person in side_by_side]
        parts = [job.result() for job in jobs]
        parts += [self._find_alone(person) for person in people[len(side_by_side) :]]
        found = iter([assemble(one) for one in parts])
        return [list(islice(found, len(scene.boxes))) for scene in scenes]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _find_alone(self, person: Subject) -> Parts:
        pose = self._start(find_own_pose, person, self._wide_pose).result()
        body = body_of(person, pose)
        left = self._start(find_side_hand, person, pose, body, 0)
        right = self._start(find_side_hand, person, pose, body, 1)
        face = self._start(find_own_face, person, pose)
        return put_together(person, pose, body, left.result(), right.result(), face.result())

    def _start(self, find: Callable[..., Found], *args: object) -> Future[Found]:
        """Run `find` on a thread of the pool with a set of networks that no other thread uses meanwhile."""
        return self._pool.submit(self._with_networks, find, *args)

    def _with_networks(self, find: Callable[..., Found], *args: object) -> Found:
        networks = self._idle.get()
        try:
            return find(*args, networks)
        finally:
            self._idle.put(networks)


def subjects(scene: Scene) -> list[Subject]:
    """The persons asked about, each with the bodies of all the others; points that cannot be are NaN."""
    with np.errstate(invalid="ignore"):
        possible = (np.abs(scene.bodies) < FAR_PX).all(2, keepdims=True)
    bodies = np.where(possible, scene.bodies, np.float32(np.nan))
    return [
        Subject(scene.image, box, bodies[i], np.delete(bodies, i, axis=0))
        for i, box in enumerate(scene.boxes)
    ]
