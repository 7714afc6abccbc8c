"""A trial: one unlearning run with its evaluation, cached under everything it depends on.

The notebooks and the grid of `ngdiff sweep` run nothing else, so that a number has one way to come
about. A trial's row holds its settings, why it stopped, every metric, the scores of the comparison,
and a stamp; its history (a row a step) lies beside it.

Two ways to compare methods. "matched": a run ends before the update at which the cross-entropy of
the whole forget set reaches the hold-out level. That is the start model's loss on rows it never
saw, which needs no reference model. So utility is compared at equal forgetting. "fixed": every run
makes the same number of steps, which compares how far each one went.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context, parent_process
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from cloudpickle import dumps, loads

from ngdiff.data import Benchmark
from ngdiff.profiles import Profile, profile
from ngdiff.store.cache import cache_dir, cached, found
from ngdiff.store.code import fingerprint
from ngdiff.store.content import content_key
from ngdiff.store.orphans import end_after
from ngdiff.store.progress import Progress
from ngdiff.store.rows import environment, read_rows, stamp, write_rows
from ngdiff.store.slots import slot
from ngdiff.study.keys import benchmark, models_key, settings, steps_of
from ngdiff.study.outcome import scores, summary
from ngdiff.study.setup import Setup
from ngdiff.study.trial import Trial, rule_of

Row = dict[str, Any]
NEEDED = (__name__, "ngdiff.lm.pair", "ngdiff.methods.problem", "ngdiff.evaluation.tofu")


def run(trial: Trial, refresh: bool = False) -> Row:
    """Return the trial's row, from the cache unless `refresh`, with the settings as given here."""
    return read_rows(_entry(trial, refresh) / "row.jsonl")[0] | trial.row()


def history(trial: Trial) -> list[Row]:
    """One row a step (`ngdiff.core.step.Info`), running the trial if it has not been."""
    return read_rows(_entry(trial, False) / "history.parquet")


def report(trial: Trial) -> Any:
    """The trial's evaluation, with every item and generation
    (`ngdiff.evaluation.report.Report`).
    """
    from ngdiff.evaluation.report import Report

    return Report.from_json(_entry(trial, False) / "report.json")


