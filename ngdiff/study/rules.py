"""Step-size rules that only the comparison runs: AutoLR and the bare formula, taken apart.

They answer what each part of AutoLR is good for (`ngdiff.study.evidence`, E3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.info import Info
from ngdiff.core.stepsize import Line, State

LABELS = {  # of step-size rules, as tables and figures name them
    "autolr": "AutoLR",
    "three-point": "bare rule",
    "once": "first search only",
    "once-half": "half of the first search",
    "three-point-bounded": "bare rule with bounds",
}


def run_label(method: str, stepsize: str) -> str:
    """Return what a run is called: the method's label, and its step-size rule unless constant."""
    from ngdiff.methods.lookup import label  # a command's help reads the rules, without torch

    rule = LABELS.get(stepsize, stepsize)
    return label(method) if stepsize == "constant" else f"{label(method)} + {rule}"


@dataclass(frozen=True)
class SearchOnce(AutoLR):
    """AutoLR's first search, and then a constant rate: `factor` times the one that was found."""

    factor: float = 1.0

    def probes(self, state: State) -> bool:
        return not state.found

    def step(self, state: State, line: Line | None, info: Info | None = None) -> State:
        if not self.probes(state):
            return replace(state, step=state.step + 1, outcome="held")
        nxt = super().step(state, line, info)
        return replace(nxt, eta=self.factor * nxt.eta) if nxt.found else nxt


@dataclass(frozen=True)
class BoundedThreePoint(ThreePoint):
    """The bare formula with bounds: a rate moves by at most ten times, and never below zero.

    Where the formula gives no positive finite rate the old one stays (`nonfinite`).
    """

    most: float = 10.0

    def step(self, state: State, line: Line | None, info: Info | None = None) -> State:
        nxt = super().step(state, line, info)
        if not self.probes(state):
            return nxt
        if not 0 < nxt.proposed < math.inf:
            return replace(nxt, eta=state.eta, outcome="nonfinite")
        low, high = state.eta / self.most, state.eta * self.most
        return replace(nxt, eta=min(max(nxt.proposed, low), high))
