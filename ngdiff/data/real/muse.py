"""MUSE: long documents to forget, and four measures of whether they are forgotten.

Reference: Shi et al. 2024, arXiv 2407.06460.

Rows come from the hub (`muse-bench/MUSE-News`, BBC articles, CC BY 4.0; `muse-bench/MUSE-Books`) or
from a local folder ROOT/<config>/<split>, as json or jsonl (objects, or bare strings for
documents), txt (the file is one document), parquet, csv, … (`ngdiff.data.sources.stored`).

    config of the Benchmark           MUSE's                             row
    forget, retain, holdout           raw: forget, retain1, holdout      a document
    verbmem                           verbmem: forget                    prompt, gt
    knowmem_{f,r}, knowmem_{f,r}_icl  knowmem: {forget,retain}_qa(_icl)  question, answer
    privleak_{forget,retain,holdout}  privleak: the same                 a document

A document is a row without a question, the text is its answer; of verbmem the prompt is the
question and gt the answer.

`retain1` is the calibrator of unlearning; `retain2`, which knowmem_r asks about, and `train`, all
that the published targets were trained on, are not read. Documents may be longer than a model's
context: `cut`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ngdiff.data import sources
from ngdiff.data.benchmark import Benchmark, Row, _check_rows
from ngdiff.profiles import Profile, profile
from ngdiff.store.textfile import text_of

HUB = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}
# a branch, not a commit: we know none of this data set, so its rows may change under this name
REVISION = "main"
PARTS = {
    "forget": ("raw", "forget"),
    "retain": ("raw", "retain1"),
    "holdout": ("raw", "holdout"),
    "verbmem": ("verbmem", "forget"),
    "knowmem_f": ("knowmem", "forget_qa"),
    "knowmem_f_icl": ("knowmem", "forget_qa_icl"),
    "knowmem_r": ("knowmem", "retain_qa"),
    "knowmem_r_icl": ("knowmem", "retain_qa_icl"),
    "privleak_forget": ("privleak", "forget"),
    "privleak_retain": ("privleak", "retain"),
    "privleak_holdout": ("privleak", "holdout"),
}
# of a row; all others have "text"
KEYS = {"verbmem": ("prompt", "gt"), "knowmem": ("question", "answer")}
REQUESTS = ("scal", "sust")
# Min-40 %, forget against holdout, of the retrained models: muse_bench, constants.py, AUC_RETRAIN
A_RET = {"news": 0.4772, "books": 0.5393}
A_RET_DOCUMENTS = 100  # of each side: with as many an AUC is a multiple of 1e-4
DOCUMENTS = ("forget", "retain", "holdout")  # what `cut` cuts
KINDS = (".txt", *sources.KINDS)

Fold = tuple[str, int]


class Parts(Benchmark):
    """Whatever parts of MUSE a folder has, for an evaluation.

    Without documents to forget and to retain, nothing can be unlearned (KeyError naming the
    config).
    """

    def __post_init__(self) -> None:
        for config, rows in self.configs.items():
            _check_rows(f"{self.name}: {config}", rows, ("question", "answer"), perturbed=False)


def muse(
    P: str | Profile = "tiny",
    corpus: str = "news",
    root: str | Path | None = None,
    fold: Fold | None = None,
    revision: str = REVISION,
) -> Benchmark:
    """MUSE-News or MUSE-Books.

    P         profile or its name: of the retained documents only the first `retain_rows` are kept
              (paper: all)
    corpus    "news" or "books"
    root      a folder with the files; None downloads them. Parts that a folder lacks are left out;
              one without documents to forget or to retain gives a benchmark that can be evaluated
              only
    fold      ("sust", k): forget the k-th of four successive requests; ("scal", k): the k-th of
              four growing sets. News only
    revision  branch, tag or commit on the hub; not used with a folder. The default is the branch
              "main", not a fixed commit

    A retained document that is also to be forgotten is left out of the retained ones. Raises
    ValueError for an unknown corpus or fold, ValueError with file and row for a row without its
    texts, FileNotFoundError for a folder in which nothing is found, ConnectionError when the hub
    cannot be reached.
    """
    where = (
        {"root": str(root), "revision": None}
        if root is not None
        else {"root": None, "revision": revision}
    )
    retain = profile(P).retain_rows
    return from_source(
        {"corpus": corpus, "fold": list(fold) if fold else None, "retain_rows": retain} | where
    )


def from_source(recipe: dict[str, Any]) -> Benchmark:
    """The benchmark of a recipe {"corpus", "fold", "retain_rows", "root", "revision"}."""
    corpus, fold = recipe["corpus"], recipe["fold"]
    if corpus not in HUB:
        raise ValueError(f"unknown corpus {corpus!r} of MUSE; choose one of: {', '.join(HUB)}")
    places = PARTS | ({"forget": request(*fold)} if fold else {})
    if recipe["root"] is not None:
        tables = _from_folder(Path(recipe["root"]).expanduser(), places)
    elif fold and corpus != "news":
        raise ValueError(
            f"fold={tuple(fold)}: only MUSE-News has folds; leave it out for MUSE-Books"
        )
    else:
        tables = {
            name: _from_hub(HUB[corpus], *place, recipe["revision"])
            for name, place in places.items()
        }
    if fold and "forget" not in tables:
        raise FileNotFoundError(
            f"{recipe['root']} has no {'/'.join(places['forget'])} ({', '.join(KINDS)}): fold "
            f"{tuple(fold)}"
        )
    return assemble(tables, {"name": "muse"} | recipe, recipe["retain_rows"])


def published_a_ret(bench: Benchmark) -> float | None:
    """Return the published A_ret of a benchmark's privleak documents, None where there is none.

    It is known of each corpus as a whole. It is not known of folds and of documents of one's own,
    which are recognised by their number.
    """
    sides = [len(bench.configs.get(f"privleak_{side}", ())) for side in ("forget", "holdout")]
    if bench.source.get("fold") or sides != [A_RET_DOCUMENTS] * 2:
        return None
    return A_RET.get(bench.source.get("corpus", ""))


def request(kind: str, k: int) -> tuple[str, str]:
    """Return where the forget set of a fold lies: ("sust", 2) -> ("sust", "forget_2").

    ValueError for another fold.
    """
    if kind not in REQUESTS or k not in (1, 2, 3, 4):
        raise ValueError(f"fold=({kind!r}, {k}): a fold is ('scal' or 'sust', 1 to 4)")
    return kind, f"forget_{k}"


def assemble(
    tables: Mapping[str, list[Row]], source: dict[str, Any], retain_rows: int | None = None
) -> Benchmark:
    """The benchmark of the tables there are, named as in PARTS."""
    if "cut" in source:
        raise ValueError(
            f"this benchmark was cut to {source['cut']} tokens: load it without, and cut it with "
            "the tokenizer"
        )
    configs = dict(tables)
    gone = {row["answer"] for row in configs.get("forget", ())}
    if "retain" in configs:
        configs["retain"] = [row for row in configs["retain"] if row["answer"] not in gone][
            :retain_rows
        ]
    kind = Benchmark if configs.get("forget") and configs.get("retain") else Parts
    return kind("muse", "forget", configs, [], source)


def cut(bench: Benchmark, tokenizer: Any, length: int) -> Benchmark:
    """The same benchmark with its documents in pieces of at most `length` tokens.

    Special tokens and EOS are counted.

    The pieces of a document joined give it back, character by character. Only forget, retain and
    holdout are cut: verbmem, knowmem and privleak are evaluated as they are. A retained piece that
    is also to be forgotten is left out. Needs a fast tokenizer (ValueError), and a length that
    holds a character (ValueError naming config and row).
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} does not say where tokens begin: take the fast tokenizer"
        )
    configs = dict(bench.configs)
    for name in DOCUMENTS:
        if name in configs:
            configs[name] = [
                {"question": "", "answer": piece}
                for i, row in enumerate(configs[name])
                for piece in _pieces(
                    tokenizer, row["answer"], length, f"{bench.name}: {name}, row {i}"
                )
            ]
    gone = {row["answer"] for row in configs.get("forget", ())}
    if "retain" in configs:
        configs["retain"] = [row for row in configs["retain"] if row["answer"] not in gone]
    return replace(bench, configs=configs, source=bench.source | {"cut": length})


