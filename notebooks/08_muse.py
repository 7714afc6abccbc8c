# ---
# jupyter:
#   ngdiff:
#     question: "MUSE: documents, words, facts and membership; requests in a row"
#     needs: []
#     rows: muse
# ---

# %% [markdown]
# # 08 · MUSE
#
# <!-- ahead-news -->
# The long comparison on the generated news: not run.
# <!-- end ahead-news -->
#
# *You will* unlearn documents instead of questions, measure what is left word for word, as
# knowledge, and as membership, and answer four forget requests in a row · *Needs* 06 · *Time* tiny:
# minutes; paper: GPU hours (the run sheet estimates them) · *Relates to* the MUSE tables;
# of their numbers it has only those that were run
#
# The tiny profile runs a generated corpus of local news in MUSE's own schema (`ngdiff.data.news`):
# articles and quiz pages, continuations, questions with in-context pairs, documents for the
# membership test, forget requests. It differs from MUSE in what the module's first lines say. The
# paper profile reads the hub's MUSE-News and MUSE-Books.

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
from ngdiff.book import gallery
from ngdiff.evaluation.spelling import which
from ngdiff.study import plan as plans, setup, tables, trials
from ngdiff.store import rows as results
from ngdiff.figures import comparison, style
from ngdiff.figures import suites as pictures

given = which(data).of("muse")
P = ng.profile(profile)
source = given.real or ("news" if P.lm else "muse:hub")  # of a target, its corpus: news, or books
settings = {"profile": profile, "data": source}
bench = trials.benchmark(profile, "", source)
before, ideal = trials.levels(profile, "", source, 0)
print({name: len(rows) for name, rows in bench.configs.items()})

# %% [markdown]
# ## One complete result: the rivals of every page, stopped at one loss
# verbmem: the continuation of a forgotten article, ROUGE-L F1. knowmem: questions with in-context
# pairs, on forget and on retain. privleak: how far the membership AUC is from the retain-only
# model's, in per cent; a memorising model is at −100, 0 is the aim, above it the forget set stands
# out by how little it is known. Runs stop at the start's loss on unseen documents, the mean over all
# that is to be forgotten. So they are matched in this loss and in nothing else: the line below the
# table says how far apart verbatim memory lies at the stop. Rates as in notebook 06, one model, one
# order of the rows. score: harmonic mean of kept utility
# (knowmem_r over the start's) and achieved forgetting (how far verbmem has come down to the
# retain-only model's).

# %%
plan = plans.plan("smoke" if smoke else "muse", tuple(seeds), P.rates)
done = plans.carry_out(plan, page.rows, "muse_", refresh, **settings)
print(tables.runs(done, gallery.TABLES["muse_"], width=13))
print(tables.FOOT)
print(f"level: {before['loss_holdout']:.2f}; loss_forget is over all that is to be forgotten")
words = [row["verbmem_f"] for row in done["matched"] if row["stopped"] == "forget_level"]
print(
    f"verbatim memory of the {len(words)} runs that reached the level: {min(words):.2f} to "
    f"{max(words):.2f}; retain-only {ideal['verbmem_f']:.2f}"
)

# %% [markdown]
# The committed tuning runs, from which the rates were chosen: the score on the tuning seed. In
# brackets: runs that the budget ended before the hold-out level. Where one of them scored higher
# than the chosen rate, the table above has a line for it too.

# %%
fig = comparison.rates(done["tuning"])
style.save(fig, page.figures, "fig8_rates")
fig

# %%
more = done.get("unmatched", ())
fig = comparison.plane(done["matched"], done["levels"], unmatched=more, **pictures.MUSE)
style.save(fig, page.figures, "fig8_muse")
fig

# %% [markdown]
# ## Taken apart: forgetting words, forgetting facts
# The same article three ways: its text, a question on it, its membership score. The start and the
# retain-only model:

# %%
start, reference = ng.pair(bench, P)
report = {lm.name: ng.evaluate(lm, bench, progress=False) for lm in (start, reference)}
for name, found in report.items():
    first = {kind: next(iter(found.items[kind].values())) for kind in ("verbmem", "knowmem_f")}
    print(
        f"{name}\n   goes on   …{first['verbmem']['response'][:90]!r}\n"
        f"   in truth  …{first['verbmem']['gt'][:90]!r}"
    )
    print(
        f"   asked {first['knowmem_f']['question']!r}\n"
        f"   answers {first['knowmem_f']['response']!r}, in truth {first['knowmem_f']['gt']!r}"
    )
    member, other = (found.items[f"privleak_{side}"] for side in ("forget", "holdout"))
    print(
        f"   Min-40 % score {member[0]['score']:.2f}; "
        f"a document never seen {other[0]['score']:.2f} (lower: more likely a member)"
    )

# %% [markdown]
# ## Four requests in a row, and growing ones
# *Sustainability*: the four parts of the forget set are asked for one after the other, each run
# going on from the last model. *Scalability*: the start forgets one part, two, three, all four.
# NGDiff + AutoLR, stopped at the hold-out level each time; measured on all four parts, those not
# yet asked for too.


