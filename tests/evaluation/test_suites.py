"""A suite is a value: what it says of a benchmark, and that nobody else asks which one it is."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ngdiff import data
from ngdiff.evaluation import suites
from ngdiff.evaluation.conventions import CONVENTIONS, convention, names
from ngdiff.evaluation.suites import MUSE, SEMEVAL, SUITES, TERMS, TOFU
from ngdiff.profiles import profile
from ngdiff.study import tables

PACKAGE = Path(suites.__file__).resolve().parents[1]
ASKING = ("startswith", "endswith", "get", "index", "count")  # methods that compare their argument


# The source: nothing outside the suites asks which one it has -------------------------------------
def asked(source: str) -> Iterator[str]:
    """Yield each expression that compares something with a suite's name."""
    words = {suite.name for suite in SUITES}

    def of_one(*nodes: ast.AST) -> bool:
        found = (n.value for node in nodes for n in ast.walk(node) if isinstance(n, ast.Constant))
        return any(isinstance(value, str) and value.strip() in words for value in found)

    for node in ast.walk(ast.parse(source)):
        compared = isinstance(node, ast.Compare) and of_one(node.left, *node.comparators)
        matched = isinstance(node, ast.MatchValue) and of_one(node)
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if compared or matched or (called and node.func.attr in ASKING and of_one(*node.args)):
            yield ast.unparse(node)


def test_no_module_compares_with_a_suites_name() -> None:
    own = Path(suites.__file__).resolve()
    found = {
        path.relative_to(PACKAGE).as_posix(): told
        for path in PACKAGE.rglob("*.py")
        if path != own and (told := list(asked(path.read_text("utf-8"))))
    }
    assert not found, f"ask the suite for what it says (ngdiff.evaluation.suites): {found}"


@pytest.mark.parametrize(
    "source",
    [
        'if bench.name == "tofu": pass',
        'x = name in ("muse", "semeval")',
        'match kind:\n    case "muse":\n        pass',
        'key.startswith("muse")',
        '{"tofu": 1}.get("tofu")',
    ],
)
def test_a_comparison_is_seen(source: str) -> None:
    assert list(asked(source))
    assert not list(asked(source.replace("tofu", "a").replace("muse", "b").replace("semeval", "c")))


# The values ---------------------------------------------------------------------------------------
def test_a_name_gives_the_suite_and_another_one_is_refused() -> None:
    assert [suites.suite(known.name) for known in SUITES] == list(SUITES)
    with pytest.raises(ValueError, match="unknown benchmark 'wmdp': choose one of tofu, muse, sem"):
        suites.suite("wmdp")


@pytest.mark.parametrize(
    ("made", "suite"),
    [(data.authors, TOFU), (data.news, MUSE), (data.dossiers, SEMEVAL)],
    ids=lambda x: getattr(x, "name", ""),
)
def test_a_stand_in_has_the_form_of_its_suite(made, suite) -> None:
    bench = made("tiny")
    assert suites.of(bench) is suite and suite.generated("tiny") == bench
    assert bench.source["name"] == suite.stand_in


def test_another_split_of_the_stand_in_where_there_is_one() -> None:
    assert TOFU.generated("tiny", "forget05").split == "forget05"
    assert MUSE.generated("tiny", "books") == MUSE.generated("tiny")


def test_what_a_run_takes_of_each() -> None:
    tiny, paper = profile("tiny"), profile("paper")
    assert [(s.split(tiny), s.asked_split) for s in SUITES] == [
        ("forget01", "forget10"),
        ("news", "news"),
        ("train", "validation"),
    ]
    assert TOFU.split(paper) == "forget10"
    assert [s.batch for s in SUITES] == ["batch_size", "batch_documents", "batch_documents"]
    assert [s.answers_cut for s in SUITES] == [True, False, False]
    assert [s.cut is not None for s in SUITES] == [False, True, False]


def test_the_corpus_is_that_of_the_models_target() -> None:
    from ngdiff import zoo

    for name, model in zoo.MODELS.items():
        corpora = {key.split()[1] for key in model.ready if key.split()[0] == MUSE.name}
        assert MUSE.split(profile(f"paper-{name}")) in (corpora or {"news"})


def test_axes_by_hand() -> None:
    assert TOFU.axes({"model_utility": 0.3, "forget_Q_A_ROUGE": 0.9}) == (0.3, 0.9)
    assert MUSE.axes({"verbmem_f": 0.2, "knowmem_r": 0.7, "knowmem_f": 0.1}) == (0.7, 0.2)
    folds = {f"retain_{term}": 0.5 for term in TERMS} | {
        f"forget_{term}": i / 10 for i, term in enumerate(TERMS)
    }
    assert SEMEVAL.axes(folds) == pytest.approx((0.5, 0.25))
    assert SEMEVAL.axes(folds | {"retain_Task2_knowledge": 0.0})[0] == 0
    for known in SUITES:
        assert all(map(math.isnan, known.axes({})))


def test_the_published_convention_evaluates_the_suite_and_is_that_of_the_tables() -> None:
    for known in SUITES:
        assert known.convention in names(known.name)
        assert convention(known.convention, known.name) is CONVENTIONS[known.convention]
        assert {known.convention} == {row["convention"] for row in tables.published(known.name)}


def test_every_option_is_one_of_its_evaluator() -> None:
    import inspect

    for known in SUITES:
        takes = inspect.signature(known.evaluator().evaluate).parameters
        assert {"generate", "progress", "max_new_tokens", *known.options} <= set(takes)
        assert set(known.sources) <= set(inspect.signature(known.rows).parameters)


def test_the_values_load_no_torch() -> None:
    code = "import ngdiff.evaluation.spelling, sys; assert not {'torch', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
