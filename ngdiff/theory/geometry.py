"""The geometry of two gradients: Gramian, angle, a rule's direction, Eq. 7, and the metric of Adam.

Notation: d = a·g_R − b·g_F, ρ = cos(g_R, g_F), κ = ‖g_F‖/‖g_R‖, Eq. 7: ⟨d, g_R⟩ ≥ 0 ≥ ⟨d, g_F⟩.
`theorems` states what holds in it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ngdiff.core.directions import Direction


def gram(g_R: Tensor, g_F: Tensor) -> Tensor:
    """Gramian of (g_R, g_F), (2, 2)."""
    g = torch.stack([g_R, g_F])
    return g @ g.T


def combined(
    rule: Direction, g_R: Tensor, g_F: Tensor, losses: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """d = a·g_R − b·g_F of a rule, (n,)."""
    a, b = rule.weights(gram(g_R, g_F), g_R.new_tensor(losses))
    return a * g_R - b * g_F


def angle_ratio(g_R: Tensor, g_F: Tensor) -> tuple[float, float]:
    """(ρ, κ)."""
    n_R, n_F = g_R.norm(), g_F.norm()
    return (g_R / n_R @ (g_F / n_F)).item(), (n_F / n_R).item()


def eq7(d: Tensor, g_R: Tensor, g_F: Tensor, slack: float = 0.0) -> bool:
    """⟨d, g_R⟩ ≥ 0 ≥ ⟨d, g_F⟩, up to `slack` times the size of the vectors."""
    size = slack * d.norm()
    return bool(d @ g_R >= -size * g_R.norm()) and bool(d @ g_F <= size * g_F.norm())


def adam_metric(g: Tensor, v: Tensor, t: int, beta2: float, eps: float) -> Tensor:
    """P of Adam at step t ≥ 1 when it is given g and remembers v: √v̂ + ε, a diagonal, (n,)."""
    return ((beta2 * v + (1 - beta2) * g * g) / (1 - beta2**t)).sqrt() + eps


def own_metric(
    g_R: Tensor, g_F: Tensor, v: Tensor, t: int = 1, beta2: float = 0.999, eps: float = 1e-8
) -> Tensor:
    """9. The gradient a·g_R − b·g_F with a‖g_R‖ = b‖g_F‖ in the metric P⁻¹ of the very step that
    Adam (no momentum) makes of it. P depends on a and b: the balance changes sign between b = 0 and
    a = 0, and bisection finds its root.
    """
    low, high, u_R, u_F = 0.0, math.pi / 2, g_R / g_R.norm(), g_F / g_F.norm()
    for _ in range(100):
        middle = 0.5 * (low + high)
        a, b = math.cos(middle), math.sin(middle)
        P = adam_metric(a * u_R - b * u_F, v, t, beta2, eps)
        more = a * a * (u_R * u_R / P).sum() > b * b * (u_F * u_F / P).sum()
        low, high = (middle, high) if more else (low, middle)
    return math.cos(low) * u_R - math.sin(low) * u_F
