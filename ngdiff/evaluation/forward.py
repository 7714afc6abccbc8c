"""One teacher-forced forward per text, shared by every likelihood metric.

Texts that begin alike share what they begin with. The answers to a question stand in one row
(`packed`). A long prompt, or a model that takes no mask of one's own, does not allow that. Then
they share the prompt's key/value cache: prompts are prefilled once, left-padded, and their answers
follow, right-padded and bucketed by length. A model without such a cache is given whole texts.
`ways` finds out which way is right.

Positions count real tokens, so a row gives the same numbers alone and in a batch, up to the
rounding of the matmul. Scores that are not finite are kept as they are: `metrics` says what they
mean.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ngdiff.core.probe import evaluating
from ngdiff.engine.linear import quick
from ngdiff.evaluation import packed
from ngdiff.evaluation.metrics import mean_nll
from ngdiff.evaluation.padding import batches, pad, positions, visible
from ngdiff.evaluation.stats import Stats, cut, start, statistics
from ngdiff.evaluation.ways import ways
from ngdiff.lm.tokens import Example

Groups = dict[tuple[int, ...], list[int]]  # a prompt without its last token -> texts that begin so


@torch.inference_mode()
def likelihood(
    model: Any,
    examples: Sequence[Example],
    moments: Sequence[bool] | None = None,
    budget: int | None = None,
    blind: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> list[Stats]:
    """Stats of each example, in order.

    moments  which examples also get μ and σ² of log p (min-k++ needs them); none by default
    budget   tokens in one forward, padding included, which takes budget × vocabulary logits; None:
             1024 on a CPU, whose caches larger batches leave, else 16384
    blind    a token that no other one attends to, as if it were padding
    tick     called after each batch with how many texts of how many are done

    Raises ValueError for a model that cannot be evaluated (`ways.ways`).
    """
    moments = moments or [False] * len(examples)
    budget = budget or (1024 if model.device.type == "cpu" else 16384)
    if not any(blind in example.input_ids[:-1] for example in examples):
        blind = None
    results = {
        i: Stats(np.empty(0), np.empty(0, bool))
        for i, example in enumerate(examples)
        if len(example) <= start(example)
    }
    with evaluating(model), quick(model):
        for found in _found(model, examples, moments, budget, blind):
            results |= found
            if tick is not None:
                tick(len(results), len(examples))
    return [results[i] for i in range(len(examples))]


def loss(lm: Any, rows: Sequence[dict[str, Any]]) -> float:
    """Mean NLL of an `LM` over all labelled tokens of the rows, nats per token: the `loss_…` of the
    evaluators.
    """
    found = likelihood(lm.model, [lm.encode(row["question"], row["answer"]) for row in rows])
    return mean_nll([logp for stats in found for logp in stats.logp])


def _found(
    model: Any, examples: Sequence[Example], moments: Sequence[bool], budget: int, blind: int | None
) -> Iterator[dict[int, Stats]]:
    """Yield the Stats of all texts that have a token to predict, batch after batch."""
    can = ways(model)
    rows, groups = _shared(model, examples, can.packs and blind is None, can.continues)
    if not can.pads:
        budget = 1
    lengths = [len(row) for row in rows]
    single = [len(row.chains) == 1 for row in rows]  # a batch without a tree needs no mask
    order = sorted(range(len(rows)), key=lambda r: (single[r], lengths[r], rows[r].first))
    for kind in (False, True):
        for batch in batches(lengths, (r for r in order if single[r] == kind), budget):
            yield packed.forwarded(model, [rows[r] for r in batch], moments, blind)
    prefixes = sorted(
        groups, key=lambda prefix: (len(prefix), max(len(examples[i]) for i in groups[prefix]))
    )
    for batch in batches([len(prefix) for prefix in prefixes], range(len(prefixes)), budget):
        begun = {prefixes[p]: groups[prefixes[p]] for p in batch}
        yield _answers(model, begun, examples, moments, budget, blind)


def _shared(
    model: Any, examples: Sequence[Example], packs: bool, caches: bool
) -> tuple[list[packed.Tree], Groups]:
    """Return rows of texts, and the texts that share a prompt's cache instead.

    Short texts with a common prompt share a row, if the model can be asked so. Else they follow
    behind the prompt's cache, if it has one. Else each text is a row.
    """
    groups: Groups = {}
    for i, example in enumerate(examples):
        if len(example) > start(example):
            groups.setdefault(tuple(example.input_ids[: start(example) - 1]), []).append(i)
    limit = packed.limit(model)
    rows: list[list[int]] = []
    behind: Groups = {}
    for prefix, members in groups.items():
        longest = max(len(examples[i]) for i in members)
        if prefix and len(members) > 1 and packs and 2 * longest <= limit:
            rows.append(members)
        elif prefix and len(members) > 1 and caches:
            behind[prefix] = members
        else:
            rows += [[i] for i in members]
    return list(packed.trees(examples, rows, limit)), behind


def _answers(
    model: Any,
    groups: Groups,
    examples: Sequence[Example],
    moments: Sequence[bool],
    budget: int,
    blind: int | None,
) -> dict[int, Stats]:
    """Prefills the prefixes once, then forwards the answers behind copies of that cache, bucketed
    by length.
    """
    ids, left = pad(list(groups), "left", model.device)
    cache = _prefilled(model, ids, left, blind)
    texts = [(i, row) for row, members in enumerate(groups.values()) for i in members]
    suffixes = [examples[i].input_ids[start(examples[i]) - 1 :] for i, _ in texts]
    # the tokens of a suffix but the last predict its tokens but the first
    lengths = [len(suffix) - 1 for suffix in suffixes]
    results: dict[int, Stats] = {}
    for batch in batches(lengths, sorted(range(len(texts)), key=lengths.__getitem__), budget):
        owner = torch.tensor([texts[t][1] for t in batch], device=model.device)
        begun, given = (ids[owner], left[owner]), [suffixes[t][:-1] for t in batch]
        logits, right = _continue(model, cache, begun, owner, given, blind)
        tokens = [token for t in batch for token in suffixes[t][1:]]
        asked = [moments[texts[t][0]] for t in batch]
        wanted = [ask for t, ask in zip(batch, asked, strict=True) for _ in range(lengths[t])]
        targets, wanted_ = (torch.tensor(x, device=model.device) for x in (tokens, wanted))
        at = right.flatten().nonzero().squeeze(1)
        columns = statistics(logits, at, torch.arange(len(at), device=at.device), targets, wanted_)
        found = cut(columns, [lengths[t] for t in batch], asked)
        results |= zip((texts[t][0] for t in batch), found, strict=True)
    return results


def _prefilled(model: Any, ids: Tensor, mask: Tensor, blind: int | None) -> Any:
    """Return the key/value cache of left-padded prefixes, (batch, time)."""
    inputs = {
        "input_ids": ids,
        "attention_mask": visible(ids, mask, blind),
        "position_ids": positions(mask),
    }
    return model(**inputs, use_cache=True, logits_to_keep=1).past_key_values


def _continue(
    model: Any,
    cache: Any,
    begun: tuple[Tensor, Tensor],
    owner: Tensor,
    suffixes: list[list[int]],
    blind: int | None,
) -> tuple[Tensor, Tensor]:
    """Logits (batch, time, vocabulary) of suffixes behind the cache rows `owner`, whose ids and
    mask are `begun`; and their own mask (batch, time)."""
    ids, right = pad(suffixes, "right", model.device)
    whole, mask = (torch.cat(pair, dim=1) for pair in zip(begun, (ids, right), strict=True))
    place = positions(mask)[:, begun[1].shape[1] :]
    inputs = {
        "input_ids": ids,
        "attention_mask": visible(whole, mask, blind),
        "position_ids": place,
    }
    part = copy.deepcopy(cache)
    part.reorder_cache(owner)
    return model(**inputs, past_key_values=part, use_cache=True).logits, right
