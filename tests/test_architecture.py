"""The plan, read from the source: what may import what, what a light import loads, sizes.

Sizes are those of files, functions and lines.
"""

from __future__ import annotations

import ast
import graphlib
import itertools
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ngdiff"
# bottom up: a folder imports itself and what stands before it, lazily and for annotations too
ORDER = (
    *("zoo", "profiles", "store", "core", "theory", "engine", "data", "lm", "methods"),
    *("evaluation", "study", "score", "figures", "timing", "book"),
    *("__init__", "commands", "__main__"),
)
LANGUAGE = {"transformers", "tokenizers", "datasets", "peft", "accelerate", "rouge_score"}


def modules() -> dict[str, Path]:
    """Dotted name inside the package -> file.

    A folder's __init__ is called by the folder, the package's own __init__.
    """
    files = {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path
        for path in PACKAGE.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in files.items()}


def resolve(full: str, known: dict[str, Path]) -> str:
    """The module that `ngdiff.…` names.

    A name inside a module counts as that module, a name of the package as `__init__`.
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


HEAVY = {"torch", "transformers", "datasets", "pandas", "numpy", "matplotlib"}
HEAVY |= {"papermill", "jupytext"}


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


# -------------------------------------------------------------------------------------------- sizes
FILE, FUNCTION, LINE = 300, 40, 100  # lines, lines without the docstring, columns


def long_files() -> set[str]:
    """Files of the package over the limit, named from the package."""
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text("utf-8").splitlines()) > FILE
    }


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, int]]:
    """(dotted name, lines without decorators and docstring) of every function, inner ones too."""
    for node in ast.iter_child_nodes(tree):
        name = f"{inside}{getattr(node, 'name', '')}"
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            told = node.body[0] if ast.get_docstring(node) is not None else None
            spent = told.end_lineno - told.lineno + 1 if told else 0
            yield name, node.end_lineno - node.lineno + 1 - spent
        named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        yield from functions(node, f"{name}." if named else inside)


def long_functions() -> set[str]:
    """Functions of the package over the limit, as file:name."""
    return {
        f"{path.relative_to(PACKAGE).as_posix()}:{name}"
        for path in PACKAGE.rglob("*.py")
        for name, lines in functions(ast.parse(path.read_text("utf-8")))
        if lines > FUNCTION
    }


def sources() -> Iterator[tuple[str, list[str]]]:
    """(where, lines) of each file of code; of a notebook its code cells, one by one."""
    for path in itertools.chain(PACKAGE.rglob("*.py"), (ROOT / "tests").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8").splitlines()
    for path in (ROOT / "notebooks").rglob("*.py"):
        where = path.relative_to(ROOT).as_posix()
        for cell in jupytext.read(path).cells:
            if cell.cell_type == "code":
                yield where, cell.source.splitlines()


def test_how_many_lines_a_function_has() -> None:
    text = """
@decorated
def outer(
    x,
):
    '''Two
    lines.'''
    def inner(): pass
    return x
class C:
    async def method(self): pass
"""
    assert dict(functions(ast.parse(text))) == {"outer": 5, "outer.inner": 1, "C.method": 1}


@pytest.mark.parametrize("found", [long_files, long_functions], ids=["files", "functions"])
def test_nothing_grows_too_long(found) -> None:
    assert not found(), f"split along its ideas: {sorted(found())}"


def test_lines_fit_on_the_page_and_no_comment_stops_the_formatter() -> None:
    wide = [f"{where}: {line}" for where, lines in sources() for line in lines if len(line) > LINE]
    assert not wide, f"over {LINE} columns: {wide}"
    for path in itertools.chain(*(ROOT.glob(f"{top}/**/*.py") for top in ("ngdiff", "tests"))):
        with path.open("rb") as file:
            said = [t for t in tokenize.tokenize(file.readline) if t.type == tokenize.COMMENT]
        off = [t.string for t in said if "fmt:" in t.string]
        assert not off, f"{path}: {off}"
