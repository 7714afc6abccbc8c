"""One spelling for which rows: what each gives, and that it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from ngdiff.evaluation.spelling import Which, which
from ngdiff.evaluation.suites import MUSE, SEMEVAL, SUITES, TOFU
from ngdiff.profiles import profile
from ngdiff.store import paths


@pytest.mark.parametrize(
    ("text", "found", "again"),
    [
        ("", Which(TOFU), ""),
        ("authors", Which(TOFU), ""),
        ("stand-in", Which(TOFU), ""),
        ("tofu:", Which(TOFU), ""),
        ("news", Which(MUSE), "news"),
        ("muse:stand-in", Which(MUSE), "news"),
        ("muse:news", Which(MUSE), "news"),
        ("dossiers", Which(SEMEVAL), "dossiers"),
        ("hub", Which(TOFU, "hub"), "hub"),
        ("tofu:hub", Which(TOFU, "hub"), "hub"),
        ("muse:hub", Which(MUSE, "hub"), "muse:hub"),
        ("semeval:/a:b", Which(SEMEVAL, "/a:b"), "semeval:/a:b"),
        ("tofu:/a:b", Which(TOFU, "/a:b"), "tofu:/a:b"),  # else /a would be the benchmark
        ("/nowhere/tofu", Which(TOFU, "/nowhere/tofu"), "/nowhere/tofu"),
    ],
)
def test_spellings(text: str, found: Which, again: str) -> None:
    assert which(text) == found and found.text == again and which(again) == found
    assert found.real == (again if found.place else "")


@pytest.mark.parametrize("text", ["stand-in", ""])
def test_another_option_may_have_named_the_benchmark(text: str) -> None:
    for suite in SUITES:
        assert which(text, suite) == which(suite.stand_in, suite) == Which(suite)
        assert which("hub", suite) == which(f"{suite.name}:hub", suite) == Which(suite, "hub")


@pytest.mark.parametrize("text", ["semeval:hub", "dossiers", "semeval:/x"])
def test_rows_of_another_benchmark_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' names rows of SemEval, not of MUSE: leave"):
        which(text, MUSE)
    with pytest.raises(ValueError, match="names rows of MUSE, not of TOFU"):
        which("tofu:news")


def test_an_unknown_benchmark_is_named() -> None:
    message = r"unknown benchmark 'wmdp' in data='wmdp:hub': write one of tofu, muse, semeval bef"
    with pytest.raises(ValueError, match=message):
        which("wmdp:hub")


@pytest.mark.parametrize(
    ("file", "suite"),
    [
        ("forget.jsonl", SEMEVAL),
        ("semeval2025/x", SEMEVAL),
        ("train/forget.jsonl", SEMEVAL),
        ("raw/forget.txt", MUSE),
        ("forget01.json", TOFU),
    ],
)
def test_a_folder_says_of_which_benchmark_it_is(tmp_path: Path, file: str, suite) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    found = which(str(tmp_path))
    assert found == Which(suite, str(tmp_path)) and found.root == tmp_path
    assert which(found.text) == found
    assert paths.run_label("tiny", found.real, True) == f"tiny-{suite.name}-smoke"
    assert which(str(tmp_path), TOFU).suite is TOFU  # a name counts more than the files


def test_a_folder_with_a_colon_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    assert which(str(folder)) == Which(TOFU, str(folder))


def test_generated_rows_have_no_label() -> None:
    assert {paths.run_label("tiny", which(text).real) for text in ("", "news", "dossiers")} == {
        "tiny"
    }
    assert paths.kind("") == "" and paths.kind("hub") == "tofu" and paths.kind("muse:hub") == "muse"


def test_a_page_of_one_benchmark_takes_its_rows_only() -> None:
    assert which("muse:hub").of("muse").real == "muse:hub" and which("hub").of("muse").real == ""
    assert which("").of("tofu") == Which(TOFU)


def test_a_folder_that_is_not_there_is_refused_by_the_option(tmp_path: Path) -> None:
    which(str(tmp_path)).need("--data")
    which("muse:hub").need("--data")
    with pytest.raises(FileNotFoundError, match="^--data /nowhere: no such folder; give one with"):
        which("muse:/nowhere").need("--data")


def test_a_folder_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert which("semeval:x").resolved().real == f"semeval:{tmp_path / 'x'}"
    assert which("hub").resolved() == Which(TOFU, "hub") and which("").resolved().real == ""


def test_the_split_of_a_run_and_of_an_evaluation() -> None:
    tiny = profile("tiny")
    assert which("").bench(tiny).split == "forget10"
    assert which("").bench(tiny, "forget05").split == "forget05"
    assert which("").asked().split == "forget10" and which("news").asked().source["name"] == "news"
    with pytest.raises(ConnectionError, match="muse-bench/MUSE-News"):
        which("muse:hub").bench(tiny)
