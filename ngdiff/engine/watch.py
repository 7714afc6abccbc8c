"""A run's memory, watched: what a step is estimated to take, what it took, and what would fit.

One row is run forward to see what it keeps for its backward; a batch keeps that many times as its
tokens are more. Bytes are counted from the allocator's own events, never from the process's size.
`ngdiff.engine.footprint` says how the estimate is made of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ngdiff.core import rng
from ngdiff.core.point import inner
from ngdiff.core.rehearsal import small
from ngdiff.core.sharding import local
from ngdiff.engine.engine import Engine, blocks, checkpointing
from ngdiff.engine.footprint import Footprint, size
from ngdiff.engine.master import Master
from ngdiff.engine.meters import allocated


class Bound(Protocol):
    """What the estimate needs from a problem that is bound to a method, as LMProblem's is."""

    module: torch.nn.Module
    engine: Engine
    batch_size: int
    forget: list[Any]
    retain: list[Any]

    @property
    def parameters(self) -> list[Tensor]: ...
    @property
    def start(self) -> torch.nn.Module | None: ...
    def host(self, fresh: int = 0) -> int: ...
    def batch(self, step: int) -> tuple[list[Any], list[Any]]: ...
    def longest(self, step: int, forget: bool) -> Any: ...


def prepared(
    problem: Bound, optimizer: torch.optim.Optimizer, fresh: int | None = None
) -> Footprint:
    """Return the estimate for a problem that is bound and prepared.

    fresh: of a step-size rule that probes, None without one.
    """
    params, device = problem.parameters, problem.parameters[0].device
    with torch.no_grad():
        every, moving = ([local(p) for p in ps] for ps in (problem.module.parameters(), params))
        if problem.start is not None:
            every += [p.detach() for p in problem.start.parameters() if p.requires_grad]
    low = optimizer.low if isinstance(optimizer, Master) else {}
    G = sum(p.nbytes for p in moving)
    moved = sum(4 * p.numel() if q in low else p.nbytes for p, q in zip(moving, params))
    retain, forget = (_activations(problem, name, device) for name in (False, True))
    whole, kept, _, _ = map(sum, zip(retain, forget))
    bits = sum(t.nbytes for t in low.values())
    line = (G if low else moved) + moved  # θ₀ beside its low bits, u in float32
    return Footprint(
        weights=sum(p.nbytes for p in every) + bits,
        gradients=G,
        optimizer=_slots(optimizer) * moved,
        retain=retain[0],
        forget=forget[0],
        outside=kept / whole if whole else 1.0,
        layers=max(len(blocks(problem.module)), 1),
        line=0 if fresh is None else line,
        look=round(retain[3] * (fresh or 1)),
        bucket=optimizer.bucket if isinstance(optimizer, Master) else 0,
        parts=max(retain[2], forget[2]),
        host=problem.host(fresh or 0),
        memory=problem.engine.memory,
        checkpointing=problem.engine.checkpointing,
    )


def _activations(problem: Bound, forget: bool, device: torch.device) -> tuple[int, int, int, int]:
    """Return what a batch's rows take, from its longest row alone.

    That is: bytes kept for the backward, without and with checkpointing; how many microbatches;
    the most bytes of a forward without a backward.
    """
    phase, one = problem.batch(0)[forget], problem.longest(0, forget)
    tokens = [loss.batch["input_ids"].numel() for loss in (*phase, one)]
    times = max(tokens[:-1]) * len(phase) / tokens[-1]
    with torch.no_grad():
        one()  # what a library takes for itself at the first forward is no activation
    kept = []
    for on in (False, True):
        with checkpointing(problem.module, on), torch.compiler.set_stance("force_eager"):
            kept.append(round(allocated(one, device.type)[1] * times))
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        look = round(allocated(one, device.type)[0] * times)
    return kept[0], kept[1], len(phase), look


def _slots(optimizer: torch.optim.Optimizer) -> int:
    """Return how many numbers the optimizer keeps a weight; its like takes a step to show it."""
    try:
        like = small(inner(optimizer))
        x = like.param_groups[0]["params"][0]
        x.grad = torch.ones_like(x)
        like.step()
        return sum(t.shape == x.shape for t in like.state[x].values() if isinstance(t, Tensor))
    except (TypeError, ValueError, RuntimeError):
        return 2


class Watch:
    """The watch of a run (`unlearn(watch=)`).

    It says the estimate before the first step and what happened after the last one. Where memory
    runs out, it says what would fit. On a CPU what happened is that of the second step, which the
    profiler slows down.

    Errors: MemoryError in the place of torch's own.
    """

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self.say, self.measured, self.steps = say, 0, 0

    def begin(self, problem: Bound, optimizer: torch.optim.Optimizer, fresh: int | None) -> None:
        self.device, many = problem.parameters[0].device, problem.engine.processes.size
        rows = min(problem.batch_size, max(len(problem.forget), len(problem.retain)))
        self.rows = -(-rows // many)  # of this process
        with rng.again(rng.state()):  # with dropout its forwards draw, and the run must not notice
            self.found = prepared(problem, optimizer, fresh)
        self.say(f"  peak memory, estimated: {self.found}")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def step(self, run: Callable[[], Any]) -> Any:
        """Return run(), watched."""
        self.steps += 1
        with advised(self.found, self.device, self.rows):
            if self.device.type == "cuda":
                done = run()
                self.measured = torch.cuda.max_memory_allocated(self.device)
                return done
            if self.steps != 2:  # the first one makes the optimizer's state
                return run()
            done = []
            most, _ = allocated(lambda: done.append(run()), "cpu")
            self.measured = self.found.weights + self.found.optimizer + most
            return done[0]

    def end(self) -> None:
        if self.measured:
            # on a CPU that step did not probe
            alike = self.found if self.device.type == "cuda" else replace(self.found, line=0)
            ratio = self.measured / alike.peak()
            step = "" if alike is self.found else " for a step without a probe"
            self.say(
                f"  peak memory, measured: {size(self.measured)}, {ratio:.2f} times the "
                f"estimate{step}"
            )


@contextmanager
def advised(found: Footprint, device: torch.device, rows: int) -> Iterator[None]:
    """Make an out-of-memory error inside say what would fit."""
    try:
        yield
    except RuntimeError as error:  # a host's has no class of its own
        full = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not full:
            raise
        limit = capacity(device)
        options = found.fitting(round(0.95 * limit), rows)
        less = (
            "; or ".join(options)
            if options
            else "nothing full-sized: --lora 16 trains an adapter, --sharding over more devices"
        )
        raise MemoryError(
            f"out of memory on {device} ({size(limit)}). Estimate for a step: {found}. What "
            f"would fit: {less}"
        ) from error


def capacity(device: torch.device) -> int:
    """Return the bytes of the device, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
