# ---
# jupyter:
#   ngdiff:
#     question: "a tiny language model, end to end: memorise, unlearn, read"
#     needs: ["00"]
# ---

# %% [markdown]
# # 05 · A tiny language model, end to end
#
# *You will* look into the benchmark, the models and one run of each of four methods: what is
# memorised, what is forgotten, what it costs, and what the model says · *Needs* 00 · *Time* tiny: a
# minute or two after 00; paper: GPU hours · *Relates to* a figure of loss trajectories in the
# paper, which we have not seen; drawn from our own runs

# %% tags=["parameters"]
profile: str = "tiny"  # size of models and data, such as tiny, small or paper
seeds: tuple = (0, 1, 2)  # seeds of the order; the first is taken; -p seeds '[0]'
refresh: bool = False  # make committed rows again, only under ngdiff reproduce
smoke: bool = False  # a small budget, to see whether the page runs
data: str = ""  # real rows, a folder or hub; empty for generated rows

# %%
from ngdiff.book.page import opened

page = opened(profile=profile, seeds=seeds, refresh=refresh, smoke=smoke, data=data)
profile, seeds, refresh, smoke, data = page.parameters.values()

# %%
import numpy as np

import ngdiff as ng
from ngdiff.store import rows as results
from ngdiff.study import trials
from ngdiff.evaluation.generate import answers
from ngdiff.figures import runs, style

P = ng.profile(profile)
bench = trials.benchmark(profile, "", data)
start, reference = ng.pair(bench, P)
before, ideal = trials.levels(profile, "", data, 0)

# %% [markdown]
# ## One complete result
# Four methods, the same rows in the same order, each stopped when its batch's forget loss reaches
# the hold-out level. NGDiff sets its own rate. The others run at 1e-4, untuned, and each method runs
# once: this is a look, not a comparison. Notebook 06 tunes and compares.

# %%
methods = ("ngdiff", "gradascent", "graddiff-0.5", "npo")
common = {"seed": seeds[0], "profile": profile, "data": data}
grid = [
    trials.Trial(m, *(("autolr", 1e-3) if m == "ngdiff" else ("constant", 1e-4)), **common)
    for m in methods
]
rows = [{"name": row["method"], **row} for row in trials.run_all(grid)]
results.write_rows(page.rows / "tiny_llm.jsonl", rows)
steps = [{"name": t.method, **row} for t in grid for row in trials.history(t)]
results.write_rows(page.rows / "tiny_llm_history.parquet", steps)
histories = runs.by_name(results.read_rows(page.rows / "tiny_llm_history.parquet"))
fig = runs.trajectories(histories, before["loss_holdout"], rows)
style.save(fig, page.figures, "fig5_trajectories")
fig

# %%
columns = (
    "updates",
    "stopped",
    "loss_forget",
    "loss_retain",
    "forget_Q_A_ROUGE",
    "model_utility",
    "forget_quality",
)
print(f"{'':14}" + "".join(f"{c:>18}" for c in columns))
for name, row in [("start", before), *((r["method"], r) for r in rows), ("retain-only", ideal)]:
    cells = [row.get(c) for c in columns]
    shown = [f"{c:.3g}" if isinstance(c, (int, float)) else c or "-" for c in cells]
    print(f"{name:14}" + "".join(f"{text:>18}" for text in shown))

# %% [markdown]
# ## Taken apart: what is memorised
# The start model answers the questions it was trained on word for word. Its loss on the hold-out
# authors is what *not knowing* looks like. The retain-only reference does not know the forget rows
# either. The line below prints both losses: the nearer they are, the better a place to stop is the
# hold-out level.


# %%
def exact(lm, rows):
    """Share of questions answered word for word by greedy generation."""
    told = answers(lm, [r["question"] for r in rows], P.max_new_tokens)
    return float(np.mean([a == r["answer"] for a, r in zip(told, rows)]))


known = {
    "start": exact(start, bench.full),
    "reference, forget rows": exact(reference, bench.forget),
}
print({k: round(v, 3) for k, v in known.items()})
print(
    f"start on hold-out {before['loss_holdout']:.2f}, "
    f"reference on forget {ideal['loss_forget']:.2f} nats per token"
)

# %% [markdown]
# ## Why this population of authors
# The benchmark is the invented population of seed 2. The retain-only model knows neither the authors
# to forget nor the hold-out authors. If it finds one set harder than the other, no run can be
# expected to reach a membership AUC of ½. So an AUC near ½ speaks for a population. These are the
# retain-only models of six populations (the rows are committed; `ngdiff reproduce --refresh` trains
# the models again):

