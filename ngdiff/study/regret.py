"""How far a way to weigh the gradients falls below the best one: E2 of the long comparison."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ngdiff.study import evidence
from ngdiff.study.claims import OURS
from ngdiff.study.intervals import grouped, mean, select

Row = dict[str, Any]
DRAWS = 2000  # of the bootstrap
Way = tuple[str, str]  # a method and its step-size rule
BESIDE: list[Way] = [(OURS, "three-point")]  # shown beside the ways, and not chosen from
WAYS: list[Way] = [*((method, "constant") for method in evidence.CONTROLS), (OURS, "autolr")]


def regrets(rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return a row a way to weigh the gradients: its regret on each data set, and the largest.

    rows: data set → its compared runs. Sets on which not every way was run are left out.

    Regret is the best mean score of these ways on a data set minus the way's own. `low`, `high`:
    the 95 % bootstrap interval of the largest regret, the units of every set drawn anew. `best`: in
    which share of the draws no way has a smaller largest regret.
    """
    if not (scores := scored(rows)):
        return []
    generator = random.Random(0)
    draws = [_largest(_drawn(scores, generator)) for _ in range(DRAWS)]
    least = [min(draw.values()) for draw in draws]
    lost = _regret({name: _means(by_way) for name, by_way in scores.items()})
    found = [row for way in BESIDE if (row := _beside(way, rows, scores))]
    for way in WAYS:
        spread = sorted(draw[way] for draw in draws)
        found.append(
            {
                "method": way[0],
                "stepsize": way[1],
                **{name: lost[name][way] for name in lost},
                "largest": max(lost[name][way] for name in lost),
                "low": spread[round(0.025 * (DRAWS - 1))],
                "high": spread[round(0.975 * (DRAWS - 1))],
                "best": mean([draw[way] == low for draw, low in zip(draws, least, strict=True)]),
            }
        )
    return sorted(found, key=lambda row: row["largest"])


def _beside(
    way: Way, rows: Mapping[str, Sequence[Row]], scores: Mapping[str, Mapping[Way, list[float]]]
) -> Row:
    """Return the regrets of a way that E2 does not choose from: `low`, `high`, `best` are None.

    {} where it was not run on every unit that the ways have.
    """
    lost = {}
    for name, by_way in scores.items():
        mine, units = _by_unit(way, rows[name]), _units(rows[name])
        if not set(units) <= set(mine):
            return {}
        lost[name] = max(_means(by_way).values()) - mean([mean(mine[u]) for u in units])
    known = {"method": way[0], "stepsize": way[1], "largest": max(lost.values())}
    return known | lost | dict.fromkeys(("low", "high", "best"))


def scored(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[Way, list[float]]]:
    """Return data set → way → the mean score of every unit, where every way was run."""
    every = {name: _scores(runs) for name, runs in rows.items()}
    return {name: by_way for name, by_way in every.items() if by_way}


def _scores(rows: Sequence[Row]) -> dict[Way, list[float]]:
    """Return way → the mean score of every unit that all ways have; {} where there is none."""
    by_way, units = {way: _by_unit(way, rows) for way in WAYS}, _units(rows)
    return {way: [mean(of[u]) for u in units] for way, of in by_way.items()} if units else {}


def _by_unit(way: Way, rows: Sequence[Row]) -> dict[Any, list[float]]:
    return grouped(select(rows, method=way[0], stepsize=way[1]), "score")


def _units(rows: Sequence[Row]) -> list[Any]:
    """Return the units that all ways have."""
    return sorted(set.intersection(*(set(_by_unit(way, rows)) for way in WAYS)))


def _means(by_way: Mapping[Way, Sequence[float]]) -> dict[Way, float]:
    return {way: mean(values) for way, values in by_way.items()}


def _drawn(
    scores: Mapping[str, Mapping[Way, Sequence[float]]], generator: random.Random
) -> dict[str, dict[Way, float]]:
    """Return mean scores over units drawn anew: the same units for every way of a data set."""
    drawn = {}
    for name, by_way in scores.items():
        units = len(next(iter(by_way.values())))
        chosen = [int(generator.random() * units) for _ in range(units)]
        drawn[name] = {way: mean([values[i] for i in chosen]) for way, values in by_way.items()}
    return drawn


def _regret(means: Mapping[str, Mapping[Way, float]]) -> dict[str, dict[Way, float]]:
    return {
        name: {way: max(by_way.values()) - value for way, value in by_way.items()}
        for name, by_way in means.items()
    }


def _largest(means: Mapping[str, Mapping[Way, float]]) -> dict[Way, float]:
    regret = _regret(means)
    return {way: max(of[way] for of in regret.values()) for way in next(iter(regret.values()))}
