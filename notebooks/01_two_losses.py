# ---
# jupyter:
#   ngdiff:
#     question: "why two losses disagree, why ascent blows up, what c does"
#     needs: []
# ---

# %% [markdown]
# # 01 · Two losses that disagree
#
# *You will* watch gradient ascent blow up, find which fixed weights c meet Eq. 7, see one stop
# meeting it in a toy, and measure a conflict by an angle · *Needs* 00 is helpful, not necessary · *Time* tiny:
# about 15 s; paper: the same (no model here) · *Relates to* the setting of the paper: two losses,
# static weights, the condition called Eq. 7
#
# Unlearning has a **retain loss** R that should stay low and a **forget loss** F that should rise.
# One vector θ has to serve both, by steps θ ← θ − η·d along
#
# $$d = a\,g_R - b\,g_F, \qquad g_R = \nabla R,\; g_F = \nabla F.$$
#
# F is *ascended*, hence the minus sign, and hence **ρ = cos(g_R, g_F) > 0 is conflict**: where the
# gradients agree, what raises F raises R. Every step should meet the paper's Eq. 7: ⟨d, g_R⟩ ≥ 0 ≥
# ⟨d, g_F⟩. To first order R then does not rise and F does not fall.

# %% tags=["parameters"]
profile: str = "tiny"  # size of models and data, such as tiny, small or paper
seeds: tuple = (0, 1, 2)  # seeds of the random problems; papermill -p seeds '[0, 1]'
smoke: bool = False  # a small budget, to see whether the page runs

# %%
from ngdiff.book.page import opened

page = opened(profile=profile, seeds=seeds, smoke=smoke)
profile, seeds, smoke = page.parameters.values()

# %%
import math
import time

import torch

import ngdiff as ng
from ngdiff.store import rows as results
from ngdiff.theory import geometry, theorems
from ngdiff.figures import landscapes, one_step, saved, style
from ngdiff.theory.quadratics import pair, walk

config, began = {"notebook": "01", "profile": profile, "seeds": list(seeds)}, time.perf_counter()

# %% [markdown]
# ## One complete result: two weights and a few facts
# The smallest model that memorises: logistic regression with two weights. Four rows to keep, two to
# forget, every row already multiplied by its label, so that a row is known when its margin ⟨row, θ⟩
# is large. The loss is the cross-entropy log(1 + e^(−margin)). First we train on all six, as any
# model is trained.

# %%
keep = torch.tensor([[1.0, 0.3], [0.9, -0.2], [1.2, 0.1], [0.7, 0.4]], dtype=torch.float64)
drop = torch.tensor([[0.6, 0.9], [0.5, 1.2]], dtype=torch.float64)


def cross_entropy(rows, theta):
    """Mean of log(1 + e^(−margin)), written without overflow."""
    return torch.nn.functional.softplus(-(rows @ theta)).mean()


margins = torch.tensor([3.0, -40.0], dtype=torch.float64)
labels = torch.ones(2, dtype=torch.float64)
wanted = torch.nn.functional.binary_cross_entropy_with_logits(margins, labels)
assert torch.isclose(cross_entropy(margins[:, None], torch.ones(1, dtype=torch.float64)), wanted)

theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
optimizer = torch.optim.SGD([theta], lr=1.0)
for _ in range(400):
    optimizer.zero_grad()
    cross_entropy(torch.cat([keep, drop]), theta).backward()
    optimizer.step()
start = theta.detach().clone()
print(
    f"R = {cross_entropy(keep, start):.4f}, "
    f"F = {cross_entropy(drop, start):.4f}; a coin flip costs {math.log(2):.4f}"
)

# %% [markdown]
# Now forget, with five choices of (a, b): ascent on F alone, three fixed weights d = c·g_R −
# (1−c)·g_F, and NGDiff, which divides each gradient by its own length. `UnlearningStep` takes the
# two losses as callables and makes one update.

# %%
methods = {
    "GradAscent": (ng.GradAscent(), 2.0),
    "GradDiff(0.1)": (ng.GradDiff(0.1), 2.0),
    "GradDiff(0.5)": (ng.GradDiff(0.5), 2.0),
    "GradDiff(0.9)": (ng.GradDiff(0.9), 2.0),
    # its d has the length of a direction, not of a gradient: other units, other rate
    "NGDiff": (ng.NGDiff(), 0.2),
}


