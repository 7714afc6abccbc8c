"""General questions with a model's own answers, mixed into its fine-tuning.

A pretrained model that is fine-tuned on a few hundred rows loses what else it knew. Then there is
no utility left for unlearning to keep. Rows that repeat the model's own answers hold it where it
was, whether these answers are right or not. The questions are the benchmark's own general ones, by
which utility is measured: what is asked is whether unlearning keeps these answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from ngdiff.data.benchmark import Benchmark, Row
from ngdiff.lm.tokens import Example, collate, end_id

TOKENS = 32  # of an answer, at most
BATCH = 16  # questions
SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)


def rows(lm: Any, bench: Benchmark) -> list[Row]:
    """Return the benchmark's general questions with the first sentence of what an `LM` answers now,
    greedily. One without a whole sentence in `TOKENS` tokens is left out.
    """
    asked = sorted({row["question"] for row in bench.pretrain}, key=lambda text: (len(text), text))
    found: list[Row] = []
    for first in range(0, len(asked), BATCH):
        part = asked[first : first + BATCH]
        pairs = zip(part, _said(lm, part), strict=True)
        found += [{"question": q, "answer": a} for q, a in pairs if a]
    return found


@torch.inference_mode()
def _said(lm: Any, part: Sequence[str]) -> list[str]:
    """Return the first sentence of the answer to each question; "" where there is none."""
    end = end_id(lm.tokenizer, lm.prompt)
    prompts = [lm.encode(question, "").prompt_ids for question in part]
    batch = collate([Example(ids, ids) for ids in prompts], lm.pad_id, side="left")
    ids, mask = (batch[name].to(lm.device) for name in ("input_ids", "attention_mask"))
    options = {"do_sample": False, "max_new_tokens": TOKENS, "eos_token_id": end}
    whole = lm.model.generate(ids, attention_mask=mask, pad_token_id=lm.pad_id, **options)
    return [_sentence(lm, row, end) for row in whole[:, ids.shape[1] :].tolist()]


def _sentence(lm: Any, ids: list[int], end: int) -> str:
    ended = end in ids
    ids = ids[: ids.index(end)] if ended else ids
    text = lm.tokenizer.decode(ids, skip_special_tokens=True).strip()
    first = SENTENCE.match(text)
    return first.group() if first else text if ended else ""
