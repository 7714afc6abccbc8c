"""`ngdiff reproduce`: every notebook through papermill, then one report; what is still valid is not
run again.

A notebook is skipped when its last successful execution had the same content key (its source,
parameters, the code it uses, the committed rates, the environment) and every file it wrote under
data/results/ and figures/ still has those bytes. A notebook's files are those that its own
execution reports (`ngdiff.store.cache.atomic_write`). Committed rows are never read as a cache: a
fresh clone has no record of an execution, so it recomputes everything.

Which notebook needs which stands in the notebooks' own headers (`ngdiff.book.build.Header`). Those
that may run are started in the order of the work that waits for them, and share `jobs` slots for
all their workers (`ngdiff.store.slots`), so the processors stay busy until the end.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from ngdiff.book import build as book
from ngdiff.book import execute, report
from ngdiff.book.ledger import Progress, Records
from ngdiff.evaluation.spelling import which
from ngdiff.store import paths, slots
from ngdiff.store.cache import cache_dir, probe_writable
from ngdiff.store.rows import read_rows, stamp, write_rows

TIMES = "times.jsonl"  # seconds of each notebook


@dataclass(frozen=True)
class Job:
    """One notebook of this run.

    needs: the names of those that must have run before it. rows: the benchmark whose real rows it
    reads (`ngdiff.book.build.Header`).
    """

    source: Path
    out: Path
    parameters: dict[str, Any]
    key: str
    needs: frozenset[str] = frozenset()
    always: bool = False  # it reads the rows of all others, so it is run whenever asked
    rows: str = ""

    @property
    def name(self) -> str:
        return self.source.stem


# --------------------------------------------------------------------------------------------- plan
def plan(
    root: Path,
    profile: str,
    data: str = "",
    seeds: Sequence[int] | None = None,
    refresh: bool = False,
    smoke: bool = False,
) -> list[Job]:
    """Return every notebook there is to run, each with those of the settings that its parameters
    cell declares.

    With `data` only notebooks that declare a `data` parameter.
    """
    given: dict[str, Any] = {"profile": profile, "refresh": refresh, "smoke": smoke}
    given |= {"seeds": list(seeds)} if seeds is not None else {}
    given |= {"data": data} if data else {}
    out = root / ".cache" / "executed" / paths.run_label(profile, data, smoke)
    sources = {}
    for source in (path for path in book.sources(root / "notebooks") if path.stem != "cell"):
        declared = book.parameters(book.notebook(source), source)
        if not data or "data" in declared:
            sources[source] = declared
    jobs = []
    for source, declared in sources.items():
        parameters = {name: value for name, value in given.items() if name in declared}
        key = execute.execution_key(source, {**declared, **parameters}, root / "data" / "protocol")
        needs, always = _needs(source, [path.stem for path in sources])
        executed, rows = out / f"{source.stem}.ipynb", book.header(source).rows
        jobs.append(Job(source, executed, parameters, key, needs, always, rows))
    return jobs


def _needs(source: Path, names: Sequence[str]) -> tuple[frozenset[str], bool]:
    """Return the names that a notebook's header needs, of those there are, and whether it needs
    all.
    """
    needs = book.header(source).needs
    if needs == ("all",):
        return frozenset(names) - {source.stem}, True
    return frozenset(
        name for name in names if name.startswith(needs)
    ) if needs else frozenset(), False


def choose(jobs: Sequence[Job], only: Sequence[str], kind: str = "") -> list[Job]:
    """Return the jobs whose names begin as `only` says. Errors: ValueError where there is none.

    Without it: those that read the real rows of the benchmark `kind`; all where no notebook names
    that one.
    """
    only = only or [job.name for job in jobs if kind and job.rows == kind]
    chosen = [job for job in jobs if not only or job.name.startswith(tuple(only))]
    if not chosen:
        names = ", ".join(job.name for job in jobs) or "none"
        raise ValueError(f"no notebook to run; with these settings there are: {names}")
    return chosen


def in_order(
    work: Callable[[Job], None], jobs: Sequence[Job], seconds: Mapping[str, float], workers: int
) -> None:
    """Do the work for every job, `workers` at a time, each after those it needs; an error starts no
    further job.

    Of the jobs that may start, the one goes first behind which the longest chain of work waits. A
    need that is not among the jobs is taken as met. Errors: ValueError where needs form a circle.
    """
    left = {job.name: job for job in jobs}
    urgency = _chains(left, seconds)
    running: dict[Future[None], str] = {}
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            while left or running:
                busy = {*left, *running.values()}
                ready = [job for name, job in left.items() if not (job.needs - {name}) & busy]
                for job in sorted(ready, key=lambda job: -urgency[job.name])[
                    : workers - len(running)
                ]:
                    running[pool.submit(work, left.pop(job.name))] = job.name
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[done]
                    done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _chains(jobs: Mapping[str, Job], seconds: Mapping[str, float]) -> dict[str, float]:
    """Return for each job the seconds of the longest chain of jobs that begins with it."""
    found: dict[str, float] = {}

    def chain(name: str, above: tuple[str, ...]) -> float:
        if name in above:
            raise ValueError(
                f"notebooks need each other in a circle: {' -> '.join((*above, name))}"
            )
        if name not in found:
            after = [other for other, job in jobs.items() if name in job.needs]
            rest = max((chain(other, (*above, name)) for other in after), default=0.0)
            found[name] = seconds.get(name, 1.0) + rest
        return found[name]

    for name in jobs:
        chain(name, ())
    return found


# ---------------------------------------------------------------------------------------------- run
def explain(job: Job, failure: execute.Failure, again: str) -> str:
    """Say what failed, where, why, and how to run it again."""
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
    """The state of one `reproduce`: jobs in, outcomes out.

    alone: one notebook after the other, each with an empty cache of its own, which gives cold
    times.
    """

    def __init__(
        self, root: Path, label: str, say: Callable[[str], None], alone: bool = False
    ) -> None:
        self.root, self.label, self.say, self.alone = root, label, say, alone
        self.cache = root / ".cache"
        self.outputs = [root / "data" / "results" / label, root / "figures" / label]
        self.records = Records(self.cache / "executed" / label / "records.json", root)
        self.progress, self.lock = Progress(say), Lock()
        self.done: dict[str, report.Ran] = {}
        self.failed: dict[str, tuple[Job, execute.Failure]] = {}

    def kept(self, files: Iterable[Path]) -> set[str]:
        """Return those that stand under this run's output folders, relative to the root."""
        mine = (
            file for file in files if any(file.is_relative_to(folder) for folder in self.outputs)
        )
        return {file.relative_to(self.root).as_posix() for file in mine if file.is_file()}

    def one(self, job: Job, force: bool, jobs: int) -> None:
        """Run a job that is not still valid; its workers share `jobs` slots with those of all
        others.
        """
        if job.name in self.records.trusted and not force and not job.always:
            seconds = self.records.rows[job.name]["seconds"]
            self.done[job.name] = report.Ran(job.name, "still valid", seconds)
            self.progress.end(
                job.name,
                len(book.notebook(job.source).cells),
                0.0,
                f"still valid ({seconds:.0f} s)",
            )
            return
        with self.lock:
            self.records.drop(job.name)
        with self._environment(jobs) as extra:
            outcome = execute.run(
                job.source,
                job.out,
                job.parameters,
                self.cache,
                lambda k, n: self.progress.cell(job.name, k, n),
                jobs,
                extra,
            )
        word = "FAILED" if outcome.failure else "done"
        self.progress.end(job.name, outcome.cells, outcome.seconds, word)
        with self.lock:
            self.done[job.name] = report.Ran(job.name, word, outcome.seconds)
            if outcome.failure:
                self.failed[job.name] = (job, outcome.failure)
            else:
                self.records.add(job.name, job.key, outcome.seconds, self.kept(outcome.files))

    def _environment(self, jobs: int) -> contextlib.AbstractContextManager[dict[str, str]]:
        """Return what a notebook's process needs in its environment: the shared slots, or an empty
        cache of its own.
        """
        if self.alone:
            return _empty_cache(self.cache)
        return contextlib.nullcontext(slots.variable(self.cache / "slots", jobs))

    def all(self, jobs: Sequence[Job], workers: int, force: bool) -> None:
        """Run the jobs; a failure of one stops no other."""
        known = self.root / "data" / "results" / self.label / TIMES
        seconds = (
            {row["name"]: row["seconds"] for row in read_rows(known)} if known.is_file() else {}
        )
        at_once = 1 if self.alone else workers
        in_order(lambda job: self.one(job, force, workers), jobs, seconds, at_once)


