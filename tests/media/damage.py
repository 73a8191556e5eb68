"""Ways to damage a file, the same for the same seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], bytearray]

_GIANTS = (0, 1, 0x7F, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 16_384, 100_000)


def _place(rng: random.Random, content: bytearray) -> int:
    """Half of the time among the first bytes or the last, where sizes and indices stand."""
    where = rng.random()
    if where < 0.25:
        return rng.randrange(min(len(content), 800))
    if where < 0.5:
        return max(0, len(content) - 1 - rng.randrange(min(len(content), 1500)))
    return rng.randrange(len(content))


def flip_bits(rng: random.Random, content: bytearray, _others: Sequence[bytes]) -> bytearray:
    for _ in range(rng.randint(1, 30)):
        content[_place(rng, content)] ^= 1 << rng.randrange(8)
    return content


def truncate(rng: random.Random, content: bytearray, _others: Sequence[bytes]) -> bytearray:
    return content[: rng.randrange(len(content))]


def splice(rng: random.Random, content: bytearray, others: Sequence[bytes]) -> bytearray:
    other = rng.choice(others)
    cut = rng.randint(4, min(2000, len(other)))
    return bytearray(other[:cut]) + content[cut:]


def write_giants(rng: random.Random, content: bytearray, _others: Sequence[bytes]) -> bytearray:
    for _ in range(rng.randint(1, 4)):
        giant, order = rng.choice(_GIANTS), rng.choice("<>")
        packed = (
            struct.pack(order + "I", giant)
            if rng.random() < 0.6
            else struct.pack(order + "H", giant & 0xFFFF)
        )
        start = min(_place(rng, content), max(0, len(content) - len(packed)))
        content[start : start + len(packed)] = packed
    return content


def repeat(rng: random.Random, content: bytearray, _others: Sequence[bytes]) -> bytearray:
    start = rng.randrange(len(content))
    return content[: start + rng.randrange(1, 2000)] + content[start:]


def remove(rng: random.Random, content: bytearray, _others: Sequence[bytes]) -> bytearray:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.randrange(1, 2000) :]


MUTATIONS: tuple[Mutation, ...] = (flip_bits, truncate, splice, write_giants, repeat, remove)


def damaged(seeds: Sequence[bytes], count: int, seed: int) -> list[bytes]:
    """So many damaged files, one in five of them twice."""
    rng = random.Random(seed)  # noqa: S311 - repeatable damage, not a secret
    cases = []
    for _ in range(count):
        content = rng.choice(MUTATIONS)(rng, bytearray(rng.choice(seeds)), seeds)
        if rng.random() < 0.2 and len(content) > 100:
            content = rng.choice(MUTATIONS)(rng, content, seeds)
        cases.append(bytes(content))
    return cases
