"""Captions and titles, computed from the rows that a figure shows and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ngdiff.evaluation.suites import SUITES, TOFU

Row = Mapping[str, Any]
MADE = {suite.stand_in: f"generated {suite.stand_in}" for suite in SUITES}
REAL = {f"{suite.name} rows": f"{suite.title}'s rows" for suite in SUITES}
RUN, MODEL, COMPARISON, PUBLISHED = "run", "model", "comparison", "published point"


def kind(row: Row) -> str:
    """Return what a row is about: a run, a model, a comparison, a published point, or "".

    "" is a row of the theory, which says itself how it was made.
    """
    if "source" in row and "stamp" not in row:
        return PUBLISHED
    if "both_n" in row:
        return COMPARISON
    if row.keys() & {"stopped", "lr"}:
        return RUN
    return MODEL if "model" in row else ""


def caption(rows: Iterable[Row]) -> str:
    """Return what a figure shows: profile, data, how many runs, seeds, device.

    Seeds are those of the order and of the models; a part that no row holds is left out. Rows of
    the theory have a field `made`, which the caption repeats.
    """
    rows = list(rows)
    made = list(dict.fromkeys(row["made"] for row in rows if row.get("made")))
    stamped = [row for row in rows if row.get("stamp") and kind(row)]
    profiles = [f"Profile {', '.join(_all(stamped, 'profile'))}"] if stamped else []
    named = ", ".join(filter(None, [*profiles, *data_of(stamped)]))
    devices = ", ".join(sorted({row["stamp"]["device"] for row in stamped}))
    parts = [*made, named, _counts(rows), _seeds(stamped), devices]
    return "; ".join(filter(None, parts)) + "." if rows else ""


def title(rows: Iterable[Row], what: str = RUN) -> str:
    """Return a title for some runs: their data, how many there are, how many orders and models.

    what: the noun that is counted.
    """
    rows = list(rows)
    orders, models = (len({row.get(key) for row in rows}) for key in ("seed", "target_seed"))
    parts = [number(len(rows), what), number(orders, "order of the rows", "orders of the rows")]
    parts += [number(models, MODEL)] if models > 1 else []
    return ": ".join(filter(None, [", ".join(data_of(rows)), ", ".join(parts)]))


def number(n: int, noun: str, plural: str = "") -> str:
    """Return "1 run", "2 runs"."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def data_of(rows: Iterable[Row]) -> list[str]:
    """Return the data of some rows as captions name them, sorted; rows without any are left out."""
    return sorted({name for row in rows if (name := _data(row))})


def _data(row: Row) -> str:
    config = row.get("stamp", {}).get("config", {})
    if not (config or row.keys() & {"benchmark", "data"}):
        return ""
    known = {**config, **row}
    name = str(known.get("benchmark") or known.get("data") or TOFU.stand_in)
    return {**MADE, **REAL}.get(name) or MADE.get(name.partition("-")[0], name)


def _all(rows: Sequence[Row], key: str) -> list[Any]:
    """Return the values that rows or their stamps have for a key, sorted, each once."""
    every = ({**r["stamp"], **r["stamp"]["config"], **r}.get(key) for r in rows)
    return sorted({found for found in every if found is not None})


def _counts(rows: Sequence[Row]) -> str:
    """Return how many runs, models, comparisons and published points there are."""
    kinds = [kind(row) for row in rows]
    said = []
    for noun in (RUN, COMPARISON, MODEL, PUBLISHED):
        text = number(kinds.count(noun), noun) if noun in kinds else ""
        if noun == COMPARISON and text:
            pairs = sorted({row["n"] for row in rows if kind(row) == COMPARISON})
            ends = " to ".join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))
            text += f" of {ends} {'pair' if pairs == [1] else 'pairs'} of runs"
        said += [text] if text else []
    return " and ".join(filter(None, [", ".join(said[:-1]), *said[-1:]]))


def _seeds(rows: Sequence[Row]) -> str:
    """Return the seeds of the order and of the models, those that rows hold."""
    found = {"order": _all(rows, "seed"), "models": _all(rows, "target_seed")}
    said = [f"{', '.join(map(str, seeds))} of the {what}" for what, seeds in found.items() if seeds]
    count = sum(map(len, found.values()))
    return f"seed{'s' * (count > 1)} {', '.join(said)}" if said else ""
