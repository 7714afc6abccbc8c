"""What `ngdiff unlearn` does with a `Job`: unlearn someone's own model on their own rows, and write
a folder.

    OUT/             model or adapter (`ngdiff.save`) and the files that the user's model has
                     beside its weights, history.jsonl (a row a step), run.json (settings, end,
                     numbers, verdict, stamp), report.html, model card
    .OUT.unfinished/ beside it while it runs: the checkpoint, and start.json with the settings, the
                     level of the stop and what the model knew

OUT appears with the whole model in it or not at all; the model is measured there
(`ngdiff.commands.finish`). A run that was interrupted goes on when the same command is given again.
The same code runs in one process and in each of several (`accelerate launch -m ngdiff unlearn …`).
Every process reads the rows and loads the model. Only the first one prints and writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from ngdiff.commands.claim import CHECKPOINT, Wanted, claim_folder, kept
from ngdiff.commands.finish import Trained, again, finish
from ngdiff.commands.fitting import fitted
from ngdiff.commands.identity import model_files
from ngdiff.commands.job import Job
from ngdiff.commands.origin import fetched, loaded
from ngdiff.commands.start import plan, prepare
from ngdiff.core.info import Info, SetLevel
from ngdiff.core.loop import unlearn
from ngdiff.data import files
from ngdiff.data.benchmark import Benchmark
from ngdiff.engine.engine import Engine
from ngdiff.engine.watch import Watch
from ngdiff.lm.lora import ADAPTER, adapt
from ngdiff.lm.model import LM
from ngdiff.methods.problem import LMProblem
from ngdiff.store.content import content_key
from ngdiff.store.progress import Progress, to_stderr

# in which the first process loads and measures the model, while the others wait for it
PATIENCE = timedelta(hours=12)
INTERRUPTED = 130  # exit status after Ctrl-C, as of a shell


def run(job: Job, force: bool = False) -> int:
    """Unlearn, write `job.out` and return the exit status (`ngdiff.commands.outcome`).

    Every process of a launch must call. All but the first return 0: a launcher ends the others
    where one fails, and the first still has to tidy up.

    A finished run of the same settings and model is left as it is, and the status is 0. After
    Ctrl-C it is 130, and what is kept is said.

    force: a finished run at `job.out` is replaced when the new one is complete. An interrupted run
    of other settings is dropped. Errors: FileExistsError for an OUT that holds other things or,
    without force, a finished or other run; ValueError for rows that do not fit the model, a model
    that does not know them, and when memory runs out; FullDiskError; those of `ngdiff.load`.
    """
    try:
        return _run(job, force)
    except KeyboardInterrupt:
        if job.engine.main:
            to_stderr(kept(job))
        return INTERRUPTED


def _run(job: Job, force: bool) -> int:
    bench, engine = files.benchmark(job.forget, job.retain, job.holdout), job.engine
    found: list[Wanted] = []  # in the first process
    torch.manual_seed(
        job.seed + engine.processes.rank
    )  # of dropout; the order of the rows has its own
    with ExitStack() as held, _explained(job):
        group = _patient(engine)

        def claim() -> float:
            found.append(_wanted(job, bench))
            return float(claim_folder(job, found[0], force, held))

        if _first(engine, group, claim):
            return again(job, bench) if engine.main else 0
        return finish(job, _trained(job, found, bench, group))


def _wanted(job: Job, bench: Benchmark) -> Wanted:
    """Return what makes this run another one than those of other settings, rows or models."""
    mine = model_files(job.place, job.tokenizer)
    return Wanted(job.settings(bench) | {"model": content_key(mine)}, mine)


def _trained(job: Job, wanted: list[Wanted], bench: Benchmark, group: Any) -> Trained:
    """Load, measure and unlearn the model. Nothing but the result holds it afterwards.

    wanted: the run, in the first process.
    """
    engine, lm = job.engine, _model(job)
    bench = fitted(bench, lm, job.long, to_stderr if engine.main else lambda text: None)
    origin = fetched(job.place) if engine.main else None
    options: dict[str, Any] = {"micro": job.micro, "dropout": job.dropout, "engine": engine}
    options["checked"] = True
    problem: Any = LMProblem(bench, lm, batch_size=job.batch_size, **options, in_place=True)
    level = _first(engine, group, lambda: prepare(job, wanted[0], lm, bench, origin))
    if engine.main:
        print(plan(job, lm, bench, level, origin), flush=True)
    with _Bar(job.steps, engine.main) as bar:
        watch = _Watch(bar.say)
        done = unlearn(
            problem,
            job.recipe,
            job.rule,
            job.steps,
            job.seed,
            stop=[] if math.isnan(level) else [SetLevel(level)],
            optimizer=job.make,
            checkpoint=job.work / CHECKPOINT if job.save_every else None,
            save_every=job.save_every or 1,
            progress=bar,
            watch=watch,
        )
    before = len(done.history) if bar.before is None else bar.before
    return Trained(done, watch.optimizer, origin, before, bench)


# --------------------------------------------------------------------------------- before the steps
def _patient(engine: Engine) -> Any:
    """Return a group of all processes in which one may wait long for another; None for one alone.

    NCCL ends a launch after ten minutes of waiting.
    """
    if engine.processes.size == 1:
        return None
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def _first(engine: Engine, group: Any, work: Callable[[], float | None]) -> float:
    """Return in every process what `work()` gives in the first one (None: NaN). Where it fails
    there, the others end too. group: of `_patient`.
    """
    failure, value = None, None
    if engine.main:
        try:
            value = work()
        except Exception as error:
            if group is None:
                raise
            failure = error
    said = [math.nan if value is None else value, float(failure is not None)]
    mine = torch.tensor(said if engine.main else [0.0, 0.0], dtype=torch.float64)
    if group is not None:
        torch.distributed.all_reduce(mine, group=group)
    if failure:
        raise failure
    if mine[1]:
        # the launcher ends all of them at the first that ends: the one that knows why must have
        # said so
        time.sleep(1)
        raise SystemExit(2)
    return float(mine[0])


def _model(job: Job) -> LM:
    """Load the model on the host, with its adapter."""
    lm = loaded(job, job.place)
    if job.lora is None:
        return lm
    targets = job.lora_targets if job.lora_targets == "all-linear" else job.lora_targets.split(",")
    return adapt(lm, job.lora, alpha=job.lora_alpha, targets=targets, seed=job.seed)


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


class _Watch(Watch):
    """A watch that keeps the optimizer, which may have part of the weights."""

    optimizer: torch.optim.Optimizer | None = None

    def begin(self, problem: Any, optimizer: torch.optim.Optimizer, fresh: int | None) -> None:
        self.optimizer = optimizer
        super().begin(problem, optimizer, fresh)


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
