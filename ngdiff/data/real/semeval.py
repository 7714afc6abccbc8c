"""SemEval-2025 Task 4, unlearning sensitive content (Ramakrishna et al. 2025).

The data are LUME's, Apache-2.0.

`ngdiff.data.real.semeval_rows` defines a row.

The organisers' files of the membership inference attack (MIA) are not public. Without them, members
are rebuilt from the training split's forget rows of Task3 (`input + " " + output`). The non-members
are a **stand-in**: Task3 documents of LUME that are in neither fold of train and validation.
Nothing of ours is trained on these. The organisers' own targets may have been, since LUME's other
rows were the task's hidden test. So an AUC of those targets says little.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from ngdiff.data import sources
from ngdiff.data.benchmark import Benchmark, Row
from ngdiff.data.real.semeval_rows import (
    PROMPT,
    document,
    document_row,
    documents_of,
    first,
    row_of,
)
from ngdiff.profiles import Profile, profile

HUB = "llmunlearningsemeval2025organization/semeval25-unlearning-dataset-public"
# that repository has no tag to pin: its rows are compared with these numbers instead
REVISION = "main"
# rows to forget, rows to retain, and the `digest` of both
VERSIONS = {"train": (1112, 1136, "44331ffac90f9185"), "validation": (254, 278, "b7b905dd492b6fff")}
SPLITS = ("train", "validation", "all")
FOLDS = ("forget", "retain")


def semeval(
    P: str | Profile = "tiny",
    split: str = "train",
    root: str | Path | None = None,
    mia: str | Path | None = None,
    revision: str = REVISION,
    documents: int | None = None,
) -> Benchmark:
    """The task's rows under the configs "forget" and "retain".

    Where they can be had, also "holdout" (rows in neither fold of train and validation) and the
    documents of the MIA, "member" and "nonmember".

    P          profile or its name: `lume_documents` is read
    split      train, validation, or all: the whole of LUME, which only a folder has (and of which
               nothing is left over)
    root       a folder, of one of these layouts; None downloads train or validation from the hub
                   [semeval2025/]<split>/{forget,retain}.jsonl    beside them, all of LUME:
                                                                  {forget,retain}.jsonl
                   [data/]{forget,retain}_<split>-*.parquet       the hub's files
                   {forget,retain}.jsonl                          one split, whichever it is
    mia        a folder with member.jsonl and nonmember.jsonl, rows {id, document}; None: the
               stand-in of this module's text, where root has train, validation and all of LUME
    revision   branch, tag or commit on the hub; at "main", other row counts than the published ones
               are an error, other texts a warning
    documents  only the first so many documents of each task and fold, for a model trained on no
               more; None: as the profile says

    Errors: ValueError for an unknown split, for what is no row of the task (naming file and line)
    and for a question to be forgotten and kept; FileNotFoundError naming what a folder lacks;
    ConnectionError when the hub cannot be reached.
    """
    P = profile(P)
    documents = P.lume_documents if documents is None else documents
    where = (
        {"root": str(root), "revision": None}
        if root is not None
        else {"root": None, "revision": revision}
    )
    return from_source(
        {"split": split, "mia": str(mia) if mia is not None else None, "documents": documents}
        | where
    )


def from_source(recipe: dict[str, Any]) -> Benchmark:
    """The benchmark of a recipe {"split", "root", "mia", "revision", "documents"}."""
    split, root, n = recipe["split"], recipe["root"], recipe["documents"]
    if split not in SPLITS:
        raise ValueError(
            f"unknown split {split!r} of SemEval-2025 Task 4; choose one of: {', '.join(SPLITS)}"
        )
    if root is None:
        folds = _from_hub(split, recipe["revision"])
        configs, trained = {fold: first(rows, n) for fold, rows in folds.items()}, None
    else:
        configs = {fold: first(read(Path(root), split, fold), n) for fold in FOLDS}
        spare = first(_left_over(Path(root)), n) if split != "all" else []
        # members must be rows that the model was trained on: of a slice, its own
        own = split == "train" or n is not None
        trained = configs["forget"] if own else _found(Path(root), "train", "forget")
        configs |= {"holdout": spare} if spare else {}
    if recipe["mia"] is not None:
        configs |= {
            side: _mia(Path(recipe["mia"]) / f"{side}.jsonl") for side in ("member", "nonmember")
        }
    elif trained and "holdout" in configs:
        configs |= {"member": documents_of(trained), "nonmember": documents_of(configs["holdout"])}
    return Benchmark("semeval", "forget", configs, [], {"name": "semeval"} | recipe, PROMPT)


def mia_note(bench: Benchmark) -> str | None:
    """Return a note on where the documents of the MIA come from, or None if there are none."""
    if "member" not in bench.configs:
        return None
    if bench.source["name"] == "dossiers":
        return (
            "generated: members are the forget documents of Task3, non-members are similar "
            "documents that no model was trained on"
        )
    if bench.source.get("mia") is not None:
        return f"the files of {bench.source['mia']}"
    return (
        "stand-in, not comparable with the leaderboard: members are the forget documents of Task3 "
        "in the training split. Non-members are Task3 documents of LUME outside train and "
        "validation. The organisers' models may have been trained on those"
    )


# Files
# --------------------------------------------------------------------------------------------------


def read(root: Path, split: str, fold: str) -> list[Row]:
    """The rows of one fold of a split, from a folder.

    Errors: FileNotFoundError, ValueError, as `semeval` says.
    """
    root = root.expanduser()
    if rows := _found(root, split, fold):
        return rows
    if split != "all" and (rows := _found(root, "all", fold)):
        if fold == FOLDS[0]:
            print(f"{root} names no splits: its rows are taken for {split}", file=sys.stderr)
        return rows
    raise FileNotFoundError(
        f"{root} has no {fold} rows of {split}: looked for "
        f"{', '.join(map(str, _places(root, split, fold)))}, {fold}_{split}-*.parquet there and in "
        f"data/, and {fold}.jsonl; get the folder with `hf download {HUB} --repo-type dataset "
        f"--local-dir {root}`"
    )


def _places(root: Path, split: str, fold: str) -> list[Path]:
    inner = [Path()] if split == "all" else [Path("semeval2025") / split, Path(split)]
    return [root / folder / f"{fold}.jsonl" for folder in inner]


def _found(root: Path, split: str, fold: str) -> list[Row]:
    """The rows of a fold where the folder has them under the split's name, else none."""
    for place in _places(root, split, fold):
        if (path := sources.stored(place.with_suffix(""))) is not None:
            rows = _rows(sources.records(path), f"{path}")
            if not rows:
                raise ValueError(f"{path} holds no rows")
            return rows
    shards = [sorted(folder.glob(f"{fold}_{split}-*.parquet")) for folder in (root, root / "data")]
    found = [pair for path in shards[0] or shards[1] for pair in sources.records(path)]
    return _rows(found, f"{root}, {fold}_{split}")