def _pieces(tokenizer: Any, text: str, length: int, where: str) -> Iterator[str]:
    def size(piece: str) -> int:  # as `tokens.encode` counts
        ids = tokenizer(piece, verbose=False)["input_ids"]
        return len(ids) + (ids[-1:] != [tokenizer.eos_token_id])

    if size(text) <= length:
        yield text
        return
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]
    # where a piece may begin, and the tokens before that; several tokens may make one character
    starts, before = ([0], [0])
    for i, (start, _) in enumerate(spans):
        if start > starts[-1]:
            starts.append(start)
            before.append(i)
    starts, before = [*starts, len(text)], [*before, len(spans)]
    filled, k = len(text.rstrip()), 0
    while k < len(starts) - 1:
        most = before[k] + length
        # a piece may have more tokens by itself than in its document, and none may be blank
        while True:
            end = bisect_right(before, most) - 1
            piece = text[starts[k] : starts[max(end, k)]]
            if not piece.strip():
                raise ValueError(
                    f"{where}: no piece of at most {length} tokens begins at character {starts[k]}"
                )
            over = size(piece) - length
            if over <= 0 and (starts[end] < filled or end == len(starts) - 1):
                break
            most = min(most, before[end]) - max(1, over)
        yield piece
        k = end


def _from_hub(repository: str, config: str, split: str, revision: str | None) -> list[Row]:
    rows = sources.hub(repository, config, split, revision)
    source = f"{repository} {config}/{split}"
    return _rows(config, [(f"{source}, row {i}", row) for i, row in enumerate(rows)], source)


