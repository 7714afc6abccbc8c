"""The long comparison in words: each sentence says what its rows say, and no more."""

from __future__ import annotations

import os
import re

import pytest

from ngdiff.book import evidence as words
from ngdiff.book import evidence_runs as runs
from ngdiff.book import evidence_tables as tables
from ngdiff.book.evidence import OURSELVES, TITLES
from ngdiff.book.saved import NOT_RUN
from ngdiff.store.rows import write_rows
from ngdiff.study import evidence, verdicts
from ngdiff.study.intervals import Interval
from tests.helpers import long_rows
from tests.helpers.long_rows import AUTO, POPULATIONS, TUNED, compare, everyone, made, whole

SAID = (words.in_short, words.answers, words.control, words.adaptive, words.stability)
SHOWN = (
    tables.setup,
    tables.where,
    tables.e1_tables,
    tables.e2_table,
    tables.e3_tables,
    tables.e4_table,
    tables.e5_tables,
)
EACH = pytest.mark.parametrize("block", (*SAID, *SHOWN), ids=lambda block: block.__name__)


def of(**scores):
    """Evidence of the authors alone: a score a method, AutoLR's .8, tuned NGDiff's .82."""
    return made(compare={"authors": compare(everyone(**scores))})


# ------------------------------------------------------------------------------------------ partial
@EACH
def test_without_rows_a_block_says_so(block, tmp_path):
    assert NOT_RUN in block(made())
    assert tables.said(block)(tmp_path) == NOT_RUN


@EACH
@pytest.mark.parametrize("part", verdicts.PARTS)
def test_a_missing_part_stops_no_block(block, part):
    found = whole()
    less = {name: rows for name, rows in found.parts.items() if name != part}
    assert block(made(**less)) is not None
    one = {name: {k: v for k, v in rows.items() if k == "tofu"} for name, rows in less.items()}
    assert block(made(**one)) is not None


@EACH
@pytest.mark.parametrize("lost", [AUTO, TUNED, ("graddiff-0.5", "constant"), ("x", "constant")])
def test_a_missing_method_stops_no_block(block, lost):
    found = whole()

    def rest(rows):
        return [r for r in rows if (r.get("method"), r.get("stepsize")) != lost]

    parts = {
        part: {name: rest(rows) for name, rows in of_part.items()}
        for part, of_part in found.parts.items()
    }
    assert block(made(**parts)) is not None


@EACH
def test_runs_that_all_missed_the_level_stop_no_block(block):
    lost = {"stopped": "steps", "loss_retain": None, "score": 0.0}
    parts = {
        part: {name: [r | lost for r in rows] for name, rows in of_part.items()}
        for part, of_part in whole().parts.items()
        if part != "levels"
    }
    assert block(made(**parts)) is not None


@pytest.mark.parametrize("block", [words.in_short, words.answers, *SHOWN[:4]])
def test_what_was_not_run_is_named(block):
    found = whole()
    some = {part: {"tofu": rows["tofu"]} for part, rows in found.parts.items() if "tofu" in rows}
    assert f"On the generated authors, the authors with every retain row, {TITLES['news']}" in (
        block(made(**some))
    )
    assert NOT_RUN not in block(found)


def test_a_folder_without_rows_fills_every_block(tmp_path):
    assert all(NOT_RUN in block(tmp_path) for block in tables.BLOCKS.values())


def test_rows_that_change_are_read_again(tmp_path):
    path = tmp_path / "data/results/tiny/evidence_compare_authors.parquet"
    rates = tmp_path / "data/protocol/tiny/authors.parquet"
    write_rows(path, compare(everyone()))
    assert (
        words.load(tmp_path).names == ["authors"]
        and words.load(tmp_path).of("tuning", "authors") == []
    )
    write_rows(rates, long_rows.tuning("npo-0.9"))
    assert len(words.load(tmp_path).of("tuning", "authors")) == 3
    path.unlink()
    assert words.load(tmp_path).names == []
    os.utime(rates)
    assert len(words.load(tmp_path).of("tuning", "authors")) == 3


# ----------------------------------------------------------------------------------------------- E1
def test_mirrored_scores_swap_the_sides():
    scores = {"npo": 0.9, "kl": 0.95, "rmu": 0.6, "lossnorm": 0.8, "graddiff_9": 0.85}
    every = {m: scores.get(m.replace("-0.", "_"), 0.5) for m in evidence.RIVALS}
    sides, mirrored = (
        words._sides(of(**{m.replace("-0.", "_"): value(s) for m, s in every.items()}), "authors")
        for value in (lambda s: s, lambda s: 1.6 - s)
    )
    mixtures = {"ngdiff", "graddiff-0.7", "graddiff-0.97"}  # not mirrored
    assert set(sides["worse"]) - mixtures == {"npo-0.9", "kl-0.9", "graddiff-0.9"}
    assert set(sides["worse"]) - mixtures == set(mirrored["better"]) - mixtures
    assert set(sides["better"]) - mixtures == set(mirrored["worse"]) - mixtures != set()
    assert sides["open"] == mirrored["open"] == ["lossnorm"]


def test_the_answer_of_e1_names_the_sides():
    found = of(npo=0.9, lossnorm=0.8)
    sides, said = words._sides(found, "authors"), words.answers(found)
    assert said.splitlines()[0] == (
        f"- On the generated authors: {OURSELVES} is worse than tuned NGDiff and NPO(0.9). It is "
        f"better than tuned {words.listed(sides['better'])}. Undecided: LossNorm."
    )


