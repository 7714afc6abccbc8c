"""A convention is an object that callers use and never ask which one it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ngdiff as ng
from ngdiff.evaluation import conventions
from ngdiff.evaluation.conventions import ALL, CONVENTIONS, Convention, names
from ngdiff.evaluation.suites import SUITES
from tests.evaluation import test_muse as test_evaluate_muse
from tests.evaluation import test_semeval as test_evaluate_semeval
from tests.helpers import micro

PACKAGE = Path(ng.__file__).parent
HOME = Path(conventions.__file__).parent
INSIDE = {HOME / "definition.py", *HOME.glob("convention*.py")}


# The source: no module asks which convention it has -----------------------------------------------


def held(tree: ast.AST) -> set[str]:
    """The variables that hold a convention: annotated so, or made by a look-up."""
    found = set()
    for node in ast.walk(tree):
        annotation = node.annotation if isinstance(node, (ast.arg, ast.AnnAssign)) else None
        if annotation is not None and "Convention" in ast.unparse(annotation):
            found.add(node.arg if isinstance(node, ast.arg) else ast.unparse(node.target))
        if isinstance(node, ast.Assign):
            target = node.targets[0]
            both = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            pairs = zip(target.elts, node.value.elts) if both else [(target, node.value)]
            found |= {ast.unparse(name) for name, value in pairs if looked_up(value)}
    return found | {"how"}


def looked_up(value: ast.AST) -> bool:
    """Whether a value is `convention(…)`, or something that this gives:
    `convention(…).training()`.
    """
    while isinstance(value, ast.Call):
        if ast.unparse(value.func).split(".")[-1] in ("convention", "convention_of"):
            return True
        value = value.func.value if isinstance(value.func, ast.Attribute) else value.func
    return False


def asks(source: str) -> Iterator[str]:
    """Where a source compares a convention, or branches on what belongs to one."""
    tree = ast.parse(source)
    mine = held(tree) | {f"subject.{name}" for name in held(tree)}

    def of_one(node: ast.AST) -> bool:
        parts = [n for n in ast.walk(node) if isinstance(n, (ast.Name, ast.Attribute))]
        return any(ast.unparse(n) in mine for n in parts)

    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            texts = {n.value for s in sides for n in ast.walk(s) if isinstance(n, ast.Constant)}
            named = "open-unlearning" in texts  # the other names are suites or methods too
            about = texts & set(CONVENTIONS) and "convention" in ast.unparse(node)
            if named or about or any(of_one(side) for side in sides):
                yield ast.unparse(node)
        if isinstance(node, (ast.If, ast.IfExp, ast.While)) and of_one(node.test):
            yield ast.unparse(node.test)
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "isinstance"
            and of_one(node.args[0])
        ):
            yield ast.unparse(node)
        if isinstance(node, ast.Match) and of_one(node.subject):
            yield f"match {ast.unparse(node.subject)}"


OUTSIDE = sorted(set(PACKAGE.rglob("*.py")) - INSIDE)


def test_no_module_asks_which_convention_it_has():
    assert len(OUTSIDE) > 50 and len(INSIDE) == 6
    found = [f"{p.name}: {what}" for p in OUTSIDE for what in asks(p.read_text("utf-8"))]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "how.name == 'x'",
        "published = how.name != other",
        "def f(rule: Convention): return 1 if rule.floor else 2",
        "rule = convention(name)\nif rule.cut: pass",
        "rule, start = conventions.convention(name), 1\nif rule.cut: pass",
        "def f(c: str | Convention): return isinstance(c, TOFU)",
        "convention == 'tofu'",
        "name in ('open-unlearning',)",
        "match how.name:\n    case 'tofu': pass",
        "x = 1 if subject.how.floor else 2",
    ],
)
def test_the_check_sees_each_way_to_ask(source):
    assert list(asks(source))


def test_the_check_lets_the_object_be_used():
    assert not list(asks("def f(how: Convention, n): return how.scored(n) if n > 1 else how.empty"))
    assert not list(asks("if suite == 'tofu': how.encode(1)"))


# The objects --------------------------------------------------------------------------------------


def test_names_and_suites_are_read_off_the_objects():
    assert list(CONVENTIONS) == [how.name for how in ALL] and len({*CONVENTIONS}) == len(ALL)
    assert names() == tuple(CONVENTIONS)
    for suite in SUITES:
        known = names(suite.name)
        assert known[0] == "ngdiff" and len(known) > 1
        assert all(CONVENTIONS[n].evaluates(suite.name) == (n in known) for n in CONVENTIONS)
    assert {n for how in ALL for n in how.suites} == {suite.name for suite in SUITES}
    for how in ALL:
        assert repr(how) == f"{type(how).__name__}()"
        assert how is ALL[0] or "differs from the definition" in (type(how).__doc__ or "")


def test_a_convention_is_refused_where_it_cannot_evaluate():
    for how in (conventions.convention("tofu"), "tofu"):
        with pytest.raises(ValueError, match="the convention 'tofu' is not defined for muse"):
            conventions.convention(how, "muse")


# One of a user's own ------------------------------------------------------------------------------


class Shouted(Convention):
    """Compares capitals with capitals, and counts the rows that it encodes."""

    name = "shouted"

    def __init__(self):
        self.encoded = []

    def encode(self, lm, question, answer):
        self.encoded.append((question, answer))
        return super().encode(lm, question, answer)

    def truth(self, lm, answer, row):
        return super().truth(lm, answer, row).upper()

    def decode(self, lm, ids):
        return super().decode(lm, ids).upper()


def test_a_convention_of_ones_own_evaluates_tofu_and_encodes_each_row_once():
    how = Shouted()
    options = {"progress": False, "max_new_tokens": 12}
    report = ng.evaluate(micro.memorised(), micro.bench(), convention=how, **options)
    ours = ng.evaluate(micro.memorised(), micro.bench(), **options)
    assert report.meta["convention"] == "shouted"
    for part in ("forget", "retain", "ra", "wf"):
        pairs = zip(*(r.items[f"{part}_Q_A_ROUGE"].values() for r in (report, ours)), strict=True)
        for mine, theirs in pairs:
            for key in ("generation", "ground_truth"):
                assert mine[key] == theirs[key].upper() and theirs[key] != theirs[key].upper()
    assert report.metrics == ours.metrics  # ROUGE does not see capitals
    rows = [row for part in micro.bench().configs.values() for row in part]
    texts = {(r["question"], r["answer"]) for r in rows}
    keys = ("paraphrased_answer", "perturbed_answer")
    texts |= {
        (r["question"], a)
        for r in rows
        for k in keys
        if k in r
        for a in [r[k]] * isinstance(r[k], str)
    }
    texts |= {(r["question"], a) for r in rows for a in r.get("perturbed_answer", ())}
    assert sorted(how.encoded) == sorted(texts)
    with pytest.raises(ValueError, match="has convention 'ngdiff', this evaluation 'shouted'"):
        ng.evaluate(micro.lm(), micro.bench(), ours, Shouted(), **options)


class Short(Convention):
    name = "short"

    def response(self, lm, ids, asked):
        return super().response(lm, ids, asked)[:3]

    def reply(self, lm, ids):
        return super().reply(lm, ids)[:3]


def test_a_convention_of_ones_own_evaluates_muse_and_semeval():
    suites = (
        (test_evaluate_muse, "random", "response"),
        (test_evaluate_semeval, "lm", "model_output"),
    )
    for module, lm, key in suites:
        model, bench = getattr(module, lm)(), module.bench()
        options = {"progress": False, "max_new_tokens": 8}
        mine, ours = (
            ng.evaluate(model, bench, convention=c, **options) for c in (Short(), "ngdiff")
        )
        said = [
            [row[key] for rows in report.items.values() for row in rows.values() if key in row]
            for report in (mine, ours)
        ]
        assert said[0] == [text[:3] for text in said[1]] and said[0] != said[1]
        assert mine.meta["convention"] == "short"
