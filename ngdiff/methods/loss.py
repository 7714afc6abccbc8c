"""An objective on rows of tokens: one forward, and each row's addend of the loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ngdiff.core import sharding, vector
from ngdiff.core.losses import Loss
from ngdiff.core.probe import evaluating
from ngdiff.core.processes import Processes
from ngdiff.engine.engine import blocks
from ngdiff.engine.linear import quick
from ngdiff.lm.tokens import Example, collate
from ngdiff.methods.objectives import Objective, Tokens, start_values


class RowsLoss(Loss):
    """An objective on some rows of a batch: calling it gives each row's addend, (rows,), whose sum
    is the loss.

    total, tokens: the whole batch's count and number of labelled tokens (this may be one of its
    microbatches). After a call, `ce` is the cross-entropy of the same forward (of pairs, that of
    the answers), and `floor` is the objective's rounding noise. idle: these rows count nothing. A
    process without a row of its own needs them, since it must make the forward too.
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        batch: dict[str, Any],
        start: Tensor | None,
        total: float,
        tokens: int,
        idle: bool = False,
    ) -> None:
        self.model, self.objective, self.batch, self.start = model, objective, batch, start
        self.total, self.tokens, self.floor = total, tokens, objective.floor
        self.ce: Tensor | None = None
        self.idle = idle

    def __call__(self) -> Tensor:
        tokens, seen = forward(self.model, self.batch, self.objective)
        nll = tokens.nll[tokens.row % 2 == 0] if self.objective.pairs else tokens.nll
        self.ce = nll.detach().sum() / self.tokens
        self.floor = self.objective.floor * tokens.coarse
        rows = self.objective.sums(seen, self.start) / self.total
        if self.objective.layer is not None and isinstance(
            self.model, nn.parallel.DistributedDataParallel
        ):
            rows = (
                rows + 0.0 * tokens.nll.sum()
            )  # DDP waits for a gradient of every parameter, above the layer too
        if self.idle:
            self.ce, rows = torch.zeros_like(self.ce), 0.0 * rows
        return rows


def batch_of(
    examples: Sequence[Example],
    pad_id: int,
    device: torch.device,
    whole: bool = False,
    width: int | None = None,
) -> dict[str, Any]:
    """Return ids and mask on the device, labels on the host, and `first`. That is the column that
    predicts the first labelled token of the batch (0 where the whole batch is wanted). width:
    columns it has at least.
    """
    batch: dict[str, Any] = collate(examples, pad_id, width=width)
    for key in ("input_ids", "attention_mask"):
        batch[key] = batch[key].to(device, non_blocking=True)
    return batch | {"first": 0 if whole else max(min(len(e.prompt_ids) for e in examples) - 1, 0)}


def forward(model: Any, batch: dict[str, Any], objective: Objective) -> tuple[Tokens, Tokens]:
    """The labelled tokens of a batch, and what the objective looks at (the same, unless it looks
    `everywhere`).

    The columns before the first labelled token, which are prompt in every row, get no logits.
    """
    first, ids, labels = batch["first"], batch["input_ids"], batch["labels"]
    keep = ids.shape[1] - first
    with _output(model, objective.layer) as found, quick(model):
        # (rows, keep, vocabulary); the mask by name: GPT-2 and Falcon have another second argument
        logits = model(
            ids, attention_mask=batch["attention_mask"], use_cache=False, logits_to_keep=keep
        ).logits
    tokens = Tokens(logits, labels[:, first:], found[0][:, first:] if found else None)
    if not objective.everywhere:
        return tokens, tokens
    return tokens, Tokens(logits, objective.relabel(labels, logits.shape[-1]))


@torch.no_grad()
def mean_of(parts: Sequence[Sequence[RowsLoss]], model: nn.Module, processes: Processes) -> float:
    """Return an objective now, a mean over all that the parts count: no dropout, no gradient.

    parts: batches, each as the losses that add up to it.
    """
    wide = vector.wide(next(model.parameters()).device)
    torch.clear_autocast_cache()  # else autocast shows the weights of before
    with evaluating(model):
        sums = [loss().to(wide) * loss.total for part in parts for loss in part]
    for shard in sharding.shards_of(model):
        shard.reshard()  # else the next forward would see the weights of now
    total = sum(part[0].total for part in parts)
    return float(processes.rows(torch.cat(sums)).sum()) / total


def start_of(model: Any, batch: dict[str, Any], objective: Objective) -> list[Tensor]:
    """Return what the objective must know of the start model, a tensor a text (`start_values`)."""
    assert objective.start is not None
    with torch.no_grad():
        return start_values(objective.start, forward(model, batch, objective)[1])


@contextmanager
def _output(model: nn.Module, layer: int | None) -> Iterator[list[Tensor]]:
    """A list that a forward inside fills with the output of that block (of a model with fewer, the
    last), (rows, time, d).
    """
    found: list[Tensor] = []
    if layer is None:
        yield found
        return
    if not (layers := blocks(model)):
        raise ValueError(
            f"{type(model).__name__} has no list of blocks, so that none of its layers is layer "
            f"{layer}"
        )
    block = layers[min(layer, len(layers) - 1)]
    hook = block.register_forward_hook(
        lambda m, given, out: found.append(out if isinstance(out, Tensor) else out[0])
    )
    try:
        yield found
    finally:
        hook.remove()
