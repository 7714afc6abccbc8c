"""The folder of results that MUSE's own evaluation leaves, in both of the forms that it had.

    verbmem_f, knowmem_f, knowmem_r   log.json or history.json: a list of {gt, response, …};
                                      agg.json or out.json: {"mean_rougeL": …, …}
    privleak                          log.json: {"forget" | "retain" | "holdout": [{"Min-40%": …}]}
                                      or forget.json, retain2.json (or retain.json), holdout.json:
                                      [{"ppl": {"Min-40%": …}}]

A folder `verbmem` is verbmem_f. A folder `knowmem` does not state which set it is of, so its number
keeps that name. A folder that holds forget.json and holdout.json itself is read as `privleak`.

Reference: Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models" (2024), and
its code.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ngdiff.evaluation.conventions import convention
from ngdiff.evaluation.muse_score import mean, rouge_f1
from ngdiff.score import documents
from ngdiff.store.document import shown
from ngdiff.store.textfile import parsed, text_of

UNDECIDED = "knowmem"  # of which set is not said
TEXTS = {  # folder -> list of our form
    "verbmem_f": "verbmem",
    "verbmem": "verbmem",
    "knowmem_f": "knowmem_f",
    "knowmem_r": "knowmem_r",
    "knowmem": UNDECIDED,
}
ROWS, SUMMARY = ("log.json", "history.json"), ("agg.json", "out.json")
SIDES = {
    "forget": ("forget",),
    "holdout": ("holdout",),
    "retain": ("retain2", "retain"),
}  # side -> files
SCORE = "Min-40%"


def read(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the results in our form (`ngdiff.evaluation.muse_score`), and warnings.

    Errors: FileNotFoundError for a folder without any part; ValueError naming file and row.
    """
    found: dict[str, Any] = {}
    used: set[Path] = set()
    for name, ours in TEXTS.items():
        place = folder / name
        if (path := _first(place, ROWS)) is not None and ours not in found:
            found[ours] = _texts(path)
            used |= {path, *(place / file for file in SUMMARY)}
    for place in (folder / "privleak", folder):
        if "privleak" not in found and (sides := _sides(place, used)):
            found["privleak"] = sides
            used.add(place / "auc.json")
    if not found:
        looked = ", ".join([*(f"{name}/{ROWS[0]}" for name in TEXTS), "privleak/log.json"])
        raise FileNotFoundError(
            f"no results of MUSE in {folder}: looked for {looked}, {ROWS[1]} in place of "
            f"{ROWS[0]}, and privleak/{{forget,holdout,retain2}}.json"
        )
    rest = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.json") if p not in used)
    notes = [f"{folder}: {len(rest)} files not used: {', '.join(rest)}"] if rest else []
    if UNDECIDED in found:
        notes.append(
            f"{folder}/knowmem does not state whether it is of the forget or of the retain set: "
            "its number is called knowmem"
        )
    return found, notes + _summaries(folder, found)


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _json(path: Path) -> Any:
    try:
        return parsed(text_of(path))
    except json.JSONDecodeError as error:
        why = f"not JSON ({error.msg}): the file is damaged or cut short"
        raise ValueError(f"{path}, line {error.lineno}: {why}") from error


def _texts(path: Path) -> list[dict[str, str]]:
    rows = documents.array(_json(path), f"{path}")
    for i, row in enumerate(rows):
        for key in ("response", "gt"):
            if not isinstance(row, dict) or not isinstance(row.get(key), str):
                raise ValueError(f"{path}, row {i}: no text under {key!r}")
    return [{"response": row["response"], "gt": row["gt"]} for row in rows]


def _sides(folder: Path, used: set[Path]) -> dict[str, list[float]]:
    """The Min-40 % scores of each side; {} where the folder does not hold forget and holdout."""
    if (path := folder / "log.json").is_file() and isinstance(log := _json(path), dict):
        parts = {s: (log[s], path) for s in SIDES if s in log}
    else:
        files = {s: _first(folder, tuple(f"{n}.json" for n in names)) for s, names in SIDES.items()}
        parts = {s: (_json(path), path) for s, path in files.items() if path is not None}
    if not {"forget", "holdout"} <= parts.keys():
        return {}
    used |= {path for _, path in parts.values()}
    return {
        side: [
            _score(row, f"{path}, {side}, row {i}")
            for i, row in enumerate(documents.array(rows, f"{path}, {side}"))
        ]
        for side, (rows, path) in parts.items()
    }


def _score(row: Any, where: str) -> float:
    scores = row.get("ppl", row) if isinstance(row, dict) else None
    if not isinstance(scores, dict) or SCORE not in scores:
        has = ", ".join(scores) if isinstance(scores, dict) else shown(row)
        raise ValueError(f"{where}: no {SCORE!r} (it has {has})")
    return documents.number(scores[SCORE], where)


def _summaries(folder: Path, found: dict[str, Any]) -> list[str]:
    """A warning where a summary says something else than the mean of its rows."""
    how, lines = convention("muse", "muse"), []
    for name, ours in TEXTS.items():
        path = _first(folder / name, SUMMARY)
        told = _json(path).get("mean_rougeL") if path and ours in found else None
        if told is not None:
            value = mean([rouge_f1(row["response"], row["gt"], how) for row in found[ours]])
            if not math.isclose(documents.number(told, f"{path}"), value, abs_tol=1e-6):
                lines.append(f"{path}: its mean_rougeL is {told}, its rows give {value}")
    return lines
