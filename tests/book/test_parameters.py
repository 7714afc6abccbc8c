"""Parameters of notebooks: one checked form, the same for every page, from every folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from ngdiff.book import build
from ngdiff.book.parameters import READERS, checked, declared

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SOURCES = build.sources(NOTEBOOKS)
BUILT = [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("exercises/*.ipynb"))]


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        *((form, (0,)) for form in (0, "0", "[0]", "(0,)", " [ 0 ] ", [0], (0,))),
        *((form, (0, 1)) for form in ("0,1", "0, 1", "[0, 1]", "(0, 1)", [0, 1], (0, 1))),
        ("12,3", (12, 3)),
    ],
)
def test_seeds_have_many_forms_and_one_meaning(given, seeds) -> None:
    assert checked({"seeds": given}) == {"seeds": seeds}


@pytest.mark.parametrize(
    "given",
    [
        *("", "[", "[0", "0]", "[]", "a", "0 1", "0,,1", "0,1.5", "-1", "[[0]]", "0,0", "٣"),
        *((), [], None, True, 1.5, -1, [0, "1"], [0, 0], {"0": 1}),
    ],
    ids=repr,
)
def test_what_are_no_seeds_is_named_with_a_right_example(given) -> None:
    with pytest.raises(ValueError, match=r"^seeds = .*; for example seeds = \(0, 1\)$"):
        checked({"seeds": given})


@pytest.mark.parametrize(
    ("name", "right", "found", "wrong"),
    [
        ("profile", "paper-gpt2-xl", "paper-gpt2-xl", ["huge", 3, None]),
        ("smoke", "True", True, [1, 0, "yes", None, "[0]"]),
        ("refresh", "false", False, ["no", 2]),
        ("data", "muse:hub", "muse:hub", ["/no/such/folder", "moose:hub", 5, None]),
        ("benchmark", "authors-3", "authors-3", ["authors-three", ["authors"]]),
        ("rows", "", "", ["/no/such/folder", 3]),
        ("lr", "1e-3", 1e-3, [0, -1, "fast", None, "1e999", True]),
        ("target_seed", "2", 2, [-1, 1.0, "x", True]),
        ("steps", 0, 0, [-1, "many", None]),
        ("optimizer", "sgd", "sgd", ["adam", 1]),
        ("rule", "fixed", "fixed", ["free"]),
        ("split", "", "", [1]),
        ("method", "ngdiff", "ngdiff", [None]),
        ("stepsize", "autolr", "autolr", [0.1]),
        ("out", "", "", [False]),
    ],
)
def test_every_parameter_takes_its_forms_and_names_what_is_wrong(name, right, found, wrong) -> None:
    assert checked({name: right}) == {name: found}
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^{name} = .*; for example {name} = ") as caught:
            checked({name: value})
        assert "\n" not in str(caught.value)
    reader, example = READERS[name]
    assert example in ('"rows.jsonl"', '"data/results/tiny"') or reader(eval(example)) is not None


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        checked({"profile": "huge", "seeds": "x", "smoke": True})
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == ["profile", "seeds"]


def test_a_folder_of_rows_is_found_by_its_name(repo: Path, monkeypatch) -> None:
    folder = repo / "data/results/tiny-seeds-0"
    folder.mkdir()
    for here in (repo, repo / "notebooks"):
        monkeypatch.chdir(here)
        for text in (str(folder), "data/results/tiny-seeds-0", "tiny-seeds-0"):
            assert checked({"rows": text}) == {"rows": str(folder)}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_parameter_of_a_page_is_typed_explained_and_checked(source: Path) -> None:
    (cell,) = (
        c for c in build.notebook(source).cells if "parameters" in c.metadata.get("tags", ())
    )
    found = declared(cell.source, source)
    assert checked(found) == found, "a default has the form that a reader gives"
    assert set(found) <= set(READERS)


@pytest.mark.parametrize("path", BUILT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_papermill_shows_every_parameter_with_type_and_help(path: Path) -> None:
    """What `papermill --help-notebook` prints."""
    shown = papermill.inspect_notebook(str(path))
    (cell,) = (
        c
        for c in nbformat.read(path, as_version=4).cells
        if "parameters" in c.metadata.get("tags", ())
    )
    assert list(shown) == list(declared(cell.source, path))
    for name, about in shown.items():
        assert about["inferred_type_name"] != "None" and len(about["help"]) > 10, (name, about)


OPEN = """
import json, os, sys
from pathlib import Path

for place, (title, cells) in json.loads(sys.argv[1]):
    for text, names in cells:
        os.chdir(place)
        space = {}
        exec(text, space)
        try:
            print(title, sorted(k for k in names if k in space), space["page"].parameters)
        except KeyError:
            raise SystemExit(f"{title} has no page")
heavy = {"torch", "numpy", "matplotlib", "pandas", "transformers"} & set(sys.modules)
print("HEAVY", sorted(heavy))
"""


def test_every_page_opens_with_each_form_before_anything_heavy_or_written(
    tmp_path: Path, checkout: Path
) -> None:
    """The cells up to the page's first line, from the root and from notebooks/."""
    todo, pages = [], [path for path in SOURCES if path.stem != "cell"]
    for source in pages:
        nb = build.notebook(source)
        code = [cell.source for cell in nb.cells if cell.cell_type == "code"]
        assert "from ngdiff.book.page import opened" in code[1], source
        names = list(declared(code[0], source))
        forms = ["0", "'[0, 1]'", "'0,1'", "(2,)"] if "seeds" in names else [None]
        injected = [f"\nseeds = {form}\n" if form else "" for form in forms]
        cells = [(code[0] + more + "\nsmoke = 'True'\n" + code[1], names) for more in injected]
        todo += [(str(place), (source.stem, cells)) for place in (checkout, checkout / "notebooks")]
    before = {path for top in ("data", "figures") for path in (checkout / top).rglob("*")}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, json.dumps(todo)], capture_output=True, text=True, cwd=checkout
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert done.stdout.count("'seeds': (0, 1)") == 2 * 2 * (len(pages) - 1)
    assert done.stdout.count("which git ignores") == sum(len(cells) for _, (_, cells) in todo)
    after = {path for top in ("data", "figures") for path in (checkout / top).rglob("*")}
    assert after == before
