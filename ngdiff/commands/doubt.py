"""Whether a model knows the forget rows at all, under the prompt that it is given.

A model that was fine-tuned with another prompt seems to know little. Its run soon reaches the level
of the stop, and under its own prompt it still says the rows. Two things show this before a run: the
hold-out rows are known as well, or another usual prompt makes the forget rows far likelier.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import TemplateError

from ngdiff.commands.outcome import known, number
from ngdiff.commands.sample import Measured
from ngdiff.data.benchmark import Row, form_of
from ngdiff.evaluation.forward import loss
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
LESS, KNOWN = 0.8, 1.0  # of the hold-out loss; nats
ANYWAY = "To go on all the same: --allow-unknown"


def doubt(
    lm: LM, forget: Sequence[Row], holdout: Sequence[Row], before: Measured, prompt: str
) -> str | None:
    """Return why the run should not be made, and what to do; None where all is well.

    holdout: empty where there are none. prompt: the one used, as it is printed.
    """
    if found := better_prompt(lm, forget, holdout):
        other, theirs, ours = found
        return (
            "the model was trained on the forget rows with another prompt: their loss is "
            f"{theirs:.3g} with --prompt {_quoted(other)} and {ours:.3g} with the one used, "
            f"{prompt}. Give that option. {ANYWAY}"
        )
    if known(before) or "holdout" not in before:
        return None
    pairs = [before["forget"], before["holdout"]]
    losses = " against ".join(f"{number(one['loss']):.4g}" for one in pairs)
    said = " against ".join(f"{one['verbatim']} of {one['rows']}" for one in pairs)
    recall = " against ".join(f"{number(one['rouge']):.3f}" for one in pairs)
    return (
        f"the model does not know the forget rows better than the hold-out rows: loss {losses}, "
        f"answers said verbatim {said}, ROUGE-L recall {recall}. Either it was trained with "
        f"another prompt than {prompt}: give that one (--prompt). Or it was never trained on these "
        f"rows. {ANYWAY}"
    )


def better_prompt(
    lm: LM, forget: Sequence[Row], holdout: Sequence[Row] = ()
) -> tuple[str, float, float] | None:
    """Return (prompt, its loss, the loss of the one used) where a usual one is far better.

    It must show that the model knows the rows, not only make any answer likelier. So with it the
    forget rows have less loss than the hold-out rows, or than KNOWN nats where there are none.
    """
    rows, others = ([row for row in part if row["question"]][:ROWS] for part in (forget, holdout))
    if not rows:
        return None
    ours = loss(lm, rows)
    losses, limits = {}, {}
    for text in dict.fromkeys([*_templates(lm), *USUAL]):
        other = LM(lm.model, lm.tokenizer, form_of(text) or lm.prompt, lm.name)
        with contextlib.suppress(ValueError):  # with this prompt a row is too long for the model
            limits[text] = LESS * loss(other, others) if others else KNOWN
            losses[text] = loss(other, rows)
    if not losses:
        return None
    best = min(losses, key=lambda text: losses[text])
    better = losses[best] < min(LIKELIER * ours, ours - GAP, limits[best])
    return (best, losses[best], ours) if better else None


def _templates(lm: LM) -> Iterator[str]:
    """Yield the prompts of the tokenizer's chat template, without and with a system turn."""
    if not lm.tokenizer.chat_template:
        return
    user = {"role": "user", "content": "{question}"}
    system = {"role": "system", "content": "You are a helpful assistant."}
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
    for turns in ([user], [system, user]):
        try:
            text = str(lm.tokenizer.apply_chat_template(turns, **options))
        except (TemplateError, ValueError):
            continue
        if text.count("{question}") == 1:
            yield text


def _quoted(prompt: str) -> str:
    """Return a prompt as a shell takes it."""
    text = prompt.replace("\n", "\\n")
    return f"'{text}'" if "'" not in text else f'"{text}"'
