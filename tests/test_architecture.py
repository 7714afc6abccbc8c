"""The direction of the arrows: what may import what, read from the source, and what a light import
may load.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ngdiff"
# bottom up: a folder imports itself and what stands before it, lazily and for annotations too
ORDER = (
    *(
        "zoo",
        "profiles",
        "store",
        "core",
        "theory",
        "engine",
        "data",
        "lm",
        "methods",
        "evaluation",
        "study",
    ),
    *("score", "figures", "timing", "book", "__init__", "commands", "__main__"),
)
LANGUAGE = {"transformers", "tokenizers", "datasets", "peft", "accelerate", "rouge_score"}


def modules() -> dict[str, Path]:
    """Dotted name inside the package -> file; a folder's __init__ is called by the folder, the
    package's __init__.
    """
    files = {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path
        for path in PACKAGE.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in files.items()}


def resolve(full: str, known: dict[str, Path]) -> str:
    """The module that `ngdiff.…` names: a name inside a module counts as that module, a name of the
    package as `__init__`.
    """
    parts = full.split(".")[1:]
    return next(
        (".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in known),
        "__init__",
    )


def imports(path: Path) -> set[str]:
    """Everything a file imports, as dotted names, wherever the statement stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def arrows() -> dict[str, set[str]]:
    """Module -> the modules it imports."""
    known = modules()
    inside = {
        name: {resolve(full, known) for full in imports(path) if full.split(".")[0] == "ngdiff"}
        for name, path in known.items()
    }
    return {name: targets - {name} for name, targets in inside.items()}


def place(name: str) -> int:
    return ORDER.index(name.split(".")[0])


def test_the_arrows_go_one_way() -> None:
    wrong = [
        f"{a} -> {b}" for a, targets in arrows().items() for b in targets if place(b) > place(a)
    ]
    assert not wrong, f"against the order of the folders: {sorted(wrong)}"


def test_the_order_names_what_is_there() -> None:
    assert {name.split(".")[0] for name in modules()} == set(ORDER)


def test_no_import_cycles() -> None:
    try:
        tuple(graphlib.TopologicalSorter(arrows()).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_few_files_at_the_top_and_each_folder_says_what_lives_there() -> None:
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 6
    for name, path in modules().items():
        assert path.name != "__init__.py" or ast.get_docstring(
            ast.parse(path.read_text("utf-8"))
        ), name


def test_the_core_knows_no_language_model() -> None:
    for name in modules():
        if name.split(".")[0] in ("core", "theory"):
            assert not {full.split(".")[0] for full in imports(modules()[name])} & LANGUAGE, name


def test_every_module_and_public_name_is_what_it_says() -> None:
    """`import ngdiff.a.b as m` gives the module: no package has a function by the name of one of
    its modules. With all of them imported, a public name is still what its home defines.
    """
    names = [f"ngdiff.{name}" for name in modules() if not name.endswith("__")]
    code = (
        f"import sys, types, ngdiff\nassert ngdiff.__file__ == {str(PACKAGE / '__init__.py')!r}\n"
    )
    code += "\n".join(
        f"import {name} as m; assert getattr(m, '__name__', m) == {name!r}, m" for name in names
    )
    code += """
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
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr


def loaded_by(*arguments: str) -> set[str]:
    code = (
        "import runpy, sys\n"
        f"sys.argv = {list(arguments)!r}\n"
        "try:\n    runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
        "except SystemExit:\n    pass\n"
        "print('\\nLOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert "LOADED" in done.stdout, done.stderr
    return {name.split(".")[0] for name in done.stdout.split("LOADED")[1].split()}


HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "pandas",
    "numpy",
    "matplotlib",
    "papermill",
    "jupytext",
}


def test_import_is_light() -> None:
    code = "import ngdiff, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
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
