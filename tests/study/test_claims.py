"""Claims: what is compared with what, and how sure a verdict is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ngdiff.study import claims
from ngdiff.study.claims import LEVEL, OURS
from ngdiff.study.intervals import holm, interval
from ngdiff.study.plan import STARTS

SEEDS = (0, 1, 2)


def row(method=OURS, stepsize="constant", lr=1e-3, seed=0, target_seed=0, score=0.5, **more):
    place = {"lr": lr, "seed": seed, "target_seed": target_seed, "stopped": "forget_level"}
    return {"method": method, "stepsize": stepsize, "score": score} | place | more


def against(gaps, rival="npo", units=True):
    """NGDiff + AutoLR at .5 and a rival that many points below, a gap a model (or an order)."""
    seen = [{"target_seed" if units else "seed": k} for k in range(len(gaps))]
    rows = [row(OURS, "autolr", score=0.5, **at) for at in seen]
    return rows + [row(rival, score=0.5 - g, **at) for g, at in zip(gaps, seen, strict=True)]


def claim(rows, grid=(), name=None, **more):
    found = {c["name"]: c for c in claims.claims(rows, grid, (), **more)}
    return found[name] if name else next(iter(found.values()))


# ----------------------------------------------------------------------------------------- verdicts
@pytest.mark.parametrize(
    ("gaps", "p", "words"),
    [
        ({0: [0.1, 0.2, 0.3]}, None, "NGDiff + AutoLR in every pair"),
        ({0: [-0.1, -0.2, -0.3]}, None, "tuned npo in every pair"),
        ({0: [-0.1, 0.2, 0.3]}, None, "undecided"),
        ({0: [0.1, 0.2]}, None, "undecided"),
        ({0: [-0.1], 1: [-0.11], 2: [-0.12]}, 0.049, "tuned npo better"),
        ({0: [0.1], 1: [0.11], 2: [0.12]}, 0.049, "NGDiff + AutoLR better"),
        ({0: [0.1], 1: [0.11], 2: [0.12]}, LEVEL, "undecided"),  # although the interval is above 0
        ({0: [0.1], 1: [0.11], 2: [0.12]}, None, "undecided"),
    ],
)
def test_a_verdict_says_no_more_than_its_corrected_p(gaps, p, words):
    assert claims.verdict(interval(gaps), "npo", p=p) == words
    assert claims.verdict(None, "npo") == "not matched"


@pytest.mark.parametrize("of_units", [0.0, 1.0, 3.0])
def test_a_test_is_wrong_in_one_case_of_twenty_however_much_the_units_differ(of_units):
    """No true difference, five units × three orders; the rows of a unit are shared by its pairs."""
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(2000):
        shift = of_units * draw.standard_normal(5)
        gaps = {t: (shift[t] + draw.standard_normal(3)).tolist() for t in range(5)}
        found = interval(gaps)
        wrong += claims.verdict(found, "npo", p=found.p) != "undecided"
    assert 0.03 < wrong / 2000 < 0.07  # ± 4 standard errors of .05


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_a_table_of_equal_methods_names_a_winner_in_one_case_of_twenty(shared):
    """Ten rivals, three units; `shared`: how much our own run moves all differences at once."""
    draw, tables = np.random.default_rng(1), 1000
    wrong = alone = 0
    for _ in range(tables):
        ours = shared * draw.standard_normal(3)
        gaps = ours + draw.standard_normal((10, 3))
        found = {str(k): interval({t: [x] for t, x in enumerate(g)}) for k, g in enumerate(gaps)}
        p = holm({name: one.p for name, one in found.items()})
        said = [claims.verdict(one, name, p=p[name]) for name, one in found.items()]
        wrong += any(words != "undecided" for words in said)
        alone += any(one.p < LEVEL for one in found.values())
    error = math.sqrt(0.05 * 0.95 / tables)
    assert wrong / tables <= 0.05 + 4 * error
    assert alone / tables > 0.15, "without the correction it would be wrong far more often"


# ---------------------------------------------------------------------------------- against rivals
@pytest.mark.parametrize(
    ("gaps", "units", "verdict"),
    [
        ([0.1, 0.11, 0.12], True, "NGDiff + AutoLR better"),
        ([-0.1, -0.11, -0.12], True, "tuned npo better"),
        ([0.1, -0.1, 0.3], True, "undecided"),
        ([0.0, 0.0, 0.0], True, "undecided"),
        ([0.1, 0.2, 0.3], False, "NGDiff + AutoLR in every pair"),
        ([-0.1, 0.2, 0.3], False, "undecided"),
        ([0.1, 0.2], True, "undecided"),
    ],
)
def test_the_verdict_against_a_method(gaps, units, verdict):
    found = claim(against(gaps, units=units))
    assert (found["name"], found["verdict"], found["n"]) == ("against npo", verdict, len(gaps))
    assert found["mean"] == pytest.approx(sum(gaps) / len(gaps), abs=1e-15)
    assert found["p_holm"] == found["both_p"], "one method needs no correction"
    assert found["what"].endswith("at 0.001, not tuned") and not found["edge"]


def test_a_claim_names_the_family_and_holds_its_candidate_rate_and_bill():
    rows = against([0.1, 0.11, 0.12], "npo-0.9")
    weights = [row(f"npo-{c}", lr=lr, seconds=2.0) for c in (0.5, 0.9) for lr in (1e-4, 1e-3)]
    grid = [*weights, row("kl-0.9", lr=1e-2, seconds=9.0)]
    found = claim(rows, grid)
    assert (found["name"], found["method"], found["lr"]) == ("against npo", "npo-0.9", 1e-3)
    assert (found["tuning_runs"], found["tuning_seconds"]) == (4, 8.0)
    assert found["verdict"] == "NGDiff + AutoLR better" and found["edge"]
    assert "NPO(0.9) at 0.001, tuned in 4 runs" in found["what"]
    # a further rate makes it no end; one of another weight does not
    assert not claim(rows, [*grid, row("npo-0.9", lr=1e-2)])["edge"]
    assert claim(rows, [*grid, row("npo-0.5", lr=1e-2)])["edge"]


def test_candidates_that_tie_in_tuning_are_counted_with_their_retain_losses():
    chosen, tied = (row(f"npo-{c}", score=0.9, loss_retain=x) for c, x in ((0.9, 0.5), (0.5, 0.2)))
    others = [
        row("npo-0.5", lr=1e-4, score=0.9, loss_retain=0.1, stopped="steps"),
        row("npo-0.9", lr=1e-2, score=0.8, loss_retain=0.05),
        row("kl-0.9", score=0.9, loss_retain=7.0),
    ]
    rows = against([0.1, 0.11, 0.12], "npo-0.9")

    def ties(*grid):
        found = claim(rows, grid)
        return found["ties"], found["ties_low"], found["ties_high"]

    assert ties(chosen, tied, *others) == (2, 0.2, 0.5)
    assert ties(chosen, *others) == (1, 0.5, 0.5), "the chosen run itself"
    assert ties(chosen, tied | {"score": 0.9001}, *others) == (1, 0.5, 0.5), "near is no tie"
    assert ties(chosen, tied | {"loss_retain": None}) == (2, 0.5, 0.5), "NaN, as saved"
    assert ties(*({k: v for k, v in r.items() if k != "loss_retain"} for r in (chosen, tied))) == (
        (2, None, None)
    )
    assert ties(chosen | {"stopped": "steps"}, tied, *others) == (0, None, None)
    assert ties(tied, *others) == (0, None, None) == ties(), "its own run is not there"


def test_a_mixture_is_a_method_of_its_own():
    rows = against([0.1, 0.11, 0.12], "graddiff-0.5") + against([0.2] * 3, "graddiff-0.9")[3:]
    names = {c["name"] for c in claims.claims(rows, [], []) if "method" in c}
    assert names == {"against graddiff-0.5", "against graddiff-0.9"}


def test_verdicts_of_a_table_are_corrected_for_its_size():
    """Gaps .1, .2, .15 have t = 5.196 with two degrees of freedom: enough alone, not for two."""
    gaps = [0.1, 0.2, 0.15]
    alone = claim(against(gaps))
    assert alone["p_holm"] == pytest.approx(0.035098, abs=1e-5)
    assert alone["verdict"] == "NGDiff + AutoLR better"
    two = against(gaps) + against([0.1, 0.2, 0.16], "kl")[3:]
    found = [c for c in claims.claims(two, [], []) if "p_holm" in c]
    assert [c["verdict"] for c in found] == ["undecided"] * 2
    assert found[1]["both_p"] < found[0]["both_p"] == alone["p_holm"]
    assert [c["p_holm"] for c in found] == [2 * found[1]["both_p"]] * 2


def test_a_verdict_is_about_the_pairs_in_which_both_reached_the_level():
    rows = against([0.1, 0.11, 0.12, -0.9])
    rows[-1]["stopped"] = "steps"  # theirs
    found = claim(rows)
    assert found["reached"] == 0.75 and (found["n"], found["both_n"]) == (4, 3)
    assert found["mean"] == pytest.approx(-0.1425) and found["both_mean"] == pytest.approx(0.11)
    assert found["verdict"] == "NGDiff + AutoLR better"
    rows[0]["stopped"] = "steps"  # one of ours too
    found = claim(rows)
    assert (found["reached"], found["both_n"], found["verdict"]) == (0.75, 2, "undecided")
    found = claim([r | {"stopped": "steps"} for r in rows])
    assert (found["both_n"], found["verdict"], found["p_holm"]) == (0, "not matched", None)
    assert math.isnan(found["both_mean"]) and found["reached"] == 0


def test_every_method_that_ran_is_claimed_against_ours_at_a_tuned_rate_too():
    rows = against([0.1, 0.11, 0.12])
    rows += [row("ngdiff-npo", target_seed=t, score=0.3 + 0.01 * t) for t in SEEDS]
    rows += [row(OURS, target_seed=t, score=0.9 + 0.01 * t) for t in SEEDS]
    found = {c["name"]: c["verdict"] for c in claims.claims(rows, [], [])}
    assert found == {
        "against npo": "NGDiff + AutoLR better",
        "against ngdiff-npo": "NGDiff + AutoLR better",
        "against ngdiff": "tuned ngdiff better",
    }


def test_another_value_may_be_claimed():
    rows = [r | {"model_utility": 1 - r["score"]} for r in against([0.1, 0.11, 0.12])]
    found = claim(rows, value="model_utility")
    assert found["verdict"] == "tuned npo better" and found["what"].startswith("model_utility:")


# ------------------------------------------------------------------------------------------- swings
def test_ascent_and_the_swing_with_c_are_claims_of_the_reported_runs():
    rows = [row("gradascent", seed=s, kept=0.1 * s) for s in SEEDS]
    rows += [row(f"graddiff-{c}", seed=s, score=c) for c in (0.1, 0.5, 0.9) for s in SEEDS]
    walked = [
        row("gradascent", lr=lr, seed=s, kept=1e-5 / lr, updates=120)
        for s in SEEDS
        for lr in (1e-4, 1e-3)
    ]
    found = {c["name"]: c for c in claims.claims(rows, [], [], walked)}
    assert found["ascent keeps, at matched forgetting"]["mean"] == pytest.approx(0.1)
    kept = {lr: found[f"ascent keeps, without a stop at {lr:g}"] for lr in (1e-4, 1e-3)}
    assert [kept[lr]["mean"] for lr in kept] == pytest.approx([0.1, 0.01])
    assert kept[1e-3]["what"].endswith("120 steps")
    swing = found["swing of graddiff with c"]
    assert swing["mean"] == pytest.approx(0.8) and swing["n"] == 3


def test_the_swing_over_rates_is_best_minus_worst_of_the_best_weight():
    seen = (("npo-0.5", 1e-3, 0.2), ("npo-0.5", 1e-2, 0.9), ("npo-0.9", 1e-3, 0.0))
    grid = [row(m, lr=lr, score=s) for m, lr, s in (*seen, (OURS, 1e-3, 0.4))]
    (npo,) = claims.claims([], grid, [])  # one rate has no swing
    assert (npo["name"], npo["mean"], npo["n"]) == ("swing of npo", pytest.approx(0.7), 2)
    assert npo["what"] == "score over 2 constant rates 0.001 … 0.01: best − worst, one run each"


def test_autolr_over_starting_rates_is_one_spread_a_run():
    starts = [
        row(stepsize="autolr", lr=lr, seed=s, score=0.5 + 0.1 * s * k)
        for s in SEEDS
        for k, lr in enumerate(STARTS)
    ]
    (found,) = claims.claims([], [], starts)
    assert found["name"] == "AutoLR over starting rates" and found["n"] == 3
    assert found["what"] == "score over 4 starting rates 2e-05 … 0.026: best − worst"
    assert (found["low"], found["mean"], found["high"]) == pytest.approx((0.0, 0.3, 0.6))
    assert claims.claims([], [], starts[:1]) == []  # one starting rate has no spread


# ------------------------------------------------------------------------------------------- tables
def test_a_table_has_means_by_group_in_order():
    rows = [row("npo", seed=s, score=s / 2) for s in SEEDS] + [row("kl", score=0.3)]
    npo, kl = claims.table(rows, ("score", "lr"), lambda r: r["method"])
    assert npo == {"group": "npo", "n": 3, "score": 0.5, "lr": pytest.approx(1e-3)}
    assert kl == {"group": "kl", "n": 1, "score": 0.3, "lr": 1e-3}
    (lost,) = claims.table([*rows[:3], row("npo", score=None)], ("score",), lambda r: r["method"])
    assert lost["score"] is None, "no mean over the runs that happen to have a value"


def test_the_summary_names_where_each_number_comes_from():
    metrics = {"model_utility": 0.6, "forget_Q_A_ROUGE": 0.9, "mia_loss": 1.0}
    files = {
        "start.jsonl": [{"model": "start", **metrics}],
        "matched.parquet": [row("npo-0.9", seed=s, score=s / 2) for s in SEEDS],
        "evidence_compare_tofu.parquet": [row("kl", seed=s, score=0.5) for s in SEEDS],
        "claims.jsonl": [
            {"name": "against npo", "mean": 0.1, "low": 0.0, "high": 0.2, "verdict": "undecided"},
            {"name": "ascent keeps", "mean": 0.8, "low": 0.7, "high": 0.9, "verdict": ""},
            {"name": "swing of npo", "mean": 0.1, "low": None, "high": None, "verdict": ""},
        ],
        "tofu_matched.parquet": None,
        "learning_rate.jsonl": [row(stepsize="autolr", lr=1e-5, score=0.4)],
    }
    found = {r["name"]: r for r in claims.summary(files)}
    assert {name: (r["value"], r["source"]) for name, r in found.items()} == {
        **{f"start: {name}": (value, "start.jsonl") for name, value in metrics.items()},
        "matched: npo, constant: score": (0.5, "matched.parquet"),
        "evidence compare tofu: kl, constant: score": (0.5, "evidence_compare_tofu.parquet"),
        "learning rate: autolr from 1e-05: score": (0.4, "learning_rate.jsonl"),
        "against npo: verdict": ("undecided", "claims.jsonl"),
        "ascent keeps": (0.8, "claims.jsonl"),
    }
    wide = found["matched: npo, constant: score"]["tolerance"]
    assert wide == pytest.approx(1 / math.sqrt(3)), "the range of the three runs over √3"
    assert found["learning rate: autolr from 1e-05: score"]["tolerance"] == 0.05
    assert found["evidence compare tofu: kl, constant: score"]["tolerance"] == 0.03
    (one,) = claims.summary({"matched.parquet": [row("kl", score=0.5)]})
    assert one["tolerance"] == 0.05, "one run has no range"
    assert found["ascent keeps"]["tolerance"] == pytest.approx(0.2)
    assert found["against npo: verdict"]["tolerance"] is None
    assert claims.summary({}) == []
