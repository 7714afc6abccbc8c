"""`ngdiff …`: the command line. Commands import what they need when they run, so that help is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

ERRORS = (ValueError, OSError)  # the library's, which say what to do, and the system's, which name the file

app = typer.Typer(
    help="Normalised gradient difference: unlearn, measure, reproduce the paper.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench_app = typer.Typer(help="Time and memory.", no_args_is_help=True)
data_app = typer.Typer(help="Generated benchmarks, as files.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")

Profile = Annotated[str, typer.Option(help="tiny (CPU, minutes), small (one GPU) or paper (80 GB GPU).")]
Jobs = Annotated[int, typer.Option(min=1, help="How many run at once.")]


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    pass  # `main` reads --debug, which must work whatever went wrong


def _numbers(text: str | None, option: str) -> list[int] | None:
    try:
        return [int(part) for part in text.split(",")] if text else None
    except ValueError as error:
        raise ValueError(f"{option} takes whole numbers separated by commas, such as 0,1,2; not {text!r}") from error


@app.command()
def reproduce(
    profile: Profile = "tiny",
    data: Annotated[str, typer.Option(help="Real TOFU rows: its folder, or `hub`; written as <profile>-tofu.")] = "",
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2; without it as each notebook says.")] = None,
    only: Annotated[str, typer.Option(help="Numbers of notebooks, such as 04,06.")] = "",
    jobs: Jobs = 2,
    force: Annotated[bool, typer.Option("--force", help="Run again what is still valid.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Run all again, the long grids too.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="A small budget, written as <profile>-smoke.")] = False,
) -> None:
    """Execute the notebooks, write rows, figures and one HTML report."""
    from ngdiff import compare
    from ngdiff.data.tofu import need_files
    from ngdiff.profiles import profile as known
    from ngdiff.reproduce import reproduce as run

    P = known(profile)
    if data and data != "hub":
        if not Path(data).is_dir():
            raise FileNotFoundError(f"--data {data}: no such folder; give a folder with TOFU's files, or `hub`")
        need_files(data, P.tofu_split)
        data = str(Path(data).resolve())
    numbers = _numbers(seeds, "--seeds")
    compare.plan("live", tuple(numbers or ()))  # refuses the tuning seed
    names = [name.strip() for name in only.split(",") if name.strip()]
    raise typer.Exit(run(profile, data, numbers, refresh, force, smoke, names, jobs))


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(help="The grid's TOML file.")],
    jobs: Jobs = 2,
    cell: Annotated[int | None, typer.Option(help="Run this cell alone (what an array task does).")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Print an sbatch array script instead of running.")] = False,
) -> None:
    """Run a grid of cells: resumable, isolated, local or Slurm."""
    from ngdiff import batch, paths

    if not grid.is_file():
        raise FileNotFoundError(f"no grid file {grid}: write one, notebooks/grid.toml is an example")
    if slurm:
        root = paths.need_checkout()
        print(batch.slurm(grid, len(batch.cells(grid, root / "notebooks" / "cell.py", root)[0])), end="")
        return
    raise typer.Exit(batch.sweep(grid, jobs, cell))


@app.command()
def book(
    check: Annotated[bool, typer.Option("--check", help="Only say which files differ from a rebuild.")] = False,
    label: Annotated[str, typer.Option(help="Outputs come from this run's executed notebooks.")] = "tiny",
) -> None:
    """Build notebooks/*.ipynb and the exercises from the .py sources, and the README's tables from saved rows."""
    from ngdiff import book as build
    from ngdiff import paths, readme
    from ngdiff.cache import atomic_write

    root = paths.need_checkout()
    page = root / "README.md"
    filled = readme.fill(page.read_text("utf-8"), root)
    if check:
        if filled != page.read_text("utf-8"):
            print("not as a refill: README.md")
        for path in (stale := build.stale(root / "notebooks")):
            print(f"not as a rebuild: {path.relative_to(root)}")
        raise typer.Exit(1 if stale or filled != page.read_text("utf-8") else 0)
    for path in build.build(root / "notebooks", root / ".cache" / "executed" / label):
        print(path.relative_to(root))
    with atomic_write(page) as temporary:
        temporary.write_text(filled, "utf-8")


@bench_app.command("step")
def bench_step(
    size: Annotated[str, typer.Option(help="Parameters of the model, such as 10M.")] = "10M",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens a batch.")] = 512,
    pairs: Annotated[int, typer.Option(min=1, help="Interleaved measurements of each step.")] = 30,
    json: Annotated[Path | None, typer.Option(help="Also save the rows here.")] = None,
) -> None:
    """Time and peak memory of one step, relative to GradDiff and to a naive NGDiff."""
    from ngdiff.bench import step_table

    step_table(size=size, tokens=tokens, pairs=pairs, json=json)


@bench_app.callback()
def _bench() -> None:
    """Keeps `step` a subcommand though it is the only one."""


@data_app.command("authors")
def data_authors(
    out: Annotated[Path, typer.Argument(help="Folder to write, in TOFU's layout.")],
    profile: Profile = "tiny",
    seed: Annotated[int, typer.Option(help="Of the invented population.")] = 2,  # ngdiff.data.authors.SEED
) -> None:
    """Write the generated authors as JSON lines, one file a configuration."""
    from ngdiff.data.authors import write
    from ngdiff.profiles import profile as known

    write(out, known(profile), seed=seed)
    print(out)


@data_app.callback()
def _data() -> None:
    """Keeps `authors` a subcommand though it is the only one."""


@app.command()
def version() -> None:
    """The version, and where it is installed."""
    import ngdiff

    print(f"ngdiff {ngdiff.__version__} ({Path(ngdiff.__file__).parent}), Python {sys.version.split()[0]}")


def main() -> None:
    """Entry point: an error of the library is one line and exit code 2, with --debug its traceback."""
    try:
        app()
    except ERRORS as error:
        if "--debug" in sys.argv:
            raise
        print(f"ngdiff: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
