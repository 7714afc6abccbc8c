# ---
# jupyter:
#   ngdiff:
#     question: "TOFU: every method and metric, conventions, published points beside ours"
#     needs: ["06"]
# ---

# %% [markdown]
# # 07 · TOFU
#
# <!-- ahead-authors -->
# In the long comparison on the generated authors, 2 of 10 tuned rivals score higher on average than
# NGDiff + AutoLR (0.9995): NPO(0.9) (0.9999), WGA(0.5) (0.9998). 7 of 10 tuned rivals score higher
# on average than tuned NGDiff (0.9957): NPO(0.9) (0.9999), WGA(0.5) (0.9998), GradDiff(0.99)
# (0.9992; 90% of runs reached the level), KL(0.9) (0.9980), LossNorm (0.9977), GradDiff(0.9)
# (0.9971), RMU(0.5) (0.9966).
# <!-- end ahead-authors -->
#
# <!-- ahead-tofu -->
# In the long comparison on TOFU's rows, 5 of 10 tuned rivals score higher on average than NGDiff +
# AutoLR (0.9851): RMU(0.9) (0.9990; 0% of runs reached the level), GradDiff(0.99) (0.9972),
# KL(0.99) (0.9970), WGA(0.9) (0.9966), LossNorm (0.9916). 5 of 10 tuned rivals score higher on
# average than tuned NGDiff (0.9880): RMU(0.9) (0.9990; 0% of runs reached the level),
# GradDiff(0.99) (0.9972), KL(0.99) (0.9970), WGA(0.9) (0.9966), LossNorm (0.9916).
# <!-- end ahead-tofu -->
#
# *You will* run every method of TOFU's tables on one model, read all of the benchmark's metrics,
# see which published conventions move them, and put published points beside our own · *Needs* 06 ·
# *Time* tiny: minutes; paper: GPU hours (the run sheet estimates them) · *Relates to* the TOFU
# tables; of their numbers it has only those that were run
#
# The tiny profile runs the generated authors, a stand-in in TOFU's own schema; with a local copy of
# TOFU (`ngdiff reproduce --data FOLDER`) the same on a slice of its rows; the paper profile runs
# the hub's models and data.

# %% tags=["parameters"]
profile: str = "tiny"  # size of models and data, such as tiny, small or paper
seeds: tuple = (0,)  # seeds of the order of the rows; papermill -p seeds '[0]'
refresh: bool = False  # make committed rows again, only under ngdiff reproduce
smoke: bool = False  # a small budget, to see whether the page runs
data: str = ""  # real rows, a folder or hub; empty for generated rows

# %%
from ngdiff.book.page import opened

page = opened(profile=profile, seeds=seeds, refresh=refresh, smoke=smoke, data=data)
profile, seeds, refresh, smoke, data = page.parameters.values()

# %%
import time

import ngdiff as ng
from ngdiff.book import gallery, passed
from ngdiff.study import plan as plans, tables, trials
from ngdiff import methods
from ngdiff.evaluation.spelling import which
from ngdiff.store import rows as results
from ngdiff.figures import comparison, style

data = which(data).of("tofu").real
P = ng.profile(profile)
data = data or ("" if P.lm else "hub")
settings = {"profile": profile, "data": data}
bench = trials.benchmark(profile, "", data)
before, ideal = trials.levels(profile, "", data, 0)

# %% [markdown]
# ## One complete result: every method of the tables, matched forgetting
# As in notebook 06: a run stops when the loss of the forget set reaches the loss on authors never
# seen; a method's weight and rate are chosen on a tuning seed that is not reported. The rivals are
# those of every page; the other methods of TOFU's tables stand beside them. Here one seed: this
# page is about the metrics, the comparison with intervals is in `docs/results.md`. NGDiff also runs
# with AutoLR and with the bare rule.

# %%
plan = plans.plan("smoke" if smoke else "real" if data and P.lm else "tofu", tuple(seeds), P.rates)
done = plans.carry_out(plan, page.rows, "tofu_", refresh, **settings)
print(tables.runs(done, gallery.TABLES["tofu_"], width=13))
print(tables.FOOT)

