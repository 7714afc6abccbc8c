# ---
# jupyter:
#   ngdiff:
#     question: "the normalised difference: derive, implement, prove by assertion"
#     needs: []
# ---

# %% [markdown]
# # 02 · The normalised gradient difference
#
# *You will* derive NGDiff in four lines, implement it, prove its properties by assertion, and learn
# where they end · *Needs* 01 · *Time* tiny: about 15 s; paper: the same (no model here) ·
# *Relates to* the idea of the paper's Figure 2 (gradient space), drawn from our own numbers
#
# Notebook 01 ended with a wish: weights that follow the norms. NGDiff divides each gradient by its
# own length,
#
# $$d = \frac{g_R}{\lVert g_R\rVert} - \frac{g_F}{\lVert g_F\rVert}.$$

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
from ngdiff.theory import geometry, oracles, theorems
from ngdiff.figures import one_step, saved, style
from ngdiff.theory.quadratics import pair, walk

config, began = {"notebook": "02", "profile": profile, "seeds": list(seeds)}, time.perf_counter()
ones = torch.ones(2, dtype=torch.float64)  # the two loss values, for rules that look at them

# %% [markdown]
# ## One complete result: gradient space
# Each panel is a plane spanned by the two gradients, turned so that the bisector of g_R and −g_F
# points up. Green: every d that meets Eq. 7, ⟨d, g_R⟩ ≥ 0 ≥ ⟨d, g_F⟩. Grey: the cone of static
# scalarization; its d slides along the dashed line as c goes from 0 to 1, filled where it lands in
# the green. NGDiff is the bisector, always in the middle.

# %%
rows = []
for angle, kappa in ((60, 1.0), (60, 2.5), (25, 1.5), (120, 1.0)):
    t = math.radians(angle)
    g_R = torch.tensor([1.0, 0.0], dtype=torch.float64)
    g_F = kappa * torch.tensor([math.cos(t), math.sin(t)], dtype=torch.float64)
    low, high = theorems.interval(g_R, g_F)
    note = (
        "any c" if high == math.inf else f"c from {low / (1 + low):.2f} to {high / (1 + high):.2f}"
    )
    rules = {"NGDiff": geometry.combined(ng.NGDiff(), g_R, g_F)}
    rows.append({"g_R": g_R, "g_F": g_F, "c": [0.1, 0.5, 0.9], "rules": rules, "note": note})
file, made = page.rows / "theory_gradient_space.jsonl", "Pairs of gradients by hand, no seed"
rows = saved(file, rows, config, time.perf_counter() - began, made)
fig = one_step.gradient_space(rows)
style.save(fig, page.figures, "fig2_gradient_space")
fig

# %% [markdown]
# ## Taken apart: the derivation
# 1. Eq. 7 asks for ⟨d, g_R⟩ ≥ 0 ≥ ⟨d, g_F⟩. Only *directions* of gradients enter: write u =
#    g_R/‖g_R‖, v = g_F/‖g_F‖.
# 2. Ask for the d that satisfies both inequalities with the same margin, and take it in their span:
#    ⟨d, u⟩ = −⟨d, v⟩.
# With d = αu − βv that reads α − βρ = β − αρ, so (α − β)(1 + ρ) = 0, so **α = β** for ρ > −1 (at −1
# the two agree anyway). Up to scale, d = u − v.
# 3. Then ⟨d, u⟩ = 1 − ρ and ⟨d, v⟩ = −(1 − ρ): never of the wrong sign, whatever the gradients.
# 4. ‖d‖² = 2 − 2ρ: the length of d *is* the room that the conflict leaves. Where the gradients
#    align (ρ = 1) d = 0.


# %%
def normalised_difference(g_R, g_F):
    """d = g_R/‖g_R‖ − g_F/‖g_F‖, as it is written."""
    return g_R / g_R.norm() - g_F / g_F.norm()


g_R, g_F = torch.randn(2, 7, generator=torch.Generator().manual_seed(seeds[0]), dtype=torch.float64)
a, b = ng.NGDiff().weights(geometry.gram(g_R, g_F), ones)
assert torch.allclose(normalised_difference(g_R, g_F), a * g_R - b * g_F, rtol=1e-12)
print(f"weights a = {a:.4f} = 1/‖g_R‖, b = {b:.4f} = 1/‖g_F‖")

# %% [markdown]
# The package never forms u and v. A direction rule sees the Gramian, three numbers, and returns
# two: that is all a step has to know, however large the model. The step then really is θ ← θ − η·d:

