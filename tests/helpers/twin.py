"""Small models and optimizers to hold the fast step against its twin (`ngdiff.theory.twin`)."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ngdiff.theory.twin import flat_gradient, twin_direction, twin_step

__all__ = [
    "OPTIMIZERS",
    "Lion",
    "Net",
    "NetProblem",
    "flat_gradient",
    "twin_direction",
    "twin_step",
]


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023: θ ← θ − η(sign(β₁m + (1−β₁)g) + λθ), m ← β₂m + (1−β₂)g."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta_1, beta_2 = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                sign = (beta_1 * m + (1 - beta_1) * p.grad).sign()
                p.sub_(group["lr"] * (sign + group["weight_decay"] * p))
                m.mul_(beta_2).add_(p.grad, alpha=1 - beta_2)


OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.05),
    "momentum": lambda params: torch.optim.SGD(
        params, lr=0.05, momentum=0.9, weight_decay=0.02, nesterov=True
    ),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.05, weight_decay=0.1),
    "lion": lambda params: Lion(params, lr=0.05),
}


class Net(nn.Module):
    """A small net with everything a step meets.

    A tied layer, a frozen one, a head for each phase, dropout.
    """

    def __init__(self, dtype=torch.float64, dropout=0.0, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 6)
            self.tied = nn.Linear(6, 6)
            self.frozen = nn.Linear(6, 6).requires_grad_(False)
            self.head_R, self.head_F = nn.Linear(6, 3), nn.Linear(6, 3)
            self.x_R, self.x_F = torch.randn(16, 5, dtype=dtype), torch.randn(16, 5, dtype=dtype)
            self.y_R, self.y_F = torch.randint(3, (16,)), torch.randint(3, (16,))
            # token weights
            self.n_R, self.n_F = (
                torch.rand(16, dtype=dtype) + 0.1,
                torch.rand(16, dtype=dtype) + 0.1,
            )
        self.tied.weight = self.two.weight
        self.drop = nn.Dropout(dropout)
        self.to(dtype)
        self.calls = []  # (phase, rows, training, gradients on) of every forward

    def rows(self, phase, chosen=slice(None)):
        """Each row's addend of the token-weighted mean cross-entropy."""
        x, y, n, head = (getattr(self, f"{name}_{phase}") for name in ("x", "y", "n", "head"))
        self.calls.append((phase, len(y[chosen]), self.training, torch.is_grad_enabled()))
        h = self.drop(
            self.frozen(self.tied(self.two(self.one(x[chosen]).tanh()).tanh()).tanh()).tanh()
        )
        nll = nn.functional.cross_entropy(head(h), y[chosen], reduction="none")
        return nll * n[chosen] / n.sum()

    def R(self):
        return self.rows("R").sum()

    def F(self):
        return self.rows("F").sum()

    def micro(self, phase, parts):
        """The phase as `parts` microbatches."""
        return [lambda c=c: self.rows(phase, c) for c in torch.arange(16).chunk(parts)]

    def trained(self):
        return [p for p in self.parameters() if p.requires_grad]


class NetProblem:
    """`Net` as a `Problem`: phases of 8 rows in two microbatches, and probes of the 8 others."""

    def __init__(self, dropout=0.0, seed=0, dtype=torch.float64):
        self.model = Net(dtype, dropout, seed)
        self.module, self.probed = self.model, []

    def __repr__(self):
        return "NetProblem()"

    @property
    def options(self):
        return {}

    @property
    def parameters(self):
        return self.model.trained()

    def bind(self, method, seed):
        bound = NetProblem()
        bound.model = bound.module = copy.deepcopy(self.model)
        bound.seed, bound.probed = seed, self.probed
        return bound

    def _phase(self, name, step, others=False):
        make = torch.Generator().manual_seed(1000 * self.seed + step)
        order = torch.randperm(16, generator=make)
        chosen = order[8:] if others else order[:8]
        return [lambda c=c: self.model.rows(name, c) for c in chosen.chunk(2)]

    def batch(self, step):
        return self._phase("R", step), self._phase("F", step)

    def probe(self, step, fresh):
        self.probed.append((step, fresh))
        return self._phase("R", step, others=True)

    def optimizer(self, make=None):
        return (
            make(self.parameters)
            if make
            else torch.optim.AdamW(self.parameters, lr=0.01, weight_decay=0.1)
        )
