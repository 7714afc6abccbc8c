"""The tables of E1: what stands beside the score of a run, and how a claim is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from ngdiff.book import evidence_runs as runs
from ngdiff.book.evidence import OURSELVES
from ngdiff.store.rows import read_rows
from tests.helpers import long_rows
from tests.helpers.long_rows import POPULATIONS, compare, everyone, made, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("verdict", "p", "pairs", "shown"),
    [
        ("tuned npo better", 0.01, 10, "it"),
        ("tuned npo in every pair", None, 4, "too few pairs"),
        (f"{OURSELVES} better", 0.04, 10, OURSELVES),
        ("undecided", 0.2, 10, "undecided"),
        ("undecided", None, 2, "too few pairs"),
        ("not matched", None, 0, "not matched"),
    ],
)
def test_a_verdict_is_shown_as_it_or_ours(verdict, p, pairs, shown):
    row = {"verdict": verdict, "method": "npo-0.9", "p_holm": p, "both_n": pairs}
    assert runs._winner(row) == shown


def test_the_table_marks_pairs_that_are_left_out_and_ends_of_the_rates():
    rows = compare(everyone(npo=0.9))
    for r in rows:
        if r["method"] == "npo-0.9" and r["data"] == POPULATIONS[0]:
            r |= {"stopped": "steps", "loss_retain": None}
        if r["method"] == "kl-0.9":
            r["stopped"] = "steps"
    tuning = long_rows.tuning("npo-0.9", rates=(1e-4, 1e-3)) + long_rows.tuning("lossnorm")
    found = made(compare={"authors": rows}, tuning={"authors": tuning})
    table = runs.e1_tables(found)
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
    every, gap = f"{OURSELVES} minus it, all pairs [95 %]", "pairs that both reached the level"
    assert npo[every].startswith("-0.100 [") and npo[every].endswith("]"), "all ten pairs"
    assert npo[gap].startswith("-0.101 [") and npo[gap].endswith(", n = 8")
    assert kl[every].startswith("+0.300 [") and kl[gap] == "–" and ours[every] == ours[gap] == ""
    ties = {name: cells(name)["tied in tuning (retain loss)"] for name in ("NPO(0.9)", "KL(0.9)")}
    assert ties == {"NPO(0.9)": "2 (0.5 to 0.5)", "KL(0.9)": ""}, "KL has no tuning runs"
    assert (npo["better"], kl["better"]) == ("it", "not matched")
    assert (ours["learning rate"], ours["tuning"], ours["better"]) == ("untuned", "none", "")
    assert npo[r"\|AUC − ½\|"] == "0.2"


@pytest.mark.parametrize(
    ("gap", "cell"),
    [
        (None, ""),
        ({"ties": 0, "ties_low": None, "ties_high": None}, ""),
        ({"ties": 1, "ties_low": 0.5, "ties_high": 0.5}, ""),
        ({"ties": 3, "ties_low": None, "ties_high": None}, "3"),
        ({"ties": 3, "ties_low": 0.123, "ties_high": 1.5}, "3 (0.12 to 1.5)"),
    ],
)
def test_ties_are_shown_with_their_range_of_retain_losses(gap, cell):
    assert runs._ties(gap) == cell


def test_the_way_past_the_level_is_measured_from_the_start_of_its_own_model():
    levels = {(POPULATIONS[0], 0): 3.5, (POPULATIONS[0], 1): 9.0, (POPULATIONS[1], 0): 9.0}
    for ended, past in ((4.0, 0.5), (3.0, -0.5), (None, None)):
        assert runs._past(run(loss_forget=ended), levels) == past
    assert runs._past(run(loss_forget=4.0), {}) is None
    rows = compare(everyone())  # each ends at 4, and the retain-only model is at 99
    known = [long_rows.levels(POPULATIONS, level=3.5), long_rows.levels(POPULATIONS[1:]), []]
    for level, cell in zip(known, ("0.5", "nan", None), strict=True):
        found = made(compare={"authors": rows}, levels={"authors": level})
        head, _, line = (x.split(" | ") for x in runs.e1_tables(found).splitlines()[2:5])
        cells = dict(zip(head, line, strict=True))
        assert cells.get("F past the level") == cell


@pytest.mark.parametrize("name", ["matched", "tofu_matched", "muse_matched", "semeval_matched"])
def test_every_benchmark_has_a_retain_measure_and_a_membership_test(name):
    """Of rows as they are saved today: a renamed metric would leave a column out of the tables."""
    rows = read_rows(ROOT / f"data/results/tiny/{name}.parquet")
    known = [key for key in runs.BESIDE if all(row.get(key) is not None for row in rows)]
    assert {"updates", "forwards", "seconds"} < set(known)
    assert any(key.startswith("retain_") or key == "knowmem_r" for key in known)
    assert all(0 <= runs._unfair(row) <= 0.5 for row in rows)
