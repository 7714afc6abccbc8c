"""What is in the repository, as blocks of the README and the docs.

Notebooks, folders, methods, conventions, the map of the paper: read off the sources themselves.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ngdiff.book import build as book
from ngdiff.book.saved import NOT_RUN, saved
from ngdiff.core.autolr import AutoLR
from ngdiff.evaluation.conventions import CONVENTIONS
from ngdiff.methods import lookup
from ngdiff.store.table import Column, Link, Table

Row = dict[str, Any]
PAPER = "notebooks/10_every_figure.py"  # the page that holds the map
PLAN = "tests/test_architecture.py"  # the file that holds the order of the folders


def notebooks(root: Path) -> str:
    """Return the table of notebooks: number, question, seconds (`ngdiff reproduce --alone`)."""
    seconds = {r["name"]: r for r in saved(root / "data/results/tiny/times.jsonl")}
    lines = []
    for source in (path for path in book.sources(root / "notebooks") if path.stem != "cell"):
        name = source.stem
        page, question = Link(name[:2], f"notebooks/{name}.ipynb"), book.header(source).question
        lines.append({"page": page, "question": question, **seconds.get(name, {})})
    if not lines:
        return NOT_RUN
    machine = {f"{r['stamp']['device']}, {r['stamp']['cpus']} cores" for r in seconds.values()}
    how = "each notebook alone, from an empty cache"
    if not all(r["alone"] for r in seconds.values()):
        how = "one `make reproduce` from an empty cache, two notebooks at a time"
    note = f"\n\nSeconds: {how} ({', '.join(sorted(machine))})." if machine else ""
    columns = (Column("page", ""), Column("question"), Column("seconds", None, ".0f", "right"))
    return Table(columns, lines, missing=NOT_RUN).markdown() + note


# ------------------------------------------------------------------------------------- the folders
def order(root: Path) -> list[str]:
    """Return the package's folders, bottom up: each one imports only those before it.

    The order is the constant ORDER of the test that holds the package to it.
    """
    source = root / PLAN
    tree = ast.parse(source.read_text("utf-8") if source.is_file() else "")
    plan = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
    ]
    constants = (n.value for value in plan for n in ast.walk(value) if isinstance(n, ast.Constant))
    names = [str(constant) for constant in constants]
    return [name for name in names if (root / "ngdiff" / name / "__init__.py").is_file()]


def purpose(root: Path, folder: str) -> str:
    """Return the first sentence of a folder's docstring."""
    source = (root / "ngdiff" / folder / "__init__.py").read_text("utf-8")
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
    return text.split(". ")[0].removesuffix(".")


def tree(root: Path) -> str:
    """Return the package's folders with what each is for, bottom up.

    What stands before a colon is enough, unless it is one word or a command.
    """
    lines = []
    for name in order(root):
        whole = purpose(root, name)
        head = whole.split(": ")[0]
        short = " " in head and "`" not in head
        lines.append(f"  {f'{name}/':<12} {head if short else whole}")
    return "\n".join(["```", "ngdiff/", *lines, "```"]) if lines else NOT_RUN


def folders(root: Path) -> str:
    """Return the folders as a table, bottom up, with all that each is for."""
    lines = [{"folder": f"ngdiff/{name}", "what": purpose(root, name)} for name in order(root)]
    columns = (Column("folder"), Column("what", "what lives there", _spoken))
    return Table(columns, lines).markdown() if lines else NOT_RUN


def _spoken(text: str) -> str:
    """Return a text without the marks of code, which a cell would show."""
    return text.replace("`", "")


# ------------------------------------------------------------------------- methods and conventions
def methods(root: Path) -> str:
    """Return the package's methods: name on the command line, label, what they are made of."""
    if not (root / "ngdiff").is_dir():
        return NOT_RUN
    lines = [
        {"key": key, "name": m.name, "rule": m.direction, "retain": m.retain, "forget": m.forget}
        for key, m in lookup.METHODS.items()
    ]
    columns = (
        Column("key", "on the command line"),
        Column("name", "in tables"),
        *(Column(part, head, repr) for part, head in _PARTS.items()),
    )
    return Table(columns, lines).markdown()


_PARTS = {"rule": "direction", "retain": "retain objective", "forget": "forget objective"}


def autolr_fields(root: Path) -> str:
    """Return AutoLR's fields: name, default, and what its docstring says of each."""
    if not (root / "ngdiff").is_dir():
        return NOT_RUN
    said = dict(
        re.findall(r"^(\w+): (.+?)(?=\n\w+: |\n\n|\Z)", inspect.getdoc(AutoLR) or "", _WIDE)
    )
    lines = [{"field": f.name, "default": f.default, "text": said[f.name]} for f in fields(AutoLR)]
    columns = (
        Column("field"),
        Column("default", format="g", align="right"),
        Column("text", "meaning", _one_line),
    )
    return Table(columns, lines).markdown()


_WIDE = re.MULTILINE | re.DOTALL


def _one_line(text: str) -> str:
    return " ".join(text.split())


def conventions(root: Path) -> str:
    """Return what each convention does differently, as its class says."""
    if not (root / "ngdiff").is_dir():
        return NOT_RUN
    found = []
    for name, how in CONVENTIONS.items():
        suites = ", ".join(how.suites) or "all"
        text = (inspect.getdoc(type(how)) or "").partition("\n\nname  ")[0]
        found.append(f"### The convention `{name}`\n\nBenchmarks: {suites}. {text}")
    return "\n\n".join(found)


def paper_map(root: Path) -> str:
    """Return the table of notebook 10: part of the paper, notebook, our file, status."""
    page = root / PAPER
    text = page.read_text("utf-8") if page.exists() else ""
    lines = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# |")]
    return "\n".join(lines) or NOT_RUN


BLOCKS: dict[str, Callable[[Path], str]] = {
    **{"notebooks": notebooks, "tree": tree, "folders": folders, "map": paper_map},
    **{"methods": methods, "conventions": conventions, "fields": autolr_fields},
}
