"""`ngdiff …`: the command line. Commands import what they need when they run, so that help is
instant.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ngdiff.commands import bench, score
from ngdiff.evaluation.conventions import names
from ngdiff.evaluation.suites import SUITES, TOFU

ERRORS = (
    ValueError,
    FloatingPointError,
    MemoryError,
    OSError,
    ModuleNotFoundError,
)  # they say what to do, or name the file

app = typer.Typer(
    help="Normalised gradient difference: unlearn, measure, reproduce the paper.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Generated benchmarks, as files.", no_args_is_help=True)
app.add_typer(bench.app, name="bench")
app.add_typer(data_app, name="data")
app.add_typer(score.app, name="score")

Profile = Annotated[
    str,
    typer.Option(help="tiny (CPU, minutes), small (one GPU), paper or paper-<model> (the hub's)."),
]
Jobs = Annotated[int, typer.Option(min=1, help="How many run at once.")]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass  # `main` reads --debug, which must work whatever went wrong


def _numbers(text: str | None, option: str) -> list[int] | None:
    try:
        return [int(part) for part in text.split(",")] if text else None
    except ValueError as error:
        raise ValueError(
            f"{option} takes whole numbers separated by commas, such as 0,1,2; not {text!r}"
        ) from error


@app.command()
def reproduce(
    profile: Profile = "tiny",
    data: Annotated[
        str,
        typer.Option(help="Real rows: a folder of TOFU, LUME or MUSE, hub (TOFU's), or muse:hub."),
    ] = "",
    seeds: Annotated[
        str | None, typer.Option(help="Such as 0,1,2; without it as each notebook says.")
    ] = None,
    only: Annotated[str, typer.Option(help="Numbers of notebooks, such as 04,06.")] = "",
    jobs: Jobs = 2,
    force: Annotated[bool, typer.Option("--force", help="Run again what is still valid.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Run all again; tune the rates, run the long grids.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A small budget, written as <profile>-smoke.")
    ] = False,
    alone: Annotated[
        bool, typer.Option("--alone", help="One at a time, each from an empty cache: cold times.")
    ] = False,
) -> None:
    """Execute the notebooks, write rows, figures and one HTML report."""
    from ngdiff.book.reproduce import reproduce as run
    from ngdiff.evaluation.spelling import which
    from ngdiff.profiles import profile as known
    from ngdiff.study import plan as compare

    P = known(profile)
    rows = which(data)
    if data and not rows.place:
        raise ValueError(f"--data {data} is generated: leave it out, or give a folder or hub")
    rows.need("--data")
    if rows.root is not None:
        rows.suite.need(rows.root, rows.suite.split(P))
    numbers = _numbers(seeds, "--seeds")
    compare.plan("live", tuple(numbers or ()))  # refuses the tuning seed
    chosen = [name.strip() for name in only.split(",") if name.strip()]
    raise typer.Exit(run(profile, data, numbers, refresh, force, smoke, chosen, jobs, alone))


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(help="The grid's TOML file.")],
    jobs: Jobs = 2,
    cell: Annotated[
        int | None, typer.Option(help="Run this cell alone (what an array task does).")
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
def unlearn(
    model: Annotated[
        str, typer.Option(help="Folder of a model or of a peft adapter, or a hub id.")
    ],
    forget: Annotated[
        Path, typer.Option(help='Rows {"question", "answer"} or {"text"}: JSON lines or an array.')
    ],
    retain: Annotated[Path, typer.Option(help="Rows to keep.")],
    out: Annotated[Path, typer.Option(help="Folder to write: the model, history.jsonl, run.json.")],
    holdout: Annotated[
        Path | None, typer.Option(help="Rows never seen: stop at the start's loss on them.")
    ] = None,
    stop_level: Annotated[
        float | None, typer.Option(help="Stop at this forget loss, nats per token.")
    ] = None,
    method: Annotated[str, typer.Option(help="ngdiff, graddiff-0.9, npo, kl, …")] = "ngdiff",
    stepsize: Annotated[
        str, typer.Option(help='autolr, constant, linear, cosine; or "autolr every=5".')
    ] = "autolr",
    lr: Annotated[
        float | None, typer.Option(help="The rate; autolr starts at it, without it at 1e-3.")
    ] = None,
    steps: Annotated[int, typer.Option(help="At most so many updates.")] = 100,
    batch_size: Annotated[
        int, typer.Option(help="Forget rows and retain rows a step, each, of all processes.")
    ] = 32,
    micro: Annotated[
        int | None, typer.Option(help="Rows a forward: less memory, the same result.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order of the rows.")] = 0,
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw",
    dropout: Annotated[
        bool, typer.Option("--dropout", help="Train with the model's own dropout.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="float32 or bfloat16 (the updates stay exact).")
    ] = "float32",
    lora: Annotated[
        int | None, typer.Option(help="Train an adapter of this rank; OUT is peft's.")
    ] = None,
    lora_alpha: Annotated[float, typer.Option(help="The adapter's alpha.")] = 32.0,
    lora_targets: Annotated[
        str, typer.Option(help="Modules, such as q_proj,v_proj.")
    ] = "all-linear",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    memory: Annotated[
        str, typer.Option(help="swap, or recompute: less memory, a third to a half more time.")
    ] = "swap",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations twice.")
    ] = False,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile each block.")] = False,
    sharding: Annotated[
        str, typer.Option(help="Of several processes: shard (FSDP2) or replicate (DDP).")
    ] = "shard",
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints; 0: none.")] = 50,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a finished run, drop an unfinished one.")
    ] = False,
) -> None:
    """Make a model forget rows and keep others; `accelerate launch -m ngdiff unlearn …` does it on
    several GPUs.
    """
    settings = {name: value for name, value in locals().items() if name != "force"}
    from ngdiff.commands.job import Job
    from ngdiff.commands.unlearn import run

    raise typer.Exit(1 if run(Job(**settings), force) == "nonfinite" else 0)


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Option(help="Folder of a model or of a peft adapter, or a hub id.")
    ],
    benchmark: Annotated[str, typer.Option(help=f"{', '.join(suite.name for suite in SUITES)}.")],
    data: Annotated[
        str,
        typer.Option(help="The benchmark's folder, hub, or stand-in (generated, the same schema)."),
    ] = "hub",
    split: Annotated[
        str, typer.Option(help="forget10, …; news or books; validation, train or all.")
    ] = "",
    reference: Annotated[
        str | None, typer.Option(help="The retain-only model, or the JSON of its evaluation.")
    ] = None,
    convention: Annotated[str, typer.Option(help=f"{', '.join(names())}.")] = "ngdiff",
    json: Annotated[
        Path | None, typer.Option(help="File to write: metrics, items, stamp; without it: stdout.")
    ] = None,
    files: Annotated[
        Path | None, typer.Option(help="Folder for the benchmark's own file formats.")
    ] = None,
    mia: Annotated[
        Path | None, typer.Option(help="SemEval: folder of member.jsonl and nonmember.jsonl.")
    ] = None,
    mmlu: Annotated[Path | None, typer.Option(help="SemEval: metrics.json of an MMLU run.")] = None,
    prompt: Annotated[
        str,
        typer.Option(help="'Question: {question}\\nAnswer: '; without it as the model is asked."),
    ] = "",
    generate: Annotated[
        bool, typer.Option(help="Greedy answers, for ROUGE and exact match.")
    ] = True,
    gradnorm: Annotated[
        bool, typer.Option(help="TOFU: the gradient-norm attack, a backward for each row.")
    ] = True,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Of an answer; without it the benchmark's.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id of the tokenizer, if not the model's.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code of the model's repository.")
    ] = False,
) -> None:
    """Measure a model on TOFU, MUSE or SemEval-2025 Task 4, item by item."""
    settings = dict(locals())
    from ngdiff.commands.evaluate import Evaluation, run

    run(Evaluation(**settings))


@app.command()
def mmlu(
    model: Annotated[
        str, typer.Option(help="Folder of a model or of a peft adapter, or a hub id.")
    ],
    json: Annotated[Path, typer.Option(help="The metrics.json to write.")],
    data: Annotated[
        str, typer.Option(help="The hub's data set, or a folder with its files.")
    ] = "cais/mmlu",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions of a subject at most: a trial, no score.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
) -> None:
    """MMLU, 5-shot, by lm-eval, which the package's extra `mmlu` installs."""
    settings = dict(locals())
    from ngdiff.evaluation.mmlu import command

    command(**settings)


