"""The random numbers of this process, host and accelerator: saved, put back, drawn again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def state() -> list[Tensor]:
    """The host's state, and the current accelerator's where one is in use."""
    return [
        torch.get_rng_state(),
        *([torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []),
    ]


def restore(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states[1])


def drawn(since: Sequence[Tensor]) -> bool:
    """Whether random numbers were drawn since that state."""
    return any(not torch.equal(x, y) for x, y in zip(since, state()))


@contextmanager
def again(states: Sequence[Tensor]) -> Iterator[None]:
    """Draws what was drawn from an earlier state on; afterwards the numbers of now go on."""
    now = state()
    try:
        restore(states)
        yield
    finally:
        restore(now)
