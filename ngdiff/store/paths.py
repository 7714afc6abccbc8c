"""Where things lie in a checkout: one rule for the notebooks, the reproduction and the report.

A run has a *label*: the profile's name and what sets it apart (`tiny`, `tiny-tofu`, `tiny-smoke`).
So real data or a smoke budget never overwrites the rows of another run.
"""

from __future__ import annotations

import re
from pathlib import Path

OURS = re.compile(r"""^name\s*=\s*["']ngdiff["']""", re.M)  # in pyproject.toml


def checkout(start: Path | None = None) -> Path | None:
    """The folder at or above `start` that holds ngdiff's pyproject.toml, else None.

    start: the working directory where it is None.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        project = folder / "pyproject.toml"
        if project.is_file() and OURS.search(project.read_text("utf-8")):
            return folder
    return None


def need_checkout(start: Path | None = None) -> Path:
    """Return `checkout`, or raise FileNotFoundError: the wheel has no notebooks."""
    if (root := checkout(start)) is None:
        raise FileNotFoundError(
            f"no ngdiff checkout at or above {start or Path.cwd()}: the notebooks are in the "
            "repository, not in the installed package; clone it and run this command inside"
        )
    return root


PLAIN = "tofu"  # the benchmark of real rows that name none


def kind(data: str) -> str:
    """Return the benchmark of real rows, as their spelling says (`ngdiff.evaluation.spelling`).

    It is what stands before a colon, TOFU where nothing does; "" for no data. No file is read.
    """
    name, colon, _ = data.partition(":")
    return name if colon else data and PLAIN


def run_label(profile: str, data: str = "", smoke: bool = False) -> str:
    """Return a run's label: `tiny`, on real rows `tiny-tofu`, on a smoke budget `tiny-smoke`."""
    return profile + (f"-{kind(data)}" if data else "") + ("-smoke" if smoke else "")


def rows_folder(profile: str, data: str = "", smoke: bool = False) -> Path:
    """data/results/<label> of the checkout: where a notebook writes its rows."""
    return (checkout() or Path.cwd()) / "data" / "results" / run_label(profile, data, smoke)


def protocol_folder() -> Path:
    """data/protocol of the checkout: the rows that tuned rates were chosen from."""
    return (checkout() or Path.cwd()) / "data" / "protocol"


def bench_folder() -> Path:
    """data/results/bench of the checkout: the rows of `ngdiff bench`."""
    return (checkout() or Path.cwd()) / "data" / "results" / "bench"
