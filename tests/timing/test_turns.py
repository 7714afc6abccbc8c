"""The rows of a measurement: times, ratios, reads, peaks and the predicted ones."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from ngdiff.store.rows import stamp
from ngdiff.timing import case, step, turns
from ngdiff.timing.case import AUTOLR, BASES, VARIANTS, Case
from ngdiff.timing.variants import EVERY, OURS, OVER
from tests.helpers.timed import TWO, built, rows_of


def test_one_row_a_variant_with_every_ratio(measured):
    rows, saved, _ = measured
    assert [row["variant"] for row in rows] == list(VARIANTS) == [row["variant"] for row in saved]
    for row in rows:
        assert row["rounds"] == row["warmup"] == EVERY and row["tokens"] == row["length"] == 16
        assert row["parameters"] == row["trained"] == 18_528 and row["skipped"] == 0
        assert row["seconds_median"] > 0 and row["seconds_mean"] > 0 and row["mfu"] is None
        for base in BASES:
            low, high = row[f"time_ratio_{base}_range"]
            assert 0 < low <= row[f"time_ratio_{base}"] <= high and row[f"peak_ratio_{base}"] > 0
            bound = row.get(f"time_ratio_{base}_upper95")
            # one block of a period has no bound
            assert (bound is None) == (row["variant"] in (base, *AUTOLR))
            assert bound is None or row[f"time_ratio_{base}"] <= bound <= high
            if row["variant"] == base:
                assert row[f"time_ratio_{base}"] == row[f"peak_ratio_{base}"] == 1
        assert row["stamp"]["config"] == {**asdict(Case("micro", 16, pairs=1)), "variants": []}
        assert (
            row["stamp"]["threads"] == 1
            and {"torch", "transformers"} <= row["stamp"]["packages"].keys()
        )
    assert saved[3] == rows[3]


def test_peak_holds_weights_and_moments_and_ngdiff_no_more_than_naive(measured):
    rows, _, _ = measured
    peak = {row["variant"]: row["peak_bytes"] for row in rows}
    assert min(peak.values()) > 4 * 3 * 18_528  # weights and both moments, float32
    assert peak["ngdiff"] <= peak["ngdiff+autolr"] <= peak["naive"]


def test_ngdiff_reads_once_and_graddiff_never(measured):
    reads = {row["variant"]: row["reads"] for row in measured[0]}
    assert reads["graddiff-two"] == reads["graddiff-one"] == 0
    assert {reads[name] for name in ("ngdiff", *AUTOLR)} == {1}
    assert reads["naive"] == 2 * 11  # a norm of every tensor: 7 matrices, 3 norms, the table
    assert {(row["reads_by"], row.get("kernels", "eager")) for row in measured[0]} == {
        ("torch function calls", "eager")
    }
    assert [row["variant"] for row in measured[0] if "kernels" in row] == [
        v for v in VARIANTS if v in OURS
    ]


def test_blocks_of_autolr_have_a_bound_from_five_on():
    seconds = {
        "graddiff-two": [1.0] * 5 * EVERY,
        "ngdiff+autolr": [2.0, *[1.0] * (EVERY - 1)] * 4 + [3.0, *[1.0] * (EVERY - 1)],
    }
    out = turns._times({"variant": "ngdiff+autolr", "flops": 6.0, "flops_top": 10.0}, seconds)
    assert out["time_ratio_graddiff-two"] == pytest.approx(1 + 1 / OVER)
    upper = out["time_ratio_graddiff-two_upper95"]
    assert upper == pytest.approx(1 + 2 / OVER)  # of blocks, a probe in each
    assert out["mfu"] == pytest.approx(6 / 10 / (1 + 1.2 / OVER))  # of mean seconds
    assert "time_ratio_naive" not in out


def test_checkpointing_keeps_fewer_activations_and_recompute_is_measured_beside():
    assert Case(memory="recompute").names == (*VARIANTS[:4], "ngdiff-recompute", *VARIANTS[4:])
    plain = rows_of(variants=("graddiff-two",))
    twice = rows_of(checkpointing=True, variants=(*TWO, "ngdiff-recompute"))
    kept = [rows["graddiff-two"]["forget_activation_bytes"] for rows in (plain, twice)]
    assert kept[1] < 0.8 * kept[0] and twice["ngdiff"]["checkpointing"]
    assert twice["ngdiff-recompute"]["peak_bytes"] < twice["ngdiff"]["peak_bytes"]
    assert [twice[name]["memory"] for name in ("ngdiff", "ngdiff-recompute")] == [
        "swap",
        "recompute",
    ]
    # what is computed twice is no model FLOP
    assert plain["graddiff-two"]["flops"] == twice["ngdiff"]["flops"]


def test_some_variants_without_the_bases_have_no_ratios():
    (row,) = rows_of(variants=("ngdiff",)).values()
    assert (
        "time_ratio_graddiff-two" not in row
        and "peak_extra_predicted_bytes" not in row
        and row["seconds_median"]
    )
    stamped = row | {"stamp": stamp(asdict(Case("micro", 16)), None, 1.0)}
    assert step.table([stamped]).splitlines()[2].split()[2:4] == ["-", "-"]


def test_what_people_write_is_measured_beside_on_weights_of_its_own():
    names = ("graddiff-two", "graddiff-autocast", "ngdiff")
    rows = rows_of(variants=names, precision="bfloat16")
    assert list(rows) == [*names]
    for row in rows.values():
        assert row["time_ratio_graddiff-autocast"] > 0 and row["skipped"] == 0
    assert rows["graddiff-autocast"]["time_ratio_graddiff-autocast"] == 1
    mine, theirs = (built(name, precision="bfloat16").subject for name in names[:2])
    assert {p.dtype for p in mine.params} == {torch.bfloat16}
    assert {p.dtype for p in theirs.params} == {torch.float32}
    assert theirs.loss(0, autocast=True).item() == pytest.approx(mine.loss(0).item(), rel=0.02)


def test_minutes_choose_the_rounds(monkeypatch):
    clock = iter([100.0, 102.0])  # one round takes two seconds, two were spent before
    asked = Case("micro", 16, pairs=1000, minutes=2, variants=TWO)
    variants = [built(name) for name in TWO]
    with monkeypatch.context() as patch:
        patch.setattr(turns.time, "perf_counter", lambda: next(clock))
        # 0.9·(120 − 4)/2 − 4 = 48.2 rounds, a fifth of them to warm up, EVERY at most
        assert turns._plan(asked, variants, began=98.0) == (EVERY, 5 * EVERY)
    assert turns._plan(replace(asked, minutes=1e-9), variants, began=0.0) == (2, EVERY)


@pytest.mark.parametrize("tied", [True, False])
def test_the_peak_of_swap_is_the_predicted_one(monkeypatch, tied):
    """G > A_F: few tokens on a wide model."""
    monkeypatch.setitem(case.SIZES, "micro", (128, 4, 2, 256, 256))
    monkeypatch.setattr(case, "LARGE", () if tied else ("micro",))
    row = rows_of(variants=TWO)["ngdiff"]
    two = row["peak_bytes"] - row["peak_extra_bytes"]
    assert row["forget_activation_bytes"] < 0.5 * row["gradient_bytes"] < row["peak_extra_bytes"]
    assert row["peak_bytes"] == pytest.approx(two + row["peak_extra_predicted_bytes"], rel=0.02)
    assert row["peak_bytes"] == pytest.approx(two + row["peak_extra_simple_bytes"], rel=0.02)


def test_the_prediction_knows_the_tied_table(monkeypatch):
    monkeypatch.setitem(case.SIZES, "micro", (32, 1, 2, 64, 1024))  # the table is most of the model
    row = rows_of(variants=TWO)["ngdiff"]
    two = row["peak_bytes"] - row["peak_extra_bytes"]
    assert row["tied_bytes"] == 4 * 32 * 1024
    assert row["peak_bytes"] == pytest.approx(two + row["peak_extra_predicted_bytes"], rel=0.02)
