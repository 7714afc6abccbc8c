"""Greedy generation, batched by prompt length behind a key/value cache; a row's text does not
depend on its batch.

A loop of its own: `generate` of transformers costs more than the forward of a small model at each
token, and keeps finished rows in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ngdiff.core.probe import evaluating
from ngdiff.engine.linear import quick
from ngdiff.evaluation.decode import decode
from ngdiff.evaluation.padding import batches, context, pad, room, visible
from ngdiff.evaluation.texts import stop_tokens
from ngdiff.evaluation.ways import ways


@torch.inference_mode()
def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stop: set[int],
    max_new_tokens: int,
    budget: int | None = None,
    blind: int | None = None,
    longest: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Greedy continuation of each prompt, without the stop token; the same prompt is continued
    once.

    A row ends at a stop token, after max_new_tokens, or at `longest` tokens with its prompt. It
    also ends at the end of the model's context, and where its logits are not finite any more.
    budget: tokens that a batch has in the end, prompts included; None: what `padding.room` allows.
    blind: as in `forward.likelihood`. tick: called after each batch with how many prompts of how
    many are done. ValueError for an empty prompt.
    """
    unique = sorted({tuple(prompt) for prompt in prompts}, key=lambda prompt: (len(prompt), prompt))
    if unique and not unique[0]:
        raise ValueError(
            "cannot continue an empty prompt: give the Prompt a text before the answer"
        )
    limit = min((n for n in (context(model), longest) if n is not None), default=None)
    space = [
        max_new_tokens if limit is None else min(max_new_tokens, limit - len(prompt))
        for prompt in unique
    ]
    lengths = [len(prompt) + max(0, new) for prompt, new in zip(unique, space, strict=True)]
    budget = budget or room(model)
    results: dict[tuple[int, ...], list[int]] = {prompt: [] for prompt in unique}
    done = 0
    with evaluating(model), quick(model):
        can, open_ = ways(model), [u for u in range(len(unique)) if space[u] > 0]
        continued = decode if can.steps else _recomputed
        for batch in batches(lengths, open_, budget if can.steps or can.pads else 1):
            rows = [unique[u] for u in batch]
            found = continued(model, rows, [space[u] for u in batch], stop, blind)
            results |= zip(rows, found, strict=True)
            done += len(rows)
            if tick is not None:
                tick(done, len(unique))
    return [list(results[tuple(prompt)]) for prompt in prompts]


def answers(lm: Any, questions: Sequence[str], max_new_tokens: int = 200) -> list[str]:
    """Return the greedy answers of an `LM` to questions, as text."""
    examples = [lm.encode(question, "") for question in questions]
    stop = stop_tokens(lm.model, lm.tokenizer, examples)
    texts = greedy(lm.model, [example.prompt_ids for example in examples], stop, max_new_tokens)
    return [text.strip() for text in lm.tokenizer.batch_decode(texts, skip_special_tokens=True)]


def _recomputed(
    model: Any, prompts: list[tuple[int, ...]], room: list[int], stop: set[int], blind: int | None
) -> list[list[int]]:
    """One batch of `greedy` without a cache: each token takes a forward of the whole texts."""
    texts: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    while alive:
        rows = [[*prompts[row], *texts[row]] for row in alive]
        ids, mask = pad(rows, "right", model.device)
        hidden = {} if blind is None else {"attention_mask": visible(ids, mask, blind)}
        logits = model(input_ids=ids, **hidden, use_cache=False).logits
        last = logits[range(len(rows)), [len(row) - 1 for row in rows]]
        best, token = last.float().max(-1)
        going = []
        for row, ok, new in zip(alive, best.isfinite().tolist(), token.tolist(), strict=True):
            if ok and new not in stop:
                texts[row].append(new)
                if len(texts[row]) < room[row]:
                    going.append(row)
        alive = going
    return texts
