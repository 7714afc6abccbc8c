"""The suites: each benchmark is one value, and everything else reads it off.

A suite says where the benchmark's rows come from, and which generated benchmark stands in for them.
It names the evaluator of a model, the metrics that are compared, and the options of a run. To add a
benchmark, write its data module (`ngdiff.data`) and a value here.

    TOFU      questions about invented authors
    MUSE      news or books, whole documents
    SEMEVAL   SemEval-2025 Task 4: stories, private data, biographies

Importing this loads no torch: a suite's evaluator is loaded when it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ngdiff import data, zoo
from ngdiff.data.real import muse as muse_rows
from ngdiff.data.real import tofu as tofu_rows
from ngdiff.data.real.semeval_rows import TASKS
from ngdiff.profiles import Profile, profile

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.evaluation.conventions import Convention
    from ngdiff.evaluation.report import Report
    from ngdiff.lm.model import LM

TERMS = tuple(f"{task}_{what}" for task in TASKS for what in ("regurgitation", "knowledge"))


class Evaluator(Protocol):
    """What a suite needs from the module that measures a model on it."""

    @property
    def evaluate(self) -> Callable[..., Report]:
        """Return the function (lm, bench, reference, convention, **options) -> Report."""

    def write_files(self, report: Report, folder: Path) -> list[Path]:
        """Write the benchmark's own files into a folder; return their paths."""


