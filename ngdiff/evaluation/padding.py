"""Rows of tokens as one tensor: padding, masks of what is real, batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

CACHE = 2**29  # bytes


def context(model: Any) -> int | None:
    """Return the longest sequence the model takes, in tokens; None where it sets none."""
    return getattr(model.config, "max_position_embeddings", None)


def room(model: Any) -> int:
    """Return how many tokens a cache may hold: 16384, or more where these are less than CACHE."""
    config = model.config.get_text_config()
    layers, size = (getattr(config, name, 0) for name in ("num_hidden_layers", "hidden_size"))
    token = 2 * layers * size * model.dtype.itemsize  # at most: keys and values of all heads
    return max(16384, CACHE // token if token else 0)


def pad(rows: Sequence[Sequence[int]], side: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """ids and attention mask, (batch, time); the mask comes from the lengths. Padding is id 0:
    never attended to.
    """
    time = max(map(len, rows))
    ids = torch.zeros(len(rows), time, dtype=torch.long)
    mask = torch.zeros(len(rows), time, dtype=torch.long)
    for b, row in enumerate(rows):
        real = slice(0, len(row)) if side == "right" else slice(time - len(row), time)
        ids[b, real], mask[b, real] = torch.tensor(row, dtype=torch.long), 1
    return ids.to(device), mask.to(device)


def visible(ids: Tensor, mask: Tensor, blind: int | None) -> Tensor:
    """The mask without the token `blind`, which is taken for padding wherever it stands
    (open-unlearning's way).
    """
    return mask if blind is None else mask * (ids != blind)


def positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)  # (batch, time): real tokens before this one


def batches(lengths: Sequence[int], order: Iterable[int], budget: int) -> Iterator[list[int]]:
    """Runs of `order` whose padded size, rows × longest, stays within `budget` tokens (one row
    always fits).
    """
    batch: list[int] = []
    longest = 0
    for i in order:
        if batch and (len(batch) + 1) * max(longest, lengths[i]) > budget:
            yield batch
            batch, longest = [], 0
        batch.append(i)
        longest = max(longest, lengths[i])
    if batch:
        yield batch