def unlearned(direction, lr, steps=220):
    """The history of a run from the start: an `Info` a step."""
    theta = start.clone().requires_grad_()
    step = ng.UnlearningStep([theta], torch.optim.SGD([theta], lr=lr), direction)
    losses = (lambda: cross_entropy(keep, theta)), (lambda: cross_entropy(drop, theta))
    return [step(*losses) for _ in range(steps)]


histories = {name: unlearned(direction, lr) for name, (direction, lr) in methods.items()}

# %%
rows = [
    {
        "method": name,
        "step": [i.step for i in seen],
        "retain": [i.retain for i in seen],
        "forget": [i.forget for i in seen],
        "norm_R": [i.norm_R for i in seen],
        "norm_F": [i.norm_F for i in seen],
        "cosine": [i.cosine for i in seen],
    }
    for name, seen in histories.items()
]
made = "Logistic regression on six rows, SGD, float64, no seed"
rows = saved(page.rows / "theory_losses.jsonl", rows, config, time.perf_counter() - began, made)
fig = landscapes.losses(rows, scale="log")
style.save(fig, page.figures, "fig1_losses")
fig

# %% [markdown]
# Read it from the left. For a long while the fixed weights do *nothing*: both gradients are tiny at
# a memorised minimum. Then ascent finds the slope and falls off: F goes on rising far beyond a coin
# flip, and R goes with it. With c = 0.5 or 0.9, at this rate, F never reaches a coin flip. Which
# run gets there first says little, for the rates are chosen by hand. What R is at the coin flip
# says more: below we halve and double the rates, and the answer stays.

# %% tags=["check"]
chance = math.log(2)
first = {
    row["method"]: next((i for i, f in enumerate(row["forget"]) if f > chance), None)
    for row in rows
}
end = {row["method"]: {k: row[k][-1] for k in ("retain", "forget")} for row in rows}
assert first["GradDiff(0.5)"] is None and first["GradDiff(0.9)"] is None, (
    "these two never reach a coin flip"
)
assert end["GradAscent"]["retain"] > 10 and end["GradAscent"]["forget"] > 10, (
    "ascent goes on, and R goes with it"
)
print({name: f"coin flip at step {t}" if t else "never" for name, t in first.items()})

# %% tags=["check"]
began_at = rows[0]["retain"][0]
for name in ("GradAscent", "NGDiff"):
    direction, usual = methods[name]
    for lr in (usual / 2, usual, 2 * usual):
        flip = next(i for i in unlearned(direction, lr, 320) if i.forget > chance)
        times = flip.retain / began_at
        print(f"{name:10} η = {lr:g}: R at the coin flip is {times:.3g} times what it was")
        assert times > 10 if name == "GradAscent" else times < 1, "whatever the rate"

# %% [markdown]
# ## Taken apart: why ascent blows up
# Cross-entropy has no upper bound, so ascent never ends. On a quadratic one can see the
# speed. Let F = ½(θ−f)'B(θ−f), the *convex* family. Ascent θ ← θ + ηB(θ−f) multiplies the distance
# from f:
#
# $$\theta_t - f = (I + \eta B)^t(\theta_0 - f), \qquad F_t \ge (1 + \eta\lambda_{\min})^{2t} F_0 .$$

# %%
P = pair(angle=60, condition=6, family="convex", seed=seeds[0])
path, _ = walk(P, ng.GradAscent(), ng.Constant(0.05), 40)
growth = torch.eye(2, dtype=torch.float64) + 0.05 * P.B
closed = torch.stack(
    [P.f + torch.linalg.matrix_power(growth, t) @ (P.start - P.f) for t in range(len(path))]
)
assert torch.allclose(path, closed, rtol=1e-9), "the package's ascent is the closed form"
bound = (1 + 0.05 * torch.linalg.eigvalsh(P.B).min()) ** (2 * torch.arange(len(path)))
assert (P.F(path) >= bound * P.F(P.start) * (1 - 1e-12)).all()
print(
    f"after 40 steps: F × {P.F(path[-1]) / P.F(P.start):.0f}, "
    f"and R × {P.R(path[-1]) / P.R(P.start):.0f}"
)

