"""`ngdiff reproduce`: every notebook through papermill, then one report; what is still valid is not run again.

A notebook is skipped when its last successful execution had the same content key (its source, parameters, the
package, the environment) and every file it wrote under data/results/ and figures/ still has those bytes. A notebook's
files are those that its own execution reports (`ngdiff.store.cache.atomic_write`). Committed rows are never read as a cache:
a fresh clone has no record of an execution, so it recomputes everything.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from ngdiff.book import build as book
from ngdiff.book import execute, report
from ngdiff.book.ledger import Progress, Records
from ngdiff.store import paths
from ngdiff.store.cache import probe_writable
from ngdiff.store.rows import stamp, write_rows

# 00 makes what the others share; 06 spreads its many trials over all workers; 10 rebuilds from rows: always run, last
FIRST, GRID, LAST = "00", "06", "10"


@dataclass(frozen=True)
class Job:
    """One notebook of this run."""

    source: Path
    out: Path
    parameters: dict[str, Any]
    key: str

    @property
    def name(self) -> str:
        return self.source.stem


# --------------------------------------------------------------------------------------------------------------- plan
def plan(
    root: Path,
    profile: str,
    data: str = "",
    seeds: Sequence[int] | None = None,
    refresh: bool = False,
    smoke: bool = False,
) -> list[Job]:
    """Every notebook there is to run, each with those of the settings that its parameters cell declares.

    With `data` only notebooks that declare a `data` parameter.
    """
    given: dict[str, Any] = {"profile": profile, "refresh": refresh, "smoke": smoke}
    given |= {"seeds": list(seeds)} if seeds is not None else {}
    given |= {"data": data} if data else {}
    out = root / ".cache" / "executed" / paths.run_label(profile, data, smoke)
    jobs = []
    for source in (path for path in book.sources(root / "notebooks") if path.stem != "cell"):
        declared = book.parameters(book.notebook(source), source)
        if data and "data" not in declared:
            continue
        parameters = {name: value for name, value in given.items() if name in declared}
        key = execute.execution_key(source, {**declared, **parameters})
        jobs.append(Job(source, out / f"{source.stem}.ipynb", parameters, key))
    return jobs


def choose(jobs: Sequence[Job], only: Sequence[str]) -> list[Job]:
    """The jobs whose names begin as `only` says, all without it; ValueError where there is none."""
    chosen = [job for job in jobs if not only or job.name.startswith(tuple(only))]
    if not chosen:
        names = ", ".join(job.name for job in jobs) or "none"
        raise ValueError(f"no notebook to run; with these settings there are: {names}")
    return chosen


# ---------------------------------------------------------------------------------------------------------------- run
def explain(job: Job, failure: execute.Failure, again: str) -> str:
    """What failed, where, why, and how to run it again."""
    where = f"cell {failure.cell} of {failure.of}" if failure.cell else "before its first cell"
    source = "\n".join(f"    {line}" for line in failure.source.strip().splitlines()[:12])
    return "\n".join(
        [
            f"{job.name} failed in {where}: {failure.error}",
            *([source] if source else []),
            f"  as far as it got: {job.out}",
            f"  again: {again} --only {job.name[:2]}",
        ]
    )


class Reproduction:
    """The state of one `reproduce`: jobs in, outcomes out."""

    def __init__(self, root: Path, label: str, say: Callable[[str], None]) -> None:
        self.root, self.label, self.say = root, label, say
        self.cache = root / ".cache"
        self.outputs = [root / "data" / "results" / label, root / "figures" / label]
        self.records = Records(self.cache / "executed" / label / "records.json", root)
        self.progress, self.lock = Progress(say), Lock()
        self.done: dict[str, report.Ran] = {}
        self.failed: dict[str, tuple[Job, execute.Failure]] = {}

    def kept(self, files: Iterable[Path]) -> set[str]:
        """Those that stand under this run's output folders, relative to the root."""
        mine = (file for file in files if any(file.is_relative_to(folder) for folder in self.outputs))
        return {file.relative_to(self.root).as_posix() for file in mine if file.is_file()}

    def valid(self, job: Job, force: bool) -> bool:
        return job.name in self.records.trusted and not force and not job.name.startswith(LAST)

    def one(self, job: Job, force: bool, jobs: int) -> None:
        """Runs a job that is not still valid; it may use `jobs` processes."""
        if self.valid(job, force):
            seconds = self.records.rows[job.name]["seconds"]
            self.done[job.name] = report.Ran(job.name, "still valid", seconds)
            self.progress.end(job.name, len(book.notebook(job.source).cells), 0.0, f"still valid ({seconds:.0f} s)")
            return
        with self.lock:
            self.records.drop(job.name)
        outcome = execute.run(
            job.source, job.out, job.parameters, self.cache, lambda k, n: self.progress.cell(job.name, k, n), jobs
        )
        word = "FAILED" if outcome.failure else "done"
        self.progress.end(job.name, outcome.cells, outcome.seconds, word)
        with self.lock:
            self.done[job.name] = report.Ran(job.name, word, outcome.seconds)
            if outcome.failure:
                self.failed[job.name] = (job, outcome.failure)
            else:
                self.records.add(job.name, job.key, outcome.seconds, self.kept(outcome.files))

    def all(self, jobs: Sequence[Job], workers: int, force: bool) -> None:
        """00 alone, the others `workers` at a time, then 06 alone, then 10 alone; a failure stops no other.

        A notebook that runs alone may use `workers` processes, one that runs beside another a single one.
        """
        first, grid, last = ([job for job in jobs if job.name.startswith(n)] for n in (FIRST, GRID, LAST))
        for group in (first, [job for job in jobs if job not in first + grid + last], grid, last):
            alone = sum(not self.valid(job, force) for job in group) == 1
            work = functools.partial(self.one, force=force, jobs=workers if alone else 1)
            for _ in execute.in_parallel(work, group, workers):
                pass


