"""The comparison's protocol: which trials, which interval, which verdict. Rates: `test_tuning`."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from ngdiff.methods.recipes import candidates
from ngdiff.study import plan as plans
from ngdiff.study.claims import OURS
from ngdiff.study.plan import RIVALS, STARTS, plan
from ngdiff.study.tuning import LADDER, RATES, TUNING_SEED

SEEDS = (0, 1, 2)
PAGES = ("tofu", "muse", "semeval", "live")
PLANS = ("smoke", "real", *PAGES)


def row(method=OURS, stepsize="constant", lr=1e-3, seed=0, target_seed=0, score=0.5, **more):
    fields = {
        "method": method,
        "stepsize": stepsize,
        "lr": lr,
        "seed": seed,
        "target_seed": target_seed,
    }
    return fields | {"score": score, "stopped": "forget_level"} | more


def chosen(*methods, lr=1e-3):
    """What tuning chooses: each method's first candidate, all at one rate."""
    return {m: (candidates(m)[0], lr) for m in methods}


# ------------------------------------------------------------------------------------------- trials
def test_tuning_is_one_matched_trial_a_candidate_and_rate_on_the_tuning_seed():
    trials = plans.tuning(("npo", OURS), profile="tiny", steps=7)
    keys = ("npo-0.5", "npo-0.9", "npo-0.99", OURS)
    assert [(t.method, t.lr) for t in trials] == list(itertools.product(keys, RATES))
    assert {(t.seed, t.target_seed, t.rule, t.stepsize, t.steps) for t in trials} == {
        (TUNING_SEED, 0, "matched", "constant", 7)
    }


def test_without_a_stop_ascent_runs_at_every_rate_once():
    made = plan("live", SEEDS)
    trials = made.reported(chosen("gradascent", OURS, lr=3e-4), "fixed")
    assert [t.lr for t in trials if t.method == "gradascent"] == [3e-4, 1e-4, 1e-3]
    assert len(set(trials)) == len(trials)
    real = plan("real", SEEDS).reported(chosen(OURS), "fixed")
    assert not [t for t in real if t.method == "gradascent"]


@pytest.mark.parametrize("rule", ["matched", "fixed"])
@pytest.mark.parametrize("name", PLANS)
def test_the_tuning_seed_is_never_reported(name, rule):
    trials = plan(name, SEEDS).reported(chosen(*RIVALS), rule)
    assert trials and all(
        t.seed in SEEDS and t.seed != TUNING_SEED and t.rule == rule for t in trials
    )


def test_reported_trials_are_tuned_candidates_and_ours_by_automatic_rules_on_equal_seeds():
    found = {"npo": ("npo-0.9", 3e-4), "mgda": ("mgda", 3e-3), OURS: (OURS, 1e-2)}
    trials = plan("live", SEEDS).reported(found, "matched", steps=5)
    constant = [(t.method, t.lr, t.seed) for t in trials if t.stepsize == "constant"]
    assert constant == [(key, lr, s) for key, lr in found.values() for s in SEEDS]
    automatic = [(t.method, t.stepsize, t.lr, t.seed) for t in trials if t.stepsize != "constant"]
    rules = ("autolr", "three-point")
    assert automatic == [(OURS, rule, 1e-3, s) for rule in rules for s in SEEDS]
    assert len(trials) == 15 and all(t.steps == 5 and t.target_seed == 0 for t in trials)


def test_a_fixed_budget_is_of_one_model_and_of_the_methods_that_walk():
    made = replace(plan("live", SEEDS), targets=(0, 1, 2), fixed_seeds=(1, 2), walked=("npo",))
    found = chosen("npo", "kl", OURS)
    matched, fixed = (made.reported(found, rule) for rule in ("matched", "fixed"))
    pairs = set(itertools.product(range(3), SEEDS))
    assert {(t.target_seed, t.seed) for t in matched} == pairs and len(matched) == 9 * (3 + 2)
    assert {(t.target_seed, t.seed) for t in fixed} == {(0, 1), (0, 2)}
    assert {t.method for t in fixed if t.stepsize == "constant"} == {"npo-0.5"}
    every = replace(made, walked=None, fixed_seeds=()).reported(found, "fixed")
    assert {t.seed for t in every} == {SEEDS[0]} and len(every) == 3 + 2


def test_pages_have_the_same_rivals_and_ours():
    for name in ("live", "muse", "semeval"):
        assert plan(name, SEEDS).methods == (*RIVALS, OURS)
    assert plan("tofu", SEEDS).methods == (*RIVALS, OURS, *plans.PUBLISHED)
    fixed = ("gradascent", "graddiff-0.5", "graddiff-0.9", "graddiff-0.99", "lossnorm")
    assert {*fixed, "kl", "npo", "simnpo", "wga", "rmu"} == set(RIVALS)
    assert [plan(name, SEEDS).extend for name in PLANS] == [name in PAGES for name in PLANS]


