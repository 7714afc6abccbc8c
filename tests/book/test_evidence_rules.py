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
    assert said.startswith("Over 1 of 6 data sets LossNorm stays closest to the best way")
    assert "is 0.000 [0.000, 0.000]. It is the smallest in 100% of the bootstrap draws." in said
    assert "For comparison: NGDiff 0.080 [0.080, 0.080] and NGDiff + AutoLR 0.100 [" in said


def test_ways_with_one_largest_regret_are_both_named():
    said = words.control(of(lossnorm=0.9, graddiff_9=0.9))
    assert "GradDiff(0.9) and LossNorm stay closest" in said and "in 100% and 100% of" in said


def test_ways_that_are_printed_as_equal_are_both_named():
    """The point estimate alone would name one of two that differ by less than a digit."""
    said = words.control(of(lossnorm=0.9004, graddiff_9=0.9))
    assert "LossNorm and GradDiff(0.9) stay closest" in said and "in 100% and 0% of" in said


def test_our_own_way_is_not_compared_with_itself():
    said = words.control(of(tuned=0.9))
    assert "NGDiff stays closest" in said and said.count("NGDiff ") == 2
    assert "For comparison: NGDiff + AutoLR" in said


def test_gains_are_ours_minus_the_fixed_weights():
    gained = words.gains(of(graddiff_5=0.7, graddiff_97=0.9))["the generated authors"]
    assert gained == pytest.approx({"GradDiff(0.5)": 0.12, "the best fixed c": -0.08})


# ----------------------------------------------------------------------------------------------- E3
RULES = {"once": 0.7, "once-half": 0.6}


@pytest.mark.parametrize(
    ("score", "answer"),
    [
        (0.9, "AutoLR adapts after its first search: its score minus that of “first search only” "),
        (0.5, "AutoLR does not gain from adapting: its score minus that of “first search only” "),
        (0.7, "it is undecided whether AutoLR gains from adapting: its score"),
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
        "NGDiff has 0.5. Under SGD, of the rates that were tried, NGDiff and LossNorm have the "
        "widest band, 1 decade."
    )


@pytest.mark.parametrize(
    ("works", "said"),
    [
        (range(4, 5), "NGDiff has the widest band, 0 decades."),
        ((), "none works in every unit, with any method."),
    ],
)
def test_one_working_rate_is_a_band_and_none_is_none(works, said):
    rows = long_rows.bands({("ngdiff", "sgd"): works, ("lossnorm", "sgd"): ()})
    found = words.stability(made(bands={"authors": rows}))
    assert found == f"Under AdamW: not run. Under SGD, of the rates that were tried, {said}"


def test_a_band_that_may_go_on_says_so():
    rows = long_rows.bands({("ngdiff", "sgd"): range(5, 9)})
    assert "| ≥ 1.5 |" in tables.e4_table(made(bands={"authors": rows}))


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
