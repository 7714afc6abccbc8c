# %% [markdown]
# # 10 · Every table and figure, from saved rows alone
#
# *You will* rebuild every figure of a language-model run from the rows under `data/results/`, without any model · *Needs*
# rows of the other notebooks · *Time* seconds · *Reproduces* the map of the paper's figures and tables
#
# A figure is a function of saved rows. What was not run says "not run"; nothing stands in for it. (The figures of the
# theory are drawn from saved rows, `theory_*.jsonl`, in notebooks 01 to 04 themselves.)

# %% tags=["parameters"]
profile = "tiny"
seeds = (0, 1, 2)
smoke = False
data = ""

# %%
from ngdiff import claims, paths, results
from ngdiff.figures import runs, style

rows_folder, figures_folder = (f(profile, data, smoke) for f in (paths.rows_folder, paths.figures_folder))


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
# ## The comparison, redrawn
# From the rows of notebook 06 (the live part) and of the committed grid, where they are.

# %%
start = saved("start.jsonl")
drawn, captions = {}, {}
level = next((row["loss_holdout"] for row in start or () if row["model"] == "start"), None)
for name, rows_file in (
    ("start", "start.jsonl"),
    ("learning_rate", "learning_rate.jsonl"),
    ("tiny_llm", "tiny_llm.jsonl"),
):
    rows, steps = saved(rows_file), saved(f"{name}_history.parquet")
    if not (rows and steps):
        print(f"{name}: not run")
        continue
    histories = runs.by_name(steps)
    drawn[f"fig10_{name}"] = runs.autolr(histories) if name == "learning_rate" else runs.trajectories(histories, level)
    captions[f"fig10_{name}"] = style.caption(rows)
for prefix in ("", "grid_"):
    matched, tuning, starts, said = (
        saved(f"{prefix}{name}") for name in ("matched.parquet", "tuning.parquet", "starts.parquet", "claims.jsonl")
    )
    if not (start and matched and tuning and starts and said):
        print(f"{prefix or 'live '}comparison: not run")
        continue
    title = f"{profile}, {len(matched)} runs, {len({r['seed'] for r in matched})} seeds, {len({r['target_seed'] for r in matched})} models"
    drawn[f"fig10_{prefix}plane"] = runs.plane(matched, start[0], start[2], title)
    drawn[f"fig10_{prefix}learning_rate"] = runs.quality(tuning, starts, "score", title)
    drawn[f"fig10_{prefix}differences"] = runs.differences(said, title)
    captions |= dict.fromkeys(drawn.keys() - captions.keys(), style.caption([*matched, *tuning]))
for name, fig in drawn.items():
    style.save(fig, figures_folder, name, captions[name])

# %%
from IPython.display import display

for fig in drawn.values():
    display(fig)

# %% [markdown]
# ## The map
# | paper | notebook | our file | status |
# | --- | --- | --- | --- |
# | gradient space: the cone of static scalarization, the region of Eq. 7, NGDiff inside (Fig. 2) | 02 | `fig2_gradient_space`, `fig2_interval` | redrawn from our own data |
# | statements: scalarization and Pareto points, monotone losses at a small rate | 04 | `fig4_*`, `theory_*.jsonl` | derived, and asserted on quadratics; one holds only in part (notebook 04) |
# | the algorithm with its automatic learning rate | 02, 03 | `ngdiff/step.py`, `ngdiff/autolr.py`, `fig3_*` | reproduced |
# | trajectories of losses | 00, 05 | `fig0_start_here`, `fig5_trajectories` | redrawn from our own data |
# | TOFU: methods, utility, forgetting | 06 | `fig6_plane`, `matched.parquet`, `fixed.parquet`, `grid_*.parquet` | redrawn from our own data; the paper's values: unknown here; its models: need a GPU |
# | learning-rate ablation | 03, 06 | `fig3_autolr`, `fig6_learning_rate`, `fig10_grid_learning_rate` | redrawn from our own data |
# | MUSE, and SemEval-2025 Task 4 | – | – | not there yet; the paper's models: need a GPU |
#
# ## The numbers a new run is compared with
# `summary.jsonl` holds the numbers, each with the tolerance it was given before; the report of `make reproduce` sets the
# committed and the new ones side by side.

# %%
sources = [f"{prefix}{name}" for prefix in ("", "grid_") for name in ("matched.parquet", "claims.jsonl")]
summary = claims.summary({name: saved(name) for name in ("start.jsonl", "learning_rate.jsonl", *sources)})
results.write_rows(rows_folder / "summary.jsonl", summary)
for row in summary:
    value = row["value"]
    print(f"{row['name']:56} " + (value if isinstance(value, str) else f"{value:10.4g} ± {row['tolerance']:.2g}"))

# %% tags=["check"]
assert len({row["name"] for row in summary}) == len(summary), "a number has one row"
assert smoke or start, "notebook 00 has not been run: its rows are missing"

# %% [markdown]
# ## Exercise (2 minutes)
# Delete one file under `data/results/<profile>/` (git brings it back) and run this notebook again: what does it say?
#
# ## References
# The protocol and its changes: `data/results/LOG.md`.
