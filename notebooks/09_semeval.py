# ---
# jupyter:
#   ngdiff:
#     question: "SemEval-2025 Task 4: twelve terms, membership, what limits a run's score"
#     needs: []
#     rows: semeval
# ---

# %% [markdown]
# # 09 · SemEval-2025 Task 4
#
# <!-- ahead-dossiers -->
# The long comparison on the generated dossiers: not run.
# <!-- end ahead-dossiers -->
#
# <!-- ahead-lume -->
# The long comparison on LUME's rows: not run.
# <!-- end ahead-lume -->
#
# *You will* forget stories, invented people's private data and biographies at once, compute all
# twelve terms of the task, the membership score and the final score, and see what holds a run down
# · *Needs* 06 · *Time* tiny: minutes; paper: GPU hours (the run sheet estimates them) ·
# *Relates to* the task's tables; of their numbers it has only those that were run
#
# The tiny profile runs generated dossiers in the task's own schema (`ngdiff.data.dossiers`; all
# people invented, those of Task3 too). With a copy of the real rows (`ngdiff reproduce --data
# LUME`) a slice of them goes through training, unlearning and the evaluator as well; the paper
# profile reads the hub's models and needs that copy, since the hub's data has no row that a model
# has never seen.

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
from dataclasses import replace

import ngdiff as ng
from ngdiff.book import gallery
from ngdiff.study import plan as plans, tables, trials
from ngdiff.store import rows as results
from ngdiff.evaluation.forward import loss
from ngdiff.evaluation.mmlu import THRESHOLD, mmlu
from ngdiff.evaluation.spelling import which
from ngdiff.evaluation.suites import TERMS
from ngdiff.figures import comparison, style
from ngdiff.figures import suites as pictures

lume = which(data).of("semeval")
P = ng.profile(profile)
source = "dossiers" if P.lm else lume.real or "semeval:hub"
settings = {"profile": profile, "data": source}
bench = trials.benchmark(profile, "", source)
before, ideal = trials.levels(profile, "", source, 0)
print({name: len(rows) for name, rows in bench.configs.items()})
for task in ("Task1", "Task2", "Task3"):
    row = next(r for r in bench.forget if r["task"] == task)
    print(f"{row['id']}  {row['question'][-70:]!r} -> {row['answer'][:60]!r}")

# %% [markdown]
# ## One complete result: the rivals of every page, the organisers' baselines among them
# `sc` rows continue a text and are judged by ROUGE-L recall, `qa` rows by exact match of the whole
# answer. Twelve terms: for each of three tasks both, 1 − value on what is to be forgotten and the
# value on what is to be kept; their harmonic mean is the task aggregate. The membership score is 1
# − 2·|AUC − ½|. The final score also needs MMLU, so there is none here. Rates and stop as in
# notebook 06, one model, one order of the rows. The last column is what rates are tuned
# by, the harmonic mean of kept utility (of the six retain values) and achieved forgetting (mean of
# the six forget values): no single zero makes it zero.

# %%
start, reference = ng.pair(bench, P)
general, why = (
    None,
    "MMLU asks a model of billions of parameters, this one knows nothing of the world",
)
if P.model:  # asked first: where it cannot be, no run waits for it
    try:
        began, general = time.perf_counter(), mmlu(start)["average_acc"]
        made = results.stamp(settings | {"mmlu": "5-shot"}, 0, time.perf_counter() - began)
        results.write_rows(
            page.rows / "semeval_mmlu.jsonl", [{"model": "start", "mmlu": general, "stamp": made}]
        )
    except (ModuleNotFoundError, ConnectionError) as error:
        why = str(error)
plan = plans.plan("smoke" if smoke else "semeval", tuple(seeds), P.rates)
plan = replace(plan, mmlu=general is not None)
done = plans.carry_out(plan, page.rows, "semeval_", refresh, **settings)
SHORT = {
    name: name.replace("Task", "T").replace("_regurgitation", " sc").replace("_knowledge", " qa")
    for name in TERMS
}
SCORES = dict(gallery.TABLES["semeval_"])
SCORES |= {} if general is None else {"mmlu": "MMLU", "aggregate": "final"}
for fold, what in (
    ("forget", "1 − value on the forget set"),
    ("retain", "value on the retain set"),
):
    print(f"{what}: the six terms")
    print(tables.runs(done, {f"term_{fold}_{name}": label for name, label in SHORT.items()}), "\n")
print("scores")
print(tables.runs(done, SCORES))
print(tables.FOOT)

