"""What `ngdiff unlearn` does with a `Job`: unlearn someone's own model on their own rows, and write
a folder.

    OUT/             model or adapter (`ngdiff.save`), history.jsonl (a row a step), run.json
                     (settings, end, stamp)
    .OUT.unfinished/ beside it while it runs: the checkpoint, and start.json with the settings and
                     the level of the stop

OUT appears whole or not at all. A run that was interrupted goes on when the same command is given
again. The same code runs in one process and in each of several (`accelerate launch -m ngdiff
unlearn …`). Every process reads the rows and loads the model. Only the first one prints and writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from ngdiff.commands.claim import CHECKPOINT, RUN, START, claim_folder, read
from ngdiff.commands.job import PLACES, WHERE, Job
from ngdiff.core.info import ForgetLevel, Info
from ngdiff.core.loop import Run, unlearn
from ngdiff.core.processes import whole_state
from ngdiff.data import files
from ngdiff.data.benchmark import Benchmark
from ngdiff.engine.engine import Engine
from ngdiff.engine.watch import Watch
from ngdiff.evaluation.forward import loss
from ngdiff.lm.lora import ADAPTER, adapt
from ngdiff.lm.model import LM, load, save
from ngdiff.methods.problem import LMProblem
from ngdiff.store import document
from ngdiff.store.cache import atomic_folder
from ngdiff.store.progress import Progress, to_stderr
from ngdiff.store.rows import stamp, write_document, write_rows

ENDS = {
    "steps": "all steps were made",
    "forget_level": "the forget loss has reached the level",
    "aligned": "the gradients are parallel: no direction lowers one loss and raises the other",
    "zero_both": "both gradients are zero",
    "nonfinite": "a loss or gradient is not finite: use a lower rate (--lr), or stop earlier",
}


def run(job: Job, force: bool = False) -> str:
    """Unlearn, write `job.out` and return why the run stopped (`Run.stopped`). Every process of a
    launch must call.

    force: a finished run at `job.out` is replaced when the new one is complete. An interrupted run
    of other settings is dropped. Errors: FileExistsError for an OUT that holds other things or,
    without force, a finished or other run; ValueError for rows that do not fit the model, and when
    memory runs out; those of `ngdiff.load`.
    """
    bench, engine = files.benchmark(job.forget, job.retain, job.holdout), job.engine
    settings = job.settings(bench)
    torch.manual_seed(
        job.seed + engine.processes.rank
    )  # of dropout; the order of the rows has its own
    with ExitStack() as held, _explained(job):
        _first(engine, lambda: claim_folder(job, settings, force, held))
        lm = _model(job)
        level = _first(engine, lambda: _level(job, settings, lm, bench))
        if engine.main:
            print(_plan(job, lm, bench, level), flush=True)
        problem: Any = LMProblem(
            bench,
            lm,
            batch_size=job.batch_size,
            micro=job.micro,
            dropout=job.dropout,
            engine=engine,
            in_place=True,
        )
        stop = [] if math.isnan(level) else [ForgetLevel(level)]
        checkpoint = job.work / CHECKPOINT if job.save_every else None
        with _Bar(job.steps, engine.main) as bar:
            done = unlearn(
                problem,
                job.recipe,
                job.rule,
                job.steps,
                job.seed,
                stop=stop,
                optimizer=job.make,
                checkpoint=checkpoint,
                save_every=job.save_every or 1,
                progress=bar,
                watch=Watch(bar.say),
            )
        _finish(job, done, settings, level, len(done.history) if bar.before is None else bar.before)
    return done.stopped


# --------------------------------------------------------------------------------- before the steps
def _first(engine: Engine, work: Callable[[], float | None]) -> float:
    """Return in every process what `work()` gives in the first one (None: NaN). Where it fails
    there, the others end too.
    """
    failure, value = None, None
    if engine.main:
        try:
            value = work()
        except Exception as error:
            if engine.processes.size == 1:
                raise
            failure = error
    mine = (
        [math.nan if value is None else value, float(failure is not None)]
        if engine.main
        else [0.0, 0.0]
    )
    if engine.processes.size > 1:
        mine = engine.processes.sum(
            torch.tensor(mine, dtype=torch.float64, device=engine.place)
        ).tolist()
    if failure:
        raise failure
    if mine[1]:
        # the launcher ends all of them at the first that ends: the one that knows why must have
        # said so
        time.sleep(1)
        raise SystemExit(2)
    return mine[0]


def _model(job: Job) -> LM:
    """Load the model on the host. With an adapter the frozen weights have the job's precision.
    Without one the weights are exact.
    """
    adapted = job.lora is not None or (Path(job.place) / ADAPTER).is_file()
    lm = load(job.place, dtype=job.precision if adapted else "float32", **job.asked())
    if job.lora is None:
        return lm
    targets = job.lora_targets if job.lora_targets == "all-linear" else job.lora_targets.split(",")
    return adapt(lm, job.lora, alpha=job.lora_alpha, targets=targets, seed=job.seed)


def _level(job: Job, settings: dict[str, Any], lm: LM, bench: Benchmark) -> float | None:
    """Return the forget loss at which the run stops, None for no stop. It is saved, so a run that
    goes on stops at the same level.
    """
    if (job.work / CHECKPOINT).exists():
        return read(job.work / START).get("level")
    level = job.stop_level
    if job.holdout:
        if job.engine.place is not None:
            lm.model.to(job.engine.place)  # type: ignore[arg-type]
        level = loss(lm, bench.holdout)
        if not math.isfinite(level):
            raise ValueError(
                f"the start model's loss on {job.holdout} is {level}: this model is already broken"
            )
    write_document(job.work / START, {"settings": settings, "level": level})
    return level


def _plan(job: Job, lm: LM, bench: Benchmark, level: float) -> str:
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
        f"at most {job.steps} steps",
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


# ---------------------------------------------------------------------------- during and after them
class _Bar:
    """The line of steps, in the first process only: losses, rate, outcome. `before`: steps that an
    earlier process made.
    """

    def __init__(self, steps: int, shown: bool) -> None:
        self.shown = shown
        self.before: int | None = None
        self.line = Progress("step", steps, to_stderr if shown else lambda text: None)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()

    def say(self, text: str) -> None:
        """A line of results in place of the live one, of the first process alone."""
        if self.shown:
            self.line.close()
            print(text, flush=True)

    def __call__(self, info: Info) -> None:
        if self.before is None:
            self.before = self.line.begun = info.step
        words = [
            f"retain {info.retain_ce:.4g}",
            f"forget {info.forget_ce:.4g}",
            f"η {info.eta:.2g}",
            info.stepsize,
        ]
        self.line(info.step + 1, note=" ".join([*filter(None, words), info.outcome]))


@contextmanager
def _explained(job: Job) -> Iterator[None]:
    """Turn errors of torch into a ValueError that says what to do, where that is known."""
    engine = job.engine
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"{str(error).splitlines()[0]} Less memory, cheapest first: {', '.join(_less(job))}"
        ) from error
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "Connection closed by peer" in str(
            error
        )
        if engine.processes.size == 1 or not lost:
            raise
        raise ValueError(
            "another process of this launch ended first: the reason is in its own error message"
        ) from error


def _less(job: Job) -> list[str]:
    """Return options that need less memory than the given ones, the cheapest first."""
    adapted = job.lora is not None or (Path(job.place) / ADAPTER).is_file()
    left = {
        "--micro 1 (the same result)": job.micro != 1,
        "--checkpointing": not job.checkpointing,
        "--memory recompute": job.memory != "recompute",
        "--precision bfloat16": job.precision != "bfloat16",
        "--lora 16": not adapted,
        "more processes (accelerate launch)": True,
    }
    return [option for option, open_ in left.items() if open_]


def _finish(job: Job, done: Run, settings: dict[str, Any], level: float, before: int) -> None:
    """Write OUT in one rename, then remove what was unfinished."""
    engine = job.engine
    if not engine.main:
        whole_state(done.model.model)  # the first process asks for the shards of all
    else:
        updates = sum(info.updated for info in done.history)
        where = {name: getattr(job, name) for name in WHERE} | {"processes": engine.processes.size}
        places = {name: str(getattr(job, name)) for name in PLACES if getattr(job, name)}
        row: dict[str, Any] = {"settings": settings}
        row |= {
            "level": None if math.isnan(level) else level,
            "stopped": done.stopped,
            "updates": updates,
        }
        row |= {
            "seconds": done.seconds,
            "steps_before": before,
        }  # seconds: of this process, after the steps before it
        row["stamp"] = stamp({**places, **where}, job.seed, done.seconds)
        with atomic_folder(job.folder) as temporary:
            save(done.model, temporary)
            write_rows(temporary / "history.jsonl", done.rows())
            (temporary / RUN).write_text(document.text(row), "utf-8")
        (job.work / CHECKPOINT).unlink(missing_ok=True)
        end = f"{done.stopped}: {ENDS.get(done.stopped, 'see ngdiff.core.info.Info')}"
        if done.stopped == "forget_level" and not updates:
            end += " before any update: the start model's loss is already that high"
        print(f"{end}\n  {updates} updates, {done.seconds:.1f} s: {job.out}", flush=True)
    engine.processes.wait()
    if engine.processes.size > 1:
        torch.distributed.destroy_process_group()
