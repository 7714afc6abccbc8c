"""The decision rules of the long comparison, on rows made by hand."""

from __future__ import annotations

import pytest

from ngdiff.store.rows import write_rows
from ngdiff.study import evidence, verdicts
from ngdiff.study.claims import OURS
from ngdiff.study.regret import BESIDE, WAYS
from tests.helpers import long_rows
from tests.helpers.long_rows import AUTO, POPULATIONS, TUNED, compare, everyone, made, run


def ways(**scores):
    """A score a way of E2, .5 unless named: "auto", "tuned", or a method's key with _ for -0."""
    named = {"auto": AUTO, "tuned": TUNED}
    given = {named.get(k, (k.replace("_", "-0."), "constant")): v for k, v in scores.items()}
    return dict.fromkeys(WAYS, 0.5) | given


def by_way(rows):
    return {(row["method"], row["stepsize"]): row for row in rows}


# ---------------------------------------------------------------------------------------------- E1
def test_the_claims_of_a_data_set_are_those_against_every_method():
    found = made(
        compare={"authors": compare(everyone())},
        tuning={"authors": long_rows.tuning("npo-0.5", "npo-0.9")},
    )
    rows = {row["name"]: row for row in verdicts.against(found, "authors")}
    assert rows.keys() == {f"against {m}" for m in evidence.compared()}
    npo = rows["against npo"]
    assert (npo["method"], npo["tuning_runs"], npo["tuning_seconds"]) == ("npo-0.9", 6, 18.0)
    assert npo["kind"] == "95 %" and npo["n"] == 10 and npo["mean"] == pytest.approx(0.3)
    assert verdicts.against(found, "tofu") == []


# ---------------------------------------------------------------------------------------------- E2
def test_regrets_by_hand():
    """On authors the best is LossNorm (.9), on news NGDiff (.8)."""
    found = made(
        compare={
            "authors": compare(ways(lossnorm=0.9, tuned=0.85, auto=0.7)),
            "news": compare(ways(lossnorm=0.6, tuned=0.8, auto=0.75)),
        }
    )
    rows = by_way(verdicts.regrets(found))
    assert rows.keys() == set(WAYS)
    expected = {
        ("lossnorm", "constant"): (0.0, 0.2, 0.2),
        TUNED: (0.05, 0.0, 0.05),
        AUTO: (0.2, 0.05, 0.2),
        ("graddiff-0.5", "constant"): (0.4, 0.3, 0.4),
    }
    for way, regret in expected.items():
        keys = ("authors", "news", "largest")
        assert [rows[way][key] for key in keys] == pytest.approx(regret, abs=1e-12), way
    assert next(iter(rows)) == TUNED, "the smallest largest regret comes first"
    for name in ("authors", "news"):
        assert min(row[name] for row in rows.values()) == 0
    assert rows[TUNED]["best"] == 1 and rows[AUTO]["best"] == 0


def test_the_bootstrap_is_reproducible_and_holds_a_regret_that_no_unit_moves():
    found = made(compare={"authors": compare(ways(lossnorm=0.9))})
    rows = verdicts.regrets(found)
    assert rows == verdicts.regrets(found)
    for way, row in by_way(rows).items():
        assert row["low"] <= row["largest"] + 1e-12 and row["largest"] <= row["high"] + 1e-12
        if way != AUTO:  # whose units differ
            assert row["low"] == pytest.approx(row["high"])
    ours = by_way(rows)[AUTO]
    assert ours["low"] < ours["largest"] < ours["high"]


def test_a_tie_is_the_smallest_for_both():
    found = made(compare={"authors": compare(ways(lossnorm=0.9, tuned=0.9))})
    best = [row for row in verdicts.regrets(found) if row["best"] == 1]
    assert {row["method"] for row in best} == {"lossnorm", OURS}


