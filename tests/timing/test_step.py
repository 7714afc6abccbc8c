"""The step benchmark: its table, its saved rows, its command, what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ngdiff.book import costs
from ngdiff.commands import cli
from ngdiff.store.rows import read_rows, write_rows
from ngdiff.timing import step, variants
from ngdiff.timing.case import VARIANTS, Case
from ngdiff.timing.step import step_table
from tests.helpers.timed import TWO


def _full(*_):
    raise torch.OutOfMemoryError("no memory")


def test_the_table_shows_every_variant(measured):
    _, _, printed = measured
    assert (
        "0.0M parameters, 16 tokens a batch in rows of 16, float32, adamw, 8 rounds after 8"
        in printed
    )
    assert (
        "CPU time, one thread, torch 2" in printed
        and "rows saved in" in printed
        and "kernels: eager" in printed
    )
    assert all(
        any(line.startswith(name + " ") for line in printed.split("\n")) for name in VARIANTS
    )


def test_threads_come_back_even_after_an_error(monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(step, "measure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        step_table(Case(size="micro", tokens=16, pairs=1))
    assert threads == [1, torch.get_num_threads()]


def test_rows_need_a_place_that_can_hold_them_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "measure", lambda *_: pytest.fail("measured first"))
    with pytest.raises(ValueError, match=r"rows are saved as \.jsonl"):
        step_table(Case(size="micro"), tmp_path / "rows.csv")
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match="choose another output folder"):
        step_table(Case(size="micro"), tmp_path / "file" / "rows.jsonl")
    assert os.listdir(tmp_path) == ["file"]


def test_the_command_line_hands_every_option_over(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(step, "step_table", lambda case, json: seen.update(case=case, json=json))
    flags = [
        "--size",
        "7B",
        "--tokens",
        "64",
        "--length",
        "32",
        "--pairs",
        "3",
        "--minutes",
        "1.5",
        "--precision",
        "bfloat16",
        "--optimizer",
        "sgd",
        "--lora",
        "4",
        "--checkpointing",
        "--memory",
        "recompute",
        "--variants",
        "graddiff-two, ngdiff",
        "--json",
        str(tmp_path / "x.jsonl"),
    ]
    assert CliRunner().invoke(cli.app, ["bench", "step", *flags]).exit_code == 0
    assert seen["json"] == tmp_path / "x.jsonl"
    assert seen["case"] == Case("7B", 64, 32, 3, 1.5, "bfloat16", "sgd", 4, True, "recompute", TWO)


def test_a_variant_that_does_not_fit_is_a_row_and_the_others_go_on(monkeypatch, capsys):
    monkeypatch.setattr(variants, "naive", _full)
    rows = step_table(Case(size="micro", tokens=16, pairs=1, variants=(*TWO, "naive")))
    assert [row.get("outcome") for row in rows] == [None, None, "out of memory"]
    assert "time_ratio_naive" not in rows[1] and rows[1]["time_ratio_graddiff-two"] > 0
    assert re.search(r"^naive[ -]+out of memory$", capsys.readouterr().out, re.M)


def test_it_runs_without_packages_that_are_not_needed(tmp_path):
    """On a machine with torch, transformers, peft and accelerate only."""
    code = """
import runpy, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        gone = ("datasets", "rouge_score", "papermill", "scipy", "sklearn")
        gone += ("pandas", "pyarrow", "typer", "matplotlib")
        return None if name.split(".")[0] in gone else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
runpy.run_module("ngdiff.timing.step", run_name="__main__", alter_sys=True)
"""
    options = asdict(Case("1M", 16, pairs=1, lora=2, variants=TWO)) | {
        "json": str(tmp_path / "rows.jsonl"),
        "parent": os.getpid(),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(options)],
        capture_output=True,
        text=True,
        cwd=Path(step.__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert [row["variant"] for row in read_rows(tmp_path / "rows.jsonl")] == list(TWO)


def test_the_readme_shows_what_rows_have_and_a_dash_where_one_lacks_it(tmp_path, measured):
    folder = tmp_path / "data/results/bench"
    folder.mkdir(parents=True)
    rows = [row | {"size": "1M"} for row in measured[0]]
    old = {"precision", "mfu", "reads", "peak_extra_predicted_bytes"}
    write_rows(
        folder / "step_1M_16.jsonl",
        [{k: v for k, v in row.items() if k not in old} for row in rows],
    )
    head = costs.bench(tmp_path).split("\n")[0]
    assert head.startswith("| tokens | step |") and "host reads" not in head and "MFU" not in head
    failed = {
        **asdict(Case("7B", 4096, lora=16)),
        "variant": "all",
        "outcome": "no room",
        "stamp": rows[0]["stamp"],
    }
    write_rows(folder / "step_7B_4096.jsonl", [failed])
    write_rows(folder / "step_1M_16.jsonl", [row | {"mfu": 0.425} for row in rows])
    lines = costs.bench(tmp_path).split("\n")
    assert lines[0].endswith("| peak − graddiff-two, MB (predicted) | host reads | MFU |")
    assert lines[2].startswith("| 1M float32, adamw | 16 | graddiff-two | 1.000 |")
    assert lines[2].endswith("| 0 | 42% |")
    assert lines[2 + len(VARIANTS)].startswith("| 7B float32, LoRA 16 | 4096 | all: no room | – |")
    assert lines[-1].startswith("0.0M parameters, torch.float32, 8 rounds, ")
