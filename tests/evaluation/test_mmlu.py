"""MMLU: weighting by questions, what is said where it cannot run, and lm-eval itself where it is
installed.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from typer.testing import CliRunner

from ngdiff.commands.cli import app
from ngdiff.evaluation import mmlu
from ngdiff.lm.model import save
from tests.helpers import micro


@pytest.fixture
def harness(monkeypatch):
    """lm-eval's two entry points, as far as they are used: what is asked, and what is answered."""
    asked = SimpleNamespace()

    def simple_evaluate(**options):
        asked.options = options
        return {
            "results": {"mmlu_anatomy": {"acc,none": 0.5}, "mmlu_law": {"acc,none": 1.0}},
            "n-samples": {"mmlu_anatomy": {"effective": 6}, "mmlu_law": {"effective": 2}},
        }

    root, models, hf = (
        ModuleType("lm_eval"),
        ModuleType("lm_eval.models"),
        ModuleType("lm_eval.models.huggingface"),
    )
    root.simple_evaluate, hf.HFLM = simple_evaluate, lambda **options: options
    for name, module in (
        ("lm_eval", root),
        ("lm_eval.models", models),
        ("lm_eval.models.huggingface", hf),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(
        mmlu, "_tasks", lambda: [{"task": "mmlu_anatomy", "dataset_path": "cais/mmlu"}]
    )
    return asked


def test_every_question_counts_once(harness):
    found = mmlu.mmlu(micro.lm(), "FOLDER", shots=5)
    # of subjects it would be .75
    assert found["average_acc"] == pytest.approx((0.5 * 6 + 1.0 * 2) / 8)
    assert found["subjects"] == {"anatomy": {"acc": 0.5, "n": 6}, "law": {"acc": 1.0, "n": 2}}
    assert (
        harness.options["num_fewshot"] == 5
        and harness.options["tasks"][0]["dataset_path"] == "FOLDER"
    )


def test_questions_that_cannot_be_had(harness, monkeypatch):
    def refuse(**options):
        raise ConnectionError("offline\nand more")

    monkeypatch.setattr(sys.modules["lm_eval"], "simple_evaluate", refuse)
    with pytest.raises(
        ConnectionError,
        match=r"cannot get MMLU's questions from cais/mmlu \(offline\): connect to the hub",
    ):
        mmlu.mmlu(micro.lm())


def test_without_lm_eval(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ngdiff\[mmlu\]'"):
        mmlu.mmlu(micro.lm())


def test_the_evaluators_metrics_file(tmp_path):
    mmlu.write({"average_acc": 0.25, "subjects": {}}, tmp_path / "metrics.json")
    assert mmlu.read(tmp_path / "metrics.json") == 0.25
    for text, message in (
        ("{", "metrics.json holds no average_acc"),
        ('{"acc": 1}', "holds no average_acc"),
        ('{"average_acc": "0.3"}', "average_acc is '0.3', not a share between 0 and 1"),
        ('{"average_acc": 37.1}', "average_acc is 37.1, not a share between 0 and 1"),
    ):
        (tmp_path / "metrics.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            mmlu.read(tmp_path / "metrics.json")
    with pytest.raises(FileNotFoundError, match="--mmlu takes the metrics.json"):
        mmlu.read(tmp_path / "none.json")


def test_lm_eval_itself_on_questions_of_ours(tmp_path):
    """57 subjects of two questions each, in the hub's layout; skipped where the extra is not
    installed.
    """
    pytest.importorskip("lm_eval", reason="the extra ngdiff[mmlu] is not installed")
    names = [task["dataset_name"] for task in mmlu._tasks()]
    assert len(names) == 57
    card = ["---", "configs:"]
    for name in names:
        (tmp_path / name).mkdir()
        card.append(f"- config_name: {name}\n  data_files:")
        for split in ("test", "dev"):
            card.append(f"  - split: {split}\n    path: {name}/{split}.jsonl")
            rows = [
                {"question": f"q{i}", "choices": [*"abcd"], "answer": i, "subject": name}
                for i in range(2)
            ]
            (tmp_path / name / f"{split}.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in rows)
            )
    (tmp_path / "README.md").write_text("\n".join([*card, "---"]))
    found = mmlu.mmlu(micro.lm(), tmp_path, shots=1)
    assert sum(s["n"] for s in found["subjects"].values()) == 114 and 0 <= found["average_acc"] <= 1


def test_the_command_writes_what_evaluate_reads(harness, tmp_path):
    folder = save(micro.lm(), tmp_path / "model")
    command = [
        "mmlu",
        "--model",
        str(folder),
        "--json",
        str(tmp_path / "metrics.json"),
        "--data",
        "FOLDER",
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and done.stdout.startswith("0.6250 over 2 subjects"), done.output
    assert mmlu.read(tmp_path / "metrics.json") == 0.625
