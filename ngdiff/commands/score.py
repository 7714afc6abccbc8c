"""`ngdiff score …`: the commands that score files which other tools wrote. No model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ngdiff.evaluation.conventions import names
from ngdiff.evaluation.suites import MUSE, TOFU, Suite

app = typer.Typer(
    help="Score files that other tools wrote; no model is loaded.", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(help="The file to score.")]
Reference = Annotated[Path | None, typer.Option(help="The same file of the retain-only model.")]
Out = Annotated[Path | None, typer.Option("--json", help="File to write; default: stdout.")]


def _how(suite: Suite) -> Any:
    """Return the option --convention of a benchmark."""
    return typer.Option("--convention", help=f"{', '.join(names(suite.name))}.")


OfTOFU = Annotated[str, _how(TOFU)]
OfMUSE = Annotated[str, _how(MUSE)]


@app.command("tofu")
def score_tofu(
    log: File, reference: Reference = None, convention: OfTOFU = "ngdiff", json: Out = None
) -> None:
    """TOFU's eval_log_aggregated.json: model utility, and forget quality against a retain-only
    model's.
    """
    _score("tofu", log, reference, None, convention, json)


@app.command("open-unlearning")
def score_open_unlearning(log: File, reference: Reference = None, json: Out = None) -> None:
    """open-unlearning's TOFU_EVAL.json: every aggregate computed anew from its items."""
    _score("open-unlearning", log, reference, None, "open-unlearning", json)


@app.command("semeval")
def score_semeval(
    folder: Annotated[Path, typer.Argument(help="The evaluator's output folder.")],
    mmlu: Annotated[Path | None, typer.Option(help="metrics.json of an MMLU run.")] = None,
    json: Out = None,
) -> None:
    """The SemEval-2025 Task 4 evaluator's folder: the 12 terms, task aggregate, MIA, final
    score.
    """
    _score("semeval", folder, None, mmlu, "semeval", json)


@app.command("muse")
def score_muse(
    results: Annotated[Path, typer.Argument(help="MUSE's folder of results, or our file.")],
    reference: Reference = None,
    convention: OfMUSE = "ngdiff",
    json: Out = None,
) -> None:
    """MUSE's folder of results, or ours in one file: ROUGE and privleak (docs/benchmarks.md)."""
    _score("muse", results, reference, None, convention, json)


def _score(
    kind: str,
    path: Path,
    reference: Path | None,
    mmlu: Path | None,
    convention: str,
    json: Path | None,
) -> None:
    from ngdiff.score import command

    command(kind, path, reference=reference, mmlu=mmlu, convention=convention, json_out=json)
