"""The output folder of SemEval-2025 Task 4's evaluator: csv files of each fold and of the MIA.

They are `forget_*.csv`, `retain_*.csv` and `mia_results/*.csv`.

The files are read as the evaluator reads them, by pandas with its defaults: an empty, "None" or
"NA" output is the word "nan". What pandas would take silently (a line of too few fields) is
refused.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

from ngdiff.data.real.semeval_rows import kind as kind_of
from ngdiff.data.tables import fields
from ngdiff.evaluation import mmlu as mmlu_file
from ngdiff.evaluation import sight, terms
from ngdiff.store.textfile import text_of

COLUMNS = ("id", "task", "expected_output", "model_output")
KINDS = {"regurgitation-score": "sc", "knowledge-score": "qa"}


def score(path: Path, mmlu: Path | None = None) -> tuple[dict[str, Any], list[str]]:
    """`terms.score` of a folder, and warnings.

    MIA is scored where `mia_results` is there, MMLU with a metrics.json.

    Errors: FileNotFoundError for a folder, or a split, without files; ValueError naming file and
    row for what is not csv, a missing column, a line of another length than the header, an id that
    is neither sc nor qa, an empty task, a loss that is no number; naming the task where it has no
    row of a kind.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"no folder {path}: the evaluator's output folder, with forget_*.csv and retain_*.csv"
        )
    warnings: list[str] = []
    forget, retain = (_rows(path, split, warnings) for split in ("forget", "retain"))
    member, nonmember = None, None
    attack = path / "mia_results"
    if any(attack.glob("*member_*.csv")):
        member, nonmember = (_losses(attack, side) for side in ("member", "nonmember"))
    for split, rows in (("forget", forget), ("retain", retain)):
        warnings += _odd_tasks(path, split, rows)
        told = [str(row["expected_output"]) for row in rows if terms.kind(row["id"]) == "sc"]
        warnings += [f"{path}/{split}_*.csv: {line}" for line in sight.unseen(told)]
    accuracy = None if mmlu is None else mmlu_file.read(mmlu)
    if accuracy is not None and accuracy < mmlu_file.THRESHOLD:
        warnings.append(
            f"{mmlu}: MMLU is {accuracy}; a 7B entry must stay above {mmlu_file.THRESHOLD}"
        )
    result = terms.score(forget, retain, member, nonmember, accuracy)
    parts = {"mia_results": member, "an MMLU metrics.json (--mmlu)": accuracy}
    if missing := [name for name, part in parts.items() if part is None]:
        warnings.append(
            f"{path}: no final score, so its aggregate-score is -1: "
            f"it needs {' and '.join(missing)} too"
        )
    _check_defined(path, result)
    return result, warnings


def _odd_tasks(path: Path, split: str, rows: list[dict[str, Any]]) -> list[str]:
    """A warning where the tasks of a split are not the three of the benchmark."""
    tasks = {row["task"] for row in rows}
    odd = sorted(tasks ^ set(terms.TASKS))
    what = ", ".join(f"{task} is {'unknown' if task in tasks else 'missing'}" for task in odd)
    place = f"{path}/{split}_*.csv"
    return [f"{place}: {what}; the aggregate is of other terms than the task's twelve"] * bool(odd)


def _check_defined(path: Path, result: dict[str, Any]) -> None:
    """ValueError naming the first task without a row of a kind, whose score is NaN."""
    for split in ("forget", "retain"):
        for task, scores in result[f"{split}-set"].items():
            for name, value in scores.items() if isinstance(scores, dict) else ():
                if math.isnan(value):
                    raise ValueError(
                        f"{path}/{split}_*.csv: {task} has no {KINDS[name]} row, so the {name} is "
                        "undefined"
                    )


def _rows(folder: Path, split: str, warnings: list[str]) -> list[dict[str, Any]]:
    """The rows of a split; ids and tasks are checked."""
    table, places = _table(folder, split, COLUMNS)
    rows = [
        dict(zip(COLUMNS, values)) for values in zip(*(table[name].tolist() for name in COLUMNS))
    ]
    if not rows:
        raise ValueError(f"{folder}/{split}_*.csv: a header and no row: nothing to score")
    odd = []
    for row, place in zip(rows, places):
        if row["task"] != row["task"]:  # NaN: an empty cell
            raise ValueError(f"{place}: the task is empty, where a name such as Task1 is needed")
        row["id"] = str(row["id"])
        if terms.kind(row["id"]) is None:
            try:
                kind_of(row["id"])
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
            odd.append(f"{row['id']!r} ({place})")
    if odd:
        warnings.append(
            f"{len(odd)} rows are left out, as by the evaluator, which reads one digit: the first "
            f"is {odd[0]}"
        )
    if double := [id for id, n in Counter(row["id"] for row in rows).items() if n > 1]:
        warnings.append(
            f"{folder}/{split}_*.csv: {len(double)} ids stand more than once, as {double[0]!r}; "
            "each row counts"
        )
    return rows


def _losses(folder: Path, side: str) -> list[float]:
    table, places = _table(folder, side, ("nll",))
    losses = table["nll"].tolist()
    if not losses:
        raise ValueError(f"{folder}/{side}_*.csv: a header and no row: the MIA needs both sides")
    for loss, place in zip(losses, places):
        if isinstance(loss, bool) or not isinstance(loss, (int, float)) or math.isnan(loss):
            raise ValueError(
                f"{place}: the nll is {loss!r}, where a number is needed (empty: the model has "
                "collapsed)"
            )
    return losses


def _table(folder: Path, prefix: str, columns: tuple[str, ...]) -> tuple[Any, list[str]]:
    """All PREFIX_*.csv under one another, and "file, row n" of each row."""
    import pandas

    files = sorted(folder.glob(f"{prefix}_*.csv"))
    if not files:
        raise FileNotFoundError(f"no {prefix}_*.csv in {folder}")
    tables, places = [], []
    for file in files:
        text = text_of(file)
        for _ in fields(text, file):  # what pandas would fill up is refused
            pass
        try:
            table = pandas.read_csv(io.StringIO(text))
        except ValueError as error:  # pandas' own are ValueErrors
            raise ValueError(f"{file}: not a whole csv file: {error}".strip()) from error
        if missing := [name for name in columns if name not in table]:
            raise ValueError(
                f"{file}: the column {missing[0]} is missing, it has "
                f"{', '.join(map(str, table.columns))}"
            )
        tables.append(table)
        places += [f"{file}, row {n}" for n in range(1, len(table) + 1)]
    return pandas.concat(tables, ignore_index=True), places