def test_a_data_set_without_one_of_the_ways_has_no_regrets():
    part = {way: score for way, score in ways().items() if way != ("lossnorm", "constant")}
    both = {"authors": compare(ways(lossnorm=0.9)), "news": compare(part)}
    rows = verdicts.regrets(made(compare=both))
    assert "authors" in rows[0] and "news" not in rows[0]
    assert verdicts.regrets(made(compare={"news": compare(part)})) == []
    assert verdicts.regrets(made()) == []


def test_regrets_are_of_the_units_that_every_way_has():
    rows = compare(ways(tuned=0.9))
    lost = [r for r in rows if (r["method"], r["data"]) == ("lossnorm", POPULATIONS[0])]
    fewer = [r for r in rows if r not in lost]
    shifted = [r | {"score": 0.0} if r["data"] == POPULATIONS[0] else r for r in fewer]
    regrets = [verdicts.regrets(made(compare={"authors": found})) for found in (fewer, shifted)]
    assert regrets[0] == regrets[1]


BARE = (OURS, "three-point")


def test_the_bare_rule_stands_beside_the_ways_and_is_not_chosen_from():
    """Its regret is to the best way, so it is below zero where the bare rule is better than all."""
    given = {"authors": ways(lossnorm=0.9), "news": ways(lossnorm=0.6)}
    alone = verdicts.regrets(made(compare={name: compare(of) for name, of in given.items()}))
    beside = {"authors": 0.95, "news": 0.2}
    both = {name: compare(of | {BARE: beside[name]}) for name, of in given.items()}
    rows = verdicts.regrets(made(compare=both))
    assert [row for row in rows if row["best"] is not None] == alone, "nothing else moves"
    bare = by_way(rows)[BARE]
    keys = ("authors", "news", "largest")
    assert [bare[key] for key in keys] == pytest.approx([-0.05, 0.4, 0.4])
    assert [bare[key] for key in ("low", "high", "best")] == [None] * 3
    assert BARE in BESIDE and not {*BESIDE} & {*WAYS}
    assert [row["largest"] for row in rows] == sorted(row["largest"] for row in rows)


def test_the_bare_rule_is_left_out_where_a_set_or_a_unit_lacks_it():
    whole = compare(ways(lossnorm=0.9) | {BARE: 0.3})
    less = [r for r in whole if (r["stepsize"], r["data"]) != (BARE[1], POPULATIONS[0])]
    for news in (compare(ways()), less):
        rows = verdicts.regrets(made(compare={"authors": whole, "news": news}))
        assert by_way(rows).keys() == {*WAYS}
    assert BARE in by_way(verdicts.regrets(made(compare={"authors": whole, "news": whole})))


def test_the_bare_rule_is_measured_on_the_units_that_every_way_has():
    """LossNorm has no run of the first population: the bare rule's run there does not count."""
    rows = compare(ways() | {BARE: 0.3})
    rows = [r for r in rows if (r["method"], r["data"]) != ("lossnorm", POPULATIONS[0])]
    for r in rows:
        r["score"] = 0.0 if r["data"] == POPULATIONS[0] else r["score"]
    bare = by_way(verdicts.regrets(made(compare={"authors": rows})))[BARE]
    assert bare["authors"] == pytest.approx(0.2, abs=2e-3)  # AutoLR's units move by JITTER


# ---------------------------------------------------------------------------------------------- E3
RULES = {"autolr": 0.9, "once": 0.6, "once-half": 0.7, "three-point": 0.1}


def test_autolr_is_compared_with_the_better_one_of_its_first_searches():
    other, gap = verdicts.adapts(long_rows.adapt(RULES))
    assert other == "once-half" and gap.mean == pytest.approx(0.2) and gap.sign == "above"
    assert (gap.kind, gap.n) == ("95 %", 10), "five units, two starts each"
    other, gap = verdicts.adapts(long_rows.adapt(RULES | {"once": 0.95}))
    assert other == "once" and gap.mean == pytest.approx(-0.05) and gap.sign == "below"


