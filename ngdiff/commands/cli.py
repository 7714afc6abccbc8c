"""`ngdiff …`: the command line. Commands import what they need when they run, so that help is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

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
bench_app = typer.Typer(help="Time and memory.", no_args_is_help=True)
data_app = typer.Typer(help="Generated benchmarks, as files.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
score_app = typer.Typer(help="Score files that other tools wrote; no model is loaded.", no_args_is_help=True)
app.add_typer(score_app, name="score")

Profile = Annotated[str, typer.Option(help="tiny (CPU, minutes), small (one GPU), paper or paper-<model> (the hub's).")]
File = Annotated[Path, typer.Argument(help="The file to score.")]
Reference = Annotated[Path | None, typer.Option(help="The same file of the retain-only model.")]
How = Annotated[str, typer.Option("--convention", help="ngdiff, tofu, open-unlearning or muse.")]
Out = Annotated[Path | None, typer.Option("--json", help="Write the JSON here; without it: stdout.")]
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
    data: Annotated[str, typer.Option(help="Real rows: a folder of TOFU, LUME or MUSE, or `hub`: TOFU.")] = "",
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2; without it as each notebook says.")] = None,
    only: Annotated[str, typer.Option(help="Numbers of notebooks, such as 04,06.")] = "",
    jobs: Jobs = 2,
    force: Annotated[bool, typer.Option("--force", help="Run again what is still valid.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Run all again; tune the rates, run the long grids.")
    ] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="A small budget, written as <profile>-smoke.")] = False,
    alone: Annotated[
        bool, typer.Option("--alone", help="One at a time, each from an empty cache: cold times.")
    ] = False,
) -> None:
    """Execute the notebooks, write rows, figures and one HTML report."""
    from ngdiff.book.reproduce import reproduce as run
    from ngdiff.data.real.tofu import need_files
    from ngdiff.profiles import profile as known
    from ngdiff.store import paths
    from ngdiff.study import plan as compare

    P = known(profile)
    if data and data != "hub":
        if not Path(data).is_dir():
            raise FileNotFoundError(f"--data {data}: no such folder; give a folder of TOFU, LUME or MUSE, or `hub`")
        if paths.kind(data) == "tofu":
            need_files(data, P.tofu_split)
        data = str(Path(data).resolve())
    numbers = _numbers(seeds, "--seeds")
    compare.plan("live", tuple(numbers or ()))  # refuses the tuning seed
    names = [name.strip() for name in only.split(",") if name.strip()]
    names = names or {"lume": ["09"], "muse": ["08"]}.get(paths.kind(data), [])  # the notebooks that read such rows
    raise typer.Exit(run(profile, data, numbers, refresh, force, smoke, names, jobs, alone))


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(help="The grid's TOML file.")],
    jobs: Jobs = 2,
    cell: Annotated[int | None, typer.Option(help="Run this cell alone (what an array task does).")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Print an sbatch array script instead of running.")] = False,
) -> None:
    """Run a grid of cells: resumable, isolated, local or Slurm."""
    from ngdiff.book import sweep as batch
    from ngdiff.store import paths

    if not grid.is_file():
        raise FileNotFoundError(f"no grid file {grid}: write one, notebooks/grid.toml is an example")
    if slurm:
        root = paths.need_checkout()
        print(batch.slurm(grid, len(batch.cells(grid, root / "notebooks" / "cell.py", root)[0])), end="")
        return
    raise typer.Exit(batch.sweep(grid, jobs, cell))


@app.command()
def unlearn(
    model: Annotated[str, typer.Option(help="Folder of a model or of a peft adapter, or a hub id.")],
    forget: Annotated[Path, typer.Option(help='Rows {"question", "answer"} or {"text"}: JSON lines or an array.')],
    retain: Annotated[Path, typer.Option(help="Rows to keep.")],
    out: Annotated[Path, typer.Option(help="Folder to write: the model, history.jsonl, run.json.")],
    holdout: Annotated[Path | None, typer.Option(help="Rows never seen: stop at the start's loss on them.")] = None,
    stop_level: Annotated[float | None, typer.Option(help="Stop at this forget loss, nats per token.")] = None,
    method: Annotated[str, typer.Option(help="ngdiff, graddiff-0.9, npo, kl, …")] = "ngdiff",
    stepsize: Annotated[str, typer.Option(help='autolr, constant, linear, cosine; or "autolr every=5".')] = "autolr",
    lr: Annotated[float | None, typer.Option(help="The rate; autolr starts at it, without it at 1e-3.")] = None,
    steps: Annotated[int, typer.Option(help="At most so many updates.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Forget rows and retain rows a step, each, of all processes.")] = 32,
    micro: Annotated[int | None, typer.Option(help="Rows a forward: less memory, the same result.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order of the rows.")] = 0,
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw",
    dropout: Annotated[bool, typer.Option("--dropout", help="Train with the model's own dropout.")] = False,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16 (the updates stay exact).")] = "float32",
    lora: Annotated[int | None, typer.Option(help="Train an adapter of this rank; OUT is peft's.")] = None,
    lora_alpha: Annotated[float, typer.Option(help="The adapter's alpha.")] = 32.0,
    lora_targets: Annotated[str, typer.Option(help="Modules, such as q_proj,v_proj.")] = "all-linear",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    memory: Annotated[str, typer.Option(help="swap, or recompute: less memory, a third to a half more time.")] = "swap",
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Compute activations twice.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile each block.")] = False,
    sharding: Annotated[str, typer.Option(help="Of several processes: shard (FSDP2) or replicate (DDP).")] = "shard",
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints; 0: none.")] = 50,
    force: Annotated[bool, typer.Option("--force", help="Replace a finished run, drop an unfinished one.")] = False,
) -> None:
    """Make a model forget rows and keep others; `accelerate launch -m ngdiff unlearn …` does it on several GPUs."""
    settings = {name: value for name, value in locals().items() if name != "force"}
    from ngdiff.commands.job import Job
    from ngdiff.commands.unlearn import run

    raise typer.Exit(1 if run(Job(**settings), force) == "nonfinite" else 0)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Folder of a model or of a peft adapter, or a hub id.")],
    benchmark: Annotated[str, typer.Option(help="tofu, muse or semeval.")],
    data: Annotated[
        str, typer.Option(help="The benchmark's folder, hub, or stand-in (generated, the same schema).")
    ] = "hub",
    split: Annotated[str, typer.Option(help="forget10, …; news or books; validation, train or all.")] = "",
    reference: Annotated[str | None, typer.Option(help="The retain-only model, or the JSON of its evaluation.")] = None,
    convention: Annotated[str, typer.Option(help="ngdiff, tofu, open-unlearning, muse or semeval.")] = "ngdiff",
    json: Annotated[Path | None, typer.Option(help="File to write: metrics, items, stamp; without it: stdout.")] = None,
    files: Annotated[Path | None, typer.Option(help="Folder for the benchmark's own file formats.")] = None,
    mia: Annotated[Path | None, typer.Option(help="SemEval: folder of member.jsonl and nonmember.jsonl.")] = None,
    mmlu: Annotated[Path | None, typer.Option(help="SemEval: metrics.json of an MMLU run.")] = None,
    prompt: Annotated[
        str, typer.Option(help="'Question: {question}\\nAnswer: '; without it as the model is asked.")
    ] = "",
    generate: Annotated[bool, typer.Option(help="Greedy answers, for ROUGE and exact match.")] = True,
    gradnorm: Annotated[bool, typer.Option(help="TOFU: the gradient-norm attack, a backward for each row.")] = True,
    max_new_tokens: Annotated[int | None, typer.Option(help="Of an answer; without it the benchmark's.")] = None,
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


@score_app.command("tofu")
def score_tofu(log: File, reference: Reference = None, convention: How = "ngdiff", json: Out = None) -> None:
    """TOFU's eval_log_aggregated.json: model utility, and forget quality against a retain-only model's."""
    _score("tofu", log, reference, None, convention, json)


@score_app.command("open-unlearning")
def score_open_unlearning(log: File, reference: Reference = None, json: Out = None) -> None:
    """open-unlearning's TOFU_EVAL.json: every aggregate again from its items."""
    _score("open-unlearning", log, reference, None, "open-unlearning", json)


