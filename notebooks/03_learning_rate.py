# ---
# jupyter:
#   ngdiff:
#     question: "a learning rate that sets itself, and where it fails"
#     needs: ["00"]
# ---

# %% [markdown]
# # 03 · A learning rate that sets itself
#
# *You will* fit a parabola to the retain loss along the update, read the best rate off it, see
# when the fit must not be believed, and why the best rate is not the one to take · *Needs* 02 · *Time* tiny: a minute after 00; paper: minutes on
# a GPU · *Relates to* the idea of the paper's automatic learning rate (GeN), and a learning-rate
# figure from our own runs
#
# **Our rule, after GeN; the paper's listing was not seen.** `AutoLR.bare()` is our reading of the
# rule that a re-implementation by others attributes to the paper's Algorithm 1.
# docs/learning_rate.md lists each point in which the default AutoLR departs from it.
#
# A step goes from θ to θ + ηu, where u is the update the optimizer is about to make, per unit of
# learning rate. Along that line the retain loss is a function of one number, and near 0 it is a
# parabola:
#
# $$R(\theta + \eta u) \approx R + \eta\,R'(0) + \tfrac12 \eta^2 R''(0), \qquad \eta^\ast = -\frac{R'(0)}{R''(0)}.$$
#
# For plain SGD u = −d, and η\* = ⟨g_R, d⟩ / d'H_R d.

# %% tags=["parameters"]
profile: str = "tiny"  # size of models and data, such as tiny, small or paper
seeds: tuple = (0, 1, 2)  # seeds of the order; the first is taken; -p seeds '[0]'
smoke: bool = False  # a small budget, to see whether the page runs
data: str = ""  # real rows, a folder or hub; empty for generated rows

# %%
from ngdiff.book.page import opened

page = opened(profile=profile, seeds=seeds, smoke=smoke, data=data)
profile, seeds, smoke, data = page.parameters.values()

# %%
import math
import time

import torch

import ngdiff as ng
from ngdiff.store import paths, rows as results
from ngdiff.study import trials
from ngdiff.figures import one_step, runs, saved, style
from ngdiff.core.parabola import fit, parabola

began = time.perf_counter()


# %% [markdown]
# ## One complete result: a quadratic, solved in one step
# The start conflicts (60°). One AutoLR step along NGDiff's direction lands on the minimum of R
# along that direction.

# %%
pair = ng.quadratics.pair(angle=60, condition=10, dim=4)
one = ng.unlearn(pair, ng.NGDiff(), ng.AutoLR(lr=1e-4, fresh=0), steps=1)
a, b = one.history[0].a, one.history[0].b
d = a * pair.grad_R(pair.start) - b * pair.grad_F(pair.start)
best = pair.best_rate(pair.start, d)
print(f"closed form {best:.6f}, AutoLR {one.history[0].eta:.6f}, started from 1e-4")
assert math.isclose(one.history[0].eta, best, rel_tol=1e-6)

# %% [markdown]
# ## Taken apart: three points make a parabola
# Slope and curvature from R(−h), R(0), R(h). On a quadratic the answer does not depend on the probe
# radius h.


# %%
def three_points(L_minus, L_0, L_plus, h):
    """Slope and curvature at 0, re-derived."""
    return (L_plus - L_minus) / (2 * h), (L_plus - 2 * L_0 + L_minus) / h**2


assert three_points(1.0, 2.0, 5.0, 0.5) == parabola(1.0, 2.0, 5.0, 0.5)


class Along:
    """R along −d: what `fit` looks at, the rows of a batch as a list of addends (here one)."""

    eps = 2.2e-16

    def __call__(self, eta):
        return [pair.R(pair.start - eta * d).item()]


for h in (1e-3, 1e-1, 10.0):
    found = fit(Along(), Along()(0.0), h)
    print(f"h = {h:<6} η* = {found.eta:.9f}  ({found.outcome})")
    assert math.isclose(found.eta, best, rel_tol=1e-6)

# %%
etas = [best * t for t in (torch.linspace(-0.5, 2.6, 63).tolist())]
values = [pair.R(pair.start - eta * d).item() for eta in etas]
row = {"eta": etas, "R": values, "best": best, "R_start": pair.R(pair.start).item()}
row["R_best"] = pair.R(pair.start - best * d).item()
file, made = page.rows / "theory_parabola.jsonl", "A quadratic pair of seed 0, float64"
rows = saved(file, [row], {"notebook": "03", "profile": profile}, time.perf_counter() - began, made)
fig = one_step.along(rows)
style.save(fig, page.figures, "fig3_parabola")
fig

