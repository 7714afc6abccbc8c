"""MUSE's numbers from a file of responses and Min-40 % scores.

The form is ours: `ngdiff.evaluation.muse_score` says it.

Reference: Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models" (2024).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ngdiff.evaluation import muse_score
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.score import documents


def score(
    path: Path, reference: Path | None = None, convention: str | Convention = "ngdiff"
) -> tuple[dict[str, float], list[str]]:
    """`muse_score.score` of a file, and warnings.

    The responses are taken as they stand: cut knowmem's at the next question.

    Errors: FileNotFoundError; ValueError naming the file, its list and the row.
    """
    how = convention_of(convention, "muse")
    document = documents.read(path)
    if reference is None:
        values = _scored(document, None, how, f"{path}")
        note = (
            [f"{path}: without a reference privleak takes AUC_ret = ½"]
            if "privleak" in values
            else []
        )
        return values, note + _absent(document, values, path)
    if "privleak" not in document:
        raise ValueError(
            f"{path} has no privleak scores: there is nothing to compare with {reference}"
        )
    other = documents.read(Path(reference))
    if "privleak" in other:  # alone first, so that what is wrong in it is told under its own name
        _scored({"privleak": other["privleak"]}, None, how, f"{reference}")
    values = _scored(document, other, how, f"{path}, reference {reference}")
    return values, _absent(document, values, path)


def _absent(document: dict[str, Any], values: dict[str, float], path: Path) -> list[str]:
    """A warning where the scores are there and privleak is undefined."""
    if "privleak" not in document or "privleak" in values:
        return []
    return [
        f"{path}: privleak is undefined: a list of scores is all null, or the reference's AUC is 1"
    ]


def _scored(
    document: dict[str, Any], reference: dict[str, Any] | None, how: Convention, where: str
) -> dict[str, float]:
    try:
        return muse_score.score(document, reference, how)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
