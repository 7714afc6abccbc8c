"""The options of a command, read off the frozen dataclass that they fill.

    @dataclass(frozen=True)
    class Job:
        model: str = field(metadata={"help": "Folder of a model."})
        steps: int = field(default=100, metadata={"help": "At most so many updates.", "min": 1})

    @app.command()
    @options.fills
    def unlearn(job: Job, force: Force = False) -> None: ...

A field's name, type and default are the option's; its metadata go to `typer.Option`. A field
without a default is required. What typer cannot say by a type alone is said by the default:

    bool = False              --dropout
    bool = True               --generate, --no-generate
    tuple[str, ...] = ()      text, split at its commas: --variants naive,ngdiff

Help reads the dataclass too, so the module that holds it imports neither torch nor pandas.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, get_type_hints

import typer

LIST = tuple[str, ...]


def fills(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the fields of its first parameter's dataclass in that parameter's
    place, for typer.

    The command's other parameters stay as they are and come after them. Errors: ValueError for a
    field whose metadata have no help; those of the dataclass when the command runs.
    """
    hints = get_type_hints(command, include_extras=True)
    first, *others = inspect.signature(command).parameters.values()
    kind = hints[first.name]
    types = get_type_hints(kind)
    lists = {name for name, type_ in types.items() if type_ == LIST}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        taken = {each.name: given.pop(each.name) for each in fields(kind)}
        split = {name: _split(taken[name]) for name in lists}
        command(kind(**taken | split), **given)

    own = sorted(
        fields(kind), key=lambda each: each.kw_only is True
    )  # what commands share comes last
    parameters = [_parameter(each, types[each.name]) for each in own]
    parameters += [
        other.replace(annotation=hints[other.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for other in others
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _parameter(field: Field[Any], type_: Any) -> inspect.Parameter:
    """Return a field as a parameter that typer reads."""
    if "help" not in field.metadata:
        raise ValueError(
            f"the option of {field.name} has no help: "
            f'{field.name}: … = field(metadata={{"help": "…"}}) gives it one'
        )
    default: Any = inspect.Parameter.empty if field.default is MISSING else field.default
    if type_ == LIST:
        type_, default = str, ",".join(default)
    flag = ["--" + field.name.replace("_", "-")] if default is False else []
    option = typer.Option(*flag, **field.metadata)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[type_, option],
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
