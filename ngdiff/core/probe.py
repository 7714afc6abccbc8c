"""The retain loss along the update that the optimizer is about to take: R(θ₀ + η·u) at any rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ngdiff.core import rng, vector
from ngdiff.core.point import Point
from ngdiff.core.processes import Processes
from ngdiff.core.stepsize import EPS, Line


class UpdateLine(Line):
    """η ↦ the rows of R(θ₀ + η·u). It leaves θ where it last looked: put it back afterwards.

    `at_zero` holds the rows at η = 0. They are known only where the probed rows are the step's own,
    and its forward was like a probe's.
    random: the state of the random numbers that every look starts from. So all looks see the same
    function, whatever the loss draws. The run's own numbers go on as if there were no probe.
    dtype: in which the forward sees the weights. None: the coarsest of the parameters.
    """

    def __init__(
        self,
        point: Point,
        phase: Sequence[Callable[[], Tensor]],
        processes: Processes,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.point, self.phase, self.processes = point, phase, processes
        given = {p.dtype for p in point.params}
        self.dtype = dtype or max(given, key=lambda kind: torch.finfo(kind).eps)
        self.eps = torch.finfo(self.dtype).eps
        self.random = rng.state()

    @torch.no_grad()
    def __call__(self, eta: float) -> list[float]:
        self.point.look(eta)
        torch.clear_autocast_cache()  # else autocast around the step shows the weights of before
        with rng.again(self.random):
            return self.read([loss().reshape(-1) for loss in self.phase])

    def blur(self, eta: float) -> float:
        """Return the error that rounding of the weights makes on the way to η, relative to that
        way.

        0 in float32.
        """
        return self.point.blur(eta, self.dtype) if self.eps > EPS else 0.0

    def read(self, rows: list[Tensor]) -> list[float]:
        """The losses of the rows, of every process, as numbers."""
        wide = vector.wide(rows[0].device)
        return self.processes.rows(torch.cat(rows).to(wide)).tolist()


@contextmanager
def evaluating(module: nn.Module | None) -> Iterator[None]:
    """Every submodule in eval mode, then each back in its own."""
    modes = {} if module is None else {m: m.training for m in module.modules()}
    for m in modes:
        m.training = False
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode
