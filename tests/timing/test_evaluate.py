"""`ngdiff bench evaluate`: what it times, on a few rows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from ngdiff.profiles import TinyLM
from ngdiff.store.code import HOME
from ngdiff.timing import against, against_worker, floor
from ngdiff.timing import evaluate as bench_evaluate
from tests.helpers import micro


def test_every_part_is_timed_and_nothing_is_left_changed(monkeypatch):
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


# Against another checkout, and the floor
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """A tiny shape and two rows of each kind."""
    shape = TinyLM(hidden=16, layers=1, heads=2, intermediate=16, vocab=300, context=512)
    few = replace(micro.bench(), configs={k: rows[:2] for k, rows in micro.bench().configs.items()})
    monkeypatch.setattr(bench_evaluate, "SHAPE", shape)
    return few


def test_the_floor_is_beside_the_time_of_each_part(small):
    subject, members, work = bench_evaluate.parts_of(small)
    parts = ["likelihood", "gradient norms"]
    rows = floor.measure(subject, members, {part: work[part] for part in parts})
    assert [r["part"] for r in rows if r["what"] == "all"] == parts
    for part in parts:
        mine = [r for r in rows if r["part"] == part]
        assert mine[0]["share"] == 1.0 and mine[1]["what"].startswith("floor: ")
        assert 0 < mine[1]["share"] < 1 and len(mine) == 2 + floor.MOST
    assert floor.floor_table(rows).text().splitlines()[0].split() == [
        "part",
        "what",
        "CPU",
        "s",
        "share",
    ]


def test_the_floor_counts_each_beginning_once(small):
    subject, rows, _ = bench_evaluate.parts_of(small)
    flops = floor.needed(subject, rows, new=3)
    model = subject.lm.model
    head = 2 * model.lm_head.weight.numel()
    body = 2 * sum(p.numel() for p in model.parameters()) - head  # the embedding is the head
    prompts = {tuple(subject.answer(r).given) for p in rows if p != "holdout" for r in rows[p]}
    expected = (sum(map(len, prompts)) + 2 * len(prompts)) * body + 3 * len(prompts) * head
    assert flops["generation"] == expected
    one = {"holdout": rows["holdout"][:1]}
    example = subject.answer(one["holdout"][0])
    n, first = len(example) - 1, len(example.prompt_ids)
    assert floor.needed(subject, one)["likelihood"] == n * body + (n - first + 1) * head


def test_numbers_and_texts_of_two_evaluations_are_compared():
    same = {"a": [1.0, {"b": "x"}], "c": float("nan"), "d": None}
    assert against.compared(same, same) == (0.0, 0)
    other = {"a": [1.5, {"b": "y"}], "c": float("nan"), "d": "z"}
    assert against.compared(other, same) == (0.5, 2)
    assert against.compared(200.0, 100.0) == (1.0, 0)  # relative above 1
    with pytest.raises(ValueError, match="different items"):
        against.compared({"a": 1.0}, {"b": 1.0})


def test_the_table_against_another_code_has_ratios_and_what_differs():
    rows = [
        {"part": part, "round": n, "code": code, "cpu_seconds": seconds * (n + 1)}
        | {"apart": 1e-7 * n, "different": n}
        for n in range(2)
        for part, pair in zip(against.PARTS, ((4.0, 2.0), (9.0, 3.0), (1.0, 1.0)), strict=True)
        for code, seconds in zip(("older", "this"), pair, strict=True)
    ]
    found = against.compare_table(rows).rows
    assert [r["ratio"] for r in found] == [2.0, 3.0, 1.0, 14 / 6]
    assert found[-1]["part"] == "together" and found[-1]["different"] == 3
    assert found[0]["apart"] == 1e-7 and found[0]["different"] == 1


STUB = """
import json, sys
from pathlib import Path
mine = (Path.cwd() / "ngdiff").resolve() == Path(HERE)
print(json.dumps({"parameters": 3, "rows": {"forget": ROWS}}), flush=True)
for line in sys.stdin:
    found = {"0": {"score": 0.25 if mine else 0.5, "text": str(mine)}, "1": {"part": line.strip()}}
    print(json.dumps({"seconds": 1.0, "cpu_seconds": 1.0 + mine, "found": found}), flush=True)
"""


def _stub(tmp_path, monkeypatch, rows: str) -> str:
    """A worker that needs no model, and another checkout."""
    worker, other = tmp_path / "worker.py", tmp_path / "other"
    (other / "ngdiff" / "timing").mkdir(parents=True)
    (other / "ngdiff" / "timing" / "evaluate.py").write_text("")
    worker.write_text(STUB.replace("HERE", repr(str(HOME))).replace("ROWS", rows))
    monkeypatch.setattr(against, "WORKER", worker)
    return str(other)


def test_two_checkouts_are_asked_in_turn_and_compared(tmp_path, monkeypatch):
    other = _stub(tmp_path, monkeypatch, "40")
    rows = against.measure(other, "", rounds=2)
    assert [(r["part"], r["code"]) for r in rows] == [
        (part, code) for part in against.PARTS for code in ("older", "this")
    ] * 2
    assert {(r["code"], r["cpu_seconds"]) for r in rows} == {("older", 1.0), ("this", 2.0)}
    assert all(r["apart"] == 0.25 and r["different"] == 1 and r["parameters"] == 3 for r in rows)


def test_two_checkouts_with_other_rows_are_not_compared(tmp_path, monkeypatch):
    other = _stub(tmp_path, monkeypatch, "40 + mine")
    with pytest.raises(ValueError, match="another model or other rows"):
        against.measure(other, "", rounds=1)


def test_a_worker_that_ends_is_an_error(tmp_path, monkeypatch):
    other = _stub(tmp_path, monkeypatch, "1 // 0")
    with pytest.raises(RuntimeError, match="ended with status 1"):
        against.measure(other, "", rounds=1)


def test_the_worker_gives_the_numbers_of_each_part(small, monkeypatch):
    monkeypatch.setattr(bench_evaluate, "rows_of", lambda data: small)
    threads = torch.get_num_threads()
    parts, about = against_worker.subject("")
    torch.set_num_threads(threads)
    assert tuple(parts) == against.PARTS and about["rows"]["forget"] == 2
    assert set(parts["gradient norms"]()) == {"mia_gradnorm_forget", "mia_gradnorm_holdout"}
    json.dumps(parts["likelihood"]())


def test_what_is_no_checkout_is_refused_before_work(tmp_path):
    with pytest.raises(ValueError, match="no checkout of ngdiff"):
        bench_evaluate.table(against=str(tmp_path))
    with pytest.raises(ValueError, match="neither a folder nor a revision"):
        bench_evaluate.table(against="no-such-revision")
    with pytest.raises(ValueError, match="one of --lume, --against and --floor"):
        bench_evaluate.table(against="main", floor=True)
