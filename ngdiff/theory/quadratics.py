"""Two-task quadratics: unlearning small enough to solve with a pencil, run by the same loop.

    R(θ) = ½(θ − r)'A(θ − r) + R₀               the retain loss, A ≻ 0
    F(θ) = s·½(θ − f)'B(θ − f) + F₀              the forget objective (ascended), B ≻ 0

family "concave" (s = −1): F is bounded above, so R and −F both have minimisers, every scalarization
has one, and there is a Pareto front from r to f. family "convex" (s = +1): F grows without bound,
as a cross-entropy does; a scalarization c·R − (1−c)·F has a minimiser only if c·A ≻ (1−c)·B. All
closed forms are exact, in float64.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ngdiff.core.directions import Direction
from ngdiff.core.info import Info
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import StepSize


@dataclass
class Pair:
    """A `Problem` with closed forms. θ starts at `start`; A, B (n, n); r, f, start (n,).

    `lr` is the rate of the default optimizer (SGD), which a step-size rule overrides.
    """

    A: Tensor
    B: Tensor
    r: Tensor
    f: Tensor
    start: Tensor
    family: str = "concave"
    R_0: float = 0.0
    F_0: float = 0.0
    lr: float = 0.1
    model: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.family not in ("concave", "convex"):
            raise ValueError(
                f"unknown family {self.family!r}: F is 'concave' (bounded above) or 'convex' "
                "(unbounded)"
            )
        self.model = self.start.clone().requires_grad_()

    def __repr__(self) -> str:
        """A digest stands for the numbers, so pairs of other numbers have other reprs."""
        seen = hashlib.sha256()
        for x in (self.A, self.B, self.r, self.f, self.start):
            seen.update(repr((x.dtype, x.tolist())).encode())
        rest = f"R_0={self.R_0}, F_0={self.F_0}, lr={self.lr}"
        return f"<Pair n={len(self.r)}, {self.family}, {rest}, {seen.hexdigest()[:12]}>"

    @property
    def sign(self) -> float:
        return 1.0 if self.family == "convex" else -1.0

    @property
    def module(self) -> None:
        return None

    @property
    def parameters(self) -> list[Tensor]:
        return [self.model]

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `UnlearningStep`: none."""
        return {}

    def bind(self, method: Any, seed: int) -> Pair:
        """A copy at the start.

        A quadratic has one pair of losses, whatever the method, and no data order.
        """
        return Pair(
            self.A, self.B, self.r, self.f, self.start, self.family, self.R_0, self.F_0, self.lr
        )

    def scaled(self, by_R: float, by_F: float) -> Pair:
        """The pair (by_R·R, by_F·F), both factors positive: the same landscape in other units."""
        if not (by_R > 0 and by_F > 0):
            raise ValueError(f"losses are rescaled by positive constants, got {by_R} and {by_F}")
        A, B = by_R * self.A, by_F * self.B
        return Pair(
            A, B, self.r, self.f, self.start, self.family, by_R * self.R_0, by_F * self.F_0, self.lr
        )

    def batch(self, step: int):
        return (lambda: self.R(self.model)), (lambda: self.F(self.model))

    def probe(self, step: int, fresh: int) -> None:
        return None

    def optimizer(
        self, make: Callable[[Any], torch.optim.Optimizer] | None = None
    ) -> torch.optim.Optimizer:
        return make(self.parameters) if make else torch.optim.SGD(self.parameters, lr=self.lr)

    def R(self, theta: Tensor) -> Tensor:
        """Retain loss at θ (…, n) → (…)."""
        return 0.5 * ((theta - self.r) @ self.A * (theta - self.r)).sum(-1) + self.R_0

    def F(self, theta: Tensor) -> Tensor:
        """Forget objective at θ (…, n) → (…)."""
        return self.sign * 0.5 * ((theta - self.f) @ self.B * (theta - self.f)).sum(-1) + self.F_0

    def grad_R(self, theta: Tensor) -> Tensor:
        return self.A @ (theta - self.r)

    def grad_F(self, theta: Tensor) -> Tensor:
        return self.sign * (self.B @ (theta - self.f))

    def gram(self, theta: Tensor) -> Tensor:
        """The Gramian of (g_R, g_F) at θ, (2, 2)."""
        g = torch.stack([self.grad_R(theta), self.grad_F(theta)])
        return g @ g.T

    def minimiser(self, c: float) -> Tensor:
        """argmin c·R − (1−c)·F = (cA − s(1−c)B)⁻¹(cA r − s(1−c)B f), (n,).

        Errors: ValueError when the scalarization has no minimum (convex family, cA − (1−c)B not ≻
        0).
        """
        H = c * self.A - self.sign * (1 - c) * self.B
        if torch.linalg.eigvalsh(H).min() <= 0:
            raise ValueError(f"c·R − (1−c)·F is unbounded below at c = {c}: it needs c·A ≻ (1−c)·B")
        return torch.linalg.solve(H, c * self.A @ self.r - self.sign * (1 - c) * self.B @ self.f)

    def pareto_front(self, points: int = 101) -> Tensor:
        """Minimisers of the scalarizations that have one, from F's end to R's, (≤ points, n)."""
        found = []
        for c in torch.linspace(0, 1, points, dtype=torch.float64).tolist():
            H = c * self.A - self.sign * (1 - c) * self.B
            if torch.linalg.eigvalsh(H).min() > 1e-12:
                found.append(self.minimiser(c))
        return torch.stack(found)

    def stationarity(self, theta: Tensor) -> float:
        """Return the norm of the shortest convex combination of the unit gradients u_R and −u_F. It
        is 0 at a Pareto-stationary point, and ½‖u_R − u_F‖ = √((1−ρ)/2) elsewhere. The units of the
        losses do not matter. It is 0 where a gradient is exactly zero.
        """
        g_R, g_F = self.grad_R(theta), self.grad_F(theta)
        if not (g_R.any() and g_F.any()):
            return 0.0
        return 0.5 * (g_R / g_R.norm() - g_F / g_F.norm()).norm().item()

    def dominated(self, theta: Tensor, tolerance: float = 1e-9) -> bool:
        """Return whether some point is better in both R and F by more than rounding.

        Only the concave family has a front.

        θ is Pareto-optimal iff it lies on the front: compare with the point of the same R.
        `tolerance` is relative to the drop of F along the whole front. Errors: ValueError for the
        convex family, which has no such front.
        """
        if self.family != "concave":
            raise ValueError("only the concave family has a Pareto front of attained minima")
        R, low, high = self.R(theta).item(), 0.0, 1.0
        slack = tolerance * (self.F(self.f) - self.F(self.r)).item()
        for _ in range(100):  # R of the minimiser falls as c rises
            c = 0.5 * (low + high)
            low, high = (c, high) if self.R(self.minimiser(c)).item() > R else (low, c)
        return self.F(self.minimiser(high)).item() > self.F(theta).item() + slack

    def best_rate(self, theta: Tensor, d: Tensor) -> float:
        """η* = ⟨g_R, d⟩/(d'A d), the exact minimiser of R along −d."""
        return (self.grad_R(theta) @ d / (d @ self.A @ d)).item()

    def retain_window(self, theta: Tensor, d: Tensor) -> float:
        """The largest η for which one step θ − ηd does not raise R: 2⟨g_R, d⟩/(d'A d)."""
        return 2 * self.best_rate(theta, d)

    def forget_window(self, theta: Tensor, d: Tensor) -> float:
        """The largest η for which one step θ − ηd does not lower F.

        It is ∞ for convex F and −2⟨g_F, d⟩/(d'B d) for concave.
        """
        return (
            math.inf
            if self.family == "convex"
            else (-2 * self.grad_F(theta) @ d / (d @ self.B @ d)).item()
        )


