"""The files of the long comparison: what was saved is not run again."""

from __future__ import annotations

import pytest

from ngdiff.store.rows import read_rows
from ngdiff.study import evidence, protocol
from ngdiff.study.trial import Trial
from tests.helpers.micro_trials import MICRO

TRIALS = [Trial("ngdiff", "constant", lr, profile=MICRO) for lr in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)]


class Runner:
    """Make up a row a trial; be killed where `left` trials have been run."""

    def __init__(self, left: int = 99) -> None:
        self.left, self.ran = left, []

    def __call__(self, trials):
        if len(trials) > self.left:
            raise KeyboardInterrupt
        self.left -= len(trials)
        self.ran += trials
        return [trial.row() | {"score": trial.lr, "stamp": {"seed": 0}} for trial in trials]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(evidence, "SAVED", 2)


def test_a_killed_part_goes_on_where_its_file_ends(tmp_path):
    path, killed, rest = tmp_path / "part.parquet", Runner(4), Runner()
    with pytest.raises(KeyboardInterrupt):
        evidence.kept(path, TRIALS, killed)
    assert [row["lr"] for row in read_rows(path)] == [t.lr for t in TRIALS[:4]]
    rows = evidence.kept(path, TRIALS, rest)
    assert rest.ran == TRIALS[4:] and [row["lr"] for row in rows] == [t.lr for t in TRIALS]
    assert [row["score"] for row in read_rows(path)] == [t.lr for t in TRIALS]


def test_what_is_saved_is_not_run_again_unless_it_is_wanted(tmp_path):
    path = tmp_path / "part.parquet"
    first = evidence.kept(path, TRIALS, Runner())
    again, anew = Runner(), Runner()
    assert evidence.kept(path, TRIALS, again) == first and not again.ran
    evidence.kept(path, TRIALS, anew, refresh=True)
    assert anew.ran == TRIALS


def test_a_row_of_another_setting_is_no_trials_row(tmp_path):
    path, other = tmp_path / "part.parquet", Runner()
    evidence.kept(path, TRIALS, Runner())
    longer = [Trial("ngdiff", "constant", t.lr, profile=MICRO, steps=7) for t in TRIALS]
    evidence.kept(path, longer, other)
    assert other.ran == longer
    assert {r["setting"] for r in read_rows(path)} == {
        protocol.identity(t)["setting"] for t in longer
    }


def test_tuning_rows_that_were_run_are_saved_where_that_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol.paths, "protocol_folder", lambda: tmp_path)
    monkeypatch.setenv("NGDIFF_CACHE", str(tmp_path / "cache"))
    protocol.tuning_rows(TRIALS[:2], run=Runner())
    assert not protocol.file_of(TRIALS[0]).exists()
    first, rest = Runner(), Runner()
    protocol.tuning_rows(TRIALS[:2], run=first, save=True)
    protocol.tuning_rows(TRIALS, run=rest, save=True)
    assert first.ran == TRIALS[:2] and rest.ran == TRIALS[2:]
    assert len(protocol.saved(TRIALS)) == len(TRIALS)
