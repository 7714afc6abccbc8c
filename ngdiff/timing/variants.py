"""The ways to take the step that are timed: both GradDiffs, a naive NGDiff, and ours.

graddiff-two      two backwards, the second accumulates onto the first       the usual
                  implementation
graddiff-one      one backward of c·R − (1−c)·F                              both graphs alive
                  at once
graddiff-autocast two backwards under torch's autocast, on float32   what people write
                  weights of its own
naive             clones, a loop over parameters, .item() for each norm      NGDiff as a first
                  draft
ngdiff            ours, at a rate given beforehand
ngdiff-recompute  ours, never holding two gradients (memory="recompute")
ngdiff+autolr     ours, probing as by default
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import NGDiff
from ngdiff.core.info import Info
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Line, State
from ngdiff.engine import meters
from ngdiff.timing.case import AUTOCAST
from ngdiff.timing.subject import LR, Subject

EVERY = 8  # rounds between two probes of AutoLR here
OVER = AutoLR().every  # updates between two probes that agree: what a probe's cost is spread over


@dataclass(frozen=True)
class _Steady(AutoLR):
    """AutoLR as it runs once it has found a rate: one fit a probe. The rate stays LR.

    It probes once in EVERY rounds, not in OVER, so that few rounds hold several probes.

    It looks at a radius at which a fit shows something, so that one is enough.
    """

    radius: float = 1e-3

    def step(self, state: State, line: Line | None, info: Info | None = None) -> State:
        if not self.probes(state):
            return replace(state, step=state.step + 1, outcome="held")
        seen = super().step(replace(state, chosen=self.radius, found=self.radius), line, info)
        return replace(seen, eta=LR, outcome="accepted", due=state.step + EVERY)


OURS: dict[str, tuple[AutoLR | None, str]] = {  # step-size rule, memory mode
    "ngdiff": (None, "swap"),
    "ngdiff-recompute": (None, "recompute"),
    "ngdiff+autolr": (_Steady(lr=LR), "swap"),
}


def graddiff_two(on: Subject) -> None:
    (0.5 * on.loss(0)).backward()
    (-0.5 * on.loss(1)).backward()
    on.update()


def graddiff_autocast(on: Subject) -> None:
    (0.5 * on.loss(0, autocast=True)).backward()
    (-0.5 * on.loss(1, autocast=True)).backward()
    on.update()


def graddiff_one(on: Subject) -> None:
    (0.5 * on.loss(0) - 0.5 * on.loss(1)).backward()
    on.update()


def naive(on: Subject) -> None:
    stashes = []
    for which in (0, 1):
        on.clear()
        on.loss(which).backward()
        grads = [p.grad.clone() for p in on.params]
        stashes.append((grads, sum(g.norm().item() ** 2 for g in grads) ** 0.5))
    (g_R, n_R), (g_F, n_F) = stashes
    for p, x, y in zip(on.params, g_R, g_F, strict=True):
        p.grad = x / n_R - y / n_F
    on.update()


class Variant:
    """One way to take the step.

    skipped: how many of its steps changed nothing (a loss that is not finite, say).
    """

    def __init__(self, name: str, subject: Subject) -> None:
        if name in AUTOCAST:
            subject = Subject(replace(subject.case, precision="float32"), subject.device)
        self.name, self.subject, self.skipped = name, subject, 0
        self.restart()

    def restart(self) -> None:
        """Make its rule, where it has one, due to probe in the next step."""
        on = self.subject
        if self.name not in OURS:
            plain: dict[str, Callable[[Subject], None]] = {
                "graddiff-two": graddiff_two,
                "graddiff-one": graddiff_one,
                "graddiff-autocast": graddiff_autocast,
                "naive": naive,
            }
            self.step: Callable[[], Any] = partial(plain[self.name], on)
            return
        rule, memory = OURS[self.name]
        options = replace(on.engine, memory=memory).options
        ours = UnlearningStep(on.model, on.optimizer, NGDiff(), rule, **options)
        fresh = rule.fresh if rule else 0  # it looks at as many batches of others

        def step() -> None:
            others = [lambda: on.loss(0) / fresh] * fresh if fresh else None
            self.skipped += not ours(lambda: on.loss(0), lambda: on.loss(1), others).updated

        self.step = step

    def peak(self) -> int:
        """Peak bytes of one step, one that probes where the rule does."""
        self.subject.clear()
        self.restart()
        return self.subject.held() + meters.allocated(self.step, self.subject.device)[0]
