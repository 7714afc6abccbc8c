"""The answers of E2 to E5: sentences from rows made by hand."""

from __future__ import annotations

import pytest

from ngdiff.book import evidence as words
from ngdiff.book import evidence_tables as tables
from tests.helpers import long_rows
from tests.helpers.long_rows import AUTO, POPULATIONS, compare, everyone, made, run


def of(**scores):
    """Evidence of the authors alone: a score a method, AutoLR's .8, tuned NGDiff's .82."""
    return made(compare={"authors": compare(everyone(**scores))})


# ----------------------------------------------------------------------------------------------- E2
def test_the_answer_of_e2_is_the_smallest_largest_regret():
    said = words.control(of(lossnorm=0.9))
    assert said.startswith(
        "Over 1 of 6 data sets LossNorm has the smallest largest regret, 0.000 [0.000, 0.000]. "
        "(Brackets: a bootstrap over few units.) In 100% of the draws it is the smallest. For "
        "comparison: NGDiff 0.080 [0.080, 0.080] and NGDiff + AutoLR 0.100 ["
    )
    assert "bare rule" not in said


def test_ways_with_one_largest_regret_are_both_named():
    said = words.control(of(lossnorm=0.9, graddiff_9=0.9))
    assert "GradDiff(0.9) and LossNorm have the smallest largest regret, 0.000 [" in said
    assert "In 100% and 100% of the draws they are the smallest, in this order." in said


def test_ways_that_are_printed_as_equal_are_both_named():
    """The point estimate alone would name one of two that differ by less than a digit."""
    said = words.control(of(lossnorm=0.9004, graddiff_9=0.9))
    assert "LossNorm and GradDiff(0.9) have the smallest largest regret, 0.000 [" in said
    assert "In 100% and 0% of the draws they are the smallest, in this order." in said


def test_our_own_way_is_not_compared_with_itself():
    said = words.control(of(tuned=0.9))
    assert "NGDiff has the smallest largest regret" in said and said.count("NGDiff ") == 2
    assert "For comparison: NGDiff + AutoLR" in said


def test_the_bare_rule_is_a_row_of_the_table_and_never_the_answer():
    """Its score is above every other one here: it is shown, and another way is named."""
    scores = everyone(lossnorm=0.9) | {("ngdiff", "three-point"): 0.95}
    found = made(compare={"authors": compare(scores)})
    assert words.control(found) == words.control(of(lossnorm=0.9))
    lines = [line.split(" | ") for line in tables.e2_table(found).splitlines()]
    bare = next(line for line in lines if line[0] == "| NGDiff + bare rule")
    assert bare[1:3] == ["-0.050", "-0.050"], "no interval, and no share of the draws"
    assert bare[3].strip(" |") in ("", "–")


def test_gains_are_ours_minus_the_fixed_weights():
    gained = words.gains(of(graddiff_5=0.7, graddiff_97=0.9))["the generated authors"]
    assert gained == pytest.approx({"GradDiff(0.5)": 0.12, "the best fixed c": -0.08})


# ----------------------------------------------------------------------------------------------- E3
RULES = {"once": 0.7, "once-half": 0.6}


@pytest.mark.parametrize(
    ("score", "answer"),
    [
        (0.9, "AutoLR adapts after its first search: its score minus that of “first search only” "),
        (0.5, "AutoLR loses by adapting: its score minus that of “first search only” "),
        (0.7, "it is undecided whether AutoLR gains by adapting: its score"),
    ],
)
def test_the_answer_of_e3_has_the_sign_of_its_interval(score, answer):
    rows = long_rows.adapt(RULES | {"autolr": score})
    said = words.adaptive(made(adapt={"authors": rows}))
    assert f"On the generated authors {answer}" in said and f"is {score - 0.7:+.3f} [" in said
    assert said.endswith("On TOFU's rows: not run.")
    few = [r for r in rows if r["data"] in POPULATIONS[:2]]
    assert "it is undecided" in words.adaptive(made(adapt={"authors": few})), "two units: no test"


