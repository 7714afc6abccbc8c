"""The forms in which people keep their training rows, and the row that each becomes.

    {"question", "answer"}              the answer is learned, given the question
    {"text"}                            a document, all of it learned
    {"prompt", "completion"}            texts, or turns of a chat
    {"input", "output"}                 SemEval's
    {"instruction", "input", "output"}  alpaca's: question = instruction, a line end, input (if any)
    {"messages"}, {"conversations"}     a chat of one question and one answer; roles under "role"
                                        or "from", texts under "content" or "value"

A null is absent. What a row has beside its form is named, not used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ngdiff.data.benchmark import Row
from ngdiff.data.sources import text

SHAPE = (
    'write {"question": "…", "answer": "…"}, or {"text": "…"} for a document '
    "(prompt/completion, input/output, instruction/input/output and messages are read too)"
)
ASKS, ANSWERS = ("user", "human"), ("assistant", "gpt", "model")
TURN = (("role", "content"), ("from", "value"))


@dataclass(frozen=True)
class Form:
    """name: in messages. needs, takes: keys. row: (value, where) -> the row and unused keys."""

    name: str
    needs: tuple[str, ...]
    row: Callable[[dict[str, Any], str], tuple[Row, list[str]]]
    takes: tuple[str, ...] = ()


def row(value: Any, where: str) -> tuple[Row, list[str]]:
    """Return the row {"question", "answer"} of a JSON value, and its keys that are not used.

    Errors: ValueError that begins with `where`.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where}: no object but {type(value).__name__}: {SHAPE}")
    given = {key: inner for key, inner in value.items() if inner is not None}
    fits = [form for form in FORMS if given.keys() >= set(form.needs)]
    if any("instruction" in form.needs for form in fits):  # it has the keys of input/output too
        fits = [form for form in fits if form.needs != ("input", "output")]
    form = fits[0] if fits else max(FORMS, key=lambda f: len(given.keys() & set(f.needs)))
    mine = (*form.needs, *form.takes)
    if missing := [key for key in form.needs if key not in given]:
        null = ", ".join(key for key in value if key not in given)
        keys = (", ".join(given) or "none") + (f"; null: {null}" if null else "")
        raise ValueError(f"{where}: no {missing[0]!r} (its keys: {keys}): {SHAPE}")
    rest = [key for key in given if key not in mine]
    if half := [key for key in rest if key in WORDS and given[key] not in ("", [])]:
        both = "a document and a question" if "text" in (*half, *mine) else f"{form.name} and more"
        raise ValueError(
            f"{where}: both {both}: {form.name} is a whole row, and {half[0]!r} belongs to another "
            f"form: drop one; {SHAPE}"
        )
    found, more = form.row(given, where)
    return found, rest + more


def blank(value: Any) -> bool:
    """Return whether a value is a document without a word."""
    given = {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else {}
    found = given.get("text")
    return isinstance(found, str) and not found.strip() and not (given.keys() & (WORDS - {"text"}))


def _texts(question: str, answer: str) -> Callable[[dict[str, Any], str], tuple[Row, list[str]]]:
    def row(value: dict[str, Any], where: str) -> tuple[Row, list[str]]:
        asked, said = (text(value, key, where, f": {SHAPE}") for key in (question, answer))
        return {"question": asked, "answer": said}, []

    return row


def _document(value: dict[str, Any], where: str) -> tuple[Row, list[str]]:
    return {"question": "", "answer": text(value, "text", where, f": {SHAPE}")}, []


def _instruction(value: dict[str, Any], where: str) -> tuple[Row, list[str]]:
    row, _ = _texts("instruction", "output")(value, where)
    if value.get("input", "") != "":
        row["question"] += "\n" + text(value, "input", where)
    return row, []


def _prompt(value: dict[str, Any], where: str) -> tuple[Row, list[str]]:
    prompt, completion = value["prompt"], value["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return _chat([*prompt, *completion], "prompt", where)
    return _texts("prompt", "completion")(value, where)


def _turns(key: str) -> Callable[[dict[str, Any], str], tuple[Row, list[str]]]:
    def row(value: dict[str, Any], where: str) -> tuple[Row, list[str]]:
        return _chat(value[key], key, where)

    return row


def _chat(turns: Any, key: str, where: str) -> tuple[Row, list[str]]:
    """The row of a chat of one question and one answer. Errors: ValueError for any other chat."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{where}: {key!r} is no list of turns {{role, content}}")
    texts, more, roles = [], [], []
    for i, turn in enumerate(turns):
        role, content = next((pair for pair in TURN if pair[0] in turn), TURN[0])
        roles.append(str(turn.get(role)))
        texts.append(text(turn, content, f"{where}, turn {i}"))
        others = (k for k, v in turn.items() if v is not None and k not in (role, content))
        more += [f"{key}.{name}" for name in others]
    if len(roles) != 2 or roles[0] not in ASKS or roles[1] not in ANSWERS:
        raise ValueError(
            f"{where}: a chat of the turns {', '.join(roles) or 'none'}: a row is one question "
            "(user) and one answer (assistant); split longer chats, and put what a system turn "
            "says into the question or leave it out"
        )
    return {"question": texts[0], "answer": texts[1]}, more


FORMS = (
    Form("question/answer", ("question", "answer"), _texts("question", "answer")),
    Form("text", ("text",), _document),
    Form("instruction/output", ("instruction", "output"), _instruction, ("input",)),
    Form("prompt/completion", ("prompt", "completion"), _prompt),
    Form("input/output", ("input", "output"), _texts("input", "output")),
    Form("messages", ("messages",), _turns("messages")),
    Form("conversations", ("conversations",), _turns("conversations")),
)
WORDS = {key for form in FORMS for key in (*form.needs, *form.takes)}
