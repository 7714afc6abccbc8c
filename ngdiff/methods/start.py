"""Outputs of the start model on the rows: stored where they are small, else computed anew.

NPO and DPO need one number of the start for each row. RMU needs a layer's activations. KL and
UNDIAL need the log-probabilities of the whole vocabulary at each answer token. These are 200 kB a
token for a vocabulary of 50 000, and about 50 GB for the rows of TOFU. What would take more than
`KEPT` bytes is not kept. The start model is in memory all the time, and computes it again for each
microbatch. That costs one more forward. Either way the values are float32 at least, so no accuracy
is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ngdiff.core.probe import evaluating
from ngdiff.lm.tokens import IGNORE, Example
from ngdiff.methods.loss import start_of
from ngdiff.methods.objectives import Objective

if TYPE_CHECKING:
    from ngdiff.lm.model import LM

KEPT = 2**32  # bytes that a host is asked to hold, for the forget and the retain rows each
WIDTH = 4  # bytes of a value


def said(lm: LM, batch: dict[str, Any], objective: Objective) -> list[Tensor]:
    """Return the start model's outputs on a batch, a tensor per row, on the host."""
    with evaluating(lm.model), lm.without_adapter():
        values = start_of(lm.model, batch, objective)
    if objective.pairs:
        values = [torch.cat(pair) for pair in zip(values[::2], values[1::2], strict=True)]
    return [value.cpu() for value in values]


def bytes_of(objective: Objective, texts: Sequence[Example], config: Any) -> int:
    """Bytes of the start values of these texts. config: of the model."""
    if objective.start is None:
        return 0
    if objective.start == "nll":
        return WIDTH * len(texts)
    tokens = sum(sum(label != IGNORE for label in text.labels) for text in texts)
    return WIDTH * tokens * (config.vocab_size if objective.start == "logp" else config.hidden_size)


def keeps(objective: Objective, bytes_: int) -> bool:
    """Return whether so many bytes of start values are kept.

    Those of an objective that looks everywhere depend on the very batch, and never are.
    """
    return objective.start is not None and not objective.everywhere and bytes_ <= KEPT


class Starts:
    """Values that are kept, by objective and row; shared by all runs on one problem."""

    def __init__(self) -> None:
        self.values: dict[tuple[Any, int, bool], Tensor] = {}

    def ask(
        self,
        lm: LM,
        objective: Objective,
        chosen: Sequence[int],
        forget: bool,
        many: tuple[int, int],
        batch: Callable[[Sequence[int]], dict[str, Any]],
    ) -> None:
        """Store the start's outputs on the rows `chosen`, in every process: forwards may be shared.

        many: (rows in all, rows per forward). Rows always share a forward with the same others:
        padding changes the last bits of a row, and a resumed run must get the same values.
        """
        kind, (n, size) = kind_of(objective), many
        missing = sorted({i // size for i in chosen if (kind, i, forget) not in self.values})
        for members in (range(n)[g * size : (g + 1) * size] for g in missing):
            values = said(lm, batch(members), objective)
            found = zip(members, values, strict=True)
            self.values.update({(kind, i, forget): value for i, value in found})

    def of(self, objective: Objective, chosen: Sequence[int], forget: bool) -> list[Tensor]:
        """Return what was kept of these rows."""
        return [self.values[kind_of(objective), i, forget] for i in chosen]


def kind_of(objective: Objective) -> tuple[Any, ...]:
    """Return which start values are an objective's."""
    return objective.start, objective.pairs, objective.layer
