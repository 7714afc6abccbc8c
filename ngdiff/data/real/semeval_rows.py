"""A row of SemEval-2025 Task 4: what its values must be, and what its id says.

A row `id, input, output, task` becomes {"question": input, "answer": output, "id", "task"},
verbatim. Task1 are synthetic stories, Task2 synthetic biographies with numbers and addresses, Task3
real biographies; `<document>sc1` is a sentence to complete, `<document>qa<k>` a question. A model
is trained on input, one space, output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ngdiff.data import sources
from ngdiff.data.benchmark import Prompt, Row

TASKS = ("Task1", "Task2", "Task3")
PROMPT = Prompt("", "", " ")
ID = re.compile(r"(.+)(sc|qa)\d+", re.DOTALL)
ROW = ("id", "input", "output", "task")


def _parts(id: str) -> tuple[str, str]:
    if (match := ID.fullmatch(id)) is None:
        raise ValueError(
            f"the id {id!r} ends in neither sc<number> nor qa<number>: a row needs a document and "
            "a kind"
        )
    return match[1], match[2]


def document(id: str) -> str:
    """The document of a row's id: `"8f24…"sc1` (with literal quotes, Task1) -> `"8f24…"`. Error:
    ValueError.
    """
    return _parts(id)[0]


def kind(id: str) -> str:
    """ "sc" or "qa", whatever the number that follows has of digits. Error: ValueError for an id
    that has neither.

    The organisers' evaluator takes off one character and scores nothing where neither stands then,
    `…qa10` for one (`evaluation.terms.kind`). No row of LUME has such an id.
    """
    return _parts(id)[1]


def first(rows: Sequence[Row], documents: int | None) -> list[Row]:
    """The rows of the first so many documents of each task, in their order; all rows for None."""
    met: dict[str, dict[str, None]] = {task: {} for task in TASKS}
    for row in rows:
        met[row["task"]].setdefault(document(row["id"]))
    kept = {(task, name) for task, names in met.items() for name in list(names)[:documents]}
    return [row for row in rows if (row["task"], document(row["id"])) in kept]


def documents_of(rows: Iterable[Row], task: str = "Task3") -> list[Row]:
    """The whole documents of one task, as rows without a question: input and output of each "sc"
    row, joined by a space.
    """
    whole = [row for row in rows if row["task"] == task and kind(row["id"]) == "sc"]
    return [
        {"question": "", "answer": f"{row['question']} {row['answer']}", "id": document(row["id"])}
        for row in whole
    ]


def row_of(value: Any, where: str) -> Row:
    """The row of a JSON value. Errors: ValueError that begins with `where`."""
    texts = {key: sources.text(_object(value, where), key, where) for key in ROW}
    if texts["task"] not in TASKS:
        raise ValueError(
            f"{where}: unknown task {texts['task']!r}; the tasks are {', '.join(TASKS)}"
        )
    if ID.fullmatch(texts["id"]) is None:
        raise ValueError(
            f"{where}: the id {texts['id']!r} ends in neither sc<number> nor qa<number>"
        )
    return {
        "question": texts["input"],
        "answer": texts["output"],
        "id": texts["id"],
        "task": texts["task"],
    }


def document_row(value: Any, where: str) -> Row:
    """The row, without a question, of a document {id, document}. Errors as of `row_of`."""
    text = sources.text(_object(value, where), "document", where)
    return {"question": "", "answer": text, "id": _id(value, where)}


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: no object but {type(value).__name__}")
    return value


def _id(value: dict[str, Any], where: str) -> str:
    """The id of a document, a number or text."""
    if "id" not in value:
        raise ValueError(f"{where}: no 'id' (its keys: {', '.join(value)})")
    return str(value["id"])
