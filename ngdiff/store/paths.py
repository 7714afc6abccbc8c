"""Where things lie in a checkout: one rule for the notebooks, the reproduction and the report.

A run has a *label*, the profile's name plus what sets it apart (`tiny`, `tiny-tofu`, `tiny-smoke`),
so that real data or a smoke budget never overwrites the rows of another run.
"""

from __future__ import annotations

import re
from pathlib import Path

OURS = re.compile(r"""^name\s*=\s*["']ngdiff["']""", re.M)  # in pyproject.toml


def checkout(start: Path | None = None) -> Path | None:
    """The folder at or above `start` (the working directory) that holds ngdiff's pyproject.toml,
    else None.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        project = folder / "pyproject.toml"
        if project.is_file() and OURS.search(project.read_text("utf-8")):
            return folder
    return None


def need_checkout(start: Path | None = None) -> Path:
    """`checkout`, or FileNotFoundError saying that notebooks live in the repository, not in the
    wheel.
    """
    if (root := checkout(start)) is None:
        raise FileNotFoundError(
            f"no ngdiff checkout at or above {start or Path.cwd()}: the notebooks are in the "
            "repository, not in the "
            "installed package; clone it and run this command inside"
        )
    return root


KINDS = ("tofu", "lume", "muse")  # of `kind`


def kind(data: str) -> str:
    """Which benchmark's rows a folder (or "hub") holds: tofu, lume (SemEval-2025 Task 4) or muse;
    "" for no data.
    """
    if not data:
        return ""
    folder = Path(data)
    if any(
        (folder / name).exists() for name in ("forget.jsonl", "semeval2025", "train/forget.jsonl")
    ):
        return "lume"
    return "muse" if (folder / "raw").is_dir() else "tofu"


def run_label(profile: str, data: str = "", smoke: bool = False) -> str:
    """`tiny`, with real rows `tiny-tofu` (-lume, -muse), and with `-smoke` at the end for a smoke
    budget.
    """
    return profile + (f"-{kind(data)}" if data else "") + ("-smoke" if smoke else "")


def rows_folder(profile: str, data: str = "", smoke: bool = False) -> Path:
    """data/results/<label> of the checkout: where a notebook writes its rows."""
    return (checkout() or Path.cwd()) / "data" / "results" / run_label(profile, data, smoke)


def protocol_folder() -> Path:
    """data/protocol of the checkout: the rows that tuned rates were chosen from."""
    return (checkout() or Path.cwd()) / "data" / "protocol"


def figures_folder(profile: str, data: str = "", smoke: bool = False) -> Path:
    """figures/<label> of the checkout: where a notebook writes its figures."""
    return (checkout() or Path.cwd()) / "figures" / run_label(profile, data, smoke)
