"""What the long comparison runs: its data sets and units, each experiment's trials, their order."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest

from ngdiff.evaluation.spelling import which
from ngdiff.methods.recipes import candidates, family
from ngdiff.profiles import profile
from ngdiff.study import evidence
from ngdiff.study.claims import OURS
from ngdiff.study.evidence import BANDS, CONTROLS, FIXED, MIXTURES, RULES, Rows
from ngdiff.study.plan import RIVALS, STARTS
from ngdiff.study.tuning import RATES, TUNING_SEED, tuning

MADE = evidence.sets()
EVERY = evidence.sets("/data/tofu", "/data/lume")
UNITS = {"authors": 5, "authors-all": 3, "news": 3, "dossiers": 3, "tofu": 3, "lume": 3}
CHOSEN = {family(key): (key, 3e-4) for key in map(lambda m: candidates(m)[0], evidence.compared())}


def named(name: str) -> Rows:
    return next(rows for rows in EVERY if rows.name == name)


def pairs(trials) -> set:
    return {(t.data, t.target_seed, t.seed) for t in trials}


# ---------------------------------------------------------------------------------------- data sets
def test_there_are_six_sets_and_four_without_the_real_rows():
    assert {rows.name: len(rows.units) for rows in EVERY} == UNITS
    assert [rows.name for rows in MADE] == list(UNITS)[:4] and EVERY[:4] == MADE
    assert [rows.name for rows in evidence.sets(lume="x")] == [*list(UNITS)[:4], "lume"]
    assert len(named("authors").populations) >= 5, "populations are what the statistics count"


def test_a_unit_is_a_population_and_a_seed_of_its_models_each_once():
    units = [unit for rows in EVERY for unit in rows.units]
    assert len(set(units)) == len(units) == sum(UNITS.values())
    assert Rows("x", ("a", "b"), (0, 2)).units == [("a", 0), ("a", 2), ("b", 0), ("b", 2)]


def test_every_population_is_another_one():
    """No two spellings give the same rows, the default seed's population included."""
    tiny = profile("tiny")
    spelt = [data for rows in MADE for data in rows.populations]
    benches = [which(data).bench(tiny) for data in spelt]
    assert len({bench.fingerprint for bench in benches}) == len(spelt) == 12
    labels = [which(data).label for rows in EVERY for data in rows.populations]
    assert len(set(labels)) == len(labels) and labels[-2:] == ["tofu rows", "semeval rows"]


@pytest.mark.parametrize("rows", EVERY, ids=lambda rows: rows.name)
def test_the_tuning_seed_is_no_order(rows):
    assert TUNING_SEED not in rows.orders and len(set(rows.orders)) == len(rows.orders) == 2


# -------------------------------------------------------------------------------------- experiments
def trials_of(rows: Rows) -> dict:
    """Every experiment of a data set, and how many runs a unit takes."""
    return {
        "tuning": tuning(evidence.compared(), data=rows.units[0][0]),
        "compare": evidence.reported(rows, CHOSEN),
        "adapt": evidence.adapting(rows),
        "bands": evidence.bands(rows),
        "fixed": evidence.walks(rows, CHOSEN),
    }


@pytest.mark.parametrize("rows", EVERY, ids=lambda rows: rows.name)
def test_no_two_trials_of_an_experiment_are_equal_and_none_has_the_tuning_seed(rows):
    for name, trials in trials_of(rows).items():
        assert len(set(trials)) == len(trials) > 0, name
        seeds = {TUNING_SEED} if name == "tuning" else set(rows.orders)
        assert {t.seed for t in trials} <= seeds
        assert {(t.data, t.target_seed) for t in trials} <= set(rows.units)
        assert {t.rule for t in trials} == ({"fixed"} if name == "fixed" else {"matched"})
        assert {t.steps for t in trials} == {None}, "the profile's"


@pytest.mark.parametrize("rows", EVERY, ids=lambda rows: rows.name)
def test_how_many_runs_there_are(rows):
    units, found = len(rows.units), {name: len(t) for name, t in trials_of(rows).items()}
    assert found == {
        "tuning": 3 * sum(len(candidates(m)) for m in evidence.compared()),
        "compare": (len(evidence.compared()) + 2) * units * 2,
        "adapt": 5 * 4 * units,
        "bands": 6 * (9 + 9) * 2,
        "fixed": (7 + 2) * min(units, 5),
    }


def test_every_rival_every_control_and_ours_are_compared_once():
    compared = evidence.compared()
    assert len(set(compared)) == len(compared) == 13
    assert {*RIVALS, *MIXTURES, *CONTROLS, OURS} == set(compared)
    assert {"graddiff-0.5", "graddiff-0.9", "graddiff-0.99", "lossnorm", OURS} <= set(CONTROLS)


