"""Small inputs that once failed, from a folder that is not part of the project; skipped without it.

Tests of the same kinds, on inputs of their own, stand beside what they test.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ngdiff.book import sweep
from ngdiff.commands.evaluate import Evaluation, run
from ngdiff.data import files
from ngdiff.lm.model import save
from ngdiff.score import score
from tests.helpers import micro

ROOT = Path(__file__).resolve().parents[1]
CASES = Path(os.environ.get("NGDIFF_CASES", ROOT.parent / "shared" / "data" / "cases"))
pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason=f"no folder of cases at {CASES}; set NGDIFF_CASES to one"
)


def told(lines, *words):
    assert all(any(word in line for line in lines) for word in words), lines


def test_the_model_itself_as_its_reference():
    path = CASES / "b01_own_reference" / "TOFU_EVAL.json"
    values, lines = score("open-unlearning", path, reference=path)
    assert values["forget_quality"] == 1 and values["privleak"] == 0
    told(lines, "it is the same model or file", "against hold-out rows is 1 ")


def test_muses_own_results():
    values, _ = score("muse", CASES / "b08_muse_result_files")
    assert values["knowmem"] == 0.5 and values["mia_min_k"] == 1 and values["privleak"] == -100
    assert values["mia_min_k_retain"] == 0.48


def test_other_forms_of_tofus_log():
    folder = CASES / "b09_other_log_forms"
    new, old = (
        score("tofu", folder / ours, reference=folder / theirs)[0]
        for ours, theirs in (
            ("same_with_indices.json", "retain_with_indices.json"),
            ("first_form_lists.json", "retain_first_form_lists.json"),
        )
    )
    assert new == old
    phi = score("tofu", folder / "same_with_indices.json", reference=folder / PHI)
    told(phi[1], "the prompts differ")


PHI = "phi_prompts_same_rows.json"


def test_a_byte_order_mark(tmp_path):
    folder = CASES / "b14_bom"
    marked, plain = (
        score("semeval", folder / "semeval", mmlu=folder / name)
        for name in ("metrics_bom.json", "metrics.json")
    )
    assert marked[0] == plain[0]
    assert len(files.benchmark(folder / "forget_bom.jsonl", folder / "retain_bom.jsonl").full) == 8
    with pytest.raises(ValueError, match="written in UTF-16: save it as UTF-8"):
        files.read(folder / "forget_utf16.jsonl")
    grid = shutil.copy(folder / "grid_bom.toml", tmp_path)
    assert len(sweep.cells(Path(grid), ROOT / "notebooks" / "cell.py", ROOT)[0]) == 1


def test_other_scripts(tmp_path, capsys):
    model = save(micro.lm(), tmp_path / "model")
    data = CASES / "b20_other_scripts" / "tofu_zh"
    settings = {"data": str(data), "split": "forget01", "max_new_tokens": 2, "device": "cpu"}
    job = Evaluation(model=str(model), benchmark="tofu", json=tmp_path / "report.json", **settings)
    assert run(job)["forget_Q_A_ROUGE"] == 0
    written = (tmp_path / "report.json").read_text("utf-8")
    assert "20 of 20 true answers contain no word that ROUGE counts" in written


@pytest.mark.parametrize(
    ("name", "right"),
    [
        *((name, 6) for name in ("alpaca.json", "arrow", "columns.json", "forget.csv")),
        *((name, 6) for name in ("forget.parquet", "messages.jsonl", "sharegpt.jsonl")),
        *((name, 6) for name in ("text_null.jsonl", "wrapped.json")),
        ("answers_list.jsonl", "'answer' is list"),
        ("null_answer.jsonl", "no 'answer'"),
        ("numeric_answer.jsonl", "'answer' is int"),
        ("pointer.jsonl", "a pointer of git-lfs"),
        ("pointer.parquet", "a pointer of git-lfs"),
    ],
)
def test_other_files_of_rows(name, right):
    path = CASES / "b29_other_row_files" / name
    if isinstance(right, str):
        with pytest.raises(ValueError, match=right):
            files.read(path)
        return
    rows = files.read(path)
    assert rows == files.read(CASES / "b29_other_row_files" / "forget.csv") and len(rows) == right


def test_a_key_that_is_not_used():
    with pytest.warns(UserWarning, match=r"not used.*: context \(6\)"):
        assert len(files.read(CASES / "b29_other_row_files" / "context.jsonl")) == 6
