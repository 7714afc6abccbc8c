"""The statements behind NGDiff, one function each.

A function checks its statement on what it is given and raises AssertionError with the numbers where
it fails. Tests and notebooks call the same functions.

Notation: d = a·g_R − b·g_F, θ ← θ − η·d, ρ = cos(g_R, g_F), κ = ‖g_F‖/‖g_R‖, Eq. 7: ⟨d, g_R⟩ ≥ 0 ≥
⟨d, g_F⟩. Each function returns the worst error it saw, relative to the terms of the identity, or
the outcome it found. Float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.directions import MGDA, Direction, GradDiff, NGDiff, PCGrad
from ngdiff.core.parabola import fit, parabola
from ngdiff.core.stepsize import Line, StepSize
from ngdiff.theory import oracles
from ngdiff.theory.geometry import adam_metric, angle_ratio, combined, eq7, gram, own_metric
from ngdiff.theory.quadratics import Pair, walk

EPS = torch.finfo(torch.float64).eps
# η* at every step, on a quadratic
EXACT = ThreePoint(lr=1.0, every=1)
# the same with the search and the clips of the default, on R alone
SAFE = AutoLR(lr=1e-3, slack=0.0, every=1, fresh=0)


def close(found: float, wanted: float, scale: float, what: str, tolerance: float = 1e-12) -> float:
    """|found − wanted|/scale, at most `tolerance`."""
    error = abs(found - wanted) / scale if scale > 0 else abs(found - wanted)
    assert error <= tolerance, (
        f"{what}: {found!r}, not {wanted!r} (off by {error:.1e} of {scale:.3g})"
    )
    return error


# ------------------------------------------------------------------------------------ 1 to 4: rules
def products(g_R: Tensor, g_F: Tensor) -> float:
    """1. ⟨d,g_R⟩ = ‖g_R‖(1−ρ), ⟨d,g_F⟩ = −‖g_F‖(1−ρ), ‖d‖² = 2−2ρ.

    So Eq. 7 holds for any gradients, and ‖d‖ measures the conflict.
    """
    d, (rho, _) = combined(NGDiff(), g_R, g_F), angle_ratio(g_R, g_F)
    n_R, n_F = g_R.norm().item(), g_F.norm().item()
    assert eq7(d / 2, g_R, g_F, 16 * EPS / max(d.norm().item(), EPS)), f"Eq. 7 fails at ρ = {rho!r}"
    return max(
        close((d @ g_R).item(), n_R * (1 - rho), n_R, "⟨d, g_R⟩"),
        close((d @ g_F).item(), -n_F * (1 - rho), n_F, "⟨d, g_F⟩"),
        close((d @ d).item(), 2 - 2 * rho, 1.0, "‖d‖²"),
    )


def interval(g_R: Tensor, g_F: Tensor) -> tuple[float, float]:
    """The ratios c/(1−c) with which static scalarization meets Eq. 7.

    [0, ∞] if ρ ≤ 0, else [ρκ, κ/ρ].
    """
    rho, kappa = angle_ratio(g_R, g_F)
    return (0.0, math.inf) if rho <= 0 else (rho * kappa, kappa / rho)


def static_interval(g_R: Tensor, g_F: Tensor, c: float, margin: float = 1e-9) -> float:
    """2. A static c meets Eq. 7 iff c/(1−c) lies in the interval. Its geometric centre is κ,
    NGDiff's own ratio. Its ends are a factor 1/ρ² apart, so it closes as ρ → 1. Returns that
    factor. (Within `margin` of an end: no claim.)
    """
    (low, high), (rho, kappa) = interval(g_R, g_F), angle_ratio(g_R, g_F)
    ratio = c / (1 - c) if c < 1 else math.inf
    meets = eq7(combined(GradDiff(c), g_R, g_F), g_R, g_F)
    if abs(rho) > margin and low * (1 + margin) <= ratio <= high * (1 - margin):
        assert meets, f"c = {c}: ratio {ratio} lies in [{low}, {high}], yet Eq. 7 fails"
    if ratio < low * (1 - margin) or ratio > high * (1 + margin):
        assert not meets, f"c = {c}: ratio {ratio} lies outside [{low}, {high}], yet Eq. 7 holds"
    if rho > margin:
        a, b = NGDiff().weights(gram(g_R, g_F), g_R.new_ones(2)).tolist()
        close(math.sqrt(low) * math.sqrt(high), a / b, kappa, "centre of the interval")
        close(high / low, rho**-2, rho**-2, "width of the interval")
    return high / low if rho > 0 else math.inf


def same_as_multitask(g_R: Tensor, g_F: Tensor) -> float:
    """3. On (R, −F) the direction is IMTL-G's, ConFIG's and MGDA's on unit gradients.

    The oracles are written from their papers, for −1 < ρ < 1. At ρ = 1 there is no such direction,
    and at ρ = −1 IMTL-G divides 0 by 0.
    """
    d, G = combined(NGDiff(), g_R, g_F), oracles.tasks(g_R, g_F)
    unit, worst, (rho, kappa) = d / d.norm(), 0.0, angle_ratio(g_R, g_F)
    others = {
        "IMTL-G": oracles.imtl_g(G),
        "ConFIG": oracles.config(G),
        "MGDA on unit gradients": oracles.shortest(G / G.norm(dim=1, keepdim=True)),
    }
    for name, other in others.items():
        rounding = 64 * EPS * (kappa + 1 / kappa) / math.sqrt(1 + rho)
        # a search for a minimum sees half the digits
        tolerance = 1e-6 if "MGDA" in name else rounding
        error = (unit - other / other.norm()).norm().item() * d.norm().item()
        worst = max(worst, close(error, 0.0, 1.0, f"NGDiff against {name}", tolerance))
    return worst


def projections(g_R: Tensor, g_F: Tensor) -> float:
    """4. PCGrad's and MGDA's closed forms are the papers' projections and the shortest vector.

    Both meet Eq. 7.
    """
    G = oracles.tasks(g_R, g_F)
    d, e = combined(PCGrad(), g_R, g_F), combined(MGDA(), g_R, g_F)
    for name, v in (("PCGrad", d), ("MGDA", e)):
        scale = (g_R.norm() + g_F.norm()) / v.norm() if v.norm() > 0 else 1.0
        assert eq7(v, g_R, g_F, float(16 * EPS * scale)), f"{name} breaks Eq. 7"
    shortest, size = oracles.shortest(G).norm().item(), (g_R.norm() + g_F.norm()).item()
    return max(
        close((d - oracles.pcgrad(G)).norm().item(), 0.0, size, "PCGrad"),
        close(
            e.norm().item(),
            shortest,
            min(g_R.norm(), g_F.norm()).item(),
            "length of MGDA's direction",
            1e-9,
        ),
    )


# ------------------------------------------------------------------------------- 5 to 7: step sizes
def one_step(P: Pair, theta: Tensor, d: Tensor, eta: float) -> float:
    """5. R(θ−ηd) = R − η⟨g_R,d⟩ + ½η²d'H_R d and the same for F, exactly on quadratics; R falls iff
    0 < η < its window 2⟨g_R,d⟩/(d'H_R d), and F rises iff η < its own (every η if F is convex).
    Windows are stated for ⟨g_R,d⟩ > 0 > ⟨g_F,d⟩.
    """
    worst = 0.0
    for name, value, g, H in (
        ("R", P.R, P.grad_R(theta), P.A),
        ("F", P.F, P.grad_F(theta), P.sign * P.B),
    ):
        terms = [value(theta), -eta * (g @ d), 0.5 * eta**2 * (d @ H @ d)]
        found, scale = value(theta - eta * d).item(), sum(t.abs() for t in terms).item()
        worst = max(
            worst, close(found, sum(terms).item(), scale, f"{name} after a step of η = {eta}")
        )
        window = P.retain_window(theta, d) if name == "R" else P.forget_window(theta, d)
        better = (terms[1] + terms[2]).item() * (-1 if name == "R" else 1)
        rising = terms[1].item() * (-1 if name == "R" else 1) > 0
        if rising and abs(eta / window - 1) > 1e-9:
            assert (better > 0) == (eta < window), (
                f"{name} at η = {eta}, window {window}: better by {better}"
            )
    return worst


class Ray(Line):
    """R along −d from θ on a pair."""

    eps = EPS

    def __init__(self, P: Pair, theta: Tensor, d: Tensor) -> None:
        self.P, self.theta, self.d = P, theta, d
        self.slope = -(P.grad_R(theta) @ d).item()

    def __call__(self, eta: float) -> list[float]:
        return [self.P.R(self.theta - eta * self.d).item()]


def exact_rate(P: Pair, theta: Tensor, d: Tensor, radius: float) -> float:
    """6. One probe of any radius gives η* = ⟨g_R,d⟩/(d'H_R d), to the rounding of the second
    difference; NGDiff's is at least ‖g_R‖/(2β), β = λ_max(H_R); the step η* lowers R by
    ⟨g_R,d⟩²/(2d'H_R d).
    """
    ray, g, bend = Ray(P, theta, d), P.grad_R(theta), (d @ P.A @ d).item()
    exact, drop, worst = P.best_rate(theta, d), (g @ d).item() ** 2 / (2 * bend), 0.0
    sizes = [abs(x) for h in (-radius, 0.0, radius) for x in ray(h)]
    rounding = (
        64 * EPS * (max(sizes) / (radius**2 * bend) + max(sizes) / (radius * abs(ray.slope)) + 1)
    )
    eta = fit(ray, ray(0.0), radius).eta
    worst = max(worst, close(eta, exact, exact, f"η* at radius {radius}", rounding))
    close(
        (P.R(theta) - P.R(theta - exact * d)).item(),
        drop,
        P.R(theta).item() + drop,
        "decrease of R",
    )
    if torch.allclose(d, combined(NGDiff(), g, P.grad_F(theta)), rtol=1e-12, atol=0.0):
        bound = g.norm().item() / (2 * torch.linalg.eigvalsh(P.A).max().item())
        assert exact >= bound * (1 - 1e-9), f"η* = {exact} is below ‖g_R‖/(2β) = {bound}"
    return worst


def parabola_is_exact(L_0: int, slope: int, bend: int, h) -> bool:
    """6, without rounding: three points give slope and curvature from any h ≠ 0.

    On rationals (`fractions.Fraction`).
    """
    minus, zero, plus = (L_0 + slope * x + bend * x * x / 2 for x in (-h, 0 * h, h))
    return parabola(minus, zero, plus, h) == (slope, bend)


def rescaled(
    P: Pair, rule: Direction, stepsize: StepSize, by_R: float, by_F: float, steps: int
) -> float:
    """Largest distance between the paths on (R, F) and (by_R·R, by_F·F).

    Relative to the length of the first.
    """
    (one, _), (two, _) = (
        walk(P, rule, stepsize, steps),
        walk(P.scaled(by_R, by_F), rule, stepsize, steps),
    )
    n = min(len(one), len(two))
    size = (one[1:] - one[:-1]).norm(dim=1).sum()
    return ((one[:n] - two[:n]).norm(dim=1).max() / size).item()


def invariance(
    P: Pair, by_R: float, by_F: float, stepsize: StepSize = EXACT, steps: int = 12
) -> float:
    """7. NGDiff with the rate η* follows the same path when either loss is rescaled by a positive
    constant: bit for bit when the factors are powers of two, else to the rounding that the probe's
    second difference amplifies.
    """
    exact = all(math.frexp(x)[0] == 0.5 for x in (by_R, by_F))
    found = rescaled(P, NGDiff(), stepsize, by_R, by_F, steps)
    return close(found, 0.0, 1.0, f"path after rescaling by {by_R}, {by_F}", 0.0 if exact else 1e-6)


# --------------------------------------------------------------------------- 8 to 10: where it ends
def scalarization(P: Pair, c: float, rivals: Tensor) -> float:
    """8. On the concave family the minimiser of cR − (1−c)F, 0 < c < 1, is Pareto-optimal: no rival
    (m, n) is better in both. Where cR − (1−c)F has no minimum (convex family) `Pair.minimiser`
    raises. Returns its stationarity.
    """
    theta = P.minimiser(c)
    slack = 1e-12 * (P.R(theta).abs() + P.F(theta).abs())
    better = (P.R(rivals) < P.R(theta) - slack) & (P.F(rivals) > P.F(theta) + slack)
    assert not better.any() and not P.dominated(theta), f"the minimiser at c = {c} is dominated"
    return close(P.stationarity(theta), 0.0, 1.0, f"stationarity at c = {c}", 1e-6)


def same_retain(P: Pair, theta: Tensor, points: int = 720) -> Tensor:
    """Points of the plane with the R of θ, (points, 2): r + √(2R)·A^(−½)(cos t, sin t)."""
    t = torch.linspace(0, 2 * math.pi, points + 1, dtype=theta.dtype)[:-1]
    values, Q = torch.linalg.eigh(P.A)
    circle = torch.stack([t.cos(), t.sin()], dim=1) * (2 * (P.R(theta) - P.R_0)).sqrt()
    return P.r + circle @ (Q / values.sqrt()).T


def restored(
    g_R: Tensor, g_F: Tensor, v: Tensor, t: int = 1, beta2: float = 0.999, eps: float = 1e-8
) -> None:
    """9. Adam's step on `own_metric`'s gradient, without momentum, meets Eq. 7.

    Of NGDiff's d it need not.
    """
    d = own_metric(g_R, g_F, v, t, beta2, eps)
    assert eq7(d / adam_metric(d, v, t, beta2, eps), g_R, g_F, 1e-9), (
        f"Eq. 7 fails in the metric of step {t}"
    )


def where_it_ends(P: Pair, stepsize: StepSize, steps: int) -> tuple[str, float]:
    """10. A run that stops by itself is `aligned` (ρ = 1 to rounding) and Pareto-stationary. One
    that is cut off at `steps` is at the `retain minimum` (g_R → 0 while ρ does not tend to 1: a
    line search on R may land there), else `stationary` (below 1e-6, not yet to the last bit) or
    still `moving`. Returned with its stationarity, at the retain minimum with what is left of
    ‖g_R‖.
    """
    path, history = walk(P, NGDiff(), stepsize, steps)
    stationarity, last = P.stationarity(path[-1]), P.grad_R(path[-1]).norm().item()
    if not history[-1].updated:
        assert history[-1].outcome == "aligned", f"the run ended with {history[-1].outcome}"
        return "aligned", close(stationarity, 0.0, 1.0, "stationarity of an aligned end", 1e-6)
    if last < 1e-6 * history[0].norm_R:
        return "retain minimum", last / history[0].norm_R
    return ("stationary" if stationarity < 1e-6 else "moving"), stationarity