def half_decades_off(rate, start):
    """How far a rate is from those that a search by √10 and by 10 visits, in half decades."""
    steps = 2 * math.log10(rate / start)
    return abs(steps - round(steps))


def test_starting_rates_lie_on_no_common_lattice_over_at_least_three_decades():
    """The search moves by √10 and by 10: from one start it visits no other one, and no rate of the
    ladder.
    """
    assert math.log10(STARTS[-1] / STARTS[0]) >= 3 and list(STARTS) == sorted(STARTS)
    for start, other in itertools.combinations(STARTS, 2):
        assert half_decades_off(other, start) > 0.05, (start, other)
    for start, rate in itertools.product(STARTS, LADDER):
        assert half_decades_off(rate, start) > 0.05, (start, rate)
    assert half_decades_off(2e-2, 2e-5) < 1e-9 and half_decades_off(math.sqrt(10), 1) < 1e-9


def test_the_page_runs_autolr_from_the_first_and_the_last_start():
    trials = plan("live", SEEDS).starts()
    assert {t.seed for t in trials} == {*SEEDS} and len(trials) == 2 * 3
    assert list(dict.fromkeys(t.lr for t in trials)) == [STARTS[0], STARTS[-1]]
    assert {(t.method, t.stepsize, t.rule) for t in trials} == {(OURS, "autolr", "matched")}


def test_an_unknown_plan_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match="unknown plan 'all'; choose one of: smoke, tofu, muse, semeval, live, real$",
    ):
        plan("all", SEEDS)


@pytest.mark.parametrize("name", PLANS)
def test_every_trial_of_every_plan_is_a_valid_one(name):
    made = plan(name, SEEDS)
    reported = made.reported(chosen(*made.methods), "matched")
    for trials in (made.tuning(), made.starts(), reported):
        assert len(set(trials)) == len(trials)
    assert made.tuning() and reported and bool(made.starts()) == bool(made.starts_from)


def test_reporting_the_tuning_seed_is_refused():
    with pytest.raises(ValueError, match="never reported"):
        plan("live", (0, TUNING_SEED))


@pytest.mark.parametrize("name", ["smoke", "semeval"])
def test_a_plan_is_carried_out_and_saved(tmp_path, monkeypatch, name):
    ran = []

    def run_all(trials, say):
        ran.append(trials)
        return [
            row(
                t.method,
                t.stepsize,
                t.lr,
                t.seed,
                t.target_seed,
                score=1 - t.lr,
                kept=0.5,
                updates=120,
                stopped="steps" if t.lr < 3e-4 else "forget_level",
                rule=t.rule,
            )
            for t in trials
        ]

    levels = ({"model_utility": 0.5}, {"model_utility": 0.6, "report": object()})
    monkeypatch.setattr(plans, "run_all", run_all)
    # every rate is tuned here
    monkeypatch.setattr(plans.protocol, "committed", lambda wanted: {})
    monkeypatch.setattr(plans.trials, "levels", lambda *shape: levels)
    done = plans.carry_out(plan(name, SEEDS), tmp_path, "x_", profile="tiny")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [
            "x_claims.jsonl",
            "x_levels.jsonl",
            "x_matched.parquet",
            *(
                ["x_unmatched.parquet"]
                if name == "semeval"
                else ["x_fixed.parquet", "x_starts.parquet"]
            ),
        ]
    )
    if name == "semeval":  # score 1 - lr: 3e-4 is the best rate that arrives, 1e-4 the best of all
        assert {r["lr"] for r in done["matched"] if r["stepsize"] == "constant"} == {3e-4}
        assert {(r["method"], r["lr"]) for r in done["unmatched"]} == {
            (candidates(m)[0], 1e-4) for m in plan(name, SEEDS).methods
        }
    assert len(ran) == 2 and {r["rule"] for r in done["matched"]} == {"matched"}
    assert {r["rule"] for r in done.get("fixed", [])} == ({"fixed"} if name == "smoke" else set())
    assert {r["seed"] for r in done["tuning"]} == {TUNING_SEED}
    assert all(claim["stamp"]["config"]["profile"] == "tiny" for claim in done["claims"])
    assert {r["seed"] for r in done["starts"]} == ({0} if name == "smoke" else set())
    known = [(r["model"], r["target_seed"], r["model_utility"]) for r in done["levels"]]
    assert (
        known == [("start", 0, 0.5), ("retain-only", 0, 0.6)] and "report" not in done["levels"][1]
    )