# %%
P = pair(angle=60, condition=10, dim=7, seed=seeds[0])
theta = P.start.clone().requires_grad_()
step = ng.UnlearningStep([theta], torch.optim.SGD([theta], lr=0.1), ng.NGDiff(), measure=True)
info = step(lambda: P.R(theta), lambda: P.F(theta))
d = normalised_difference(P.grad_R(P.start), P.grad_F(P.start))
assert torch.allclose(theta.detach(), P.start - 0.1 * d, rtol=1e-12)
print(f"ρ = {info.cosine:.3f}; to first order R changes by {info.dR:+.4f} and F by {info.dF:+.4f}")

# %% [markdown]
# ## Proved by assertion
# `ngdiff.theory.theorems` has one function per statement. It takes gradients, checks the statement
# and raises with the numbers where it fails. The tests call the same functions on many more.

# %%
count = 20 if smoke else 80
worst = {
    "products and length": 0.0,
    "same as IMTL-G, ConFIG, MGDA on unit gradients": 0.0,
    "PCGrad, MGDA": 0.0,
}
for seed in seeds:
    make = torch.Generator().manual_seed(seed)
    for _ in range(count):
        g_R, g_F = torch.randn(2, 6, generator=make, dtype=torch.float64)
        g_F = 10 ** (4 * torch.rand(1, generator=make).item() - 2) * g_F  # κ over four decades
        found = (
            theorems.products(g_R, g_F),
            theorems.same_as_multitask(g_R, g_F),
            theorems.projections(g_R, g_F),
        )
        worst = {name: max(old, new) for (name, old), new in zip(worst.items(), found, strict=True)}
for name, error in worst.items():
    print(f"{name:50} {count * len(seeds)} pairs, worst relative error {error:.1e}")

# %% [markdown]
# ## It has relatives, and they agree
# On the two tasks (R, −F) the same direction has been found from other wishes: IMTL-G asks for
# equal projections on all tasks, ConFIG for equal cosines, MGDA applied to *unit* gradients for the
# shortest vector between them. Up to length, these are one direction: the one that maximises the
# smaller of cos(d, g_R) and cos(d, −g_F).
#
# PCGrad (project the conflict away) and MGDA (the shortest vector, gradients as they are) meet Eq.
# 7 too. What they do not share is indifference to scale: the larger gradient pulls PCGrad to its
# side, the smaller one MGDA.

# %%
relatives = {
    "NGDiff": ng.NGDiff(),
    "PCGrad": ng.PCGrad(),
    "MGDA": ng.MGDA(),
    "GradDiff(0.5)": ng.GradDiff(0.5),
}
g_R, g_F = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)  # 60°
G = oracles.tasks(g_R, g_F)
for other in (oracles.imtl_g(G), oracles.config(G)):
    # at 60° ‖d‖ = 1
    assert torch.allclose(other / other.norm(), normalised_difference(g_R, g_F), rtol=1e-12)

heads = "".join(f"{f'κ = {kappa:g}':>18}" for kappa in (0.1, 1.0, 10.0))
print(f"{'':14}{heads}    cos(d, g_R), cos(d, −g_F)")
cosines = {}
for name, rule in relatives.items():
    cosines[name] = []
    for kappa in (0.1, 1.0, 10.0):
        d = geometry.combined(rule, g_R, kappa * g_F)
        cosines[name].append(((d @ g_R / d.norm()).item(), (-(d @ g_F) / d.norm()).item()))
    print(f"{name:14}" + "".join(f"{f'{x:+.3f}, {y:+.3f}':>18}" for x, y in cosines[name]))

# %% tags=["check"]
assert all(math.isclose(x, 0.5) and math.isclose(y, 0.5) for x, y in cosines["NGDiff"]), (
    "½ and ½ at any κ"
)
assert all(min(c) > -1e-12 for name in ("PCGrad", "MGDA") for c in cosines[name]), "Eq. 7"
assert min(cosines["GradDiff(0.5)"][0]) < -0.3 and min(cosines["GradDiff(0.5)"][2]) < -0.3, (
    "c = 0.5 breaks it at both"
)
assert cosines["PCGrad"][2][1] > 0.8 > 0.1 > cosines["PCGrad"][2][0], (
    "PCGrad leans to −g_F where that is larger"
)
assert cosines["MGDA"][2][0] > 0.8 > 0.1 > cosines["MGDA"][2][1], "MGDA to g_R, the smaller one"

