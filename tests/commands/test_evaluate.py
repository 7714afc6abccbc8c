"""`ngdiff evaluate` from the command line: what it writes, and what it refuses before a model is
loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ngdiff.commands import evaluate as command
from ngdiff.commands.evaluate import Evaluation, run
from ngdiff.data.benchmark import Prompt, form_of
from ngdiff.data.made.authors import write as write_authors
from ngdiff.evaluation import Report, files
from ngdiff.lm.model import save
from ngdiff.score import score
from tests.helpers import micro


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, a reference and a few rows in TOFU's layout."""
    root = tmp_path_factory.mktemp("evaluate")
    save(micro.lm().copy(), root / "model")
    save(micro.reference().copy(), root / "reference")
    rows = root / "rows"
    rows.mkdir()
    b = micro.bench()
    for name, members in b.configs.items():
        (rows / f"{name}.json").write_text(
            "".join(json.dumps(row) + "\n" for row in members), "utf-8"
        )
    return root


def settings(folder: Path, **more) -> dict:
    return {
        "model": str(folder / "model"),
        "benchmark": "tofu",
        "data": str(folder / "rows"),
        "split": "forget10",
    } | more


def test_the_file_holds_metrics_items_and_a_stamp(folder, tmp_path):
    out = tmp_path / "out.json"
    found = run(
        Evaluation(
            **settings(folder, reference=str(folder / "reference"), json=out, max_new_tokens=8)
        )
    )
    content = json.loads(out.read_text("utf-8"))
    assert set(content) == {"metrics", "items", "meta", "stamp"} and content[
        "metrics"
    ] == pytest.approx(found)
    assert {"forget_quality", "model_utility", "privleak", "mia_reference", "mia_gradnorm"} <= set(
        found
    )
    assert set(content["items"]["forget_truth_ratio"]) == {str(i) for i in range(8)}
    assert (
        content["stamp"]["config"]["model"] == str(folder / "model")
        and content["stamp"]["packages"]["torch"]
    )
    again = Report.from_json(out)
    assert again.metrics == pytest.approx(found) and [p.name for p in tmp_path.iterdir()] == [
        "out.json"
    ]


def test_a_reference_is_a_model_or_its_report(folder, tmp_path):
    quick = {"generate": False, "gradnorm": False}
    run(
        Evaluation(
            **settings(folder, model=str(folder / "reference"), json=tmp_path / "ref.json", **quick)
        )
    )
    both = [
        run(Evaluation(**settings(folder, reference=str(r), **quick)))
        for r in (folder / "reference", tmp_path / "ref.json")
    ]
    assert both[0] == pytest.approx(both[1]) and "forget_quality" in both[0]
    with pytest.raises(
        ValueError, match="reference report .*json has convention 'ngdiff', this evaluation 'tofu'"
    ):
        run(
            Evaluation(
                **settings(folder, reference=str(tmp_path / "ref.json"), convention="tofu", **quick)
            )
        )
    content = json.loads((tmp_path / "ref.json").read_text())
    content["meta"] |= {"fingerprint": "0" * 64, "split": "forget05"}
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"other.json is of other rows \(tofu forget05; here tofu forget10\)"
    ):
        run(Evaluation(**settings(folder, reference=str(tmp_path / "other.json"), **quick)))


@pytest.mark.parametrize("convention", ["ngdiff", "tofu", "open-unlearning"])
def test_what_the_benchmarks_own_files_say_is_what_was_measured(folder, tmp_path, convention):
    """The report, its TOFU_EVAL.json and its eval_log_aggregated.json, scored again, to 1e-9."""
    place, shared = str(folder / "reference"), {"convention": convention, "max_new_tokens": 8}
    job = settings(folder, reference=place, files=tmp_path / "own", **shared)
    found = run(Evaluation(**job))
    run(Evaluation(**settings(folder, model=place, files=tmp_path / "ref", **shared)))
    names = {"TOFU_EVAL.json", "TOFU_SUMMARY.json", "eval_log_aggregated.json"}
    assert names <= {p.name for p in (tmp_path / "own").iterdir()}
    summary = json.loads((tmp_path / "own" / "TOFU_SUMMARY.json").read_text())
    assert summary == {
        k: pytest.approx(v, rel=1e-12) for k, v in found.items() if not k.startswith("loss_")
    }
    log, warnings = score(
        "tofu",
        tmp_path / "own" / "eval_log_aggregated.json",
        convention=convention,
        reference=tmp_path / "ref" / "eval_log_aggregated.json",
    )
    assert [line for line in warnings if "not tested" not in line] == []
    assert {"model_utility", "forget_quality", "wf_Truth_Ratio"} <= set(log)
    assert log == {name: pytest.approx(found[name], rel=1e-9, abs=1e-15) for name in log}
    if convention == "open-unlearning":
        values, warnings = score(
            "open-unlearning",
            tmp_path / "own" / "TOFU_EVAL.json",
            reference=tmp_path / "ref" / "TOFU_EVAL.json",
        )
        assert values == {k: pytest.approx(found[k], rel=1e-9, abs=1e-15) for k in values}
        assert {
            "privleak",
            "mia_min_k",
            "forget_quality",
            "model_utility",
            "exact_memorization",
        } <= set(values)


