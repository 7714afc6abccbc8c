"""`ngdiff reproduce`: every notebook through papermill, then one report.

What is still valid is not run again. A notebook is skipped when nothing that it depends on has
changed since its last successful execution: its source, parameters, the code it uses, the committed
rates, the environment. Every file that it wrote under data/results/ and figures/ must still have
the same bytes. Committed rows are never read as a cache: a fresh clone has no record of an
execution, so it recomputes everything.

A notebook's files are those that its own execution reports (`ngdiff.store.cache.atomic_write`). It
writes them to a folder in the cache, and they are put into their places when it has run to its end
(`ngdiff.book.page`): a notebook that fails changes none. With other seeds, real rows or a smoke
budget the places are folders that git ignores.

Notebooks that run at the same time (`ngdiff.book.jobs`) share `jobs` slots for all their workers
(`ngdiff.store.slots`), so the processors stay busy until the end.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from ngdiff.book import comparison, execute, report
from ngdiff.book.jobs import Job, choose, in_order, plan
from ngdiff.book.ledger import Ledger
from ngdiff.book.page import PAGE, Places, label_of
from ngdiff.evaluation.spelling import which
from ngdiff.store import paths, slots
from ngdiff.store.cache import CACHE, cache_dir, probe_writable
from ngdiff.store.disk import probe_room
from ngdiff.store.progress import Progress, Say
from ngdiff.store.rows import read_rows, stamp, write_rows

TIMES = "times.jsonl"  # seconds of each notebook


# ---------------------------------------------------------------------------------------------- run
def explain(job: Job, failure: execute.Failure, again: str) -> str:
    """Say what failed, where, why, and how to run it again."""
    where = f"in cell {failure.cell} of {failure.of}" if failure.cell else "outside its cells"
    source = "\n".join(f"    {line}" for line in failure.source.strip().splitlines()[:12])
    return "\n".join(
        [
            f"{job.name} failed {where}: {failure.error}",
            *([source] if source else []),
            f"  as far as it got: {job.out}",
            f"  again: {again} --only {job.name[:2]}",
        ]
    )


class Running:
    """A line of the notebooks that run now (`ngdiff.store.progress`), and one for each that ended.

    begun: how many of the total are still valid, and do not run.
    """

    def __init__(self, total: int, say: Say, begun: int = 0) -> None:
        self.line = Progress("notebook", total, say, begun=begun, last=False)
        self.lock, self.stop = Lock(), Event()
        self.cells: dict[str, tuple[int, int, float]] = {}

    def __enter__(self) -> Running:
        self.thread = Thread(target=self._tick, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.line.close()

    def _tick(self) -> None:
        while not self.stop.wait(1.0):
            with self.lock:
                now, cells = time.perf_counter(), sorted(self.cells.items())
            notes = (f"{name} cell {k}/{n} {now - start:.0f} s" for name, (k, n, start) in cells)
            if cells:
                self.line(self.line.done, note=" | ".join(notes))

    def cell(self, name: str, k: int, n: int) -> None:
        """Tell that the notebook starts its cell k of n."""
        with self.lock:
            start = self.cells.get(name, (0, 0, time.perf_counter()))[2]
            self.cells[name] = (k, n, start)

    def end(self, name: str, cells: int, seconds: float, word: str) -> None:
        """Tell that the notebook ended; `word` says how."""
        with self.lock:
            self.cells.pop(name, None)
        self.line.event(f"{name} {word}, {cells} cells, {seconds:.1f} s")


class Reproduction:
    """The state of one `reproduce`: jobs in, outcomes out.

    alone: one notebook after the other, each with an empty cache of its own, which gives cold
    times.
    """

    def __init__(self, root: Path, label: str, say: Say, alone: bool = False) -> None:
        self.root, self.label, self.say, self.alone = root, label, say, alone
        self.cache = root / ".cache"
        self.places = Places.of(root, label)
        self.ledger = Ledger(self.cache / "executed" / label / "ledger.json", root)
        self.lock = Lock()
        self.done: dict[str, report.Ran] = {}
        self.failed: dict[str, tuple[Job, execute.Failure]] = {}

    def probe(self) -> None:
        """Try every folder that will be written to (`probe_writable`, `probe_room`)."""
        kept = (self.ledger.path.parent, self.root / "report")
        mine = (self.places.rows, self.places.figures, *kept)
        for folder in mine:
            probe_writable(folder, f"put the checkout {self.root} where you can write")
        probe_writable(cache_dir(), CACHE)
        for folder in (*mine, cache_dir()):
            probe_room(folder)

    def staged(self, job: Job) -> Places:
        """Return where a notebook writes until it has run to its end."""
        return self.places.staged(job.out.with_suffix(".files"))

    def reuse(self, jobs: Sequence[Job], force: bool) -> list[Job]:
        """Take the outcomes of the jobs that are still valid, say which, and return the others."""
        kept = [job for job in jobs if job.name in self.ledger.trusted and not job.always]
        kept = [] if force else kept
        for job in kept:
            seconds = self.ledger.rows[job.name]["seconds"]
            self.done[job.name] = report.Ran(job.name, "still valid", seconds)
        if self.ledger.fault:
            self.say(self.ledger.fault)
        names = "".join(f"\n  {job.name}" for job in kept)
        self.say(
            f"{len(kept)} of {len(jobs)} notebooks are still valid{':' if kept else ''}{names}"
        )
        return [job for job in jobs if job.name not in self.done]

    def one(self, job: Job, jobs: int) -> None:
        """Run a job; its workers share `jobs` slots with those of all others."""
        with self.lock:
            self.ledger.drop(job.name)
        staged = self.staged(job)
        shutil.rmtree(staged.rows.parent, ignore_errors=True)
        with self._environment(jobs) as extra:
            outcome = execute.run(
                job.source,
                job.out,
                job.parameters,
                self.cache,
                lambda k, n: self.running.cell(job.name, k, n),
                jobs,
                {**extra, PAGE: staged.text()},
            )
        word = "FAILED" if outcome.failure else "done"
        self.running.end(job.name, outcome.cells, outcome.seconds, word)
        with self.lock:
            self.done[job.name] = report.Ran(job.name, word, outcome.seconds)
            if outcome.failure:
                self.failed[job.name] = (job, outcome.failure)
                error = f"cell {outcome.failure.cell}: {outcome.failure.error}"
                self.ledger.fail(job.name, job.key, outcome.seconds, error)
            else:
                done = self.places.publish(staged, outcome.files)
                files = {file.relative_to(self.root).as_posix() for file in done}
                self.ledger.add(job.name, job.key, outcome.seconds, files)
        shutil.rmtree(staged.rows.parent, ignore_errors=True)

    def _environment(self, jobs: int) -> contextlib.AbstractContextManager[dict[str, str]]:
        """Return what a notebook's process needs in its environment.

        That is the shared slots, or an empty cache of its own.
        """
        if self.alone:
            return _empty_cache(self.cache)
        return contextlib.nullcontext(slots.variable(self.cache / "slots", jobs))

    def advise(self, again: str) -> None:
        """Say of each failed notebook what went wrong and how to go on."""
        for job, failure in self.failed.values():
            self.say("\n" + explain(job, failure, again))

    def all(self, jobs: Sequence[Job], workers: int, force: bool) -> None:
        """Run the jobs that are not still valid; a failure of one stops no other."""
        todo = self.reuse(jobs, force)
        known = self.places.rows / TIMES
        seconds = (
            {row["name"]: row["seconds"] for row in read_rows(known)} if known.is_file() else {}
        )
        at_once = 1 if self.alone else workers
        with Running(len(jobs), self.say, len(jobs) - len(todo)) as self.running:
            in_order(lambda job: self.one(job, workers), todo, seconds, at_once)


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
    say: Say = print,
) -> int:
    """Execute the notebooks, write report/<label>.html and return the exit code.

    It is 0, or 1 if a notebook failed.
    `refresh` reaches the notebooks, which then tune the rates and run the long comparison again;
    `force` only ignores the ledger. `alone` runs one notebook after the other, each from an empty
    cache, for its cold time.
    """
    start, root = time.perf_counter(), (root or paths.need_checkout()).resolve()
    data = which(data).resolved().real
    given: dict[str, Any] = {"profile": profile, "data": data, "seeds": seeds}
    given |= {"refresh": refresh, "smoke": smoke}
    label = _label(**given)
    every, config = plan(root, **given), given | {"label": label}
    todo = choose(every, only, paths.kind(data))
    run = Reproduction(root, label, say, alone)
    run.probe()
    run.ledger.load({job.name: job.key for job in every})
    cold = not any((cache_dir() / "trials").glob("*")) and not run.ledger.trusted
    old = comparison.committed_rows(root, label, run.ledger.path.parent / "committed")
    run.all(todo, jobs, force or refresh or alone)
    compared = comparison.compare(old, comparison.new_rows(root, label, run.ledger.files()))
    seconds = time.perf_counter() - start
    ran = [run.done[job.name] for job in todo]
    if alone or (cold and not only):  # warm seconds say nothing to a new user
        made = stamp({**config, "jobs": jobs}, None, seconds)
        _save_times(run.places.rows / TIMES, ran, alone, made)
    page = report.write(root, label, ran, run.ledger.files(), compared, config, seconds)
    say(f"\n{comparison.as_text(compared)}")
    run.advise(_command(profile, data, seeds, smoke))
    good = f"{len(run.done) - len(run.failed)} of {len(todo)} notebooks"
    say(f"\n{good} in {seconds:.0f} s; report: {page}")
    return 1 if run.failed else 0


def _label(profile: str, data: str, seeds: Sequence[int] | None, refresh: bool, smoke: bool) -> str:
    """Return the label of a run. Errors: ValueError for refresh with other settings than the
    defaults, whose rows are the committed ones.
    """
    label = label_of(profile, data, smoke, seeds)
    if refresh and label != profile:
        raise ValueError(
            "refresh makes the committed rows again, which are those of the default settings: "
            "leave out seeds, smoke and data, or leave out refresh"
        )
    return label


def _command(profile: str, data: str, seeds: Sequence[int] | None, smoke: bool) -> str:
    """Return the command that makes this run."""
    parts = ["ngdiff reproduce --profile", profile, *(["--data", data] if data else [])]
    parts += ["--seeds", ",".join(map(str, seeds))] if seeds is not None else []
    return " ".join([*parts, *["--smoke"] * smoke])


def _save_times(path: Path, ran: Sequence[report.Ran], alone: bool, made: dict[str, Any]) -> None:
    """Save the seconds of the notebooks that ran to their end, beside those measured before.

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