@app.command()
def losses(
    model: Annotated[str, typer.Option(help="Folder of a model, or a hub id.")],
    forget: Annotated[Path, typer.Option(help='Rows {"question", "answer"} or {"text"}.')],
    retain: Annotated[Path, typer.Option(help="Rows to keep; DPO takes them as the refusals.")],
    start: Annotated[
        str | None, typer.Option(help="The model before unlearning; without it: the model itself.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many of each file, from its first on.")] = 4,
    convention: Annotated[
        str, typer.Option(help=f"{', '.join(names(TOFU.name))}; the others: as ngdiff.")
    ] = "ngdiff",
    json: Annotated[Path | None, typer.Option(help="File to write; without it: stdout.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    prompt: Annotated[str, typer.Option(help="As of `evaluate`.")] = "",
    tokenizer: Annotated[str | None, typer.Option(help="As of `evaluate`.")] = None,
) -> None:
    """Value and gradient norm of every objective on a few rows: the way to compare
    implementations.
    """
    settings = dict(locals())
    from ngdiff.commands.losses import command

    command(**settings)


@app.command()
def book(
    check: Annotated[
        bool, typer.Option("--check", help="Only say which files differ from a rebuild.")
    ] = False,
    label: Annotated[
        str, typer.Option(help="Outputs come from this run's executed notebooks.")
    ] = "tiny",
) -> None:
    """Build notebooks/*.ipynb and the exercises from the .py sources, and the README's tables from
    saved rows.
    """
    from ngdiff.book import build, readme
    from ngdiff.store import paths
    from ngdiff.store.cache import atomic_write

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


@data_app.command("authors")
def data_authors(
    out: Annotated[Path, typer.Argument(help="Folder to write, in TOFU's layout.")],
    profile: Profile = "tiny",
    seed: Annotated[
        int, typer.Option(help="Of the invented population.")
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
    """The version, and where it is installed."""
    import ngdiff

    print(
        f"ngdiff {ngdiff.__version__} ({Path(ngdiff.__file__).parent}), Python "
        f"{sys.version.split()[0]}"
    )


def main() -> None:
    """Entry point: an error of the library is one line and exit code 2, with --debug its
    traceback.
    """
    try:
        app()
    except ERRORS as error:
        if "--debug" in sys.argv:
            raise
        rank = os.environ.get("RANK", "0")  # of a process that accelerate launched
        print(f"ngdiff{'' if rank == '0' else f' (process {rank})'}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
