"""The forget objectives of the other baselines, and RMU's retain objective, in the convention of
`ngdiff.methods.objectives`.

Their papers minimise a loss; here F = −loss is ascended. p is the model's probability of an answer
token, and nll = −log p. logp is a row's summed log-probability, and n its number of answer tokens.
Where a part is detached (WGA, SatImp, CE-U) the gradient is not that of the value, which may fall
along it: read `forget_ce` in a run's history. What published code computes where it differs from
its formula is in `ngdiff.methods.variants`.

References: Rafailov et al. 2023, arXiv 2305.18290 and Maini et al. 2024, arXiv 2401.06121 (DPO on
refusals); Li et al. 2024, arXiv 2403.03218 (RMU); Dong et al. 2024, arXiv 2402.10052 (UNDIAL); Wang
et al. 2025, arXiv 2502.19301 (WGA); Yang et al. 2025, arXiv 2505.11953 (SatImp); Yang 2025, arXiv
2503.01224 (CE-U).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as fn

from ngdiff.lm.tokens import IGNORE
from ngdiff.methods.objectives import Objective, Tokens, positive, token_counts


@dataclass(frozen=True)
class DPO(Objective):
    """F = (2/β)·mean over rows of log σ(β[(logp − logp_start)(refusal) − (logp −
    logp_start)(answer)]); start: nll (2·rows,).

    Each row is a pair of texts, the forget answer and a refusal to the same question
    (`ngdiff.methods.refusals`), in one forward. Bounded above by 0; at the start F = −(2/β)·ln 2,
    as of NPO, which is this without the refusals.
    """

    beta: float = 0.1
    start: ClassVar[str | None] = "nll"
    pairs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive(self)

    def counts(self, labels: Tensor) -> Tensor:  # (2·rows, time) -> (rows,)
        return labels.new_ones(len(labels) // 2)

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        assert start is not None
        gained = (start - tokens.by_row(tokens.nll)).reshape(
            -1, 2
        )  # logp − logp_start of (answer, refusal)
        return 2 / self.beta * fn.logsigmoid(self.beta * (gained[:, 1] - gained[:, 0]))


@dataclass(frozen=True)
class UNDIAL(Objective):
    """F = −mean over tokens of CE(softmax(log p_start − β·onehot(label)), p_θ), nats; start: log p
    (N, V).

    Self-distillation from the start model with the label's logit lowered by β (of logits and of log
    p the softmax is the same). Bounded above by minus the targets' entropy: it converges, and needs
    no retain loss (published: α = 0, lr 1e-4).
    """

    beta: float = 10.0
    start: ClassVar[str | None] = "logp"

    def counts(self, labels: Tensor) -> Tensor:
        return token_counts(labels)

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        assert start is not None
        lowered = start.scatter_add(
            1, tokens.target[:, None], start.new_full((len(start), 1), -self.beta)
        )
        return tokens.by_row(-_cross_entropy(tokens.logits, lowered.softmax(-1)))


@dataclass(frozen=True)
class WGA(Objective):
    """F = mean over tokens of p^β·nll, p detached: weighted gradient ascent, which slows on a token
    as it is forgotten.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        positive(self, least=0.0)

    def counts(self, labels: Tensor) -> Tensor:
        return token_counts(labels)

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        return tokens.by_row((-self.beta * tokens.nll.detach()).exp() * tokens.nll)


@dataclass(frozen=True)
class SatImp(Objective):
    """F = mean over tokens of p^β1·(1 − p)^β2·nll, p detached: WGA that also passes over tokens
    known for certain.

    Published: γ = 0.1. On a target that knows every token by heart it starts slowly, p = 1 has
    weight 0.
    """

    beta1: float = 5.0
    beta2: float = 1.0

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            positive(self, name, least=0.0)

    def counts(self, labels: Tensor) -> Tensor:
        return token_counts(labels)

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        nll = tokens.nll.detach()
        missing = -torch.expm1(-nll)  # 1 − p
        return tokens.by_row((-self.beta1 * nll).exp() * missing**self.beta2 * tokens.nll)


@dataclass(frozen=True)
class CEU(Objective):
    """F = −mean over tokens of CE(q, p_θ), q the model's own detached softmax with the label's
    logit at −∞, nats.

    Its gradient in the logits is −p on the label and +p·q elsewhere: gradient ascent times p/(1 −
    p), the label's odds. The first token of each answer is left out, so an answer of one token
    counts 0; a batch of nothing else has F = 0.
    """

    def counts(self, labels: Tensor) -> Tensor:
        return ((labels != IGNORE).sum(1) - 1).clamp_min(0)

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        others = tokens.logits.detach().scatter(1, tokens.target[:, None], -math.inf)
        terms = _cross_entropy(tokens.logits, others.softmax(-1))
        return tokens.by_row(torch.where(tokens.order > 1, -terms, 0.0))


@dataclass(frozen=True)
class RMU(Objective):
    """F = −mean over rows of (1/n)·Σ over its answer tokens of mean over d of (h − c·u)²:
    representation misdirection.

    h: the output of block `layer` at the answer tokens. Blocks are counted from 0; a model with
    fewer blocks gives its last one. u = r/‖r‖ with r = torch.rand(1, 1, d) under
    torch.manual_seed(seed), so all its numbers are positive. Bounded above by 0. Only what lies
    below the layer has a gradient. open-unlearning trains all parameters; Li et al. down_proj of
    the layers ℓ − 2 … ℓ alone (`Method.trains`).
    """

    c: float = 2.0
    layer: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "layer", least=0)

    def counts(self, labels: Tensor) -> Tensor:
        return labels.new_ones(len(labels))

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        return -_distance(
            tokens, self.c * control(tokens.hidden.shape[-1], self.seed).to(tokens.hidden)
        )


@dataclass(frozen=True)
class RMURetain(Objective):
    """R = mean over rows of (1/n)·Σ over its answer tokens of mean over d of (h − h_start)²; start:
    activations (M, d).

    Its gradient at the start is exactly zero, as of KL; what another padding makes of it lies below
    `floor`.
    """

    layer: int = 7
    start: ClassVar[str | None] = "hidden"
    floor: ClassVar[float] = 4e-6

    def __post_init__(self) -> None:
        positive(self, "layer", least=0)

    def counts(self, labels: Tensor) -> Tensor:
        return labels.new_ones(len(labels))

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        assert start is not None
        return _distance(tokens, start)


@lru_cache(maxsize=16)
def control(d: int, seed: int = 0) -> Tensor:
    """RMU's direction u (d,), ‖u‖ = 1, on the host: its own generator, so no global one is
    touched.
    """
    r = torch.rand(1, 1, d, generator=torch.Generator().manual_seed(seed))
    return (r / r.norm()).reshape(d)


def lengths(tokens: Tokens) -> Tensor:
    """Answer tokens of each row, (rows,); 1 where there is none."""
    return torch.bincount(tokens.place, minlength=tokens.rows).clamp_min(1)


def _distance(tokens: Tokens, goal: Tensor) -> Tensor:
    """(1/n)·Σ over the tokens of a row of mean over d of (h − goal)², (rows,); goal (d,) or (M,
    d).
    """
    each = (tokens.hidden - goal).square().mean(-1)  # (M,)
    return each.new_zeros(tokens.rows).index_add(0, tokens.place, each) / lengths(tokens)


def _cross_entropy(logits: Tensor, q: Tensor) -> Tensor:
    """−Σ_v q(v) log p(v), (N,); q (N, V) sums to 1. A logit may be −∞ where q is 0."""
    return -torch.where(q == 0, 0.0, q * logits.log_softmax(-1)).sum(-1)
