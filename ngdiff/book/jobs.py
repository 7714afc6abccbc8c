"""The notebooks of a run as jobs: which there are, which need which, in what order they go.

Which notebook needs which stands in the notebooks' own headers (`ngdiff.book.build.Header`). Those
that may run are started in the order of the work that waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngdiff.book import build as book
from ngdiff.book import execute
from ngdiff.book.page import label_of


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
    """Return every notebook there is to run, with the settings that its parameters cell declares.

    With `data` only notebooks that declare a `data` parameter. One that belongs to another profile
    is left out, but for a smoke budget.
    """
    given: dict[str, Any] = {"profile": profile, "refresh": refresh, "smoke": smoke}
    given |= {"seeds": list(seeds)} if seeds is not None else {}
    given |= {"data": data} if data else {}
    out = root / ".cache" / "executed" / label_of(profile, data, smoke, seeds)
    sources = {}
    for source in (path for path in book.sources(root / "notebooks") if path.stem != "cell"):
        declared = book.parameters(book.notebook(source), source)
        elsewhere = not smoke and book.header(source).profile not in ("", profile)
        if not elsewhere and (not data or "data" in declared):
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
    """Return those of the names that a notebook's header needs, and whether it needs all."""
    needs = book.header(source).needs
    if needs == ("all",):
        return frozenset(names) - {source.stem}, True
    return frozenset(name for name in names if name.startswith(needs)), False


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
    """Do the work for every job, `workers` at a time, each after those it needs.

    An error starts no further job, and Ctrl-C ends those that run. Of the jobs that may start, the
    one goes first behind which the longest chain of work waits. A need that is not among the jobs
    is taken as met. Errors: ValueError where needs form a circle.
    """
    left = {job.name: job for job in jobs}
    urgency = _chains(left, seconds)
    running: dict[Future[None], str] = {}
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            while left or running:
                busy = {*left, *running.values()}
                ready = [job for name, job in left.items() if not (job.needs - {name}) & busy]
                ready.sort(key=lambda job: -urgency[job.name])
                for job in ready[: workers - len(running)]:
                    running[pool.submit(work, left.pop(job.name))] = job.name
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[done]
                    done.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                execute.stop()
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
