"""Direction rules: how a retain gradient and a forget gradient become one update direction.

Every rule returns two weights, and the direction is d = a·g_R − b·g_F; θ ← θ − η·d lowers the
retain loss R and raises the forget objective F. A rule sees only the Gramian of (g_R, g_F) and the
two loss values. That is the *dynamic scalarization* of the paper. It is also the interface of
TorchJD's weightings, so any multi-task rule written against a Gramian fits in.

Notation: ρ = cos(g_R, g_F), κ = ‖g_F‖/‖g_R‖. F is ascended, hence **ρ > 0 is conflict**. The
condition every step should meet (Eq. 7 of the paper) is ⟨d, g_R⟩ ≥ 0 ≥ ⟨d, g_F⟩.

References: Bu, Jin et al., "Unlearning as multi-task optimization", NAACL 2025 (NGDiff); Yu et al.,
NeurIPS 2020 (PCGrad); Désidéri 2012 and Sener & Koltun, NeurIPS 2018 (MGDA); Liu et al., ICLR 2021
(IMTL-G) and Liu et al., ICLR 2025 (ConFIG), with which NGDiff coincides on the two tasks (R, −F).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Direction(Protocol):
    """A rule of two weights."""

    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """(a, b), shape (2,), from the Gramian (2, 2) of (g_R, g_F) and the losses (R, F), (2,)."""
        ...


@dataclass(frozen=True)
class GradAscent:
    """Gradient ascent on the forget loss alone: d = −g_F. Nothing holds the retain loss down."""

    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        return gram.new_tensor([0.0, 1.0])


@dataclass(frozen=True)
class GradDiff:
    """Static scalarization: d = c·g_R − (1−c)·g_F.

    Meets Eq. 7 for every c when ρ ≤ 0, and otherwise only for c/(1−c) ∈ [ρκ, κ/ρ]. That interval
    moves with κ, and narrows as ρ → 1. Whether a fixed c leaves it depends on the data.
    """

    c: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.c <= 1.0:
            raise ValueError(f"GradDiff needs 0 ≤ c ≤ 1, got c={self.c}")

    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        return gram.new_tensor([self.c, 1.0 - self.c])


@dataclass(frozen=True)
class Sum:
    """Plain sum: d = g_R − g_F, for methods whose objectives carry their own scale (KL, NPO)."""

    retain: float = 1.0
    forget: float = 1.0

    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        return gram.new_tensor([self.retain, self.forget])


@dataclass(frozen=True)
class LossNorm:
    """Normalise by the losses: d = g_R/|R| − g_F/|F|, the gradient of log|R| − log|F|.

    A loss of zero has no such weight; the step refuses it with an error before anything changes.
    """

    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        return 1.0 / losses.abs().to(gram)


@dataclass(frozen=True)
class NGDiff:
    """Normalised gradient difference: d = g_R/‖g_R‖ − g_F/‖g_F‖.

    ⟨g_R, d⟩ = ‖g_R‖(1 − ρ) ≥ 0 ≥ ⟨g_F, d⟩ = −‖g_F‖(1 − ρ): to first order R never rises and F never
    falls, whatever the scales of the two losses. ‖d‖² = 2 − 2ρ, so d = 0 only when the gradients
    align (ρ = 1). A gradient that is zero has no direction, and gets weight 0.
    """

    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        norm = gram.diagonal().sqrt()  # ‖g_R‖, ‖g_F‖
        return torch.where(norm > 0, 1.0 / norm, torch.zeros_like(norm))


@dataclass(frozen=True)
class PCGrad:
    """Projection of conflicting gradients: a = 1 + ρκ, b = 1 + ρ/κ when ρ > 0, else a = b = 1."""

    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        square, conflict = gram.diagonal(), gram[0, 1].clamp_min(0.0)
        return 1.0 + torch.where(square > 0, conflict / square, torch.zeros_like(square))


@dataclass(frozen=True)
class MGDA:
    """The shortest convex combination of (g_R, −g_F), with weights a and b = 1 − a.

    a = clip((‖g_F‖² + g_R·g_F)/‖g_R + g_F‖², 0, 1).
    """

    def weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        length = gram.sum()  # ‖g_R + g_F‖²
        # ‖g_F‖² + g_R·g_F, ‖g_R‖² + g_R·g_F; as 1 − a, a small b would be lost
        other = gram.sum(0).flip(0)
        weights = (other / length).clamp(0.0, 1.0)
        # written so that an unknown angle (NaN) gives no weights rather than wrong ones
        return torch.where(length <= 0, torch.full_like(other, 0.5), weights)
