"""The order of the rows: seeded permutations without end, so that a run can stop and go on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache


@lru_cache(maxsize=64)
def _permutation(name: str, n: int, epoch: int) -> tuple[int, ...]:
    order = list(range(n))
    random.Random(f"{name} {epoch}").shuffle(order)
    return tuple(order)


def drawn(name: str, n: int, most: int) -> list[int]:
    """Return all of n row numbers, or `most` different ones, drawn by `name`, if there are more."""
    return list(_permutation(name, n, 0)[:most]) if n > most else list(range(n))


def stream(name: str, n: int, position: int) -> Iterator[int]:
    """Yield row numbers of endless permutations of n rows, seeded by `name`, from a position on."""
    while True:
        yield _permutation(name, n, position // n)[position % n]
        position += 1
