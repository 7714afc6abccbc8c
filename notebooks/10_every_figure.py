# ---
# jupyter:
#   ngdiff:
#     question: "every table and figure, rebuilt from saved rows alone"
#     needs: ["all"]
# ---

# %% [markdown]
# # 10 · Every table and figure, from saved rows alone
#
# *You will* rebuild every figure of a language-model run from the rows under `data/results/`,
# without any model · *Needs* rows of the other notebooks · *Time* seconds · *Reproduces* the map of
# the paper's figures and tables
#
# A figure is a function of saved rows. What was not run says "not run"; nothing stands in for it.
# (The figures of the theory are drawn from saved rows, `theory_*.jsonl`, in notebooks 01 to 04
# themselves.)

# %% tags=["parameters"]
profile = "tiny"
seeds = (0, 1, 2)
smoke = False
data = ""

# %%
from ngdiff.study import claims, plan as plans, verdicts
from ngdiff.store import paths, rows as results
from ngdiff.book import evidence
from ngdiff.figures import comparison, evidence as long, runs, style
from ngdiff.figures import suites as pictures

rows_folder, figures_folder = (
    f(profile, data, smoke) for f in (paths.rows_folder, paths.figures_folder)
)


def saved(name):
    """The rows of a file, or None where it was not run."""
    path = rows_folder / name
    return results.read_rows(path) if path.exists() else None


# %% [markdown]
# ## What is there

# %%
files = sorted(p for p in rows_folder.glob("*") if p.suffix in (".jsonl", ".parquet"))
for path in files:
    print(f"{path.name:28} {len(results.read_rows(path)):4d} rows")

# %% [markdown]
# ## One complete result: every figure of a language-model run, redrawn
# From the rows of notebooks 00, 03 and 05 to 09, where they are. Then the figures of the long
# comparison, which are saved here. They say in the report whether their rows are this run's or the
# committed ones.

# %%
start, levels = saved("start.jsonl"), saved("levels.jsonl")
drawn = {}
level = next((row["loss_holdout"] for row in start or () if row["model"] == "start"), None)
for name, rows_file in (
    ("start", "start.jsonl"),
    ("learning_rate", "learning_rate.jsonl"),
    ("tiny_llm", "tiny_llm.jsonl"),
):
    steps = saved(f"{name}_history.parquet") if saved(rows_file) else None
    if steps is None:
        print(f"{name}: not run")
    else:
        histories = runs.by_name(steps)
        drawn[name] = (
            runs.autolr(histories)
            if name == "learning_rate"
            else runs.trajectories(histories, level)
        )
parts = ("matched.parquet", "starts.parquet", "claims.jsonl", "levels.jsonl")
tuning = plans.saved_tuning(plans.plan("live", tuple(seeds)), profile=profile, data=data)
found = [tuning, *map(saved, parts)]
if all(found):
    tuning, matched, starts, said, known = found
    orders = len({row["seed"] for row in matched})
    title = f"{len(matched)} runs; {orders} orders of the rows"
    drawn |= {
        "plane": comparison.plane(matched, known, title),
        "learning_rate": comparison.quality(tuning, starts, "score", title),
        "rates": comparison.rates(tuning, "tuning seed, one run a cell"),
        "differences": comparison.differences(said, title),
    }
else:
    print("live comparison: not run")

tables_of = {
    "tofu": lambda rows, known, short: comparison.plane(
        rows, known, "TOFU's schema", unmatched=short
    ),
    "muse": lambda rows, known, short: comparison.plane(
        rows,
        known,
        "MUSE's schema",
        ("verbmem_f", "verbatim memory"),
        ("knowmem_r", "knowledge"),
        short,
    ),
    "semeval": lambda rows, known, short: pictures.membership([*rows, *short], known),
}
for name, draw in tables_of.items():
    found = [saved(f"{name}_{part}") for part in ("matched.parquet", "levels.jsonl")]
    if all(found):
        drawn[name] = draw(*found, saved(f"{name}_unmatched.parquet") or [])
    else:
        print(f"{name}: not run")
if folds := saved("muse_folds.jsonl"):
    drawn["requests"] = pictures.requests(
        folds, next(r for r in saved("muse_levels.jsonl") if r["model"] == "start")
    )

# %% [markdown]
# ## The long comparison
# Where weights that adapt should help: κ far from 1 with ρ above 0, and few steps inside Eq. 7 for a
# fixed c. Beside it: what they gained. Then: which constant rates work.

# %%
rows = verdicts.load(rows_folder)
went = [r | {"set": evidence.TITLES[n]} for n in rows.names for r in rows.of("geometry", n)]
if went:
    drawn["where"] = long.where(went, evidence.gains(rows))
    used = [verdicts.file_name("geometry", n) for n in rows.names if rows.of("geometry", n)]
    style.save(drawn["where"], figures_folder, "fig10_where", style.caption(went), used)
if tried := rows.of("bands", "authors"):
    drawn["bands"] = long.bands(tried, rows.of("levels", "authors"))
    used = [verdicts.file_name(part, "authors") for part in ("bands", "levels")]
    style.save(drawn["bands"], figures_folder, "fig10_bands", style.caption(tried), used)

