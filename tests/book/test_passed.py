"""TOFU's own verdict: which runs pass, what they paid, how often `forgot` is cut off."""

from __future__ import annotations

from ngdiff.book import passed

RUN = {"method": "ngdiff", "stepsize": "autolr", "lr": 1e-3, "stopped": "forget_level"}


def run(p: float | None, rouge: float, forgot: float, **more: object) -> dict:
    return RUN | {"forget_quality": p, "retain_Q_A_ROUGE": rouge, "forgot": forgot} | more


ROWS = [
    *(run(0.04, 0.9, 1.0), run(0.06, 0.8, 1.0), run(0.5, 0.7, 0.99)),
    *(run(p, 0.4, 1.0, method="gradascent", stepsize="constant") for p in (None, 0.05)),
]
LEVELS = [
    {"model": "start", "retain_Q_A_ROUGE": 1.0},
    {"model": "start", "retain_Q_A_ROUGE": 0.98},
    {"model": "retain-only", "retain_Q_A_ROUGE": 0.1},
]


def test_a_run_passes_above_five_per_cent_only() -> None:
    assert [passed.passes(row) for row in ROWS] == [False, True, True, False, False]


def test_the_table_counts_runs_and_shows_the_price_before_and_after() -> None:
    ours, ascent = passed.verdict(ROWS, LEVELS).cells()
    assert ours == ["NGDiff + AutoLR", "2 of 3", "0.2", "0.990", "0.800", "2 of 3"]
    assert ascent == ["GradAscent, 0.001", "0 of 2", "0.025", "0.990", "0.400", "2 of 2"]


def test_the_summary_counts_all_runs() -> None:
    said = passed.summary(ROWS)
    assert "p > 0.05: 2 of 5 runs pass" in said and "4 of 5 runs have it there" in said
