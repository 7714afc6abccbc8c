"""A method of a user through the comparison: cached by its content, shown with its look."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace

import nbformat
import pytest
from nbclient import NotebookClient

import ngdiff as ng
from ngdiff.figures import captions
from ngdiff.methods.definition import SPARE
from ngdiff.study import keys
from ngdiff.study.plan import Plan
from ngdiff.study.trial import Trial
from tests.helpers.micro_trials import MICRO

SHARE = 0.5


def share() -> float:
    return SHARE


@dataclass(frozen=True)
class Half:
    """A rule as a user writes it: it calls a function that reads a global."""

    c: float = 1.0

    def weights(self, gram, losses):
        return ng.NGDiff().weights(gram, losses) * gram.new_tensor([share(), self.c])


MINE = ng.Method("mine", Half(), look=ng.methods.Look("#123456", "--"))
SETTINGS = {"profile": MICRO}


def key(method) -> str:
    return keys.setting(Trial(method, **SETTINGS))


def test_a_method_is_known_by_its_content(monkeypatch):
    first = key(MINE)
    assert first == key(ng.Method("mine", Half(), look=MINE.look)) != key("ngdiff")
    assert first != key(ng.Method("mine", Half(2.0), look=MINE.look))
    assert first != key(ng.Method("mine", Half(), forget=ng.objectives.NPO(), look=MINE.look))
    monkeypatch.setattr("tests.study.test_comparison.SHARE", 0.25)
    assert first != key(MINE), "a global that the rule reads"


def test_how_a_method_is_shown_makes_no_run_again():
    other = ng.Method("mine", Half(), look=ng.methods.Look("#654321"), tags=("baseline",))
    assert key(other) == key(MINE) and Trial(other, **SETTINGS).row()["colour"] == "#654321"


def test_a_row_says_what_it_was_made_on():
    """A Benchmark and a changed profile are not called what a name would stand for."""
    bench = ng.data.authors(MICRO)
    row = Trial(profile=MICRO, data=bench).row()
    assert (row["benchmark"], row["split"], row["profile"]) == ("authors", bench.split, "micro")
    changed = replace(ng.profile("tiny"), steps=3)
    assert Trial(profile=changed).row()["profile"] == "tiny (changed)"
    stamped = {"stamp": {"config": {}, "device": "cpu"}, **row}
    said = captions.caption([stamped])
    assert said.startswith("Profile micro, generated authors; 1 run; seeds 0")
    assert keys.setting(Trial(profile=MICRO, data=bench)) == keys.setting(Trial(profile=MICRO))
    with pytest.raises(ValueError, match="leave split out"):
        Trial(data=bench, split="forget05")


def test_what_is_the_packages_is_called_so():
    assert Trial(ng.NGDiff()) == Trial("ngdiff") == Trial(ng.methods.ngdiff)
    assert Trial(ng.methods.graddiff(0.9)) == Trial("graddiff-0.9")
    assert Trial("tests.study.test_comparison:MINE") == Trial(MINE)
    assert Trial(profile=ng.profile("tiny")) == Trial()


def test_a_row_of_a_users_method_brings_its_look():
    row = Trial(MINE, **SETTINGS).row()
    assert (row["method"], row["label"], row["colour"]) == ("mine", "mine", "#123456")
    assert row["profile"] == "micro" and "label" not in Trial().row()
    nobody = Trial(ng.Method("another", Half())).row()
    assert nobody["colour"] in SPARE


def test_what_cannot_be_compared_is_refused():
    @dataclass
    class Changing:
        def weights(self, gram, losses): ...

    with pytest.raises(ValueError, match=r"@dataclass\(frozen=True\)"):
        Trial(ng.Method("mine", Changing()))
    with pytest.raises(ValueError, match="two methods are called mine"):
        Plan("x", (MINE, ng.Method("mine", Half(2.0))), (1e-3,), (0,))
    with pytest.raises(ValueError, match="two methods are called mine"):
        Plan("x", (MINE, ng.Method("mine", Half(2.0), key="other")), (1e-3,), (0,))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"methods": []}, "at least one method"),
        ({"methods": "ngdiff"}, r"a list of methods: write \[ngdiff\]"),
        ({"methods": MINE}, "a list of methods"),
        ({"methods": [MINE], "rates": ()}, "at least one rate"),
        ({"methods": [MINE], "seeds": ()}, "at least one seed"),
        ({"methods": [MINE], "seeds": (0, 100)}, "leave it out of seeds"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        ng.study.compare(**given)


CELL = """
import ngdiff as ng
from dataclasses import dataclass
from tests.helpers.micro_trials import MICRO

@dataclass(frozen=True)
class Half:
    def weights(self, gram, losses):
        return ng.NGDiff().weights(gram, losses) * gram.new_tensor([0.5, 1.0])

mine = ng.Method("Half of it", Half(), look=ng.methods.Look("#123456"))
bench = ng.data.authors(MICRO)
"""
COMPARE = """
methods = [mine, "ngdiff", ng.methods.graddiff(0.9)]
done = ng.study.compare(methods, bench, MICRO, seeds=(0,), rates=(1e-3,))
"""
SHOW = """
from ngdiff.figures import comparison
from ngdiff.study import tables

print(tables.runs(done, {"score": "score", "updates": "updates"}))
print([claim["name"] for claim in done["claims"]])
(ax,) = [ax for ax in comparison.plane(done["matched"], done["levels"]).axes]
print({line.get_label(): line.get_color() for line in ax.lines})
"""


def test_a_method_of_a_notebook_cell_is_compared_with_two_of_ours():
    """In a kernel, as a reader would: workers get the class, table and figure show the method, and
    a second call runs nothing.
    """
    cells = [CELL, COMPARE, SHOW, COMPARE]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    NotebookClient(made, timeout=300, kernel_name="python3").execute()
    texts = ["".join(o.get("text", "") for o in cell.outputs) for cell in made.cells]
    assert texts[1].count("  trial ") == 7 and "  trial " not in texts[3]
    table, names, colours = texts[2].rsplit("\n", 3)[:3]
    shown = [line.split("  ")[0] for line in table.splitlines()[1:]]
    assert shown == textwrap.dedent(
        """\
        start
        retain-only
        NGDiff, 0.001 *
        GradDiff(0.9), 0.001 *
        Half of it + AutoLR *
        Half of it, 0.001 *"""
    ).split("\n")
    assert names == "['against half-of-it', 'against ngdiff', 'against graddiff-0.9']"
    assert "'Half of it': '#123456'" in colours and "'NGDiff': '#000000'" in colours
