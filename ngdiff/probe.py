"""Looking along the update the optimizer is about to take: R(θ₀ + η·u) for any rate η, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ngdiff import vector


class UpdateLine:
    """η ↦ the rows of R(θ₀ + η·u), a `stepsize.Line`. It leaves θ where it last looked: put it back afterwards.

    `slope` = ⟨g_R, u⟩ and `at_zero` = the rows at η = 0 are known only where the probed rows are the step's own.
    """

    slope: float | None = None
    at_zero: list[float] | None = None

    def __init__(
        self,
        theta: Sequence[Tensor],
        theta_0: Sequence[Tensor],
        u: Sequence[Tensor],
        phase: Sequence[Callable[[], Tensor]],
        reduce: vector.Reduce | None,
    ) -> None:
        self.theta, self.theta_0, self.u, self.phase, self.reduce = theta, theta_0, u, phase, reduce
        self.eps = vector.precision(theta)

    @torch.no_grad()
    def __call__(self, eta: float) -> list[float]:
        vector.assign_(self.theta, self.theta_0, self.u, eta)
        return self.read([loss().reshape(-1) for loss in self.phase])

    def read(self, rows: list[Tensor]) -> list[float]:
        """The losses of the rows as numbers; over several processes, their sum."""
        seen = torch.cat(rows).to(vector.wide(rows[0].device))  # (rows,)
        return (seen if self.reduce is None else self.reduce(seen.sum().reshape(1))).tolist()


@contextmanager
def evaluating(module: nn.Module | None):
    """Every submodule in eval mode, then each back in its own."""
    modes = {} if module is None else {m: m.training for m in module.modules()}
    for m in modes:
        m.training = False
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode
