"""The parameters of a notebook: one checked form for all pages, without torch.

Papermill, `ngdiff reproduce` and a reader's own edit give the same parameter in different forms
(`-p seeds '[0]'` is a text, `-y 'seeds: [0]'` a list). `checked` takes all of them, returns one,
and says what is wrong with the rest before a page has imported or written anything.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ngdiff.evaluation.spelling import which
from ngdiff.profiles import profile
from ngdiff.store import paths

NUMBERS = r"\s*\d+(?:\s*,\s*\d+)*\s*,?\s*"
SEEDS = re.compile(rf"{NUMBERS}|\s*\[{NUMBERS}\]\s*|\s*\({NUMBERS}\)\s*", re.ASCII)


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters, each in its one form.

    Errors: one ValueError that names every parameter that is wrong, with a right example;
    KeyError for a parameter that no reader knows.
    """
    found, wrong = {}, []
    for name, value in given.items():
        read, example = READERS[name]
        try:
            found[name] = read(value)
        except (ValueError, TypeError, SyntaxError, OSError) as error:
            why = " ".join(str(error).split())
            wrong.append(f"{name} = {value!r}: {why}; for example {name} = {example}")
    if wrong:
        raise ValueError("\n".join(wrong))
    return found


def declared(text: str, source: Path) -> dict[str, Any]:
    """Return names and default values of a cell of parameters. source: the file it stands in.

    Errors: ValueError for a line that is not `name: type = literal`.
    """
    found = {}
    for statement in ast.parse(text).body:
        try:
            name, value = _assigned(statement)
            found[name] = ast.literal_eval(value)
        except ValueError as error:
            line = ast.unparse(statement)
            raise ValueError(
                f"{source}: parameters are `name: type = literal` lines; {line!r} is not"
            ) from error
    return found


def _assigned(statement: ast.stmt) -> tuple[str, ast.expr]:
    """Return the name and the value of `name = value` or `name: type = value`."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as given):
            return name, given
    raise ValueError("no assignment to a name")


def _seeds(value: Any) -> tuple[int, ...]:
    """Return seeds as a tuple: 0, "0,1", "[0, 1]", (0, 1) and [0, 1] are seeds."""
    if isinstance(value, str):
        value = list(map(int, re.findall(r"\d+", value))) if SEEDS.fullmatch(value) else None
    seeds = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError("write whole numbers from 0 on, separated by commas")
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed stands there twice")
    return seeds


def _flag(value: Any) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise ValueError("write True or False")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("write a text in quotes")
    return value.strip()


def _profile(value: Any) -> str:
    return profile(_text(value)).name


def _data(value: Any) -> str:
    """Return the spelling of some rows. Errors: ValueError, FileNotFoundError."""
    text = _text(value)
    which(text).need("the folder")
    return text


def _folder(value: Any) -> str:
    """Return the folder of rows that a text names, "" for none.

    It is a path from here or from the checkout, or the name of a folder in data/results.
    """
    text, root = _text(value), paths.checkout() or Path.cwd()
    places = [Path(text).expanduser(), root / text, root / "data" / "results" / text]
    found = next((place for place in places if place.is_dir()), None)
    if text and found is None:
        raise FileNotFoundError("there is no such folder, here or in data/results")
    return str(found.resolve()) if text and found else ""


def _count(value: Any) -> int:
    value = _literal(value)
    if type(value) is not int or value < 0:
        raise ValueError("write a whole number from 0 on")
    return value


def _rate(value: Any) -> float:
    value = _literal(value)
    if type(value) not in (int, float) or not (value > 0 and math.isfinite(value)):
        raise ValueError("write a number above 0")
    return float(value)


def _literal(value: Any) -> Any:
    return ast.literal_eval(value.strip()) if isinstance(value, str) else value


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"write one of {', '.join(words)}")
        return str(value)

    return read


# name -> its reader, and an example of how it is written in Python
READERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "profile": (_profile, '"tiny"'),
    "seeds": (_seeds, "(0, 1)"),
    "refresh": (_flag, "False"),
    "smoke": (_flag, "True"),
    "data": (_data, '"hub"'),
    "model": (_text, '"smollm2"'),
    "rows": (_folder, '"data/results/tiny"'),
    "benchmark": (_data, '"authors"'),
    "split": (_text, '"forget10"'),
    "method": (_text, '"ngdiff"'),
    "stepsize": (_text, '"autolr"'),
    "lr": (_rate, "1e-3"),
    "target_seed": (_count, "0"),
    "steps": (_count, "100"),
    "optimizer": (_one_of("adamw", "sgd"), '"adamw"'),
    "rule": (_one_of("matched", "fixed"), '"matched"'),
    "out": (_text, '"rows.jsonl"'),
}
