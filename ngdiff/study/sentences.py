"""The larger grid in sentences. Each one is worked out from its saved rows: if the rows change, the
sentences change.

`in_short` is for the README, the other functions are the paragraphs of docs/results.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ngdiff.methods.lookup import label, ordered
from ngdiff.study.claims import OURS
from ngdiff.study.intervals import mean, select

Row = dict[str, Any]
Rows = Sequence[Row]
AGAINST = "against "  # how the names of the paired claims begin
OURSELVES = f"{label(OURS)} + AutoLR"


@dataclass(frozen=True)
class Grid:
    """The saved rows of the larger grid, a field for each file.

    matched: runs that stop at the hold-out level.
    tuning: the runs that rates were chosen from.
    starts: our method with AutoLR from each starting rate.
    fixed: runs without a stop.
    claimed: the claims.
    levels: the start and the retain-only model of each seed of the models.
    """

    matched: Rows
    tuning: Rows
    starts: Rows
    fixed: Rows
    claimed: Rows
    levels: Rows

    @property
    def against(self) -> dict[str, Row]:
        """Return method → the claim that compares our method with it."""
        paired = (r for r in self.claimed if r["name"].startswith(AGAINST))
        return {r["name"].removeprefix(AGAINST): r for r in paired}

    @property
    def ours(self) -> list[Row]:
        """Return the matched runs of our method with AutoLR."""
        return select(self.matched, method=OURS, stepsize="autolr")

    def claim(self, name: str) -> Row:
        """Return the claim of that name. Errors: KeyError where there is none."""
        return {r["name"]: r for r in self.claimed}[name]

    def methods(self, verdict: str) -> list[str]:
        """Return the methods whose verdict has this word in it."""
        return [method for method, r in self.against.items() if verdict in r["verdict"]]


def average(rows: Rows, key: str) -> float:
    """Return the mean of a value over rows."""
    return mean([r[key] for r in rows])


def share(rows: Rows) -> float:
    """Return the share of runs that reached the hold-out level."""
    return mean([r["stopped"] == "forget_level" for r in rows])


def runs_without_a_stop(fixed: Rows) -> dict[str, list[Row]]:
    """Return the runs without a stop by their names, the highest mean score first."""
    groups: dict[str, list[Row]] = {}
    for r in fixed:
        auto = " + AutoLR" if r["stepsize"] == "autolr" else ""
        rate = f", {r['lr']:g}" if r["method"] == "gradascent" else ""  # the only one of several
        groups.setdefault(label(r["method"]) + auto + rate, []).append(r)
    return dict(sorted(groups.items(), key=lambda named: -average(named[1], "score")))


def _list(methods: Iterable[str]) -> str:
    """Return labels as "A, B and C", or "no method"."""
    names = [label(m) for m in ordered(methods)]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "no method"


# ----------------------------------------------------------------------------------------- in short
def in_short(grid: Grid) -> list[str]:
    """Return six sentences: scores, losses, wins, failures, and the learning rate."""
    first, last = _range(r["lr"] for r in grid.starts)
    spread = grid.claim("AutoLR over starting rates")["mean"]
    low, high = _swings(grid.tuning)
    return [
        _scores(grid),
        f"Better tuned methods: {_list(grid.methods('tuned'))}.",
        f"Worse tuned methods: {_list(grid.methods('NGDiff + AutoLR'))}.",
        _failed(grid),
        _too_far(grid),
        f"Starting rates from {first:g} to {last:g} moved its score by {spread:.3f}. Constant "
        f"rates moved a method's score by {low[0]:.2f} to {high[0]:.2f}.",
    ]


def _scores(grid: Grid) -> str:
    """Give the mean score of our method, and the range of the tuned methods."""
    tuned: dict[str, list[Row]] = {}
    for row in select(grid.matched, stepsize="constant"):
        tuned.setdefault(row["method"], []).append(row)
    means = sorted((average(runs, "score"), label(m)) for m, runs in tuned.items())
    return (
        f"{OURSELVES}, untuned, has a mean score of {average(grid.ours, 'score'):.3f}. Tuned "
        f"methods have {_span((means[0], means[-1]), 3)}."
    )


def _failed(grid: Grid) -> str:
    """Say with which methods AutoLR failed."""
    if failing := _failing(grid):
        return f"AutoLR failed with {_list(failing)}: under half of the runs reached the level."
    return "With each method at least half of the runs under AutoLR reached the level."


def _failing(grid: Grid) -> list[str]:
    """Return the methods of which fewer than half the runs with AutoLR reached the level."""
    return [m for m, runs in _with_autolr(grid.matched).items() if share(runs) < 0.5]


def _with_autolr(matched: Rows) -> dict[str, list[Row]]:
    """Return method → its matched runs with AutoLR, those that have some."""
    found = {r["method"]: select(matched, method=r["method"], stepsize="autolr") for r in matched}
    return {m: found[m] for m in ordered(found) if found[m]}


def _too_far(grid: Grid) -> str:
    """Say how far our method forgets without a stop, against rows that were never seen."""
    walked = select(grid.fixed, method=OURS, stepsize="autolr")
    targets = {r["target_seed"] for r in walked}
    starts = [r for r in select(grid.levels, model="start") if r["target_seed"] in targets]
    ended, level = average(walked, "loss_forget"), average(starts, "loss_holdout")
    verdict = "forgot too much" if ended > 1.5 * level else "ended near the level"
    return (
        f"Without a stop {OURSELVES} {verdict}: its forget loss was {ended:.1f}, the hold-out "
        f"level {level:.1f}."
    )


# ------------------------------------------------------------------------------- longer, for a page
def setup(grid: Grid) -> str:
    """Return how many runs there are, how long they are at most, and which rates were tried."""
    models, orders = ({r[key] for r in grid.matched} for key in ("target_seed", "seed"))
    rates = sorted({r["lr"] for r in grid.tuning})
    return (
        f"There are {len(models)} models and {len(orders)} orders of the rows. So each method has "
        f"{len(grid.ours)} runs at its constant rate, and {len(grid.ours)} with AutoLR. A run "
        f"makes at most {max(r['updates'] for r in grid.matched)} updates. The constant rates "
        f"that were tried are {', '.join(f'{rate:g}' for rate in rates)}."
    )


def verdicts(grid: Grid) -> str:
    """Return who is better than whom, on the pairs of runs that both reached the level."""
    above = [m for m, r in grid.against.items() if r["low"] is not None and r["low"] > 0]
    below = [m for m, r in grid.against.items() if r["high"] is not None and r["high"] < 0]
    open_, apart = grid.methods("undecided"), grid.methods("not matched")
    said = [
        f"Against tuned methods, on these pairs, {OURSELVES} scores **lower** than "
        f"{_list(grid.methods('tuned'))}.",
        f"It scores higher than {_list(grid.methods('NGDiff + AutoLR'))}.",
        f"It is undecided against {_list(open_)}: the interval contains zero." if open_ else "",
        f"There are no such pairs with {_list(apart)}." if apart else "",
        f"Now over all pairs, with those that did not reach the level. The interval lies above "
        f"zero against {_list(above)}. It lies below zero against {_list(below)}.",
    ]
    return " ".join(filter(None, said))


def first_rule(grid: Grid) -> str:
    """Return the result of the verdict rule that was fixed before the grid was run."""
    late = sum(r["stopped"] != "forget_level" for r in grid.ours)
    if late:
        result = (
            f"no method wins, because {late} of the {len(grid.ours)} runs of {OURSELVES} did not "
            f"reach the level"
        )
    else:
        whole = {m: r for m, r in grid.against.items() if r["reached"] == 1}
        better = [m for m, r in whole.items() if r["low"] is not None and r["low"] > 0]
        worse = [m for m, r in whole.items() if r["high"] is not None and r["high"] < 0]
        result = f"{OURSELVES} is worse than {_list(worse)} and better than {_list(better)}"
    return f"Under the first rule, fixed before, {result}."


def autolr(grid: Grid) -> str:
    """Return how AutoLR does with each method."""
    runs = _with_autolr(grid.matched)
    score = {m: average(mine, "score") for m, mine in runs.items()}
    ahead = [m for m in score if score[m] > score[OURS]]
    failing = _failing(grid)
    said = [
        f"{len(ahead)} other method{'s have' if len(ahead) > 1 else ' has'} a higher mean score "
        f"than NGDiff when all of them use AutoLR: {_list(ahead)}."
        if ahead
        else "No other method has a higher mean score than NGDiff when all of them use AutoLR.",
        f"With {_list(failing)} fewer than half of the runs reach the level." if failing else "",
    ]
    return " ".join(filter(None, said))


def _range(values: Iterable[float]) -> tuple[float, float]:
    known = sorted(values)
    return known[0], known[-1]


def _swings(rows: Rows) -> tuple[tuple[float, str], tuple[float, str]]:
    """Return the smallest and the largest best − worst score of a method over its rates."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["method"], []).append(row["score"])
    swing = sorted((max(v) - min(v), label(m)) for m, v in scores.items() if len(v) > 1)
    return swing[0], swing[-1]


