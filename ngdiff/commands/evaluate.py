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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ngdiff.data.benchmark import Benchmark, Prompt, form_of
from ngdiff.evaluation.conventions import SUITES, convention
from ngdiff.evaluation.report import plain
from ngdiff.store import document
from ngdiff.store.cache import probe_file, probe_writable
from ngdiff.store.table import Column, Table

DEFAULT = {"tofu": "forget10", "muse": "news", "semeval": "validation"}  # splits
STAND_IN = "stand-in"  # data: the generated benchmark of the same schema


@dataclass(frozen=True)
class Evaluation:
    """Settings of one evaluation; the command's options.

    data: the benchmark's folder, "hub", or "stand-in". reference: the retain-only model, or the
    JSON of its own evaluation.
    prompt: how a question becomes text, with {question} in it; "" = the model's own. tokenizer:
    where it is, if neither with the model nor where `ngdiff.zoo` knows it to be. trust_remote_code:
    run code of the model's repository. files: a new folder for the benchmark's own formats.

    Errors, all before a model is loaded: ValueError for unknown names, FileNotFoundError,
    FileExistsError.
    """

    model: str
    benchmark: str
    data: str = "hub"
    split: str = ""
    reference: str | None = None
    convention: str = "ngdiff"
    json: Path | None = None
    files: Path | None = None
    mia: Path | None = None
    mmlu: Path | None = None
    prompt: str = ""
    generate: bool = True
    gradnorm: bool = True
    max_new_tokens: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    tokenizer: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.benchmark not in SUITES:
            raise ValueError(
                f"unknown benchmark {self.benchmark!r}: choose one of {', '.join(SUITES)}"
            )
        convention(self.convention, self.benchmark)
        if self.benchmark != "semeval" and (self.mia or self.mmlu):
            raise ValueError("--mia and --mmlu belong to --benchmark semeval")
        if self.data == STAND_IN and (self.mia or (self.split and self.benchmark != "tofu")):
            raise ValueError(
                f"--data {STAND_IN} has its own documents and one split: leave --split and --mia "
                "out"
            )
        if self.benchmark == "semeval" and self.files and not self.generate:
            raise ValueError(
                "SemEval's files hold generations: leave --no-generate out, or --files"
            )
        if self.files is not None and self.files.exists() and not self.files.is_dir():
            raise FileExistsError(f"--files {self.files} is a file: choose a new folder")
        if self.files is not None and self.files.is_dir() and any(self.files.iterdir()):
            raise FileExistsError(f"--files {self.files} holds files already: choose a new folder")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"unknown dtype {self.dtype!r}: choose float32 or bfloat16")
        form_of(self.prompt)
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"--max-new-tokens must be at least 1, got {self.max_new_tokens}")
        if self.data not in ("hub", STAND_IN) and not Path(self.data).expanduser().is_dir():
            raise FileNotFoundError(
                f"--data {self.data}: no such folder; give the benchmark's folder, hub, or "
                f"{STAND_IN}"
            )

    def bench(self) -> Benchmark:
        """The rows."""
        from ngdiff import data

        split = self.split or DEFAULT[self.benchmark]
        root = None if self.data in ("hub", STAND_IN) else Path(self.data).expanduser()
        if self.data == STAND_IN:
            made = {
                "tofu": lambda: data.authors("tiny", split),
                "muse": data.news,
                "semeval": data.dossiers,
            }
            return made[self.benchmark]()
        if self.benchmark == "tofu":
            from ngdiff.data.real.tofu import asked

            return data.tofu("paper", split) if root is None else asked(split, root)
        if self.benchmark == "muse":
            return data.muse("paper", split, root=root)
        return data.semeval("paper", split, root=root, mia=self.mia)


def run(job: Evaluation) -> dict[str, float]:
    """Evaluates, writes what was asked for, prints the metrics; returns them."""
    begun = time.perf_counter()
    if job.json is not None:
        probe_file(job.json)
    if job.files is not None:
        probe_writable(Path(job.files).expanduser().absolute().parent)
    bench = job.bench()
    options: dict[str, Any] = {"generate": job.generate, "convention": job.convention}
    if job.max_new_tokens is not None:
        options["max_new_tokens"] = job.max_new_tokens
    if job.benchmark == "semeval" and job.mmlu is not None:
        from ngdiff.evaluation.mmlu import read

        options["mmlu"] = read(job.mmlu)
    if job.benchmark == "tofu":
        options["gradnorm"] = job.gradnorm

    from ngdiff.evaluation import (
        evaluate,
    )  # here and not above: what was refused so far took no seconds
    from ngdiff.evaluation.files import write
    from ngdiff.lm.train import one_thread
    from ngdiff.store.rows import stamp

    reference = None if job.reference is None else _reference(job, bench)
    lm = _load(job.model, job, bench)
    with one_thread() if _small(lm) else nullcontext():
        report = evaluate(lm, bench, reference, **options)
    if job.files is not None:
        for path in write(report, job.benchmark, Path(job.files).expanduser()):
            print(f"wrote {path}", file=sys.stderr)
    if job.json is not None:
        places = {k: v for k, v in asdict(job).items() if v is not None}
        report.to_json(job.json, stamp(places, None, time.perf_counter() - begun))
    if "mia" in report.meta:
        print(f"mia_auc: {report.meta['mia']}", file=sys.stderr)
    _print(report.metrics, job)
    return report.metrics


def _small(lm: Any) -> bool:
    """A model whose matrices are too small to share between cores: beside a busy process two
    threads are slower than one.
    """
    return lm.model.device.type == "cpu" and sum(p.numel() for p in lm.model.parameters()) < 20e6


def _load(place: str, job: Evaluation, bench: Benchmark) -> Any:
    from ngdiff.engine.engine import device_named
    from ngdiff.lm.model import load

    verbatim = (
        bench.prompt if bench.prompt != Prompt() else None
    )  # a benchmark that says how it is asked
    form = form_of(job.prompt) or verbatim
    return load(
        place,
        dtype=job.dtype,
        device=device_named(job.device),
        prompt=form,
        tokenizer=job.tokenizer,
        trust_remote_code=job.trust_remote_code,
    )


def _reference(job: Evaluation, bench: Benchmark) -> Any:
    from ngdiff.evaluation.muse import reference_rows
    from ngdiff.evaluation.report import Report, check_reference

    path = Path(job.reference or "").expanduser()
    if not path.is_file():
        return _load(str(job.reference), job, bench)
    report = Report.from_json(path)
    rows = reference_rows(bench) if job.benchmark == "muse" else ("fingerprint", "")
    check_reference(report, bench, convention(job.convention), rows, f"the reference report {path}")
    return report


def _print(metrics: dict[str, float], job: Evaluation) -> None:
    if job.json is None:
        print(document.text(plain(metrics)), end="")
        return
    rows = [{"metric": name, "value": value} for name, value in metrics.items()]
    print(Table((Column("metric"), Column("value", format=".6g")), rows).text())
    print(f"wrote {job.json}", file=sys.stderr)
