"""`ngdiff bench …`: the commands that measure time and memory. They import what they need when they
run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ngdiff.commands import options
from ngdiff.timing.case import Case

app = typer.Typer(help="Measure time and memory.", no_args_is_help=True)

Json = Annotated[Path | None, typer.Option(help="Also save the rows here (.jsonl).")]


@app.command("step")
@options.fills
def bench_step(case: Case, json: Json = None) -> None:
    """Time and peak memory of one step, relative to GradDiff and to a naive NGDiff."""
    from ngdiff.timing.step import step_table

    step_table(case, json)


@app.command("suite")
def bench_suite(
    json_dir: Annotated[Path, typer.Option(help="Folder for the rows, one file per case.")] = Path(
        "data/results/bench"
    ),
    minutes: Annotated[float, typer.Option(min=1, help="Total time, in minutes.")] = 8.0,
) -> None:
    """Measure larger cases within the given minutes, each in a process of its own."""
    from ngdiff.timing.cases import suite

    suite(json_dir, minutes)


@app.command("probes")
def bench_probes(
    probes: Annotated[int, typer.Option(min=1, help="Number of probes.")] = 20, json: Json = None
) -> None:
    """AutoLR's rate in bfloat16 against float32: the same weights and rows, a probe in each."""
    from ngdiff.timing.probes import table

    table(probes, json)


@app.command("rates")
def bench_rates(
    problems: Annotated[str, typer.Option(help="Test problems, separated by commas.")] = "",
    designs: Annotated[str, typer.Option(help="Variants, separated by commas.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Number of orders of the rows.")] = 2,
    save: Annotated[
        Path | None, typer.Option(help="Save the rows here as they come (.parquet, .jsonl).")
    ] = None,
) -> None:
    """AutoLR and variants of it on test problems, against the best constant rate."""
    from ngdiff.timing.rates import table

    table(save, problems, seeds, designs)


@app.command("ratio")
def bench_ratio(
    tofu: Annotated[str, typer.Option(help="A folder with TOFU's rows.")] = "",
    lume: Annotated[str, typer.Option(help="A folder with the rows of SemEval.")] = "",
    save: Annotated[Path | None, typer.Option(help="Save the rows here (.jsonl).")] = None,
) -> None:
    """What makes the ratio of the gradient norms large: one factor changed at a time."""
    from ngdiff.timing.causes import table

    table(save, tofu, lume)


@app.command("evaluate")
def bench_evaluate(
    data: Annotated[
        str, typer.Option(help="A folder with TOFU's files; without it generated authors.")
    ] = "",
    lume: Annotated[
        str, typer.Option(help="A folder of LUME: SemEval's validation split too.")
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each part, in turn.")] = 3,
    against: Annotated[
        str,
        typer.Option(help="A checkout's folder, or a revision: time its evaluation, alternating."),
    ] = "",
    floor: Annotated[
        bool, typer.Option("--floor", help="What time goes to, beside what products need.")
    ] = False,
    json: Json = None,
) -> None:
    """Time of an evaluation on one thread: likelihoods, greedy answers, gradient norms."""
    from ngdiff.timing.evaluate import table

    table(data, lume, rounds, json, against, floor)