def rates(grid: Grid) -> str:
    """Return how far a score moves with the rate, with the starting rate, and with c."""
    each = [select(grid.starts, lr=lr) for lr in sorted({r["lr"] for r in grid.starts})]
    steps, reached = _range(average(g, "updates") for g in each), _range(share(g) for g in each)
    first, last = _range(r["lr"] for r in grid.starts)
    near, far = (
        _swings(rows) for rows in (select(grid.tuning, stopped="forget_level"), grid.tuning)
    )
    return (
        f"{OURSELVES} ran from {len(each)} starting rates, {first:g} to {last:g}. Between the best "
        f"and the worst of them its score moves by "
        f"{grid.claim('AutoLR over starting rates')['mean']:.3f}. Its mean number of updates "
        f"lies between {steps[0]:.0f} and {steps[1]:.0f}, and {_percent(reached)} "
        f"of its runs reach the level. Constant rates were tried in one run each. "
        f"Over all of them a method's score moves by {_span(far)}. Over those that reached the "
        f"level it moves by {_span(near)}. GradDiff was tuned for each weight c. Over these its "
        f"score moves by {grid.claim('swing of graddiff with c')['mean']:.2f}."
    )


def _span(ends: Sequence[tuple[float, str]], digits: int = 2) -> str:
    return " to ".join(f"{size:.{digits}f} ({name})" for size, name in ends)


