"""LUME's rows by their ids: a document, and the kind of what is asked of it.

`<document>sc1` is a sentence to complete, `<document>qa<k>` a question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ngdiff.data.benchmark import Row

TASKS = ("Task1", "Task2", "Task3")
ID = re.compile(r"(.+)(sc|qa)\d+", re.DOTALL)


def _parts(id: str) -> tuple[str, str]:
    if (match := ID.fullmatch(id)) is None:
        raise ValueError(
            f"the id {id!r} ends in neither sc<number> nor qa<number>: "
            "a row needs a document and a kind"
        )
    return match[1], match[2]


def document(id: str) -> str:
    """The document of a row's id: `"8f24…"sc1` (literal quotes, Task1) -> `"8f24…"`.

    Error: ValueError.
    """
    return _parts(id)[0]


def kind(id: str) -> str:
    """What a row's id ends in, "sc" or "qa", whatever the digits of the number that follows.

    Error: ValueError for an id that has neither.

    The organisers' evaluator takes off one character and scores nothing where neither stands then,
    `…qa10` for one (`evaluate.terms.kind`). No row of LUME has such an id.
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
    """The whole documents of one task, as rows without a question.

    One is input and output of each "sc" row, joined by a space.
    """
    whole = [row for row in rows if row["task"] == task and kind(row["id"]) == "sc"]
    return [
        {"question": "", "answer": f"{row['question']} {row['answer']}", "id": document(row["id"])}
        for row in whole
    ]
