"""How a method's retain weight and constant rate are chosen.

Tuning runs are matched runs on a seed that is not reported. A method whose two losses carry fixed
weights has a candidate for each retain weight (`ngdiff.methods.recipes.candidates`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ngdiff.methods.definition import Method
from ngdiff.methods.recipes import candidates, family
from ngdiff.study.intervals import Row
from ngdiff.study.trial import Trial

LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # the constant rates there are
RATES = LADDER[2:5]  # those that tuning starts with
TUNING_SEED = 100
Methods = Iterable[str | Method]
Chosen = dict[str, tuple[str, float]]  # method -> its candidate and rate


def tuning(methods: Methods, rates: Sequence[float] = RATES, **settings: Any) -> list[Trial]:
    """One matched trial a candidate and rate, on the tuning seed."""
    keys = [key for m in methods for key in (candidates(m) if isinstance(m, str) else (m,))]
    return [Trial(key, "constant", lr, TUNING_SEED, **settings) for key in keys for lr in rates]


def extended(
    wanted: Sequence[Trial], rows_of: Callable[[list[Trial]], list[Row]], **settings: Any
) -> list[Row]:
    """Return the rows of tuning runs, and of those that `further` asks for after them.

    rows_of: trials -> their rows, or [] where they are not to be had; then [] is returned.
    """
    wanted = list(wanted)
    rows = rows_of(wanted)
    while rows and (more := further(rows, **settings)):
        wanted += more
        rows = rows_of(wanted)
    return rows


def further(rows: Sequence[Row], **settings: Any) -> list[Trial]:
    """Return tuning runs that are still missing: the next rate where the best is the last one.

    So no tuned rate is an end of what was tried, unless `LADDER` has none beyond it. rows: of the
    tuning runs so far, whose rates need not be on it. settings: of a `Trial`, as those runs had
    them.
    """
    missing = []
    for key, lr in tuned(rows).values():
        tried = {r["lr"] for r in rows if r["method"] == key}
        below = [rate for rate in LADDER if rate < lr][-1:] if lr == min(tried) else []
        above = [rate for rate in LADDER if rate > lr][:1] if lr == max(tried) else []
        missing += [Trial(key, "constant", r, TUNING_SEED, **settings) for r in (*below, *above)]
    return missing


def tuned(rows: Iterable[Row], only_reached: bool = True) -> Chosen:
    """method → its best candidate and rate: those of the run with the highest score.

    A method whose retain weight is tuned has a candidate for each weight (`recipes.candidates`). On
    a tie the smaller rate is taken, and then the smaller weight. Only runs that reached the
    hold-out level count; where none did, all count. A run that stops short forgot less than the
    others, so it does not compare. only_reached=False counts all runs.
    """
    best: dict[str, tuple[tuple[bool, float], tuple[str, float]]] = {}
    rows = list(rows)
    for row in sorted(rows, key=lambda r: (r["lr"], r["method"])):
        rank = (only_reached and row["stopped"] == "forget_level", row["score"])
        if (name := family(row["method"])) not in best or rank > best[name][0]:
            best[name] = rank, (row["method"], row["lr"])
    names = dict.fromkeys(family(row["method"]) for row in rows)  # in the order of the rows
    return {name: best[name][1] for name in names}