@score_app.command("semeval")
def score_semeval(
    folder: Annotated[Path, typer.Argument(help="The evaluator's output folder.")],
    mmlu: Annotated[Path | None, typer.Option(help="metrics.json of an MMLU run.")] = None,
    json: Out = None,
) -> None:
    """The SemEval-2025 Task 4 evaluator's folder: the 12 terms, task aggregate, MIA, final score."""
    _score("semeval", folder, None, mmlu, "semeval", json)


@score_app.command("muse")
def score_muse(file: File, reference: Reference = None, convention: How = "ngdiff", json: Out = None) -> None:
    """MUSE's responses and Min-40 % scores (the README says in which form)."""
    _score("muse", file, reference, None, convention, json)


def _score(
    kind: str, path: Path, reference: Path | None, mmlu: Path | None, convention: str, json: Path | None
) -> None:
    from ngdiff.score import command

    command(kind, path, reference=reference, mmlu=mmlu, convention=convention, json_out=json)


@app.command()
def mmlu(
    model: Annotated[str, typer.Option(help="Folder of a model or of a peft adapter, or a hub id.")],
    json: Annotated[Path, typer.Option(help="The metrics.json to write.")],
    data: Annotated[str, typer.Option(help="The hub's data set, or a folder with its files.")] = "cais/mmlu",
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of a subject at most: a trial, no score.")] = None,
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
        str, typer.Option(help="ngdiff, tofu or open-unlearning; muse and semeval: as ngdiff.")
    ] = "ngdiff",
    json: Annotated[Path | None, typer.Option(help="File to write; without it: stdout.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    prompt: Annotated[str, typer.Option(help="As of `evaluate`.")] = "",
    tokenizer: Annotated[str | None, typer.Option(help="As of `evaluate`.")] = None,
) -> None:
    """Value and gradient norm of every objective on a few rows: the way to compare implementations."""
    settings = dict(locals())
    from ngdiff.commands.losses import command

    command(**settings)


@app.command()
def book(
    check: Annotated[bool, typer.Option("--check", help="Only say which files differ from a rebuild.")] = False,
    label: Annotated[str, typer.Option(help="Outputs come from this run's executed notebooks.")] = "tiny",
) -> None:
    """Build notebooks/*.ipynb and the exercises from the .py sources, and the README's tables from saved rows."""
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


@bench_app.command("step")
def bench_step(
    size: Annotated[str, typer.Option(help="Parameters of the model: 1M, 10M, 100M, 1B or 7B.")] = "10M",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens a batch.")] = 512,
    length: Annotated[int, typer.Option(min=0, help="Tokens a row; 0: at most 128, from 1B on 1024.")] = 0,
    pairs: Annotated[int, typer.Option(min=0, help="Interleaved measurements of each step; 0: 30, on CUDA 50.")] = 0,
    minutes: Annotated[float, typer.Option(min=0, help="All the time there is; 0: as long as it takes.")] = 0.0,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 with exact masters.")] = "float32",
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw",
    lora: Annotated[int, typer.Option(min=0, help="Rank of an adapter on the frozen model; 0: none.")] = 0,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Compute activations twice.")] = False,
    memory: Annotated[str, typer.Option(help="swap; recompute measures that too.")] = "swap",
    variants: Annotated[str, typer.Option(help="Some of them only, such as graddiff-two,ngdiff.")] = "",
    json: Annotated[Path | None, typer.Option(help="Also save the rows here (.jsonl).")] = None,
) -> None:
    """Time and peak memory of one step, relative to GradDiff and to a naive NGDiff."""
    from ngdiff.timing.step import step_table

    names = tuple(name.strip() for name in variants.split(",") if name.strip())
    step_table(json, size=size, tokens=tokens, length=length, pairs=pairs, minutes=minutes, precision=precision, lora=lora,
               optimizer=optimizer, checkpointing=checkpointing, memory=memory, variants=names)  # fmt: skip


@bench_app.command("suite")
def bench_suite(
    json_dir: Annotated[Path, typer.Option(help="Folder of the rows, a file a case.")] = Path("data/results/bench"),
    minutes: Annotated[float, typer.Option(min=1, help="All the time there is.")] = 8.0,
) -> None:
    """What the performance targets ask of this device, each case in a process of its own."""
    from ngdiff.timing.step import suite

    suite(json_dir, minutes)


@bench_app.command("probes")
def bench_probes(
    probes: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    json: Annotated[Path | None, typer.Option(help="Also save the rows here (.jsonl).")] = None,
) -> None:
    """AutoLR's rate in bfloat16 against float32: the same weights and rows, a probe in each."""
    from ngdiff.timing.probes import table

    table(probes, json)


@bench_app.command("evaluate")
def bench_evaluate(
    data: Annotated[str, typer.Option(help="A folder with TOFU's files; without it generated authors.")] = "",
    lume: Annotated[str, typer.Option(help="A folder of LUME: SemEval's validation split too.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each part, in turn.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Also save the rows here (.jsonl).")] = None,
) -> None:
    """Time of an evaluation on one thread: likelihoods, greedy answers, gradient norms."""
    from ngdiff.timing.evaluate import table

    table(data, lume, rounds, json)


@data_app.command("authors")
def data_authors(
    out: Annotated[Path, typer.Argument(help="Folder to write, in TOFU's layout.")],
    profile: Profile = "tiny",
    seed: Annotated[int, typer.Option(help="Of the invented population.")] = 2,  # ngdiff.data.made.authors.SEED
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

    print(f"ngdiff {ngdiff.__version__} ({Path(ngdiff.__file__).parent}), Python {sys.version.split()[0]}")


def main() -> None:
    """Entry point: an error of the library is one line and exit code 2, with --debug its traceback."""
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
