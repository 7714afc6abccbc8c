"""MUSE's numbers from responses and Min-40 % scores: MUSE's own folder of results, or one file.

`ngdiff.score.muse_folder` says what the folder holds. The form of the file is ours:
`ngdiff.evaluation.muse_score` says it.

Reference: Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models" (2024).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ngdiff.evaluation import items, muse_score, sight, trust
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.score import documents, muse_folder


def score(
    path: Path, reference: Path | None = None, convention: str | Convention = "ngdiff"
) -> tuple[dict[str, float], list[str]]:
    """`muse_score.score` of a file or folder, and warnings.

    The responses are taken as they stand: cut knowmem's at the next question.

    Errors: FileNotFoundError; ValueError naming the file, its list and the row.
    """
    how = convention_of(convention, "muse")
    document, warnings = _read(path)
    undecided = document.pop(muse_folder.UNDECIDED, None) if path.is_dir() else None
    values: dict[str, float] = {}
    if document or not undecided:
        values, more = _values(document, path, reference, how)
        warnings += more
    if undecided:
        scores = [muse_score.rouge_f1(row["response"], row["gt"], how) for row in undecided]
        values[muse_folder.UNDECIDED] = muse_score.mean(scores)
    told = [row["gt"] for name in muse_score.TEXTS for row in document.get(name, ())]
    told += [row["gt"] for row in undecided or ()]
    warnings += [f"{path}: {line}" for line in sight.unseen(told)]
    return values, list(dict.fromkeys(warnings))


def _values(
    document: dict[str, Any], path: Path, reference: Path | None, how: Convention
) -> tuple[dict[str, float], list[str]]:
    """The scores of a document in our form, and warnings."""
    if reference is None:
        values = _scored(document, None, how, f"{path}")
        half = f"{path}: without a reference privleak takes AUC_ret = ½"
        return values, [half] * ("privleak" in values) + _absent(document, values, path)
    if "privleak" not in document:
        raise ValueError(
            f"{path} has no privleak scores: there is nothing to compare with {reference}"
        )
    other, warnings = _read(Path(reference))
    if Path(reference).is_dir():
        other.pop(muse_folder.UNDECIDED, None)
    if "privleak" in other:  # alone first, so that an error in it names the right file
        _scored({"privleak": other["privleak"]}, None, how, f"{reference}")
    values = _scored(document, other, how, f"{path}, reference {reference}")
    warnings += _doubts(document["privleak"], other["privleak"], reference)
    return values, warnings + _absent(document, values, path)


def _doubts(ours: dict[str, Any], theirs: dict[str, Any], reference: Path) -> list[str]:
    """Return doubts about a reference, and the tests that could not be made."""
    found, other = (
        {
            side: items.scores([muse_score.number(v) for v in values])
            for side, values in part.items()
        }
        for part in (ours, theirs)
    )
    auc = muse_score.membership(theirs)["mia_min_k"]
    lines = trust.same_model(found, other, reference)
    lines += trust.membership(auc, (len(theirs["forget"]), len(theirs["holdout"])), reference)
    return [*lines, f"{reference}: not tested whether it is of the same documents (no texts)"]


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The results of a file or folder in our form, and warnings."""
    if path.is_dir() and (path / "MUSE.json").is_file():  # what `evaluate --files` wrote
        path = path / "MUSE.json"
    return muse_folder.read(path) if path.is_dir() else (documents.read(path), [])


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
