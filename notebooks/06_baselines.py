# %% [markdown]
# # 06 · Baselines on equal terms
#
# *You will* compare every method at equal forgetting, with its own tuned learning rate, over several seeds, and read
# what holds and what does not · *Needs* 00, 05 · *Time* tiny: a few minutes; the larger grid (`refresh=True`) about an
# hour on two cores; paper: GPU days · *Reproduces* the shape of the paper's comparison and learning-rate ablation
#
# **The protocol was fixed before the first comparison** (`data/results/LOG.md`, `ngdiff/compare.py`). A run stops before
# the update at which its batch's forget loss reaches the hold-out level; utility is then compared at equal forgetting.
# Each method's constant rate is chosen on a tuning seed that is not reported. Budget: the same steps and the same rows
# for everyone. Score: harmonic mean of kept utility and achieved forgetting.

# %% tags=["parameters"]
profile = "tiny"
seeds = (0, 1, 2)
refresh = False
smoke = False
data = ""

# %%

from ngdiff import compare, paths, results, trials
from ngdiff.figures import runs, style

rows_folder, figures_folder = (f(profile, data, smoke) for f in (paths.rows_folder, paths.figures_folder))
settings = {"profile": profile, "data": data}
before, ideal = trials.levels(profile, "", data, 0)
plan = compare.plan("smoke" if smoke else "real" if data else "grid" if refresh else "live", tuple(seeds))
prefix = "grid_" if refresh else ""
print(plan)

# %% [markdown]
# ## Tuning: one seed, not reported

# %%
grid = trials.run_all(compare.tuning(plan.methods, plan.rates, **settings))
rates = compare.tuned(grid)
results.write_rows(rows_folder / f"{prefix}tuning.parquet", grid)
print({style.label(m): lr for m, lr in rates.items()})

# %% [markdown]
# ## The main table: matched forgetting
# Tuned constant rates, and NGDiff with AutoLR from its default start, tuned on nothing.

# %%
matched = trials.run_all(plan.reported(rates, "matched", **settings))
results.write_rows(rows_folder / f"{prefix}matched.parquet", matched)


def show(rows, columns=("kept", "forgot", "score", "forget_Q_A_ROUGE", "model_utility", "forget_quality", "updates")):
    """Mean over seeds; the two groups of a method are its tuned constant rate and AutoLR."""
    order = {m: i for i, m in enumerate(style.METHODS)}
    named = sorted(rows, key=lambda r: (order[r["method"]], r["stepsize"]))
    table = compare.table(named, columns, lambda r: f"{style.label(r['method'])}, {r['stepsize']}")
    print(f"{'mean over seeds':34}{'n':>3}" + "".join(f"{c:>18}" for c in columns))
    for row in table:
        print(f"{row['group']:34}{row['n']:3d}" + "".join(f"{row[c]:18.3g}" for c in columns))


show(matched)

# %%
fig = runs.plane(matched, before, ideal, "matched forgetting")
style.save(fig, figures_folder, f"fig6_{prefix}plane", style.caption(matched))
fig

# %% [markdown]
# ## AutoLR from any start
# Three decades of starting rate. The constant rates beside them are the tuning rows of the same seed.

# %%
starts = trials.run_all(plan.starts(**settings))
results.write_rows(rows_folder / f"{prefix}starts.parquet", starts)
beside = compare.select(starts, seed=compare.TUNING_SEED, target_seed=0)
fig = runs.quality(grid, beside, "score", "quality against the learning rate")
style.save(fig, figures_folder, f"fig6_{prefix}learning_rate", style.caption([*grid, *beside]))
fig

# %% [markdown]
# ## The claims, with intervals
# Each interval is a bootstrap over pairs of runs with the same models and the same order of rows. With three pairs it is
# simply their range; a verdict also asks every target seed to agree.

# %%
claims = compare.claims(matched, grid, starts)
for row in claims:
    row["stamp"] = results.stamp({**settings, "plan": repr(plan)}, None, 0.0)
results.write_rows(rows_folder / f"{prefix}claims.jsonl", claims)
for row in claims:
    gap = "" if row["low"] is None else f"[{row['low']:+.3f}, {row['high']:+.3f}]"
    print(f"{row['name']:28} {row['mean']:+.3f} {gap:18} n={row['n']}  {row['verdict']}")

# %%
fig = runs.differences(claims, "score at matched forgetting, paired by seed (95 % bootstrap)")
style.save(fig, figures_folder, f"fig6_{prefix}differences", style.caption(matched))
fig

# %% [markdown]
# ## Second table: a fixed budget
# The same number of steps for everyone and no stop: this compares how far each method walked. Read it with the forget
# loss beside the utility. **Without a stop, everything of unit norm over-forgets.**

# %%
fixed = trials.run_all(plan.reported(rates, "fixed", **settings))
results.write_rows(rows_folder / f"{prefix}fixed.parquet", fixed)
show(fixed, ("loss_forget", "kept", "forgot", "score", "forget_quality", "updates"))

# %% [markdown]
# ## Predict, then run
# Eq. 7 says what the raw direction does. Under AdamW, in what share of the updates did the *actual* step raise the
# retain loss to first order?

# %%
show(matched, ("uphill_retain", "downhill_forget"))

# %% [markdown]
# ## Exercise (15 minutes)
# Which baseline loses most against NGDiff + AutoLR, and which one wins? Read both names off the claims, by code.

# %% tags=["exercise-solution"]
against = [row for row in claims if row["name"].startswith("against ")]
# solution
worst = max(against, key=lambda row: row["mean"])["name"].removeprefix("against ")
best = min(against, key=lambda row: row["mean"])["name"].removeprefix("against ")
# end solution
print(f"largest gap: {worst}; strongest baseline: {best}")

# %% tags=["check"]
gaps = {row["name"].removeprefix("against "): row["mean"] for row in against}
assert gaps[worst] == max(gaps.values()), "the claims hold ours − theirs: the largest value is the worst baseline"
assert gaps[best] == min(gaps.values()), "the smallest value belongs to the strongest baseline"
assert all(r["seed"] != compare.TUNING_SEED for r in matched), "a tuning seed must not be reported"

# %% [markdown]
# ## What you should see
# The claims table above is the statement; this page adds no number to it. Read the verdict column: where an interval
# holds zero it says "undecided", and where a baseline wins it says so.
#
# ## Summary
# Equal forgetting, equal budgets, tuned baselines, paired seeds. Anything less flatters somebody.
#
# ## References
# The protocol is `ngdiff/compare.py`; its reasons and every later change are in `data/results/LOG.md`.
