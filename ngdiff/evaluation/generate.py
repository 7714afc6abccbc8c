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
from ngdiff.evaluation.forward import batches, context, pad, visible
from ngdiff.evaluation.forward import positions as positions_of
from ngdiff.evaluation.texts import stop_tokens


@torch.inference_mode()
def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stop: set[int],
    max_new_tokens: int,
    budget: int = 16384,
    blind: int | None = None,
    longest: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Greedy continuation of each prompt, without the stop token; the same prompt is continued
    once.

    A row ends at a stop token, after max_new_tokens, at `longest` tokens with its prompt, at the
    end of the model's context, or where its logits stop being finite.  blind: as in
    `forward.likelihood`.  tick: told after each batch how many prompts of how many are done.
    ValueError for an empty prompt.
    """
    unique = sorted({tuple(prompt) for prompt in prompts}, key=lambda prompt: (len(prompt), prompt))
    if unique and not unique[0]:
        raise ValueError(
            "cannot continue an empty prompt: give the Prompt a text before the answer"
        )
    limit = min((n for n in (context(model), longest) if n is not None), default=None)
    room = [
        max_new_tokens if limit is None else min(max_new_tokens, limit - len(prompt))
        for prompt in unique
    ]
    lengths = [len(prompt) + max(0, new) for prompt, new in zip(unique, room, strict=True)]
    results: dict[tuple[int, ...], list[int]] = {prompt: [] for prompt in unique}
    done = 0
    with evaluating(model):
        for batch in batches(lengths, [u for u in range(len(unique)) if room[u] > 0], budget):
            rows = [unique[u] for u in batch]
            results |= zip(
                rows, _decode(model, rows, [room[u] for u in batch], stop, blind), strict=True
            )
            done += len(rows)
            if tick is not None:
                tick(done, len(unique))
    return [list(results[tuple(prompt)]) for prompt in prompts]


def answers(lm: Any, questions: Sequence[str], max_new_tokens: int = 200) -> list[str]:
    """What an `LM` answers to each question, greedily, as text."""
    examples = [lm.encode(question, "") for question in questions]
    stop = stop_tokens(lm.model, lm.tokenizer, examples)
    texts = greedy(lm.model, [example.prompt_ids for example in examples], stop, max_new_tokens)
    return [text.strip() for text in lm.tokenizer.batch_decode(texts, skip_special_tokens=True)]


def _decode(
    model: Any, prompts: list[tuple[int, ...]], room: list[int], stop: set[int], blind: int | None
) -> list[list[int]]:
    """One batch of `greedy`: a finished row leaves the batch, its cache included."""
    ids, mask = pad(prompts, "left", model.device)
    mask = visible(ids, mask, blind)
    positions, cache = positions_of(mask), None
    ends = torch.tensor(sorted(stop), device=model.device)
    texts: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    while alive:
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
        }
        output = model(**inputs, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        best, token = output.logits[:, -1].float().max(-1)  # (rows,); the first of equal logits
        going = (best.isfinite() & ~torch.isin(token, ends)).tolist()
        for row, new, goes in zip(alive, token.tolist(), going, strict=True):
            texts[row] += [new] * goes
        keep = [b for b, row in enumerate(alive) if going[b] and len(texts[row]) < room[row]]
        if keep and len(keep) < len(alive):
            index = torch.tensor(keep, device=model.device)
            cache.batch_select_indices(index)
            mask, positions, token = mask[index], positions[index], token[index]
        alive = [alive[b] for b in keep]
        ids, positions = token[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return texts
