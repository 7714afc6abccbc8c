"""What `ngdiff unlearn` does before its first step: it shows the prompt, measures the model, and
sets the level of the stop.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ngdiff.commands.claim import CHECKPOINT, START, Wanted, read
from ngdiff.commands.doubt import ANYWAY, doubt
from ngdiff.commands.job import Job
from ngdiff.commands.outcome import number
from ngdiff.commands.sample import Measured, measure, placed
from ngdiff.commands.space import check, space
from ngdiff.data.benchmark import Benchmark
from ngdiff.evaluation.forward import loss
from ngdiff.lm.model import LM
from ngdiff.store.progress import to_stderr
from ngdiff.store.rows import write_document


def prepare(
    job: Job, wanted: Wanted, lm: LM, bench: Benchmark, origin: Path | None
) -> float | None:
    """Return the forget loss at which the run stops, None for no stop.

    It is saved with what the model knows, so a run that goes on has the same numbers. origin: the
    folder of the user's model, where it is known. Errors: ValueError for a model that is broken, or
    does not know the forget rows; FullDiskError for a disk with less room than the run needs.
    """
    check(job, space(job, lm, origin))
    saved = read(job.work / START) if (job.work / CHECKPOINT).exists() else {}
    print(f"prompt: {shown(lm, bench)}", flush=True)
    if "before" in saved:
        return saved.get("level")
    placed(lm, job.engine.place)
    level = saved.get("level") if saved else _level(job, lm, bench)
    before = measure(lm, bench, job.seed)
    holdout = bench.holdout if job.holdout else []
    doubted = doubt(lm, bench.forget, holdout, before, shown(lm, bench))
    if doubted and doubted.refuses and not job.allow_unknown:
        raise ValueError(f"{doubted.text} {ANYWAY}")
    if doubted:
        to_stderr(f"warning: {doubted.text}")
    found: dict[str, Any] = {"settings": wanted.settings, "model_files": wanted.files}
    found |= {"level": level, "before": before, "doubt": doubted and asdict(doubted)}
    write_document(job.work / START, found)
    return level


def measured(job: Job) -> Measured:
    """Return what the model knew before the first step."""
    return read(job.work / START)["before"]


def _level(job: Job, lm: LM, bench: Benchmark) -> float | None:
    if not job.holdout:
        return job.stop_level
    level = loss(lm, bench.holdout)
    if not math.isfinite(level):
        raise ValueError(
            f"the start model's loss on {job.holdout} is {level}: this model is already broken"
        )
    return level


def shown(lm: LM, bench: Benchmark, longest: int = 300) -> str:
    """Return the prompt of one forget row as the model gets it; a long one without its middle."""
    rows = [row for row in bench.forget if row["question"]]
    if not rows:
        return "none, the forget rows are documents"
    example = lm.encode(rows[0]["question"], rows[0]["answer"])
    text = repr(lm.tokenizer.decode(example.prompt_ids))
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"


def plan(job: Job, lm: LM, bench: Benchmark, level: float, origin: Path | None) -> str:
    """Return a few lines that say what is going to happen."""
    sizes = [(p.numel(), p.requires_grad) for p in lm.model.parameters()]
    trained, engine = sum(n for n, own in sizes if own), job.engine
    size = engine.processes.size
    many = f"{size} processes ({job.sharding})" if size > 1 else "one process"
    where = f"{many} on {engine.place or lm.device}, {job.precision}, memory {job.memory}"
    rate = "" if job.lr is None else f" {job.lr:g}"
    lines = [
        f"{job.recipe.name}, {job.stepsize}{rate}, {job.optimizer}: {job.model}",
        f"  {trained:,} of {sum(n for n, _ in sizes):,} parameters trained; {where}",
        f"  {len(bench.forget)} forget rows, {len(bench.retain)} retain rows, up to "
        f"{job.batch_size} of each per step; "
        f"at most {job.steps} steps; {space(job, lm, origin)}",
        *(
            f"  before, {name}: loss {number(one['loss']):.4g}, {one['verbatim']} of "
            f"{one['rows']} answers said verbatim"
            for name, one in measured(job).items()
        ),
    ]
    if math.isnan(level):
        lines.append(
            f"  NO STOP (no --holdout, no --stop-level): the run makes all {job.steps} steps.\n"
            "  Methods such as NGDiff then forget far too much (docs/results.md)"
        )
    else:
        seen = (
            f", the model's loss on the {len(bench.holdout)} hold-out rows" if job.holdout else ""
        )
        lines.append(f"  stop: when the batch's forget loss reaches {level:.4g}{seen}")
    if (job.work / CHECKPOINT).exists():
        lines.append("  resumes from its checkpoint")
    return "\n".join(lines)
