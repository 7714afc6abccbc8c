"""What a row says of its trial: names, and no folder of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

import ngdiff as ng
from ngdiff.methods.definition import Method
from ngdiff.study import keys
from ngdiff.study.rules import BoundedThreePoint, SearchOnce
from ngdiff.study.trial import STEPSIZES, Trial
from tests.helpers.micro_trials import MICRO


@pytest.mark.parametrize(
    ("data", "label"),
    [
        ("", "authors"),
        ("authors", "authors"),
        ("authors-3", "authors-3"),
        ("authors-all", "authors-all"),
        ("news-2", "news-2"),
        ("semeval:stand-in", "dossiers"),
        ("hub", "tofu rows"),
        ("muse:hub", "muse rows"),
    ],
)
def test_a_row_names_its_rows(data, label):
    assert Trial(data=data).row()["data"] == label


@pytest.mark.parametrize("mark", ["full.json", "raw/forget.txt", "semeval2025/x"])
@pytest.mark.parametrize("named", [False, True])
def test_no_field_of_a_row_shows_a_folder(tmp_path: Path, monkeypatch, mark, named):
    """Absolute, relative and from home; the benchmark named, or read off its files."""
    (tmp_path / "rows" / mark).parent.mkdir(parents=True)
    (tmp_path / "rows" / mark).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    suite = {"full.json": "tofu", "raw/forget.txt": "muse"}.get(mark, "semeval")
    for place in (str(tmp_path / "rows"), "./rows", "rows", "~/rows"):
        data = f"{suite}:{place}" if named else place
        row = Trial(data=data, profile=MICRO, method=Method("mine", ng.NGDiff())).row()
        assert row["data"] == f"{suite} rows"
        shown = repr(row)
        assert str(tmp_path) not in shown and "/" not in shown and "~" not in shown


def test_two_folders_with_the_same_rows_are_one_run(tmp_path: Path):
    """A row's name is for readers; what counts for the cache are the rows themselves."""
    from ngdiff.data.made.authors import write

    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder, seed in zip(folders, (2, 2, 3), strict=True):
        folder.mkdir()
        write(folder, "tiny", seed=seed)
    one, two, three = (Trial(data=str(folder), split="forget10") for folder in folders)
    assert one != two and one.row() == two.row() == three.row()
    assert keys.setting(one) == keys.setting(two) != keys.setting(three)


def test_rules_of_the_comparison_have_names():
    made = {name: rule(2e-3, 40) for name, rule in STEPSIZES.items()}
    assert made["once"] == SearchOnce(2e-3) and made["once-half"] == SearchOnce(2e-3, factor=0.5)
    assert made["three-point-bounded"] == BoundedThreePoint(2e-3)
    assert len({repr(rule) for rule in made.values()}) == len(made)
