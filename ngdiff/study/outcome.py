"""What a trial came to: the score of the comparison, and a summary of its updates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from ngdiff.evaluation.suites import TOFU, Suite
from ngdiff.study.intervals import Row


def scores(metrics: Row, start: Row, reference: Row, suite: Suite = TOFU) -> Row:
    """Return the comparison's score: the harmonic mean of kept utility and achieved forgetting.

        kept   = min(1, U/U_start)
        forgot = 1 − clip((S − S_ref)/(S_start − S_ref), 0, 1)

    U, S: utility and memory of the benchmark (`Suite.axes`; of TOFU the model utility and the
    forget set's ROUGE-L recall). All three numbers lie in [0, 1].
    Errors: ValueError where the start has no utility, or recalls no more of the forget set than the
    reference does.
    """
    (utility, memory), (before, known), (_, ideal) = (
        suite.axes(m) for m in (metrics, start, reference)
    )
    if not (before > 0 and known > ideal):
        raise ValueError(
            f"no score: the start has utility {before:.3g} and recalls {known:.3g} of the forget "
            f"set, against the reference's {ideal:.3g}; train it longer (Profile.training), there "
            "is nothing to unlearn or to keep"
        )
    if not (math.isfinite(utility) and math.isfinite(memory)):
        return {"kept": 0.0, "forgot": 0.0, "score": 0.0}  # a model of NaNs is worth nothing
    kept = min(1.0, utility / before)
    forgot = 1.0 - min(max((memory - ideal) / (known - ideal), 0.0), 1.0)
    return {
        "kept": kept,
        "forgot": forgot,
        "score": 2 * kept * forgot / (kept + forgot) if kept + forgot > 0 else 0.0,
    }


def summary(steps: Sequence[Any]) -> Row:
    """Return the share of updates of a run that went against Eq. 7, and the rates used."""
    taken = [i for i in steps if i.updated]
    if not taken:
        return {}
    return {
        "uphill_retain": sum(i.dR > 0 for i in taken) / len(taken),
        "downhill_forget": sum(i.dF < 0 for i in taken) / len(taken),
        "eta_first": taken[0].eta,
        "eta_median": statistics.median(i.eta for i in taken),
        "eta_last": taken[-1].eta,
        "forget_ce_last": steps[-1].forget_ce,
        "retain_ce_last": steps[-1].retain_ce,
        "forwards": taken[-1].forwards,  # spent on probing
    }
