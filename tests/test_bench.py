"""The step benchmark: what it measures at a size that takes no time, and what it refuses."""

from __future__ import annotations

import os

import pytest
import torch

from ngdiff import bench
from ngdiff.bench import EVERY, VARIANTS, Bench, step_table
from ngdiff.results import read_rows

BASES = ("graddiff-two", "graddiff-one", "naive")
AUTOLR = ("ngdiff+autolr-2", "ngdiff+autolr-1", "ngdiff+autolr")


@pytest.fixture(autouse=True)
def _micro(monkeypatch):
    monkeypatch.setitem(bench.SIZES, "micro", (32, 1, 2, 64, 256))


def built(name, tokens=16):
    return Bench(name, "micro", tokens, "cpu", torch.float32)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(rows, rows as saved, what was printed)."""
    path = tmp_path_factory.mktemp("bench") / "new" / "rows.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bench.SIZES, "micro", (32, 1, 2, 64, 256))
        printed = []
        patch.setattr("builtins.print", lambda *text, **_: printed.append(" ".join(map(str, text))))
        rows = step_table(size="micro", tokens=16, pairs=1, json=path)
    return rows, read_rows(path), "\n".join(printed)


def test_one_row_a_variant_with_every_ratio(measured):
    rows, saved, _ = measured
    assert [row["variant"] for row in rows] == list(VARIANTS) == [row["variant"] for row in saved]
    for row in rows:
        assert row["rounds"] == EVERY and row["tokens"] == 16 and row["parameters"] == 18_528
        assert row["seconds_median"] > 0 and row["seconds_mean"] > 0
        for base in BASES:
            low, high = row[f"time_ratio_{base}_range"]
            assert 0 < low <= row[f"time_ratio_{base}"] <= high and row[f"peak_ratio_{base}"] > 0
            bound = row.get(f"time_ratio_{base}_upper95")
            assert (bound is None) == (row["variant"] in (base, *AUTOLR))  # one block of a period has no bound
            assert bound is None or row[f"time_ratio_{base}"] <= bound <= high
            if row["variant"] == base:
                assert row[f"time_ratio_{base}"] == row[f"peak_ratio_{base}"] == 1
        assert row["stamp"]["config"] == {"size": "micro", "tokens": 16, "pairs": 1} and row["stamp"]["threads"] == 1
    assert saved[3] == rows[3]


def test_peak_holds_weights_and_moments_and_ngdiff_no_more_than_naive(measured):
    rows, _, _ = measured
    peak = {row["variant"]: row["peak_bytes"] for row in rows}
    assert min(peak.values()) > 4 * 3 * 18_528  # weights and both moments, float32
    assert peak["ngdiff"] <= peak["ngdiff+autolr-2"] <= peak["naive"]


def test_the_table_shows_every_variant(measured):
    _, _, printed = measured
    assert "0.0M parameters, 16 tokens a batch, 10 rounds" in printed and "rows saved in" in printed
    assert all(any(line.startswith(name + " ") for line in printed.split("\n")) for name in VARIANTS)


def test_the_peak_of_autolr_is_that_of_a_step_that_probes():
    ours = built("ngdiff+autolr-2", tokens=4)
    for _ in range(EVERY):
        ours.step()
    due = bench.peak(ours, "cpu")
    assert due > bench.peak(ours, "cpu")  # the next step does not probe: no copy of θ is alive


def test_old_gradients_do_not_count():
    two = built("graddiff-two")
    two.step()
    first = bench.peak(two, "cpu")
    assert bench.peak(two, "cpu") == first  # gradients of a profiled step, freed in the next, would lower it


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_takes_its_own_step(name):
    """One step from the same weights: GradDiff's two forms agree, and so do all forms of NGDiff."""
    made, base = built(name), built("graddiff-one" if name.startswith("graddiff") else "naive")
    before = [p.detach().clone() for p in made.params]
    for one in (made, base):
        for group in one.optimizer.param_groups:
            group["lr"] = 1e-5
        one.step()
    moved = torch.cat([(p - q).detach().flatten() for p, q in zip(made.params, before)])
    wanted = torch.cat([(p - q).detach().flatten() for p, q in zip(base.params, before)])
    assert moved.any()
    cosine = torch.cosine_similarity(moved, wanted, dim=0)
    assert cosine > 0.98  # Adam's first step is a sign: rounding flips some


def test_both_graddiffs_and_naive_ngdiff_are_what_they_claim():
    def direction(name):
        made = built(name)
        made.optimizer = torch.optim.SGD(made.params, lr=1.0)
        before = [p.detach().clone() for p in made.params]
        made.step()
        return torch.cat([(q - p).detach().flatten() for p, q in zip(made.params, before)])

    made = built("naive")
    g_R, g_F = (torch.cat([g.flatten() for g in torch.autograd.grad(made.loss(k), made.params)]) for k in (0, 1))
    for name, wanted in (
        ("graddiff-two", 0.5 * g_R - 0.5 * g_F),
        ("graddiff-one", 0.5 * g_R - 0.5 * g_F),
        ("naive", g_R / g_R.norm() - g_F / g_F.norm()),
    ):
        assert (direction(name) - wanted).norm() < 1e-5 * wanted.norm(), name


def test_threads_come_back_even_after_an_error(monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    with pytest.raises(ValueError, match="unknown size '7T'; choose one of: 1M, 10M, 100M"):
        step_table(size="7T", tokens=16, pairs=1)
    assert threads == [1, torch.get_num_threads()]


def test_rows_need_a_place_that_can_hold_them_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured first"))
    with pytest.raises(ValueError, match=r"rows are saved as \.jsonl"):
        step_table(size="micro", json=tmp_path / "rows.csv")
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match="choose another output folder"):
        step_table(size="micro", json=tmp_path / "file" / "rows.jsonl")
    assert os.listdir(tmp_path) == ["file"]


def test_one_token_predicts_nothing():
    with pytest.raises(ValueError, match="at least 2 tokens"):
        step_table(size="micro", tokens=1, pairs=1)


def test_the_tokens_of_a_row_are_those_of_its_batch(monkeypatch):
    monkeypatch.setattr(bench, "VARIANTS", BASES)
    monkeypatch.setattr(bench, "EVERY", 1)
    assert built("ngdiff", 300).ids[0].shape == (2, 128) and built("ngdiff", 20).ids[0].shape == (1, 20)
    (row, *_) = bench.measure("micro", 300, 1, "cpu", torch.float32)
    assert row["tokens"] == 256


@pytest.mark.parametrize("size", ["1M", "10M", "100M"])
def test_sizes_are_about_what_they_say(size):
    hidden, layers, _, intermediate, vocabulary = bench.SIZES[size]
    count = layers * (4 * hidden**2 + 3 * hidden * intermediate) + vocabulary * hidden
    assert count == pytest.approx(float(size[:-1]) * 1e6, rel=0.3)
