"""The comparison's protocol: which trials, which interval, which verdict. Rates: `test_tuning`."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from ngdiff.methods.recipes import candidates
from ngdiff.study import claims
from ngdiff.study import plan as plans
from ngdiff.study.claims import OURS
from ngdiff.study.intervals import Interval, interval, paired, select
from ngdiff.study.plan import RATES, RIVALS, STARTS, TUNING_SEED, plan

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


def test_starting_rates_span_three_decades_and_are_off_the_searchs_lattice():
    """The search moves by √10 and by 10 from where it starts: from one of these starts it does not
    visit a rate of the ladder.
    """
    assert math.log10(STARTS[-1] / STARTS[0]) == pytest.approx(3)
    for start, rate in itertools.product(STARTS, plans.LADDER):
        half_decades = 2 * math.log10(rate / start)
        assert abs(half_decades - round(half_decades)) > 0.05
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


def test_select_is_by_value():
    rows = [row(seed=0), row(seed=1), row("npo", seed=1)]
    assert select(rows, method=OURS, seed=1) == rows[1:2] and select(rows, unheard_of=1) == []
    assert select(rows) == rows


# ---------------------------------------------------------------------------------------- intervals
def test_an_interval_over_targets_is_students_t_of_their_means():
    """Means 1, 2, 6 of three targets: mean 3, s = √7, t₀.₉₇₅ with two degrees of freedom = 4.302653
    (any table).
    """
    found = interval({0: [0.5, 1.5], 1: [2.0], 2: [5.0, 6.0, 7.0]})
    half = 4.302653 * math.sqrt(7) / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((3.0, 3 - half, 3 + half), rel=1e-6)
    assert (found.n, found.kind) == (6, "95 %")


@pytest.mark.parametrize("by_target", [{0: [0.1, 0.7, 0.4]}, {0: [0.1, 0.7], 1: [0.4]}])
def test_with_fewer_than_three_targets_there_is_a_range_only(by_target):
    assert interval(by_target) == Interval(pytest.approx(0.4), 0.1, 0.7, 3, "range")


@pytest.mark.parametrize("values", [[0.3], [0.3, -0.1]])
def test_fewer_than_three_values_have_no_interval(values):
    found = interval({0: values})
    assert found == Interval(pytest.approx(sum(values) / len(values)), None, None, len(values), "")
    assert found.sign == "undecided"


def test_identical_values_are_a_point():
    same = interval({t: [0.25] * 3 for t in range(3)})
    assert (same.mean, same.low, same.high, same.sign) == (0.25, 0.25, 0.25, "above")
    assert interval({0: [0.0] * 3}).sign == "undecided"


@pytest.mark.parametrize("empty", [{}, {0: []}])
def test_no_values_are_an_error(empty):
    with pytest.raises(ValueError, match="no values to average"):
        interval(empty)


@pytest.mark.parametrize("of_targets", [0.0, 1.0, 3.0])
def test_a_verdict_is_wrong_in_one_case_of_twenty_however_much_the_targets_differ(of_targets):
    """No true difference, five targets × three orders; the models of a target are shared by its
    pairs.
    """
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(2000):
        shift = of_targets * draw.standard_normal(5)
        gaps = {t: (shift[t] + draw.standard_normal(3)).tolist() for t in range(5)}
        wrong += claims.verdict(interval(gaps), "npo") != "undecided"
    assert 0.03 < wrong / 2000 < 0.07  # ± 4 standard errors of .05


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.2, "above"), (-0.2, -0.1, "below"), (-0.1, 0.1, "undecided"), (0.0, 0.1, "undecided")],
)
def test_the_sign_of_an_interval(low, high, sign):
    assert Interval(0.0, low, high, 3).sign == sign


def test_differences_are_paired_by_model_and_order():
    ours = [row(seed=s, target_seed=t, score=10 * t + s + 0.5) for t in (0, 1) for s in SEEDS]
    theirs = [
        row("npo", seed=s, target_seed=t, score=10 * t + s) for t in (1, 0) for s in (2, 1, 0)
    ]
    assert paired(ours, theirs, "score") == {0: [0.5] * 3, 1: [0.5] * 3}
    # unpaired on either side: left out
    fewer = paired(ours, [*theirs[1:], row("npo", seed=9)], "score")
    assert fewer == {0: [0.5] * 3, 1: [0.5] * 2}
    assert paired(ours, [row("npo", seed=9)], "score") == {}


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        ({0: [0.1, 0.2, 0.3]}, "NGDiff + AutoLR in every pair"),
        ({0: [-0.1, -0.2, -0.3]}, "tuned npo in every pair"),
        ({0: [-0.1, 0.2, 0.3]}, "undecided"),
        ({0: [0.1, 0.2]}, "undecided"),
        ({0: [0.9], 1: [-0.1], 2: [0.9]}, "undecided"),
        ({0: [-0.1], 1: [-0.11], 2: [-0.12]}, "tuned npo better"),
        ({0: [0.1], 1: [0.11], 2: [0.12]}, "NGDiff + AutoLR better"),
    ],
)
def test_a_verdict_says_no_more_than_its_interval(gaps, words):
    assert claims.verdict(interval(gaps), "npo") == words
    assert claims.verdict(None, "npo") == "not matched"


def test_reporting_the_tuning_seed_is_refused():
    with pytest.raises(ValueError, match="never reported"):
        plan("live", (0, TUNING_SEED))


def test_ascent_and_the_swing_with_c_are_claims_of_the_reported_runs():
    rows = [row("gradascent", seed=s, kept=0.1 * s) for s in SEEDS]
    rows += [row(f"graddiff-{c}", seed=s, score=c) for c in (0.1, 0.5, 0.9) for s in SEEDS]
    walked = [
        row("gradascent", lr=lr, seed=s, kept=1e-5 / lr, updates=120)
        for s in SEEDS
        for lr in (1e-4, 1e-3)
    ]
    found = {claim["name"]: claim for claim in claims.claims(rows, [], [], walked)}
    assert found["ascent keeps, at matched forgetting"]["mean"] == pytest.approx(0.1)
    kept = {lr: found[f"ascent keeps, without a stop at {lr:g}"] for lr in (1e-4, 1e-3)}
    assert [kept[lr]["mean"] for lr in kept] == pytest.approx([0.1, 0.01]) and kept[1e-3][
        "what"
    ].endswith("120 steps")
    assert (
        found["swing of graddiff with c"]["mean"] == pytest.approx(0.8)
        and found["swing of graddiff with c"]["n"] == 3
    )


# ------------------------------------------------------------------------------------------- claims
def reported(gaps, baseline="npo"):
    """NGDiff + AutoLR at .5 and a baseline that many points below, a gap a seed."""
    rows = [row(OURS, "autolr", seed=s, score=0.5) for s in range(len(gaps))]
    return rows + [row(baseline, "constant", seed=s, score=0.5 - gap) for s, gap in enumerate(gaps)]


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ([0.1, 0.2, 0.3], "NGDiff + AutoLR in every pair"),
        ([-0.1, -0.2, -0.3], "tuned npo in every pair"),
        ([-0.1, 0.2, 0.3], "undecided"),
        ([0.1, 0.2], "undecided"),
        ([0.0, 0.0, 0.0], "undecided"),
    ],
)
def test_the_verdict_against_a_baseline(gaps, verdict):
    (claim,) = claims.claims(reported(gaps), [], [])
    assert (claim["name"], claim["verdict"], claim["n"]) == ("against npo", verdict, len(gaps))
    assert claim["mean"] == pytest.approx(sum(gaps) / len(gaps), abs=1e-15)
    assert (
        claim["what"] == "score: NGDiff + AutoLR − npo, at 0.001, not tuned" and not claim["edge"]
    )
    grid = [row("npo", lr=lr) for lr in (1e-4, 1e-3)]
    claim = claims.claims(reported(gaps), grid, [])[0]
    assert claim["what"].endswith("npo, tuned over 2 rates") and claim["edge"]
    claim = claims.claims(reported(gaps), [*grid, row("npo", lr=1e-2)], [])[0]
    assert claim["what"].endswith("npo, tuned over 3 rates") and not claim["edge"]


def test_a_verdict_is_about_the_pairs_in_which_both_arrived():
    rows = reported([0.1, 0.1, 0.1, -0.9])
    rows[-1]["stopped"] = "steps"  # theirs
    (claim,) = claims.claims(rows, [], [])
    assert claim["reached"] == 0.75 and (claim["n"], claim["arrived_n"]) == (4, 3)
    assert claim["mean"] == pytest.approx(-0.15) and claim["arrived_mean"] == pytest.approx(0.1)
    assert claim["verdict"] == "NGDiff + AutoLR in every pair"
    rows[0]["stopped"] = "steps"  # one of ours too
    (claim,) = claims.claims(rows, [], [])
    assert (claim["reached"], claim["arrived_n"], claim["verdict"]) == (0.75, 2, "undecided")
    for row in rows:
        row["stopped"] = "steps"
    (claim,) = claims.claims(rows, [], [])
    assert (claim["arrived_n"], claim["verdict"]) == (0, "not matched") and math.isnan(
        claim["arrived_mean"]
    )


def test_every_method_that_ran_is_claimed_against_ours_at_a_tuned_rate_too():
    rows = reported([0.1] * 3) + [row("ngdiff-npo", seed=s, score=0.3) for s in SEEDS]
    rows += [row(OURS, "constant", seed=s, score=0.9) for s in SEEDS]
    found = {claim["name"]: claim["verdict"] for claim in claims.claims(rows, [], [])}
    assert found == {
        "against npo": "NGDiff + AutoLR in every pair",
        "against ngdiff-npo": "NGDiff + AutoLR in every pair",
        "against ngdiff": "tuned ngdiff in every pair",
    }


def test_the_swing_over_the_grid_is_best_minus_worst():
    grid = [
        row(m, lr=lr, score=s)
        for m, lr, s in (("npo", 1e-3, 0.2), ("npo", 1e-2, 0.9), (OURS, 1e-3, 0.4))
    ]
    (npo,) = claims.claims([], grid, [])  # one rate has no swing
    assert (npo["name"], npo["mean"], npo["n"]) == ("swing of npo", pytest.approx(0.7), 2)
    assert npo["what"] == "score over 2 constant rates 0.001 … 0.01: best − worst, one run each"


def test_autolr_over_starting_rates_is_one_spread_a_run():
    starts = [
        row(stepsize="autolr", lr=lr, seed=s, score=0.5 + 0.1 * s * k)
        for s in SEEDS
        for k, lr in enumerate(STARTS)
    ]
    (claim,) = claims.claims([], [], starts)
    assert claim["name"] == "AutoLR over starting rates" and claim["n"] == 3
    assert claim["what"] == "score over 4 starting rates 1e-05 … 0.01: best − worst"
    assert (claim["low"], claim["mean"], claim["high"]) == pytest.approx((0.0, 0.3, 0.6))
    assert claims.claims([], [], starts[:1]) == []  # one starting rate has no spread


def test_another_value_may_be_claimed():
    rows = [r | {"model_utility": 1 - r["score"]} for r in reported([0.1, 0.2, 0.3])]
    (claim,) = claims.claims(rows, [], [], value="model_utility")
    assert claim["verdict"] == "tuned npo in every pair" and claim["what"].startswith(
        "model_utility:"
    )


# ------------------------------------------------------------------------------------------- tables
def test_a_table_has_means_by_group_in_order():
    rows = [row("npo", seed=s, score=s / 2) for s in SEEDS] + [row("kl", score=0.3)]
    npo, kl = claims.table(rows, ("score", "lr"), lambda r: r["method"])
    assert npo == {"group": "npo", "n": 3, "score": 0.5, "lr": pytest.approx(1e-3)}
    assert kl == {"group": "kl", "n": 1, "score": 0.3, "lr": 1e-3}


def test_the_summary_names_where_each_number_comes_from():
    metrics = {"model_utility": 0.6, "forget_Q_A_ROUGE": 0.9, "mia_loss": 1.0}
    files = {
        "start.jsonl": [{"model": "start", **metrics}],
        "matched.parquet": [row("npo", seed=s, score=s / 2) for s in SEEDS],
        "claims.jsonl": [
            {"name": "against npo", "mean": 0.1, "low": 0.0, "high": 0.2, "verdict": "undecided"},
            {"name": "ascent keeps", "mean": 0.8, "low": 0.7, "high": 0.9, "verdict": ""},
            {"name": "swing of npo", "mean": 0.1, "low": None, "high": None, "verdict": ""},
        ],
        "grid_matched.parquet": None,
        "learning_rate.jsonl": [row(stepsize="autolr", lr=1e-5, score=0.4)],
    }
    found = {r["name"]: (r["value"], r["source"]) for r in claims.summary(files)}
    assert found == {
        **{f"start: {name}": (value, "start.jsonl") for name, value in metrics.items()},
        "matched: npo, constant: score": (0.5, "matched.parquet"),
        "learning rate: autolr from 1e-05: score": (0.4, "learning_rate.jsonl"),
        "against npo: verdict": ("undecided", "claims.jsonl"),
        "ascent keeps": (0.8, "claims.jsonl"),
    }
    tolerance = {r["name"]: r["tolerance"] for r in claims.summary(files)}
    assert tolerance["matched: npo, constant: score"] == 1.0, "the spread over the seeds"
    assert (
        tolerance["ascent keeps"] == pytest.approx(0.2)
        and tolerance["against npo: verdict"] is None
    )
    assert claims.summary({}) == []


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
            *(f"x_{part}.parquet" for part in ("matched", "starts")),
            "x_unmatched.parquet" if name == "semeval" else "x_fixed.parquet",
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
