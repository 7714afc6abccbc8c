"""One `evaluate` for every benchmark: which evaluator speaks of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ngdiff import suites

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.evaluate.conventions import Convention
    from ngdiff.evaluate.report import Report
    from ngdiff.lm import LM


def evaluate(
    lm: LM,
    bench: Benchmark,
    reference: LM | Report | None = None,
    convention: str | Convention = "ngdiff",
    **options: Any,
) -> Report:
    """All metrics of `lm` on `bench`: those of TOFU, MUSE or SemEval-2025 Task 4, as its name says.

    reference: the retain-only model, or its Report. convention: a name of `ngdiff.evaluate.conventions`,
    or a subclass of its `Convention` made by you. options: those of
    `ngdiff.evaluate.{tofu,muse,semeval}.evaluate`; every one takes `generate`, `progress` and `max_new_tokens`.
    """
    return import_module(f"ngdiff.evaluate.{suites.of(bench)}").evaluate(lm, bench, reference, convention, **options)
