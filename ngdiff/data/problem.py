"""A benchmark and a target model as a `Problem` of the unlearning loop.

Batches are a function of (seed, step) alone: rows come from a stream of seeded permutations, so that a run can stop
anywhere and go on, and two methods with the same seed see the same rows in the same order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ngdiff import methods
from ngdiff.data.tokens import Example, collate
from ngdiff.objectives import Objective, Tokens, start_values, token_counts
from ngdiff.probe import evaluating

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark, Row
    from ngdiff.models import LM


class RowsLoss:
    """An objective on some rows of a batch: calling it gives each row's addend, (rows,), whose sum is the loss.

    total, tokens: the whole batch's count and number of labelled tokens (this may be one of its microbatches). After a
    call, `ce` is the cross-entropy of the same forward, and `floor` the objective's rounding noise.
    """

    def __init__(self, model: Any, objective: Objective, batch: dict[str, Any], start: Tensor | None, total, tokens):
        self.model, self.objective, self.batch, self.start = model, objective, batch, start
        self.total, self.tokens, self.floor, self.ce = total, tokens, objective.floor, None

    def __call__(self) -> Tensor:
        tokens = _forward(self.model, self.batch)
        self.ce = tokens.nll.detach().sum() / self.tokens
        self.floor = self.objective.floor * tokens.coarse
        return self.objective.sums(tokens, self.start) / self.total


class LMProblem:
    """Forget rows against retain rows, `batch_size` of each a step.

    micro: rows per forward (None: the whole batch); any value gives the same loss and gradient. lr: of the default
    optimizer, AdamW(0.9, 0.999) with weight decay 0.01, which a step-size rule overrides. dropout: train with the
    model's own dropout (then a probe, which has none, must evaluate the loss at 0 anew).
    The target is the *start* of KL and NPO: what they need from it is computed once a row and stored.
    Errors: ValueError for a row longer than the model's context, before anything is trained.
    """

    def __init__(
        self,
        bench: Benchmark,
        target: LM,
        *,
        batch_size: int = 32,
        micro: int | None = None,
        lr: float = 1e-3,
        dropout: bool = False,
    ) -> None:
        if batch_size < 1 or (micro is not None and micro < 1):
            raise ValueError(f"batch_size and micro must be at least 1, got {batch_size} and {micro}")
        self.bench, self.target, self.batch_size, self.micro, self.lr = bench, target, batch_size, micro, lr
        self.dropout = dropout
        self.forget, self.retain = self._encode(bench.forget), self._encode(bench.retain)
        self.model, self.method, self.seed = target, methods.NGDiff, 0
        self._start: dict[tuple[str, int, bool], Tensor] = {}

    def bind(self, method: Any, seed: int) -> LMProblem:
        """A copy of the target to unlearn with this method's objectives (a bare direction rule: cross-entropies)."""
        bound = object.__new__(LMProblem)
        bound.__dict__.update(self.__dict__)  # the rows and the stored start values are shared
        bound.model, bound.seed = self.target.copy(), seed
        bound.method = method if isinstance(method, methods.Method) else methods.Method(repr(method), method)
        bound.module.train(self.dropout)
        return bound

    def __repr__(self) -> str:
        """Names the data as well: a checkpoint of other rows must not be taken for this problem's."""
        rows = self.bench.fingerprint[:12]
        return (
            f"LMProblem({self.bench.name} {self.bench.split} {rows}, batch_size={self.batch_size}, micro={self.micro}, "
            f"dropout={self.dropout})"
        )

    @property
    def module(self) -> torch.nn.Module:
        return self.model.model

    @property
    def parameters(self) -> list[Tensor]:
        return [p for p in self.module.parameters() if p.requires_grad]

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters, lr=self.lr, betas=(0.9, 0.999), weight_decay=0.01)

    def batch(self, step: int) -> tuple[list[RowsLoss], list[RowsLoss]]:
        retain = self._phase(self.method.retain, self._take(step, forget=False), forget=False)
        return retain, self._phase(self.method.forget, self._take(step, forget=True), forget=True)

    def probe(self, step: int, fresh: int) -> list[RowsLoss]:
        """The retain objective on the step's rows and `fresh` times as many others, from a stream of their own."""
        own = self._take(step, forget=False)
        size = min(fresh * len(own), len(self.retain) - len(own))
        stream = _stream(f"{self.seed} probe", len(self.retain), step * size)
        others = []
        while len(others) < size:
            if (i := next(stream)) not in own and i not in others:
                others.append(i)
        return self._phase(self.method.retain, own + others, forget=False)

    def _encode(self, rows: Sequence[Row]) -> list[Example]:
        return [self.target.encode(row["question"], row["answer"]) for row in rows]

    def _take(self, step: int, forget: bool) -> list[int]:
        n = len(self.forget if forget else self.retain)
        size = min(self.batch_size, n)
        stream = _stream(f"{self.seed} {'forget' if forget else 'retain'}", n, step * size)
        return [next(stream) for _ in range(size)]

    def _phase(self, objective: Objective, chosen: list[int], forget: bool) -> list[RowsLoss]:
        rows = self.forget if forget else self.retain
        micro = self.micro or len(chosen)
        parts = [chosen[i : i + micro] for i in range(0, len(chosen), micro)]
        batches = [self._collate([rows[i] for i in part]) for part in parts]
        total = sum(int(objective.counts(b["labels"]).sum()) for b in batches)
        tokens = sum(int(token_counts(b["labels"]).sum()) for b in batches)
        starts = [self._starts(objective.start, part, forget) for part in parts]
        return [RowsLoss(self.module, objective, b, s, total, tokens) for b, s in zip(batches, starts, strict=True)]

    def _collate(self, examples: list[Example]) -> dict[str, Any]:
        """Tensors on the model's device, and `first`: the column that predicts the first labelled token of the batch."""
        batch = {k: v.to(self.module.device) for k, v in collate(examples, self.target.pad_id).items()}
        return batch | {"first": max(min(len(e.prompt_ids) for e in examples) - 1, 0)}

    def _starts(self, kind: str | None, chosen: list[int], forget: bool) -> Tensor | None:
        if kind is None:
            return None
        rows, size = self.forget if forget else self.retain, self.batch_size
        # always in the same groups of rows: what pads a row moves its last bits, and a resumed run must see the same
        for group in sorted({i // size for i in chosen if (kind, i, forget) not in self._start}):
            members = range(len(rows))[group * size : (group + 1) * size]
            with torch.no_grad(), evaluating(self.target.model):
                values = start_values(kind, _forward(self.target.model, self._collate([rows[i] for i in members])))
            self._start.update({(kind, i, forget): v for i, v in zip(members, values, strict=True)})
        return torch.cat([self._start[kind, i, forget] for i in chosen])


def _forward(model: Any, batch: dict[str, Any]) -> Tokens:
    """The labelled tokens of a batch; the columns before the first of them, which are prompt in every row, get no logits."""
    first, ids = batch["first"], batch["input_ids"]
    keep = ids.shape[1] - first
    logits = model(
        ids, batch["attention_mask"], use_cache=False, logits_to_keep=keep
    ).logits  # (rows, keep, vocabulary)
    return Tokens(logits, batch["labels"][:, first:])


@lru_cache(maxsize=64)
def _permutation(name: str, n: int, epoch: int) -> tuple[int, ...]:
    order = list(range(n))
    random.Random(f"{name} {epoch}").shuffle(order)
    return tuple(order)


def _stream(name: str, n: int, position: int):
    """Row numbers of endless seeded permutations of n rows, from a position on."""
    while True:
        yield _permutation(name, n, position // n)[position % n]
        position += 1
