"""The long comparison in words: each sentence says what its rows say, and no more."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ngdiff.book import evidence as words
from ngdiff.book import evidence_runs as runs
from ngdiff.book import evidence_tables as tables
from ngdiff.book.evidence import OURSELVES, TITLES
from ngdiff.book.saved import NOT_RUN
from ngdiff.store.rows import read_rows, write_rows
from ngdiff.study import evidence, verdicts
from ngdiff.study.intervals import Interval
from tests.helpers import long_rows
from tests.helpers.long_rows import AUTO, POPULATIONS, TUNED, compare, everyone, made, whole

ROOT = Path(__file__).resolve().parents[2]
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
    assert "scores **lower** than NGDiff and NPO(0.9). It scores higher than GradAscent, " in said
    assert f"higher than {words.listed(sides['better'])}. It is undecided against LossNorm." in said


def test_the_readme_names_each_side_and_what_is_undecided():
    scores = everyone(npo=0.9, lossnorm=0.8)
    rows = compare(scores)
    for r in rows:
        if r["method"] == "kl-0.9":
            r["stopped"] = "steps"
    said = words.in_short(made(compare={"authors": rows})).splitlines()[0]
    assert "the generated authors (5 populations)" in said
    assert "is worse than NGDiff and NPO(0.9), and better than GradAscent, " in said
    assert said.endswith("Undecided: LossNorm. Not comparable: KL(0.9).")


def test_a_range_without_a_test_names_no_winner():
    """Two units: AutoLR is above in every pair, and yet no side is named."""
    rows = [r for r in compare(everyone(ours=0.9)) if r["data"] in POPULATIONS[:2]]
    found = made(compare={"authors": rows})
    claims = verdicts.against(found, "authors")
    assert {c["verdict"] for c in claims} == {f"{OURSELVES} in every pair"}
    assert "is worse than no method, and better than no method" in words.in_short(found)
    assert "higher than no method. It is undecided against " in words.answers(found)
    cells = [runs._gap(c) for c in claims]
    assert all(cell.endswith("(range)") for cell in cells), "and it is no 95 % interval"
    assert runs._winner(claims[0]) == f"{OURSELVES} in every pair"


@pytest.mark.parametrize(
    ("verdict", "shown"),
    [
        ("tuned npo better", "it"),
        ("tuned npo in every pair", "it in every pair"),
        (f"{OURSELVES} better", OURSELVES),
        ("undecided", "undecided"),
        ("not matched", "not matched"),
    ],
)
def test_a_verdict_is_shown_as_it_or_ours(verdict, shown):
    assert runs._winner({"verdict": verdict, "method": "npo-0.9"}) == shown


def test_the_table_marks_pairs_that_are_left_out_and_ends_of_the_rates():
    rows = compare(everyone(npo=0.9))
    for r in rows:
        if r["method"] == "npo-0.9" and r["data"] == POPULATIONS[0]:
            r |= {"stopped": "steps", "loss_retain": None}
        if r["method"] == "kl-0.9":
            r["stopped"] = "steps"
    tuning = long_rows.tuning("npo-0.9", rates=(1e-4, 1e-3)) + long_rows.tuning("lossnorm")
    found = made(compare={"authors": rows}, tuning={"authors": tuning})
    table = tables.e1_tables(found)
    lines = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()}
    heads = [head.strip() for head in lines["run"].strip("|").split(" | ")]

    def cells(name):
        return dict(
            zip(heads, (c.strip() for c in lines[name].strip("|").split(" | ")), strict=True)
        )

    npo, ours, kl = (cells(name) for name in ("NPO(0.9)", OURSELVES, "KL(0.9)"))
    assert npo["learning rate"] == "0.001, an end" and npo["tuning"] == "2 runs, 6 s"
    assert cells("LossNorm")["learning rate"] == "0.001" and kl["tuning"] == "–"
    assert npo["reached the level"] == "80%" and npo["retain loss"] == "nan"
    gap = npo[f"{OURSELVES} minus it [95 %]"]
    assert gap.startswith("-0.10") and gap.endswith(", n = 8")
    assert (npo["better"], kl["better"]) == ("it", "not matched")
    assert (ours["learning rate"], ours["tuning"], ours["better"]) == ("untuned", "none", "")
    assert npo[r"\|AUC − ½\|"] == "0.2"


@pytest.mark.parametrize("name", ["matched", "tofu_matched", "muse_matched", "semeval_matched"])
def test_every_benchmark_has_a_retain_measure_and_a_membership_test(name):
    """Of rows as they are saved today: a renamed metric would leave a column out of the tables."""
    rows = read_rows(ROOT / f"data/results/tiny/{name}.parquet")
    known = [key for key in runs.BESIDE if all(row.get(key) is not None for row in rows)]
    assert {"updates", "forwards", "seconds"} < set(known)
    assert any(key.startswith("retain_") or key == "knowmem_r" for key in known)
    assert all(0 <= runs._unfair(row) <= 0.5 for row in rows)


# -------------------------------------------------------------------------------------------- ahead
def test_the_rivals_ahead_are_counted_and_named():
    said = words.ahead(of(npo=0.85, lossnorm=0.81, graddiff_7=0.99), "authors")
    assert said == (
        "In the long comparison on the generated authors, 2 of 10 tuned rivals score higher on "
        "average than NGDiff + AutoLR (0.800): NPO(0.9) (0.850), LossNorm (0.810). 1 of 10 tuned "
        "rivals scores higher on average than tuned NGDiff (0.820): NPO(0.9) (0.850)."
    ), "GradDiff(0.7) is no rival of the pages"


def test_scores_that_are_printed_as_equal_are_not_ahead():
    said = words.ahead(of(npo=0.8204), "authors")
    assert "0 of 10 tuned rivals score higher on average than tuned NGDiff (0.820)." in said
    assert "NGDiff + AutoLR (0.800): NPO(0.9) (0.820)" in said


def test_a_score_of_runs_that_missed_the_level_says_so():
    rows = compare(everyone(npo=0.9))
    for r in rows:
        if r["method"] == "npo-0.9" and r["seed"] == 1:
            r["stopped"] = "steps"
    said = words.ahead(made(compare={"authors": rows}), "authors")
    assert "NPO(0.9) (0.900; 50% of runs reached the level)" in said


def test_without_our_runs_no_rival_is_ahead():
    rows = [r for r in compare(everyone()) if r["method"] != "ngdiff"]
    for found in (made(), made(compare={"authors": rows})):
        assert words.ahead(found, "authors").endswith(f"generated authors: {NOT_RUN}.")


# ------------------------------------------------------------------------------------------ numbers
def test_no_number_of_a_sentence_is_typed():
    """Move every score by .05: no decimal of the sentences on scores may stay, but regrets'."""
    low, high = (of(ours=0.7 + x, tuned=0.72 + x, npo=0.8 + x) for x in (0, 0.05))
    before, after = (set(re.findall(r"\d\.\d{3}", words.ahead(f, "authors"))) for f in (low, high))
    assert before == {"0.700", "0.720", "0.800"} and after == {"0.750", "0.770", "0.850"}


def test_an_interval_is_shown_with_its_kind():
    assert words.spread(Interval(0.1, -0.1, 0.3, 6, "95 %")) == "+0.100 [-0.100, +0.300]"
    assert words.spread(Interval(0.1, 0.0, 0.2, 3, "range")) == "+0.100 [+0.000, +0.200] (range)"
    assert words.spread(Interval(0.1, None, None, 1)) == "+0.100"
