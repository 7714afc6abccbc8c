"""Which rate and which retain weight tuning chooses, and when it goes on to further rates."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from ngdiff.study import plan as plans
from ngdiff.study.plan import plan
from ngdiff.study.tuning import LADDER, RATES, TUNING_SEED, further, tuned


def row(method, lr, score, stopped="forget_level"):
    return {"method": method, "lr": lr, "score": score, "stopped": stopped}


def short(method, lr, score):
    return row(method, lr, score, stopped="steps")


# ----------------------------------------------------------------------------------- what is chosen
def test_the_rate_with_the_best_score_is_taken_and_the_smaller_one_on_a_tie():
    rows = [row("mgda", lr, s) for lr, s in ((1e-2, 0.7), (1e-3, 0.7), (1e-4, 0.2), (3e-3, 0.69))]
    rows += [row("lossnorm", lr, 0.0) for lr in (1e-4, 1e-3)]
    for order in itertools.permutations(rows, len(rows)):
        assert tuned(order) == {"mgda": ("mgda", 1e-3), "lossnorm": ("lossnorm", 1e-4)}
    assert tuned([]) == {}


def test_a_weight_is_chosen_with_the_rate():
    """On a tie the smaller rate counts first, then the smaller weight."""
    best = [row("npo-0.5", 1e-3, 0.5), row("npo-0.99", 3e-4, 0.8), row("npo-0.9", 1e-4, 0.7)]
    ties = [
        *(row(f"kl-{c}", 1e-3, 0.6) for c in (0.99, 0.9, 0.5)),
        *(row(f"kl-{c}", 3e-4, 0.6) for c in (0.99, 0.9)),
        row("kl-0.5", 3e-4, 0.59),
    ]
    apart = [row("graddiff-0.9", 1e-3, 0.4), row("graddiff-0.97", 1e-4, 0.3)]  # no weight tuned
    wanted = {"npo": ("npo-0.99", 3e-4), "kl": ("kl-0.9", 3e-4)}
    wanted |= {m["method"]: (m["method"], m["lr"]) for m in apart}
    for rows in (best + ties + apart, (best + ties + apart)[::-1]):
        assert tuned(rows) == wanted


def test_a_run_that_reached_the_level_comes_before_one_that_stopped_short():
    rows = [short("npo-0.5", 1e-4, 0.9), row("npo-0.9", 1e-3, 0.6), row("npo-0.9", 1e-2, 0.5)]
    rows += [short("kl-0.5", 1e-4, 0.3), short("kl-0.99", 1e-3, 0.4)]  # none did
    assert tuned(rows) == {"npo": ("npo-0.9", 1e-3), "kl": ("kl-0.99", 1e-3)}
    every = tuned(rows, only_reached=False)
    assert every == {"npo": ("npo-0.5", 1e-4), "kl": ("kl-0.99", 1e-3)}
    # a method that the rule keeps from its best rate is reported at that rate too
    seeds = (0, 1)
    trials = plan("muse", seeds).short(rows, profile="tiny")
    assert [(t.method, t.lr, t.seed, t.rule, t.profile) for t in trials] == [
        ("npo-0.5", 1e-4, seed, "matched", "tiny") for seed in seeds
    ]


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_equal_scores_everywhere_give_the_smallest_rate_and_weight(score):
    keys = ("rmu-0.5", "rmu-0.9", "rmu-0.99")
    rows = [row(key, lr, score) for key in keys for lr in LADDER]
    assert tuned(rows) == tuned(rows[::-1]) == {"rmu": ("rmu-0.5", LADDER[0])}


def test_a_method_of_a_user_is_tuned_on_its_own():
    rows = [row("npo-mine", 1e-3, 0.9), row("npo-0.9", 1e-4, 0.2)]
    assert tuned(rows) == {"npo-mine": ("npo-mine", 1e-3), "npo": ("npo-0.9", 1e-4)}


# ------------------------------------------------------------------------------------ further rates
def grid(method, scores, rates=RATES):
    return [row(method, lr, s) for lr, s in zip(rates, scores, strict=True)]


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ((0.1, 0.2, 0.3), [3e-3]),
        ((0.3, 0.2, 0.1), [3e-5]),
        ((0.1, 0.3, 0.2), []),
        ((0.3, 0.1, 0.3), [3e-5]),  # a tie: the smaller one is the best
        ((0.0, 0.0, 0.0), [3e-5]),
    ],
)
def test_the_next_rate_follows_where_the_best_is_an_end(scores, wanted):
    more = further(grid("mgda", scores), profile="tiny", data="news", target_seed=2)
    assert [(t.method, t.lr, t.seed, t.stepsize, t.rule) for t in more] == [
        ("mgda", lr, TUNING_SEED, "constant", "matched") for lr in wanted
    ]
    assert {(t.data, t.target_seed, t.profile) for t in more} <= {("news", 2, "tiny")}


def test_only_the_best_candidate_of_a_method_goes_on():
    rows = grid("npo-0.5", (0.1, 0.2, 0.3)) + grid("npo-0.9", (0.9, 0.8, 0.7))
    rows += grid("npo-0.99", (0.1, 0.2, 0.8)) + grid("mgda", (0.1, 0.9, 0.2))
    assert [(t.method, t.lr) for t in further(rows)] == [("npo-0.9", 3e-5)]
    assert further([]) == []


@pytest.mark.parametrize(("best", "ends"), [(math.inf, LADDER[-1]), (0.0, LADDER[0])])
def test_it_ends_at_the_ends_of_the_ladder(best, ends):
    """Scores rise for ever: every rate up to the end is tried, each once, and none beyond it."""
    rows, ran = grid("mgda", [0.5] * 3), [*RATES]
    for r in rows:
        r["score"] = r["lr"] if best else 1 - r["lr"]
    while more := further(rows):
        (trial,) = more
        ran.append(trial.lr)
        rows.append(row("mgda", trial.lr, trial.lr if best else 1 - trial.lr))
    wanted = LADDER[2:] if best else LADDER[:5]
    assert sorted(ran) == list(wanted) and tuned(rows) == {"mgda": ("mgda", ends)}


@pytest.mark.parametrize("peak", LADDER)
def test_it_finds_an_inner_peak_and_then_stops(peak):
    """A score with one peak over the logarithm of the rate, from any three neighbours on."""

    def score(lr):
        return 1 - abs(math.log10(lr / peak)) / 10

    for start in range(len(LADDER) - 2):
        rows = [row("mgda", lr, score(lr)) for lr in LADDER[start : start + 3]]
        while more := further(rows):
            rows += [row(t.method, t.lr, score(t.lr)) for t in more]
        assert tuned(rows) == {"mgda": ("mgda", peak)}
        tried = sorted(r["lr"] for r in rows)
        assert len(set(tried)) == len(tried)
        place = tried.index(peak)
        assert 0 < place < len(tried) - 1 or peak in (LADDER[0], LADDER[-1])


@pytest.mark.parametrize(
    ("rates", "scores", "wanted"),
    [
        ((5e-6, 1e-5, 2e-5), (0.1, 0.2, 0.3), [3e-5]),  # those of the paper profile
        ((5e-6, 1e-5, 2e-5), (0.3, 0.2, 0.1), []),  # below the ladder
        ((2e-4, 5e-4), (0.3, 0.1), [1e-4]),
        ((0.5, 0.7), (0.1, 0.3), []),
        ((1e-3,), (0.5,), [3e-4, 3e-3]),  # one rate is both ends
    ],
)
def test_rates_need_not_be_on_the_ladder(rates, scores, wanted):
    assert [t.lr for t in further(grid("mgda", scores, rates))] == wanted


def test_committed_or_run_rows_are_asked_for_until_nothing_is_missing(monkeypatch):
    """Pages go on, and a plan that does not extend takes its own rates alone."""
    asked = []

    def rows_of(trials, refresh, run):
        asked.append((list(trials), refresh))
        return [row(t.method, t.lr, t.lr if t.method == "mgda" else -t.lr) for t in trials]

    monkeypatch.setattr(plans.protocol, "tuning_rows", rows_of)
    made = replace(plan("muse", (0,)), methods=("mgda", "kl"))
    rows = plans._tuning(made, True, {"profile": "tiny"})
    first, *_, last = (trials for trials, _ in asked)
    assert first == made.tuning(profile="tiny") == last[: len(first)]
    found = {(r["method"], r["lr"]) for r in rows}
    assert len(found) == len(rows) == len(last) and all(refresh for _, refresh in asked)
    assert found - {(t.method, t.lr) for t in first} == {
        *(("mgda", lr) for lr in LADDER[5:]),
        *(("kl-0.5", lr) for lr in LADDER[:2]),
    }
    asked.clear()
    assert len(plans._tuning(replace(made, extend=False), False, {})) == len(first)
    assert len(asked) == 1
