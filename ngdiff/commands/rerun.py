"""The options of `ngdiff reproduce`, checked before a notebook runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ngdiff.evaluation.spelling import which
from ngdiff.profiles import profile

PROFILE: dict[str, Any] = {
    "help": "tiny (CPU, minutes), small (one GPU), paper or paper-<model> (hub)."
}
JOBS: dict[str, Any] = {"min": 1, "help": "How many run at the same time."}


@dataclass(frozen=True)
class Rerun:
    """Which notebooks are executed, on which rows, and how; the command's options."""

    profile: str = field(default="tiny", metadata=PROFILE)
    data: str = field(
        default="",
        metadata={"help": "Real rows: folder of TOFU, LUME or MUSE; hub (TOFU) or muse:hub."},
    )
    seeds: str | None = field(
        default=None, metadata={"help": "Such as 0,1,2; default: those of each notebook."}
    )
    only: tuple[str, ...] = field(
        default=(), metadata={"help": "Numbers of notebooks, such as 04,06."}
    )
    jobs: int = field(default=2, metadata=JOBS)
    force: bool = field(default=False, metadata={"help": "Run again even what is still valid."})
    refresh: bool = field(
        default=False,
        metadata={"help": "Run all again, with tuning and the long comparison (hours)."},
    )
    smoke: bool = field(
        default=False, metadata={"help": "Few steps; results are named <profile>-smoke."}
    )
    alone: bool = field(
        default=False, metadata={"help": "One at a time, each from an empty cache, to time it."}
    )

    def run(self) -> int:
        """Execute the notebooks; return the exit code.

        Errors, all before a notebook runs: ValueError for a profile or seeds that cannot be,
        FileNotFoundError for a folder of rows that is not there or lacks files.
        """
        from ngdiff.book.reproduce import reproduce
        from ngdiff.study import plan

        P, rows = profile(self.profile), which(self.data)
        if self.data and not rows.place:
            raise ValueError(
                f"--data {self.data} is generated: leave it out, or give a folder or hub"
            )
        rows.need("--data")
        if rows.root is not None:
            rows.suite.need(rows.root, rows.suite.split(P))
        seeds = _numbers(self.seeds, "--seeds")
        plan.plan("live", tuple(seeds or ()))  # refuses the tuning seed
        return reproduce(**asdict(self) | {"seeds": seeds})


def _numbers(text: str | None, option: str) -> list[int] | None:
    try:
        return [int(part) for part in text.split(",")] if text else None
    except ValueError as error:
        raise ValueError(
            f"{option} takes whole numbers separated by commas, such as 0,1,2; not {text!r}"
        ) from error
