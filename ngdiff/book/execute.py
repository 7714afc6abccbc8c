"""One notebook, executed by papermill in a process of its own.

The kernel is this very interpreter. `run` starts `python -m ngdiff.book.execute`, which reports
each cell as a line of JSON; notebooks, sweeps and smoke tests all go through it, and none can
disturb another.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from ngdiff.store.code import HOME, fingerprint_of
from ngdiff.store.content import content_key, sha256
from ngdiff.store.disk import FullDiskError, full, probe_room, room
from ngdiff.store.orphans import end_with
from ngdiff.store.rows import environment, write_document

T = TypeVar("T")
R = TypeVar("R")
RUNNING: set[subprocess.Popen[str]] = set()  # the processes of notebooks
DATA = (".json", ".jsonl", ".parquet", ".csv", ".md")  # of a folder that a parameter names


@dataclass(frozen=True)
class Failure:
    """Where and why a notebook stopped; `cell` counts from 1 and is 0 where no cell is to blame."""

    cell: int
    of: int
    source: str
    error: str


@dataclass(frozen=True)
class Outcome:
    """What an execution came to: wall seconds, cells of the notebook, its failure, its files.

    files: resolved paths of what went through `atomic_write` in the kernel and the processes it
    started.
    """

    seconds: float
    cells: int
    failure: Failure | None = None
    files: frozenset[Path] = frozenset()


# --------------------------------------------------------------------------------------- what it is
def execution_key(source: Path, parameters: Mapping[str, Any], protocol: Path | None = None) -> str:
    """Return the content key of all that an execution's results depend on.

    That is: the notebook's code, its parameters, the package code it uses (`ngdiff.store.code`),
    the files under `protocol` (the committed rates), the environment. A parameter that names a
    folder counts with the data files in it.
    """

    def content(folder: Path) -> dict[str, str | None]:
        files = (path for path in folder.rglob("*") if path.suffix in DATA)
        return {path.relative_to(folder).as_posix(): sha256(path) for path in files}

    folders = {
        name: content(folder)
        for name, value in parameters.items()
        if isinstance(value, str)
        # alone or behind the name of a benchmark; relative to where the kernel runs
        for place in (value, value.partition(":")[2])
        if place and (folder := source.parent / place).is_dir()
    }
    rates, text = content(protocol) if protocol else {}, code_of(source.read_text("utf-8"))
    return content_key(text, dict(parameters), folders, rates, fingerprint_of(text), environment())


def code_of(text: str) -> str:
    """Return a py:percent notebook without its markdown cells, which no result depends on."""
    cells = re.split(r"^(?=# %%)", text, flags=re.M)
    return "".join(cell for cell in cells if not cell.startswith("# %% [markdown]"))


# ------------------------------------------------------------------------------------------- parent
def kernel_environment(cache: Path) -> dict[str, str]:
    """Return os.environ with a `python3` kernel that is sys.executable, first on JUPYTER_PATH.

    It has one thread and none of the user's files.
    """
    spec = cache / "jupyter" / "kernels" / "python3" / "kernel.json"
    argv = [sys.executable, "-P", "-Xfrozen_modules=off", "-m", "ngdiff.book.kernel"]
    argv += ["-f", "{connection_file}"]
    write_document(spec, {"argv": argv, "display_name": "Python 3", "language": "python"})
    package = str(HOME.parent)
    env = dict(os.environ)
    env.pop("MPLBACKEND", None)  # the kernel draws inline
    env["JUPYTER_PATH"] = str(spec.parents[2])
    env["IPYTHONDIR"] = str(cache / "ipython")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (package, env.get("PYTHONPATH", ""))))
    for name, value in {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
        env.setdefault(name, value)
    return env


def run(
    source: Path,
    out: Path,
    parameters: Mapping[str, Any],
    cache: Path,
    on_cell: Callable[[int, int], None] = lambda k, n: None,
    jobs: int = 1,
    extra: Mapping[str, str] | None = None,
) -> Outcome:
    """Execute the notebook source (.py) in its folder, saved as `out`; a failing cell is an
    Outcome, not an error.

    jobs: how many worker processes the notebook may start (NGDIFF_JOBS). extra: more environment
    variables. Errors: FullDiskError where it failed for lack of room.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    written = out.resolve().with_suffix(".written")
    written.unlink(missing_ok=True)
    env = kernel_environment(cache) | {"NGDIFF_JOBS": str(jobs), "NGDIFF_WRITTEN": str(written)}
    spec = {
        "source": str(source.resolve()),
        "out": str(out.resolve()),
        "parameters": {**parameters},
        "parent": os.getpid(),
    }
    command = [sys.executable, "-m", "ngdiff.book.execute", json.dumps(spec)]
    start = time.perf_counter()
    log_file = out.with_suffix(".log")
    with room(log_file), open(log_file, "w+", encoding="utf-8", errors="replace") as log:
        cells, failure = _followed(command, source.parent, env | dict(extra or {}), log, on_cell)
    seconds = time.perf_counter() - start
    if failure:
        _check_room(source, out, failure)
    lines = written.read_bytes().splitlines() if written.exists() else []
    files = frozenset(Path(os.fsdecode(line)) for line in lines)
    return Outcome(seconds, cells, failure, files)


