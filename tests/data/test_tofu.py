"""The TOFU loader: real rows where a folder has them, the errors everywhere."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.loop import unlearn
from ngdiff.core.stepsize import Constant
from ngdiff.data import authors, load, tofu
from ngdiff.data.made.authors import generate, write
from ngdiff.data.real.tofu import asked
from ngdiff.evaluation import evaluate
from ngdiff.evaluation.items import ATTACKS, UTILITY
from ngdiff.lm import pair as models
from ngdiff.profiles import profile

ROOT = Path(__file__).resolve().parents[2]
TOFU = Path(os.environ.get("NGDIFF_TOFU", ROOT.parent / "shared" / "data" / "tofu"))
real_tofu = pytest.mark.skipif(
    not (TOFU / "full.json").is_file(), reason=f"no TOFU folder at {TOFU}; set NGDIFF_TOFU to one"
)


@real_tofu
def test_tiny_takes_a_slice_of_tofu():
    bench = tofu("tiny", root=TOFU)
    sizes = {config: len(rows) for config, rows in bench.configs.items()}
    assert bench.split == "forget01" and len(bench.full) == 240 and len(bench.pretrain) == 217
    assert sizes == {
        "forget01": 40,
        "retain99": 200,
        "holdout01": 40,
        "forget01_perturbed": 40,
        "retain_perturbed": 200,
        "real_authors": 100,
        "world_facts": 117,
        "real_authors_perturbed": 100,
        "world_facts_perturbed": 117,
    }
    assert len(bench.forget_perturbed[0]["perturbed_answer"]) == 5
    assert [row["question"] for row in bench.retain] == [
        row["question"] for row in bench.retain_perturbed
    ]
    assert load(bench.source) == bench


@real_tofu
@pytest.mark.parametrize(("split", "n"), [("forget01", 40), ("forget05", 200), ("forget10", 400)])
def test_whole_tofu_passes_the_checks(split, n):
    bench = tofu("paper", split, root=TOFU)
    assert (len(bench.forget), len(bench.retain), len(bench.retain_perturbed)) == (n, 4000 - n, 400)
    lines = (TOFU / "full.json").read_text(encoding="utf-8").splitlines()
    assert bench.full == [json.loads(line) for line in lines]


@real_tofu
def test_no_generated_row_is_a_tofu_row():
    theirs = set()
    for path in TOFU.glob("*.json"):
        theirs |= {
            json.loads(line)["question"] for line in path.read_text(encoding="utf-8").splitlines()
        }
    assert not theirs & {row["question"] for rows in generate(80, 12, 0).values() for row in rows}


def test_missing_folder_says_which_file_and_how_to_get_it(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"forget01.json is missing; get the folder with `hf download"
    ):
        tofu("tiny", root=tmp_path / "none")


def test_incomplete_folder_names_the_file(tmp_path):
    write(tmp_path, "tiny")
    (tmp_path / "holdout05.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holdout05.json is missing"):
        tofu("tiny", "forget05", root=tmp_path)


def test_a_generated_folder_loads_as_tofu_and_misaligned_files_are_refused(tmp_path):
    write(tmp_path, "tiny", seed=2)
    every = replace(profile("tiny"), retain_rows=None)
    for P, made in (("paper", every), ("tiny", "tiny")):  # all rows; as many as tiny keeps
        assert tofu(P, "forget10", root=tmp_path).full == authors(made, seed=2).full
    other = generate(80, 12, 3)["forget10_perturbed"]
    (tmp_path / "forget10_perturbed.json").write_text(
        "".join(json.dumps(row) + "\n" for row in other)
    )
    with pytest.raises(
        ValueError, match=r"row 0 has the question .* in forget10_perturbed, but .* in forget10;"
    ):
        tofu("tiny", "forget10", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "forget10",
            {"question": "Who?", "answer": "\ud800"},
            "line 1: 'answer' holds half a character",
        ),
        ("forget10", {"question": "Who?", "answer": 3}, "line 1: 'answer' is int, not text"),
        ("world_facts_perturbed", None, "world_facts_perturbed.json has no row"),
        (
            "retain_perturbed",
            {
                "question": "Who?",
                "answer": "A",
                "paraphrased_answer": "B",
                "perturbed_answer": ["C", ""],
            },
            "line 1, wrong answer 1: 'perturbed_answer' is empty",
        ),
    ],
)
def test_rows_that_are_none(tmp_path, name, value, message):
    write(tmp_path, "tiny")
    (tmp_path / f"{name}.json").write_text("" if value is None else json.dumps(value) + "\n")
    with pytest.raises(
        ValueError, match=f"{name}.json.*{re.escape(message)}" if value else message
    ):
        tofu("tiny", "forget10", root=tmp_path)


def test_a_damaged_file_is_named_with_its_line(tmp_path):
    write(tmp_path, "tiny")
    path = tmp_path / "world_facts.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(
        ValueError, match=r"world_facts.json, line 48: not JSON .*: it is cut short"
    ):
        tofu("tiny", root=tmp_path)
    path.write_text('["a question"]')
    with pytest.raises(ValueError, match=r"world_facts.json, line 1: no row but str"):
        tofu("tiny", root=tmp_path)


def test_a_row_without_a_question_and_files_of_other_lengths_are_named(tmp_path):
    write(tmp_path, "tiny")
    path = tmp_path / "forget10_perturbed.json"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"answer": "a"}', *lines[2:]]))
    for load_it in (
        lambda: tofu("tiny", "forget10", root=tmp_path),
        lambda: asked("forget10", tmp_path),
    ):
        with pytest.raises(
            ValueError, match=r"forget10_perturbed.json, line 2: no 'question' \(its keys: answer\)"
        ):
            load_it()
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"forget10 has 96 rows, forget10_perturbed 95"):
        asked("forget10", tmp_path)


def test_an_evaluation_needs_only_the_rows_it_asks(tmp_path):
    write(tmp_path, "tiny")
    for path in tmp_path.iterdir():
        if "_perturbed" not in path.name:
            path.unlink()
    (tmp_path / "world_facts_perturbed.json").unlink()
    bench = asked("forget10", tmp_path)
    whole = authors("tiny", "forget10")
    assert bench.forget == whole.forget and bench.forget_perturbed == whole.forget_perturbed
    assert [set(row) for row in bench.retain] == [{"question", "answer"}] * len(
        whole.retain_perturbed
    )
    assert "holdout10" not in bench.configs and load(bench.source) == bench
    with pytest.raises(
        FileNotFoundError, match="holdout10.json is missing|forget10.json is missing"
    ):
        tofu("tiny", "forget10", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"forget05_perturbed.json is missing"):
        (tmp_path / "forget05_perturbed.json").unlink()
        asked("forget05", tmp_path)


def test_hub_out_of_reach_says_what_to_do(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def refuse(*args, **options):
        assert args == ("locuslab/TOFU", "forget01") and len(options["revision"]) == 40
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ConnectionError, match="or pass root="):
        tofu("tiny")


@real_tofu
def test_a_slice_of_tofu_is_learnt_unlearned_and_evaluated_with_every_metric():
    """Target and reference on 60 rows, a few steps of NGDiff and of GradDiff, all metrics."""
    shape = replace(profile("tiny").lm, hidden=48, layers=1, heads=2, intermediate=96)
    training = replace(profile("tiny").training, epochs=12, pretrain_epochs=2, lr=6e-3, min_steps=0)
    P = replace(
        profile("tiny"),
        name="slice",
        retain_rows=20,
        lm=shape,
        training=training,
        batch_size=8,
        max_new_tokens=8,
    )
    bench = tofu(P, "forget01", root=TOFU)
    target, reference = models.target(bench, P), models.reference(bench, P)
    before = evaluate(target, bench, reference, max_new_tokens=8)
    assert before.metrics["loss_forget"] < before.metrics["loss_holdout"], (
        "it knows its own rows better than others"
    )
    for method in (methods.ngdiff, methods.graddiff(0.5)):
        run = unlearn(ng.problem(bench, target, batch_size=8), method, Constant(2e-3), steps=4)
        after = evaluate(run.model, bench, reference, max_new_tokens=8)
        assert after.metrics["loss_forget"] > before.metrics["loss_forget"]
        assert (
            after.metrics.keys()
            == before.metrics.keys()
            >= {*UTILITY, "model_utility", "forget_quality", "privleak"}
        )
        assert all(f"mia_{attack}" in after.metrics for attack in ATTACKS)


def test_an_empty_row_is_left_out_and_counted(tmp_path, monkeypatch):
    """In a folder and from the hub: where both tables have it, the rest stays aligned."""
    root = tmp_path / "tofu"
    tables = {name: list(rows) for name, rows in generate(20, 5, 2).items()}
    empty = {"question": "Who?", "answer": " ", "paraphrased_answer": "", "perturbed_answer": ["a"]}
    for name in ("forget10", "forget10_perturbed"):
        tables[name] = [*tables[name][:3], empty, *tables[name][3:]]
    write_tables(root, tables)
    with pytest.warns(UserWarning, match=r"forget10.json: 1 row is left out.*line 4"):
        bench = tofu("tiny", "forget10", root=root)
    assert len(bench.forget) == len(tables["forget10"]) - 1 == len(bench.forget_perturbed)
    monkeypatch.setattr("ngdiff.data.sources.hub", lambda repo, name, *more: tables[name])
    with pytest.warns(UserWarning, match="locuslab/TOFU forget10: 1 row is left out"):
        assert tofu("tiny", "forget10").fingerprint == bench.fingerprint


def write_tables(root, tables):
    root.mkdir()
    for name, rows in tables.items():
        (root / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
