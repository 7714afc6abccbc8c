"""The story of a real model, on a stand-in of a few weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ngdiff.lm import scratch
from ngdiff.profiles import TinyLM, Training
from ngdiff.study import story, trials
from ngdiff.study.keys import benchmark


def test_a_story_needs_a_pretrained_model():
    with pytest.raises(ValueError, match='take profile = "laptop", or smoke = True'):
        story.setting("tiny")
    P, data = story.setting("laptop", "hub", "some/model")
    assert (P.model, data, P.training.replay) == ("some/model", "hub", 0.5)
    assert story.setting("laptop")[0].model == "smollm2"


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("NGDIFF_CACHE", str(tmp_path / "cache"))
    shape = TinyLM(hidden=32, layers=1, heads=2, intermediate=32, vocab=400, context=256)
    monkeypatch.setattr(scratch, "SHAPE", shape)
    monkeypatch.setattr(scratch, "TAUGHT", Training(0, 1, lr=4e-3, batch_size=16))
    P, data = story.setting("tiny", smoke=True)
    few = replace(P.training, epochs=1, replay=0.0)
    # so small a model knows nothing, and is at the hold-out level from the start on
    found = trials.levels
    high = {"loss_holdout": 99.0}
    monkeypatch.setattr(trials, "levels", lambda *of: (found(*of)[0] | high, found(*of)[1]))
    monkeypatch.setattr(trials, "scores", lambda *_: {})
    return replace(P, training=few, retain_rows=8, measured=2, steps=2, max_new_tokens=4), data


def test_a_story_asks_four_models_and_is_told_once(small, monkeypatch):
    P, data = small
    lines: list[str] = []
    told = story.tell(P, data, say=lines.append)
    assert [row["role"] for row in told.rows] == list(story.ROLES)
    assert all(row["loss_forget"] > 0 and "report" not in row for row in told.rows)
    assert told.rows[0]["loss_forget"] != told.rows[1]["loss_forget"]
    assert told.rows[-1]["updates"] == 2 == len(told.history)
    assert told.rows[0]["stamp"]["config"]["base"] == P.model
    kinds = [row["kind"] for row in told.said]
    assert kinds.count("general") == len(story.GENERAL)
    assert kinds.count("forget") == kinds.count("forget, asked otherwise") == story.SHOWN
    asked = benchmark(P, "", data).forget[0]["question"]
    assert told.said[0]["question"] == asked
    assert told.said[story.SHOWN]["question"] == story.OTHERWISE.format(question=asked)
    assert all(isinstance(row[role], str) for row in told.said for role in story.ROLES)

    def never(*_: object) -> None:
        raise AssertionError("it was made again")

    monkeypatch.setattr(trials, "measured", never)
    assert story.tell(P, data) == told and lines == ["asking the four models"]


def test_a_killed_story_goes_on_from_its_run(small, monkeypatch):
    P, data = small
    P = replace(P, steps=7)
    measured, unlearned, seen = trials.evaluated, trials.unlearned, []

    def killed(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    def counted(trial, progress, checkpoint):
        return unlearned(trial, seen.append, checkpoint)

    trials.levels(P, "", data, 0)
    monkeypatch.setattr(trials, "unlearned", counted)
    with monkeypatch.context() as now:
        now.setattr(trials, "evaluated", killed)
        with pytest.raises(KeyboardInterrupt):
            story.tell(P, data)
    assert len(seen) == 7 and trials.evaluated is measured
    told = story.tell(P, data, say=lambda line: None)
    assert len(seen) == 9 and len(told.history) == 7  # from the state after five updates
