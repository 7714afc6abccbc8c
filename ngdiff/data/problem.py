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

from ngdiff import lora, methods
from ngdiff.data.tokens import Example, collate
from ngdiff.engine import Engine, Make
from ngdiff.objectives import Objective, Tokens, start_values, token_counts
from ngdiff.probe import evaluating

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark, Row
    from ngdiff.models import LM


class RowsLoss:
    """An objective on some rows of a batch: calling it gives each row's addend, (rows,), whose sum is the loss.

    total, tokens: the whole batch's count and number of labelled tokens (this may be one of its microbatches). After a
    call, `ce` is the cross-entropy of the same forward, and `floor` the objective's rounding noise. idle: these rows stand
    in for none, where a process has no row left but must take part in the forward.
    """

    def __init__(
        self, model: Any, objective: Objective, batch: dict[str, Any], start: Tensor | None, total: int, tokens: int,
        idle: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.objective, self.batch, self.start = model, objective, batch, start
        self.total, self.tokens, self.floor = total, tokens, objective.floor
        self.ce: Tensor | None = None
        self.idle = idle

    def __call__(self) -> Tensor:
        tokens = _forward(self.model, self.batch)
        self.ce = tokens.nll.detach().sum() / self.tokens
        self.floor = self.objective.floor * tokens.coarse
        rows = self.objective.sums(tokens, self.start) / self.total
        if self.idle:
            self.ce, rows = torch.zeros_like(self.ce), 0.0 * rows
        return rows


class LMProblem:
    """Forget rows against retain rows, `batch_size` of each a step.

    micro: rows per forward (None: the whole batch); any value gives the same loss and gradient, and rows of like length
    share a forward, so that little is padded. lr: of the default optimizer, AdamW(0.9, 0.999) with weight decay 0.01,
    which a step-size rule overrides. dropout: train with the model's own dropout (then a probe, which has none, must
    evaluate the loss at 0 anew). engine: where it computes (`ngdiff.engine`). in_place: the target itself is unlearned,
    no copy of it is made, unless the objectives need it as it was.

    The target is the *start* of KL and NPO: what they need from it is computed once a row and stored. A target with a
    fresh adapter (`ngdiff.lora`) is its own start, with the adapter switched off: the base is never copied.
    Over several processes each sees its share of every batch's rows.
    Errors: ValueError for a row longer than the model's context, before anything is trained, and for a start that would
    need an adapter which is no longer fresh.
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
        engine: Engine | None = None,
        in_place: bool = False,
    ) -> None:
        if batch_size < 1 or (micro is not None and micro < 1):
            raise ValueError(f"batch_size and micro must be at least 1, got {batch_size} and {micro}")
        self.bench, self.target, self.batch_size, self.micro, self.lr = bench, target, batch_size, micro, lr
        self.dropout, self.engine, self.in_place = dropout, engine or Engine(), in_place
        self.forget, self.retain = self._encode(bench.forget), self._encode(bench.retain)
        self.model, self.method, self.seed = target, methods.NGDiff, 0
        self.module: torch.nn.Module = target.model  # what is called: the model, or what several processes wrap it in
        self._low: dict[Tensor, Tensor] = {}
        self._start: dict[tuple[str, int, bool], Tensor] = {}

    def bind(self, method: Any, seed: int) -> LMProblem:
        """The target, or a copy of it, ready to be unlearned with this method's objectives (a bare direction rule:
        cross-entropies)."""
        bound = object.__new__(LMProblem)
        bound.__dict__.update(self.__dict__)  # the rows and the stored start values are shared
        bound.seed = seed
        bound.method = method if isinstance(method, methods.Method) else methods.Method(repr(method), method)
        adapted, starts = self.target.adapted, bound.method.retain.start or bound.method.forget.start
        if starts and adapted and not lora.fresh(self.target.model):
            raise ValueError("the adapter has been trained already, so that switching it off is not the start: merge it "
                             "into the model first (merge_and_unload), then add a new one")  # fmt: skip
        bound.model = (
            self.target
            if self.in_place and (adapted or not starts)
            else self.target.copy(share=not self.engine.changes)
        )
        if bound.start is not None and (place := self.engine.place) is not None:
            bound.start.to(place)
        bound.module, bound._low = self.engine.prepare(bound.model.model)
        bound.module.train(self.dropout)
        return bound

    def __repr__(self) -> str:
        """Names the data as well: a checkpoint of other rows must not be taken for this problem's."""
        rows = self.bench.fingerprint[:12]
        precision = f", precision={self.engine.precision}" if self.engine.precision else ""
        return (
            f"LMProblem({self.bench.name} {self.bench.split} {rows}, batch_size={self.batch_size}, micro={self.micro}, "
            f"dropout={self.dropout}{precision})"
        )

    @property
    def parameters(self) -> list[Tensor]:
        return [p for p in self.module.parameters() if p.requires_grad]

    @property
    def start(self) -> torch.nn.Module | None:
        """The second model in memory: the target as the objectives need it, where that is not an adapter switched off."""
        starts = self.method.retain.start or self.method.forget.start
        return self.target.model if starts and not self.target.adapted else None

    @property
    def options(self) -> dict[str, Any]:
        return self.engine.options

    def optimizer(self, make: Make | None = None) -> torch.optim.Optimizer:
        def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            fused = True if groups[0]["params"][0].device.type == "cuda" else None
            return torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.999), weight_decay=0.01, fused=fused)

        return self.engine.optimizer(self.parameters, self._low, make or adamw)

    def batch(self, step: int) -> tuple[list[RowsLoss], list[RowsLoss]]:
        retain = self._phase(self.method.retain, self._take(step, forget=False), forget=False)
        return retain, self._phase(self.method.forget, self._take(step, forget=True), forget=True)

    def longest(self, step: int, forget: bool) -> RowsLoss:
        """The longest row of the step's forget or retain batch, alone."""
        rows, objective = (self.forget, self.method.forget) if forget else (self.retain, self.method.retain)
        return self._phase(objective, [max(self._take(step, forget), key=lambda i: len(rows[i]))], forget)[0]

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
        rows, mine = self.forget if forget else self.retain, self.engine.processes
        size = (self.micro or len(chosen)) * mine.size
        labels = collate([rows[i] for i in chosen], self.target.pad_id)["labels"]  # of the whole batch
        total, tokens = int(objective.counts(labels).sum()), int(token_counts(labels).sum())
        if (
            len(chosen) > size
        ):  # rows of like length together; the longest first: if memory runs out, it does so at once
            chosen = sorted(chosen, key=lambda i: -len(rows[i]))
        self._ask(objective.start, chosen, forget)
        losses = []
        for part in (chosen[i : i + size] for i in range(0, len(chosen), size)):
            own = part[mine.rank :: mine.size]
            used = own or part[:1]
            batch, start = self._collate([rows[i] for i in used]), None
            if objective.start is not None:
                start = torch.cat([self._start[objective.start, i, forget] for i in used])
                start = start.to(batch["input_ids"].device, non_blocking=True)
            losses.append(RowsLoss(self.module, objective, batch, start, total, tokens, idle=not own))
        return losses

    def _collate(self, examples: list[Example]) -> dict[str, Any]:
        """Ids and mask on the model's device, labels on the host, and `first`: the column that predicts the first labelled
        token of the batch."""
        device, batch = next(self.module.parameters()).device, collate(examples, self.target.pad_id)
        for key in ("input_ids", "attention_mask"):
            batch[key] = batch[key].to(device, non_blocking=True)
        return batch | {"first": max(min(len(e.prompt_ids) for e in examples) - 1, 0)}

    def _ask(self, kind: str | None, chosen: list[int], forget: bool) -> None:
        """Stores what the start model says of these rows, in every process: its forwards may be shared ones."""
        if kind is None:
            return
        rows, size = self.forget if forget else self.retain, self.batch_size
        start = self.model if self.target.adapted else self.target
        # always in the same groups of rows: what pads a row moves its last bits, and a resumed run must see the same
        for group in sorted({i // size for i in chosen if (kind, i, forget) not in self._start}):
            members = range(len(rows))[group * size : (group + 1) * size]
            with torch.no_grad(), evaluating(start.model), start.without_adapter():
                values = start_values(kind, _forward(start.model, self._collate([rows[i] for i in members])))
            # on the host: KL's are a vocabulary wide for every token
            self._start.update({(kind, i, forget): v.cpu() for i, v in zip(members, values, strict=True)})


def _forward(model: Any, batch: dict[str, Any]) -> Tokens:
    """The labelled tokens of a batch; the columns before the first of them, which are prompt in every row, get no logits."""
    first, ids = batch["first"], batch["input_ids"]
    keep = ids.shape[1] - first
    logits = model(
        ids, attention_mask=batch["attention_mask"], use_cache=False, logits_to_keep=keep
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
