"""Each end of a run has its own word and exit status; one that says the rows is no success."""

from __future__ import annotations

import json
import math
import re
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from ngdiff.commands import cli
from ngdiff.commands.outcome import STATUS, Bounds, judge, kept
from ngdiff.commands.sample import SIZE, measure, placed, recall, sampled, verbatim
from ngdiff.data.benchmark import Benchmark
from ngdiff.lm.tokens import encode
from ngdiff.store.code import HOME
from tests.helpers import micro, own_model
from tests.helpers.own_model import go


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return own_model.folder(tmp_path_factory.mktemp("given"))


def ended(out):
    row = json.loads((out / "run.json").read_text())
    return row["verdict"], row["status"], row["stopped"]


# ------------------------------------------------------------------------------------- on a command
def test_a_run_that_stops_at_the_level_and_still_says_the_rows(given, tmp_path):
    result = go(given, tmp_path / "out", "--stop-level=0.05", "--retain-bound=0")
    assert ended(tmp_path / "out") == ("still said", 4, "forget_level") and result.exit_code == 4
    row = json.loads((tmp_path / "out/run.json").read_text())
    said = row["after"]["forget"]["verbatim"]
    assert said > 0 and f"still said: {said} of 8 forget answers are said" in result.output


def test_a_run_that_does_not_reach_its_level(given, tmp_path):
    result = go(given, tmp_path / "out", "--stop-level=9", "--steps=2", "--forget-bound=1")
    assert ended(tmp_path / "out") == ("level not reached", 3, "steps") and result.exit_code == 3


def test_a_run_that_loses_the_rows_to_keep(given, tmp_path):
    """Gradient ascent on the forget rows alone, to a level at which nothing is left."""
    more = ("--method=gradascent", "--stepsize=constant", "--lr=0.02", "--stop-level=12")
    loose = (*more, "--forget-bound=1", "--retain-bound=0")
    assert go(given, tmp_path / "loose", *loose).exit_code == 0
    result = go(given, tmp_path / "out", *more, "--forget-bound=1", "--retain-bound=0.9")
    assert ended(tmp_path / "out") == ("retain lost", 5, "forget_level") and result.exit_code == 5
    assert "less than 90%" in result.output


def test_a_run_that_makes_no_update(given, tmp_path):
    result = go(given, tmp_path / "out", "--stop-level=1e-6", "--forget-bound=1")
    assert ended(tmp_path / "out") == ("unchanged", 8, "forget_level") and result.exit_code == 8


def test_what_was_measured_is_printed_and_saved(given, tmp_path):
    result = go(given, tmp_path / "out", f"--holdout={given / 'holdout.jsonl'}", "--steps=1")
    row = json.loads((tmp_path / "out/run.json").read_text())
    for when in ("before", "after"):
        assert list(row[when]) == ["forget", "retain", "holdout"]
        assert [one["rows"] for one in row[when].values()] == [8, 3, 8]
    assert row["before"]["forget"]["loss"] < 0.02 < row["before"]["holdout"]["loss"]
    first = row["before"]["forget"]["answers"][0]
    assert first["said"] == first["answer"] != "" and first["question"] in result.output
    assert "said verbatim before" in result.output and result.output.count("In Oslo.") > 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("prompt: ") and lines[-1] == f"{row['verdict']}: {row['why']}"


def test_bounds_are_shares(given, tmp_path):
    for name in ("forget-bound", "retain-bound"):
        said = str(go(given, tmp_path / "out", f"--{name}=1.5").exception)
        assert f"--{name} is a share from 0 to 1, got 1.5" in said


def test_bounds_do_not_make_another_run(given, tmp_path):
    go(given, tmp_path / "out", "--steps=1")
    again = go(given, tmp_path / "out", "--steps=1", "--retain-bound=0.5")
    assert again.exit_code == 0 and "holds this run, finished: nothing is done" in again.output
    assert "by the bounds of then" in again.output


# ---------------------------------------------------------------------------------------- its parts
def numbers(verbatim: int, rouge: float | None, loss: float = 1.0, rows: int = 10) -> dict:
    found = {"rows": rows, "verbatim": verbatim, "rouge": rouge, "rouge_sd": 0.05}
    return found | {"loss": loss, "row_loss": loss, "row_loss_sd": 0.1}


BEFORE = {
    "forget": numbers(10, 1.0, 0.1),
    "retain": numbers(10, 1.0, 0.1),
    "holdout": numbers(0, 0.3, 2.0),
}


