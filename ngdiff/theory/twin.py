"""The obvious NGDiff, slow and plain: clone the gradients, flatten them, compute in float64.

The reference beside the fast step: every way `ngdiff.core.step` runs (memory modes, microbatches,
masters, adapters, several processes) is tested against these few lines. Nothing else uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ngdiff.core.directions import Direction


def flat_gradient(
    loss: Callable[[], Tensor] | Sequence[Callable[[], Tensor]], params: Sequence[Tensor]
) -> Tensor:
    """The gradient of Σ loss() as one float64 vector (n,), zeros where a parameter has none."""
    value = torch.stack([part().sum() for part in ([loss] if callable(loss) else loss)]).sum()
    grads = torch.autograd.grad(value, list(params), allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).double().reshape(-1)
            for p, g in zip(params, grads, strict=True)
        ]
    )


def twin_direction(
    params: Sequence[Tensor],
    retain_loss: Callable[[], Tensor],
    forget_loss: Callable[[], Tensor],
    rule: Direction | None = None,
) -> Tensor:
    """d (n,) float64: NGDiff written out, or any rule on the Gramian of the flat gradients."""
    g_R, g_F = flat_gradient(retain_loss, params), flat_gradient(forget_loss, params)
    if rule is None:
        return g_R / g_R.norm() - g_F / g_F.norm()
    losses = torch.tensor(
        [loss().sum().item() for loss in (retain_loss, forget_loss)], dtype=torch.float64
    )
    G = torch.stack([g_R, g_F])
    a, b = rule.weights(G @ G.T, losses)
    return a * g_R - b * g_F


def twin_step(params: Sequence[Tensor], optimizer: torch.optim.Optimizer, d: Tensor) -> None:
    """Give d to the optimizer and step."""
    for p, part in zip(params, torch.split(d, [p.numel() for p in params]), strict=True):
        p.grad = part.reshape(p.shape).to(p.dtype)
    optimizer.step()
