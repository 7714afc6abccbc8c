"""How a row becomes tokens under each convention (`conventions`): what is labelled, what generation is given.

answer  prompt and answer together, labels from the first token that the prompt alone does not give   (ours)
tag     the same tokens, labels from the answer tag on, cut to a length, which leaves no EOS; generation is given no
        answer tag                                                                         (tofu)
alone   labels after as many tokens as the prompt has alone; a chat template renders question and answer, without one both
        are cut to a length; EOS follows where it is not the last token; a document gets none and its first token no label;
        padding hides real tokens of its id                                                (open-unlearning)
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from ngdiff.data.benchmark import Prompt
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.generate import declared, stop_tokens
from ngdiff.lm import tokens
from ngdiff.lm.hub import chat_prompt, render
from ngdiff.lm.tokens import IGNORE, Example, fits, named


def encode(lm: Any, question: str, answer: str, convention: Convention) -> Example:
    """The row's ids and labels. Errors: ValueError where it is longer than the model's context, and where the cut of the
    convention leaves nothing of its answer."""
    if convention.labels == "answer" or not (question or convention.labels == "alone"):
        return lm.encode(question, answer)
    if convention.labels == "tag":
        ids = tokens.encode(lm.tokenizer, lm.prompt, question, answer).input_ids
        ids = ids if convention.cut is None or len(ids) <= convention.cut else ids[: convention.cut]
        start = len(_untagged(lm, question))
    elif not question:
        ids, start = _tokens(lm.tokenizer, answer), 1
    else:
        prompt, ids = _alone(lm.tokenizer, lm.prompt, question, answer, convention.cut)
        start = len(prompt)
    fits(ids, lm.context, question, answer)
    if len(ids) <= start:
        raise ValueError(f"{named(question, answer)} has no answer within the first {len(ids)} tokens, all that it keeps under "
                         f"{convention.name}")  # fmt: skip
    return Example(list(ids), [IGNORE] * start + list(ids[start:]))


def prompt_ids(lm: Any, question: str, answer: str, convention: Convention) -> list[int]:
    """What generation is given."""
    if convention.labels == "alone" and question:
        return _alone(lm.tokenizer, lm.prompt, question, answer, convention.cut)[0]
    if convention.labels == "tag" and question:
        return _untagged(lm, question)
    return lm.encode(question, answer).prompt_ids


def blind(lm: Any, convention: Convention) -> int | None:
    """The token that is taken for padding wherever it stands: under open-unlearning the padding token, of a tokenizer that came
    without one its EOS, which a template may have in the prompt. None under the others: padding hides no real token."""
    if convention.labels != "alone":
        return None
    given = lm.tokenizer.init_kwargs
    if given.get("pad_token"):
        return lm.tokenizer.pad_token_id
    return lm.tokenizer.convert_tokens_to_ids(str(given.get("eos_token") or lm.tokenizer.eos_token))


def decode(lm: Any, ids: list[int], convention: Convention) -> str:
    """The text of a generation, without special tokens."""
    options = {"clean_up_tokenization_spaces": True} if convention.labels == "alone" else {}
    return lm.tokenizer.decode(ids, skip_special_tokens=True, **options).strip()


def stops(lm: Any, examples: list[Example], convention: Convention) -> set[int]:
    """Tokens that end a generation: under open-unlearning those of the generation configuration alone."""
    if convention.labels != "alone":
        return stop_tokens(lm.model, lm.tokenizer, examples if convention.labels == "answer" else ())  # tag: may be cut
    return declared(lm.model)


def answer(lm: Any, question: str, answer: str, convention: Convention) -> str:
    """The text that zlib compresses: the answer, or what open-unlearning decodes from the labelled tokens."""
    if convention.labels != "alone":
        return answer
    labels = encode(lm, question, answer, convention).labels
    return lm.tokenizer.decode([label for label in labels if label != IGNORE], skip_special_tokens=True)


def truth(lm: Any, question: str, answer: str, convention: Convention) -> str:
    """The text a generation is compared with: the answer; under open-unlearning, and where tofu cuts it, decoded from its
    tokens."""
    if convention.labels == "alone":
        prompt, ids = _alone(lm.tokenizer, lm.prompt, question, answer, convention.cut)
        return decode(lm, ids, convention).replace(decode(lm, prompt, convention), "").strip()
    if convention.labels == "tag" and convention.cut is not None:
        ids = encode(lm, question, answer, convention).input_ids
        if ids[-1] != lm.tokenizer.eos_token_id:
            told = lm.tokenizer.decode(ids, skip_special_tokens=True)
            return told.split(lm.prompt.answer_start or lm.prompt.question_end)[1]
    return answer


def _untagged(lm: Any, question: str) -> list[int]:
    """The prompt's tokens without the answer tag."""
    return tokens.encode(lm.tokenizer, replace(lm.prompt, answer_start=""), question, "").input_ids[:-1]


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, verbose=False)["input_ids"])


@lru_cache(maxsize=8192)
def _alone(tokenizer: Any, prompt: Prompt, question: str, answer: str, cut: int | None) -> tuple[list[int], list[int]]:
    """(ids of the prompt, ids of prompt, answer and EOS)."""
    if tokenizer.chat_template and prompt == chat_prompt(tokenizer):
        # the template is given text and gives text: its special tokens are its own
        head, text = render(tokenizer, question), render(tokenizer, question, answer)
        ids = [list(tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"]) for t in (head, text)]
    else:
        head = prompt.text(question)
        ids = [_tokens(tokenizer, t)[:cut] for t in (head, head + answer)]
    end = tokenizer.convert_tokens_to_ids(str(tokenizer.init_kwargs.get("eos_token") or tokenizer.eos_token))
    return ids[0], ids[1] if ids[1][-1] == end else [*ids[1], end]
