"""Random families for the property tests: pairs of gradients, and pairs of quadratics that name
their own kind of F.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from ngdiff.theory.quadratics import Pair, pair

FAMILIES = pytest.mark.parametrize("family", ["concave", "convex"])
SEEDS = st.integers(0, 10**6)
DIMS = st.integers(2, 12)


@st.composite
def gradients(draw, scale: float = 6.0, conflict: bool = False) -> tuple[Tensor, Tensor]:
    """Any two gradients: dimension 2–20, angle 1e-4–180°, norm ratio 10^±scale.

    conflict: only ρ > 0, an angle below 90°.
    """
    dim, seed = draw(st.integers(2, 20)), draw(SEEDS)
    t = math.radians(10 ** draw(st.floats(-4, 1.95)) if conflict else draw(st.floats(1e-4, 180)))
    make = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(dim, 2, generator=make, dtype=torch.float64))
    g_R, g_F = basis[:, 0], math.cos(t) * basis[:, 0] + math.sin(t) * basis[:, 1]
    return g_R * 10 ** draw(st.floats(-scale, scale)), g_F * 10 ** draw(st.floats(-scale, scale))


@st.composite
def pairs(draw, family: str, condition: float = 3.0, ratio: float = 3.0, dims=DIMS) -> Pair:
    """Any quadratic pair: start angle 1–179°, condition up to 10^condition, κ up to 10^±ratio."""
    return pair(
        angle=draw(st.floats(1, 179)),
        condition=10 ** draw(st.floats(0, condition)),
        ratio=10 ** draw(st.floats(-ratio, ratio)),
        dim=draw(dims),
        family=family,
        seed=draw(SEEDS),
    )


def vec(*x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def somewhere(P: Pair, seed: int = 0) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    return P.start + 0.3 * torch.randn(len(P.start), generator=make, dtype=torch.float64)
