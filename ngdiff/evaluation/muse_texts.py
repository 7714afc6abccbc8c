"""How MUSE's rows become tokens, and tokens a response, under each convention (`ngdiff.evaluation.muse`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ngdiff.evaluation import texts
from ngdiff.evaluation.conventions import Convention
from ngdiff.lm.model import BARE
from ngdiff.lm.tokens import IGNORE, Example, encode

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Row
    from ngdiff.lm.model import LM

LONGEST = 2048  # tokens of a document, or of a continuation, under open-unlearning
ANSWER = 32  # new tokens of an answer
STOPS = ("\n\n", "\nQuestion", "Question:")  # an answer is cut at each, one after the other


def prompt(row: Row, shots: Sequence[Row] | None) -> str:
    """The text that is continued: verbmem's prompt (shots None), or knowmem's pairs and question."""
    if shots is None:
        return row["question"]
    pairs = "".join(f"Question: {shot['question']}\nAnswer: {shot['answer']}\n\n" for shot in shots)
    return f"{pairs}Question: {row['question']}\nAnswer: "


def ids(lm: LM, text: str, how: Convention) -> list[int]:
    """Tokens of a text, with the tokenizer's special ones; ours: without an EOS that it appends."""
    tokens = list(lm.tokenizer(text, verbose=False)["input_ids"])
    return tokens[:-1] if how.name == "ngdiff" and tokens and tokens[-1] == lm.tokenizer.eos_token_id else tokens


def prompt_ids(lm: LM, text: str, how: Convention) -> list[int]:
    """What generation is given. Ours: the last space is the model's to say, as most vocabularies join it to the next word."""
    return ids(lm, text.rstrip(" ") if how.name == "ngdiff" else text, how)


def asked_ids(lm: LM, text: str, answer: str, how: Convention) -> list[int]:
    """The same of knowmem's pairs and question, which open-unlearning cuts as every row of questions."""
    return texts.prompt_ids(replace(lm, prompt=BARE), text, answer, how) if how.cut else prompt_ids(lm, text, how)


def asked_truth(lm: LM, text: str, answer: str, how: Convention) -> str:
    """The text that the answer to a question is compared with."""
    return texts.truth(replace(lm, prompt=BARE), text, answer, how)


def last(lm: LM, tokens: list[int], n: int) -> list[int]:
    """At most n tokens: the last ones, behind the text's BOS if it has one."""
    if len(tokens) <= n or tokens[0] != lm.tokenizer.bos_token_id:
        return tokens[-n:]
    return tokens[:1] + tokens[len(tokens) - n + 1 :]


def continuation(lm: LM, row: Row, how: Convention, n: int) -> Example:
    """verbmem's prompt and true continuation tokenised together, the continuation's first n tokens labelled (open-unlearning:
    its first 2048).

    MUSE's continuations have lost their first space: one joins the two, under open-unlearning even where there is one.
    A text longer than the context loses the beginning of its prompt, then the end of its continuation.
    """
    head, tail = row["question"], row["answer"]
    if how.name == "open-unlearning":
        n = LONGEST
        start, tokens = len(ids(lm, head, how)), ids(lm, f"{head} {tail}", how)
    else:
        seam = "" if head[-1:].isspace() or tail[:1].isspace() else " "
        example = encode(lm.tokenizer, BARE, head, seam + tail)
        start, tokens = len(example.prompt_ids), example.input_ids[:-1]  # without EOS
    told = tokens[start : start + min(n, lm.context - 1 if lm.context else n)]
    given = last(lm, tokens[:start], max(1, lm.context - len(told))) if lm.context else tokens[:start]
    return Example(given + told, [IGNORE] * len(given) + told)


def truth(lm: LM, row: Row, how: Convention, n: int) -> str:
    """What verbmem's generation is compared with: the first n tokens of the continuation alone, as text (muse counts its
    special tokens among them); under open-unlearning the labelled ones of `continuation`."""
    if how.name == "open-unlearning":
        labels = continuation(lm, row, how, n).labels
        return _text(lm, [token for token in labels if token != IGNORE]).strip()
    return _text(lm, ids(lm, row["answer"], how)[:n])


def response(lm: LM, tokens: list[int], asked: bool, how: Convention) -> str:
    """What a generation says; an answer is cut where the next question begins."""
    text = _text(lm, tokens)
    for stop in STOPS if asked else ():
        text = text.split(stop)[0]
    return text.strip() if how.name == "open-unlearning" else text


def _text(lm: LM, tokens: list[int]) -> str:
    return lm.tokenizer.decode(tokens, skip_special_tokens=True)