# %% [markdown]
# ## What fixed weights can miss
# Left: the fixed c that meet Eq. 7, against ρ, for κ = 1. Right: the same band along an NGDiff run
# on one concave pair. NGDiff's own share 1/‖g_R‖ : 1/‖g_F‖ stays inside by construction. How far
# the band moves elsewhere depends on the data.

# %%
rho = torch.linspace(0.001, 0.999, 80, dtype=torch.float64)
closing = {
    "title": "the band closes as ρ → 1",
    "made": "Left: closed form",
    "x_name": "conflict ρ",
    "x": rho,
    "low": rho / (1 + rho),
    "high": 1 / (1 + rho),
    "own": torch.full_like(rho, 0.5),
}
P = pair(angle=100, condition=5, ratio=2, family="concave", seed=4)
path, history = walk(P, ng.NGDiff(), ng.Constant(0.01), 45)
kappa = torch.tensor([i.norm_F / i.norm_R for i in history], dtype=torch.float64)
rho = torch.tensor([i.cosine for i in history], dtype=torch.float64)
low = torch.where(rho > 0, rho * kappa / (1 + rho * kappa), 0.0)
high = torch.where(rho > 0, kappa / (rho + kappa), 1.0)
own = kappa / (1 + kappa)
drifting = {
    "title": "and drifts along a run",
    "made": "right: the concave pair of seed 4, NGDiff, SGD",
    "x_name": "step",
    "x": [i.step for i in history],
    "low": low,
    "high": high,
    "own": own,
}
rows = saved(
    page.rows / "theory_interval.jsonl", [closing, drifting], config, time.perf_counter() - began
)
fig = one_step.interval(rows)
style.save(fig, page.figures, "fig2_interval")
fig

# %% tags=["check"]
assert ((low <= own + 1e-12) & (own <= high + 1e-12)).all(), (
    "NGDiff's own share is inside at every step"
)
outside = {
    c: next(i for i in range(len(low)) if not low[i] <= c <= high[i]) for c in (0.1, 0.5, 0.9)
}
assert 0 < outside[0.1] < outside[0.5] < outside[0.9], (
    "in this run all three start inside and leave"
)
print({f"c = {c}": f"outside from step {t}" for c, t in outside.items()})

# %% [markdown]
# ## Predict, then run: the optimizer has a say
# Eq. 7 is about d. AdamW does not step along −d: it divides by the root of a running second moment,
# and it averages d over steps. Guess the share of steps that raise R, or lower F, to first order:
# under SGD, under AdamW without its average (β₁ = 0), and under AdamW as it comes.

# %%
optimizers = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "AdamW, β₁ = 0": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.0, 0.999), weight_decay=0.0),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.0),
}
rows, steps = [], 60
for family in ("concave", "convex"):
    for name, make_optimizer in optimizers.items():
        wrong_R = wrong_F = total = 0
        for seed in seeds:
            run = ng.unlearn(
                pair(60, 20, 1.0, 20, family, seed),
                ng.NGDiff(),
                steps=steps,
                optimizer=make_optimizer,
                measure=True,
            )
            taken = [i for i in run.history if i.updated]
            wrong_R += sum(i.dR > 0 for i in taken)
            wrong_F += sum(i.dF < 0 for i in taken)
            total += len(taken)
        rows.append(
            {
                "family": family,
                "optimizer": name,
                "R rises": wrong_R / total,
                "F falls": wrong_F / total,
                "steps": total,
            }
        )
        print(
            f"{family:8} {name:14} R rises in {wrong_R / total:4.0%}, "
            f"F falls in {wrong_F / total:4.0%} of {total} steps"
        )
rows = saved(page.rows / "theory_adamw.jsonl", rows, config, time.perf_counter() - began)

# %% [markdown]
# In these runs it is the average over steps that breaks Eq. 7: yesterday's d is in today's step.
# Without it fewer steps raise R (asserted). The division alone can break it as well. Adam's first step is the *sign* of d, and this pair of
# gradients shows it:

# %%
g_R = torch.tensor([0.8, 0.6], dtype=torch.float64)
g_F = torch.tensor([0.9, math.sqrt(0.19)], dtype=torch.float64)
d = normalised_difference(g_R, g_F)
print(f"⟨d, g_R⟩ = {d @ g_R:+.3f}, but ⟨sign d, g_R⟩ = {d.sign() @ g_R:+.3f}")
assert d @ g_R > 0 > d.sign() @ g_R

