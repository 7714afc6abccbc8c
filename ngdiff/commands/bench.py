"""`ngdiff bench …`: the commands that measure time and memory. They import what they need when they
run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Time and memory.", no_args_is_help=True)


@app.command("step")
def bench_step(
    size: Annotated[
        str, typer.Option(help="Parameters of the model: 1M, 10M, 100M, 1B or 7B.")
    ] = "10M",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens a batch.")] = 512,
    length: Annotated[
        int, typer.Option(min=0, help="Tokens a row; 0: at most 128, from 1B on 1024.")
    ] = 0,
    pairs: Annotated[
        int, typer.Option(min=0, help="Interleaved measurements of each step; 0: 30, on CUDA 50.")
    ] = 0,
    minutes: Annotated[
        float, typer.Option(min=0, help="All the time there is; 0: as long as it takes.")
    ] = 0.0,
    precision: Annotated[
        str, typer.Option(help="float32, or bfloat16 with exact masters.")
    ] = "float32",
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw",
    lora: Annotated[
        int, typer.Option(min=0, help="Rank of an adapter on the frozen model; 0: none.")
    ] = 0,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations twice.")
    ] = False,
    memory: Annotated[str, typer.Option(help="swap; recompute measures that too.")] = "swap",
    variants: Annotated[
        str, typer.Option(help="Some of them only, such as graddiff-two,ngdiff.")
    ] = "",
    json: Annotated[Path | None, typer.Option(help="Also save the rows here (.jsonl).")] = None,
) -> None:
    """Time and peak memory of one step, relative to GradDiff and to a naive NGDiff."""
    from ngdiff.timing.step import step_table

    names = tuple(name.strip() for name in variants.split(",") if name.strip())
    step_table(
        json,
        size=size,
        tokens=tokens,
        length=length,
        pairs=pairs,
        minutes=minutes,
        precision=precision,
        lora=lora,
        optimizer=optimizer,
        checkpointing=checkpointing,
        memory=memory,
        variants=names,
    )


@app.command("suite")
def bench_suite(
    json_dir: Annotated[Path, typer.Option(help="Folder of the rows, a file a case.")] = Path(
        "data/results/bench"
    ),
    minutes: Annotated[float, typer.Option(min=1, help="All the time there is.")] = 8.0,
) -> None:
    """What the performance targets ask of this device, each case in a process of its own."""
    from ngdiff.timing.step import suite

    suite(json_dir, minutes)


@app.command("probes")
def bench_probes(
    probes: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    json: Annotated[Path | None, typer.Option(help="Also save the rows here (.jsonl).")] = None,
) -> None:
    """AutoLR's rate in bfloat16 against float32: the same weights and rows, a probe in each."""
    from ngdiff.timing.probes import table

    table(probes, json)


@app.command("evaluate")
def bench_evaluate(
    data: Annotated[
        str, typer.Option(help="A folder with TOFU's files; without it generated authors.")
    ] = "",
    lume: Annotated[
        str, typer.Option(help="A folder of LUME: SemEval's validation split too.")
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each part, in turn.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Also save the rows here (.jsonl).")] = None,
) -> None:
    """Time of an evaluation on one thread: likelihoods, greedy answers, gradient norms."""
    from ngdiff.timing.evaluate import table

    table(data, lume, rounds, json)
