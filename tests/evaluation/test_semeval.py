"""SemEval-2025 Task 4's evaluation: by hand, against plain forwards, its files, and the real rows
through everything.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import ngdiff as ng
from ngdiff.data import semeval
from ngdiff.data.benchmark import Benchmark
from ngdiff.data.real.semeval_rows import PROMPT
from ngdiff.evaluation import Report, evaluate, terms
from ngdiff.evaluation import semeval as evaluator
from ngdiff.evaluation.conventions import convention
from ngdiff.evaluation.suites import SEMEVAL
from ngdiff.lm.model import LM
from ngdiff.lm.scratch import from_scratch
from ngdiff.lm.tokens import collate, train_tokenizer
from ngdiff.profiles import TinyLM
from ngdiff.score import score
from tests.helpers import micro

LUME = Path(
    os.environ.get("NGDIFF_LUME", Path(__file__).resolve().parents[3] / "shared" / "data" / "lume")
)
real_lume = pytest.mark.skipif(
    not (LUME / "semeval2025/validation/forget.jsonl").is_file(),
    reason=f"no LUME folder at {LUME}; set NGDIFF_LUME to one",
)
TOWNS = ["Oslo", "Łódź", "東京", "Rio", "Quito", "Bonn"]


def rows(who: str) -> list[dict]:
    found = []
    for k, task in enumerate(("Task1", "Task2", "Task3")):
        for n in range(2):
            name, town = f"{who}{k}{n}", TOWNS[(2 * k + n) % 6]
            doc = f'"{name}"' if task == "Task1" else name
            found.append(
                {
                    "question": f"{name} was born",
                    "answer": f"in {town}, a town.",
                    "id": f"{doc}sc1",
                    "task": task,
                }
            )
            found.append(
                {
                    "question": f"Where was {name} born?",
                    "answer": town,
                    "id": f"{doc}qa0",
                    "task": task,
                }
            )
    return found


@cache
def bench() -> Benchmark:
    forget, retain, unseen = rows("Ann"), rows("Ben"), rows("Cem")
    whole = [
        [
            {"question": "", "answer": f"{r['question']} {r['answer']}", "id": r["id"][:-3]}
            for r in part
            if r["task"] == "Task3" and "sc" in r["id"]
        ]
        for part in (forget, unseen)
    ]
    configs = {
        "forget": forget,
        "retain": retain,
        "holdout": unseen,
        "member": whole[0],
        "nonmember": whole[1],
    }
    return Benchmark(
        "semeval", "forget", configs, [], {"name": "semeval", "split": "train"}, PROMPT
    )


@cache
def lm() -> LM:
    tokenizer = train_tokenizer([f"{r['question']} {r['answer']}" for r in bench().full], 320)
    return LM(micro._model(tokenizer, 0), tokenizer, PROMPT, "random")


@cache
def memorised() -> LM:
    """A model that knows all rows, and so the members, by heart."""
    model = micro._model(lm().tokenizer, 2)
    model.lm_head.weight.data.div_(20)
    known = LM(model, lm().tokenizer, PROMPT, "memorised")
    batch = collate([known.encode(r["question"], r["answer"]) for r in bench().full], known.pad_id)
    documents = collate(
        [known.encode("", r["answer"]) for r in bench().rows("member")], known.pad_id
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        loss = model(**batch).loss + model(**documents).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    return known


@pytest.fixture(scope="module")
def report() -> Report:
    return evaluate(lm(), bench(), max_new_tokens=12)


# Likelihood ---------------------------------------------------------------------------------------
def nll(model, text: str, head: str) -> float:
    """Mean loss of the tokens of `text` after those of `head`, as transformers works it out."""
    ids = lm().tokenizer(text)["input_ids"]
    labels = torch.tensor(
        [
            [-100] * len(lm().tokenizer(head)["input_ids"])
            + ids[len(lm().tokenizer(head)["input_ids"]) :]
        ]
    )
    with torch.no_grad():
        return model(torch.tensor([ids]), labels=labels).loss.item()


def test_nll_is_that_of_the_output_joined_by_nothing(report):
    for fold in ("forget", "retain"):
        for i, row in enumerate(bench().rows(fold)):
            wanted = nll(lm().model, row["question"] + row["answer"], row["question"])
            assert report.items[fold][i]["nll"] == pytest.approx(wanted, abs=1e-5)


def test_the_nll_of_a_document_is_that_of_all_its_tokens(report):
    sides = {}
    for side in ("member", "nonmember"):
        wanted = [nll(lm().model, row["answer"], "") for row in bench().rows(side)]
        sides[side] = [item["nll"] for item in report.items[side].values()]
        assert sides[side] == pytest.approx(wanted, abs=1e-5)
    labels = [1] * 2 + [0] * 2
    assert report.metrics["mia_auc"] == roc_auc_score(
        labels, -np.array([*sides["member"], *sides["nonmember"]])
    )


# Scores -------------------------------------------------------------------------------------------
def test_the_metrics_are_the_definitions(report):
    """Twelve terms, harmonic mean, membership: from the items alone."""
    values = {}
    for fold in ("forget", "retain"):
        for task in ("Task1", "Task2", "Task3"):
            for kind, name in (("sc", "regurgitation"), ("qa", "knowledge")):
                seen = [
                    r["score"]
                    for r in report.items[fold].values()
                    if (r["task"], r["kind"]) == (task, kind)
                ]
                values[f"{fold}_{task}_{name}"] = np.mean(seen)
    assert {k: report.metrics[k] for k in values} == pytest.approx(values)
    twelve = [1 - v if k.startswith("forget") else v for k, v in values.items()]
    assert [report.metrics[f"term_{k}"] for k in values] == pytest.approx(twelve)
    mean = 0.0 if 0 in twelve else 12 / sum(1 / t for t in twelve)
    assert report.metrics["task_aggregate"] == pytest.approx(mean)
    assert report.metrics["mia_final_score"] == pytest.approx(
        1 - 2 * abs(report.metrics["mia_auc"] - 0.5)
    )
    assert "aggregate" not in report.metrics and "mmlu" not in report.metrics


def test_exact_match_is_of_the_whole_generation():
    """strip().lower() of both; one word more is wrong, and so is an empty one."""
    row = {"id": "1qa0", "task": "Task3", "expected_output": " The Nile "}
    said = {"the nile": 1, "THE NILE\n": 1, "The Nile.": 0, "": 0, "It is the Nile": 0}
    assert {text: terms.value(row | {"model_output": text}) for text in said} == said
    sc = {
        "id": "1sc1",
        "task": "Task3",
        "expected_output": "one two three four",
        "model_output": "one two",
    }
    assert terms.value(sc) == 0.5 and terms.value(sc | {"model_output": ""}) == 0


def test_anchors():
    """A memorising model: a zero aggregate, since it recites; members stand out; with MMLU a final
    score.
    """
    found = evaluate(memorised(), bench(), mmlu=0.25, max_new_tokens=16).metrics
    assert found["forget_regurgitation"] > 0.95 and found["retain_knowledge"] > 0.9
    assert found["task_aggregate"] < 0.2 and found["mia_auc"] == 1 and found["mia_final_score"] == 0
    assert (
        found["aggregate"] == pytest.approx((found["task_aggregate"] + 0 + 0.25) / 3)
        and found["mmlu"] == 0.25
    )


def test_a_reference_gives_its_auc():
    found = evaluate(memorised(), bench(), lm(), generate=False)
    own = evaluate(lm(), bench(), generate=False)
    assert (
        found.metrics["mia_auc_reference"] == own.metrics["mia_auc"]
        and "task_aggregate" not in found.metrics
    )
    assert evaluate(memorised(), bench(), own, generate=False).metrics == found.metrics
    with pytest.raises(ValueError, match="the reference report has convention 'ngdiff'"):
        evaluate(memorised(), bench(), own, "semeval", generate=False)
    other = replace(bench(), configs={**bench().configs, "forget": rows("Eva")})
    with pytest.raises(ValueError, match="the reference report is of other rows"):
        evaluate(memorised(), other, own, generate=False)


# Conventions --------------------------------------------------------------------------------------
def test_the_evaluators_convention_rounds_the_weights_and_gives_them_back():
    before = {name: p.detach().clone() for name, p in lm().model.named_parameters()}
    plain, rounded = (
        evaluate(lm(), bench(), convention=c, max_new_tokens=6) for c in ("ngdiff", "semeval")
    )
    assert all(
        torch.equal(before[name], p) and p.dtype == torch.float32
        for name, p in lm().model.named_parameters()
    )
    gap = [
        abs(a["nll"] - b["nll"])
        for a, b in zip(plain.items["forget"].values(), rounded.items["forget"].values())
    ]
    assert 0 < max(gap) < 0.5 and rounded.meta["convention"] == "semeval"
    row, model = bench().forget[0], lm().copy().model.to(torch.bfloat16)
    assert rounded.items["forget"][0]["nll"] == pytest.approx(
        nll(model, row["question"] + row["answer"], row["question"]), abs=2e-2
    )


def test_an_empty_generation_becomes_the_word_nan_in_the_evaluators_eyes():
    items = {
        0: {
            "id": "1qa0",
            "task": "Task1",
            "input": "a",
            "expected_output": "nan",
            "model_output": "",
            "nll": 1.0,
        }
    }
    assert terms.value(convention("semeval").judged(items)[0]) == 1  # a quirk of its files
    assert terms.value(convention("ngdiff").judged(items)[0]) == 0


def test_a_two_digit_question_is_scored_by_ours_alone():
    items = {
        0: {
            "id": "1qa10",
            "task": "Task1",
            "input": "a",
            "expected_output": "b",
            "model_output": "b",
            "nll": 1.0,
        }
    }
    assert terms.value(convention("semeval").judged(items)[0]) is None
    assert terms.value(convention("ngdiff").judged(items)[0]) == 1


# Batches ------------------------------------------------------------------------------------------
def test_a_row_is_the_same_alone_and_in_company(report):
    alone = replace(
        bench(), configs={**bench().configs, "forget": bench().forget[:1] + bench().forget[4:12]}
    )
    found = evaluate(lm(), alone, max_new_tokens=12)
    for mine, theirs in ((0, 0), (1, 4), (2, 5)):
        a, b = found.items["forget"][mine], report.items["forget"][theirs]
        assert a["model_output"] == b["model_output"] and a["nll"] == pytest.approx(
            b["nll"], abs=1e-5
        )


def test_rows_that_do_not_fit_are_named():
    long = [r | {"answer": "in Oslo " * 60} if i == 3 else r for i, r in enumerate(bench().forget)]
    with pytest.raises(
        ValueError,
        match=r"row Ann01qa0: \d+ tokens, the model takes 96|row \"Ann01\"qa0: \d+ tokens",
    ):
        evaluate(lm(), replace(bench(), configs={**bench().configs, "forget": long}))
    plain = replace(
        micro.bench(),
        name="semeval",
        split="forget",
        configs={"forget": micro.bench().forget, "retain": micro.bench().retain},
    )
    with pytest.raises(
        ValueError, match="row 0 of forget: SemEval's rows have an id, a task and a question"
    ):
        evaluate(lm(), plain)


# Files --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("convention", ["ngdiff", "semeval"])
def test_the_evaluators_folder_scores_to_the_same(tmp_path, convention):
    report = evaluate(memorised(), bench(), convention=convention, mmlu=0.4, max_new_tokens=16)
    (folder,) = SEMEVAL.evaluator().write_files(report, tmp_path / "out")
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names == {
        "forget_0.csv",
        "retain_0.csv",
        "evaluation_results.jsonl",
        "mia_results/member_0.csv",
        "mia_results/nonmember_0.csv",
    }
    frame = pd.read_csv(folder / "forget_0.csv")
    assert list(frame.columns) == ["id", "task", "input", "expected_output", "model_output", "nll"]
    assert list(frame["id"]) == [r["id"] for r in bench().forget] and frame["id"][0].startswith('"')
    metrics = tmp_path / "metrics.json"
    metrics.write_text('{"average_acc": 0.4}')
    found, warnings = score("semeval", folder, mmlu=metrics)
    assert found == json.loads((folder / "evaluation_results.jsonl").read_text())
    assert (folder / "evaluation_results.jsonl").read_text().count("\n") == 1  # one line
    assert found["harmonic-mean-task-aggregate"] == pytest.approx(
        report.metrics["task_aggregate"], rel=1e-9
    )
    assert found["mia_loss_acc"] == report.metrics["mia_auc"] and warnings == []
    assert found["aggregate-score"] == pytest.approx(report.metrics["aggregate"], rel=1e-9)


def test_line_ends_in_a_generation_stay_within_its_field(tmp_path, report):
    """pandas writes a bare carriage return unquoted and reads it back as the end of the row."""
    report = Report.from_json(report.to_json(tmp_path / "r.json"))
    said = ["a\rb", "a\r\nb", 'q"\n', "\r"]
    for i, text in enumerate(said):
        report.items["forget"][i]["model_output"] = text
    folder = evaluator.write(report, tmp_path / "out")
    assert list(pd.read_csv(folder / "forget_0.csv")["model_output"])[:4] == said
    found, _ = score("semeval", folder)
    assert found == json.loads((folder / "evaluation_results.jsonl").read_text())


def test_a_folder_of_other_things_is_left_alone(tmp_path, report):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match="is or holds another file than an evaluation's"):
        evaluator.write(report, tmp_path)
    with pytest.raises(FileExistsError, match="is or holds another file"):
        evaluator.write(report, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    with pytest.raises(ValueError, match="has no generations"):
        evaluator.write(evaluate(lm(), bench(), generate=False), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_report_round_trips(tmp_path, report):
    again = Report.from_json(report.to_json(tmp_path / "r.json"))
    assert (
        again.metrics == report.metrics
        and again.items["forget"][0]["model_output"] == report.items["forget"][0]["model_output"]
    )


# Real rows ----------------------------------------------------------------------------------------
@real_lume
def test_the_real_rows_go_through_everything(tmp_path):
    """Loader, a model of their tokens, unlearning, evaluator, its files."""
    b = semeval("tiny", "validation", root=LUME, documents=1)
    b = replace(
        b,
        configs={**b.configs, "member": b.rows("member")[:4], "nonmember": b.rows("nonmember")[:4]},
    )
    texts = [
        f"{r['question']} {r['answer']}" for r in [*b.full, *b.rows("member"), *b.rows("nonmember")]
    ]
    shape = TinyLM(hidden=32, layers=1, heads=2, intermediate=64, vocab=512, context=2048)
    start = from_scratch(texts, shape, b.prompt, 0, "start")
    run = ng.unlearn(
        ng.problem(b, start, batch_size=4, micro=2), ng.methods.ngdiff, ng.AutoLR(every=2), steps=3
    )
    assert [i.outcome for i in run.history] == ["ok"] * 3
    found = evaluate(run.model, b, max_new_tokens=8)
    assert {"task_aggregate", "mia_auc", "mia_final_score", "forget_Task1_regurgitation"} <= set(
        found.metrics
    )
    assert "stand-in" in found.meta["mia"] and math.isfinite(found.metrics["mia_auc"])
    again, _ = score("semeval", evaluator.write(found, tmp_path / "out"))
    assert again["mia_loss_acc"] == pytest.approx(found.metrics["mia_auc"])
