"""MUSE's prompts and responses as text, and how long texts fit into the model's context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ngdiff.lm.tokens import IGNORE, Example

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Row
    from ngdiff.lm.model import LM

ANSWER = 32  # new tokens of an answer
STOPS = ("\n\n", "\nQuestion", "Question:")  # an answer is cut at each, one after the other


def prompt(row: Row, shots: Sequence[Row]) -> str:
    """Return knowmem's prompt: the pairs of the shots, then the row's question."""
    pairs = "".join(f"Question: {shot['question']}\nAnswer: {shot['answer']}\n\n" for shot in shots)
    return f"{pairs}Question: {row['question']}\nAnswer: "


def one_answer(text: str) -> str:
    """Return a response up to the next question."""
    for stop in STOPS:
        text = text.split(stop)[0]
    return text


def last(lm: LM, ids: list[int], n: int) -> list[int]:
    """Return at most n tokens: the last ones, behind the text's BOS if it has one."""
    if len(ids) <= n or ids[0] != lm.tokenizer.bos_token_id:
        return ids[-n:]
    return ids[:1] + ids[len(ids) - n + 1 :]


def window(lm: LM, ids: list[int], start: int, n: int) -> Example:
    """Return a prompt and at most n labelled tokens from `start` on, within the model's context.

    The prompt loses its beginning first, then the continuation its end.
    """
    told = ids[start : start + min(n, lm.context - 1 if lm.context else n)]
    given = ids[:start]
    if lm.context:
        given = last(lm, given, max(1, lm.context - len(told)))
    return Example(given + told, [IGNORE] * len(given) + told)
