"""In which precision a forward computes: what the weights are, and what the graph shows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

COARSE = (torch.float16, torch.bfloat16)


def check(params: Sequence[Tensor], exact: bool) -> None:
    """Look at the weights that a step will move. exact: the optimizer keeps them in float32.

    Errors: ValueError for float16. Warns of bfloat16 weights without an exact copy.
    """
    kinds = [p.dtype for p in params]
    if torch.float16 in kinds:
        raise ValueError(f"{kinds.count(torch.float16)} trained tensors are float16: {_INSTEAD}")
    if torch.bfloat16 in kinds and not exact:
        warnings.warn(
            f"{kinds.count(torch.bfloat16)} of {len(kinds)} trained tensors are bfloat16, which "
            "keeps 8 bits of a number: at usual learning rates most weights do not move at all. "
            "Use ng.Master(parameters, make) as the optimizer, which keeps them exactly "
            "(ng.Engine(precision='bfloat16') does), or float32 weights under torch.autocast",
            stacklevel=3,
        )


def of_graph(loss: Tensor) -> torch.dtype | None:
    """The coarse precision in which a forward computed, or None for float32 and finer.

    Read off the graph of its loss. So autocast is seen wherever it was entered: in the callable, or
    in a forward that somebody wrapped. Only code inside `torch.compile` hides it.
    Errors: ValueError for float16.
    """
    found: set[torch.dtype] = set()
    todo = [loss.grad_fn]
    known = set(todo)
    while todo:
        node = todo.pop()
        if node is not None:
            found.update(meta.dtype for meta in node._input_metadata)
            new = {next_ for next_, _ in node.next_functions} - known
            known |= new
            todo += new
    if torch.float16 in found:
        raise ValueError(f"the forward computes in float16: {_INSTEAD}")
    return torch.bfloat16 if torch.bfloat16 in found else None


_INSTEAD = (
    "small gradients vanish in it, and a loss scaler skips steps unseen. Use float32, or bfloat16 "
    "by torch.autocast(…, dtype=torch.bfloat16) or ng.Master"
)