def walk(
    problem: Pair, direction: Direction, stepsize: StepSize, steps: int
) -> tuple[Tensor, list[Info]]:
    """The path θ₀ … θ_T of a run, (T + 1, n), and what each step saw.

    T < `steps` where a step made no update.
    """
    mine = problem.bind(direction, 0)
    step = UnlearningStep(mine.parameters, mine.optimizer(), direction, stepsize)
    path: list[Tensor] = [mine.model.detach().clone()]
    history: list[Info] = []
    while len(path) <= steps:
        history.append(step(*mine.batch(len(history))))
        if not history[-1].updated:
            break
        path.append(mine.model.detach().clone())
    return torch.stack(path), history


def pair(
    angle: float = 60.0,
    condition: float = 10.0,
    ratio: float = 1.0,
    dim: int = 2,
    family: str = "concave",
    seed: int = 0,
    norm: float = 1.0,
) -> Pair:
    """A pair with a given start geometry.

    The angle of (g_R, g_F) is in degrees (< 90 conflicts), and κ = ‖g_F‖/‖g_R‖ = `ratio`.

    A and B have eigenvalues spaced from 1 to `condition` in two seeded random bases; θ₀ = 0 and
    ‖g_R(θ₀)‖ = `norm`.
    """
    if not 0 <= angle <= 180 or condition < 1 or ratio <= 0 or dim < 2 or norm <= 0:
        raise ValueError(
            "pair needs 0 ≤ angle ≤ 180, condition ≥ 1, ratio > 0, dim ≥ 2 and norm > 0"
        )
    make = torch.Generator().manual_seed(seed)
    eigenvalues = torch.logspace(0, math.log10(condition), dim, dtype=torch.float64)
    A, B = (_rotated(eigenvalues, make) for _ in range(2))
    basis, _ = torch.linalg.qr(torch.randn(dim, 2, generator=make, dtype=torch.float64))
    t = math.radians(angle)
    g_R = norm * basis[:, 0]
    g_F = norm * ratio * (math.cos(t) * basis[:, 0] + math.sin(t) * basis[:, 1])
    start = torch.zeros(dim, dtype=torch.float64)
    sign = 1.0 if family == "convex" else -1.0
    r = -torch.linalg.solve(A, g_R)  # A(0 − r) = g_R
    f = -sign * torch.linalg.solve(B, g_F)  # s·B(0 − f) = g_F
    return Pair(A, B, r, f, start, family)


def _rotated(eigenvalues: Tensor, make: torch.Generator) -> Tensor:
    n = len(eigenvalues)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=make, dtype=torch.float64))
    M = Q @ torch.diag(eigenvalues) @ Q.T
    return 0.5 * (M + M.T)
