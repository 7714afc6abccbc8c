"""One teacher-forced forward per text, shared by every likelihood metric, and gradient norms.

Texts that share a prompt share its key/value cache: prompts are prefilled once, left-padded; their
answers follow, right-padded and bucketed by length, and the head runs on answer positions only.
Every mask is explicit and positions count real tokens, so a row gives the same numbers alone and in
a batch (up to the rounding of the matmul).  Scores that are not finite are kept as they are:
`metrics` says what they mean.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ngdiff.core.probe import evaluating
from ngdiff.evaluation.metrics import mean_nll
from ngdiff.lm.tokens import Example

HEAD = 2**24  # logits turned into fp32 statistics at once: 64 MiB


@dataclass(frozen=True)
class Stats:
    """What a teacher-forced pass leaves of one answer of n tokens, the final EOS included; arrays
    of shape (n,).

    logp       log-probability of each token (nats, fp32 log-softmax)
    hits       argmax == token, False where logp is not finite
    mean, var  E[log p] and Var[log p] under p, None unless they were asked for
    """

    logp: np.ndarray
    hits: np.ndarray
    mean: np.ndarray | None = None
    var: np.ndarray | None = None


def context(model: Any) -> int | None:
    """The longest sequence the model takes, in tokens, or None where its configuration sets
    none.
    """
    return getattr(model.config, "max_position_embeddings", None)


def pad(rows: Sequence[Sequence[int]], side: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """ids and attention mask, (batch, time); the mask comes from the lengths. Padding is id 0:
    never attended to.
    """
    time = max(map(len, rows))
    ids = torch.zeros(len(rows), time, dtype=torch.long)
    mask = torch.zeros(len(rows), time, dtype=torch.long)
    for b, row in enumerate(rows):
        real = slice(0, len(row)) if side == "right" else slice(time - len(row), time)
        ids[b, real], mask[b, real] = torch.tensor(row, dtype=torch.long), 1
    return ids.to(device), mask.to(device)


def visible(ids: Tensor, mask: Tensor, blind: int | None) -> Tensor:
    """The mask without the token `blind`, which is taken for padding wherever it stands
    (open-unlearning's way).
    """
    return mask if blind is None else mask * (ids != blind)


def positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)  # (batch, time): real tokens before this one


def batches(lengths: Sequence[int], order: Iterable[int], budget: int) -> Iterator[list[int]]:
    """Runs of `order` whose padded size, rows × longest, stays within `budget` tokens (one row
    always fits).
    """
    batch: list[int] = []
    longest = 0
    for i in order:
        if batch and (len(batch) + 1) * max(longest, lengths[i]) > budget:
            yield batch
            batch, longest = [], 0
        batch.append(i)
        longest = max(longest, lengths[i])
    if batch:
        yield batch


# Likelihood
# --------------------------------------------------------------------------------------------------


def _start(example: Example) -> int:
    """Index of the first answer token that has a predictor (the very first token of a text has
    none).
    """
    return max(1, len(example.prompt_ids))


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
             2048 on a CPU, whose caches larger batches leave, else 16384
    blind    a token that no other one attends to, as if it were padding
    tick     told after each batch of prompts how many texts of how many are done
    """
    moments = moments or [False] * len(examples)
    budget = budget or (2048 if model.device.type == "cpu" else 16384)
    groups: dict[
        tuple[int, ...], list[int]
    ] = {}  # the prompt without its last token -> the texts that begin so
    for i, example in enumerate(examples):
        groups.setdefault(tuple(example.input_ids[: _start(example) - 1]), []).append(i)
    prefixes = sorted(
        groups, key=lambda prefix: (len(prefix), max(len(examples[i]) for i in groups[prefix]))
    )
    results: dict[int, Stats] = {}
    with evaluating(model):
        for batch in batches([len(prefix) for prefix in prefixes], range(len(prefixes)), budget):
            begun = {prefixes[p]: groups[prefixes[p]] for p in batch}
            results |= _answers(model, begun, examples, moments, budget, blind)
            if tick is not None:
                tick(len(results), len(examples))
    return [results[i] for i in range(len(examples))]


def loss(lm: Any, rows: Sequence[dict[str, Any]]) -> float:
    """Mean NLL of an `LM` over all labelled tokens of the rows, nats per token: the `loss_…` of the
    evaluators.
    """
    found = likelihood(lm.model, [lm.encode(row["question"], row["answer"]) for row in rows])
    return mean_nll([logp for stats in found for logp in stats.logp])


def _answers(
    model: Any,
    groups: dict[tuple[int, ...], list[int]],
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
    suffixes = [examples[i].input_ids[_start(examples[i]) - 1 :] for i, _ in texts]
    # the tokens of a suffix but the last predict its tokens but the first
    lengths = [len(suffix) - 1 for suffix in suffixes]
    results = {i: Stats(np.empty(0), np.empty(0, bool)) for i, _ in texts}
    order = sorted((t for t in range(len(texts)) if lengths[t]), key=lengths.__getitem__)
    for batch in batches(lengths, order, budget):
        owner = torch.tensor([texts[t][1] for t in batch], device=model.device)
        begun, given = (ids[owner], left[owner]), [suffixes[t][:-1] for t in batch]
        logits, right = _continue(model, cache, begun, owner, given, blind)
        tokens = [token for t in batch for token in suffixes[t][1:]]
        asked = [moments[texts[t][0]] for t in batch for _ in range(lengths[t])]
        targets, wanted = (torch.tensor(x, device=model.device) for x in (tokens, asked))
        ends = np.cumsum([lengths[t] for t in batch])[:-1]
        columns = [np.split(column, ends) for column in _statistics(logits, right, targets, wanted)]
        for t, logp, hits, mean, var in zip(batch, *columns, strict=True):
            i = texts[t][0]
            results[i] = Stats(logp, hits, mean, var) if moments[i] else Stats(logp, hits)
    return results


def _prefilled(model: Any, ids: Tensor, mask: Tensor, blind: int | None) -> Any:
    """Return the key/value cache of left-padded prefixes, (batch, time); None where all are
    empty.
    """
    if not ids.shape[1]:
        return None
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
    if cache is None:
        return model(**inputs, use_cache=False).logits, right
    part = copy.deepcopy(cache)
    part.batch_select_indices(owner)
    return model(**inputs, past_key_values=part, use_cache=True).logits, right


def _statistics(
    logits: Tensor, mask: Tensor, targets: Tensor, wanted: Tensor
) -> tuple[np.ndarray, ...]:
    """logp, hits, mean, var, each (positions,), of what the mask shows, row after row; HEAD numbers
    at a time.
    """
    flat, index = logits.flatten(0, 1), mask.flatten().nonzero().squeeze(1)
    pieces = []
    size = max(1, HEAD // flat.shape[1])
    for at, target, want in zip(
        index.split(size), targets.split(size), wanted.split(size), strict=True
    ):
        z = flat[at].float()  # (positions, vocabulary)
        lse = z.logsumexp(-1)
        logp = z.gather(1, target[:, None]).squeeze(1) - lse
        hits = (z.argmax(-1) == target) & logp.isfinite()
        mean, var = torch.full_like(logp, torch.nan), torch.full_like(logp, torch.nan)
        if want.any():
            log = z[want] - lse[want, None]
            p = log.exp()
            log = log.masked_fill(p == 0, 0.0)  # 0·log 0 = 0
            mean[want] = m = (p * log).sum(-1)
            var[want] = (p * (log - m[:, None]).square()).sum(-1)
        pieces.append([column.cpu().numpy() for column in (logp, hits, mean, var)])
    return tuple(np.concatenate(columns) for columns in zip(*pieces, strict=True))


# Gradients
# --------------------------------------------------------------------------------------------------


def gradient_norms(
    model: Any, examples: Sequence[Example], blind: int | None = None
) -> list[float]:
    """Per text: mean over parameter tensors of ‖∂ℓ/∂tensor‖₂, ℓ the mean NLL without the final EOS,
    one row at a time.

    Trainable tensors that take part count, tied ones once; `.grad` is left alone.  +∞ where it is
    not finite (collapsed model), NaN for an answer without a token before EOS or a model without
    trainable tensors.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    norms = []
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        for example in examples:
            start, ids = _start(example), torch.tensor(example.input_ids, device=model.device)
            if not parameters or len(ids) - 1 <= start:
                norms.append(float("nan"))
                continue
            seen = ids[None, :-2]
            mask = None if blind is None else visible(seen, torch.ones_like(seen), blind)
            logits = model(input_ids=seen, attention_mask=mask, use_cache=False).logits[
                0, start - 1 :
            ]
            loss = torch.nn.functional.cross_entropy(logits.float(), ids[start:-1])
            gradients = [
                g for g in torch.autograd.grad(loss, parameters, allow_unused=True) if g is not None
            ]
            norm = float(torch.stack([g.float().norm() for g in gradients]).mean())
            norms.append(norm if np.isfinite(norm) else float("inf"))
    return norms