def run_all(
    trials: Sequence[Trial],
    jobs: int | None = None,
    refresh: bool = False,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """The rows of many trials in their order, `jobs` one-thread processes at a time; what is cached
    is not run again.

    jobs: None is what NGDIFF_JOBS allows (set by `reproduce`, which may run two notebooks at once),
    else 2.
    """
    jobs = jobs or int(os.environ.get("NGDIFF_JOBS", "2"))
    rows: dict[Trial, Row] = {}
    for trial in trials:
        if not refresh and found(_root(), key_of(trial)):
            rows[trial] = run(trial)
    todo = list(dict.fromkeys(t for t in trials if t not in rows))
    progress = Progress("  trial", len(todo), say)
    if todo:
        for shape in {(t.profile, t.split, t.data, t.target_seed) for t in todo}:
            levels(*shape)  # train and evaluate the models once, before the workers ask for them
        with ProcessPoolExecutor(jobs, _workers(), _begin) as pool:
            futures = {pool.submit(_in_slot, dumps((run, t, refresh))): t for t in todo}
            for future in as_completed(futures):
                rows[futures[future]] = future.result()
                progress.event(str(futures[future]))
    return [rows[t] for t in trials]


def _workers() -> BaseContext:
    """Return how workers start: forked from one server that has imported what a trial needs.

    The server is a fresh process. It has run nothing but imports, so that a fork of it is safe.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(list(NEEDED))
    return context


def _in_slot(packed: bytes) -> Row:
    """Run a packed trial in a worker, which computes only while it holds one of the reproduction's
    slots. It comes packed by value, since a worker cannot import a notebook's cells.
    """
    work, trial, refresh = loads(packed)
    with slot():
        return work(trial, refresh)


@lru_cache(maxsize=8)
def levels(name: str, split: str, data: str, target_seed: int) -> tuple[Row, Row]:
    """Metrics of the start and of the retain-only reference, cached like trials."""
    from ngdiff.evaluation.forward import loss
    from ngdiff.evaluation.report import Report
    from ngdiff.lm import pair as models

    P, bench = profile(name), benchmark(name, split, data)
    key = content_key(
        "levels", fingerprint(__name__), environment(), *models_key(bench, P, target_seed)
    )

    def build(folder: Path) -> None:
        rows = Setup.of(P, split, bench).unseen  # before models are fetched or trained
        start, reference = models.pair(bench, P, target_seed)
        of_reference = evaluated(reference, bench, P)
        of_reference.to_json(folder / "reference.json")
        of_start = evaluated(start, bench, P, of_reference)
        if "loss_holdout" not in of_start.metrics:
            of_start.metrics["loss_holdout"] = loss(start, rows)
        of_start.to_json(folder / "start.json")

    entry = cached(
        _root(),
        key,
        build,
        f"start and reference of {bench.name} {bench.split}, seed {target_seed}",
    )
    start, reference = (Report.from_json(entry / f"{role}.json") for role in ("start", "reference"))
    return start.metrics, {**reference.metrics, "report": reference}


# ---------------------------------------------------------------------------------------- one trial
def unlearned(
    trial: Trial, progress: Callable[[Any], None] | None = None, checkpoint: Path | None = None
):
    """The `Run` of a trial, not cached: the unlearned model itself.

    checkpoint: a file from which a killed run goes on.
    """
    from ngdiff.core.info import SetLevel
    from ngdiff.core.loop import unlearn

    shape = (trial.profile, trial.split, trial.data, trial.target_seed)
    (start, _), problem = levels(*shape), _problem(*shape)
    stop = [SetLevel(start["loss_holdout"])] if trial.rule == "matched" else []
    return unlearn(
        problem,
        trial.recipe,
        rule_of(trial.stepsize, trial.lr, steps_of(trial)),
        steps_of(trial),
        trial.seed,
        stop=stop,
        optimizer=_sgd if trial.optimizer == "sgd" else None,
        measure=True,
        progress=progress,
        checkpoint=checkpoint,
        save_every=5,
    )


@lru_cache(maxsize=1)
def _problem(name: str, split: str, data: str, target_seed: int) -> Any:
    """The start as a problem; kept, because a worker's next trial is most often of the same one."""
    from ngdiff.engine.engine import Engine
    from ngdiff.lm import pair as models
    from ngdiff.methods.problem import LMProblem

    P, bench = profile(name), benchmark(name, split, data)
    # bfloat16 weights alone do not move. "auto" is float32 here: AutoLR's least rate in bfloat16
    # destroyed a real model (data/results/LOG.md)
    engine = Engine(precision="bfloat16") if P.dtype == "bfloat16" else None
    start = models.target(bench, P, target_seed, exact=True)
    setup = Setup.of(P, split, bench)
    return LMProblem(setup.fitted(start), start, batch_size=setup.batch_size, engine=engine)


def _sgd(parameters: Any) -> Any:
    import torch

    return torch.optim.SGD(parameters, lr=1e-3)


def _entry(trial: Trial, refresh: bool) -> Path:
    def build(folder: Path) -> None:
        measured(trial, folder, unlearned)

    return cached(_root(), key_of(trial), build, str(trial), refresh)


def measured(trial: Trial, folder: Path, make: Callable[[Trial], Any]) -> Any:
    """Make a trial's run and evaluate it; save its row, history and report in a folder, and return
    the run. make: trial -> `Run`.
    """
    from ngdiff.lm.obtain import source_of

    began = time.perf_counter()
    P, bench = profile(trial.profile), benchmark(trial.profile, trial.split, trial.data)
    start, reference = levels(trial.profile, trial.split, trial.data, trial.target_seed)
    suite = Setup.of(P, trial.split, bench).suite
    scores(start, start, reference, suite)  # nothing to unlearn is said before the run
    done = make(trial)
    found = evaluated(done.model, bench, P, reference["report"], trial.mmlu)
    found.to_json(folder / "report.json")
    metrics = found.metrics
    row = {**trial.row(), "stopped": done.stopped, "updates": sum(i.updated for i in done.history)}
    row |= {
        "seconds": done.seconds,
        "convention": found.meta["convention"],
        **metrics,
        **scores(metrics, start, reference, suite),
        **summary(done.history),
    }
    made = trial.row() | ({"base": source_of(P.model)} if P.model else {})
    row["stamp"] = stamp(made, trial.seed, time.perf_counter() - began)
    write_rows(folder / "row.jsonl", [row])
    write_rows(folder / "history.parquet", done.rows())
    return done


def evaluated(
    lm: Any, bench: Benchmark, P: Profile, reference: Any = None, general: bool = False
) -> Any:
    """Return the report of a model, as a profile measures it. general: with MMLU."""
    from ngdiff.evaluation import evaluate
    from ngdiff.evaluation.mmlu import mmlu

    own = Setup.of(P, "", bench).options
    own |= {"mmlu": mmlu(lm)["average_acc"]} if general else {}
    return evaluate(lm, bench.first(P.measured), reference, progress=False, **own)


def _root() -> Path:
    return cache_dir() / "trials"


def key_of(trial: Trial) -> str:
    """Return the cache's key of a trial: settings, code, versions, and the models' keys."""
    P, bench = profile(trial.profile), benchmark(trial.profile, trial.split, trial.data)
    models = models_key(bench, P, trial.target_seed)
    return content_key("trial", *settings(trial), fingerprint(__name__), environment(), *models)


def _begin() -> None:
    """Begin a worker: it ends with the process that made the pool, and has one thread."""
    maker = parent_process()
    assert maker is not None
    end_after(maker.join)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