# %% [markdown]
# ## What c does
# Per unit of η, the step changes R by −⟨d, g_R⟩ and F by −⟨d, g_F⟩, both linear in c. Below some c
# the step raises R; above another it lowers F. The figure has an angle of 60° between the gradients
# and three ratios κ = ‖g_F‖/‖g_R‖.


# %%
def share(ratio):
    """c from c/(1−c)."""
    return 1.0 if ratio == math.inf else ratio / (1 + ratio)


assert all(math.isclose(share(c / (1 - c)), c) for c in (0.1, 0.5, 0.9))


def unit_F(angle):
    """A unit forget gradient at that angle, in degrees, from g_R = (1, 0)."""
    turn = math.radians(angle)
    return torch.tensor([math.cos(turn), math.sin(turn)], dtype=torch.float64)


g_R = torch.tensor([1.0, 0.0], dtype=torch.float64)
assert math.isclose(geometry.angle_ratio(g_R, unit_F(60))[0], 0.5)
grid = torch.linspace(0, 1, 101, dtype=torch.float64).tolist()
rows = []
for kappa in (1 / 3, 1.0, 3.0):
    g_F = kappa * unit_F(60)
    low, high = map(share, theorems.interval(g_R, g_F))
    d = [geometry.combined(ng.GradDiff(c), g_R, g_F) for c in grid]
    changes = {"dR": [-(x @ g_R).item() for x in d], "dF": [-(x @ g_F).item() for x in d]}
    rows.append({"kappa": kappa, "c": grid, "low": low, "high": high, **changes})
made = "Two gradients by hand, angle 60°, three ratios of their norms, no seed"
rows = saved(page.rows / "theory_slopes.jsonl", rows, config, time.perf_counter() - began, made)
fig = one_step.slopes(rows)
style.save(fig, page.figures, "fig1_slopes")
fig

# %% [markdown]
# The green band has a formula. With conflict (ρ > 0) a fixed c meets Eq. 7 exactly when
#
# $$\rho\,\kappa \;\le\; \frac{c}{1-c} \;\le\; \frac{\kappa}{\rho},$$
#
# and without conflict any c does. Two lines derive it: ⟨d, g_R⟩ = c‖g_R‖² − (1−c)ρ‖g_R‖‖g_F‖ ≥ 0,
# and the same for g_F. `theorems.static_interval` checks the "exactly when" on whatever it is
# given, and raises where it fails.

# %%
checked = 0
for seed in seeds:
    make = torch.Generator().manual_seed(seed)
    for _ in range(60):
        u, v = torch.randn(2, 5, generator=make, dtype=torch.float64)
        size, c = torch.rand(2, generator=make).tolist()
        theorems.static_interval(u, 10 ** (2 * size - 1) * v, c)
        checked += 1
print(f"{checked} random pairs of gradients, no exception")

# %% [markdown]
# ## The conflict angle
# The two ends are a factor 1/ρ² apart. The sharper the conflict, the fewer c are left.

# %%
print(f"{'angle':>6} {'ρ':>7}   c that meet Eq. 7 (κ = 1)")
for angle in (120, 90, 75, 60, 45, 30, 15):
    low, high = map(share, theorems.interval(g_R, unit_F(angle)))
    print(f"{angle:5d}° {math.cos(math.radians(angle)):7.3f}   {low:.3f} to {high:.3f}")
low, high = map(share, theorems.interval(g_R, unit_F(60)))
assert math.isclose(low, 1 / 3) and math.isclose(high, 2 / 3), (
    "at 60° and equal norms: one third to two thirds"
)

# %% [markdown]
# ## Predict, then run
# In the logistic model, c = 0.5 meets Eq. 7 at the start. Along NGDiff's run R becomes easier and F
# harder, so κ grows. Does the band stay around 0.5? Write down a guess for where it is at the coin
# flip, then run the cell.

# %%
ours = next(row for row in page.saved("theory_losses.jsonl") if row["method"] == "NGDiff")
bands = []
for n_R, n_F, rho in zip(ours["norm_R"], ours["norm_F"], ours["cosine"], strict=True):
    kappa = n_F / n_R
    bands.append((share(rho * kappa), share(kappa / rho)) if rho > 0 else (0.0, 1.0))