def _percent(shares: tuple[float, float]) -> str:
    """Return a range of shares, or the one share that it is."""
    low, high = (f"{share:.0%}" for share in shares)
    return low if low == high else f"{low} to {high}"


def speed(grid: Grid) -> str:
    """Return updates and seconds of our method, with AutoLR and at its tuned rate."""
    auto, tuned = grid.ours, select(grid.matched, method=OURS, stepsize="constant")
    late = sum(r["stopped"] != "forget_level" for r in auto)
    return (
        f"{OURSELVES} makes {average(auto, 'updates'):.0f} updates in "
        f"{average(auto, 'seconds'):.1f} s on average. NGDiff at its tuned rate makes "
        f"{average(tuned, 'updates'):.0f} updates in {average(tuned, 'seconds'):.1f} s. The "
        f"seconds include {average(auto, 'forwards'):.0f} forward passes of probing. With "
        f"AutoLR {len(auto) - late} of {len(auto)} runs reached the level in time."
    )


def ascent(grid: Grid) -> str:
    """Return what pure ascent keeps of the utility, with the stop and without one."""
    free = [r for r in grid.claimed if r["name"].startswith("ascent keeps, without")]
    each = ", ".join(f"{r['mean']:.2f} at {r['name'].rpartition(' ')[2]}" for r in free)
    kept = grid.claim("ascent keeps, at matched forgetting")["mean"]
    return (
        f"With the stop, pure ascent keeps {kept:.2f} of the utility. Without a stop it depends on "
        f"the rate: it keeps {each}."
    )
