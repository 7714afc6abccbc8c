"""What a likelihood metric reads of an answer: the statistics of its tokens under the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ngdiff.lm.tokens import Example

# logits turned into fp32 statistics at once: what a CPU's cache holds, 64 MiB elsewhere
HEAD = {"cpu": 2**19}
HEAD_ELSEWHERE = 2**24


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


def start(example: Example) -> int:
    """Return the index of the first answer token that has a predictor.

    The very first token of a text has none.
    """
    return max(1, len(example.prompt_ids))


def statistics(
    logits: Tensor, at: Tensor, owner: Tensor, targets: Tensor, wanted: Tensor
) -> tuple[np.ndarray, ...]:
    """logp, hits, mean, var, each (targets,), of tokens and of the positions that predict them.

    logits   (…, vocabulary), of which `at` (positions,) are looked at
    owner    (targets,), not falling: which of these positions predicts a target
    wanted   (positions,): whether its mean and var are asked for; NaN where they are not

    Few positions are turned into float32 at a time.
    """
    flat = logits.flatten(0, -2)
    size = max(1, HEAD.get(logits.device.type, HEAD_ELSEWHERE) // flat.shape[1])
    rows, pieces = at.split(size), []
    first = torch.arange(0, len(at) + size, size, device=owner.device)
    cuts = torch.searchsorted(owner, first).tolist()
    for n, (here, want) in enumerate(zip(rows, wanted.split(size), strict=True)):
        told = slice(cuts[n], cuts[n + 1])
        mine, target = owner[told] - n * size, targets[told]
        z = flat[here].float()  # (positions, vocabulary)
        lse, best = z.logsumexp(-1), z.amax(-1)
        its = z[mine, target]
        logp, hits = its - lse[mine], its == best[mine]
        hits[hits.clone()] = z[mine[hits]].argmax(-1) == target[hits]  # the first of equal logits
        hits &= logp.isfinite()
        mean, var = torch.full_like(lse, torch.nan), torch.full_like(lse, torch.nan)
        if want.any():
            mean[want], var[want] = _moments(z[want], lse[want])
        pieces.append([x.cpu().numpy() for x in (logp, hits, mean[mine], var[mine])])
    return tuple(np.concatenate(columns) for columns in zip(*pieces, strict=True))


def _moments(z: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """Return E[log p] and Var[log p] under p of each row of logits."""
    log = z - lse[:, None]
    p = log.exp()
    log = log.masked_fill(p == 0, 0.0)  # 0·log 0 = 0
    mean = (p * log).sum(-1)
    return mean, (p * (log - mean[:, None]).square()).sum(-1)


def cut(
    columns: Sequence[np.ndarray], lengths: Sequence[int], asked: Sequence[bool]
) -> list[Stats]:
    """Return the Stats of texts that stand one behind the other in the columns."""
    ends = np.cumsum(lengths)[:-1]
    rows = zip(*[np.split(column, ends) for column in columns], asked, strict=True)
    return [Stats(*row) if moments else Stats(*row[:2]) for *row, moments in rows]
