"""How much memory a step takes, before it is taken: an estimate by what the bytes are for.

It also says what fits instead, and what happened.

One row is run forward to see what it keeps for its backward; a batch keeps that many times as its
tokens are more. With W bytes of weights and optimizer state, G of gradients, A_R and A_F of
activations of the largest microbatch of a phase

    phase R                     A_R or G, whichever is more (the one shrinks as the other grows);
                                A_R + G when accumulating
    phase F, swap               G + the same of the forget phase
    phase F, recompute          G + A_F
    update                      G and, in bfloat16, the weights that are float32 at the same time
                                (`ngdiff.engine.master`)
    probe                       θ₀ and u: twice the weights that move, in the memory of the
                                gradients; and a forward of all rows it looks at, which keeps
                                nothing for a backward

and the peak is W plus the largest: an estimate, which leaves out what operations need for
themselves. Bytes are counted from the allocator's own events, never from the process's size.
"""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ngdiff.core import rng
from ngdiff.core.point import inner
from ngdiff.core.sharding import local
from ngdiff.engine.engine import Engine, blocks, checkpointing
from ngdiff.engine.master import BUCKET, Master
from ngdiff.engine.meters import allocated


class Bound(Protocol):
    """What the estimate asks of a problem bound to a method: batches, module and engine.

    LMProblem has them.
    """

    module: torch.nn.Module
    engine: Engine
    batch_size: int
    forget: list[Any]
    retain: list[Any]

    @property
    def parameters(self) -> list[Tensor]: ...
    @property
    def start(self) -> torch.nn.Module | None: ...
    def batch(self, step: int) -> tuple[list[Any], list[Any]]: ...
    def longest(self, step: int, forget: bool) -> Any: ...


def size(bytes_: float) -> str:
    """In words."""
    return f"{bytes_ / 1e9:.2f} GB" if bytes_ >= 1e9 else f"{bytes_ / 1e6:.1f} MB"