@pytest.mark.parametrize(
    ("stopped", "level", "forget", "retain", "word"),
    [
        ("forget_level", 2.0, 0, 10, "forgotten"),
        ("steps", None, 0, 10, "forgotten"),
        ("steps", None, 1, 10, "forgotten"),
        ("forget_level", 2.0, 2, 10, "still said"),
        ("steps", None, 2, 10, "still said"),
        ("steps", 2.0, 0, 10, "level not reached"),
        ("aligned", 2.0, 0, 10, "level not reached"),
        ("forget_level", 2.0, 0, 8, "retain lost"),
        ("nonfinite", 2.0, 0, 0, "broken"),
    ],
)
def test_the_verdict(stopped, level, forget, retain, word):
    after = {"forget": numbers(forget, 0.2), "retain": numbers(retain, 1.0)}
    verdict = judge(stopped, level, BEFORE, after, Bounds(), 5)
    assert verdict.word == word and verdict.status == STATUS[word]


WITHOUT = {name: BEFORE[name] for name in ("forget", "retain")}


@pytest.mark.parametrize("sets", [BEFORE, WITHOUT])
@pytest.mark.parametrize(
    ("verbatim", "rouge"), [(10, 1.0), (0, 0.9), (0, 0.55), (1, 0.55), (0, 0.45), (0, 0.3), (0, 0)]
)
def test_a_run_that_changes_nothing_is_never_a_success(sets, verbatim, rouge):
    before = sets | {"forget": numbers(verbatim, rouge, 0.1)}
    assert judge("forget_level", 1.0, before, before, Bounds(), 5).status != 0


@pytest.mark.parametrize(
    ("sets", "rouge", "word"),
    [
        (BEFORE, 0.3, "forgotten"),
        (BEFORE, 0.55, "forgotten"),  # half of what it was, and a tenth of the rows may be said
        (BEFORE, 0.65, "still said"),
        (BEFORE, None, "still said"),
        (WITHOUT, 0.55, "forgotten"),
        (WITHOUT, 0.6, "still said"),
        (BEFORE | {"holdout": numbers(0, 0.7, 2.0)}, 0.72, "forgotten"),  # as of rows never seen
        (BEFORE | {"holdout": numbers(0, 0.7, 2.0)}, 0.9, "still said"),
    ],
)
def test_answers_that_are_nearly_said_are_not_forgotten(sets, rouge, word):
    after = {"forget": numbers(0, rouge), "retain": BEFORE["retain"]}
    assert judge("forget_level", 2.0, sets, after, Bounds(), 5).word == word


def test_a_level_that_is_reached_before_any_update():
    after = {"forget": numbers(0, 0.2), "retain": BEFORE["retain"]}
    verdict = judge("forget_level", 0.1, BEFORE, after, Bounds(), 0)
    assert verdict.word == "unchanged" and verdict.status not in (0, 1, 2)


@pytest.mark.parametrize(
    ("forget", "word"), [(0, "forgotten"), (17, "forgotten"), (22, "still said")]
)
def test_hold_out_answers_are_said_by_chance_too(forget, word):
    """12 of 64 are: 8.5 more are two standard errors of the difference."""
    before = {name: numbers(48, 0.9, 0.1, 64) for name in ("forget", "retain")}
    before["holdout"] = numbers(12, 0.3, 2.0, 64)
    after = {"forget": numbers(forget, 0.3, rows=64), "retain": before["retain"]}
    assert judge("forget_level", 2.0, before, after, Bounds(), 5).word == word


