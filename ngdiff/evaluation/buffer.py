"""The key/value cache of a generation, in place: a token is written behind the others, not joined.

At each token the cache of transformers joins a layer's keys and values to the new token's. That
copies all of them, and asks the system for new memory. Here a layer has room for BLOCK tokens more,
and a finished row's place is taken by the last row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

BLOCK = 32  # tokens: small, so that what is read lies close together in memory


class Buffer(DynamicLayer):
    """A `DynamicLayer` that writes into storage of its own.

    keys, values  views of what is there, (rows, heads, time, size)
    """

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values = layer.keys, layer.values
        self.storage: list[Any] = [layer.keys, layer.values]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        held = (self.keys, self.values)
        self.keys, self.values = (
            self._written(i, old, new)
            for i, (old, new) in enumerate(zip(held, (key_states, value_states), strict=True))
        )
        return self.keys, self.values

    def _written(self, i: int, old: Tensor, new: Tensor) -> Tensor:
        """Return the old tokens with the new ones behind them; storage grows where it must."""
        rows, heads, begin, size = old.shape
        end = begin + new.shape[-2]
        if end > self.storage[i].shape[-2]:
            self.storage[i] = old.new_empty(rows, heads, end + BLOCK - 1, size)
            self.storage[i][:, :, :begin] = old
        self.storage[i][:rows, :, begin:end] = new
        return self.storage[i][:rows, :, :end]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, in this order; a row that keeps its place is not copied."""
        place = torch.arange(len(beam_idx), device=beam_idx.device)
        moved = beam_idx != place
        for i, (name, held) in enumerate((("keys", self.keys), ("values", self.values))):
            if moved.any():
                self.storage[i][place[moved], :, : held.shape[-2]] = held[beam_idx[moved]]
            setattr(self, name, self.storage[i][: len(beam_idx), :, : held.shape[-2]])


def in_place(cache: Any) -> Any:
    """Return the cache with each layer of the plain kind, which grows by joining, as a `Buffer`."""
    cache.layers = [
        Buffer(layer) if type(layer) is DynamicLayer and layer.is_initialized else layer
        for layer in cache.layers
    ]
    return cache
