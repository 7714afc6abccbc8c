"""Two-task rules of other papers, written from their own formulas on gradient vectors.

They are what ours are tested against.

Tasks are the rows of G = (g_1, g_2) = (g_R, −g_F), both to be descended: the minus sign of the
forget objective is already in. Nothing here is used by a training step; `ngdiff.core.directions`
holds the closed forms on the Gramian.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tasks(g_R: Tensor, g_F: Tensor) -> Tensor:
    """(g_R, −g_F) as rows, (2, n)."""
    return torch.stack([g_R, -g_F])


def imtl_g(G: Tensor) -> Tensor:
    """The combination Σαᵢgᵢ, Σαᵢ = 1, with equal projections on every task's unit gradient, (n,).

    α_{2:} = g_1 U'(D U')⁻¹ with D = g_1 − g_i, U = u_1 − u_i (Liu et al., "Towards impartial
    multi-task learning", ICLR 2021, section 3.1).
    """
    u = G / G.norm(dim=1, keepdim=True)
    U, D = u[:1] - u[1:], G[:1] - G[1:]  # (tasks − 1, n)
    rest = torch.linalg.solve(U @ D.T, U @ G[0])  # (tasks − 1,)
    return (1 - rest.sum()) * G[0] + rest @ G[1:]


def config(G: Tensor) -> Tensor:
    """Conflict-free direction: g_v = unit(pinv(U)·1), scaled by Σᵢ⟨gᵢ, g_v⟩, (n,).

    U holds the unit gradients in its rows (Liu et al., "ConFIG", ICLR 2025, equation of the
    operator G).
    """
    u = G / G.norm(dim=1, keepdim=True)
    v = torch.linalg.pinv(u) @ u.new_ones(len(u))
    v = v / v.norm()
    return (G @ v).sum() * v


def pcgrad(G: Tensor) -> Tensor:
    """Each task's gradient projected off the other where they conflict, then summed, (n,).

    Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020, algorithm 1 (two tasks: no
    order to draw).
    """
    total = torch.zeros_like(G[0])
    for i, j in ((0, 1), (1, 0)):
        g, inner = G[i], G[i] @ G[j]
        total = total + (g - inner / (G[j] @ G[j]) * G[j] if inner < 0 else g)
    return total


def shortest(G: Tensor, iterations: int = 80) -> Tensor:
    """The shortest vector between two gradients by ternary search: MGDA's direction, (n,).

    Désidéri 2012; Sener & Koltun, NeurIPS 2018. ‖a·g_1 + (1−a)·g_2‖² is convex in a.
    """
    low, high = 0.0, 1.0
    for _ in range(iterations):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if _length(G, left) < _length(G, right):
            high = right
        else:
            low = left
    a = min((0.0, 1.0, 0.5 * (low + high)), key=lambda a: _length(G, a))
    return a * G[0] + (1 - a) * G[1]


def _length(G: Tensor, a: float) -> float:
    return (a * G[0] + (1 - a) * G[1]).norm().item()
