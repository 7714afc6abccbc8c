"""One row at a time, in bfloat16: how SemEval's evaluator runs a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ngdiff.core.probe import evaluating
from ngdiff.lm.tokens import IGNORE, Example


@contextlib.contextmanager
def rounded(model: Any, dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """Round the parameters to `dtype` as loading in it does, then restore the very same tensors.

    Buffers stay as they are.
    """
    kept = [(p, p.data) for p in model.parameters() if p.is_floating_point() and p.dtype != dtype]
    try:
        for p, own in kept:
            p.data = own.to(dtype)
        yield
    finally:
        for p, own in kept:
            p.data = own


@torch.inference_mode()
def likelihood(model: Any, example: Example) -> np.ndarray:
    """Return the log-probabilities of the labelled tokens, (tokens,), from one plain forward.

    It is the evaluator's: in bfloat16 every other way gives other digits.
    """
    with evaluating(model):
        ids = torch.tensor([example.input_ids], device=model.device)
        logits = model(input_ids=ids).logits[0, :-1].float()  # (time - 1, vocabulary)
    labels = torch.tensor(example.labels[1:], device=logits.device)
    asked = labels != IGNORE
    logp = logits[asked].log_softmax(-1).gather(1, labels[asked, None])
    return logp.squeeze(1).cpu().numpy()
