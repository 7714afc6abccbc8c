"""Problems on which learning-rate rules are compared, none of which a rule was made for.

Each starts where unlearning starts: at, or near, a minimum of the retain loss R. A run is over when
the forget loss F has reached `level`. The models know their rows by heart: MLP, Llama and its LoRA
adapter are trained here, from a fixed seed, on random rows.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ngdiff.core.loop import Make

Rows = Callable[[Any, Sequence[int]], Tensor]  # a loss per row, (rows,)


@dataclass
class Rowed:
    """A `Problem` of rows: R and F are means over rows, in batches of `batch_size`.

    model: a module, or a parameter tensor. R, F: a loss per row. n: retain and forget rows.
    level: of F, where a run is over. steps: updates that a run may take.
    """

    name: str
    model: Any
    R: Rows
    F: Rows
    n: tuple[int, int]
    level: float
    batch_size: int = 16
    steps: int = 150
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module: nn.Module | None = self.model if isinstance(self.model, nn.Module) else None
        every = self.model.parameters() if self.module else [self.model]
        self.parameters: Sequence[Tensor] = [p for p in every if p.requires_grad]

    def bind(self, method: Any, seed: int) -> Rowed:
        """A copy at the start, with an order of rows of its own."""
        fresh = self.model.detach().clone().requires_grad_() if self.module is None else None
        return replace(self, model=copy.deepcopy(self.model) if fresh is None else fresh, seed=seed)

    def batch(self, step: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        retain, forget = (self._take(step, which) for which in (0, 1))
        return self._mean(self.R, retain), self._mean(self.F, forget)

    def probe(self, step: int, fresh: int) -> Callable[[], Tensor] | None:
        own = self._take(step, 0)
        size = min(fresh * len(own), self.n[0] - len(own))
        if not size:
            return None
        order = torch.randperm(self.n[0], generator=_generator(self.seed, step, 2)).tolist()
        others = [i for i in order if i not in own][:size]
        return self._mean(self.R, others)

    def optimizer(self, make: Make | None = None) -> torch.optim.Optimizer:
        return make(self.parameters) if make else torch.optim.SGD(self.parameters, lr=1.0)

    def retain(self, model: Any) -> float:
        """R over all retain rows."""
        with torch.no_grad():
            return float(self.R(model, range(self.n[0])).mean())

    def _mean(self, loss: Rows, rows: Sequence[int]) -> Callable[[], Tensor]:
        return lambda: loss(self.model, rows) / len(rows)

    def _take(self, step: int, which: int) -> list[int]:
        n, size = self.n[which], min(self.batch_size, self.n[which])
        epoch, at = divmod(step * size, n)
        rows = [*_order(n, self.seed, epoch, which), *_order(n, self.seed, epoch + 1, which)]
        return rows[at : at + size]


@functools.cache
def _order(n: int, seed: int, epoch: int, which: int) -> tuple[int, ...]:
    return tuple(torch.randperm(n, generator=_generator(seed, epoch, which)).tolist())


def _generator(*seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(hash(seed) % 2**31)


# ------------------------------------------------------------------------------------ closed forms
def quadratic(kappa: float, n: int = 20) -> Rowed:
    """R = ½(θ−r)'A(θ−r), eigenvalues 1 … 1/κ; F = ½‖θ−f‖²; θ starts near r."""
    g = _generator(7)
    Q = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))[0]
    A = Q @ torch.diag(torch.logspace(0, -math.log10(kappa), n, dtype=torch.float64)) @ Q.T
    f = torch.randn(n, generator=g, dtype=torch.float64)
    f = f / f.norm()
    start = 0.1 * torch.randn(n, generator=g, dtype=torch.float64)

    def R(theta: Tensor, rows: Sequence[int]) -> Tensor:
        return (0.5 * theta @ A @ theta)[None]

    def F(theta: Tensor, rows: Sequence[int]) -> Tensor:
        return (0.5 * ((theta - f) ** 2).sum())[None]

    return Rowed(f"quadratic {kappa:g}", start, R, F, (1, 1), level=2.0, batch_size=1)


def rosenbrock(n: int = 10) -> Rowed:
    """R = Σ 10(θ₂ᵢ − θ₂ᵢ₋₁²)² + (1 − θ₂ᵢ₋₁)², whose minimum is at 1; F = ½‖θ − 1.1‖²."""
    start = 1 + 0.1 * torch.randn(n, generator=_generator(8), dtype=torch.float64)

    def R(theta: Tensor, rows: Sequence[int]) -> Tensor:
        x, y = theta[::2], theta[1::2]
        return (10 * (y - x * x) ** 2 + (1 - x) ** 2).sum()[None]

    def F(theta: Tensor, rows: Sequence[int]) -> Tensor:
        return (0.5 * ((theta - 1.1) ** 2).sum())[None]

    return Rowed("rosenbrock", start, R, F, (1, 1), level=2.0, batch_size=1)