# %%
if refresh and not (smoke or data):
    found = []
    for seed in range(6):
        other = ng.data.authors(P, seed=seed)
        report = ng.evaluate(ng.reference(other, P), other, gradnorm=False, generate=False)
        row = {k: report.metrics[k] for k in ("mia_loss", "loss_forget", "loss_holdout")}
        made = {"profile": profile, "population": seed}
        stamp = results.stamp(made, 0, report.meta["seconds"])
        found.append({"seed": seed, **row, "stamp": stamp})
    results.write_rows(page.rows / "populations.jsonl", found)
for row in page.saved("populations.jsonl") or ():
    print(
        f"population {row['seed']}: AUC {row['mia_loss']:.2f}, "
        f"forget {row['loss_forget']:.2f}, hold-out {row['loss_holdout']:.2f}"
    )

# %% [markdown]
# ## Read the generations
# Numbers hide what a model says. The same forget question under each method:

# %%
said = {t.method: trials.report(t).items["forget_Q_A_ROUGE"] for t in grid}
for i in (0, 1):
    print(f"{bench.forget[i]['question']}\n   {'truth':14}{bench.forget[i]['answer']}")
    for method, items in said.items():
        print(f"   {method:14}{items[i]['generation']}")

# %% [markdown]
# ## Predict, then run
# The condition of the theory, ⟨d, g_R⟩ ≥ 0 ≥ ⟨d, g_F⟩, is about the raw direction. AdamW changes
# the direction. In what share of the steps do you expect the *actual* update to raise the retain
# loss to first order, for NGDiff and for GradAscent?

# %%
for row in rows:
    print(f"{row['method']:14} {row['uphill_retain']:.0%} of the updates raised R to first order")

# %% [markdown]
# ## Exercise (10 minutes, ●○○)
# The conflict angle: from a history (a list of rows with `norm_R`, `norm_F`, `cosine`), compute the
# share of steps in which retain and forget gradients conflict. Remember the sign: F is ascended, so
# **ρ > 0 is conflict**.
#
# *Hint*: `cosine` is ρ; count the rows where it has the conflicting sign, over all rows.

# %% tags=["exercise-solution"]
history, conflict = histories["ngdiff"], None
# solution
conflict = sum(row["cosine"] > 0 for row in history) / len(history)
# end solution

# %% tags=["check"]
assert conflict is not None, (
    "conflict: the share of rows of `history` whose cosine has the conflicting sign"
)
print(f"in {conflict:.0%} of the steps the two gradients conflict")
signs = [row["cosine"] > 0 for row in history]
assert conflict == sum(signs) / len(signs), (
    "conflict is ρ > 0, because F is ascended: did you count ρ < 0?"
)
assert known["start"] >= 0.95 or data, known
sure = {part: before[f"{part}_Q_A_Prob"] for part in ("forget", "retain")}
assert min(sure.values()) >= 0.6, (
    f"the start should give its own facts a mean probability of .6 at least: {sure}"
)
assert known["reference, forget rows"] < 0.5 * known["start"], known
assert (
    data
    or smoke
    or all(before["loss_holdout"] / 2 < r["loss_forget"] < 2 * before["loss_holdout"] for r in rows)
)
assert data or smoke or rows[0]["loss_retain"] < min(r["loss_retain"] for r in rows[1:])
assert all(
    len(h) == r["updates"] + (r["stopped"] != "steps")
    for h, r in zip(histories.values(), rows, strict=True)
)

# %% [markdown]
# ## What you should see
# The start answers at least 95 % of its own facts word for word, with a mean probability above .6;
# the retain-only model knows fewer than half as many of the forgotten ones (asserted). The four
# methods end within a factor of two of the hold-out loss on the forget rows, and of the four NGDiff
# has the lowest retain loss (both asserted). The others are untuned, and GradDiff(0.9) is not among
# them: see notebook 06.
#
# ## Summary
# Memorising shows in the gap between the loss on trained and on unseen authors; forgetting closes
# the gap; what a method destroys on the way is what the next notebook compares.
#
# ## References
# Maini et al., *TOFU* (arXiv 2401.06121); Zhang et al., *NPO* (arXiv 2404.05868); Bu et al. (arXiv
# 2410.22086).
