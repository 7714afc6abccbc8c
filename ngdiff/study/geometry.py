"""Where a run went, in gradient space: κ, ρ and the share of its steps inside Eq. 7.

κ = ‖g_F‖/‖g_R‖ and ρ = cos(g_R, g_F). Fixed weights c and 1 − c meet Eq. 7 where ρ ≤ 0, or where
c/(1 − c) lies in [ρκ, κ/ρ] (`ngdiff.theory`). So κ far from 1 with ρ > 0 is where weights that
adapt should help, and the share of steps inside says for which c they need not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]
WEIGHTS = (0.1, 0.5, 0.7, 0.9, 0.97, 0.99)
SHARES = (0.1, 0.5, 0.9)  # quantiles over the steps of a run


def inside(ratio: float, kappa: float, rho: float) -> bool:
    """Return whether the direction with a/b = ratio meets Eq. 7: ⟨d, g_R⟩ ≥ 0 ≥ ⟨d, g_F⟩.

    A ρ that rounding put above 1 counts as 1.
    """
    rho = min(rho, 1.0)
    return rho <= 0 or rho * kappa <= ratio <= kappa / rho


def summary(history: Sequence[Row]) -> Row:
    """Return quantiles of κ and ρ over the steps of a run, and its shares of steps inside Eq. 7.

    Keys: `kappa_50`, `rho_50`, …; `inside_0.5`, … for fixed weights; `inside_lossnorm` for the
    weights 1/R and 1/F. Steps with a gradient of zero, or with a number that is not finite (None in
    saved rows), are left out, and counted in `skipped`.
    """
    known = [h for h in history if _finite(h) and h["norm_R"] and h["norm_F"]]
    found: Row = {"steps": len(known), "skipped": len(history) - len(known)}
    if not known:
        return found
    kappa = [h["norm_F"] / h["norm_R"] for h in known]
    rho = [h["cosine"] for h in known]
    for name, values in (("kappa", kappa), ("rho", rho)):
        found |= {f"{name}_{round(100 * q)}": _quantile(values, q) for q in SHARES}

    def share(ratios: Sequence[float]) -> float:
        return sum(map(inside, ratios, kappa, rho)) / len(known)

    fixed = {f"inside_{c:g}": share([c / (1 - c)] * len(known)) for c in WEIGHTS}
    return found | fixed | {"inside_lossnorm": share([_lossnorm(h) for h in known])}


def _quantile(values: Sequence[float], q: float) -> float:
    """Return the q-quantile, linear between the order statistics."""
    place = q * (len(values) - 1)
    low, high = (sorted(values)[f(place)] for f in (math.floor, math.ceil))
    return low + (high - low) * (place - math.floor(place))


def _finite(h: Mapping[str, float | None]) -> bool:
    """Return whether losses and gradients of a step are known: neither None, NaN nor infinite."""
    values = (h[key] for key in ("retain", "forget", "norm_R", "norm_F", "cosine"))
    return all(value is not None and math.isfinite(value) for value in values)


def _lossnorm(h: Row) -> float:
    """Return a/b of LossNorm: (1/R)/(1/F)."""
    return h["forget"] / h["retain"] if h["retain"] else math.inf
