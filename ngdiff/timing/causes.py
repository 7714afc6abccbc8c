"""What makes κ = ‖g_F‖/‖g_R‖ large: one factor of a benchmark changed at a time.

Both sets are known equally well at the start, so κ is about 1 there, on every benchmark. It grows
on the way, as F rises and R does not. So each case trains a start, runs NGDiff + AutoLR on the
tuning seed until the hold-out level, and notes κ and ρ along the run. No method is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ngdiff.data.benchmark import Benchmark, siblings
from ngdiff.evaluation.spelling import which
from ngdiff.profiles import Profile, profile
from ngdiff.store.cache import probe_file
from ngdiff.store.rows import write_rows
from ngdiff.store.table import Column, Table
from ngdiff.study import geometry, trials
from ngdiff.study.trial import Trial
from ngdiff.study.tuning import TUNING_SEED

Row = dict[str, Any]


@dataclass(frozen=True)
class Cause:
    """One case: the factor, its value, and the profile and rows that have it."""

    factor: str
    value: str
    profile: Profile
    bench: Benchmark


def joined(bench: Benchmark, many: int) -> Benchmark:
    """Return the benchmark with the answers of `many` rows in a row joined to one.

    The question is the first row's. Only rows to train on and to evaluate as such are joined, so
    that real authors and world facts stay.
    """
    retain, holdout = siblings(bench.split)
    own = (bench.split, retain, holdout, f"{bench.split}_perturbed", "retain_perturbed")
    return replace(
        bench,
        configs={
            name: _join(rows, many) if name in own else rows for name, rows in bench.configs.items()
        },
        source=bench.source | {"joined": many},
    )


def _join(rows: list[Row], many: int) -> list[Row]:
    found = []
    for first in range(0, len(rows) - many + 1, many):
        group = rows[first : first + many]
        row = dict(group[0])
        for key in ("answer", "paraphrased_answer"):
            if key in row:
                row[key] = " ".join(one[key] for one in group)
        if "perturbed_answer" in row:
            wrong = zip(*(one["perturbed_answer"] for one in group), strict=True)
            row["perturbed_answer"] = [" ".join(parts) for parts in wrong]
        found.append(row)
    return found


def causes(tofu: str = "", lume: str = "") -> list[Cause]:
    """Return the cases: retain rows, length of the answers, size of a batch; then real rows.

    tofu, lume: folders of the real rows; a folder that is not given leaves its case out.
    """
    P = profile("tiny")
    plain, every = (which(name).bench(P) for name in ("authors", "authors-all"))
    found = []
    for n in (100, 200, 400):
        sized = replace(P, retain_rows=n)
        found.append(Cause("retain rows", str(n), sized, which("authors").bench(sized)))
    found.append(Cause("retain rows", str(len(every.retain)), P, every))
    found.append(Cause("answers joined", "3, of 600 retain rows", P, joined(_part(every, 600), 3)))
    found.append(Cause("rows of a batch", "96", replace(P, batch_size=96), every))
    for name, place in (("TOFU's", tofu), ("LUME's", lume and f"semeval:{lume}")):
        if place:
            found.append(Cause("rows", name, P, which(place).bench(P)))
    return [*found, Cause("rows", "generated authors", P, plain)]


def _part(bench: Benchmark, n: int) -> Benchmark:
    retain, _ = siblings(bench.split)
    return replace(bench, configs={**bench.configs, retain: bench.retain[:n]})


def measure(cause: Cause) -> Row:
    """Return κ, ρ and the shares inside Eq. 7 along the run, and the levels of the start."""
    trial = Trial("ngdiff", "autolr", 1e-3, TUNING_SEED, profile=cause.profile, data=cause.bench)
    row, steps = trials.run(trial), trials.history(trial)
    start, reference = trials.levels(cause.profile, "", cause.bench, 0)
    first = steps[0]
    return {
        "factor": cause.factor,
        "value": cause.value,
        "retain_rows": len(cause.bench.retain),
        "forget_rows": len(cause.bench.forget),
        "batch": cause.profile.batch_size,
        "level": start["loss_holdout"],
        "reference_forget": reference.get("loss_forget"),
        "kappa_start": first["norm_F"] / first["norm_R"],
        "rho_start": first["cosine"],
        **geometry.summary(steps),
        "retain_last": steps[-1]["retain_ce"],
        "updates": row["updates"],
        "stopped": row["stopped"],
        "stamp": row["stamp"],
    }


COLUMNS = (
    Column("factor", "what is changed"),
    Column("value", "to"),
    Column("retain_rows", "retain rows", "d", "right"),
    Column("level", "hold-out level", ".2f", "right"),
    Column("kappa_start", "κ, first step", ".2g", "right"),
    Column("kappa_50", "κ, median", ".3g", "right"),
    Column("rho_50", "ρ, median", ".2f", "right"),
    Column("inside_0.5", "inside Eq. 7: c = .5", ".0%", "right"),
    Column("inside_0.9", "c = .9", ".0%", "right"),
    Column("retain_last", "R at the end", ".3f", "right"),
)


def table(
    save: Path | None = None, tofu: str = "", lume: str = "", say: Callable[[str], None] = print
) -> list[Row]:
    """Run `ngdiff bench ratio`, save its rows as they come, and print them."""
    if save is not None:
        probe_file(save)
    rows: list[Row] = []
    for cause in causes(tofu, lume):
        say(f"{cause.factor}: {cause.value}")
        rows.append(measure(cause))
        if save is not None:
            write_rows(save, rows)
    say(Table(COLUMNS, rows).text())
    return rows