@pytest.mark.parametrize("rule", ["autolr", "once", "once-half"])
def test_without_one_of_the_three_rules_nothing_is_compared(rule):
    rest = {name: score for name, score in RULES.items() if name != rule}
    assert verdicts.adapts(long_rows.adapt(rest)) is None
    assert verdicts.adapts([]) is None


def test_the_spread_is_best_minus_worst_over_the_starts():
    rows = [
        run(OURS, "autolr", score, data=data, lr=lr, updates=updates)
        for data, spread in zip(POPULATIONS[:3], (0.1, 0.2, 0.6), strict=True)
        for lr, score, updates in ((2e-5, 0.3, 10), (2e-3, 0.3 + spread, 30), (2e-2, 0.4, 20))
    ]
    rows[0]["stopped"] = "steps"
    (found,) = verdicts.adapting(rows)
    assert found["spread"].mean == pytest.approx(0.3) and found["spread"].kind == "95 %"
    assert found["worst"] == 0.3 and found["reached"] == pytest.approx(8 / 9)
    assert (found["updates"], found["n"]) == (20, 9)
    assert found["score"] == pytest.approx((0.3 * 6 + 0.4 * 3 + 0.9) / 9)
    (one,) = verdicts.adapting(rows[::3])
    assert one["spread"] is None, "one start has no spread"
    assert verdicts.adapting([]) == []


# ---------------------------------------------------------------------------------------------- E4
def band(works, **more):
    rows = [r | more for r in long_rows.bands({(OURS, "sgd"): works})]
    (found,) = verdicts.bands(rows, long_rows.levels())
    return found


@pytest.mark.parametrize(
    ("works", "decades", "edge"),
    [
        (range(2, 6), 1.5, False),
        ((2, 3, 5, 6, 7), 1.0, False),  # the longest of two rows
        ((0, 1, 4, 5), 0.5, True),
        ((7, 8), 0.5, True),
        ((0, 3, 4), 0.5, False),  # a shorter row at the end is not the band
        ((4,), 0.0, False),
        ((), None, False),
        (range(9), 4.0, True),
    ],
)
def test_a_band_is_the_longest_row_of_working_rates(works, decades, edge):
    found = band(works)
    assert (found["decades"], found["edge"]) == (decades, edge)
    assert (found["nan"], found["blown"], found["n"]) == (0, 0, 18)


def test_a_band_is_a_mean_over_units_and_none_where_a_unit_has_none():
    rows = long_rows.bands({(OURS, "sgd"): range(2, 6)})
    one, two = (r["data"] for r in (rows[0], rows[1]))
    less = [r | {"kept": 0.0} if r["data"] == two and r["lr"] > 0.02 else r for r in rows]
    assert verdicts.bands(less, [])[0]["decades"] == 0.75, "of 1.5 and 0"
    none = [r | {"kept": 0.0} if r["data"] == one else r for r in rows]
    assert verdicts.bands(none, [])[0]["decades"] is None


@pytest.mark.parametrize(
    ("more", "works"),
    [({"kept": 0.9}, True), ({"kept": 0.899}, False), ({"stopped": "steps"}, False)],
)
def test_a_rate_works_where_the_run_reached_the_level_and_kept_nine_tenths(more, works):
    assert verdicts.works(run(**more)) == works


@pytest.mark.parametrize(
    ("loss", "nan", "blown"),
    [(0.5, 0, 0), (0.51, 0, 1), (None, 1, 1), (float("nan"), 1, 1), (float("inf"), 1, 1)],
)
def test_a_run_ends_badly_above_five_times_the_starts_loss(loss, nan, blown):
    found = band(range(9), loss_retain=loss)  # the start's is .1
    assert (found["nan"], found["blown"]) == (nan, blown)