def test_layouts_are_the_benchmarks(folder):
    report = run_report(folder)
    whole, summary = files.open_unlearning(report)
    assert whole["forget_Q_A_Prob"]["value_by_index"][0].keys() == {"prob", "avg_loss"}
    assert whole["mia_loss"].keys() == {"agg_value", "forget", "holdout", "auc"} and list(
        summary
    ) == sorted(summary)
    assert not any(name.startswith("loss_") for name in summary)
    log = files.tofu_log(report)
    assert set(log) == set(files.LOGS.values())
    row = log["eval_log_forget.json"]
    assert row["gt_loss"][0] == pytest.approx(row["avg_gt_loss"][0] * row["num_token_gt"][0])
    assert len(row["average_perturb_loss"][0]) == 5 and len(row["generated_text"][0]) == 3
    assert (
        log["eval_real_author_wo_options.json"]["avg_paraphrased_loss"]
        == log["eval_real_author_wo_options.json"]["avg_gt_loss"]
    )


def run_report(folder: Path) -> Report:
    import ngdiff as ng

    return ng.evaluate(
        micro.lm(), micro.bench(), micro.reference(), progress=False, max_new_tokens=4
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"benchmark": "wmdp"}, "unknown benchmark 'wmdp': choose one of tofu, muse, semeval"),
        (
            {"convention": "paper"},
            "unknown convention 'paper': choose one of 'ngdiff', 'tofu', 'open-unlearning'",
        ),
        ({"convention": "semeval"}, "the convention 'semeval' is not defined for tofu"),
        ({"data": "/nowhere"}, "--data /nowhere: no such folder"),
        ({"prompt": "Question:"}, r"--prompt needs \{question\} once"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"max_new_tokens": 0}, "--max-new-tokens must be at least 1"),
        ({"mia": Path("mia")}, "--mia belongs to --benchmark semeval"),
        ({"data": "muse:hub"}, "names rows of MUSE, not of TOFU"),
        (
            {"benchmark": "muse", "data": "stand-in", "split": "books"},
            "--data stand-in has its own documents",
        ),
        (
            {"benchmark": "semeval", "files": Path("x"), "generate": False},
            "SemEval's files hold generations",
        ),
        ({"files": Path(__file__).parent}, "holds files already: choose a new folder"),
        ({"files": Path(__file__)}, "test_evaluate.py is a file: choose a new folder"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_at_once(folder, wrong, message):
    with pytest.raises((ValueError, OSError), match=message):
        Evaluation(**settings(folder, **wrong))


def test_places_that_cannot_be_are_refused_before_the_model(folder, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder: give the name of a file in it"):
        run(Evaluation(**settings(folder, model="nowhere", json=tmp_path)))
    with pytest.raises(ValueError, match="unknown device 'abacus': give auto, cpu"):
        run(Evaluation(**settings(folder, device="abacus")))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda': torch sees 0 CUDA devices here"):
            run(Evaluation(**settings(folder, device="cuda")))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_where_rows_are_damaged(folder, tmp_path):
    write_authors(tmp_path / "rows", "tiny")
    path = tmp_path / "rows" / "forget10_perturbed.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match=r"forget10_perturbed.json, line 96: not JSON"):
        run(Evaluation(**settings(folder, data=str(tmp_path / "rows"), json=tmp_path / "out.json")))
    assert not (tmp_path / "out.json").exists()


def test_a_prompt_of_ones_own(folder):
    assert form_of("Q: {question}\\nA: ") == Prompt("Q: ", "\n", "A: ") and form_of("") is None
    assert form_of("[INST] {question} [/INST]") == Prompt("[INST] ", " [/INST]", "")
    quick = {"generate": False, "gradnorm": False}
    plain, other = (
        run(Evaluation(**settings(folder, prompt=p, **quick))) for p in ("", "Q: {question}\\nA: ")
    )
    assert plain["forget_Q_A_Prob"] != other["forget_Q_A_Prob"]


def test_the_command_line(folder, tmp_path):
    out = tmp_path / "out.json"
    command = [
        sys.executable,
        "-m",
        "ngdiff",
        "evaluate",
        "--model",
        str(folder / "model"),
        "--benchmark",
        "tofu",
        "--data",
        str(folder / "rows"),
        "--split",
        "forget10",
        "--json",
        str(out),
        "--no-generate",
        "--no-gradnorm",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        "forget_Q_A_Prob" in done.stdout
        and json.loads(out.read_text())["metrics"]["exact_memorization"] >= 0
    )
    done = subprocess.run([*command, "--convention", "muse"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(
        "ngdiff: the convention 'muse' is not defined for tofu"
    )
    done = subprocess.run(
        [sys.executable, "-m", "ngdiff", "score", "tofu", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 2 and str(out) in done.stderr and "Traceback" not in done.stderr


def test_metrics_are_printed_as_a_table_or_as_strict_json(capsys, tmp_path):
    found = {"model_utility": 1 / 3, "privleak": float("inf")}
    job = Evaluation("model", "tofu", data="stand-in")
    command._print(found, job)
    assert json.loads(capsys.readouterr().out) == {
        "model_utility": 1 / 3,
        "privleak": {"infinite": 1},
    }
    command._print(found, replace(job, json=tmp_path / "out.json"))
    assert capsys.readouterr().out.splitlines() == [
        "metric         value",
        "model_utility  0.333333",
        "privleak       inf",
    ]