def test_the_readme_names_each_side_and_what_is_undecided():
    scores = everyone(npo=0.9, lossnorm=0.8)
    rows = compare(scores)
    for r in rows:
        if r["method"] == "kl-0.9":
            r["stopped"] = "steps"
    said = words.in_short(made(compare={"authors": rows})).splitlines()[0]
    assert "the generated authors (5 populations)" in said
    assert f": untuned {OURSELVES} is worse than tuned NGDiff and NPO(0.9). It is better" in said
    assert "Undecided: 1 more. Too few pairs for a test: 1 more. But the mean score " in said
    assert said.endswith("is higher for 1 of 10 tuned rivals: NPO(0.9).")


def test_pairs_of_one_model_are_too_few_and_not_undecided():
    """GradAscent on TOFU: four of six runs miss the level, and both pairs left are of one model."""
    rows = compare(everyone(lossnorm=0.8), real=True)
    for r in rows:
        if r["method"] == "gradascent" and r["target_seed"] != 1:
            r["stopped"] = "steps"
    found = made(compare={"tofu": rows})
    (claim,) = (c for c in verdicts.against(found, "tofu") if c["method"] == "gradascent")
    assert (claim["n"], claim["both_n"], claim["p_holm"]) == (6, 2, None)
    sides = words._sides(found, "tofu")
    assert (sides["open"], sides["few"]) == (["lossnorm"], ["gradascent"])
    names = (("LossNorm", "GradAscent"), ("1 more", "1 more"))
    both = (words.answers(found), words.in_short(found))
    for said, (open_, few) in zip(both, names, strict=True):
        first = said.splitlines()[0]
        assert first.endswith(f"Undecided: {open_}. Too few pairs for a test: {few}.")
    one = [r | {"stopped": "steps"} if r["method"] == "wga-0.9" and r["seed"] else r for r in rows]
    assert "wga-0.9" in words._sides(made(compare={"tofu": one}), "tofu")["better"], "three models"


def test_a_range_without_a_test_names_no_winner():
    """Two units: AutoLR is above in every pair, and yet no winner is named."""
    rows = [r for r in compare(everyone(ours=0.9)) if r["data"] in POPULATIONS[:2]]
    found = made(compare={"authors": rows})
    claims = verdicts.against(found, "authors")
    assert {c["verdict"] for c in claims} == {f"{OURSELVES} in every pair"}
    assert words._sides(found, "authors")["few"] == [c["method"] for c in claims]
    for said in (words.in_short(found), words.answers(found)):
        assert f"{OURSELVES}. It is better than none of them. Too few pairs for a test: " in said
        assert "no tuned method is better than " in said and "Undecided" not in said
    cells = [runs._gap(c) for c in claims]
    assert all(cell.endswith("(range)") for cell in cells), "and it is no 95 % interval"
    assert {runs._winner(claim) for claim in claims} == {"too few pairs"}


# -------------------------------------------------------------------------------------------- ahead
def test_the_rivals_ahead_are_counted_and_named():
    said = words.ahead(of(npo=0.85, lossnorm=0.81, graddiff_7=0.99), "authors")
    assert said == (
        "In the long comparison on the generated authors, 2 of 10 tuned rivals score higher on "
        "average than NGDiff + AutoLR (0.8000): NPO(0.9) (0.8500), LossNorm (0.8100). 1 of 10 "
        "tuned rivals scores higher on average than tuned NGDiff (0.8200): NPO(0.9) (0.8500)."
    ), "GradDiff(0.7) is no rival of the pages"


def test_scores_that_are_printed_as_equal_are_not_ahead():
    """Four digits are printed and compared: the fifth names no rival, the fourth does."""
    said = words.ahead(of(npo=0.82004), "authors")
    assert "0 of 10 tuned rivals score higher on average than tuned NGDiff (0.8200)." in said
    assert "NGDiff + AutoLR (0.8000): NPO(0.9) (0.8200)" in said
    said = words.ahead(of(npo=0.8201), "authors")
    assert "than tuned NGDiff (0.8200): NPO(0.9) (0.8201)." in said


def test_a_score_of_runs_that_missed_the_level_says_so():
    rows = compare(everyone(npo=0.9))
    for r in rows:
        if r["method"] == "npo-0.9" and r["seed"] == 1:
            r["stopped"] = "steps"
    said = words.ahead(made(compare={"authors": rows}), "authors")
    assert "NPO(0.9) (0.9000; 50% of runs reached the level)" in said


def test_without_our_runs_no_rival_is_ahead():
    rows = [r for r in compare(everyone()) if r["method"] != "ngdiff"]
    for found in (made(), made(compare={"authors": rows})):
        assert words.ahead(found, "authors").endswith(f"generated authors: {NOT_RUN}.")


# ------------------------------------------------------------------------------------------ numbers
def test_no_number_of_a_sentence_is_typed():
    """Move every score by .05: no decimal of the sentences on scores may stay, but regrets'."""
    low, high = (of(ours=0.7 + x, tuned=0.72 + x, npo=0.8 + x) for x in (0, 0.05))
    before, after = (set(re.findall(r"\d\.\d{4}", words.ahead(f, "authors"))) for f in (low, high))
    assert before == {"0.7000", "0.7200", "0.8000"} and after == {"0.7500", "0.7700", "0.8500"}


def test_an_interval_is_shown_with_its_kind():
    assert words.spread(Interval(0.1, -0.1, 0.3, 6, "95 %")) == "+0.100 [-0.100, +0.300]"
    assert words.spread(Interval(0.1, 0.0, 0.2, 3, "range")) == "+0.100 [+0.000, +0.200] (range)"
    assert words.spread(Interval(0.1, None, None, 1)) == "+0.100"
