"""Gradient norms of texts, row by row: the membership attack `gradnorm`.

The obvious way takes a backward for each text. But the rows of a batch are independent, so one
backward to the outputs of all layers serves them all. A row's own gradient of a weight follows from
the layer's input a and the gradient b of its output, each (time, size):

    linear     Σ_t b_t a_tᵀ  (bias Σ_t b_t)
    embedding  b_t added up at the token of t
    norm       Σ_t b_t ⊙ x̂_t (bias Σ_t b_t), x̂ what the weight multiplies

A tensor that several layers share has the sum of theirs. The first two kinds are sums Σ_t u_t v_tᵀ,
of an embedding with u_t the token's unit vector. Short texts need not add them up:

    ‖Σ_t u_t v_tᵀ‖² = Σ_{s,t} (u_s·u_t)(v_s·v_t)

That is less work. It also rounds less than the float32 sum of a large tensor's squares, unless the
terms of a text cancel nearly all of each other.

Rows are taken one by one in two cases: where a model holds a trainable tensor of another kind, and
where a batch of two does not give what its rows give alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from ngdiff.core import vector
from ngdiff.core.probe import evaluating
from ngdiff.engine.linear import quick
from ngdiff.evaluation.padding import batches, pad, visible
from ngdiff.evaluation.stats import start
from ngdiff.evaluation.ways import FAILS, ways
from ngdiff.lm.tokens import Example

BUDGET = 1024  # tokens of a batch, padding included
PIECE = 2**21  # numbers of rows' gradients that exist at once, or one row's
CLOSE = 1e-3  # part by which rounding may move a norm; another formula moves it by far more


def gradient_norms(
    model: Any, examples: Sequence[Example], blind: int | None = None
) -> list[float]:
    """Per text: mean over parameter tensors of ‖∂ℓ/∂tensor‖₂, ℓ the mean NLL without the final EOS.

    Trainable tensors that the loss depends on count, tied ones once; `.grad` is not touched. +∞
    where it is not finite (collapsed model), NaN for an answer without a token before EOS or a
    model without trainable tensors.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    asked = [i for i, e in enumerate(examples) if parameters and len(e) - 1 > start(e)]
    asked.sort(key=lambda i: len(examples[i]))
    lengths = [len(examples[i]) - 2 for i in asked]
    norms = [float("nan")] * len(examples)
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        layers = _tried(model, parameters, [examples[i] for i in asked[:2]], blind)
        for batch in batches(lengths, range(len(asked)), BUDGET if layers else 1):
            rows = [examples[asked[k]] for k in batch]
            if layers and len(rows) > 1:
                found = _together(model, layers, rows, blind)
            else:
                found = [_alone(model, parameters, row, blind) for row in rows]
            for k, norm in zip(batch, found, strict=True):
                norms[asked[k]] = norm if np.isfinite(norm) else float("inf")
    return norms


def _alone(
    model: Any, parameters: list[nn.Parameter], example: Example, blind: int | None
) -> float:
    """Return the mean norm of one text, by a backward of its own."""
    begin, ids = start(example), torch.tensor(example.input_ids, device=model.device)
    seen = ids[None, :-2]
    mask = None if blind is None else visible(seen, torch.ones_like(seen), blind)
    logits = model(input_ids=seen, attention_mask=mask, use_cache=False).logits[0, begin - 1 :]
    loss = nn.functional.cross_entropy(logits.float(), ids[begin:-1])
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return float(torch.stack([g.float().norm() for g in found if g is not None]).mean())


