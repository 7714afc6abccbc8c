"""The code that a number depends on: the import closure of the module that makes it, hashed.

A cached number is valid only for the code that made it. Which files that is, is read from the
imports themselves, so no list of modules is kept by hand:

    closure("ngdiff.study.trials")      what trials imports, what those modules import, and so on
    fingerprint("ngdiff.study.trials")  one hash of their sources
    fingerprint_of(text)                the same for everything that a notebook's source imports

An import counts wherever it stands, also inside a function. Imports for annotations only (`if
TYPE_CHECKING:`) do not count: they run no code. A name that a package loads on first use
(`ngdiff.NGDiff`) counts as the module that defines it. Comments, docstrings and layout are left out
of the hash, so better wording makes no number again.

Each file is read once per process: a file that is edited while a kernel runs changes nothing for
that kernel, which still executes what it has imported.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]  # of the package
BODIES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def closure(module: str, home: Path = HOME) -> tuple[str, ...]:
    """Return the names of all package modules that importing and using `module` can run.

    They are sorted; `module` is one of them.

    Errors: ValueError for a name that is no module of the package, and for a module of the closure
    that imports another one by a computed name, which no closure can follow.
    """
    if module not in _files(home):
        raise ValueError(f"{module} is no module of {home}: its sources cannot be hashed")
    return _reached({module}, home)


def fingerprint(module: str, home: Path = HOME) -> str:
    """Return the sha256 (hex) of the sources of `closure(module)`.

    Comments and docstrings are left out.
    """
    return _digest(closure(module, home), home)


def closure_of(text: str, home: Path = HOME) -> tuple[str, ...]:
    """Return the names of all package modules that a Python source can run, sorted.

    text: the source, a notebook's say.
    """
    return _reached(set(_imports(_Source.of(text), home.name, home)), home)


def fingerprint_of(text: str, home: Path = HOME) -> str:
    """Return the sha256 (hex) of the sources of `closure_of(text)`."""
    return _digest(closure_of(text, home), home)


# --------------------------------------------------------------------------------------- one source
@dataclass(frozen=True)
class _Source:
    """What the closure needs of a file.

    Its imports, dotted names, names for type checkers, and its bare text.
    """

    imports: tuple[ast.Import | ast.ImportFrom, ...]
    attributes: tuple[ast.Attribute, ...]
    lazy: tuple[ast.ImportFrom, ...]  # under `if TYPE_CHECKING:`
    computed: bool  # imports a module by a name that is no constant
    text: str

    @classmethod
    @cache  # by the text: the same text is parsed once, whichever file it stands in
    def of(cls, text: str) -> _Source:
        tree = ast.parse(text)
        imports: list[ast.Import | ast.ImportFrom] = []
        attributes: list[ast.Attribute] = []
        lazy: list[ast.ImportFrom] = []
        computed = False
        todo: list[ast.AST] = [tree]
        while todo:
            node = todo.pop()
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                lazy += [n for n in node.body if isinstance(n, ast.ImportFrom)]
                todo += node.orelse
                continue
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                imports.append(node)
            elif isinstance(node, ast.Attribute):
                attributes.append(node)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                computed |= not isinstance(node.args[0], ast.Constant)
            todo += ast.iter_child_nodes(node)
        for node in ast.walk(tree):
            if isinstance(node, BODIES) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        return cls(tuple(imports), tuple(attributes), tuple(lazy), computed, ast.unparse(tree))


@cache
def _source(file: Path) -> _Source:
    return _Source.of(file.read_text("utf-8"))


@cache
def _files(home: Path) -> dict[str, Path]:
    """Map each dotted module name of the package to its file, a package's to its `__init__.py`."""
    names = {
        path: (home.name, *path.relative_to(home).with_suffix("").parts)
        for path in home.rglob("*.py")
    }
    return {
        ".".join(parts).removesuffix(".__init__"): path for path, parts in sorted(names.items())
    }


# ------------------------------------------------------------------------------------------ closure
def _reached(todo: set[str], home: Path) -> tuple[str, ...]:
    """Follow the imports of these modules until nothing new is found."""
    found: set[str] = set()
    while todo:
        name = todo.pop()
        found.add(name)
        file = _files(home)[name]
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        if _source(file).computed and not _lazy(name, home):
            raise ValueError(
                f"{name} imports a module by a computed name, so it is not known which code its "
                "numbers depend on: write the import out"
            )
        todo |= set(_imports(_source(file), package, home)) - found
    return tuple(sorted(found))


@cache
def _digest(modules: tuple[str, ...], home: Path) -> str:
    parts = (f"{name}\n{_source(_files(home)[name]).text}\n" for name in modules)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _imports(source: _Source, package: str, home: Path) -> Iterator[str]:
    """Yield the package modules that a source imports, and the packages they lie in.

    package: the one that relative imports start from. A name read off an imported package
    (`ng.target` after `import ngdiff as ng`) is an import of the module that defines it.
    """
    bound: dict[str, str] = {}  # local name -> package module
    for node in source.imports:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _around(alias.name, home)
                bound[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else home.name
                )
            continue
        start = _absolute(node, package)
        yield from _around(start, home)
        for alias in node.names:
            if (found := _defined(start, alias.name, home)) is not None:
                yield from _around(found, home)
                if found == f"{start}.{alias.name}":
                    bound[alias.asname or alias.name] = found
    for attribute in source.attributes:
        if (start := _dotted(attribute.value, bound)) and (
            found := _defined(start, attribute.attr, home)
        ):
            yield from _around(found, home)


def _dotted(node: ast.expr, bound: dict[str, str]) -> str:
    """Return the dotted name that an expression such as `ng.data` stands for, else ""."""
    if isinstance(node, ast.Name):
        return bound.get(node.id, "")
    start = _dotted(node.value, bound) if isinstance(node, ast.Attribute) else ""
    return f"{start}.{node.attr}" if start and isinstance(node, ast.Attribute) else ""


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """Return the module that `from … import` reads, as an absolute name."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join(
        [*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])]
    )


def _around(name: str, home: Path) -> Iterator[str]:
    """Yield a module of the package and the packages around it, whose `__init__` runs first."""
    parts = name.split(".")
    yield from (
        part for n in range(1, len(parts) + 1) if (part := ".".join(parts[:n])) in _files(home)
    )


@cache
def _lazy(package: str, home: Path) -> dict[str, str]:
    """Map the names that a package loads on first use to the modules that define them.

    A package declares them for type checkers.
    """
    file = _files(home).get(package)
    if file is None or file.name != "__init__.py":
        return {}
    table = {}
    for node in _source(file).lazy:
        start = _absolute(node, package)
        for alias in node.names:
            inner = f"{start}.{alias.name}"
            table[alias.asname or alias.name] = inner if inner in _files(home) else start
    return table


def _defined(start: str, name: str, home: Path) -> str | None:
    """Return the module that `name`, read off the module `start`, is or comes from.

    None where it is a plain value.
    """
    inner = f"{start}.{name}"
    return inner if inner in _files(home) else _lazy(start, home).get(name)
