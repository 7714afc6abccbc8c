"""What `ngdiff unlearn` does with a `Job`: unlearn someone's own model on their own rows, and write
a folder.

    OUT/             model or adapter (`ngdiff.save`) and the files that the user's model has
                     beside its weights, history.jsonl (a row a step), run.json (settings, end,
                     numbers, verdict, stamp), report.html, model card
    .OUT.unfinished/ beside it while it runs: the checkpoint, and start.json with the settings, the
                     level of the stop and what the model knew

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

from ngdiff.commands import card
from ngdiff.commands.claim import CHECKPOINT, RUN, START, claim_folder, read
from ngdiff.commands.job import PLACES, WHERE, Job
from ngdiff.commands.origin import carry_over, restore_dtypes, restore_files
from ngdiff.commands.outcome import Bounds, Verdict, judge
from ngdiff.commands.sample import Measured, measure, placed
from ngdiff.commands.start import plan, prepare
from ngdiff.core.info import ForgetLevel, Info
from ngdiff.core.loop import Run, unlearn
from ngdiff.core.processes import whole_state
from ngdiff.data import files
from ngdiff.data.benchmark import Benchmark
from ngdiff.engine.engine import Engine
from ngdiff.engine.watch import Watch
from ngdiff.lm.lora import ADAPTER, adapt
from ngdiff.lm.model import LM, load, save
from ngdiff.methods.problem import LMProblem
from ngdiff.store import document
from ngdiff.store.cache import atomic_folder
from ngdiff.store.progress import Progress, to_stderr
from ngdiff.store.rows import stamp, write_rows

ENDS = {
    "steps": "all steps were made",
    "forget_level": "the forget loss has reached the level",
    "aligned": "the gradients are parallel: no direction lowers one loss and raises the other",
    "zero_both": "both gradients are zero",
    "nonfinite": "a loss or gradient is not finite: use a lower rate (--lr), or stop earlier",
}


def run(job: Job, force: bool = False) -> int:
    """Unlearn, write `job.out` and return the exit status (`ngdiff.commands.outcome`).

    Every process of a launch must call. All but the first return 0: a launcher ends the others
    where one fails, and the first still has to tidy up.

    force: a finished run at `job.out` is replaced when the new one is complete. An interrupted run
    of other settings is dropped. Errors: FileExistsError for an OUT that holds other things or,
    without force, a finished or other run; ValueError for rows that do not fit the model, a model
    that does not know them, and when memory runs out; those of `ngdiff.load`.
    """
    bench, engine = files.benchmark(job.forget, job.retain, job.holdout), job.engine
    settings = job.settings(bench)
    torch.manual_seed(
        job.seed + engine.processes.rank
    )  # of dropout; the order of the rows has its own
    with ExitStack() as held, _explained(job):
        _first(engine, lambda: claim_folder(job, settings, force, held))
        lm = _model(job)
        options: dict[str, Any] = {"micro": job.micro, "dropout": job.dropout, "engine": engine}
        problem: Any = LMProblem(bench, lm, batch_size=job.batch_size, **options, in_place=True)
        level = _first(engine, lambda: prepare(job, settings, lm, bench))
        if engine.main:
            print(plan(job, lm, bench, level), flush=True)
        stop = [] if math.isnan(level) else [ForgetLevel(level)]
        checkpoint = job.work / CHECKPOINT if job.save_every else None
        with _Bar(job.steps, engine.main) as bar:
            watch = _Watch(bar.say)
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
                watch=watch,
            )
        if job.lora is None:
            restore_dtypes(done.model, job.place, watch.optimizer)
        before = len(done.history) if bar.before is None else bar.before
        return _finish(job, done, bench, level, before)


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


def _loaded(job: Job, place: str) -> LM:
    """Load a model on the host. With an adapter the frozen weights have the job's precision.
    Without one the weights are exact.
    """
    adapted = job.lora is not None or (Path(place) / ADAPTER).is_file()
    return load(place, dtype=job.precision if adapted else "float32", **job.asked())


def _model(job: Job) -> LM:
    """Load the model on the host, with its adapter."""
    lm = _loaded(job, job.place)
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


def _finish(job: Job, done: Run, bench: Benchmark, level: float, before: int) -> int:
    """Write OUT, then remove what was unfinished; return the exit status of this process.

    before: steps that an earlier process made.
    """
    engine = job.engine
    if not engine.main:
        whole_state(done.model.model)  # the first process asks for the shards of all
    status = _first(engine, lambda: _write(job, done, bench, level, before).status)
    if engine.processes.size > 1:
        torch.distributed.destroy_process_group()
    return int(status) if engine.main else 0


def _write(job: Job, done: Run, bench: Benchmark, level: float, before: int) -> Verdict:
    """Write OUT in one rename, with the verdict on what it holds."""
    found = read(job.work / START)
    updates = sum(info.updated for info in done.history)
    where = {name: getattr(job, name) for name in WHERE}
    where["processes"] = job.engine.processes.size
    places = {name: str(getattr(job, name)) for name in PLACES if getattr(job, name)}
    row: dict[str, Any] = {"settings": found["settings"], "level": found["level"]}
    row |= {"stopped": done.stopped, "updates": updates}
    # seconds: of this process, after the steps before it
    row |= {"seconds": done.seconds, "steps_before": before}
    prompt = repr(done.model.prompt.text("{question}"))
    row |= {"name": done.model.name, "prompt": prompt}
    row["sizes"] = {name: len(rows) for name, rows in bench.configs.items()}
    row["bounds"] = {"forget": job.forget_bound, "retain": job.retain_bound}
    row |= {"before": found["before"], "doubt": found["doubt"]}
    row["stamp"] = stamp({**places, **where}, job.seed, done.seconds)
    with atomic_folder(job.folder) as temporary:
        save(done.model, temporary)
        if job.lora is None:
            restore_files(temporary, job.place)
        carry_over(job.place, temporary, job.lora is not None)
        row["after"] = _after(job, done.model, temporary, bench)
        bounds = Bounds(job.forget_bound, job.retain_bound)
        seen = (row["level"], row["before"], row["after"])
        verdict = judge(done.stopped, *seen, bounds, updates)
        row |= {"verdict": verdict.word, "why": verdict.text, "status": verdict.status}
        write_rows(temporary / "history.jsonl", done.rows())
        (temporary / RUN).write_text(document.text(row), "utf-8")
        name = card.write(row, done.rows(), temporary)
    (job.work / CHECKPOINT).unlink(missing_ok=True)
    end = f"{done.stopped}: {ENDS.get(done.stopped, 'see ngdiff.core.info.Info')}"
    if done.stopped == "forget_level" and not updates:
        end += " before any update: the start model's loss is already that high"
    where_to = f"{job.out} (report: {card.REPORT}, model card: {name})"
    print(f"{end}\n  {updates} updates, {done.seconds:.1f} s: {where_to}\n", flush=True)
    print(card.summary(row), flush=True)
    return verdict


def _after(job: Job, trained: LM, folder: Path, bench: Benchmark) -> Measured:
    """Return what the model that was written says, loaded as the start was.

    The trained one is saved, and gives its memory back.
    """
    if job.engine.processes.size == 1:
        trained.model.to("meta")  # type: ignore[arg-type]
    lm = placed(_loaded(job, str(folder)), job.engine.place)
    return measure(lm, bench, job.seed)
