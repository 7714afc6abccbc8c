# ---
# jupyter:
#   ngdiff:
#     question: "a model forgets some authors: the whole flow, one figure"
#     needs: []
# ---

# %% [markdown]
# # 00 · Start here: a language model forgets some authors
#
# *You will* take a small language model that knows a population of fictitious authors by heart,
# make it forget some of them, and check what it lost besides · *Needs* nothing · *Time* tiny: about
# a minute, most of it training the model; paper: a GPU · *Relates to* the paper's setting; here on
# generated data
#
# The whole companion in one page. Two losses pull on one model: the **retain loss** R, the
# cross-entropy on what it should keep, is to fall; the **forget loss** F, the cross-entropy on what
# it should forget, is to *rise*. NGDiff steps along the difference of the two unit gradients,
#
# $$d = \frac{g_R}{\lVert g_R\rVert} - \frac{g_F}{\lVert g_F\rVert}, \qquad \theta \leftarrow \theta - \eta\, d,$$
#
# and sets its own learning rate η by looking at the retain loss along the way.

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
import ngdiff as ng
from ngdiff.store import rows as results
from ngdiff.study import trials
from ngdiff.evaluation.generate import answers

P = ng.profile(profile)
bench = trials.benchmark(profile, "", data)
print(
    f"{bench.name} {bench.split}: {len(bench.forget)} rows to forget, {len(bench.retain)} to keep"
)

# %% [markdown]
# ## The result first
# `start` knows everything. `reference` was trained without the forget rows: it is what perfect
# unlearning would return. Both are trained here, once, and cached.

# %%
start, reference = ng.pair(bench, P)
before, ideal = trials.levels(profile, "", data, 0)
# the start's loss on authors it has never seen: forgotten means no better than that
level = before["loss_holdout"]
print(f"forget loss now {before['loss_forget']:.3f}, of unseen authors {level:.3f} nats per token")

# %%
problem = ng.problem(bench, start, batch_size=P.batch_size)
run = ng.unlearn(
    problem,
    ng.methods.ngdiff,
    ng.AutoLR(),
    steps=P.steps,
    seed=seeds[0],
    stop=ng.ForgetLevel(level),
)
print(f"stopped by {run.stopped!r} after {len(run.history)} steps and {run.seconds:.1f} s")

# %%
report = ng.evaluate(run.model, bench, reference=ideal["report"], max_new_tokens=P.max_new_tokens)
names = (
    "loss_forget",
    "loss_retain",
    "loss_holdout",
    "forget_Q_A_ROUGE",
    "retain_Q_A_ROUGE",
    "model_utility",
    "forget_quality",
    "mia_loss",
)
rows = [
    {"model": name, **{k: metrics.get(k) for k in names}}
    for name, metrics in (
        ("start", before),
        ("NGDiff + AutoLR", report.metrics),
        ("retain-only", ideal),
    )
]
rows[1] |= {"name": "ngdiff", "stopped": run.stopped, "updates": len(run.history)}
for row in rows:
    row["stamp"] = results.stamp(
        {"profile": profile, "data": data, "method": "ngdiff", "stepsize": "autolr"},
        seeds[0],
        run.seconds,
    )
results.write_rows(page.rows / "start.jsonl", rows)

print(f"{'':18}" + "".join(f"{k:>18}" for k in names))
for row in rows:
    shown = [f"{row[k]:.3g}" if row[k] is not None else "-" for k in names]
    print(f"{row['model']:18}" + "".join(f"{text:>18}" for text in shown))

# %% [markdown]
# ## The benchmark's own verdict, and the price
# TOFU has a test of its own. *Forget quality* is the p-value of a test that compares the model with
# the retain-only one. TOFU calls a model unlearned where it is above .05. The *price* is what the
# questions that it should keep are answered with: ROUGE, before and after.

# %%
from ngdiff.book import passed

said = "passes" if passed.passes(rows[1]) else "does not pass"
print(f"forget quality p = {rows[1]['forget_quality']:.2g}: this run {said} (p > {passed.PASS:g})")
print(f"retain ROUGE: {rows[0][passed.PRICE]:.3f} before, {rows[1][passed.PRICE]:.3f} after")

# %% [markdown]
# ## What it says now
# The same questions, before and after. Read them. Is the fact gone? Is the answer still a sentence,
# and does it fit the question? Does a question to keep still get the old answer?