def test_every_verdict_has_its_own_status():
    assert len(set(STATUS.values())) == len(STATUS) and 2 not in STATUS.values()
    assert [word for word, status in STATUS.items() if status == 0] == ["forgotten"]


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (numbers(10, 1.0), numbers(7, 0.9), 0.7),  # another town in the same sentence
        (numbers(10, 0.8), numbers(10, 0.4), 0.5),
        (numbers(2, 0.5), numbers(0, 0.4), 0.8),  # two answers are too few to count
        (numbers(0, 0.0, 1.0), numbers(0, 0.0, 1.0), 1.0),  # nothing is said: the loss counts
        (numbers(0, 0.0, 1.0), numbers(0, 0.0, 9.0), math.exp(-8)),
        (numbers(0, 0.0, 1.0), numbers(0, 0.0, 0.5), 1.0),
        (numbers(0, 0.0, 1.0), numbers(0, 0.0, math.inf), 0.0),
        (numbers(0, 0.0, 1.0), numbers(0, 0.0, None), math.nan),
    ],
)
def test_what_is_kept_of_the_retain_rows(before, after, wanted):
    left = kept({"retain": before}, {"retain": after})
    assert left == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize(
    ("said", "answer", "wanted"),
    [
        ("In Oslo.", "In Oslo.", True),
        ("in  OSLO it is", "In Oslo.", True),
        ("Well, in Oslo", "In Oslo.", False),  # so short an answer is there by chance
        ("Well, in New Oslo", "In New Oslo.", True),
        ("In New Oslo", "In Oslo", False),
        ("Norway", "No", False),
        ("In 東京。", "In 東京.", True),
        ("?!", "?!", True),
        ("", "", False),
        ("anything", "", False),
        ("奥斯陆是挪威的首都。", "奥斯陆", True),
        ("他住在奥斯陆。", "奥斯陆", True),
        ("他住在东京。", "他住在奥斯陆。", False),
        ("Она живёт в Осло.", "она живёт в осло", True),
        ("Она живёт в Риге.", "Она живёт в Осло.", False),
        ("की", "का", False),  # they differ in a mark
    ],
)
def test_verbatim(said, answer, wanted):
    assert verbatim(said, answer) == wanted


@pytest.mark.parametrize(
    ("said", "answer", "wanted"),
    [
        ("In Oslo, maybe", "in Oslo.", 1.0),
        ("她住在东京。", "她住在奥斯陆。", 0.5),
        ("她住在奥斯陆。", "她住在奥斯陆。", 1.0),
        ("Она живёт в Риге.", "Она живёт в Осло.", 0.75),
        ("%%%%", "Она живёт в Осло.", 0.0),
        ("", "她", 0.0),
    ],
)
def test_the_recall_of_rows_in_any_script(said, answer, wanted):
    assert recall(said, answer) == pytest.approx(wanted)


@pytest.mark.parametrize("answers", [["她住在奥斯陆。"] * 2, ["Она живёт в Осло."] * 2])
def test_a_model_that_says_nothing_any_more_keeps_no_row_of_any_script(answers):
    def measured(said):
        scores = [recall(said, answer) for answer in answers]
        return {"retain": numbers(sum(verbatim(said, a) for a in answers), sum(scores) / 2, rows=2)}

    assert kept(measured(answers[0]), measured(answers[0])) == 1
    assert kept(measured(answers[0]), measured("▁▁▁▁")) == 0


def test_a_sample_is_seeded_and_bounded():
    rows = [{"question": f"Which {i}?", "answer": f"This {i}."} for i in range(SIZE + 9)]
    sets = {"forget": rows, "retain": micro.bench().retain}
    bench = Benchmark("own", "forget", sets, [], {"name": "own"})
    found = sampled(bench, 3)
    assert [len(rows) for rows in found.values()] == [SIZE, 3] and found == sampled(bench, 3)
    assert found["forget"] != sampled(bench, 4)["forget"]
    assert len({row["question"] for row in found["forget"]}) == SIZE


def test_a_model_that_fits_on_no_device_is_asked_on_the_cpu(capsys):
    class Large:
        places: ClassVar[list] = []

        def to(self, place):
            self.places.append(place)
            if place != "cpu":
                raise torch.OutOfMemoryError("full")

    lm = SimpleNamespace(model=Large())
    assert placed(lm, "cuda:0") is lm and placed(lm, None) is lm
    assert Large.places == ["cuda:0", "cpu"]
    assert "does not fit on cuda:0" in capsys.readouterr().err


def test_half_of_a_document_is_its_prompt():
    lm, text = micro.memorised(), "Oslo and Paris and Ulm and Bonn and Quito."
    ids = encode(lm.tokenizer, lm.prompt, "", text).input_ids
    rows = [{"question": "", "answer": text}]
    sets = {"forget": rows, "retain": micro.bench().retain}
    found = measure(lm, Benchmark("own", "forget", sets, [], {"name": "own"}), 0)["forget"]
    (one,) = found["answers"]
    assert one["question"] and one["answer"] and one["question"] in text and one["answer"] in text
    assert found["rows"] == 1 and found["verbatim"] == 0 and len(ids) > 4


def test_the_help_and_the_page_name_every_exit_status():
    page = (HOME.parent / "docs/your_model.md").read_text("utf-8")
    for word, status in STATUS.items():
        assert f"| {word} | {status} |" in page
        assert re.search(rf"\b{status} [a-z]", (cli.unlearn.__doc__ or "").split("status:")[1])
