"""The direction of the arrows: what may import what, read from the source, and what a light import may load."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ngdiff"
CORE = (
    *("vector", "sharding", "processes", "rng", "directions", "stepsize", "parabola", "autolr", "point", "master"),
    *("phases", "probe", "info", "optimizers", "step", "checkpoint", "unlearn", "quadratics", "theorems", "oracles"),
    "twin",
)
SHELL = ("cli", "reproduce", "report", "records", "batch", "book", "execute", "__main__", "job", "unlearn_command",
         "evaluate_command")  # fmt: skip
APPLICATION = ("data", "models", "train", "hub", "profiles", "objectives", "methods", "evaluate", "figures", "engine",
               "baselines", "published", "losses", "suites", "tables", "zoo", "score")  # fmt: skip
LANGUAGE = {"transformers", "tokenizers", "datasets", "peft", "accelerate", "rouge_score"}


def modules() -> dict[str, Path]:
    """Dotted name inside the package -> file; a package is its __init__."""
    files = {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path for path in PACKAGE.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in files.items() if name != "__init__"}


def resolve(name: str) -> str | None:
    """The module that `ngdiff.name` names: a name inside a module counts as that module."""
    known = modules()
    parts = name.split(".")
    while parts and ".".join(parts) not in known:
        parts.pop()
    return ".".join(parts) or None


def imports(path: Path, lazy: bool = True) -> set[str]:
    """Everything a file imports, as dotted names; `lazy=False` leaves out what is imported inside functions.

    Imports under `if TYPE_CHECKING:` are for annotations and are no arrows.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if not lazy and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return found


def arrows(lazy: bool) -> dict[str, set[str]]:
    inside = {}
    for name, path in modules().items():
        named = {resolve(full.removeprefix("ngdiff.")) for full in imports(path, lazy) if full.startswith("ngdiff.")}
        inside[name] = {target for target in named if target and target != name}
    return inside


def reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen, todo = set(), [start]
    while todo:
        for target in graph[todo.pop()] - seen:
            seen.add(target)
            todo.append(target)
    return seen


@pytest.mark.parametrize("name", [name for name in CORE if (PACKAGE / f"{name}.py").exists()])
def test_the_core_knows_no_language_model(name: str) -> None:
    graph = arrows(lazy=True)
    family = {name, *reachable(name, graph)}
    wrong = {module for module in family if module.split(".")[0] in APPLICATION}
    assert not wrong, f"{name} reaches {sorted(wrong)}"
    outside = {full.split(".")[0] for module in family for full in imports(modules()[module])}
    assert not outside & LANGUAGE


def test_no_import_cycles() -> None:
    try:
        tuple(graphlib.TopologicalSorter(arrows(lazy=False)).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_nothing_imports_the_command_line() -> None:
    for name, targets in arrows(lazy=True).items():
        if name not in SHELL:
            assert not targets & set(SHELL), f"{name} imports {sorted(targets & set(SHELL))}"


def loaded_by(*arguments: str) -> set[str]:
    code = (
        "import runpy, sys\n"
        f"sys.argv = {list(arguments)!r}\n"
        "try:\n    runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
        "except SystemExit:\n    pass\n"
        "print('\\nLOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert "LOADED" in done.stdout, done.stderr
    return {name.split(".")[0] for name in done.stdout.split("LOADED")[1].split()}


HEAVY = {"torch", "transformers", "datasets", "pandas", "numpy", "matplotlib", "papermill", "jupytext"}


def test_import_is_light() -> None:
    code = "import ngdiff, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert not {name.split(".")[0] for name in done.stdout.split()} & (HEAVY | {"typer"})


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["reproduce", "--help"],
        ["unlearn", "--help"],
        ["evaluate", "--help"],
        ["score", "tofu", "--help"],
        ["version"],
    ],
    ids=" ".join,
)
def test_help_is_light(arguments: list[str]) -> None:
    assert not loaded_by("ngdiff", *arguments) & HEAVY


def test_public_names_are_what_they_say() -> None:
    code = """
import types, ngdiff, ngdiff.unlearn, ngdiff.evaluate
from ngdiff.unlearn import Run
assert isinstance(ngdiff.unlearn, types.FunctionType), ngdiff.unlearn
assert isinstance(ngdiff.evaluate, types.FunctionType), ngdiff.evaluate
for name in ngdiff.__all__:
    assert getattr(ngdiff, name) is not None and name in dir(ngdiff)
    assert isinstance(getattr(ngdiff, name), types.ModuleType) == (name not in ngdiff._HOME)
try:
    ngdiff.nothing
except AttributeError as error:
    assert "NGDiff" in str(error)
else:
    raise SystemExit("ngdiff.nothing exists")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