# %%
def requests(kind, k, lm):
    """The model after one more request, and its row."""
    fold = (
        ng.data.news(P, fold=(kind, k))
        if source == "news"
        else ng.data.muse(P, root=given.root, fold=(kind, k))
    )
    fold = setup.Setup.of(P, data=fold).fitted(lm)
    run = ng.unlearn(
        ng.problem(fold, lm, batch_size=P.batch_documents),
        ng.methods.ngdiff,
        ng.AutoLR(),
        steps=20 if smoke else P.steps,
        stop=ng.SetLevel(before["loss_holdout"]),
    )
    found = ng.evaluate(run.model, bench, report["reference"], progress=False)
    return run.model, {
        "folds": kind,
        "k": k,
        "stopped": run.stopped,
        "updates": len(run.history),
        **found.metrics,
    }


began, folds = time.perf_counter(), []
for kind in ("sust", "scal"):
    lm = start
    for k in range(1, 3 if smoke else 5):
        lm, row = requests(kind, k, lm if kind == "sust" else start)
        folds.append(row)
made = results.stamp(
    settings | {"method": "ngdiff", "stepsize": "autolr"}, 0, time.perf_counter() - began
)
results.write_rows(page.rows / "muse_folds.jsonl", [row | {"stamp": made} for row in folds])
LEFT = {name: name for name in ("verbmem_f", "knowmem_f", "knowmem_r", "loss_retain", "updates")}
print(tables.grid(folds, LEFT, lambda r: f"{r['folds']} {r['k']}, {r['stopped']}", width=13))

# %%
first = next(row for row in done["levels"] if row["model"] == "start")
fig = pictures.requests(results.read_rows(page.rows / "muse_folds.jsonl"), first)
style.save(fig, page.figures, "fig8_requests")
fig

# %% [markdown]
# ## Published points beside ours
# The paper profile's models, published beside ours where ours were run.

# %%
POINTS = ("knowmem_f", "verbmem_f", "privleak", "knowmem_r")
points = tables.published("muse")
ours = tables.ours_beside(points, "muse")
KEYS = ("model", "method", "convention")
table = tables.beside(points, ours, KEYS, POINTS)
print(tables.printed(table, KEYS, POINTS))

# %% [markdown]
# ## Run sheet of the paper profile
# Estimated, not measured: the paper profile's steps of 32 forget and 32 retain pieces of 2048
# tokens.

# %%
paper = ng.profile("paper")
sheet = tables.run_sheet(
    "muse",
    ("llama-2-7b-news", "iclm-7b-books"),
    plans.plan("muse", tuple(seeds), paper.rates).runs,
    steps=paper.steps,
    tokens=2 * 32 * 2048,
)
print(tables.sheet(sheet, "08", "muse-bench/MUSE-News, muse-bench/MUSE-Books"))

# %% [markdown]
# ## Predict, then run
# The runs stop at the loss of unseen documents. On which side of zero do you expect
# privleak there?

# %%
for row in tables.means(tables.reported(done), ("privleak", "mia_min_k")):
    print(
        f"{tables.run_name(row):26} privleak {row['privleak']:8.1f}  "
        f"AUC {row['mia_min_k']:.2f} (retain-only {ideal['mia_min_k']:.2f})"
    )

# %% [markdown]
# ## Exercise (10 minutes, ●●○)
# privleak from scores: `report["target"].items` and `report["reference"].items` hold a Min-40 %
# score for each document of `privleak_forget` and `privleak_holdout` (higher: less likely a
# member). With A = 1 − AUC, compute (A − A_ret)/A_ret · 100.
#
# *Hint*: `ngdiff.evaluation.metrics.auc(member, nonmember)`; a memorising model has AUC 1, so A =
# 0.

# %% tags=["exercise-solution"]
from ngdiff.evaluation.items import column
from ngdiff.evaluation.metrics import auc

leak = None
# solution
A, A_ret = (
    1 - auc(column(r.items["privleak_forget"]), column(r.items["privleak_holdout"]))
    for r in (report["target"], report["reference"])
)
leak = (A - A_ret) / A_ret * 100
# end solution

# %% tags=["check"]
assert leak is not None, "leak: (A − A_ret)/A_ret · 100"
print(f"privleak of the start: {leak:.1f}")
assert abs(leak - before["privleak"]) < 1e-6, (
    "A is 1 − AUC: did you divide by the retain-only model's A?"
)
assert before["privleak"] < -90 and before["mia_min_k"] > 0.95, (
    "a memorising start: privleak near −100, AUC near 1"
)
assert before["verbmem_f"] > 0.9 > 0.5 > ideal["verbmem_f"], (
    "it recites what the retain-only model has never seen"
)
assert before["knowmem_r"] > 0.8 and ideal["knowmem_r"] > 0.8, "both know the retain set"
assert smoke or given.place or max(words) - min(words) > 0.3, (
    "the stop should match the loss, not the words"
)
last = [row["verbmem_f"] for row in folds if row["folds"] == "sust"]
assert smoke or last[-1] < before["verbmem_f"], (
    "four requests in a row should leave less of the words"
)

# %% [markdown]
# ## What you should see
# The start recites the forget set (verbmem above .9, the retain-only model below .5) and gives it
# away (privleak below −90); both models know the retain set. Runs that reach the level differ in
# verbatim memory by more than .3: equal loss is not equal forgetting here (all asserted). What is
# left after unlearning, and at what price in knowmem_r, is in the table.
#
# ## Summary
# Words, facts and membership are measured apart: the table shows how far a run that is stopped by
# one loss has moved each of them.
#
# ## References
# Shi et al., *MUSE* (arXiv 2407.06460); Shi et al., *Min-K% Prob* (arXiv 2310.16789); Bu et al.
# (arXiv 2410.22086).
