"""What a method is: two objectives, a direction rule, and all that is known of them, in one value.

Everything else reads it: the command line its `key`, tables its `name`, figures its `look`, the
comparisons their `tags`, the page of published settings its `defaults`. A method of your own is a
`Method` too:

    mine = ng.Method("mine", MyRule(), forget=ng.objectives.NPO(0.5))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ngdiff.core.directions import Direction
from ngdiff.methods.objectives import CE, Objective

# one of these is the colour of a method that chooses none: no method of the package has it
SPARE = ("#1B9E77", "#7570B3", "#E7298A", "#66A61E", "#A6761D", "#D95F02", "#1F78B4", "#6A3D9A")


@dataclass(frozen=True)
class Look:
    """How a method is drawn: a colour (hex), and the dashes of its line as matplotlib says."""

    colour: str = ""
    dashes: str = "-"


@dataclass(frozen=True)
class Defaults:
    """The published settings of a method under AdamW: loss = gamma·forget + alpha·retain, both
    minimised.

    gamma, alpha: None where the direction rule finds the weights. options: of the objectives. All
    of these methods train all parameters. source: whose defaults they are.
    """

    gamma: float | None
    alpha: float | None
    source: str
    lr: float = 1e-5
    epochs: int = 10
    batch: int = 32
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """R (minimised), F (ascended) and the rule that weighs their gradients.

    name: the label of tables and figures. trains: a regular expression that the names of the
    parameters to train must match somewhere; None trains all of them. key: the name on the command
    line and in rows; without one it is made from `name` ("GradDiff(0.5)" gives "graddiff-0.5").
    look: colour and dashes. Without a colour one is taken from `SPARE`. tags: the comparisons that
    the method belongs to (`ngdiff.study.plan`). defaults: the published settings, where there are
    any.

    Two methods are equal where name, objectives, rule and `trains` are.
    Errors: ValueError for an empty name, a direction without `weights`, and a retain or forget part
    that is no objective.
    """

    name: str
    direction: Direction
    retain: Objective = CE()
    forget: Objective = CE()
    trains: str | None = None
    key: str = field(default="", compare=False, repr=False)
    look: Look = field(default=Look(), compare=False, repr=False)
    tags: tuple[str, ...] = field(default=(), compare=False, repr=False)
    defaults: Defaults | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("a method needs a name: tables and figures show it")
        if isinstance(self.direction, type) or not hasattr(self.direction, "weights"):
            raise ValueError(
                f"{self.name}: the direction is {self.direction!r}: give a value that has "
                "weights(gram, losses), such as ng.NGDiff()"
            )
        for part in ("retain", "forget"):
            if not isinstance(getattr(self, part), Objective):
                raise ValueError(
                    f"{self.name}: {part} is {getattr(self, part)!r}: give an objective, such as "
                    "ng.objectives.NPO()"
                )
        if not self.key:
            object.__setattr__(self, "key", key_of(self.name))
        if not self.look.colour:
            colour = SPARE[sum(self.key.encode()) % len(SPARE)]
            object.__setattr__(self, "look", Look(colour, self.look.dashes))

    @property
    def parts(self) -> tuple[Any, ...]:
        """Return what decides a run: all but how the method is shown and where it belongs."""
        return self.name, self.direction, self.retain, self.forget, self.trains

    @property
    def plain(self) -> bool:
        """Return whether both objectives are cross-entropies, so that only the rule is special."""
        return self.retain == self.forget == CE()


def key_of(name: str) -> str:
    """Return a name for the command line: "GradDiff(0.9) on NPO" gives "graddiff-0.9-npo"."""
    words = name.lower().replace(" on ", " ").replace("(", " ").replace(")", " ").split()
    return "-".join(words)