# %% [markdown]
# ## When not to believe it
# A fit counts only if the update goes downhill and the curvature is positive and stands clear of
# rounding. Everything else has a name, and the name is logged.


# %%
class Line:
    """Any function of η as a line to probe."""

    eps = 1e-7  # float32 losses

    def __init__(self, f):
        self.f = f

    def __call__(self, eta):
        return [self.f(eta)]


gallery = {
    "ok": lambda e: 1 - e + 2 * e**2,
    "uphill": lambda e: 1 + e + 2 * e**2,
    "concave": lambda e: 1 - e - 2 * e**2,
    "noise": lambda e: 1 - e,
    "nonfinite": lambda e: math.nan if e > 0.05 else 1.0,
}
for name, f in gallery.items():
    outcome = fit(Line(f), Line(f)(0.0), 0.1).outcome
    print(f"{name:10} -> {outcome}")
    assert outcome == name

# %% [markdown]
# ## Why the minimum is the wrong goal
# Unlearning starts where training ended: at a minimum of R. There g_R is sampling noise, so η\* is
# near zero or below, and a rule that takes η\* stops forgetting. What we want is the least rise of
# R for a given rise of F. A step costs ΔR = sη + ½cη² and gains ΔF = fη. Split a total gain over
# many steps as cheaply as possible (Lagrange), and one price λ holds at all of them:
#
# $$\eta_t = \eta_t^\ast + \lambda f_t/c_t.$$
#
# The step at a minimum (s = 0) then costs e = ½λ²f²/c, and η = √(2e/c). AutoLR sets e as a small
# share of R. Check the price on random steps: no other split of the same gain costs less.

# %%
draw = torch.Generator().manual_seed(0)
s, f, c = (torch.rand(50, generator=draw, dtype=torch.float64) + 0.1 for _ in range(3))
gain = 20.0
price = (gain + (s * f / c).sum()) / (f * f / c).sum()
cheapest = (price * f - s) / c
cost = lambda eta: (s * eta + 0.5 * c * eta**2).sum()  # noqa: E731
assert math.isclose((f * cheapest).sum(), gain)
for _ in range(100):
    other = torch.randn(50, generator=draw, dtype=torch.float64)
    other = cheapest + other - f * (f * other).sum() / (f * f).sum()  # the same gain
    assert cost(other) > cost(cheapest)
print(f"price {price:.3f}; cost {cost(cheapest):.3f}, with equal steps {cost(gain / f.sum()):.3f}")

# %% [markdown]
# ## On the language model: what a rule looks at, and what it wants
# Four rules on the same rows. *default*: rows that the step has not seen, and a rise of R that a
# step may cost. *own rows*: only the rows the gradient came from. Under SGD the update goes
# downhill on them by construction, and the rule is greedy. *slack 0*: η\* alone, no rise allowed.
# *three points*: the bare rule, η\* every ten updates with no checks, on the step's own rows. Which
# keeps the retain loss lowest, and which one pays most? (One run each: a look, not a comparison.
# The table below has more, and `docs/results.md` compares.)

# %%
variants = {
    "default": "autolr",
    "own rows": "autolr fresh=0",
    "slack 0": "autolr slack=0",
    "three points": "three-point",
}
grid = {
    name: trials.Trial("ngdiff", rule, 1e-3, seeds[0], profile=profile, data=data)
    for name, rule in variants.items()
}
rows = [
    {"name": name, **row}
    for name, row in zip(grid, trials.run_all(list(grid.values())), strict=True)
]
steps = [{"name": name, **row} for name, trial in grid.items() for row in trials.history(trial)]
results.write_rows(page.rows / "learning_rate.jsonl", rows)
results.write_rows(page.rows / "learning_rate_history.parquet", steps)
steps = results.read_rows(page.rows / "learning_rate_history.parquet")
fig = runs.autolr(runs.by_name(steps), rows)
style.save(fig, page.figures, "fig3_autolr")
fig