def reproduce(
    profile: str = "tiny",
    data: str = "",
    seeds: Sequence[int] | None = None,
    refresh: bool = False,
    force: bool = False,
    smoke: bool = False,
    only: Sequence[str] = (),
    jobs: int = 2,
    root: Path | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Executes the notebooks, writes report/<label>.html and returns the exit code: 0, or 1 if a notebook failed.

    `refresh` reaches the notebooks, which then also recompute their long grids; `force` only ignores the records.
    """
    root, start = (root or paths.need_checkout()).resolve(), time.perf_counter()
    label = paths.run_label(profile, data, smoke)
    every = plan(root, profile, data, seeds, refresh, smoke)
    todo = choose(every, only)
    run = Reproduction(root, label, say)
    for folder in (*run.outputs, run.records.path.parent, root / "report"):
        probe_writable(folder)
    run.records.load({job.name: job.key for job in every})
    committed = report.committed_rows(root, label, run.records.path.parent / "committed")
    with run.progress:
        run.all(todo, jobs, force or refresh)

    config = {"profile": profile, "data": data, "seeds": seeds, "refresh": refresh, "smoke": smoke, "label": label}
    comparison = report.compare(committed, report.new_rows(root, label, run.records.files()))
    seconds = time.perf_counter() - start
    if not only and not run.failed:
        made = stamp({**config, "jobs": jobs}, None, seconds)
        rows = [{**vars(run.done[job.name]), "stamp": made} for job in todo]
        write_rows(root / "data" / "results" / label / "times.jsonl", rows)
    page = report.write(
        root, label, [run.done[job.name] for job in todo], run.records.files(), comparison, config, seconds
    )
    say("")
    say(report.as_text(comparison))
    again = " ".join(["ngdiff reproduce --profile", profile, *(["--data", data] if data else []), *["--smoke"] * smoke])
    for job, failure in run.failed.values():
        say("\n" + explain(job, failure, again))
    say(f"\n{len(run.done) - len(run.failed)} of {len(todo)} notebooks in {seconds:.0f} s; report: {page}")
    return 1 if run.failed else 0