# %% [markdown]
# The committed tuning runs, from which the rates were chosen: the score on the tuning seed. In
# brackets: runs that the budget ended before the hold-out level. Where one of them scored higher
# than the chosen rate, the table above has a line for it too.

# %%
fig = comparison.rates(done["tuning"])
style.save(fig, page.figures, "fig9_rates")
fig

# %% [markdown]
# ## Taken apart: what holds a run down
# Two scores can hold a run down. One zero term makes the task aggregate zero. The membership score
# punishes both ends: a model that still knows its members (AUC near 1) and one that was pushed past
# them (AUC near 0). Left: every run of this page, the tuning ones too. Right: the task's own
# baselines (diamonds) and best entries (triangles) on OLMo-7B, as published. Below: which of the two
# scores is the lower one, counted.

# %%
published = tables.published("semeval")
every = [*done["tuning"], *tables.reported(done)]
fig = pictures.membership(every, done["levels"], [r for r in published if r["model"] == "olmo-7b"])
style.save(fig, page.figures, "fig9_membership")
fig

# %%
for name, some in (
    ("our reported runs", tables.reported(done)),
    ("the published points", published),
):
    low = sum(row["task_aggregate"] < row["mia_final_score"] for row in some)
    print(f"{name}: the task aggregate is the lower score in {low} of {len(some)}")

# %% [markdown]
# Which terms hold the aggregate down? The smallest term of each method, by name and over its runs:
# if it is an exact-match term of the forget set, the loss that stopped the run, a mean over
# *tokens*, was ruled by the long texts, while the short answers were still there.

# %%
terms_of = {
    f"term_{fold}_{name}": f"{fold} {label}"
    for fold in ("forget", "retain")
    for name, label in SHORT.items()
}
everyone, smallest = tables.means(tables.reported(done), [*terms_of, "mia_auc"]), {}
for row in everyone:
    terms = {label: row[name] for name, label in terms_of.items()}
    smallest[tables.run_name(row)] = min(terms, key=terms.get)
    print(
        f"{tables.run_name(row):26} {smallest[tables.run_name(row)]:16} {min(terms.values()):.3f}"
    )

# %% [markdown]
# ## MMLU and the final score
# 5-shot accuracy over the questions of 57 subjects, through lm-eval (`pip install 'ngdiff[mmlu]'`)
# on the hub's questions. A 7B entry must stay above 0.371. Where either cannot be had, this says
# so; a model of half a million parameters would guess anyway.

# %%
if general is None:
    print("not run:", why)
else:
    print(
        f"MMLU of the start: {general:.3f}",
        "" if general > THRESHOLD else f"(below {THRESHOLD})",
        "; of the runs: above",
    )

# %% [markdown]
# ## The evaluator's own files
# The report as the organisers' evaluator writes it, scored again from the files alone.

# %%
import tempfile
from pathlib import Path

from ngdiff.evaluation import semeval as evaluator
from ngdiff.score import score

report = ng.evaluate(start, bench, progress=False)
with tempfile.TemporaryDirectory() as folder:
    evaluator.write(report, Path(folder) / "start")
    again, warnings = score("semeval", Path(folder) / "start")
print({k: again[k] for k in ("harmonic-mean-task-aggregate", "mia_loss_acc", "aggregate-score")})

# %% [markdown]
# ## Real rows
# A slice of LUME's training rows where a local copy is given: two documents of each task and fold,
# a model trained on them, NGDiff, the evaluator.

# %%
if lume.root:
    began = time.perf_counter()
    wide = replace(P, lm=replace(P.lm, context=2048))
    slice_ = ng.data.semeval(wide, "train", root=lume.root, documents=2)
    model, retained = ng.pair(slice_, wide)
    first = ng.evaluate(model, slice_, retained, progress=False)
    level = loss(model, slice_.holdout)
    run = ng.unlearn(
        ng.problem(slice_, model, batch_size=8),
        ng.methods.ngdiff,
        ng.AutoLR(),
        steps=60,
        stop=ng.SetLevel(level),
    )
    last = ng.evaluate(run.model, slice_, retained, progress=False)
    made = results.stamp(
        {"split": "train", "documents": 2, "method": "ngdiff", "level": level},
        0,
        time.perf_counter() - began,
    )
    real = [
        {"model": name, **r.metrics, "stamp": made}
        for name, r in (("start", first), ("NGDiff + AutoLR", last))
    ]
    results.write_rows(page.rows / "semeval_lume.jsonl", real)
    asked = {
        "task_aggregate": "task",
        "forget_regurgitation": "f sc",
        "forget_knowledge": "f qa",
        "retain_regurgitation": "r sc",
        "retain_knowledge": "r qa",
        "mia_auc": "AUC",
    }
    print(tables.grid(real, asked, lambda r: r["model"]))