def _check_room(source: Path, out: Path, failure: Failure) -> None:
    """Raise FullDiskError where that is why a notebook failed, whatever the failure says."""
    if "FullDiskError: " in failure.error:
        raise FullDiskError(failure.error.partition("FullDiskError: ")[2])
    if why := full(failure.error):
        cell = f"what {source.name} saves in its cell {failure.cell}"
        raise FullDiskError.at(cell if failure.cell else out, why)
    probe_room(out.parent)


def _followed(
    command: list[str],
    folder: Path,
    env: dict[str, str],
    log: TextIO,
    on_cell: Callable[[int, int], None],
) -> tuple[int, Failure | None]:
    """Run the child and listen to its lines; return the number of cells and the failure, if any.

    Whatever stops the listening ends the child; `stop` does so from another thread. log: an open
    file for its stderr.
    """
    cells, failure, done = 0, None, False
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": log, "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(command, text=True, env=env, cwd=folder, **pipes)
    RUNNING.add(process)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            news = json.loads(line)
            if "cell" in news:
                cells = news["of"]
                on_cell(news["cell"], cells)
            failure = Failure(**news["failure"]) if "failure" in news else failure
            done = done or "done" in news
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
        RUNNING.discard(process)
    if not done and failure is None:
        log.seek(0)
        why = f"exit code {process.returncode}: {log.read()[-500:].strip()}"
        failure = Failure(0, cells, "", why)
    return cells, failure


def stop() -> None:
    """End every notebook that runs. Ctrl-C reaches the main thread, and others follow notebooks."""
    for process in tuple(RUNNING):
        process.terminate()


def in_parallel(work: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[tuple[T, R]]:
    """Yield (item, work(item)) as they finish, `workers` at a time.

    An error or Ctrl-C starts no further item. Ctrl-C ends those that run.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                stop()
            raise


# -------------------------------------------------------------------------------------------- child
def _execute(
    source: Path, out: Path, parameters: Mapping[str, Any], say: Callable[..., None]
) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from ngdiff.book.build import notebook

    nb = notebook(source)
    total = len(nb.cells)

    def started(cell: Any, cell_index: int) -> None:
        say(cell=min(cell_index + 1, total), of=total)

    options = {
        "kernel_name": "python3",
        "progress_bar": False,
        "cwd": str(source.parent),
        "on_cell_start": started,
    }
    try:
        papermill.execute_notebook(nb, str(out), parameters=dict(parameters), **options)
    except PapermillExecutionError as error:
        nb_out = json.loads(out.read_text("utf-8"))
        index = [cell for cell in nb_out["cells"] if "papermill-error-cell-tag" not in _tags(cell)]
        stopped = next(
            i for i, cell in enumerate(index) if cell["metadata"]["papermill"].get("exception")
        )
        injected = sum("injected-parameters" in _tags(cell) for cell in index[:stopped])
        message = f"{error.ename}: {error.evalue}"
        place = {"cell": stopped + 1 - injected, "of": total}
        say(failure={**place, "source": error.source, "error": message})
    else:
        say(done=True)


def _tell(pipe: TextIO, **news: Any) -> None:
    pipe.write(json.dumps(news) + "\n")
    pipe.flush()


def _tags(cell: Mapping[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


def _child(text: str) -> None:
    spec = json.loads(text)
    # no orphan writes over a later run
    end_with(spec["parent"])
    # the parent's pipe is ours alone: whatever else this process, its kernel or a library prints
    # goes to the log
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # leave through the clean-up, which stops the kernel
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say = functools.partial(_tell, pipe)
    try:
        _execute(Path(spec["source"]), Path(spec["out"]), spec["parameters"], say)
    except Exception as error:  # of papermill or its kernel, which no cell is to blame for
        with contextlib.suppress(OSError):  # the log may be on a full disk
            traceback.print_exc()
        why = f"{_cause(error)}; what it printed: {Path(spec['out']).with_suffix('.log')}"
        say(failure={"cell": 0, "of": 0, "source": "", "error": why})


def _cause(error: BaseException) -> str:
    """Return an error in one line: the full disk behind it, where there is one."""
    behind: BaseException | None = error
    while behind is not None and not full(str(behind)):
        behind = behind.__cause__ or behind.__context__
    found = behind or error
    return f"{type(found).__name__}: {' '.join(str(found).split())}"


if __name__ == "__main__":
    _child(sys.argv[1])