# ------------------------------------------------------------------------------------------ models
def _trained(model: nn.Module, loss: Callable[[], Tensor], lr: float, to: float) -> None:
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(params, lr=lr)
    for _ in range(3000):
        optimizer.zero_grad()
        value = loss()
        if value.item() < to:
            return
        value.backward()
        optimizer.step()
    raise RuntimeError(f"the model did not learn its rows: loss {value.item():.3g}, not {to:.3g}")


def _classifier(name: str, width: int, rows: int, random: bool, to: float) -> Rowed:
    """A linear model (width 0) or an MLP on Gaussian inputs; labels are random or a plane's."""
    g = _generator(9, width)
    x, classes = torch.randn(rows, 20, generator=g), 10 if random else 2
    y = torch.randint(classes, (rows,), generator=g)
    if not random:
        y = (x @ torch.randn(20, generator=g) + torch.randn(rows, generator=g) > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Linear(20, width), nn.ReLU(), nn.Linear(width, classes)]
        model = nn.Sequential(*layers) if width else nn.Sequential(nn.Linear(20, classes))

    def per_row(offset: int) -> Rows:
        def loss(m: nn.Module, rows: Sequence[int]) -> Tensor:
            chosen = [offset + i for i in rows]
            return nn.functional.cross_entropy(m(x[chosen]), y[chosen], reduction="none")

        return loss

    kept = rows * 3 // 4
    _trained(model, lambda: per_row(0)(model, range(rows)).mean(), 1e-2, to)
    return Rowed(name, model, per_row(0), per_row(kept), (kept, rows - kept), math.log(classes))


def logistic() -> Rowed:
    """Logistic regression with noisy labels, at R ≈ 0.3; the level is ln 2, chance."""
    return _classifier("logistic", 0, 256, random=False, to=0.37)


def mlp() -> Rowed:
    """An MLP that knows 96 random labels by heart (R ≈ 0.003); the level is ln 10, chance."""
    return _classifier("mlp", 64, 96, random=True, to=3e-3)


@functools.cache
def _llama() -> tuple[nn.Module, Tensor]:
    from transformers import LlamaConfig, LlamaForCausalLM

    g = _generator(10)
    texts = torch.randint(256, (48, 24), generator=g)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = LlamaForCausalLM(config)
    _trained(model, lambda: _texts(model, texts).mean(), 3e-3, 0.01)
    return model.eval(), texts


def _texts(model: nn.Module, texts: Tensor) -> Tensor:
    logits = model(input_ids=texts, use_cache=False).logits[:, :-1]
    rows = nn.functional.cross_entropy(logits.transpose(1, 2), texts[:, 1:], reduction="none")
    return rows.mean(1)


def llama(lora: int = 0) -> Rowed:
    """A Llama of 0.1M parameters that knows 48 random texts by heart (R ≈ 0.01).

    The level is ln 256, chance. lora: the rank of an adapter that alone is moved.
    """
    model, texts = _llama()
    model = copy.deepcopy(model)
    if lora:
        from peft import LoraConfig, get_peft_model

        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = get_peft_model(
                model, LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear")
            )

    def per_row(offset: int) -> Rows:
        return lambda m, rows: _texts(m, texts[[offset + i for i in rows]])

    name = "llama lora" if lora else "llama"
    return Rowed(name, model, per_row(0), per_row(32), (32, 16), math.log(256), batch_size=8)


PROBLEMS: Mapping[str, Callable[[], Rowed]] = {
    "quadratic 10": functools.partial(quadratic, 10),
    "quadratic 100": functools.partial(quadratic, 100),
    "quadratic 1000": functools.partial(quadratic, 1000),
    "rosenbrock": rosenbrock,
    "logistic": logistic,
    "mlp": mlp,
    "llama": llama,
    "llama lora": functools.partial(llama, 8),
}
ORDERED = ("logistic", "mlp", "llama", "llama lora")  # those with rows, which come in an order
OPTIMIZERS: Mapping[str, Make] = {
    "sgd": functools.partial(torch.optim.SGD, lr=1.0),
    "momentum": functools.partial(torch.optim.SGD, lr=1.0, momentum=0.9),
    "adamw": functools.partial(torch.optim.AdamW, lr=1.0, weight_decay=0.01),
}
