"""TOFU: 200 fictitious authors × 20 questions (Maini et al. 2024, arXiv 2401.06121; MIT licence).

Rows come from the hub (`locuslab/TOFU`) or from a local folder in the hub's layout, by the same
`datasets.load_dataset` call. Real TOFU asks one question of two retained authors ("What is the full name of the
author?", rows 100 and 440 of full) and shares none between forget and retain, so the rule that these two never
ask the same holds on it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ngdiff.data import sources
from ngdiff.data.benchmark import Benchmark, Row, siblings
from ngdiff.profiles import Profile, profile

HUB = "locuslab/TOFU"
REVISION = "324592d84ae4f482ac7249b9285c2ecdb53e3a68"  # a commit of the hub's repository: rows never change
SPLITS = ("forget01", "forget05", "forget10")
FACTS = ("real_authors", "world_facts")


def tofu(
    P: str | Profile = "tiny",
    split: str | None = None,
    root: str | Path | None = None,
    revision: str = REVISION,
) -> Benchmark:
    """TOFU under one forget split.

    P         profile or its name: `tofu_split` is the split when none is named; of the retain rows only the
              first `tofu_retain` are kept (tiny: forget01 and 200 rows, those retain_perturbed starts with)
    split     forget01, forget05 or forget10
    root      a folder with the hub's files; None downloads them
    revision  branch, tag or commit on the hub; not used with a folder

    Pre-training rows are real_authors and world_facts. Raises ValueError for an unknown split or misaligned
    perturbed rows, FileNotFoundError naming the file that a folder lacks, ConnectionError when the hub cannot
    be reached.
    """
    P = profile(P)
    where = {"root": str(root), "revision": None} if root is not None else {"root": None, "revision": revision}
    return from_source({"split": split or P.tofu_split, "retain_rows": P.tofu_retain} | where)


def from_source(recipe: dict[str, Any]) -> Benchmark:
    """The benchmark of a recipe {"split", "retain_rows", "root", "revision"}."""
    split = recipe["split"]
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of TOFU; choose one of: {', '.join(SPLITS)}")
    retain, _ = siblings(split)
    configs = _read(_names(split), recipe["root"], recipe["revision"])
    for config in (retain, "retain_perturbed"):
        configs[config] = configs[config][: recipe["retain_rows"]]
    _check_aligned(configs, f"{split}_perturbed", split)
    _check_aligned(configs, "retain_perturbed", retain)
    known = [row for config in FACTS for row in configs[config]]
    pretrain = [{"question": row["question"], "answer": row["answer"]} for row in known]
    return Benchmark("tofu", split, configs, pretrain, {"name": "tofu"} | recipe)


def need_files(root: str | Path, split: str) -> None:
    """FileNotFoundError naming the first file that a split needs and the folder lacks."""
    _need(root, _names(split))


def _names(split: str) -> tuple[str, ...]:
    """The configs that a split needs."""
    return (
        split,
        *siblings(split),
        f"{split}_perturbed",
        "retain_perturbed",
        *FACTS,
        *(f"{f}_perturbed" for f in FACTS),
    )


def _need(root: str | Path, names: tuple[str, ...]) -> None:
    for file in ("README.md", *(f"{name}.json" for name in names)):
        if not (Path(root) / file).is_file():
            raise FileNotFoundError(
                f"{Path(root) / file} is missing; get the folder with `hf download {HUB} --repo-type dataset "
                f"--revision {REVISION} --local-dir {root}`, or leave root out to use the hub"
            )


def _read(names: tuple[str, ...], root: str | None, revision: str | None) -> dict[str, list[Row]]:
    """Config name -> rows, from the hub's cache or download (root None) or from a folder."""
    if root is None:
        return {name: sources.hub(HUB, name, "train", revision) for name in names}
    _need(root, names)
    # a temporary cache: nothing is written beside the rows, and no stale copy of them is ever read
    with tempfile.TemporaryDirectory() as cache:
        return {name: _from_folder(Path(root).resolve(), name, cache) for name in names}


def _from_folder(root: Path, name: str, cache: str) -> list[Row]:
    try:
        return sources.dataset(str(root), name, cache_dir=cache)
    except ValueError as error:  # the config is not in the folder's README.md
        raise ValueError(f"cannot read config {name!r}, {name}.json with README.md in {root}: {error}") from error


def _check_aligned(configs: dict[str, list[Row]], perturbed: str, plain: str) -> None:
    """The k-th perturbed row asks what the k-th plain row asks, as far as the shorter of the two goes."""
    for i, (p, row) in enumerate(zip(configs[perturbed], configs[plain], strict=False)):
        if (p["question"], p["answer"]) != (row["question"], row["answer"]):
            raise ValueError(
                f"tofu: row {i} of {perturbed} asks {p['question']!r}, but row {i} of {plain} asks "
                f"{row['question']!r}; the files are of different versions, get them again together"
            )
