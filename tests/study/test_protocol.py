"""Tuned rates are read from committed rows, only where these are of the very run; --refresh makes
them again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ngdiff import profiles
from ngdiff.store import paths
from ngdiff.store.rows import read_rows
from ngdiff.study import plan as plans
from ngdiff.study import protocol, trials
from ngdiff.study.trial import Trial

WANTED = [Trial("npo", "constant", lr, plans.TUNING_SEED) for lr in (1e-4, 1e-3)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty protocol, and the runs that were made, in a list called `ran`."""
    monkeypatch.setattr(paths, "protocol_folder", lambda: tmp_path / "protocol")
    monkeypatch.setenv("NGDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "protocol"


def runner(ran: list[Trial]):
    def run(todo: list[Trial]) -> list[protocol.Row]:
        ran.extend(todo)
        return [{"method": t.method, "lr": t.lr, "seed": t.seed, "score": t.lr} for t in todo]

    return run


def test_an_everyday_run_makes_what_is_not_committed_and_saves_nothing(folder: Path) -> None:
    ran: list[Trial] = []
    rows = protocol.tuning_rows(WANTED, run=runner(ran))
    assert ran == WANTED and [r["score"] for r in rows] == [1e-4, 1e-3] and not folder.exists()


def test_refreshed_rows_are_saved_and_read_afterwards(folder: Path) -> None:
    ran: list[Trial] = []
    protocol.tuning_rows(WANTED[1:], True, runner(ran))
    protocol.tuning_rows(WANTED[:1], True, runner(ran))  # another page's part of the same file
    assert len(read_rows(protocol.file_of(WANTED[0]))) == 2 and len(ran) == 2
    rows = protocol.tuning_rows(WANTED, run=runner(ran))
    assert [r["score"] for r in rows] == [1e-4, 1e-3] and len(ran) == 2, "nothing was left to run"
    protocol.tuning_rows(WANTED, True, runner(ran))
    assert len(ran) == 4 and len(read_rows(protocol.file_of(WANTED[0]))) == 2, (
        "run again, and replaced"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 7},
        {"training": replace(profiles.profile("tiny").training, lr=1e-2)},
        {"authors": 40},
    ],
    ids=lambda change: next(iter(change)),
)
def test_rows_of_another_recipe_or_population_are_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: dict
) -> None:
    ran: list[Trial] = []
    protocol.tuning_rows(WANTED, True, runner(ran))
    changed = replace(profiles.profile("tiny"), **change)
    monkeypatch.setattr(profiles, "_PROFILES", (changed,))
    trials.benchmark.cache_clear()
    assert protocol.committed(WANTED) == {}
    protocol.tuning_rows(WANTED[:1], True, runner(ran))
    kept = {r["setting"] for r in read_rows(protocol.file_of(WANTED[0]))}
    assert len(kept) == (3 if "steps" in change else 1), (
        "rows of another population go, another budget's stay"
    )
    trials.benchmark.cache_clear()


def test_the_committed_rates_cover_every_plan_of_the_pages(checkout: Path) -> None:
    """Every tuning run of the everyday pages is there, with a stamp; those to which the best rate
    leads too.
    """
    places = {"live": "", "tofu": "", "muse": "news", "semeval": "dossiers"}
    for name, data in places.items():
        P = plans.plan(name, (0, 1, 2), profiles.profile("tiny").rates)
        rows = plans.saved_tuning(P, profile="tiny", data=data)
        assert rows, name
        assert all(r["stamp"]["commit"] and r["seed"] == plans.TUNING_SEED for r in rows)