def _rows(found: sources.Found, source: str) -> list[Row]:
    """The rows of a table; those with an empty text are left out and counted."""
    kept = sources.filled(found, sources.without("input", "output"), source)
    return [row_of(value, where) for where, value in kept]


def _left_over(root: Path) -> list[Row]:
    """The rows of all of LUME whose documents are in neither fold of train and validation.

    There are none where one of these lacks.
    """
    root = root.expanduser()
    parts = [_found(root, split, fold) for split in ("train", "validation") for fold in FOLDS]
    whole = [_found(root, "all", fold) for fold in FOLDS]
    if not all([*parts, *whole]):
        return []
    used = {document(row["id"]) for rows in parts for row in rows}
    return [row for rows in whole for row in rows if document(row["id"]) not in used]


def _from_hub(split: str, revision: str) -> dict[str, list[Row]]:
    if split == "all":
        raise ValueError(
            f"the hub's {HUB} has train and validation only: for all of LUME pass root=<its folder>"
        )
    folds, counts = {}, []
    for fold in FOLDS:
        found, source = sources.hub(HUB, "default", f"{fold}_{split}", revision), f"{fold}_{split}"
        counts.append(len(found))
        placed = [(f"{HUB}, {source}, row {i}", row) for i, row in enumerate(found, start=1)]
        folds[fold] = _rows(placed, f"{HUB}, {source}")
    *known, text = VERSIONS[split]
    if revision == REVISION and counts != known:
        raise ValueError(
            f"{HUB} has {counts[0]} + {counts[1]} rows of {split}, "
            f"the task {known[0]} + {known[1]}: the organisers changed it; "
            "pass revision=<an earlier commit>, or root=<a folder with the task's rows>"
        )
    if revision == REVISION and digest(folds) != text:
        warnings.warn(
            f"{HUB}: some texts of {split} are not those this loader was checked with", stacklevel=4
        )
    return folds


def digest(folds: dict[str, list[Row]]) -> str:
    """16 hex digits of the sha256 of the rows of both folds, in whatever order they come."""
    rows = sorted(
        [fold, row["id"], row["question"], row["answer"], row["task"]]
        for fold in FOLDS
        for row in folds[fold]
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _mia(path: Path) -> list[Row]:
    """Documents {id, document} as rows without a question."""
    found = sources.filled(sources.records(path), sources.without("document"), f"{path}")
    rows = [document_row(value, where) for where, value in found]
    if not rows:
        raise ValueError(f"{path} holds no documents")
    return rows