# %%
shown = [("forget", row) for row in bench.forget[:3]] + [("keep", row) for row in bench.retain[:2]]
questions = [row["question"] for _, row in shown]
models = {"before": start, "after": run.model}
told = {name: answers(lm, questions, P.max_new_tokens) for name, lm in models.items()}
for i, (kind, row) in enumerate(shown):
    print(f"[{kind}] {row['question']}\n   truth  {row['answer']}")
    print(f"   before {told['before'][i]}\n   after  {told['after'][i]}\n")

# %% [markdown]
# ## One figure
# Left, the forget loss climbs to the level of authors never seen, and the run stops there. Right,
# the retain loss.

# %%
from ngdiff.figures import runs, style

history = page.rows / "start_history.parquet"
results.write_rows(history, [{"name": "ngdiff", **row} for row in run.rows()])
fig = runs.trajectories(runs.by_name(results.read_rows(history)), level, rows)
style.save(fig, page.figures, "fig0_start_here")
fig

# %% [markdown]
# ## Predict, then run
# What happens to the retain loss when the same number of steps is pure ascent on the forget loss
# (`GradAscent`, no retain gradient at all)? Write a number down, then run the cell. (The rate is
# 1e-4. Notebook 06 tunes it.)

# %%
updates = sum(info.updated for info in run.history)
ascent = ng.unlearn(problem, ng.methods.gradascent, ng.Constant(1e-4), steps=updates, seed=seeds[0])
last = ascent.history[-1]
print(
    f"GradAscent: forget loss {last.forget_ce:.2f}, "
    f"retain loss {last.retain_ce:.2f} (it started at {before['loss_retain']:.3f})"
)

# %% [markdown]
# ## Exercise (5 minutes, ●○○)
# How many of the forget questions does the model still answer word for word? Fill in `still_known`.
#
# *Hint 1*: `after[i]` is the answer to `bench.forget[i]["question"]`. *Hint 2*: a share is a count
# over a number of rows.

# %% tags=["exercise-solution"]
after = answers(run.model, [row["question"] for row in bench.forget], P.max_new_tokens)
still_known = None
# solution
right = [a == row["answer"] for a, row in zip(after, bench.forget, strict=True)]
still_known = sum(right) / len(right)
# end solution

# %% tags=["check"]
assert still_known is not None, (
    "still_known: how many of `after` equal their row's answer, over how many rows?"
)
print(f"{still_known:.0%} of the forget answers are still given word for word")
told = zip(after, bench.forget, strict=True)
count = [a.strip() == row["answer"].strip() for a, row in told].count(True)
assert still_known == count / len(bench.forget), (
    "a share lies between 0 and 1: divide by the number of rows"
)
assert report.metrics["loss_forget"] > before["loss_forget"], "the forget loss should have risen"
assert last.retain_ce > before["loss_retain"], "pure ascent should have hurt the retain loss"
assert data or run.stopped == "forget_level", (
    f"the run should have reached the hold-out level, not ended by {run.stopped}"
)
small = report.metrics["loss_retain"] - before["loss_retain"] < 0.1 * (
    report.metrics["loss_forget"] - before["loss_forget"]
)
assert data or small, (
    "the retain loss should rise by less than a tenth of what the forget loss does"
)
assert data or last.retain_ce > 3 * report.metrics["loss_retain"], (
    "and ascent should cost several times as much"
)

# %% [markdown]
# ## What you should see
# The run ends because the forget loss reached the level of unseen authors; the retain loss rose by
# less than a tenth of what the forget loss did. Pure ascent, in as many updates, leaves a retain
# loss more than three times as high (all asserted). The numbers are those of the table, saved with
# their stamp. Whether the run passes TOFU's own test is printed above: reaching the hold-out level
# and passing that test are two things (06, 07).
#
# ## Summary
# Two losses, two unit gradients, one step; a stop at the level of the unknown; a rate that nobody
# chose.
#
# ## The map
# | notebook | question |
# | --- | --- |
# | 01 | why two losses disagree, and why ascent blows up |
# | 02 | the normalised gradient difference: derive, implement, prove |
# | 03 | the learning rate that sets itself, and where it fails |
# | 04 | the theorems, on quadratics |
# | 05 | memorise, unlearn, read: the tiny model from end to end |
# | 06 | every baseline on equal terms |
# | 07 | TOFU: every method and metric, conventions, published points |
# | 08 | MUSE: documents, words, facts and membership |
# | 09 | SemEval-2025 Task 4: twelve terms, membership |
# | 10 | every table and figure, from saved rows alone |
#
# ## References
# Bu, Jin, Vinzamuri, Ramakrishna, Chang, Cevher, Hong: *Unlearning as multi-task optimization*,
# NAACL 2025 (arXiv 2410.22086). Maini et al.: *TOFU*, 2024 (arXiv 2401.06121), whose schema and
# metrics are used here.
