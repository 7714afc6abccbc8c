"""`ngdiff bench evaluate`: what it times, on a few rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ngdiff.profiles import TinyLM
from ngdiff.timing import evaluate as bench_evaluate
from tests.helpers import micro


def test_every_part_is_timed_and_nothing_is_left_changed(monkeypatch):
    import torch

    monkeypatch.setattr(
        bench_evaluate,
        "SHAPE",
        TinyLM(hidden=16, layers=1, heads=2, intermediate=16, vocab=300, context=512),
    )
    few = replace(micro.bench(), configs={k: rows[:2] for k, rows in micro.bench().configs.items()})
    threads = torch.get_num_threads()
    rows = bench_evaluate.measure(few, rounds=2)
    parts = ["likelihood", "generation", "gradient norms", "likelihood, one forward a text"]
    assert [r["part"] for r in rows] == parts * 2 and all(
        r["seconds"] > 0 and r["parameters"] > 0 for r in rows
    )
    assert torch.get_num_threads() == threads
    said = bench_evaluate.summary([r | {"seconds": float(r["round"])} for r in rows])
    assert said.startswith("likelihood 0.5 s (0.0M parameters); generation 0.5 s")


def test_the_rows_are_of_the_asked_sizes():
    bench = bench_evaluate.rows_of("")
    assert {k: len(bench.rows(k)) for k in ("forget05_perturbed", "retain_perturbed")} == {
        "forget05_perturbed": 40,
        "retain_perturbed": 64,
    }
    assert all(
        len(bench.rows(k)) == 40 for k in ("real_authors_perturbed", "world_facts_perturbed")
    )


def test_another_suffix_is_refused():
    from pathlib import Path

    with pytest.raises(ValueError, match=r"rows are saved as .jsonl"):
        bench_evaluate.table(json=Path("rows.csv"))


def test_the_printed_table_has_median_least_and_most_of_each_part():
    spent = {"likelihood": (3.0, 1.0, 2.0), "generation": (0.25, 0.5)}
    rows = [{"part": part, "cpu_seconds": s} for part, all in spent.items() for s in all]
    assert bench_evaluate.medians(rows).text().splitlines() == [
        "part        CPU s, median  least  most  rounds",
        "likelihood           2.00   1.00  3.00       3",
        "generation           0.38   0.25  0.50       2",
    ]
