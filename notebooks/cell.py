# %% [markdown]
# # One cell of the grid
# *You will* run one method with one step-size rule on one benchmark, for some seeds · *Needs*
# nothing · *Time* tiny: seconds a seed, after the models are trained once; paper: GPU hours ·
# *Relates to* one cell of the tables of notebook 06.
#
# Batches execute this notebook (`ngdiff sweep grid.toml`); notebooks 05 and 06 call the same
# function.

# %% tags=["parameters"]
profile: str = "tiny"  # size of models and data, such as tiny, small or paper
benchmark: str = "authors"  # which rows, such as authors, hub, muse:hub or a folder
split: str = ""  # split of the rows; empty for the profile's
method: str = "ngdiff"  # name of a method, or module:name of one of yours
stepsize: str = "autolr"  # step-size rule, such as constant, autolr or three-point
lr: float = 1e-3  # a constant rate, or where AutoLR starts
seeds: tuple = (0,)  # seeds of the order of the rows; papermill -p seeds '[0, 1]'
target_seed: int = 0  # seed of the models
steps: int = 0  # steps at most; 0 for the profile's
optimizer: str = "adamw"  # adamw or sgd
rule: str = "matched"  # matched stops at the hold-out level, fixed makes all steps
refresh: bool = False  # run again what is cached
out: str = ""  # a file for the rows; empty for none

# %%
from ngdiff.book.parameters import checked

text = {"profile": profile, "benchmark": benchmark, "split": split, "method": method}
text |= {"stepsize": stepsize, "optimizer": optimizer, "rule": rule, "out": out}
given = checked(
    {**text, "lr": lr, "seeds": seeds, "target_seed": target_seed, "steps": steps}
    | {"refresh": refresh}
)

# %%
from pathlib import Path

from ngdiff.evaluation.spelling import which
from ngdiff.store import rows as results
from ngdiff.study import trials

settings = {name: given[name] for name in ("rule", "profile", "split", "optimizer")}
settings |= {"data": which(given["benchmark"]).text, "steps": given["steps"] or None}
run = (given["method"], given["stepsize"], given["lr"])
grid = [trials.Trial(*run, seed, given["target_seed"], **settings) for seed in given["seeds"]]
rows = [trials.run(trial, given["refresh"]) for trial in grid]

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
assert len(rows) == len(given["seeds"])
if given["out"]:
    results.write_rows(Path(given["out"]), rows)