# %% [markdown]
# ## The benchmark's own verdict, and the price
# TOFU calls a model unlearned where forget quality, a p-value, is above .05. The price is ROUGE of
# the answers to keep, before and after. Our score's part `forgot` is cut off at 1; the last column
# counts the runs for which it says nothing more. Page 10 has the same of the long comparison, on
# TOFU's rows too.

# %%
print(passed.verdict(tables.reported(done), done["levels"]).text())
print(passed.summary(tables.reported(done)))

# %% [markdown]
# The committed tuning runs, from which the rates were chosen: the score on the tuning seed. In
# brackets: runs that the budget ended before the hold-out level. Where one of them scored higher
# than the chosen rate, the table above has a line for it too.

# %%
fig = comparison.rates(done["tuning"])
style.save(fig, page.figures, "fig7_rates")
fig

# %%
fig = comparison.plane(done["matched"], done["levels"], unmatched=done.get("unmatched", ()))
style.save(fig, page.figures, "fig7_tofu")
fig

# %% [markdown]
# ## Taken apart: what each metric is made of
# All likelihood metrics come from one forward pass per text. The truth ratio of a row is R =
# p(wrong answers)/p(paraphrase) with length-normalised probabilities; forget quality is the p-value
# of a Kolmogorov–Smirnov test between the R of this model and those of the retain-only one. Model
# utility is the harmonic mean of nine numbers, 0 as soon as one is 0:

# %%
from ngdiff.evaluation.items import UTILITY

nine = {name: before[name] for name in UTILITY}
for name, value in nine.items():
    print(f"{name:28}{value:.3f}   retain-only {ideal[name]:.3f}")
print(
    f"{'model_utility':28}{before['model_utility']:.3f}   retain-only {ideal['model_utility']:.3f}"
)

# %% [markdown]
# ## Published conventions
# The benchmarks' own code sometimes does another thing than its definition says; numbers are only
# comparable under the same convention. The start model under each of them (likelihoods only).
# *tofu* labels the answer tag too; *open-unlearning* adds 1e-10 to denominators, begins the answer
# after the tokens of the prompt alone, and never lets extraction strength fall below 1/n.

# %%
began = time.perf_counter()
start, reference = ng.pair(bench, P)
conventions = []
for name in ("ngdiff", "tofu", "open-unlearning"):
    of_reference = ng.evaluate(
        reference, bench, convention=name, generate=False, gradnorm=False, progress=False
    )
    report = ng.evaluate(
        start, bench, of_reference, name, generate=False, gradnorm=False, progress=False
    )
    conventions.append({"convention": name, **report.metrics})
made = results.stamp(settings, 0, time.perf_counter() - began)
results.write_rows(
    page.rows / "tofu_conventions.jsonl", [row | {"stamp": made} for row in conventions]
)
ASKED = {
    "forget_Q_A_Prob": "probability",
    "forget_truth_ratio": "truth ratio",
    "retain_Truth_Ratio": "retain's",
    "exact_memorization": "exact mem.",
    "extraction_strength": "extraction",
    "privleak": "privleak",
}
print(tables.grid(conventions, ASKED, lambda r: r["convention"], width=13))

# %% [markdown]
# ## Published points beside ours
# open-unlearning's repository publishes untuned runs of the paper profile's models: 10 epochs at lr
# 1e-5 without a stop. Ours are tuned and stopped at the hold-out level, so a difference is one of
# protocols too. They stand beside the published ones where they were run; where they were not, the
# table says so. Tiny and paper numbers never share a table.

# %%
POINTS = ("forget_quality", "model_utility", "forget_truth_ratio")
points = tables.published("tofu")
ours = tables.ours_beside(points, "tofu")
KEYS = ("model", "method", "convention")
table = tables.beside(points, ours, KEYS, POINTS)
print(tables.printed(table, KEYS, POINTS))