# %%
from IPython.display import display

for name, fig in drawn.items():
    print(name)
    display(fig)

# %% [markdown]
# ## The map
# | paper | notebook | our file | status |
# | --- | --- | --- | --- |
# | gradient space: the cone of static scalarization, the region of Eq. 7, NGDiff inside (Fig. 2) | 02 | `fig2_gradient_space`, `fig2_interval` | redrawn from our own data |
# | statements: scalarization and Pareto points, monotone losses at a small rate | 04 | `fig4_*`, `theory_*.jsonl` | derived, and asserted on quadratics; one holds only in part (notebook 04) |
# | the algorithm with its automatic learning rate | 02, 03 | `ngdiff/core/step.py`, `ngdiff/core/autolr.py`, `fig3_*` | built from its published description; tested against closed forms |
# | trajectories of losses | 00, 05 | `fig0_start_here`, `fig5_trajectories` | redrawn from our own data |
# | TOFU: methods, utility, forgetting | 06, 07 | `fig6_plane`, `fig7_tofu`, `matched.parquet`, `fixed.parquet`, `evidence_*`, `tofu_*` | redrawn from our own data; the paper's values: unknown here; its models: need a GPU |
# | learning-rate ablation | 03, 06 | `fig3_autolr`, `fig6_rates`, `fig6_learning_rate`, `fig10_bands` | redrawn from our own data |
# | MUSE: verbatim, knowledge, privacy | 08 | `fig8_muse`, `fig8_requests`, `muse_*` | redrawn from generated news; its models: need a GPU |
# | SemEval-2025 Task 4 (the task's paper): twelve terms, membership, baselines | 09 | `fig9_membership`, `semeval_*` | redrawn from generated dossiers; its models: need a GPU |
#
# ## The numbers a new run is compared with
# `summary.jsonl` holds the numbers, each with the tolerance it was given before; the report of
# `make reproduce` sets the committed and the new ones side by side.

# %%
sources = ["matched.parquet", "claims.jsonl", *(f"{name}_matched.parquet" for name in tables_of)]
sources += [verdicts.file_name("compare", name) for name in rows.names]
summary = claims.summary(
    {name: saved(name) for name in ("start.jsonl", "learning_rate.jsonl", *sources)}
)
results.write_rows(rows_folder / "summary.jsonl", summary)
for row in summary:
    value = row["value"]
    print(
        f"{row['name']:56} "
        + (value if isinstance(value, str) else f"{value:10.4g} ± {row['tolerance']:.2g}")
    )

# %% [markdown]
# ## Predict, then run
# How many of the methods that were matched does NGDiff + AutoLR, tuned on nothing, beat, and how
# many beat it? Write two numbers down, then run the cell.

# %%
for name in rows.names:
    said = [row["verdict"] for row in verdicts.against(rows, name)]
    lost = sum(w.startswith("tuned ") and w.endswith(" better") for w in said)
    won = {"beats": said.count("NGDiff + AutoLR better"), "is beaten by": lost}
    print(f"{name:12} {won}, of {len(said)}")
if not rows.names:
    print("the long comparison: not run")

# %% [markdown]
# ## Exercise (5 minutes, ●○○)
# From the saved rows of the live comparison, compute the mean number of updates of NGDiff + AutoLR
# and of GradDiff(0.9) at its tuned rate. A row has `method`, `stepsize` and `updates`.
#
# *Hint*: two methods times two conditions; a mean is a sum over a count.

# %% tags=["exercise-solution"]
matched = saved("matched.parquet") or []
ours = theirs = None
# solution
ours = [
    row["updates"] for row in matched if row["method"] == "ngdiff" and row["stepsize"] == "autolr"
]
theirs = [
    row["updates"]
    for row in matched
    if row["method"] == "graddiff-0.9" and row["stepsize"] == "constant"
]
ours, theirs = (sum(updates) / max(len(updates), 1) for updates in (ours, theirs))
# end solution

# %% tags=["check"]
assert ours is not None and theirs is not None, "two means of the column `updates`"
means = claims.table(matched, ("updates",), lambda row: (row["method"], row["stepsize"]))
wanted = {row["group"]: row["updates"] for row in means}
assert ours == wanted.get(("ngdiff", "autolr"), 0), "filter by method and by step-size rule"
assert theirs == wanted.get(("graddiff-0.9", "constant"), 0), "GradDiff(0.9) ran at a constant rate"
assert len({row["name"] for row in summary}) == len(summary), "a number has one row"
assert smoke or start, "notebook 00 has not been run: its rows are missing"
print(f"updates: NGDiff + AutoLR {ours:.1f}, GradDiff(0.9) {theirs:.1f}")

# %% [markdown]
# ## What you should see
# Every figure that has rows, and "not run" for what has none; a number has one row (asserted).
# Delete a file under `data/results/<profile>/` (git brings it back), run this page again, and its
# figures are gone: nothing stands in.
#
# ## Summary
# Rows are the result; a figure, a table and a sentence are views of them.
#
# ## References
# The protocol and its changes: `data/results/LOG.md`.
