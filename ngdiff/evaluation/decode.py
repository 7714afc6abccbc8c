"""Greedy continuation of one batch behind a cache; several tokens of a row at once where it loops.

A model that is random, or has collapsed, repeats itself to the last token that it may write. Where
the rows repeat, the tokens that would follow are guessed from the row itself and given to the model
behind the last token. Those that it would have chosen are kept, up to the first that it would not:
the text is what one token at a time gives. A guess that was wrong leaves a hole in the cache, which
the mask hides. So guesses are made only for models that honour such a mask (`ways`).

Reference: Saxena, "Prompt lookup decoding" (2023).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ngdiff.evaluation.buffer import Buffer, in_place
from ngdiff.evaluation.packed import windows
from ngdiff.evaluation.padding import context, pad, positions, visible
from ngdiff.evaluation.ways import ways

# tokens guessed at once, from the share of rows whose next token a guess would have hit
GUESSES = ((0.9, 7), (0.8, 5), (0.6, 3), (0.0, 0))
PAST = 0.7  # how much of that share is the past's


class Rows:
    """The rows of a batch that go on, and the texts of all.

    alive    their numbers (rows,)
    limit, n tokens that they may have, and have (rows,)
    mask     of the tokens in the cache (rows, time)
    token    last token of each, not in the cache yet (rows, 1); place: its position
    """

    def __init__(self, mask: Tensor, place: Tensor, limit: Tensor) -> None:
        self.mask, self.place, self.limit = mask, place, limit
        self.alive = torch.arange(len(limit), device=limit.device)
        self.n, self.token = torch.zeros_like(limit), torch.zeros_like(place)
        self.texts = limit.new_zeros(len(limit), int(limit.max()))
        self.lengths = torch.zeros_like(limit)

    def write(self, new: Tensor, wrong: Tensor, count: Tensor) -> Tensor:
        """Add the first `count` tokens of each row up to one that is `wrong`; return who is over.

        new, wrong (rows, tokens)
        """
        order = torch.arange(new.shape[1], device=new.device)
        first = torch.where(wrong, order, new.shape[1]).amin(1)
        take = torch.minimum(torch.minimum(count, first), self.limit - self.n)
        kept = order < take[:, None]
        rows = self.alive[:, None].expand_as(new)
        self.texts[rows[kept], (self.n[:, None] + order)[kept]] = new[kept]
        self.n = self.n + take
        self.token, self.place = new.gather(1, count[:, None] - 1), self.place + count[:, None]
        return (first < count) | (self.n >= self.limit)

    def leave(self, over: Tensor, cache: Any) -> None:
        """Let rows go: in place of each, the last one that is not over."""
        self.lengths[self.alive[over]] = self.n[over]
        index = torch.tensor(_closed_up(over.tolist()), dtype=torch.long, device=over.device)
        for name in ("alive", "limit", "n", "mask", "token", "place"):
            setattr(self, name, getattr(self, name)[index])
        if len(index):
            cache.reorder_cache(index)

    def guess(self, many: int) -> Tensor:
        """Return what followed when a row's last two tokens last stood together, (rows, many).

        It goes on in a circle. Where they never did, the last token again.
        """
        text, last = self.texts[self.alive], (self.n - 1).clamp(min=1)[:, None]
        order = torch.arange(text.shape[1], device=text.device)
        pair = text.gather(1, torch.cat([last - 1, last], dim=1))
        there = (text[:, :-1] == pair[:, :1]) & (text[:, 1:] == pair[:, 1:]) & (order[1:] < last)
        at = torch.where(there, order[1:], 0).amax(1, keepdim=True)  # 0: nowhere
        period = torch.where(at > 0, last - at, 1)
        ahead = torch.arange(many, device=text.device) % period
        return text.gather(1, last - period + 1 + ahead)


def decode(
    model: Any, prompts: list[tuple[int, ...]], room: list[int], stop: set[int], blind: int | None
) -> list[list[int]]:
    """Return the continuations of one batch of `generate.greedy`, which asks for them.

    A finished row leaves, its cache included. The last row takes its place, so that no other one
    is copied.
    """
    ids, mask = pad(prompts, "left", model.device)
    mask = visible(ids, mask, blind)
    place = positions(mask)
    limit, ends = (torch.tensor(x, device=model.device) for x in (room, sorted(stop)))
    rows = Rows(mask, place[:, -1:], limit)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": place}
    output = model(**inputs, use_cache=True, logits_to_keep=1)
    cache, many, share = in_place(output.past_key_values), 0, 0.0
    guesses = ways(model).packs and not windows(model)  # a hole takes room in a window
    guesses = guesses and all(type(layer) is Buffer for layer in cache.layers)
    last = (context(model) or 2**31) - 1  # position
    count, new, wrong = torch.ones_like(limit), *_chosen(output.logits[:, -1:], ends)
    while True:
        over = rows.write(new, wrong, count)
        if bool(over.any()):
            rows.leave(over, cache)
        if not len(rows.alive):
            return [
                text[:n] for text, n in zip(rows.texts.tolist(), rows.lengths.tolist(), strict=True)
            ]
        many = min(many, last - int(rows.place.max()))  # no position lies beyond the context
        guessed = rows.guess(max(1, many)) if guesses else rows.token
        new, wrong, count = _step(model, cache, rows, guessed[:, :many], ends)
        if guesses:
            hits = float((guessed[:, 0] == new[:, 0]).float().mean())
            share = PAST * share + (1 - PAST) * hits
            many = next(n for least, n in GUESSES if share >= least)


def _step(
    model: Any, cache: Any, rows: Rows, guessed: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward the last tokens and the guesses behind them (rows, guesses).

    Return what the model chooses after each, whether that is wrong, and how many are to be kept.
    """
    many = guessed.shape[1]
    block = torch.cat([rows.token, guessed], dim=1)
    order = torch.arange(1 + many, device=block.device)
    rows.mask = torch.cat([rows.mask, torch.ones_like(block)], dim=1)
    inputs = {"attention_mask": rows.mask, "position_ids": rows.place + order}
    output = model(input_ids=block, **inputs, past_key_values=cache, use_cache=True)
    new, wrong = _chosen(output.logits, ends)
    right = (guessed == new[:, :many]).long().cumprod(1).sum(1)
    if many:
        rows.mask[:, -many:] = (order[:many] < right[:, None]).long()
    return new, wrong, right + 1


def _chosen(logits: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Return the likeliest tokens, and whether they end a text or are of no finite logits."""
    best, token = logits.float().max(-1)  # the first of equal logits
    return token, ~best.isfinite() | torch.isin(token, ends)


def _closed_up(over: list[bool]) -> list[int]:
    """Return the rows that are not over: in place of one that is, the last one that is not."""
    keep = [b for b, done in enumerate(over) if not done]
    last = [b for b in keep if b >= len(keep)]
    return [last.pop() if over[b] else b for b in range(len(keep))]
