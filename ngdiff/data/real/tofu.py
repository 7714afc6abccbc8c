"""TOFU: 200 fictitious authors × 20 questions (Maini et al. 2024, arXiv 2401.06121; MIT licence).

Rows come from the hub (`locuslab/TOFU`) through `datasets`, or from a local folder with the hub's
files (or the same rows as jsonl, parquet, …: `ngdiff.data.sources.stored`). Forget and retain rows
never have the same question, and this holds on real TOFU. One question is about two authors, but
both are retained ("What is the full name of the author?", rows 100 and 440 of full).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ngdiff.data import sources
from ngdiff.data.benchmark import Benchmark, Row, siblings
from ngdiff.profiles import Profile, profile

HUB = "locuslab/TOFU"
# a commit of the hub's repository: rows never change
REVISION = "324592d84ae4f482ac7249b9285c2ecdb53e3a68"
SPLITS = ("forget01", "forget05", "forget10")
FACTS = ("real_authors", "world_facts")


def tofu(
    P: str | Profile = "tiny",
    split: str | None = None,
    root: str | Path | None = None,
    revision: str = REVISION,
) -> Benchmark:
    """TOFU under one forget split.

    P         profile or its name: `tofu_split` is the split when none is named; of the retain rows
              only the first `retain_rows` are kept (tiny: forget01 and 200 rows, those
              retain_perturbed starts with)
    split     forget01, forget05 or forget10
    root      a folder with the hub's files; None downloads them
    revision  branch, tag or commit on the hub; not used with a folder

    Pre-training rows are real_authors and world_facts. Raises ValueError for an unknown split or
    misaligned perturbed rows, FileNotFoundError naming the file that a folder lacks,
    ConnectionError when the hub cannot be reached.
    """
    P = profile(P)
    where = (
        {"root": str(root), "revision": None}
        if root is not None
        else {"root": None, "revision": revision}
    )
    return from_source({"split": split or P.tofu_split, "retain_rows": P.retain_rows} | where)


def from_source(recipe: dict[str, Any]) -> Benchmark:
    """The benchmark of a recipe {"split", "retain_rows", "root", "revision"}.

    With "asked" it is only the rows to evaluate.
    """
    split, asked = recipe["split"], recipe.get("asked", False)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of TOFU; choose one of: {', '.join(SPLITS)}")
    retain, _ = siblings(split)
    configs = _read(
        _names(split), recipe["root"], recipe["revision"], _perturbed(split) if asked else ()
    )
    if asked:  # the rows to train on are those that are asked
        for plain, perturbed in ((split, f"{split}_perturbed"), (retain, "retain_perturbed")):
            configs.setdefault(
                plain, [{k: row[k] for k in ("question", "answer")} for row in configs[perturbed]]
            )
    for config in (retain, "retain_perturbed"):
        configs[config] = configs[config][: recipe["retain_rows"]]
    if len(configs[split]) != len(configs[f"{split}_perturbed"]):
        n, m = len(configs[split]), len(configs[f"{split}_perturbed"])
        raise ValueError(
            f"tofu: {split} has {n} rows, {split}_perturbed {m}: get the files again, of one "
            "version"
        )
    _check_aligned(configs, f"{split}_perturbed", split)
    _check_aligned(configs, "retain_perturbed", retain)
    known = [row for config in FACTS for row in configs.get(config, [])]
    pretrain = [{"question": row["question"], "answer": row["answer"]} for row in known]
    return Benchmark("tofu", split, configs, pretrain, {"name": "tofu"} | recipe)


def asked(split: str, root: str | Path) -> Benchmark:
    """Return the rows that an evaluation reads from a folder: its *_perturbed files.

    Whatever else of the benchmark the folder lacks is left out.

    Where the split's own file or the retained rows are not there, the perturbed rows stand in for
    them.
    """
    return from_source(
        {"split": split, "retain_rows": None, "root": str(root), "revision": None, "asked": True}
    )


def need_files(root: str | Path, split: str) -> None:
    """FileNotFoundError naming the first file that a split needs and the folder lacks."""
    for name in _names(split):
        if sources.stored(Path(root) / name) is None:
            raise FileNotFoundError(
                f"{Path(root) / name}.json is missing; get the folder with `hf download {HUB} "
                f"--repo-type dataset --revision {REVISION} --local-dir {root}`, "
                "or leave root out to use the hub"
            )


def _names(split: str) -> tuple[str, ...]:
    """The configs that a split needs."""
    return (split, *siblings(split), *FACTS, *_perturbed(split))


def _perturbed(split: str) -> tuple[str, ...]:
    return (f"{split}_perturbed", "retain_perturbed", *(f"{f}_perturbed" for f in FACTS))


def _read(
    names: tuple[str, ...], root: str | None, revision: str | None, least: tuple[str, ...] = ()
) -> dict[str, list[Row]]:
    """Config name -> rows, from the hub (root None) or from a folder.

    least: what must be in it, () = all.
    """
    if root is None:
        return {name: _from_hub(name, revision) for name in names}
    folder = Path(root)
    for name in least[:2]:
        if sources.stored(folder / name) is None:
            raise FileNotFoundError(
                f"{folder / name}.json is missing: an evaluation needs TOFU's perturbed rows"
            )
    if not least:
        need_files(root, names[0])
    return {
        name: _rows(path) for name in names if (path := sources.stored(folder / name)) is not None
    }


def _from_hub(name: str, revision: str | None) -> list[Row]:
    rows, source = sources.hub(HUB, name, "train", revision), f"{HUB} {name}"
    found = _filled([(f"{source}, row {i}", row) for i, row in enumerate(rows)], source)
    return [value for _, value in found]


def _filled(found: sources.Found, source: str) -> sources.Found:
    """The rows; those without a question or an answer are left out and counted."""
    return sources.filled(found, sources.without("question", "answer"), source)


def _rows(path: Path) -> list[Row]:
    found = _filled(sources.records(path), f"{path}")
    for where, value in found:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: no row but {type(value).__name__}: TOFU's rows are objects")
        for key in (
            "question",
            "answer",
            *(["paraphrased_answer"] if "paraphrased_answer" in value else []),
        ):
            sources.text(value, key, where)
        for i, other in enumerate(value.get("perturbed_answer") or ()):
            sources.text(
                {"perturbed_answer": other}, "perturbed_answer", f"{where}, wrong answer {i}"
            )
    if not found:
        raise ValueError(f"{path} has no row: get the file again")
    return [value for _, value in found]


def _check_aligned(configs: dict[str, list[Row]], perturbed: str, plain: str) -> None:
    """Check that the k-th perturbed and the k-th plain row agree, where both exist."""
    for i, (p, row) in enumerate(zip(configs[perturbed], configs[plain], strict=False)):
        if (p["question"], p["answer"]) != (row["question"], row["answer"]):
            key = "question" if p["question"] != row["question"] else "answer"
            raise ValueError(
                f"tofu: row {i} has the {key} {p[key]!r} in {perturbed}, but {row[key]!r} in "
                f"{plain}; the files are of different versions, get them again together"
            )