@contextlib.contextmanager
def _empty_cache(parent: Path) -> Iterator[dict[str, str]]:
    """Give a cache folder that is empty and disappears afterwards, as an environment variable."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="alone-") as folder:
        yield {"NGDIFF_CACHE": folder}


def reproduce(
    profile: str = "tiny",
    data: str = "",
    seeds: Sequence[int] | None = None,
    refresh: bool = False,
    force: bool = False,
    smoke: bool = False,
    only: Sequence[str] = (),
    jobs: int = 2,
    alone: bool = False,
    root: Path | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Execute the notebooks, write report/<label>.html and return the exit code: 0, or 1 if a
    notebook failed.

    `refresh` reaches the notebooks, which then also tune the rates and run their long grids again;
    `force` only ignores the records. `alone` runs one notebook after the other, each from an empty
    cache, for its cold time.
    """
    root, start = (root or paths.need_checkout()).resolve(), time.perf_counter()
    data = which(data).resolved().real
    label = paths.run_label(profile, data, smoke)
    every = plan(root, profile, data, seeds, refresh, smoke)
    todo = choose(every, only, paths.kind(data))
    run = Reproduction(root, label, say, alone)
    for folder in (*run.outputs, run.records.path.parent, root / "report"):
        probe_writable(folder)
    run.records.load({job.name: job.key for job in every})
    cold = not any((cache_dir() / "trials").glob("*")) and not run.records.trusted
    committed = report.committed_rows(root, label, run.records.path.parent / "committed")
    with run.progress:
        run.all(todo, jobs, force or refresh or alone)

    config = {
        "profile": profile,
        "data": data,
        "seeds": seeds,
        "refresh": refresh,
        "smoke": smoke,
        "label": label,
    }
    comparison = report.compare(committed, report.new_rows(root, label, run.records.files()))
    seconds = time.perf_counter() - start
    ran = [run.done[job.name] for job in todo]
    if alone or (cold and not only):  # warm seconds say nothing to a new user
        made = stamp({**config, "jobs": jobs}, None, seconds)
        _save_times(root / "data" / "results" / label / TIMES, ran, alone, made)
    page = report.write(root, label, ran, run.records.files(), comparison, config, seconds)
    say("")
    say(report.as_text(comparison))
    again = " ".join(
        [
            "ngdiff reproduce --profile",
            profile,
            *(["--data", data] if data else []),
            *["--smoke"] * smoke,
        ]
    )
    for job, failure in run.failed.values():
        say("\n" + explain(job, failure, again))
    say(
        f"\n{len(run.done) - len(run.failed)} of {len(todo)} notebooks in {seconds:.0f} s; "
        f"report: {page}"
    )
    return 1 if run.failed else 0


def _save_times(path: Path, ran: Sequence[report.Ran], alone: bool, made: dict[str, Any]) -> None:
    """Save the seconds of the notebooks that ran to their end, beside those of others measured
    before.

    Seconds measured alone and cold are better than those of a common run, and are kept when one
    follows.
    """
    known = {row["name"]: row for row in read_rows(path)} if path.is_file() else {}
    kept = {name for name, row in known.items() if row["alone"] and not alone}
    known |= {
        r.name: {**vars(r), "alone": alone, "stamp": made}
        for r in ran
        if r.word == "done" and r.name not in kept
    }
    write_rows(path, [known[name] for name in sorted(known)])
