"""Rows that do not fit the model: too long for its context, or with tokens that it does not know.

All of them are found before anything starts, and named together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ngdiff.data.benchmark import Benchmark
from ngdiff.lm.model import LM
from ngdiff.lm.tokens import at_most, may_exceed
from ngdiff.lm.vocabulary import beyond
from ngdiff.store.progress import Progress, Say, to_stderr

CHUNK = 2000  # rows that are tokenised together
SHOWN = 3  # rows that a message names

# set, number of the row there, its tokens, whether some of its answer fits
Odd = tuple[str, int, int, bool]


def fitted(bench: Benchmark, lm: LM, long: str, say: Say = to_stderr) -> Benchmark:
    """Return the rows that the model is given.

    long    what is done with rows longer than its context: "truncate" has `lm` cut their end off,
            "skip" leaves them out. Both are said with the number of rows.

    Errors: ValueError with the number of rows and the places of the first few for rows that are too
    long, where `long` is "", or whose question alone is, where they should be cut; and for rows
    with a token beyond the model's embedding.
    """
    lm.cut = long == "truncate"
    _known(bench, lm)
    found = list(_too_long(bench, lm))
    if not found:
        return bench
    many = f"{_many(found)} longer than the model's context of {lm.context} tokens: "
    many += _named(bench, found)
    if not long:
        raise ValueError(
            f"{many}. Give --long truncate to cut them, --long skip to leave them out, or take a "
            "model with a longer context"
        )
    if lm.cut:
        if bare := [one for one in found if not one[3]]:
            raise ValueError(
                f"{_many(bare)} so long before the answer that nothing is left of it when they are "
                f"cut: {_named(bench, bare)}. Shorten them, or give --long skip"
            )
        say(f"warning: {many}: their end is cut off")
        return bench
    say(f"warning: {many}: they are left out")
    out = {(name, i) for name, i, _, _ in found}
    configs, places = {}, {}
    for name, rows in bench.configs.items():
        kept = [i for i in range(len(rows)) if (name, i) not in out]
        if not kept:
            raise ValueError(f"no {name} row is left: each is longer than the model's context")
        configs[name] = [rows[i] for i in kept]
        if name in bench.places:
            places[name] = [bench.places[name][i] for i in kept]
    return replace(bench, configs=configs, places=places)


def _too_long(bench: Benchmark, lm: LM) -> Iterator[Odd]:
    whole, context = replace(lm, limit=0), lm.context or 0  # the former refuses nothing
    for name, rows in bench.configs.items():
        texts = [lm.text(row["question"], row["answer"]) for row in rows]
        doubtful = [i for i, text in enumerate(texts) if may_exceed(text, lm.context)]
        with Progress(f"{name} rows measured", len(doubtful), last=False) as bar:
            for start in range(0, len(doubtful), CHUNK):
                chunk = doubtful[start : start + CHUNK]
                sizes = at_most(lm.tokenizer, [texts[i] for i in chunk])
                for i in (i for i, size in zip(chunk, sizes, strict=True) if size > context):
                    example = whole.encode(rows[i]["question"], rows[i]["answer"])
                    if len(example) > context:
                        yield name, i, len(example), len(example.prompt_ids) < context
                bar(start + len(chunk))


def _known(bench: Benchmark, lm: LM) -> None:
    """Error: ValueError for rows with a token that the model has no row of its embedding for."""
    unknown = beyond(lm.model, lm.tokenizer)
    if not unknown:
        return
    found: list[Odd] = []
    embedding: Any = lm.model.get_input_embeddings()
    rows_known = embedding.weight.shape[0]
    for name, rows in bench.configs.items():
        for i, row in enumerate(rows):
            if any(token in row["question"] + row["answer"] for token in unknown):
                text = lm.text(row["question"], row["answer"])
                ids = list(lm.tokenizer(text, verbose=False)["input_ids"])
                if max(ids) >= rows_known:
                    found.append((name, i, len(ids), True))
    if found:
        raise ValueError(
            f"{_many(found, 'has', 'have')} a token that the model does not know "
            f"({', '.join(map(repr, unknown[:SHOWN]))}; it knows {rows_known}): "
            f"{_named(bench, found, False)}. Take them out, or give the tokenizer that the model "
            "was trained with (--tokenizer)"
        )


def _many(found: Sequence[Odd], one: str = "is", several: str = "are") -> str:
    return f"{len(found)} row {one}" if len(found) == 1 else f"{len(found)} rows {several}"


def _named(bench: Benchmark, found: Sequence[Odd], sizes: bool = True) -> str:
    """Return the places of the first rows, with their tokens, and how many more there are."""
    named = [
        _place(bench, name, i) + (f" ({size} tokens)" if sizes else "")
        for name, i, size, _ in found[:SHOWN]
    ]
    more = len(found) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more else "")


def _place(bench: Benchmark, name: str, i: int) -> str:
    where = bench.places.get(name)
    return where[i] if where else f"{name} row {i}"
