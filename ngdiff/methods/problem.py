"""A benchmark and a target model as a `Problem` of the unlearning loop.

Batches are a function of (seed, step) alone: rows come from a stream of seeded permutations. So a
run can stop anywhere and go on. Two methods with the same seed see the same rows in the same order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ngdiff.engine.engine import Engine, Make
from ngdiff.lm import lora
from ngdiff.lm.tokens import Example, collate
from ngdiff.methods import lookup, order, recipes
from ngdiff.methods.definition import Method
from ngdiff.methods.loss import RowsLoss, batch_of, mean_of
from ngdiff.methods.objectives import CE, Objective, token_counts
from ngdiff.methods.refusals import refusal
from ngdiff.methods.start import Starts, bytes_of, keeps, said
from ngdiff.methods.texts import Texts

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.lm.model import LM

SET = 1024  # forget rows that `forget_loss` takes at most


class LMProblem:
    """Forget rows against retain rows, `batch_size` of each a step.

    micro: rows per forward (None: the whole batch). Any value gives the same loss and gradient.
    Rows of like length share a forward, so little is padded. lr: of the default optimizer,
    AdamW(0.9, 0.999) with weight decay 0.01. A step-size rule overrides it. dropout: train with the
    model's own dropout. A probe has none, so it must evaluate the loss at 0 anew.
    engine: where it computes (`ngdiff.engine`). in_place: the target itself is unlearned, no copy
    of it is made, unless the objectives need it as it was. checked: no row is longer than its
    context.

    The target is the *start* of KL, NPO, DPO, UNDIAL and RMU. What they need from it is computed
    once a row and stored. Where that is too much, it is computed for each batch anew
    (`ngdiff.methods.start`). A target with a fresh adapter (`ngdiff.lm.lora`) is its own start,
    with the adapter switched off: the base is never copied. DPO sets each forget answer against a
    refusal to its question (`ngdiff.methods.refusals`); microbatches count the pairs. Over several
    processes each sees its share of every batch's rows.
    Errors, before anything is trained: ValueError for a row longer than the model's context, for a
    start that would need an adapter which is no longer fresh, and for rows that lack what a method
    needs.
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
        checked: bool = False,
    ) -> None:
        if batch_size < 1 or (micro is not None and micro < 1):
            raise ValueError(
                f"batch_size and micro must be at least 1, got {batch_size} and {micro}"
            )
        self.bench, self.target, self.dropout, self.in_place = bench, target, dropout, in_place
        self.batch_size, self.micro, self.lr = batch_size, micro, lr
        self.engine = engine or Engine()
        self.forget, self.retain = (
            Texts(target, rows, checked) for rows in (bench.forget, bench.retain)
        )
        self.model, self.method, self.seed = target, recipes.ngdiff, 0
        # what is called: the model, or what several processes wrap it in
        self.module: torch.nn.Module = target.model
        self._low: dict[Tensor, Tensor] = {}
        self._set: list[list[RowsLoss]] = []  # all forget rows, for `forget_loss`
        self.refusals: Sequence[Example] = []  # to the forget rows, where the method pairs them
        self._starts = Starts()
        self._said = {False: 0, True: 0}  # bytes that the start says of the retain and forget rows

    def bind(self, method: Any, seed: int) -> LMProblem:
        """The target, or a copy of it, ready to be unlearned with this method's objectives (a bare
        direction rule: cross-entropies)."""
        bound = object.__new__(LMProblem)
        bound.__dict__.update(self.__dict__)  # the rows and the stored start values are shared
        bound.seed, bound._said, bound._set = seed, {}, []
        bound.method = method if isinstance(method, Method) else lookup.method(method)
        if bound.method.retain.pairs:
            raise ValueError(
                f"{bound.method.retain} pairs answers with refusals: it is a forget objective only"
            )
        if bound.method.forget.pairs:
            bound.refusals = self._refusals()
        for forget, objective in bound._objectives:
            rows = range(len(self.forget if forget else self.retain))
            texts = bound._texts(objective, rows if objective.start else (), forget)
            bound._said[forget] = bytes_of(objective, texts, self.target.model.config)
        adapted = self.target.adapted
        starts = bound.method.retain.start or bound.method.forget.start
        if starts and adapted and not lora.fresh(self.target.model):
            raise ValueError(
                "the adapter has been trained already, so that switching it off is not the start: "
                "merge it into the model first (merge_and_unload), then add a new one"
            )
        if self.in_place and (adapted or not starts):
            bound.model = self.target
        else:
            bound.model = self.target.copy(share=not self.engine.changes)
        if bound.method.trains is not None:
            lora.train_only(bound.model.model, bound.method.trains)
        if bound.start is not None and (place := self.engine.place) is not None:
            bound.start.to(place)
        bound.module, bound._low = self.engine.prepare(bound.model.model)
        bound.module.train(self.dropout)
        return bound

    def __repr__(self) -> str:
        """Names the data as well: a checkpoint of other rows must not be taken for this
        problem's.
        """
        rows = self.bench.fingerprint[:12]
        precision = f", precision={self.engine.precision}" if self.engine.precision else ""
        return (
            f"LMProblem({self.bench.name} {self.bench.split} {rows}, "
            f"batch_size={self.batch_size}, micro={self.micro}, "
            f"dropout={self.dropout}{precision})"
        )

    @property
    def parameters(self) -> list[Tensor]:
        return [p for p in self.module.parameters() if p.requires_grad]

    @property
    def start(self) -> torch.nn.Module | None:
        """The second model in memory: the target as the objectives need it, where that is not an
        adapter switched off.
        """
        starts = self.method.retain.start or self.method.forget.start
        return self.target.model if starts and not self.target.adapted else None

    def host(self, fresh: int = 0) -> int:
        """Bytes of host memory for the start's outputs; of what is not kept, a probe's rows."""
        total = 0
        for forget, objective in self._objectives:
            n = len(self.forget if forget else self.retain)
            kept = keeps(objective, self._said[forget])
            rows = n if kept else min(n, self.batch_size * (1 + fresh))
            total += self._said[forget] * rows // max(n, 1)
        return total

    @property
    def _objectives(self) -> list[tuple[bool, Objective]]:
        """(whether it is the forget objective, the objective) of both."""
        return [(False, self.method.retain), (True, self.method.forget)]

    @property
    def _start(self) -> LM:
        """The model that is the start; an adapter is switched off in it."""
        return self.model if self.target.adapted else self.target

    @property
    def options(self) -> dict[str, Any]:
        return self.engine.options

    def optimizer(self, make: Make | None = None) -> torch.optim.Optimizer:
        def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            # one pass over a bfloat16 model's exact weights on a CPU, too
            fused = True if self._low or groups[0]["params"][0].device.type == "cuda" else None
            return torch.optim.AdamW(
                groups, lr=self.lr, betas=(0.9, 0.999), weight_decay=0.01, fused=fused
            )

        return self.engine.optimizer(self.parameters, self._low, make or adamw)

    def batch(self, step: int) -> tuple[list[RowsLoss], list[RowsLoss]]:
        retain = self._phase(self.method.retain, self._take(step, forget=False), forget=False)
        return retain, self._phase(self.method.forget, self._take(step, forget=True), forget=True)

    def longest(self, step: int, forget: bool) -> RowsLoss:
        """The longest row of the step's forget or retain batch, alone."""
        objective = self.method.forget if forget else self.method.retain
        longest = max(self._take(step, forget), key=lambda i: self._length(objective, i, forget))
        return self._phase(objective, [longest], forget)[0]

    def probe(self, step: int, fresh: int) -> list[RowsLoss] | None:
        """The retain objective on `fresh` times as many rows as the step has, none of them its own.

        They come from a stream of their own. None where the step has all rows.
        """
        own = self._take(step, forget=False)
        size = min(fresh * len(own), len(self.retain) - len(own))
        rows = order.stream(f"{self.seed} probe", len(self.retain), step * size)
        if not size:
            return None
        others: list[int] = []
        while len(others) < size:
            if (i := next(rows)) not in own and i not in others:
                others.append(i)
        return self._phase(self.method.retain, others, forget=False)

    def forget_loss(self) -> float:
        """Return the cross-entropy of the forget rows now (of `SET` drawn ones, where there are
        more), a mean over answer tokens, in nats.
        """
        if not self._set:
            rows = order.drawn(f"{self.seed} set", len(self.forget), SET)
            rows = sorted(rows, key=lambda i: -len(self.forget[i]))
            cuts = range(0, len(rows), self.batch_size)
            self._set = [self._phase(CE(), rows[i : i + self.batch_size], True) for i in cuts]
        return mean_of(self._set, self.module, self.engine.processes)

    def _refusals(self) -> Texts:
        rows = self.bench.forget
        if bare := [i for i, row in enumerate(rows) if not row["question"]]:
            raise ValueError(
                f"forget row {bare[0]} is a document, and a refusal answers a question: pairs "
                "with refusals (DPO) need rows with a question"
            )
        asked = [row["question"] for row in rows]
        return Texts(self.target, [{"question": q, "answer": refusal(q)} for q in asked])

    def _texts(self, objective: Objective, chosen: Sequence[int], forget: bool) -> list[Example]:
        """Return what goes into a batch for these rows: a text each, of pairs the answer and its
        refusal.
        """
        rows = self.forget if forget else self.retain
        if objective.pairs:
            return [example for i in chosen for example in (rows[i], self.refusals[i])]
        return [rows[i] for i in chosen]

    def _length(self, objective: Objective, i: int, forget: bool) -> int:
        return max(map(len, self._texts(objective, [i], forget)))

    def _take(self, step: int, forget: bool) -> list[int]:
        n = len(self.forget if forget else self.retain)
        size = min(self.batch_size, n)
        rows = order.stream(f"{self.seed} {'forget' if forget else 'retain'}", n, step * size)
        return [next(rows) for _ in range(size)]

    def _phase(self, objective: Objective, chosen: list[int], forget: bool) -> list[RowsLoss]:
        mine = self.engine.processes
        size = (self.micro or len(chosen)) * mine.size
        whole = collate(self._texts(objective, chosen, forget), self.target.pad_id)
        labels = whole["labels"]
        total = objective.counts(labels).sum().item()
        tokens = int(token_counts(labels[:: 1 + objective.pairs]).sum())
        # rows of like length together; the longest first: if memory runs out, it does so at once
        if len(chosen) > size:
            chosen = sorted(chosen, key=lambda i: -self._length(objective, i, forget))
        if objective.everywhere and (len(chosen) > size or mine.size > 1):
            raise ValueError(
                f"{objective} is an average over the padding too, so its batch cannot be cut: "
                "leave micro out, and take one process"
            )
        kept = keeps(objective, self._said[forget])
        if kept:
            collated = functools.partial(self._collate, objective, forget=forget)
            many = len(self.forget if forget else self.retain), self.batch_size
            self._starts.ask(self._start, objective, chosen, forget, many, collated)
        losses = []
        for part in (chosen[i : i + size] for i in range(0, len(chosen), size)):
            own = part[mine.rank :: mine.size]
            used = own or part[:1]
            batch, start = self._collate(objective, used, forget), None
            if objective.start is not None:
                values = (
                    self._starts.of(objective, used, forget)
                    if kept
                    else said(self._start, batch, objective)
                )
                start = torch.cat(values).to(batch["input_ids"].device, non_blocking=True)
            # a batch without anything to count is worth 0
            counts = total or 1, tokens or 1
            losses.append(RowsLoss(self.module, objective, batch, start, *counts, idle=not own))
        return losses

    def _collate(self, objective: Objective, chosen: Sequence[int], forget: bool) -> dict[str, Any]:
        device = next(self.module.parameters()).device
        return batch_of(
            self._texts(objective, chosen, forget), self.target.pad_id, device, objective.everywhere
        )


def problem(bench: Benchmark, target: LM, **options: Any) -> LMProblem:
    """Return the unlearning problem of a benchmark for a target; options as of `LMProblem`."""
    return LMProblem(bench, target, **options)
