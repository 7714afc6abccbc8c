"""A comparison of your own: methods of the package and yours, on equal terms, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ngdiff.data.benchmark import Benchmark
from ngdiff.profiles import Profile, profile
from ngdiff.study.intervals import Row
from ngdiff.study.plan import Methods, Plan, carry_out


def compare(
    methods: Methods,
    bench: Benchmark | str = "",
    P: Profile | str = "tiny",
    seeds: Sequence[int] = (0, 1, 2),
    *,
    rates: Sequence[float] | None = None,
    targets: Sequence[int] = (0,),
    folder: Path | None = None,
) -> dict[str, list[Row]]:
    """Compare methods on equal terms and return the rows of every part (`carry_out`).

    methods: names of the package's methods and `Method`s of your own, directions or objectives
    too (`ngdiff.methods.method`). The first one also runs with AutoLR, tuned on no run; the others
    are compared with that. bench: a Benchmark, or a name of `ngdiff.study.setup`. seeds: of the
    reported runs. rates: each method's constant rate is chosen from them on a tuning seed that is
    not reported (None: `Profile.rates`). targets: seeds of the models. folder: where the rows are
    saved. Every run is cached under its content, the code of your method included.

    Print the result with `ngdiff.study.tables.runs`; draw it with
    `ngdiff.figures.comparison.plane`.
    Errors: ValueError for an empty list, two methods of one name, and what a `Trial` refuses.
    """
    every = tuple(methods)
    if not every:
        raise ValueError("compare needs at least one method, such as ng.methods.ngdiff")
    P, first = profile(P), every[0]
    plan = Plan(
        "compare",
        every,
        tuple(rates or P.rates),
        tuple(seeds),
        (first,),
        starts_from=(),
        targets=tuple(targets),
        ours=first,
        rules=("matched",),
    )
    return carry_out(plan, folder, profile=P, data=bench)
