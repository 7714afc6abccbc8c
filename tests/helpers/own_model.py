"""`ngdiff unlearn` in this process, on a folder with a model of one layer and its rows."""

from __future__ import annotations

from pathlib import Path

from click.testing import Result
from safetensors.torch import load_file
from typer.testing import CliRunner

from ngdiff.commands.cli import app
from ngdiff.commands.outcome import STATUS
from ngdiff.lm.model import LM, save
from ngdiff.store.rows import write_rows
from tests.helpers import micro

VERDICTS = {status for word, status in STATUS.items() if word not in ("broken", "not measured")}
SETS = ("forget", "retain", "holdout")


def folder(place: Path, lm: LM | None = None) -> Path:
    """Write `model`, by default one that knows the forget rows by heart, and the rows' files."""
    save(lm or micro.memorised(), place / "model")
    for name in SETS:
        write_rows(place / f"{name}.jsonl", getattr(micro.bench(), name))
    return place


def arguments(given: Path, out: Path, *more) -> list[str]:
    """The command line; later options win."""
    places = [f"--{name}={given / f'{name}.jsonl'}" for name in ("forget", "retain")]
    return [
        "unlearn",
        f"--model={given / 'model'}",
        *places,
        f"--out={out}",
        "--device=cpu",
        *map(str, more),
    ]


def go(given: Path, out: Path, *more) -> Result:
    """The command's result; standard output and error are in `output`."""
    return CliRunner().invoke(app, arguments(given, out, *more))


def done(given: Path, out: Path, *more) -> dict:
    """The weights that it wrote, whatever its verdict."""
    result = go(given, out, *more)
    assert result.exit_code in VERDICTS, result.output + repr(result.exception)
    assert (out / "run.json").is_file(), result.output + repr(result.exception)
    return weights(out)


def weights(out: Path) -> dict:
    return load_file(next(out.glob("*model.safetensors")))