# Many rows by one backward
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """What a layer was given, what it made of it, and the gradient of that."""

    layer: nn.Module
    given: Tensor
    made: Tensor

    def factors(self, b: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return u and v, (batch, time, size) each, of the weight's gradient Σ_t u_t v_tᵀ.

        b  gradient of the output, (batch, time, size)
        An embedding's u are its tokens, (batch, time). None for a norm.
        """
        a, b = self.given, b.float()
        if isinstance(self.layer, nn.Embedding):
            return a, b
        if isinstance(self.layer, nn.Linear):
            return b, a.float()
        return (a.float(), b) if isinstance(self.layer, Conv1D) else None

    def add(self, name: str, b: Tensor, rows: slice, total: Tensor | None) -> Tensor:
        """Return the rows' gradients of the layer's weight or bias, added to `total`.

        b  gradient of the output, (batch, time, size)
        The result is (rows, *shape).
        """
        a, b = self.given[rows], b[rows].float()
        if isinstance(self.layer, nn.Embedding):
            n, size = self.layer.weight.shape
            place = torch.arange(len(a), device=a.device)[:, None] * n + a
            table = b.new_zeros(len(a) * n, size) if total is None else total.view(-1, size)
            return table.index_add_(0, place.flatten(), b.flatten(0, 1)).view(len(a), n, size)
        own = b.sum(1) if name == "bias" else self._weight(a, b)
        return own if total is None else total.add_(own)

    def _weight(self, a: Tensor, b: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return b.transpose(1, 2) @ a.float()
        if isinstance(self.layer, Conv1D):
            return a.float().transpose(1, 2) @ b
        fills = (torch.ones_like, torch.zeros_like)
        scaled, shifted = (
            functional_call(self.layer, {"weight": fill(self.layer.weight)}, a) for fill in fills
        )
        return (b * (scaled - shifted).float()).sum(1)


def _tried(
    model: Any, parameters: list[nn.Parameter], rows: list[Example], blind: int | None
) -> list[nn.Module]:
    """Return the layers by which a batch gives what its rows give alone; [] where it does not."""
    if len(rows) < 2 or not ways(model).pads or (layers := _layers(model)) is None:
        return []
    alone = [_alone(model, parameters, row, blind) for row in rows]
    try:
        found = _together(model, layers, rows, blind)
    except FAILS as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return []
    return layers if np.allclose(found, alone, rtol=CLOSE, atol=0.0, equal_nan=True) else []


def _layers(model: Any) -> list[nn.Module] | None:
    """Return the layers with trainable tensors; None where one is of a kind not known here."""
    found = []
    for layer in model.modules():
        own = {name for name, p in layer.named_parameters(recurse=False) if p.requires_grad}
        if not own:
            continue
        plain = isinstance(layer, (nn.Linear, nn.Embedding, Conv1D))
        norm = "Norm" in type(layer).__name__ and layer.weight.dim() == 1
        if not (plain or norm) or own - {"weight", "bias"}:
            return None
        found.append(layer)
    return found


@contextmanager
def _watched(layers: list[nn.Module]) -> Iterator[list[Use]]:
    """Record what passes through the layers."""
    uses: list[Use] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        uses.append(Use(layer, given[0].detach(), made))

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield uses
    finally:
        for hook in hooks:
            hook.remove()


def _together(
    model: Any, layers: list[nn.Module], rows: list[Example], blind: int | None
) -> list[float]:
    """Return the mean norm of each row by one backward.

    Raises ValueError where a layer does not see the rows apart.
    """
    begins = [start(row) for row in rows]
    ids, mask = pad([row.input_ids[:-2] for row in rows], "right", model.device)
    time, first = ids.shape[1], min(begins) - 1
    inputs: dict[str, Tensor] = {}
    if ways(model).continues:  # it is given positions, so that each row has its own
        inputs["position_ids"] = torch.arange(time, device=ids.device).expand(len(rows), time)
    if blind is not None:
        inputs["attention_mask"] = visible(ids, mask, blind)
    with quick(model, weights=False), _watched(layers) as uses:
        output = model(input_ids=ids, **inputs, use_cache=False, logits_to_keep=time - first)
    if any(len(u.given) != len(rows) or u.made.dim() != 3 for u in uses):
        raise ValueError("a layer joins the rows of a batch")
    loss = _losses(output.logits[:, first - time :], rows, first).sum()
    back = torch.autograd.grad(loss, [use.made for use in uses], allow_unused=True)
    return _norms([(u, b) for u, b in zip(uses, back, strict=True) if b is not None], len(rows))


def _losses(logits: Tensor, rows: list[Example], first: int) -> Tensor:
    """Return the mean NLL of each row, (rows,), from the logits of position `first` and later."""
    begins = [start(row) for row in rows]
    owner = [b for b, row in enumerate(rows) for _ in row.input_ids[begins[b] : -1]]
    place = [
        t - 1 - first for b, row in zip(begins, rows, strict=True) for t in range(b, len(row) - 1)
    ]
    labels = [token for b, row in zip(begins, rows, strict=True) for token in row.input_ids[b:-1]]
    owner_, place_, labels_ = (
        torch.tensor(x, device=logits.device) for x in (owner, place, labels)
    )
    nll = nn.functional.cross_entropy(logits[owner_, place_].float(), labels_, reduction="none")
    total = nll.new_zeros(len(rows)).index_add(0, owner_, nll)
    return total / owner_.bincount(minlength=len(rows))


@torch.no_grad()
def _norms(uses: list[tuple[Use, Tensor]], rows: int) -> list[float]:
    """Return the mean over tensors of each row's gradient norm."""
    parts: dict[nn.Parameter, list[tuple[str, Use, Tensor]]] = {}
    for use, b in sorted(uses, key=lambda pair: isinstance(pair[0].layer, nn.Embedding)):
        for name, p in use.layer.named_parameters(recurse=False):
            if p.requires_grad:
                parts.setdefault(p, []).append((name, use, b))
    norms = []
    for p, shares in parts.items():
        pairs = [use.factors(b) if name == "weight" else None for name, use, b in shares]
        short = [b.shape[1] * sum(p.shape) < p.numel() for _, _, b in shares]
        if all(short) and None not in pairs:
            norms.append(_by_products(pairs))
            continue
        adds = [partial(use.add, name, b) for name, use, b in shares]
        size = max(1, PIECE // p.numel())
        pieces = [slice(i, i + size) for i in range(0, rows, size)]
        norms.append(torch.cat([_summed(adds, piece).norm(dim=1) for piece in pieces]))
    return torch.stack(norms).mean(0).tolist()


def _by_products(pairs: list[Any]) -> Tensor:
    """Return ‖Σ_t u_t v_tᵀ‖ of each row, (rows,), from the factors of all layers that share it."""
    device = pairs[0][1].device
    square = torch.zeros((), dtype=vector.wide(device), device=device)
    for i, (u, v) in enumerate(pairs):
        for j, (u_, v_) in enumerate(pairs[: i + 1]):
            product = (_products(u, u_) * (v @ v_.mT)).sum((1, 2), dtype=square.dtype)
            square = square + (product if i == j else 2 * product)
    return square.clamp(min=0.0).sqrt().float()


def _products(u: Tensor, v: Tensor) -> Tensor:
    """Return u_s·v_t, (rows, time of u, time of v), where tokens stand for their unit vectors."""
    if u.dim() == v.dim() == 2:
        return (u[:, :, None] == v[:, None]).float()
    if u.dim() == 2:
        return _products(v, u).mT
    if v.dim() == 2:
        return u.gather(2, v[:, None].expand(-1, u.shape[1], -1))
    return u @ v.mT


def _summed(shares: list[Any], rows: slice) -> Tensor:
    """Return the rows' gradients of one tensor, (rows, numbers), over all layers that hold it."""
    total = None
    for add in shares:
        total = add(rows, total)
    return total.flatten(1)