# %% [markdown]
# ## Run sheet of the paper profile
# What one full table takes, estimated and not measured: forget10, 10 epochs of 400 forget rows and
# as many retain rows, about 90 tokens a row. With a model that has no published target, `ngdiff`
# fine-tunes target and retain-only model first (5 epochs, lr 1e-5, batch 32).

# %%
MODELS = ("phi-1.5", "falcon-1b", "gpt2-xl", "llama-3.2-1b", "llama-2-7b", "mistral-7b")
paper = ng.profile("paper")
takes = plans.plan("tofu", tuple(seeds), paper.rates).runs
sheet = tables.run_sheet(
    "tofu", MODELS, takes, steps=paper.steps, tokens=64 * 90, trained=5 * 4000 * 90
)
print(tables.sheet(sheet, "07", "locuslab/TOFU"))

# %% [markdown]
# ## Published defaults
# One table in `ngdiff.methods`. Our comparison takes weights and options from it, tunes the rate,
# stops at the hold-out level instead of after so many epochs, and trains every parameter (published
# RMU: some layers).

# %%
for method in methods.METHODS.values():
    if (d := method.defaults) is None:
        continue
    weights = "by the rule" if d.gamma is None else f"{d.gamma:g}·forget + {d.alpha:g}·retain"
    print(
        f"{method.name:26}{weights:26}lr {d.lr:g}, "
        f"{d.epochs:2d} epochs, batch {d.batch}  {dict(d.options)}  {d.source}"
    )

# %% [markdown]
# ## Predict, then run
# Pure fine-tuning on the retain rows ("Retain-only fine-tuning") never looks at what must be
# forgotten. Does it reach the hold-out level?

# %%
for row in done["matched"]:
    if row["method"] in ("retain-ft", "gradascent"):
        print(
            f"{style.label(row['method']):26} {row['stopped']}, "
            f"forget loss {row['loss_forget']:.2f} of {before['loss_holdout']:.2f}"
        )

# %% [markdown]
# ## Exercise (10 minutes, ●○○)
# Which one of the nine numbers holds the start's model utility down most? A harmonic mean is ruled
# by its smallest values: find the name in `nine` whose replacement by 1 raises the harmonic mean
# most.
#
# *Hint*: 9 / Σ 1/v; replacing v by 1 lowers the sum by 1/v − 1.

# %% tags=["exercise-solution"]
weakest = None
# solution
weakest = max(nine, key=lambda name: 1 / nine[name] - 1)
# end solution

# %% tags=["check"]
assert weakest is not None, "weakest: a name of `nine`"
print("what holds the utility down:", weakest)
assert nine[weakest] == min(nine.values()), "the smallest value weighs most in a harmonic mean"
assert abs(9 / sum(1 / v for v in nine.values()) - before["model_utility"]) < 1e-9
first = next(r for r in done["levels"] if r["model"] == "start")
assert first["privleak"] < -90 and first["mia_min_k"] > 0.95, (
    "a memorising start leaks: privleak near −100, AUC near 1"
)
assert data or smoke or first["forget_quality"] < 1e-3, (
    "and its truth ratios are not the retain-only model's"
)
floor = {row["convention"]: row["extraction_strength"] for row in conventions}
assert all(0 <= value <= 1 for value in floor.values())
assert all(
    (row[c]["ours"] is None)
    == (not any(r["method"] == row["method"] and r["model"] == row["model"] for r in ours))
    for row in table
    for c in POINTS
), "a point that was not run has no number"

# %% [markdown]
# ## What you should see
# The start gives itself away on every anchor: privleak below −90, membership AUC above .95
# (asserted), forget quality below .001 (asserted on the generated rows). What the methods do is in
# the tables above and, with intervals, in `docs/results.md`. Every published point that was not run here says so.
#
# ## Summary
# A number of TOFU is a number under a convention, on named rows, at a stated amount of forgetting.
# The table prints all three.
#
# ## References
# Maini et al., *TOFU* (arXiv 2401.06121); open-unlearning (github.com/locuslab/open-unlearning); Bu
# et al. (arXiv 2410.22086).