for t in sorted({0, 10, 20, 40, first["NGDiff"]}):
    print(f"step {t:3d}: c from {bands[t][0]:.4f} to {bands[t][1]:.4f}")

# %% tags=["check"]
assert bands[0][0] < 0.5 < bands[0][1], "at the start c = 0.5 is inside"
left = next(t for t, (low, _) in enumerate(bands) if low > 0.5)
assert left < first["NGDiff"] and bands[first["NGDiff"]][0] > 0.99, (
    "and at the coin flip only c above 0.99 is"
)
print(f"c = 0.5 leaves the band at step {left}")
source = {"tolerance": 1, "source": "theory_losses.jsonl", "unit": "steps"}
summary = [
    {"name": f"logistic toy: {name}: steps to a coin flip on the forget rows", "value": t, **source}
    for name, t in first.items()
    if t is not None
]
summary.append(
    {
        "name": "logistic toy: step at which c = 0.5 leaves the band of Eq. 7",
        "value": left,
        **source,
    }
)
results.write_rows(page.rows / "theory_01_summary.jsonl", summary)

# %% [markdown]
# ## Exercise (10 minutes, ●○○)
# Write the band as a function of the Gramian [[⟨g_R,g_R⟩, ⟨g_R,g_F⟩], [⟨g_R,g_F⟩, ⟨g_F,g_F⟩]]: the
# three numbers a direction rule of this package sees. Return the smallest and the largest *c* (not
# the ratio).
#
# *Hint 1*: ρκ = ⟨g_R,g_F⟩/‖g_R‖². *Hint 2*: what is κ/ρ in the same way? *Hint 3*: c = ratio/(1 +
# ratio).


# %% tags=["exercise-solution"]
def admissible(gram):
    """(smallest c, largest c) that meet Eq. 7."""
    # solution
    RR, RF, FF = gram[0][0], gram[0][1], gram[1][1]
    if RF <= 0:
        return 0.0, 1.0
    return RF / (RR + RF), FF / (FF + RF)
    # end solution


# %% tags=["check"]
for seed in seeds:
    u, v = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for g in ((u, v), (u, -v), (u, 7 * v)):
        wanted = tuple(map(share, theorems.interval(*g)))
        found = admissible(geometry.gram(*g).tolist())
        assert found is not None, "return two numbers: smallest c, largest c"
        assert all(0 <= c <= 1 for c in found), (
            f"{found}: a share lies in [0, 1]; did you return the ratio c/(1−c)?"
        )
        hints = ("ρ ≤ 0 is a case of its own", "κ/ρ = ‖g_F‖²/⟨g_R,g_F⟩")
        for c, right, hint in zip(found, wanted, hints, strict=True):
            assert math.isclose(c, right, rel_tol=1e-9), f"c = {c}, wanted {right}: {hint}"
print("right")

# %% [markdown]
# ## What you should see
# - Fixed weights c = 0.5 and 0.9 never reach a coin flip on the forget rows; ascent and c = 0.1 do,
#   late, and ascent ends with both losses above 10.
# - At its coin flip NGDiff has R *below* where it started; ascent, at its own, has multiplied R by
#   more than 10. Half and twice the rate change neither.
# - At 60° and equal norms the band is one third to two thirds.
# - Along NGDiff's run c = 0.5 starts inside the band and is outside before the coin flip, where
#   only c above 0.99 is left.
#
# All of it is asserted above. It is one toy: rows that a straight line can separate, no sampling
# noise, plain SGD. It does not say that c = 0.5 leaves the band on other data: without conflict
# (ρ ≤ 0) every c is inside. How fixed weights do on language models is measured in notebook 06.
#
# ## Summary
# Ascent has no place to stop. Under conflict a fixed c meets Eq. 7 in a band only. The band's
# middle is c/(1 − c) = κ = ‖g_F‖/‖g_R‖, and in this toy unlearning itself moves κ. Weights that
# follow the norms stay inside for any gradients: notebook 02.
#
# ## References
# Bu, Jin, Vinzamuri, Ramakrishna, Chang, Cevher, Hong: *Unlearning as multi-task optimization*,
# NAACL 2025 (arXiv 2410.22086). Yao, Xu, Liu: *Large language model unlearning*, 2023 (arXiv
# 2310.10683), for ascent with a retain term.
