# %% [markdown]
# # One cell of the grid
# *You will* run one method with one step-size rule on one benchmark, for some seeds · *Needs*
# nothing · *Time* tiny: seconds a seed, after the models are trained once; paper: GPU hours ·
# *Reproduces* one cell of the tables.
#
# Batches execute this notebook (`ngdiff sweep grid.toml`); notebooks 05 and 06 call the same
# function.

# %% tags=["parameters"]
profile = "tiny"
benchmark = "authors"  # which rows: "hub", a folder, "muse:hub", … (ngdiff.evaluation.spelling)
split = ""  # "" = the profile's
method = "ngdiff"
stepsize = "autolr"
lr = 1e-3  # of a constant rate; where AutoLR starts
seeds = (0,)
target_seed = 0  # of the models
steps = None  # None = the profile's
optimizer = "adamw"  # or "sgd"
rule = "matched"  # or "fixed"
refresh = False
out = ""  # a file for the rows

# %%
from pathlib import Path

from ngdiff.evaluation.spelling import which
from ngdiff.store import rows as results
from ngdiff.study import trials

data = which(benchmark).text
settings = {
    "rule": rule,
    "profile": profile,
    "split": split,
    "data": data,
    "steps": steps,
    "optimizer": optimizer,
}
grid = [trials.Trial(method, stepsize, lr, seed, target_seed, **settings) for seed in seeds]
rows = [trials.run(trial, refresh) for trial in grid]

# %%
shown = (
    "seed",
    "stopped",
    "updates",
    "model_utility",
    "forget_Q_A_ROUGE",
    "forget_quality",
    "score",
)
for row in rows:
    print({key: row[key] for key in shown})

# %%
assert len(rows) == len(seeds) and all(row["method"] == method for row in rows)
if out:
    results.write_rows(Path(out), rows)