@dataclass(frozen=True)
class Suite:
    """One benchmark, and all that differs from one to the next.

    name          its `Benchmark.name`, the command line's word, and the label of real rows
    title         its name in messages
    rows          (profile, split, root=, …) -> its rows, from a folder or, root None, from the hub
    split         profile -> the split that a run takes when none is named
    asked_split   the split that `ngdiff evaluate` takes when none is named
    marks         files or folders of which a folder of its rows has one
    stand_in      the name of the generated benchmark in its form
    made          (profile[, split]) -> the generated benchmark
    made_split    the default split of `made`; "": it has one only
    evaluator     loads the module that measures a model
    kept, known   metrics, all in [0, 1]: what unlearning must keep, and what it must lose
    convention    the one of the published numbers
    batch         the profile's field that says how many rows a step takes of each side
    answers_cut   whether answers are cut to the profile's `max_new_tokens`; else the evaluator says
    cut           (benchmark, tokenizer, tokens) -> the same with its long documents cut
    options       what its `evaluate` takes on the command line beside what all take
    sources       what its `rows` takes there
    generations   whether its own files hold generations
    asked_folder  (split, folder) -> the rows to evaluate, from a folder that lacks the rest
    need          (folder, split): FileNotFoundError where a file is missing
    reference_rows  benchmark -> the entry of a report's meta by which a reference is of the same
                  rows, and what it must be ("": the fingerprint of all rows)
    """

    name: str
    title: str
    rows: Callable[..., Benchmark]
    split: Callable[[Profile], str]
    asked_split: str
    stand_in: str
    made: Callable[..., Benchmark]
    evaluator: Callable[[], Evaluator]
    kept: tuple[str, ...]
    known: tuple[str, ...]
    convention: str
    marks: tuple[str, ...] = ()
    made_split: str = ""
    batch: str = "batch_documents"
    answers_cut: bool = False
    cut: Callable[[Benchmark, Any, int], Benchmark] | None = None
    options: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    generations: bool = False
    asked_folder: Callable[[str, Path], Benchmark] | None = None
    need: Callable[[Path, str], None] = lambda folder, split: None
    reference_rows: Callable[[Benchmark], tuple[str, str]] = lambda bench: ("fingerprint", "")

    def generated(self, P: str | Profile, split: str = "", variant: str = "") -> Benchmark:
        """Return the benchmark that stands in for this one, of a profile's size.

        variant: a population of its own by its seed ("3"), or "all": every retain row is kept.
        """
        if variant == "all":
            P = replace(profile(P), retain_rows=None)
        seed = {"seed": int(variant)} if variant.isdigit() else {}
        sizes = (split or self.made_split,) if self.made_split else ()
        return self.made(P, *sizes, **seed)

    def asked(self, split: str, root: Path | None, **sources: Any) -> Benchmark:
        """Return the rows to evaluate, from a folder or from the hub."""
        if root is not None and self.asked_folder is not None:
            return self.asked_folder(split, root)
        return self.rows("paper", split, root=root, **sources)

    def axes(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        """Return (utility, memory) of an evaluation, both in [0, 1]; NaN where it lacks a metric.

        Utility is what unlearning must keep: the harmonic mean of `kept`. Memory is what it must
        lose: the mean of `known`.
        """
        kept, known = (
            [metrics.get(name, math.nan) for name in names] for names in (self.kept, self.known)
        )
        return kept[0] if len(kept) == 1 else _harmonic_mean(kept), sum(known) / len(known)


def _harmonic_mean(values: list[float]) -> float:
    from ngdiff.evaluation.metrics import harmonic_mean

    return harmonic_mean(values)


def _tofu() -> Evaluator:
    from ngdiff.evaluation import tofu

    return tofu


def _muse() -> Evaluator:
    from ngdiff.evaluation import muse

    return muse


def _muse_documents(bench: Benchmark) -> tuple[str, str]:
    from ngdiff.evaluation.muse import reference_rows

    return reference_rows(bench)


def _corpus(P: Profile) -> str:
    """Return the corpus of the profile's model, whose target is of one; news without a target."""
    ready = zoo.ready(P.model) if P.model else ()
    return next((key.split()[1] for key in ready if key.startswith("muse ")), "news")


def _semeval() -> Evaluator:
    from ngdiff.evaluation import semeval

    return semeval


TOFU = Suite(
    "tofu",
    "TOFU",
    rows=data.tofu,
    split=lambda P: P.tofu_split,
    asked_split="forget10",
    stand_in="authors",
    made=data.authors,
    made_split="forget10",
    evaluator=_tofu,
    kept=("model_utility",),
    known=("forget_Q_A_ROUGE",),
    convention="open-unlearning",
    batch="batch_size",
    answers_cut=True,
    options=("gradnorm",),
    asked_folder=tofu_rows.asked,
    need=tofu_rows.need_files,
)
MUSE = Suite(
    "muse",
    "MUSE",
    rows=data.muse,
    split=_corpus,
    asked_split="news",
    marks=("raw",),
    stand_in="news",
    made=data.news,
    evaluator=_muse,
    kept=("knowmem_r",),
    known=("verbmem_f",),
    convention="muse",
    cut=muse_rows.cut,
    reference_rows=_muse_documents,
)
SEMEVAL = Suite(
    "semeval",
    "SemEval",
    rows=data.semeval,
    split=lambda P: "train",
    asked_split="validation",
    marks=("forget.jsonl", "semeval2025", "train/forget.jsonl"),
    stand_in="dossiers",
    made=data.dossiers,
    evaluator=_semeval,
    kept=tuple(f"retain_{term}" for term in TERMS),
    known=tuple(f"forget_{term}" for term in TERMS),
    convention="semeval",
    options=("mmlu",),
    sources=("mia",),
    generations=True,
)
SUITES = (TOFU, MUSE, SEMEVAL)


def suite(name: str) -> Suite:
    """Return the suite of that name. Error: ValueError, listing the known ones."""
    for known in SUITES:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in SUITES)
    raise ValueError(f"unknown benchmark {name!r}: choose one of {names}")


def of(bench: Benchmark) -> Suite:
    """Return the suite that evaluates a benchmark: TOFU for all that has its form."""
    return next((known for known in SUITES if known.name == bench.name), TOFU)


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
    return of(bench).evaluator().evaluate(lm, bench, reference, convention, **options)
