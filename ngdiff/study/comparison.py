"""A comparison of your own: methods of the package and yours, on equal terms, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ngdiff.data.benchmark import Benchmark
from ngdiff.profiles import Profile, profile
from ngdiff.study.intervals import Row
from ngdiff.study.plan import Plan, carry_out
from ngdiff.study.tuning import Methods

EXAMPLES = {"method": "ng.methods.ngdiff", "seed": "0", "rate": "1e-3", "target": "0"}


def compare(
    methods: Methods,
    bench: Benchmark | str = "",
    P: Profile | str = "tiny",
    seeds: Sequence[int] = (0, 1, 2),
    *,
    rates: Sequence[float] | None = None,
    targets: Sequence[int] = (0,),
    folder: Path | str | None = None,
) -> dict[str, list[Row]]:
    """Compare methods on equal terms and return the rows of every part (`carry_out`).

    methods: names of the package's methods and `Method`s of your own, directions or objectives too
    (`ngdiff.methods.method`). The first one also runs with AutoLR, which is tuned on no run. The
    others are compared with that. bench: a Benchmark, or a name of `ngdiff.study.setup`. seeds: of
    the reported runs. rates: each method's constant rate is chosen from them on a tuning seed that
    is not reported (None: `Profile.rates`). targets: seeds of the models. folder: where the rows
    are saved. Every run is cached under its content, the code of your method included.

    Print the result with `ngdiff.study.tables.runs`; draw it with
    `ngdiff.figures.comparison.plane`.
    Errors: ValueError for no method, seed or rate, two methods of one name, and what a `Trial`
    refuses.
    """
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise ValueError(f"compare takes a list of methods: write [{methods}]")
    P, every = profile(P), tuple(methods)
    rates = tuple(P.rates if rates is None else rates)
    given = {"method": every, "seed": tuple(seeds), "rate": rates, "target": tuple(targets)}
    for what, values in given.items():
        if not values:
            raise ValueError(
                f"compare needs at least one {what}, such as {EXAMPLES[what]}; leave the argument "
                "out where it has a default"
            )
    first = every[0]
    plan = Plan(
        "compare",
        every,
        rates,
        tuple(seeds),
        ("autolr",),
        starts_from=(),
        targets=tuple(targets),
        ours=first,
        rules=("matched",),
    )
    return carry_out(plan, None if folder is None else Path(folder), profile=P, data=bench)