def test_compared_runs_are_paired_by_unit_and_order():
    rows = named("authors")
    trials = evidence.reported(rows, CHOSEN)
    every = {(*unit, order) for unit in rows.units for order in rows.orders}
    by_run = Counter((t.method, t.stepsize, t.lr) for t in trials)
    assert set(by_run.values()) == {len(every)}
    for run in by_run:
        mine = [t for t in trials if (t.method, t.stepsize, t.lr) == run]
        assert pairs(mine) == every
    constant = {(key, lr) for key, rule, lr in by_run if rule == "constant"}
    assert constant == set(CHOSEN.values())
    assert {run for run in by_run if run[1] != "constant"} == {
        (OURS, "autolr", 1e-3),
        (OURS, "three-point", 1e-3),
    }


def test_starting_rates_are_met_by_every_rule_on_every_unit():
    rows = named("tofu")
    trials = evidence.adapting(rows, STARTS[:1])
    assert [(t.stepsize, t.lr, t.target_seed) for t in trials] == [
        (rule, STARTS[0], target) for rule in RULES for target in rows.targets
    ]
    assert {t.method for t in trials} == {OURS} and {t.seed for t in trials} == {rows.orders[0]}


@pytest.mark.parametrize("optimizer", BANDS)
def test_bands_are_half_decades_over_four(optimizer):
    rates = BANDS[optimizer]
    gaps = [math.log10(b / a) for a, b in itertools.pairwise(rates)]
    assert gaps == pytest.approx([0.5] * 8) and sum(gaps) == pytest.approx(4)
    trials = [t for t in evidence.bands(named("authors")) if t.optimizer == optimizer]
    assert {t.lr for t in trials} == set(rates)
    assert Counter(t.method for t in trials) == dict.fromkeys(evidence.BANDED, 18)


def test_without_a_stop_rates_are_the_tuned_ones():
    trials = evidence.walks(named("news"), CHOSEN | {"lossnorm": ("lossnorm", 1e-2)})
    rates = {t.method: t.lr for t in trials if t.stepsize == "constant"}
    assert rates == dict.fromkeys(FIXED, 3e-4) | {"lossnorm": 1e-2}
    assert {(t.method, t.stepsize) for t in trials if t.stepsize != "constant"} == {
        (OURS, "three-point"),
        (OURS, "autolr"),
    }


# ----------------------------------------------------------------------------------------- in order
def carried_out(known, best=3e-4):
    """What is run and described, by a run of made-up rows whose best rate is `best`."""
    ran, described = [], []

    def run(part, rows, trials):
        ran.append((part, rows.name, list(trials)))
        score = [1 - abs(math.log10(t.lr / best)) / 9 for t in trials]
        return [
            {"method": t.method, "lr": t.lr, "score": s, "stopped": "forget_level"}
            for t, s in zip(trials, score, strict=True)
        ]

    evidence.experiments(known, run, lambda rows, trials: described.append((rows.name, trials)))
    return ran, described


@pytest.mark.parametrize("known", [MADE, EVERY], ids=["without the real sets", "with them"])
def test_each_set_is_tuned_before_it_is_compared_and_each_part_is_run_once(known):
    ran, described = carried_out(known)
    parts = [(part, name) for part, name, _ in ran]
    assert len(set(parts)) == len(parts), "no rate is an end: nothing is tuned further"
    names = {rows.name for rows in known}
    for name in names:
        assert parts.index(("tuning", name)) < parts.index(("compare", name))
    assert {(p, n) for p, n in parts if p in ("tuning", "compare")} == set(
        itertools.product(("tuning", "compare"), names)
    )
    extra = {(p, n) for p, n in parts if p not in ("tuning", "compare")}
    wanted = {("adapt", "authors"), ("bands", "authors"), ("fixed", "authors")}
    assert extra == wanted | ({("adapt", "tofu"), ("fixed", "tofu")} if known is EVERY else set())
    assert parts[0] == ("tuning", "authors")
    compared = [(name, trials) for part, name, trials in ran if part == "compare"]
    assert described == compared


def test_tuning_goes_on_until_the_best_rate_is_inside_and_chooses_what_is_compared():
    ran, _ = carried_out(MADE, best=3e-5)
    tuned = [trials for part, name, trials in ran if (part, name) == ("tuning", "news")]
    rates = [sorted({t.lr for t in trials if t.method == OURS}) for trials in tuned]
    assert rates == [[*RATES], [3e-5, *RATES], [1e-5, 3e-5, *RATES]]
    for trials in tuned:
        assert {(t.seed, t.data, t.target_seed) for t in trials} == {(TUNING_SEED, "news", 0)}
        assert len(set(trials)) == len(trials)
    (compared,) = [trials for part, name, trials in ran if (part, name) == ("compare", "news")]
    constant = [t for t in compared if t.stepsize == "constant"]
    assert {t.lr for t in constant} == {3e-5}
    wanted = {candidates(m)[0] for m in evidence.compared()}  # all weights are equal here
    assert {t.method for t in constant} == wanted
