"""Retain and forget objectives of language models.

An objective is a sum over the rows of a batch divided by a count: value = Σᵢ sums[i] / Σᵢ
counts[i]. So a batch that is cut into microbatches gives the same value and gradient as the whole.
A retain objective is minimised. A **forget objective is ascended**: NPO and SimNPO therefore return
minus the loss their papers minimise.

`start` names what the objective needs from the model before unlearning: nothing (None), the summed
NLL of each row ("nll"), the log-probabilities at each answer token ("logp"), or a layer's
activations there ("hidden"). It is stored where it is small (`ngdiff.methods.start`). `floor` is
the gradient norm that is rounding noise for it. The other baselines are in
`ngdiff.methods.baselines`.

References: Zhang et al. 2024, arXiv 2404.05868 (NPO); Fan et al. 2024, arXiv 2410.07163 (SimNPO);
Maini et al. 2024, arXiv 2401.06121 (gradient ascent, difference and KL on TOFU).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as fn

from ngdiff.lm.tokens import IGNORE


class Tokens:
    """The labelled tokens of a batch, flattened: `logits` (N, V) in float32 at least, `target`,
    `row` (N,) of each.

    hidden: a layer's activations (rows, time, d), kept at the labelled tokens themselves: `hidden`
    (M, d) in float32 at least, `place` (M,) the row of each. Labels on the host spare a device a
    look at them: which tokens are labelled is known without asking it.
    """

    def __init__(self, logits: Tensor, labels: Tensor, hidden: Tensor | None = None) -> None:
        if hidden is not None:
            answer = (labels != IGNORE).nonzero(as_tuple=True)  # rows, times; (M,) each
            self.place, time = (at.to(hidden.device, non_blocking=True) for at in answer)
            self.hidden = hidden[self.place, time].to(
                torch.promote_types(hidden.dtype, torch.float32)
            )
        self.labels = labels
        labels = labels[:, 1:]  # the logits at t − 1 predict the token at t
        keep = (labels != IGNORE).nonzero(as_tuple=True)  # rows, times; (N,) each
        row, time = (at.to(logits.device, non_blocking=True) for at in keep)
        self.logits = logits[row, time].to(torch.promote_types(logits.dtype, torch.float32))
        # how much more noise than float32's the logits carry (autocast, half-precision weights): 1,
        # or 4096 for bfloat16. Of rounding errors 65536 times as large; a floor of 1e-5 has a
        # margin over float32's noise that bfloat16's, .006 to .015 on the tiny target, does not
        # need: a sixteenth of it leaves three times that.
        self.coarse = max(torch.finfo(logits.dtype).eps / torch.finfo(torch.float32).eps / 16, 1.0)
        self.target, self.row, self.rows = (
            labels[keep].to(logits.device, non_blocking=True),
            row,
            len(labels),
        )

    @cached_property
    def nll(self) -> Tensor:
        """−log p of each token, (N,)."""
        return fn.cross_entropy(self.logits, self.target, reduction="none")

    @cached_property
    def order(self) -> Tensor:
        """The position of each labelled token among those of its row, from 1, (N,)."""
        answer = self.labels != IGNORE
        return answer.cumsum(1)[:, 1:][answer[:, 1:]].to(self.row.device, non_blocking=True)

    def by_row(self, values: Tensor) -> Tensor:
        """Σ of a per-token value (N,) over each row, (rows,)."""
        return values.new_zeros(self.rows).index_add(0, self.row, values)


def token_counts(labels: Tensor) -> Tensor:
    """Labelled tokens of each row that have a prediction, (rows,)."""
    return (labels[:, 1:] != IGNORE).sum(1)


class Objective(ABC):
    """What every objective declares: `counts(labels)` and `sums(tokens, start)`, one number a
    row each.

    pairs: a row brings two texts, its answer and a refusal, which lie side by side in the batch
    (rows 2i and 2i + 1).
    layer: the block whose output it looks at, None for none; of a model with fewer blocks the last
    one.
    everywhere: it looks at all positions of the padded batch, as `relabel` labels them: such an
    objective depends on the padding, so its batch cannot be cut.
    """

    start: ClassVar[str | None] = None
    floor: ClassVar[float] = 0.0
    pairs: ClassVar[bool] = False
    everywhere: ClassVar[bool] = False
    layer: int | None = None

    @abstractmethod
    def counts(self, labels: Tensor) -> Tensor: ...  # (rows, time) -> (rows,)

    @abstractmethod
    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor: ...  # -> (rows,)

    def relabel(self, labels: Tensor, vocabulary: int) -> Tensor:
        return labels


@dataclass(frozen=True)
class CE(Objective):
    """Cross-entropy per answer token: Σ nll / n, nats. Retain: minimised; forget: ascended
    (unbounded above).
    """

    start: ClassVar[str | None] = None
    floor: ClassVar[float] = 0.0

    def counts(self, labels: Tensor) -> Tensor:
        return token_counts(labels)

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        return tokens.by_row(tokens.nll)


@dataclass(frozen=True)
class KL(Objective):
    """KL(start‖θ) per answer token: Σ_v p_start(v)(log p_start(v) − log p_θ(v)), nats; start: log p
    (N, V).

    Its gradient in the logits is given as p_θ − p_start. Through log_softmax it would be p_θ·Σ
    p_start − p_start, which is off by rounding. At the start the gradient is zero, and NGDiff would
    scale that rounding up to unit norm. Here it is exactly zero on a batch as the start saw it.
    Another padding changes the last bits, which lie below `floor` and count as zero.
    """

    start: ClassVar[str | None] = "logp"
    floor: ClassVar[float] = 1e-5

    def counts(self, labels: Tensor) -> Tensor:
        return token_counts(labels)

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        logp, p_start = tokens.logits.detach().log_softmax(-1), start.exp()  # (N, V)
        gap = logp.exp() - p_start
        line = torch.where(gap == 0, 0.0, gap * tokens.logits).sum(
            -1
        )  # has the gradient; a logit may be −∞
        terms = torch.where(p_start == 0, 0.0, p_start * (start - logp))  # 0·log 0 = 0
        return tokens.by_row(terms.sum(-1) + (line - line.detach()))


class _EachRow(Objective):
    """A mean over rows, whatever their length, with a positive field `beta`."""

    def __post_init__(self) -> None:
        positive(self)

    def counts(self, labels: Tensor) -> Tensor:
        return torch.ones(len(labels), dtype=torch.long, device=labels.device)


@dataclass(frozen=True)
class NPO(_EachRow):
    """F = (2/β)·mean over rows of log σ(β(nll − nll_start)), nll summed over the answer; start: nll
    (rows,).

    Bounded above by 0: ascent slows down as a row is forgotten. At the start F = −(2/β)·ln 2.
    """

    beta: float = 0.1
    start: ClassVar[str | None] = "nll"

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        return 2 / self.beta * fn.logsigmoid(self.beta * (tokens.by_row(tokens.nll) - start))


@dataclass(frozen=True)
class SimNPO(_EachRow):
    """F = (2/β)·mean over rows of log σ(β(nll/n − δ)): NPO without a start model, on the mean NLL
    of the answer.
    """

    beta: float = 4.5
    delta: float = 0.0
    start: ClassVar[str | None] = None

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        mean = tokens.by_row(tokens.nll) / tokens.by_row(torch.ones_like(tokens.nll))
        return 2 / self.beta * fn.logsigmoid(self.beta * (mean - self.delta))


def start_values(kind: str, tokens: Tokens) -> list[Tensor]:
    """Return the start model's outputs on a batch, a tensor per row: its summed NLL (1,), log p (n,
    V) or activations (n, d).
    """
    if kind == "nll":
        return list(tokens.by_row(tokens.nll).reshape(-1, 1))
    if kind == "hidden":
        return list(
            tokens.hidden.split(torch.bincount(tokens.place, minlength=tokens.rows).tolist())
        )
    return list(
        tokens.logits.log_softmax(-1).split(
            torch.bincount(tokens.row, minlength=tokens.rows).tolist()
        )
    )


def positive(objective: Objective, name: str = "beta", least: float | None = None) -> None:
    """ValueError unless that field is above 0, or at least `least` where that is given."""
    value = getattr(objective, name)
    wanted = "> 0" if least is None else f"≥ {least:g}"
    if not (value > 0 if least is None else value >= least):
        raise ValueError(f"{type(objective).__name__} needs {name} {wanted}, got {value}")