# ----------------------------------------------------------------------------------------------- E4
def test_the_answer_of_e4_names_the_widest_band_of_each_optimizer():
    works = {("ngdiff", "adamw"): range(2, 4), ("lossnorm", "adamw"): range(4, 8)}
    works |= {("ngdiff", "sgd"): range(4, 7), ("lossnorm", "sgd"): range(2, 5)}
    said = words.stability(made(bands={"authors": long_rows.bands(works)}))
    assert said == (
        "Under AdamW, of the rates that were tried, LossNorm has the widest band, 1.5 decades; "
        "NGDiff has 0.5 decades. Under SGD, of the rates that were tried, NGDiff and LossNorm have "
        "the widest band, 1 decade."
    )


@pytest.mark.parametrize(
    ("works", "said"),
    [
        (range(4, 5), ", of the rates that were tried, NGDiff has the widest band, 0 decades."),
        ((), " no method has a working rate in every unit."),
    ],
)
def test_one_working_rate_is_a_band_and_none_is_none(works, said):
    rows = long_rows.bands({("ngdiff", "sgd"): works, ("lossnorm", "sgd"): ()})
    found = words.stability(made(bands={"authors": rows}))
    assert found == f"Under AdamW: not run. Under SGD{said}"


def test_a_band_that_may_go_on_says_so():
    rows = long_rows.bands({("ngdiff", "sgd"): range(5, 9)})
    found = made(bands={"authors": rows})
    assert "| ≥ 1.5 |" in tables.e4_table(found)
    assert "NGDiff has the widest band, ≥ 1.5 decades." in words.stability(found)


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (range(7, 9), range(2, 6), "1.5 decades; NGDiff has ≥ 0.5 decades. (≥: the band may go on"),
        (range(6, 9), range(2, 6), "1.5 decades; NGDiff has ≥ 1 decade. (≥: the band may go on"),
        (range(6, 8), range(5, 9), "≥ 1.5 decades; NGDiff has 0.5 decades."),
        ((), range(2, 6), "1.5 decades; NGDiff has none."),
    ],
)
def test_the_order_is_open_where_our_narrower_band_may_go_on(ours, theirs, said):
    rows = long_rows.bands({("ngdiff", "sgd"): ours, ("lossnorm", "sgd"): theirs})
    found = words.stability(made(bands={"authors": rows}))
    assert f"LossNorm has the widest band, {said}" in found
    assert found.endswith("so the order is open.)") == ("NGDiff has ≥" in said)


def test_a_method_that_fails_in_a_unit_has_none_even_if_another_units_band_goes_on():
    rows = long_rows.bands({("ngdiff", "sgd"): range(6, 9), ("lossnorm", "sgd"): range(2, 6)})
    for r in rows:
        if (r["method"], r["data"]) == ("ngdiff", POPULATIONS[1]):
            r["kept"] = 0.2
    assert words.stability(made(bands={"authors": rows})).endswith("; NGDiff has none.")


# ----------------------------------------------------------------------------------------------- E5
def test_too_far_is_said_only_of_runs_that_went_too_far():
    levels = {"authors": long_rows.levels(level=3.0)}

    def said(*losses):
        runs = [
            run(*AUTO, loss_forget=x, data=d) for d, x in zip(POPULATIONS, losses, strict=False)
        ]
        return words.in_short(made(fixed={"authors": runs}, levels=levels))

    assert "forget loss ends at 9.0, the hold-out level is 3.0." in said(8.0, 10.0)
    for losses in ((2.0, 10.0), (None, 10.0), ()):
        assert "Without a stop" not in said(*losses)


def test_a_mean_with_a_run_that_ended_in_nan_is_no_number():
    rows = [run("npo-0.9", loss_retain=x, seed=s) for s, x in enumerate((1.0, None))]
    rows += [run("ngdiff", loss_retain=0.25)]
    table = tables.e5_tables(made(fixed={"authors": rows}))
    assert "| NPO(0.9) | 0.001 | – | nan |" in table and "| NGDiff | 0.001 | – | 0.25 |" in table