# %%
columns = ("updates", "stopped", "eta_first", "eta_median", "loss_forget", "loss_retain", "score")
print(f"{'':22}" + "".join(f"{c:>18}" for c in columns))
for name, row in zip(grid, rows, strict=True):
    print(
        f"{name:22}"
        + "".join(
            f"{row[c]:18.3g}" if isinstance(row[c], (int, float)) else f"{row[c] or '-':>18}"
            for c in columns
        )
    )

# %% [markdown]
# ## Predict, then run: SGD beside AdamW
# The line is linear in η for any optimizer whose step is. Which of the two needs the larger rate?
# Theory says that a step of plain SGD never raises R to first order. It promises nothing about
# AdamW. Did some of its steps raise R here?

# %%
pairs = {
    opt: trials.Trial("ngdiff", "autolr", 1e-3, seeds[0], profile=profile, data=data, optimizer=opt)
    for opt in ("adamw", "sgd")
}
sides = dict(zip(pairs, trials.run_all(list(pairs.values())), strict=True))
results.write_rows(page.rows / "optimizers.jsonl", list(sides.values()))
for opt, row in sides.items():
    print(
        f"{opt:6} first rate {row['eta_first']:.2g}, "
        f"retain loss {row['loss_retain']:.3f}, forget loss {row['loss_forget']:.3f}, "
        f"updates that raised R to first order {row['uphill_retain']:.0%}"
    )

# %% [markdown]
# ## How the defaults were chosen
# On test problems, and on three orders of the benchmarks' rows. The problems: quadratics, Rosenbrock's valley, logistic regression, an
# MLP, a small Llama and a LoRA adapter on it, each at or near its minimum of R, with SGD, momentum
# and AdamW. Each rule starts from rates six decades apart, untuned. *R ratio*: the retain loss at
# the level, over that of the best constant rate of fifteen. `ngdiff bench rates` makes the rows.

# %%
from ngdiff.timing import rates

tested = results.read_rows(paths.bench_folder() / "rates.parquet")
print(rates.Table(rates.SUMMARY, rates.summary(tested)).text())

# %% [markdown]
# ## Exercise (10 minutes, ●●○)
# One forward is enough when the slope is known exactly from gradients already in memory. Given
# R(0), R(h), h and the slope s, compute η\*.
#
# *Hint 1*: the parabola R(0) + s·η + ½c·η² passes through (h, R(h)). *Hint 2*: solve that for c;
# the minimum is at −s/c.


# %% tags=["exercise-solution"]
def one_forward(R_0, R_h, h, s):
    """η* from one probe and the exact slope."""
    # solution
    curvature = 2 * (R_h - R_0 - h * s) / h**2
    return -s / curvature
    # end solution


# %% tags=["check"]
assert one_forward(1.0, 2.0, 1.0, -1.0) is not None, (
    "return η*: the parabola 1 + s·η + ½c·η² passes through (h, R_h)"
)
s = -(pair.grad_R(pair.start) @ d).item()
for h in (0.01, 1.0):
    guess = one_forward(pair.R(pair.start).item(), pair.R(pair.start - h * d).item(), h, s)
    assert math.isclose(guess, best, rel_tol=1e-6), (
        f"η* is {best}: is the factor 2/h² there, and the sign of s?"
    )
assert sides["sgd"]["uphill_retain"] == 0.0, (
    "without momentum or preconditioner, no step raises R to first order"
)
assert data or smoke or sides["adamw"]["eta_median"] < sides["sgd"]["eta_median"], (
    "AdamW's update is longer than SGD's, so its rate is smaller"
)
seen = dict(zip(grid, rows, strict=True))
assert data or smoke or seen["default"]["stopped"] == "forget_level"

# %% [markdown]
# ## What you should see
# On the quadratic, one probe from any radius gives the closed form. No other split of the same gain
# costs less than one price for all steps. Under plain SGD no step raises R to first order, and the
# rate is larger than under AdamW. AutoLR reaches the level (all asserted).
#
# ## Summary
# Probe along the update really taken, from weights restored bit for bit. Look at rows that the
# gradient has not seen. Believe a parabola only near the radius it was fitted at. At a minimum of R
# its minimiser is the wrong goal: allow a small rise.
#
# ## References
# Bu & Xu, *Automatic gradient descent with generalized Newton's method*, ICLR 2025 (arXiv
# 2407.02772).