else:
    print("not run: no local copy of LUME was given")

# %% [markdown]
# ## Published points beside ours
# The organisers' baselines and the best entries, beside our runs of the paper profile's models
# where there are any.

# %%
POINTS = ("aggregate", "task_aggregate", "mia_final_score", "mmlu")
ours = [
    row for name in ("olmo-1b", "olmo-7b") for row in tables.saved(f"paper-{name}", "semeval", name)
]
KEYS = ("model", "kind", "method", "convention")
table = tables.beside(
    published, [row | {"kind": "organisers' baseline"} for row in ours], KEYS, POINTS
)
print(tables.printed(table, KEYS, POINTS))

# %% [markdown]
# ## Run sheet of the paper profile
# Estimated, not measured: the paper profile's steps of 32 forget rows and as many retain rows, of
# about 150 tokens each.

# %%
paper = ng.profile("paper")
sheet = tables.run_sheet(
    "semeval",
    ("olmo-1b", "olmo-7b"),
    plans.plan("semeval", tuple(seeds), paper.rates).runs,
    steps=paper.steps,
    tokens=2 * 32 * 150,
    trained=5 * 1136 * 150,
)
print(tables.sheet(sheet, "09", "FOLDER, LUME's rows with all files", " --data FOLDER"))

# %% [markdown]
# ## Predict, then run
# NGDiff weighs by gradient norms. Runs that reached the level (no *) end at about the same forget loss. Is
# its membership AUC nearer to ½? The distance is taken run by run: runs on both sides of ½ would
# look perfect in the mean.

# %%
missed = [row | {"miss": abs(row["mia_auc"] - 0.5)} for row in tables.reported(done)]
for row in tables.means(missed, ("mia_auc", "miss")):
    name = tables.run_name(row) + " *" * (row["reached"] < 1)
    print(f"{name:26} AUC {row['mia_auc']:.2f}, mean of |AUC − ½| {row['miss']:.2f}")
above = sum(row["mia_auc"] > 0.5 for row in missed)
print(f"{above} of {len(missed)} runs end above ½ and still know their members")

# %% [markdown]
# ## Exercise (10 minutes, ●○○)
# The task aggregate by hand: from `done["levels"]`, the retain-only model's row, take the twelve
# `term_…` values and form their harmonic mean.
#
# *Hint*: 12 / Σ 1/v.

# %% tags=["exercise-solution"]
row, aggregate = next(r for r in done["levels"] if r["model"] == "retain-only"), None
# solution
aggregate = 12 / sum(
    1 / row[f"term_{fold}_{name}"] for fold in ("forget", "retain") for name in TERMS
)
# end solution

# %% tags=["check"]
assert aggregate is not None, "aggregate: the harmonic mean of twelve terms"
print(f"task aggregate of the retain-only model: {aggregate:.3f}")
assert abs(aggregate - row["task_aggregate"]) < 1e-9, "twelve terms, harmonic: 12 / Σ 1/v"
assert before["task_aggregate"] == 0 and before["mia_auc"] > 0.95, (
    "the start recites: a zero term, and members stand out"
)
assert ideal["task_aggregate"] > 0.5 and abs(ideal["mia_auc"] - 0.5) < 0.15, (
    "the retain-only model is the aim of both"
)
assert (
    abs(again["harmonic-mean-task-aggregate"] - report.metrics["task_aggregate"]) < 1e-12
    and again["aggregate-score"] == -1
)
assert smallest and all(r["mia_auc"] <= before["mia_auc"] for r in every), (
    "no run makes members stand out more than the start does"
)

# %% [markdown]
# ## What you should see
# The start has a zero aggregate and membership AUC near 1; the retain-only model is good at both
# (all asserted). The figure shows on which side of ½ each run misses, and the last cell before the
# exercise counts them. No final score is printed without MMLU.
#
# ## Summary
# Twelve terms under a harmonic mean, a two-sided membership score, general knowledge: the final
# score is the mean of the three.
#
# ## References
# Ramakrishna et al., *SemEval-2025 Task 4* (arXiv 2504.02883) and *LUME* (arXiv 2502.15097); Bu et
# al. (arXiv 2410.22086).