@dataclass(frozen=True)
class Footprint:
    """Bytes of a step of one process, in `parts` microbatches a phase, of `layers` blocks.

    retain, forget: activations of all rows of the batch; outside: the part of them that
    checkpointing keeps; line: θ₀ and u of a probe, 0 without one; bucket: float32 copies of a
    master; look: the probe's forward.
    """

    weights: int
    gradients: int
    optimizer: int
    retain: int
    forget: int
    outside: float
    layers: int
    line: int
    bucket: int = 0
    look: int = 0
    parts: int = 1
    memory: str = "swap"
    checkpointing: bool = False

    def peak(self) -> int:
        """Bytes at the fullest moment of a step."""
        G, several = self.gradients, self.parts > 1
        A_R, A_F = self._kept(self.retain), self._kept(self.forget)

        def phase(A: int) -> int:
            return A + G if several else max(A, G)

        probe = self.line + max(self.bucket, self.look // self.parts) if self.line else 0
        F = G + (A_F if self.memory == "recompute" else phase(A_F))
        return self.weights + self.optimizer + max(phase(A_R), F, G + self.bucket, probe)

    def _kept(self, whole: int) -> int:
        """Activations of one microbatch.

        With checkpointing: what lies outside the blocks, and one block at a time.
        """
        one = whole / self.parts
        block = (1 - self.outside) / self.layers
        return round(one * (self.outside + block) if self.checkpointing else one)

    def __str__(self) -> str:
        A = max(self._kept(self.retain), self._kept(self.forget))
        return (
            f"{size(self.peak())} at the fullest: weights {size(self.weights)}, "
            f"optimizer {size(self.optimizer)}, gradients {size(self.gradients)} each, "
            f"activations {size(A)}, memory={self.memory}"
        )

    def fitting(self, limit: int, rows: int) -> list[str]:
        """Settings that need at most `limit` bytes, in words, the least costly first.

        rows: of a batch.
        """
        found = []
        twice = (True,) if self.checkpointing else (False, True)
        choices = itertools.product(twice, ("swap", "recompute"), _parts(self.parts, rows))
        for cheap, memory, parts in choices:
            other = replace(self, memory=memory, checkpointing=cheap, parts=parts)
            if other != self and other.peak() <= limit:
                words = [f"--micro {-(-rows // parts)}"] if parts != self.parts else []
                words += [f"--memory {memory}"] if memory != self.memory else []
                words += ["--checkpointing"] if other.checkpointing != self.checkpointing else []
                found.append((len(words), parts, f"{' '.join(words)} ({size(other.peak())})"))
        return [words for _, _, words in sorted(found)[:3]]


def _parts(now: int, rows: int) -> list[int]:
    more = [now * 2**k for k in range(12) if now * 2**k < rows]
    return [*more, rows] if rows > now else [now]


def footprint(
    problem: Bound, optimizer: torch.optim.Optimizer, fresh: int | None = None
) -> Footprint:
    """The estimate for a problem that is bound and prepared.

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
    if fresh == 0:  # the step's own rows: g_R is asked for their exact slope
        line += G
    return Footprint(
        weights=sum(p.nbytes for p in every) + bits,
        gradients=G,
        optimizer=_slots(optimizer) * moved,
        retain=retain[0],
        forget=forget[0],
        outside=kept / whole if whole else 1.0,
        layers=max(len(blocks(problem.module)), 1),
        line=0 if fresh is None else line,
        look=round(retain[3] * (1 + (fresh or 0))),
        bucket=8 * min(sum(q.numel() for q in low), BUCKET),
        parts=max(retain[2], forget[2]),
        memory=problem.engine.memory,
        checkpointing=problem.engine.checkpointing,
    )


def _activations(problem: Bound, forget: bool, device: torch.device) -> tuple[int, int, int, int]:
    """What a batch's rows take, from the longest row alone.

    Bytes kept for the backward, without and with checkpointing; how many microbatches; the most
    bytes of their forward without a backward.
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
    """Numbers that the optimizer keeps for each weight.

    They are found by a step of its like on a small tensor.
    """
    mine: Any = inner(optimizer)
    x = torch.zeros(64, requires_grad=True)
    known = inspect.signature(type(mine)).parameters.keys() - {"fused"}
    options = {key: value for key, value in mine.defaults.items() if key in known}
    try:
        other = type(mine)([x], **options)
        x.grad = torch.ones_like(x)
        other.step()
        return sum(t.numel() == x.numel() for t in other.state[x].values() if isinstance(t, Tensor))
    except (TypeError, ValueError, RuntimeError):
        return 2


class Watch:
    """What a run (`unlearn(watch=)`) says of its memory.

    The estimate before the first step, what happened after the last one, and, where memory runs
    out, what would fit. On a CPU what happened is that of the second step, which the profiler slows
    down.

    Errors: MemoryError in the place of torch's own.
    """

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self.say, self.measured, self.steps = say, 0, 0

    def begin(self, problem: Bound, optimizer: torch.optim.Optimizer, fresh: int | None) -> None:
        self.device, size = problem.parameters[0].device, problem.engine.processes.size
        rows = min(problem.batch_size, max(len(problem.forget), len(problem.retain)))
        self.rows = -(-rows // size)  # of this process
        with rng.again(rng.state()):  # with dropout its forwards draw, and the run must not notice
            self.found = footprint(problem, optimizer, fresh)
        self.say(f"  memory, estimated: {self.found}")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def step(self, run: Callable[[], Any]) -> Any:
        """run(), watched."""
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
            # that step did not probe
            alike = self.found if self.device.type == "cuda" else replace(self.found, line=0)
            ratio = self.measured / alike.peak()
            self.say(
                f"  memory, measured: {size(self.measured)} at the fullest, "
                f"{ratio:.2f} of the estimate"
            )


@contextmanager
def advised(found: Footprint, device: torch.device, rows: int) -> Iterator[None]:
    """An out-of-memory error inside says what would fit."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        host = "can't allocate memory" in str(error)
        if not (host or isinstance(error, torch.OutOfMemoryError)):
            raise
        limit = capacity(device)
        options = found.fitting(round(0.95 * limit), rows)
        small = "nothing full-sized: --lora 16 trains an adapter, --sharding over more devices"
        raise MemoryError(
            f"out of memory on {device} ({size(limit)}). The step was estimated at {found}. "
            f"What would fit: {'; or '.join(options) or small}"
        ) from error


def capacity(device: torch.device) -> int:
    """Bytes of the device, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
