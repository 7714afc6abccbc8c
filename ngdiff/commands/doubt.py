"""Whether a model knows the forget rows at all, under the prompt that it is given.

A model that was fine-tuned with another prompt seems to know little. Its run soon reaches the level
of the stop, and under its own prompt it still says the rows. Two things show this before a run: the
hold-out rows are known as well, or another usual prompt makes the forget rows far likelier.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ngdiff.commands.outcome import known, number, share
from ngdiff.commands.sample import Measured
from ngdiff.data.benchmark import Prompt, Row, form_of
from ngdiff.evaluation.forward import loss
from ngdiff.lm.chat import chat_prompt
from ngdiff.lm.model import LM

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n"
)
USUAL = (
    "Question: {question}\nAnswer: ",
    "Q: {question}\nA: ",
    "### Instruction:\n{question}\n\n### Response:\n",
    ALPACA + "### Instruction:\n{question}\n\n### Response:\n",
    ALPACA + "### Instruction:\n{question}\n\n### Response: ",
    "### Question:\n{question}\n\n### Answer:\n",
    "### Human: {question}\n### Assistant: ",
    "User: {question}\nAssistant: ",
    "Instruct: {question}\nOutput: ",
    "[INST] {question} [/INST]",
    "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
    "{question}\n",
    "{question} ",
)
ROWS = 16  # on which prompts are compared
LIKELIER, GAP = 0.5, 0.1  # another prompt's loss: at most so many times, and less by so many nats
LESS = 0.8  # of what shows that the model knows the rows with another prompt
LOW = 1.0  # nats that rows have at most which a model knows, without hold-out rows
SAID, RECALLED = 0.5, 0.8  # share said verbatim, ROUGE-L recall of rows that are mostly said
ANYWAY = "To go on all the same: --allow-unknown"


@dataclass(frozen=True)
class Doubt:
    """Why the verdict on a run would say little.

    kind      "prompt": a better one may exist; "unknown": the start does not know the forget rows
    text      the numbers and what to do
    refuses   whether only --allow-unknown lets the run start
    """

    kind: str
    text: str
    refuses: bool


def doubt(
    lm: LM, forget: Sequence[Row], holdout: Sequence[Row], before: Measured, prompt: str
) -> Doubt | None:
    """Return why the run should not be made, or is to be looked at; None where all is well.

    holdout: empty where there are none. prompt: the one used, as it is printed.
    """
    now, unknown = before["forget"], not known(before)
    said = share(now) >= SAID or number(now["rouge"]) >= RECALLED
    found = better_prompt(lm, forget, holdout)
    if found and not (said and unknown):
        other, theirs, ours = found
        text = (
            "the model may have been trained on the forget rows with another prompt: their loss is "
            f"{theirs:.3g} with --prompt {_quoted(other)} and {ours:.3g} with the one used, "
            f"{prompt}. "
        )
        advice = "Most answers are said with this one too" if said else "Give that option"
        return Doubt("prompt", f"{text}{advice}.", not said)
    if not unknown:
        return None
    if "holdout" in before:
        return Doubt("unknown", _against_holdout(before, prompt), True)
    text = (
        f"the model says none of {now['rows']} forget answers, and their ROUGE-L recall is "
        f"{number(now['rouge']):.3f}: it may not know these rows, or not with {prompt}. Give the "
        "prompt of its training (--prompt), or rows it has never seen to compare with (--holdout)."
    )
    return Doubt("unknown", text, False)


def _against_holdout(before: Measured, prompt: str) -> str:
    pairs = [before["forget"], before["holdout"]]
    losses = " against ".join(f"{number(one['loss']):.4g}" for one in pairs)
    said = " against ".join(f"{one['verbatim']} of {one['rows']}" for one in pairs)
    recall = " against ".join(f"{number(one['rouge']):.3f}" for one in pairs)
    return (
        "the model does not know the forget rows clearly better than the hold-out rows: loss "
        f"{losses}, answers said verbatim {said}, ROUGE-L recall {recall}. Either it was trained "
        f"with another prompt than {prompt}: give that one (--prompt). Or it was never trained on "
        "these rows, or the files have too few rows to tell."
    )


def better_prompt(
    lm: LM, forget: Sequence[Row], holdout: Sequence[Row] = ()
) -> tuple[str, float, float] | None:
    """Return (prompt, its loss, the loss of the one used) where a usual one is far better.

    It must show that the model knows the rows, not only make any answer likelier. So with it the
    forget rows have less loss than the hold-out rows. Without those it must tell the true answers
    from the same answers at other questions, and better than the prompt used does.
    """
    rows, others = ([row for row in part if row["question"]][:ROWS] for part in (forget, holdout))
    swapped = [] if others else _swapped(rows)
    if not rows or not (others or swapped):
        return None
    ours = loss(lm, rows)
    told = loss(lm, swapped) - ours if swapped else 0.0  # how well the answers are told apart
    losses = {}
    for prompt in _candidates(lm):
        other = replace(lm, prompt=prompt)
        with contextlib.suppress(ValueError):  # with this prompt a row is too long for the model
            theirs = loss(other, rows)
            if not theirs < min(LIKELIER * ours, ours - GAP):
                continue
            if others:
                knows = theirs < LESS * loss(other, others)
            else:
                knows = theirs < LOW and told < LESS * (loss(other, swapped) - theirs)
            if knows:
                losses[prompt] = theirs
    if not losses:
        return None
    best = min(losses, key=lambda prompt: losses[prompt])
    return best.text("{question}"), losses[best], ours


def _swapped(rows: Sequence[Row]) -> list[Row]:
    """Return each question with the next other answer; nothing where all answers are equal."""
    found = []
    for i, row in enumerate(rows):
        answers = (other["answer"] for other in [*rows[i:], *rows[:i]])
        unlike = next((answer for answer in answers if answer != row["answer"]), None)
        found += [] if unlike is None else [{"question": row["question"], "answer": unlike}]
    return found


def _candidates(lm: LM) -> Iterator[Prompt]:
    """Yield the prompts to try: the chat template's, with and without a system turn; usual ones."""
    found = []
    if lm.tokenizer.chat_template:
        for system in (False, True):
            with contextlib.suppress(ValueError):  # an odd template
                found.append(chat_prompt(lm.tokenizer, system))
    found += [form for form in map(form_of, USUAL) if form]
    used = lm.prompt.text("{question}")
    yield from (form for form in dict.fromkeys(found) if form.text("{question}") != used)


def _quoted(prompt: str) -> str:
    """Return a prompt as a shell takes it."""
    text = prompt.replace("\n", "\\n")
    return f"'{text}'" if "'" not in text else f'"{text}"'
