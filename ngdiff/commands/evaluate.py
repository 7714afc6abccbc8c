"""What `ngdiff evaluate` does: one model directory on one benchmark, into one JSON file and the
benchmark's own formats.

    OUT  {"metrics": {name: value}, "items": {name: {index: …}}, "meta": …, "stamp": …}

Everything that can be refused is refused before the model is loaded: names, rows, files, the folder
to write to.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ngdiff.commands.asking import Asking
from ngdiff.commands.places import need_model
from ngdiff.data.benchmark import Benchmark, Prompt
from ngdiff.evaluation import suites
from ngdiff.evaluation.conventions import convention, names
from ngdiff.evaluation.report import plain
from ngdiff.evaluation.spelling import Which, which
from ngdiff.evaluation.suites import Suite
from ngdiff.store import document
from ngdiff.store.cache import probe_file, probe_writable
from ngdiff.store.table import Column, Table


@dataclass(frozen=True)
class Evaluation(Asking):
    """Settings of one evaluation; the command's options.

    data: as `ngdiff.evaluation.spelling` says. split: "" is the suite's. tokenizer: needed where
    the model has none, and `ngdiff.zoo` lists none. files: a folder that is new or empty.

    Errors, all before a model is loaded: ValueError for unknown names, FileNotFoundError,
    FileExistsError.
    """

    benchmark: str = field(
        metadata={"help": f"{', '.join(suite.name for suite in suites.SUITES)}."}
    )
    data: str = field(
        default="hub",
        metadata={"help": "The benchmark's folder, hub, or stand-in (generated rows)."},
    )
    split: str = field(
        default="", metadata={"help": "forget10, …; news or books; validation, train or all."}
    )
    reference: str | None = field(
        default=None, metadata={"help": "The retain-only model, or the JSON of its evaluation."}
    )
    convention: str = field(default="ngdiff", metadata={"help": f"{', '.join(names())}."})
    json: Path | None = field(
        default=None, metadata={"help": "File for metrics, items and stamp; default: stdout."}
    )
    files: Path | None = field(
        default=None, metadata={"help": "Folder for the benchmark's own file formats."}
    )
    mia: Path | None = field(
        default=None, metadata={"help": "SemEval: folder of member.jsonl and nonmember.jsonl."}
    )
    mmlu: Path | None = field(
        default=None, metadata={"help": "SemEval: metrics.json of an MMLU run."}
    )
    generate: bool = field(
        default=True, metadata={"help": "Generate greedy answers, for ROUGE and exact match."}
    )
    gradnorm: bool = field(
        default=True, metadata={"help": "TOFU: the gradient-norm attack, a backward pass per row."}
    )
    rows: int | None = field(
        default=None, metadata={"min": 1, "help": "Only the first so many rows of every set."}
    )
    max_new_tokens: int | None = field(
        default=None, metadata={"help": "Length of an answer; default: the benchmark's."}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, …"})
    dtype: str = field(default="float32", metadata={"help": "float32 or bfloat16."})

    def __post_init__(self) -> None:
        convention(self.convention, self.suite.name)
        for option in ("mia", "mmlu"):
            takers = [s.name for s in suites.SUITES if option in (*s.sources, *s.options)]
            if getattr(self, option) and self.suite.name not in takers:
                raise ValueError(f"--{option} belongs to --benchmark {' or '.join(takers)}")
        generated = not self.which.place
        if generated and (self.mia or (self.split and not self.suite.made_split)):
            raise ValueError(
                f"--data {self.data} has its own documents and one split: leave --split and --mia "
                "out"
            )
        if self.suite.generations and self.files and not self.generate:
            raise ValueError(
                f"{self.suite.title}'s files hold generations: leave --no-generate out, or --files"
            )
        if self.files is not None and self.files.exists() and not self.files.is_dir():
            raise FileExistsError(f"--files {self.files} is a file: choose a new folder")
        if self.files is not None and self.files.is_dir() and any(self.files.iterdir()):
            raise FileExistsError(f"--files {self.files} holds files already: choose a new folder")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"unknown dtype {self.dtype!r}: choose float32 or bfloat16")
        super().__post_init__()
        if self.reference is not None and not Path(self.reference).expanduser().is_file():
            need_model(self.reference, "--reference")
        for option in ("mia", "mmlu"):
            given = getattr(self, option)
            if given is not None and not given.expanduser().exists():
                raise FileNotFoundError(f"--{option} {given}: there is no such file or folder")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"--max-new-tokens must be at least 1, got {self.max_new_tokens}")
        self.which.need("--data")

    @property
    def suite(self) -> Suite:
        """Return the suite of the benchmark."""
        return suites.suite(self.benchmark)

    @property
    def which(self) -> Which:
        """Return which rows are evaluated."""
        return which(self.data, self.suite)

    def bench(self) -> Benchmark:
        """Return the rows."""
        given = {name: getattr(self, name) for name in self.suite.sources}
        return self.which.asked(self.split, **given).first(self.rows)

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments for `ngdiff.evaluate`."""
        found: dict[str, Any] = {"generate": self.generate, "convention": self.convention}
        if self.max_new_tokens is not None:
            found["max_new_tokens"] = self.max_new_tokens
        own: dict[str, Any] = {"gradnorm": self.gradnorm}
        if self.mmlu is not None:
            from ngdiff.evaluation.mmlu import read

            own["mmlu"] = read(self.mmlu)
        return found | {name: own[name] for name in self.suite.options if name in own}