# %% [markdown]
# Without the average there is a cure: normalise in the metric of the step. If the step is −η P⁻¹g
# with a positive diagonal P, take lengths as ‖g‖² = g'P⁻¹g and everything above holds again. Adam's
# P depends on the g it is given, so the two weights solve one equation in one unknown;
# `geometry.own_metric` bisects it.

# %%
v = torch.zeros(2, dtype=torch.float64)
d = geometry.own_metric(g_R, g_F, v)
taken = d / geometry.adam_metric(d, v, 1, 0.999, 1e-8)
theorems.restored(g_R, g_F, v)
print(f"in Adam's own metric: ⟨step, g_R⟩ = {taken @ g_R:+.3f}, ⟨step, g_F⟩ = {taken @ g_F:+.3f}")
assert taken @ g_R > 0 > taken @ g_F

# %% tags=["check"]
share = {(r["family"], r["optimizer"]): r for r in rows}
for family in ("concave", "convex"):
    assert share[family, "SGD"]["R rises"] == share[family, "SGD"]["F falls"] == 0.0, (
        "SGD's step is −η·d"
    )
    assert share[family, "AdamW"]["R rises"] > 0.1, (
        "AdamW as it comes breaks Eq. 7 in more than a tenth of the steps"
    )
    assert share[family, "AdamW, β₁ = 0"]["R rises"] < share[family, "AdamW"]["R rises"], (
        "and in fewer without its average"
    )

# %% [markdown]
# ## Exercise (10 minutes, ●●○)
# Write PCGrad's weights (a, b) as a function of the Gramian. Each gradient loses its component
# along the other task where they conflict: g_R becomes g_R − (⟨g_R, g_F⟩/‖g_F‖²)·g_F, −g_F
# likewise, and d is their sum.
#
# *Hint 1*: collect what multiplies g_R. *Hint 2*: it is 1 + ρκ; what is ρκ in the Gramian? *Hint
# 3*: no conflict, no projection.


# %% tags=["exercise-solution"]
def pcgrad(gram):
    """(a, b) of d = a·g_R − b·g_F; `gram` is [[RR, RF], [RF, FF]]."""
    # solution
    RR, RF, FF = gram[0][0], gram[0][1], gram[1][1]
    conflict = max(RF, 0.0)
    return 1 + conflict / RR, 1 + conflict / FF
    # end solution


# %% tags=["check"]
for seed in seeds:
    u, v = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for g in ((u, v), (u, -v), (u, 5 * u + v)):
        found = pcgrad(geometry.gram(*g).tolist())
        assert found is not None, "return two numbers: a, b"
        a, b = found
        wanted = oracles.pcgrad(oracles.tasks(*g))
        hint = (
            "without conflict both weights are 1"
            if g[0] @ g[1] <= 0
            else "the weight of g_R is 1 + ⟨g_R,g_F⟩/‖g_R‖²"
        )
        assert torch.allclose(a * g[0] - b * g[1], wanted, rtol=1e-9), f"a = {a}, b = {b}: {hint}"
print("right")

# %% [markdown]
# ## What you should see
# - NGDiff's cosines with g_R and −g_F are ½ and ½ at 60°, at every κ; a fixed c = 0.5 falls below
#   −0.3 on one side when κ is 10 or 0.1; PCGrad and MGDA stay at or above 0 and lean to opposite
#   sides.
# - Along this run c = 0.1, 0.5 and 0.9 start inside the band and leave it; NGDiff's share never
#   does.
# - Under SGD no step goes against Eq. 7; under AdamW more than a tenth of the steps raise R.
#
# All asserted.
#
# ## Summary
# NGDiff is the bisector of g_R and −g_F. It meets Eq. 7 for any gradients and at any scale, with
# one margin for both, 1 − ρ. This is a property of the direction, at one point, to first order: how
# far to go is the next question (03), where it leads the one after (04).
#
# ## References
# Bu, Jin et al., NAACL 2025 (arXiv 2410.22086). Liu et al., *Towards impartial multi-task learning*
# (IMTL-G), ICLR 2021. Liu et al., *ConFIG*, ICLR 2025. Yu et al., *Gradient surgery* (PCGrad),
# NeurIPS 2020. Désidéri 2012, and Sener & Koltun, NeurIPS 2018 (MGDA).