def _from_folder(root: Path, places: Mapping[str, tuple[str, str]]) -> dict[str, list[Row]]:
    tables = {}
    for name, (config, split) in places.items():
        place = root / config / split
        text = place.with_suffix(".txt")
        path = sources.stored(place) or (text if text.is_file() else None)
        if paths := [path] if path else sorted((root / config).glob(f"{split}-*.parquet")):
            found = [pair for path in paths for pair in _values(path)]
            tables[name] = _rows(config, found, f"{root / config / split}")
            if not tables[name]:
                raise ValueError(f"{paths[0]} has no row: get the file again, or leave it out")
    if not tables:
        looked = ", ".join("/".join(place) for place in places.values())
        raise FileNotFoundError(
            f"no part of MUSE in {root}: looked for {looked}, each as {', '.join(KINDS)}; "
            f"get the folder with `hf download {HUB['news']} --repo-type dataset --local-dir "
            f"{root}`, or leave root out to use the hub"
        )
    return tables


def _values(path: Path) -> sources.Found:
    """Return where each value of a file stands, and the value."""
    if path.suffix == ".txt":
        return [(f"{path}", text_of(path))]
    found = sources.records(path)
    return [(f"{where} (element {i})", value) for i, (where, value) in enumerate(found)]


def _rows(config: str, found: sources.Found, source: str) -> list[Row]:
    """The rows of a table; those with an empty text are left out and counted."""
    kept = sources.filled(found, sources.without(*KEYS.get(config, ("text",))), source)
    return [row_of(config, value, where) for where, value in kept]


def row_of(config: str, value: Any, where: str) -> Row:
    """{"question", "answer"} of a value. ValueError that begins with `where`."""
    keys = KEYS.get(config, ("text",))
    if keys == ("text",) and isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        raise ValueError(
            f"{where}: no object but {type(value).__name__}; a row of {config} has "
            f"{', '.join(keys)}"
        )
    texts = [sources.text(value, key, where, f"; a row needs {', '.join(keys)}") for key in keys]
    return {"question": texts[0] if len(texts) == 2 else "", "answer": texts[-1]}
