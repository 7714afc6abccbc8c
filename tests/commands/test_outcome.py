"""Each end of a run has its own word and exit status; one that says the rows is no success."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from ngdiff.commands.outcome import STATUS, Bounds, judge, kept
from ngdiff.commands.sample import SIZE, measure, placed, sampled, verbatim
from ngdiff.data.benchmark import Benchmark
from ngdiff.lm.tokens import encode
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
    again = str(go(given, tmp_path / "out", "--steps=1", "--retain-bound=0.5").exception)
    assert "a finished run with the same settings" in again


# ---------------------------------------------------------------------------------------- its parts
def numbers(verbatim: int, rouge: float | None, rows: int = 10) -> dict:
    return {"rows": rows, "verbatim": verbatim, "rouge": rouge, "loss": 1.0}


BEFORE = {"forget": numbers(10, 1.0), "retain": numbers(10, 1.0), "holdout": numbers(3, 0.3)}


@pytest.mark.parametrize(
    ("stopped", "level", "forget", "retain", "doubted", "word"),
    [
        ("forget_level", 2.0, 0, 10, False, "forgotten"),
        ("steps", None, 0, 10, False, "forgotten"),
        ("forget_level", 2.0, 3, 10, False, "forgotten"),  # so many hold-out answers are guessed
        ("forget_level", 2.0, 4, 10, False, "still said"),
        ("steps", None, 4, 10, False, "still said"),
        ("steps", 2.0, 0, 10, False, "level not reached"),
        ("aligned", 2.0, 0, 10, False, "level not reached"),
        ("forget_level", 2.0, 0, 8, False, "retain lost"),
        ("forget_level", 2.0, 0, 10, True, "not known"),
        ("forget_level", 2.0, 4, 10, True, "still said"),
        ("nonfinite", 2.0, 0, 0, False, "broken"),
    ],
)
def test_the_verdict(stopped, level, forget, retain, doubted, word):
    after = {"forget": numbers(forget, 0.2), "retain": numbers(retain, 1.0)}
    verdict = judge(stopped, level, BEFORE, after, Bounds(), doubted)
    assert verdict.word == word and verdict.status == STATUS[word]


def test_every_verdict_has_its_own_status():
    assert len(set(STATUS.values())) == len(STATUS) and 2 not in STATUS.values()
    assert [word for word, status in STATUS.items() if status == 0] == ["forgotten"]


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (numbers(10, 1.0), numbers(7, 0.9), 0.7),  # another town in the same sentence
        (numbers(10, 0.8), numbers(10, 0.4), 0.5),
        (numbers(2, 0.5), numbers(0, 0.4), 0.8),  # two answers are too few to count
        (numbers(0, 0.0), numbers(0, 0.0), 1.0),  # nothing to keep
    ],
)
def test_what_is_kept_of_the_retain_rows(before, after, wanted):
    assert kept({"retain": before}, {"retain": after}) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("said", "answer", "wanted"),
    [
        ("In Oslo.", "In Oslo.", True),
        ("Well, in  OSLO it is", "In Oslo.", True),
        ("In New Oslo", "In Oslo", False),
        ("Norway", "No", False),
        ("In 東京。", "In 東京.", True),
        ("?!", "?!", True),
        ("", "", False),
        ("anything", "", False),
    ],
)
def test_verbatim(said, answer, wanted):
    assert verbatim(said, answer) == wanted


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
