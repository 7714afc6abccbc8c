"""What the field's code computes where it differs from its formulas: for comparing with it, not for
unlearning well.

    PaddedKL      TOFU and open-unlearning: KL averaged over all positions of the padded batch,
                  prompts and padding too. TOFU pads to 500 tokens (`ngdiff losses` no further than
                  the model's context), open-unlearning to the longest row
    PaddedUNDIAL  open-unlearning: CE averaged over all predicted positions, where the missing label
                  −100 indexes the vocabulary from its end and lowers the logit of entry V − 100
    BroadcastRMU  open-unlearning: sums s (B,) over token counts n (B, 1) make a B×B matrix, so that
                  its mean is mean(s)·mean(1/n), not mean(s/n): rows of another length than the rest
                  get wrong weights

Without prompts and padding PaddedUNDIAL is its formula again, with answers of equal length
BroadcastRMU is. All other objectives of open-unlearning are the formulas. TOFU's DPO stands in a
branch that cannot run, without the factor 2/β: the convention "tofu" keeps the formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngdiff.lm.tokens import IGNORE
from ngdiff.methods import baselines
from ngdiff.methods.objectives import KL, Objective, Tokens


@dataclass(frozen=True)
class PaddedKL(KL):
    """R = Σ over all B·T positions of KL(start‖θ) / (B·T), nats; `kl_div(…, reduction="batchmean")`
    of flattened logits.
    """

    everywhere: ClassVar[bool] = True

    def counts(self, labels: Tensor) -> Tensor:
        return labels.new_full((len(labels),), labels.shape[1])

    def relabel(self, labels: Tensor, vocabulary: int) -> Tensor:
        return torch.zeros_like(labels[:, :1]).expand(
            -1, labels.shape[1] + 1
        )  # T labels, the last one's too


@dataclass(frozen=True)
class PaddedUNDIAL(baselines.UNDIAL):
    """F = −mean over all B·(T − 1) predicted positions of UNDIAL's CE, with entry V − 100 as the
    label where there is none.

    Errors: ValueError for a vocabulary of fewer than 100 entries, which that index misses.
    """

    everywhere: ClassVar[bool] = True

    def counts(self, labels: Tensor) -> Tensor:
        return labels.new_full((len(labels),), labels.shape[1] - 1)

    def relabel(self, labels: Tensor, vocabulary: int) -> Tensor:
        if vocabulary + IGNORE < 0:
            raise ValueError(
                f"a missing label, {IGNORE}, indexes no entry of a vocabulary of {vocabulary}: "
                "this convention needs at least 100 entries"
            )
        return torch.where(labels == IGNORE, vocabulary + IGNORE, labels)


class _Broadcast:
    def counts(self, labels: Tensor) -> Tensor:
        """B/Σⱼ(1/nⱼ) for each row: with sums s the value is Σs·Σ(1/n)/B²; float64."""
        n = (labels != IGNORE).sum(1).double()
        return n.new_full((len(n),), len(n) / (1 / n).sum().item())


@dataclass(frozen=True)
class BroadcastRMU(_Broadcast, baselines.RMU):
    """F = −mean(s)·mean(1/n), s the sum over a row's answer tokens of mean over d of (h − c·u)²."""

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        return super().sums(tokens, start) * baselines.lengths(tokens)


@dataclass(frozen=True)
class BroadcastRMURetain(_Broadcast, baselines.RMURetain):
    """R = mean(s)·mean(1/n), s the sum over a row's answer tokens of mean over d of (h −
    h_start)².
    """

    def sums(self, tokens: Tokens, start: Tensor | None) -> Tensor:
        return super().sums(tokens, start) * baselines.lengths(tokens)


# the definition's objective -> what the code of that convention computes in its place
TOFU: dict[type[Objective], type[Objective]] = {KL: PaddedKL}
OPEN_UNLEARNING: dict[type[Objective], type[Objective]] = {
    **TOFU,
    baselines.UNDIAL: PaddedUNDIAL,
    baselines.RMU: BroadcastRMU,
    baselines.RMURetain: BroadcastRMURetain,
}


def variant(table: dict[type[Objective], type[Objective]], objective: Objective) -> Objective:
    """Return what the table has in place of the objective, with the same settings, or itself."""
    other = table.get(type(objective))
    return other(**vars(objective)) if other else objective
