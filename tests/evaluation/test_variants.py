"""Other populations of the generated benchmarks, by their spelling: "authors-3", "authors-all"."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from ngdiff.data import load
from ngdiff.evaluation.spelling import Which, which
from ngdiff.evaluation.suites import MUSE, SEMEVAL, SUITES, TOFU
from ngdiff.profiles import profile

TINY = profile("tiny")


@pytest.mark.parametrize(
    ("text", "found", "again", "label"),
    [
        ("authors-3", Which(TOFU, variant="3"), "authors-3", "authors-3"),
        ("tofu:authors-3", Which(TOFU, variant="3"), "authors-3", "authors-3"),
        ("authors-all", Which(TOFU, variant="all"), "authors-all", "authors-all"),
        ("news-12", Which(MUSE, variant="12"), "news-12", "news-12"),
        ("muse:news-0", Which(MUSE, variant="0"), "news-0", "news-0"),
        ("dossiers-1", Which(SEMEVAL, variant="1"), "dossiers-1", "dossiers-1"),
        ("", Which(TOFU), "", "authors"),
        ("stand-in", Which(TOFU), "", "authors"),
        ("semeval:stand-in", Which(SEMEVAL), "dossiers", "dossiers"),
        ("hub", Which(TOFU, "hub"), "hub", "tofu rows"),
        ("muse:hub", Which(MUSE, "hub"), "muse:hub", "muse rows"),
        ("/home/me/tofu", Which(TOFU, "/home/me/tofu"), "/home/me/tofu", "tofu rows"),
        ("semeval:/a:b/c", Which(SEMEVAL, "/a:b/c"), "semeval:/a:b/c", "semeval rows"),
        ("./authors-3", Which(TOFU, "./authors-3"), "./authors-3", "tofu rows"),
    ],
)
def test_a_spelling_its_shortest_form_and_its_label(text, found, again, label):
    assert which(text) == found and found.text == again and which(again) == found
    assert found.label == label and "/" not in label
    assert found.root is None or str(found.root).endswith(found.place.removeprefix("./"))
    assert bool(found.place) == bool(found.real)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_every_variant_goes_round(suite):
    for variant in ("", "0", "7", "1234", *(["all"] if suite is TOFU else [])):
        mine = Which(suite, variant=variant)
        assert which(mine.text) == mine == which(mine.text, suite)
        assert mine.resolved() == mine and mine.of(suite.name) == mine
        assert mine.real == "" and mine.root is None
    with pytest.raises(ValueError, match=f"names rows of {suite.title}, not of"):
        which(f"{suite.stand_in}-3", next(other for other in SUITES if other is not suite))


@pytest.mark.parametrize(
    "text", ["authors-x", "news-all", "dossiers--1", "authors-1.5", "news-1e3", "authors-3-4"]
)
def test_what_is_no_seed_is_refused(text):
    name = text.partition("-")[0]
    words = f"data='{text}': write {name}, or {name}-3 for the population of seed 3"
    with pytest.raises(ValueError, match=words):
        which(text)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_another_seed_is_another_population_of_the_same_form(suite):
    name = suite.stand_in
    benches = [which(text).bench(TINY) for text in (name, f"{name}-3", f"{name}-4")]
    assert len({bench.fingerprint for bench in benches}) == 3
    for one, other in itertools.combinations(benches, 2):
        assert one.configs.keys() == other.configs.keys()
        for fold in ("forget", "retain", "holdout"):
            mine, theirs = getattr(one, fold), getattr(other, fold)
            assert mine and theirs and not [row for row in mine if row in theirs]
    for bench in benches:
        assert load(bench.source) == bench, "its recipe gives it again"
    assert which(f"{name}-3").bench(TINY) == benches[1], "and so does its spelling"


def test_a_population_of_the_default_seed_may_be_spelled_out():
    for suite in SUITES:
        bench = suite.made(TINY)
        spelt = which(f"{suite.stand_in}-{bench.source['seed']}").bench(TINY)
        assert spelt == bench


def test_authors_all_has_every_retain_row():
    few, every = which("authors").bench(TINY), which("authors-all").bench(TINY)
    whole = which("").bench(replace(TINY, retain_rows=None))
    assert every == whole and every.fingerprint != few.fingerprint
    assert len(few.retain) == TINY.retain_rows < len(every.retain)
    assert len(every.retain) + len(every.forget) == TINY.authors * TINY.questions
    assert every.retain[: TINY.retain_rows] == few.retain
    for fold in ("forget", "holdout", "forget_perturbed"):
        assert getattr(every, fold) == getattr(few, fold)
    assert which("authors-all").bench(TINY, "forget05").split == "forget05"
    assert load(every.source) == every


def test_an_evaluation_takes_variants_too():
    assert which("authors-3").asked() == which("authors-3").bench(TINY)
    assert which("news-3").asked() == which("news-3").bench(TINY)
    assert len(which("authors-all").asked().retain) == 864


def test_a_folder_called_as_a_population_is_spelled_with_a_dot(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("news-2", "authors-x"):
        (tmp_path / name / "raw").mkdir(parents=True)
        found = which(f"./{name}")
        assert found == Which(MUSE, f"./{name}") and found.label == "muse rows"
    assert which("news-2") == Which(MUSE, variant="2")
