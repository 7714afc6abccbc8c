"""One `evaluate` for every benchmark: which evaluator speaks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ngdiff.evaluation import muse, semeval, tofu
from ngdiff.evaluation.conventions import SUITES, Convention

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.evaluation.report import Report
    from ngdiff.lm.model import LM

EVALUATORS = {"tofu": tofu, "muse": muse, "semeval": semeval}


def of(bench: Benchmark) -> str:
    """The suite whose metrics are asked: "muse", "semeval", or "tofu" for it and all that has its
    form.
    """
    return bench.name if bench.name in SUITES else "tofu"


def evaluate(
    lm: LM,
    bench: Benchmark,
    reference: LM | Report | None = None,
    convention: str | Convention = "ngdiff",
    **options: Any,
) -> Report:
    """All metrics of `lm` on `bench`: those of TOFU, MUSE or SemEval-2025 Task 4, as its name says.

    reference: the retain-only model, or its Report. convention: a name of
    `ngdiff.evaluation.conventions`, or a subclass of its `Convention` made by you. options: those
    of `ngdiff.evaluation.{tofu,muse,semeval}.evaluate`; every one takes `generate`, `progress` and
    `max_new_tokens`.
    """
    return EVALUATORS[of(bench)].evaluate(lm, bench, reference, convention, **options)