def run(job: Evaluation) -> dict[str, float]:
    """Evaluate a model, write its files, print the metrics and return them."""
    begun = time.perf_counter()
    if job.json is not None:
        probe_file(job.json)
    if job.files is not None:
        probe_writable(Path(job.files).expanduser().absolute().parent)
    bench = job.bench()
    options = job.options()

    from ngdiff.evaluation import (
        evaluate,
    )  # here and not above: what was refused so far took no seconds
    from ngdiff.lm.train import one_thread
    from ngdiff.store.rows import stamp

    reference = None if job.reference is None else _reference(job, bench)
    lm = _load(job.model, job, bench)
    with one_thread() if _small(lm) else nullcontext():
        report = evaluate(lm, bench, reference, **options)
    if job.files is not None:
        evaluator = job.suite.evaluator()
        for path in evaluator.write_files(report, Path(job.files).expanduser()):
            print(f"wrote {path}", file=sys.stderr)
    if job.json is not None:
        places = {k: v for k, v in asdict(job).items() if v is not None}
        report.to_json(job.json, stamp(places, None, time.perf_counter() - begun))
    if "mia" in report.meta:
        print(f"mia_auc: {report.meta['mia']}", file=sys.stderr)
    _print(report.metrics, job)
    return report.metrics


def _small(lm: Any) -> bool:
    """Return whether the matrices are too small to share between cores. Beside a busy process two
    threads are then slower than one.
    """
    return lm.model.device.type == "cpu" and sum(p.numel() for p in lm.model.parameters()) < 20e6


def _load(place: str, job: Evaluation, bench: Benchmark) -> Any:
    from ngdiff.engine.device import device_named
    from ngdiff.lm.model import load

    verbatim = (
        bench.prompt if bench.prompt != Prompt() else None
    )  # a benchmark that says how it is asked
    return load(place, dtype=job.dtype, device=device_named(job.device), **job.asked(verbatim))


def _reference(job: Evaluation, bench: Benchmark) -> Any:
    from ngdiff.evaluation.report import Report, check_reference

    path = Path(job.reference or "").expanduser()
    if not path.is_file():
        return _load(str(job.reference), job, bench)
    report = Report.from_json(path)
    rows = job.suite.reference_rows(bench)
    check_reference(report, bench, convention(job.convention), rows, f"the reference report {path}")
    return report


def _print(metrics: dict[str, float], job: Evaluation) -> None:
    if job.json is None:
        print(document.text(plain(metrics)), end="")
        return
    rows = [{"metric": name, "value": value} for name, value in metrics.items()]
    print(Table((Column("metric"), Column("value", format=".6g")), rows).text())
    print(f"wrote {job.json}", file=sys.stderr)
