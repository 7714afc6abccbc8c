# ---
# jupyter:
#   ngdiff:
#     question: "every table and figure, rebuilt from saved rows alone"
#     needs: ["all"]
# ---

# %% [markdown]
# # 10 · Every table and figure, from saved rows alone
#
# *You will* rebuild every figure and every main table from the rows under `data/results/`, without
# any model, and see what of the paper each one relates to · *Needs* rows of the other notebooks ·
# *Time* seconds · *Relates to* the paper's figures, tables and statements, by the map below
#
# **We had no access to the paper's body. Nothing here was compared with a figure or a table of it.**
#
# A figure is a function of saved rows. What was not run says "not run"; nothing stands in for it.
# Another run's rows are drawn with the parameter `rows`: every run outside `ngdiff reproduce` says
# in its first line where its rows are.

# %% tags=["parameters"]
profile: str = "tiny"  # size of models and data, such as tiny, small or paper
rows: str = ""  # the folder of rows to draw; empty for the committed ones
smoke: bool = False  # a small budget, to see whether the page runs
data: str = ""  # real rows, a folder or hub; empty for generated rows

# %%
from ngdiff.book.page import opened

page = opened(profile=profile, rows=rows, smoke=smoke, data=data)
profile, smoke, data = page.parameters.values()

# %%
from IPython.display import display

from ngdiff.book import gallery, passed
from ngdiff.study import claims, verdicts
from ngdiff.store import rows as results
from ngdiff.figures import captions, style

saved = gallery.Saved(page.published, profile, data)

# %% [markdown]
# ## What is there

# %%
files = sorted(p for p in page.published.glob("*") if p.suffix in (".jsonl", ".parquet"))
for path in files:
    print(f"{path.name:34} {len(results.read_rows(path)):4d} rows")

# %% [markdown]
# ## One complete result: every figure, redrawn
# The caption beside a name is computed from the rows that the figure shows. The figures of the theory
# are drawn too, but shown in notebooks 01 to 04 only, which keeps this page small. Those of the long
# comparison are saved here; the others were saved by their own pages. `fig10_where`: where weights
# that adapt should help (κ far from 1 with ρ above 0, few steps inside Eq. 7 for a fixed c), and
# beside it what they gained. `fig10_bands`: which constant rates work.

# %%
drawn = dict(gallery.figures(saved))
assert len(drawn) == len(gallery.FIGURES), "each figure has a name of its own"
for name, fig in drawn.items():
    if isinstance(fig, str):
        print(f"{name}: not run ({fig})")
        continue
    print(f"{name}. {fig.caption}")
    if any(map(captions.kind, fig.rows)):
        display(fig)
    if name.startswith("fig10"):
        style.save(fig, page.figures, name, gallery.used(name, page.published))

# %% [markdown]
# ## The main tables, rebuilt
# In order: the generated authors (06), TOFU's page (07), MUSE's (08), SemEval's (09).

# %%
for beginning in gallery.TABLES:
    print(gallery.table(beginning, saved), "\n")

# %% [markdown]
# ## TOFU's own verdict, and the price
# Forget quality above .05 is TOFU's own test of unlearning. The price is ROUGE of the answers to
# keep. Here for page 06, and for the long comparison on generated authors and on TOFU's rows.

# %%
for rows_of, levels_of in (
    ("matched.parquet", "levels.jsonl"),
    *([verdicts.file_name(part, n) for part in ("compare", "levels")] for n in ("authors", "tofu")),
):
    found, models = saved.some(rows_of), saved.some(levels_of)
    print(rows_of if found and models else f"{rows_of}: not run")
    if found and models:
        print(passed.verdict(found, models).text(), passed.summary(found), sep="\n", end="\n\n")

# %% [markdown]
# ## The map
# We had no access to the paper's body: its figures and tables were not seen. *Derived*: shown here
# from the published idea, and asserted. *Our own data*: made and drawn here; the counterpart was not
# seen. *Not run*: nothing of ours stands beside it.
#
# | paper | notebook | our file | status |
# | --- | --- | --- | --- |
# | gradient space: the cone of static scalarization, the region of Eq. 7, NGDiff inside (Fig. 2) | 02 | `fig2_gradient_space`, `fig2_interval` | our own data, counterpart not seen |
# | statements: scalarization and Pareto points, monotone losses at a small rate | 04 | `fig4_*`, `theory_*.jsonl` | derived, and asserted on quadratics; one holds only in part (notebook 04) |
# | the algorithm with its automatic learning rate | 02, 03 | `ngdiff/core/step.py`, `ngdiff/core/autolr.py`, `fig3_*` | derived from its published description, tested against closed forms; the listing not seen |
# | trajectories of losses | 00, 05 | `fig0_start_here`, `fig5_trajectories` | our own data, counterpart not seen |
# | TOFU: methods, utility, forgetting | 06, 07 | `fig6_plane`, `fig7_tofu`, `matched.parquet`, `fixed.parquet`, `evidence_*`, `tofu_*` | our own data, counterpart not seen; the paper's models: not run |
# | learning-rate ablation | 03, 06 | `fig3_autolr`, `fig6_rates`, `fig6_learning_rate`, `fig10_bands` | our own data, counterpart not seen |
# | MUSE: verbatim, knowledge, privacy | 08 | `fig8_muse`, `fig8_requests`, `muse_*` | our own data (generated news), counterpart not seen; its models: not run |
# | SemEval-2025 Task 4 (the task's paper): twelve terms, membership, baselines | 09 | `fig9_membership`, `semeval_*` | our own data (generated dossiers); its models: not run |
#
# ## The numbers a new run is compared with
# `summary.jsonl` holds the numbers, each with the tolerance it was given before; the report of
# `make reproduce` sets the committed and the new ones side by side.

# %%
rows = verdicts.load(page.published)
sources = ["start.jsonl", "learning_rate.jsonl", "claims.jsonl"]
sources += [f"{beginning}matched.parquet" for beginning in gallery.TABLES]
sources += [verdicts.file_name("compare", name) for name in rows.names]
summary = claims.summary({name: page.saved(name) for name in sources})
results.write_rows(page.rows / "summary.jsonl", summary)
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
matched = page.saved("matched.parquet") or []
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
assert smoke or page.saved("start.jsonl"), "notebook 00 has not been run: its rows are missing"
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