def test_shares_of_bad_ends_count_runs():
    rows = long_rows.bands({(OURS, "sgd"): range(9)})
    rows[0]["loss_retain"], rows[1]["loss_retain"] = None, 9.0
    (found,) = verdicts.bands(rows, long_rows.levels())
    assert (found["nan"], found["blown"]) == (pytest.approx(1 / 18), pytest.approx(2 / 18))
    (unknown,) = verdicts.bands(rows, long_rows.levels(POPULATIONS[:1]))
    assert unknown["blown"] is None and unknown["nan"] == found["nan"]


def test_the_level_of_a_blown_run_is_the_starts_of_its_own_model():
    levels = [*long_rows.levels(POPULATIONS[:1]), *long_rows.levels(("x",))]
    levels[2] |= {"loss_retain": 0.3}
    assert verdicts.too_much(levels) == {(POPULATIONS[0], 0): 0.5, ("x", 0): 1.5}


def test_methods_and_optimizers_that_were_not_run_have_no_band():
    rows = long_rows.bands({(OURS, "sgd"): range(3), ("lossnorm", "adamw"): range(3)})
    found = verdicts.bands(rows, [])
    names = [(r["method"], r["optimizer"]) for r in found]
    assert names == [(OURS, "sgd"), ("lossnorm", "adamw")]
    assert verdicts.bands([], []) == []


# ------------------------------------------------------------------------------------------ tables
def test_runs_are_shown_with_their_means_and_bill():
    rows = compare({AUTO: 0.8, ("npo-0.9", "constant"): 0.9})
    for r in rows[:2]:
        r |= {"stopped": "steps", "updates": 140}
    seen = long_rows.tuning("npo-0.5", "npo-0.9", "kl-0.9")
    found = made(compare={"authors": rows}, tuning={"authors": seen})
    npo, ours = verdicts.shown(found, "authors", ("score", "updates", "knowmem_r"))
    assert (npo["method"], npo["score"], npo["n"]) == ("npo-0.9", pytest.approx(0.9), 10)
    assert (npo["tuning_runs"], npo["tuning_seconds"]) == (6, 18.0), "both weights, no other method"
    assert (ours["tuning_runs"], ours["reached"], ours["updates"]) == (0, 0.8, 60)
    assert ours["knowmem_r"] is None, "this data set has no such value"


def test_a_run_that_ended_in_nan_is_not_dropped_from_a_mean():
    rows = compare({AUTO: 0.8, ("npo-0.9", "constant"): 0.9})
    rows[-1]["loss_retain"] = None  # NaN, as saved
    npo, ours = verdicts.shown(made(compare={"authors": rows}), "authors", ("score", "loss_retain"))
    assert npo["loss_retain"] != npo["loss_retain"] and ours["loss_retain"] == 0.5


# -------------------------------------------------------------------------------------------- files
def test_a_folder_with_missing_parts_is_loaded(tmp_path):
    folder, rates = tmp_path / "data/results/tiny", tmp_path / "data/protocol/tiny"
    assert verdicts.load(folder).names == []
    ours = compare({AUTO: 0.8}, real=True)
    write_rows(folder / "evidence_compare_tofu.parquet", ours)
    write_rows(folder / "evidence_adapt_authors.parquet", long_rows.adapt(RULES))
    write_rows(rates / "tofu.parquet", long_rows.tuning("npo-0.9", "dpo", "idkgrad"))
    found = verdicts.load(folder)
    assert found.names == ["tofu"] and found.of("compare", "tofu") == ours
    assert found.of("levels", "tofu") == [] and found.of("adapt", "tofu") == []
    assert len(found.of("adapt", "authors")) == 40
    tuned = {r["method"] for r in found.of("tuning", "tofu")}
    assert tuned == {"npo-0.9"}, "methods of a page alone are no part of the comparison"


def test_data_sets_stand_in_the_order_of_the_comparison():
    names = ["lume", "authors", "tofu", "news"]
    found = made(compare={name: compare({AUTO: 0.8}) for name in names})
    assert found.names == ["authors", "news", "tofu", "lume"]
