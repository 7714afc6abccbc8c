"""Options read off a dataclass: what typer makes of each kind of field, and that no command has an
option of its own beside its dataclass's.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from ngdiff.commands import cli, options
from ngdiff.commands.asking import Asking
from ngdiff.commands.comparison import Comparison
from ngdiff.commands.evaluate import Evaluation
from ngdiff.commands.job import Job
from ngdiff.commands.mmlu import Exam
from ngdiff.commands.rerun import Rerun
from ngdiff.data.benchmark import Prompt
from ngdiff.timing.case import Case


@dataclass(frozen=True)
class Trip:
    """One field of each kind."""

    goal: Path = field(metadata={"help": "Where to."})
    max_days: int = field(default=3, metadata={"help": "How long.", "min": 1})
    by_sea: bool = field(default=False, metadata={"help": "On a ship."})
    luggage: bool = field(default=True, metadata={"help": "With a bag."})
    stops: tuple[str, ...] = field(default=("Ulm", "Linz"), metadata={"help": "On the way."})
    speed: float | None = field(default=None, metadata={"help": "Or as it comes."})


def travel(trip: Trip, again: Annotated[bool, typer.Option("--again")] = False) -> None:
    """Go there."""
    print(trip, again)


def invoked(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(options.fills(travel))
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("arguments", "trip", "again"),
    [
        (["--goal=a"], Trip(Path("a")), False),
        (
            ["--goal=a", "--max-days=5", "--by-sea", "--no-luggage", "--speed=2", "--again"],
            Trip(Path("a"), 5, True, False, speed=2.0),
            True,
        ),
        (["--goal=a", "--stops= Wien,, Graz"], Trip(Path("a"), stops=("Wien", "Graz")), False),
        (["--goal=a", "--stops="], Trip(Path("a"), stops=()), False),
    ],
)
def test_options_fill_the_dataclass(arguments, trip, again):
    done = invoked(*arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{trip} {again}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["--goal=a", "--max-days=0"], ["--goal=a", "--no-by-sea"], ["--goal=a", "--max_days=5"]],
)
def test_what_the_fields_do_not_allow_is_refused(arguments):
    assert invoked(*arguments).exit_code == 2


def test_a_field_without_help_is_refused():
    @dataclass(frozen=True)
    class Bare:
        size: int = 1

    def command(bare: Bare) -> None: ...

    command.__annotations__["bare"] = Bare
    with pytest.raises(ValueError, match="size has no help"):
        options.fills(command)


FILLED = {
    ("unlearn",): (Job, ["force"]),
    ("evaluate",): (Evaluation, []),
    ("losses",): (Comparison, []),
    ("mmlu",): (Exam, []),
    ("reproduce",): (Rerun, []),
    ("bench", "step"): (Case, ["json"]),
}


@pytest.mark.parametrize("path", FILLED, ids=" ".join)
def test_every_field_is_an_option_and_every_option_a_field(path):
    kind, others = FILLED[path]
    command = get_command(cli.app)
    for name in path:
        command = command.commands[name]
    found = {option.name: option for option in command.params}
    own = sorted(fields(kind), key=lambda each: each.kw_only is True)  # shared ones come last
    assert list(found) == [*(each.name for each in own), *others]
    for each in fields(kind):
        option = found[each.name]
        assert "--" + each.name.replace("_", "-") in option.opts
        assert option.help == each.metadata["help"] and option.required == (each.default is MISSING)
        if not option.required:
            default = ",".join(each.default) if isinstance(each.default, tuple) else each.default
            assert option.default == default, each.name


def test_every_command_that_loads_a_model_is_told_how_it_is_asked():
    shared = {each.name for each in fields(Asking)}
    assert shared == {"model", "prompt", "tokenizer", "trust_remote_code"}
    loading = [kind for kind, _ in FILLED.values() if "model" in {f.name for f in fields(kind)}]
    assert loading and all(issubclass(kind, Asking) for kind in loading)
    with pytest.raises(ValueError, match=r"--prompt needs \{question\} once"):
        Exam(model="m", json="metrics.json", prompt="Question: ")
    given = Exam(model="m", json="x", prompt="Q: {question}\nA: ", tokenizer="t")
    assert given.asked() == {
        "prompt": Prompt("Q: ", "\n", "A: "),
        "tokenizer": "t",
        "trust_remote_code": False,
    }


def test_the_dataclasses_are_light():
    modules = {kind.__module__ for kind, _ in FILLED.values()}
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pandas", "transformers"} & set(done.stdout.split())
