"""The step benchmark: what it measures at a size that takes no time, what it refuses, and its way
on an accelerator.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ngdiff.book import readme
from ngdiff.commands import cli
from ngdiff.engine import meters
from ngdiff.engine.master import Master
from ngdiff.store.rows import read_rows, write_rows
from ngdiff.timing import step as bench
from ngdiff.timing import turns
from ngdiff.timing.step import step_table
from ngdiff.timing.turns import BASES, EVERY, OURS, VARIANTS, Case, Subject, Variant, measure

AUTOLR = ("ngdiff+autolr-2", "ngdiff+autolr-1", "ngdiff+autolr")
MICRO = (32, 1, 2, 64, 256)  # 18 528 parameters, the output layer tied
TWO = ("graddiff-two", "ngdiff")


@pytest.fixture(autouse=True)
def _micro(monkeypatch):
    monkeypatch.setitem(turns.SIZES, "micro", MICRO)


def built(name, tokens=16, **options):
    return Variant(name, Subject(Case("micro", tokens, **options), "cpu"))


def rows_of(**options):
    """Rows by variant."""
    return {row["variant"]: row for row in measure(Case("micro", 16, pairs=1, **options), "cpu")}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(rows, rows as saved, what was printed)."""
    path = tmp_path_factory.mktemp("bench") / "new" / "rows.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(turns.SIZES, "micro", MICRO)
        printed = []
        patch.setattr("builtins.print", lambda *text, **_: printed.append(" ".join(map(str, text))))
        rows = step_table(size="micro", tokens=16, pairs=1, json=path)
    return rows, read_rows(path), "\n".join(printed)


# --------------------------------------------------------------------------------------------- rows
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
            assert (bound is None) == (
                row["variant"] in (base, *AUTOLR)
            )  # one block of a period has no bound
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
    assert peak["ngdiff"] <= peak["ngdiff+autolr-2"] <= peak["naive"]


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


def test_the_table_shows_every_variant(measured):
    _, _, printed = measured
    assert (
        "0.0M parameters, 16 tokens a batch in rows of 16, float32, adamw, 10 rounds after 10"
        in printed
    )
    assert (
        "CPU time, one thread, torch 2" in printed
        and "rows saved in" in printed
        and "kernels: eager" in printed
    )
    assert all(
        any(line.startswith(name + " ") for line in printed.split("\n")) for name in VARIANTS
    )


def test_a_row_without_numbers_shows_its_outcome_and_one_with_skipped_steps_says_so(measured):
    rows = [dict(measured[0][0], skipped=3), dict(measured[0][1])]
    failed = {k: rows[1][k] for k in ("variant", "stamp")} | {"outcome": "out of memory"}
    heads, _, first, second = bench.table([rows[0], failed]).splitlines()
    assert heads.split()[:4] == ["s/step", "time", "÷", "two"] and heads.endswith("reads  MFU")
    assert first.endswith("  3 steps changed nothing")
    assert second.split() == [failed["variant"], *["-"] * 12, "out", "of", "memory"]
    assert first.index("3 steps") == second.index("out of memory")


def test_blocks_of_autolr_have_a_bound_from_five_on():
    seconds = {
        "graddiff-two": [1.0] * 50,
        "ngdiff+autolr": [2.0, *[1.0] * 9] * 4 + [3.0, *[1.0] * 9],
    }
    out = turns._times({"variant": "ngdiff+autolr", "flops": 6.0, "flops_top": 10.0}, seconds)
    assert out["time_ratio_graddiff-two"] == pytest.approx(1.1)
    assert out["time_ratio_graddiff-two_upper95"] == pytest.approx(
        1.2
    )  # of blocks, a probe in each
    assert (
        out["mfu"] == pytest.approx(6 / 10 / 1.12) and "time_ratio_naive" not in out
    )  # of mean seconds


# ----------------------------------------------------------------------------------------- variants
@pytest.mark.parametrize("name", [*VARIANTS, "ngdiff-recompute"])
def test_every_variant_takes_its_own_step(name):
    """One step from the same weights: GradDiff's two forms agree, and so do all forms of NGDiff."""
    made, base = built(name), built("graddiff-one" if name.startswith("graddiff") else "naive")
    before = [p.detach().clone() for p in made.subject.params]
    for one in (made, base):
        one.step()
        assert all(p.grad is None for p in one.subject.params) and one.skipped == 0
    moved, wanted = (
        torch.cat([(p - q).detach().flatten() for p, q in zip(one.subject.params, before)])
        for one in (made, base)
    )
    assert moved.any()
    assert (
        torch.cosine_similarity(moved, wanted, dim=0) > 0.98
    )  # Adam's first step is a sign: rounding flips some


def test_both_graddiffs_and_naive_ngdiff_are_what_they_claim_on_a_shared_model():
    subject = Subject(Case("micro", 16), "cpu")
    subject.optimizer = torch.optim.SGD(subject.params, lr=1.0)
    start = [p.detach().clone() for p in subject.params]

    def direction(name):
        torch._foreach_copy_([p.data for p in subject.params], start)
        Variant(name, subject).step()
        return torch.cat([(q - p).detach().flatten() for p, q in zip(subject.params, start)])

    g_R, g_F = (
        torch.cat([g.flatten() for g in torch.autograd.grad(subject.loss(k), subject.params)])
        for k in (0, 1)
    )
    graddiff, ours = 0.5 * g_R - 0.5 * g_F, g_R / g_R.norm() - g_F / g_F.norm()
    for name in (*BASES, "ngdiff", "ngdiff-recompute"):
        wanted = graddiff if name.startswith("graddiff") else ours
        assert (direction(name) - wanted).norm() < 1e-5 * wanted.norm(), name


def test_variants_share_one_model_and_no_rate_moves():
    subject = Subject(Case("micro", 16), "cpu")
    variants = [Variant(name, subject) for name in VARIANTS]
    for _ in range(EVERY + 1):
        for v in variants:
            v.step()
            assert [group["lr"] for group in subject.optimizer.param_groups] == [turns.LR], v.name
    assert all(v.skipped == 0 for v in variants)
    assert all(torch.isfinite(p).all() for p in subject.params)


def test_the_peak_of_autolr_is_that_of_a_step_that_probes():
    ours = built("ngdiff+autolr-2", tokens=4)
    for _ in range(3):
        ours.step()
    plain = ours.subject.held() + meters.allocated(ours.step, "cpu")[0]
    assert ours.peak() > plain  # the plain step has no copy of θ
    assert ours.peak() == ours.peak()  # each is a first step again


def test_old_gradients_do_not_count():
    two = built("graddiff-two")
    two.step()
    first = two.peak()
    two.subject.loss(0).backward()
    assert two.peak() == first  # gradients of before, freed in the profiled step, would lower it


# ------------------------------------------------------------------------------------------ options
def test_bfloat16_steps_exact_masters_for_all_variants():
    subject = Subject(Case("micro", 16, precision="bfloat16"), "cpu")
    assert isinstance(subject.optimizer, Master) and {p.dtype for p in subject.params} == {
        torch.bfloat16
    }
    rows = rows_of(
        precision="bfloat16", variants=("graddiff-two", "naive", "ngdiff", "ngdiff+autolr-2")
    )
    assert {row["dtype"] for row in rows.values()} == {"torch.bfloat16"}
    assert rows["graddiff-two"]["gradient_bytes"] == 2 * 18_528
    assert 2 * 18_528 * (2 + 2 + 4 + 4) // 2 <= rows["graddiff-two"]["held_bytes"] < 13 * 18_528
    assert (
        rows["ngdiff"]["reads"] == 1
        and rows["graddiff-two"]["reads"] == 0
        and rows["ngdiff"]["skipped"] == 0
    )


def test_sgd_keeps_nothing():
    rows = rows_of(optimizer="sgd", variants=TWO)
    assert rows["ngdiff"]["held_bytes"] == 4 * 18_528 and rows["ngdiff"]["optimizer"] == "sgd"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_lora_trains_an_adapter_on_a_frozen_model(precision):
    rows = rows_of(lora=2, precision=precision, variants=TWO)
    trained = 2 * (4 * 2 * 32 + 3 * (32 + 64))  # r·(inputs + outputs) of seven matrices
    assert rows["ngdiff"]["trained"] == trained and rows["ngdiff"]["parameters"] == 18_528 + trained
    assert rows["ngdiff"]["gradient_bytes"] == 4 * trained and rows["ngdiff"]["lora"] == 2
    assert rows["ngdiff"]["tied_bytes"] == 0 and rows["ngdiff"]["reads"] == 1


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
    assert (
        plain["graddiff-two"]["flops"] == twice["ngdiff"]["flops"]
    )  # what is computed twice is no model FLOP


def test_some_variants_without_the_bases_have_no_ratios():
    (row,) = rows_of(variants=("ngdiff",)).values()
    assert (
        "time_ratio_graddiff-two" not in row
        and "peak_extra_predicted_bytes" not in row
        and row["seconds_median"]
    )
    assert bench._line(row).split()[2:4] == ["-", "-"]


def test_rows_are_as_long_as_asked():
    assert built("ngdiff", 300).subject.ids[0].shape == (2, 128) and built(
        "ngdiff", 20
    ).subject.ids[0].shape == (1, 20)
    assert Case("7B", 4096).shape == (4, 1024) and Case("1B", 512).shape == (1, 512)
    assert Case("10M", 512, length=64).shape == (8, 64)
    assert rows_of(length=4, variants=TWO)["ngdiff"]["length"] == 4


def test_minutes_choose_the_rounds(monkeypatch):
    clock = iter([100.0, 102.0])  # one round takes two seconds, two were spent before
    monkeypatch.setattr(turns.time, "perf_counter", lambda: next(clock))
    case = Case("micro", 16, pairs=1000, minutes=2, variants=TWO)
    variants = [built(name) for name in TWO]
    warm, rounds = turns._plan(case, variants, began=98.0)
    assert (warm, rounds) == (
        9,
        30,
    )  # 0.9·(120 − 4)/2 − 4 = 48.2 rounds, a fifth of them to warm up
    monkeypatch.undo()
    monkeypatch.setitem(turns.SIZES, "micro", MICRO)
    assert turns._plan(replace(case, minutes=1e-9), variants, began=0.0) == (2, EVERY)


def test_names_that_are_not_known_are_refused():
    for wrong, message in (
        ({"size": "7T"}, "unknown size '7T'; choose one of: 1M, 10M, 100M, 1B, 7B"),
        ({"precision": "float16"}, "unknown precision"),
        ({"optimizer": "lion"}, "choose one of: adamw, sgd"),
        ({"memory": "disk"}, "choose one of: swap, recompute"),
        ({"variants": ("ngdif",)}, "unknown variant 'ngdif'; choose some of: graddiff-two"),
        ({"tokens": 1}, "at least 2 tokens"),
        ({"length": 1}, "at least 2 tokens"),
        ({"lora": -1}, "0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            step_table(**wrong)


def test_threads_come_back_even_after_an_error(monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(bench, "measure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        step_table(size="micro", tokens=16, pairs=1)
    assert threads == [1, torch.get_num_threads()]


def test_rows_need_a_place_that_can_hold_them_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured first"))
    with pytest.raises(ValueError, match=r"rows are saved as \.jsonl"):
        step_table(size="micro", json=tmp_path / "rows.csv")
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match="choose another output folder"):
        step_table(size="micro", json=tmp_path / "file" / "rows.jsonl")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("size", ["1M", "10M", "100M", "1B", "7B"])
def test_sizes_are_about_what_they_say(size):
    count = bench.needs(Case(size), 0.0)["weights"] / 4
    assert count == pytest.approx(float(size[:-1]) * (1e9 if size[-1] == "B" else 1e6), rel=0.3)
    with torch.device("meta"):
        assert (
            sum(p.numel() for p in turns.LlamaForCausalLM(Case(size).config()).parameters())
            == count
        )
    assert size != "7B" or count == 6_738_415_616  # Llama-2-7B


def test_the_command_line_hands_every_option_over(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(
        bench, "step_table", lambda json, **options: seen.update(options, json=json)
    )
    flags = [
        "--size",
        "7B",
        "--tokens",
        "64",
        "--length",
        "32",
        "--pairs",
        "3",
        "--minutes",
        "1.5",
        "--precision",
        "bfloat16",
        "--optimizer",
        "sgd",
        "--lora",
        "4",
        "--checkpointing",
        "--memory",
        "recompute",
        "--variants",
        "graddiff-two, ngdiff",
        "--json",
        str(tmp_path / "x.jsonl"),
    ]
    assert CliRunner().invoke(cli.app, ["bench", "step", *flags]).exit_code == 0
    assert seen.pop("json") == tmp_path / "x.jsonl"
    assert Case(**seen) == Case("7B", 64, 32, 3, 1.5, "bfloat16", "sgd", 4, True, "recompute", TWO)


# ------------------------------------------------------------------------------------------- meters
def test_model_flops_by_hand():
    model = built("ngdiff").subject.model
    N = (
        256 * 32 + 4 * 32 * 32 + 3 * 32 * 64 + 3 * 32
    )  # the tied table counts once: it is the output layer
    assert meters.flops(model, 32, 16) == 32 * (6 * N + 12 * 1 * 32 * 16)
    adapted = built("ngdiff", lora=2).subject.model
    r = 2 * (4 * 2 * 32 + 3 * (32 + 64))
    assert meters.flops(adapted, 32, 16) == 32 * (
        4 * N + 6 * r + 12 * 1 * 32 * 16
    )  # frozen: no gradient of their own


def test_a_look_up_is_no_flop(monkeypatch):
    monkeypatch.setattr(turns, "LARGE", ("micro",))
    untied = built("ngdiff").subject
    assert sum(p.numel() for p in untied.params) == 18_528 + 256 * 32
    assert meters.flops(untied.model, 1, 16) == 6 * 18_528 + 12 * 32 * 16


def test_tops_of_known_devices():
    assert (
        meters.top("NVIDIA H100 80GB HBM3", "bfloat16")
        == meters.top("NVIDIA H200", "bfloat16")
        == 989e12
    )
    assert (
        meters.top("NVIDIA A100-SXM4-80GB", "float32") == 19.5e12
        and meters.top("NVIDIA H100 PCIe", "bfloat16") == 756e12
    )
    assert meters.top("cpu", "float32") is None


def test_reads_are_counted_and_what_is_on_the_host_is_free():
    x = torch.ones(3)
    assert (
        meters.reads(
            lambda: [x.sum().item(), x.tolist(), bool(x[0]), float(x[0]), (x.cpu() * 2).tolist()],
            "cpu",
        )
        == 5
    )


def test_allocated_bytes_by_hand():
    def run():
        a = torch.ones(1000)
        b = a + 1
        return b + 1  # three alive at once, one left

    most, left = meters.allocated(run, "cpu")
    assert most == pytest.approx(12_000, abs=64) and left == 4000  # and the numbers 1


def test_upper_bound_of_a_median():
    assert meters.upper95([1.0] * 12) == 1.0
    values = [1 + i / 100 for i in range(31)]
    assert 1.15 < meters.upper95(values) < 1.30 and meters.upper95(values) == meters.upper95(values)


@pytest.mark.parametrize("tied", [True, False])
def test_the_peak_of_swap_is_the_predicted_one(monkeypatch, tied):
    """G > A_F: few tokens on a wide model."""
    monkeypatch.setitem(turns.SIZES, "micro", (128, 4, 2, 256, 256))
    monkeypatch.setattr(turns, "LARGE", () if tied else ("micro",))
    row = rows_of(variants=TWO)["ngdiff"]
    two = row["peak_bytes"] - row["peak_extra_bytes"]
    assert row["forget_activation_bytes"] < 0.5 * row["gradient_bytes"] < row["peak_extra_bytes"]
    assert row["peak_bytes"] == pytest.approx(two + row["peak_extra_predicted_bytes"], rel=0.02)
    assert row["peak_bytes"] == pytest.approx(two + row["peak_extra_simple_bytes"], rel=0.02)


def test_the_prediction_knows_the_tied_table(monkeypatch):
    monkeypatch.setitem(
        turns.SIZES, "micro", (32, 1, 2, 64, 1024)
    )  # the table is most of the model
    row = rows_of(variants=TWO)["ngdiff"]
    two = row["peak_bytes"] - row["peak_extra_bytes"]
    assert row["tied_bytes"] == 4 * 32 * 1024
    assert row["peak_bytes"] == pytest.approx(two + row["peak_extra_predicted_bytes"], rel=0.02)


class FakeCuda:
    """What the meters ask of `torch.cuda`, in their order."""

    def __init__(self, patch):
        self.calls, self.now, self.held, self.mode = [], 0.0, 1000, 0
        names = (
            "synchronize",
            "reset_peak_memory_stats",
            "memory_allocated",
            "max_memory_allocated",
            "get_sync_debug_mode",
            "set_sync_debug_mode",
            "Event",
        )
        for name in names:
            patch.setattr(torch.cuda, name, getattr(self, name))

    def synchronize(self):
        self.calls.append("synchronize")

    def reset_peak_memory_stats(self):
        self.calls.append("reset")

    def memory_allocated(self):
        return self.held

    def max_memory_allocated(self):
        return 5000

    def get_sync_debug_mode(self):
        return self.mode

    def set_sync_debug_mode(self, mode):
        self.mode = mode

    def Event(self, enable_timing):
        outer = self

        class Event:
            def record(self):
                self.at = outer.now

            def elapsed_time(self, other):
                assert "synchronize" in outer.calls
                return 1e3 * (other.at - self.at)  # milliseconds

        return Event()


def test_meters_on_a_device(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    took = meters.timed(lambda: setattr(cuda, "now", 0.25), "cuda")
    assert cuda.calls == []  # nothing waits within a round
    meters.settle("cuda")
    assert took() == 0.25
    assert meters.allocated(lambda: setattr(cuda, "held", 1700), "cuda") == (4000, 700)

    def step():
        assert cuda.mode == "warn"
        for text in (
            "called a synchronizing CUDA operation",
            "something else",
            "called a synchronizing CUDA operation",
        ):
            warnings.warn(text, stacklevel=1)

    assert meters.reads(step, "cuda") == 2 and cuda.mode == 0


# ------------------------------------------------------------------------------------ out of memory
def _full(*_):
    raise torch.OutOfMemoryError("no memory")


def test_a_variant_that_does_not_fit_is_a_row_and_the_others_go_on(monkeypatch, capsys):
    monkeypatch.setattr(turns, "naive", _full)
    rows = step_table(size="micro", tokens=16, pairs=1, variants=(*TWO, "naive"))
    assert [row.get("outcome") for row in rows] == [None, None, "out of memory"]
    assert "time_ratio_naive" not in rows[1] and rows[1]["time_ratio_graddiff-two"] > 0
    assert re.search(r"^naive[ -]+out of memory$", capsys.readouterr().out, re.M)


def test_a_case_that_does_not_fit_says_what_would(monkeypatch):
    monkeypatch.setattr(turns, "graddiff_two", _full)
    monkeypatch.setattr(bench, "_room", lambda device: 600_000.0)
    with pytest.raises(ValueError) as raised:
        step_table(size="micro", tokens=128, pairs=1)
    needs, fits = str(raised.value).split("; estimated to fit: ")
    assert "micro_128 needs about" in needs and "activations" in needs and "has 0.0006" in needs
    assert (
        "--optimizer sgd --checkpointing (about" in fits
        and "--size 7B" not in fits
        and "--lora 16" not in fits
    )


def test_what_cannot_fit_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(bench, "_room", lambda device: 80e9)
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("built first"))
    monkeypatch.setattr(bench, "per_token", lambda case, device: 1e6 if case.checkpointing else 7e6)
    with pytest.raises(ValueError) as raised:
        step_table(size="7B", tokens=1024, precision="bfloat16")
    assert "adamw 54" in str(raised.value) and "weights 27" in str(raised.value)
    needs, fits = str(raised.value).split("; estimated to fit: ")
    assert (
        "needs about 108 GB" in needs
    )  # weights 27, gradients 13.5, stash and activations 13.5, moments 54
    assert "--lora 16" in fits and "--optimizer sgd (about 54 GB)" in fits and "--size 1B" in fits
    assert "--memory recompute" not in fits


def test_needs_are_what_a_step_takes():
    """The estimate of a small model beside its measured peak."""
    case = Case("1M", 256)
    subject = Subject(case, "cpu")
    ours = Variant("ngdiff", subject)
    ours.step()
    assert sum(bench.needs(case, bench.per_token(case, "cpu")).values()) == pytest.approx(
        ours.peak(), rel=0.1
    )


# -------------------------------------------------------------------------------------------- suite
def test_the_suite_runs_cases_apart_and_a_failed_one_is_a_row(monkeypatch, tmp_path, capsys):
    small = Case("1M", 16, pairs=1, variants=TWO)
    unknown = replace(small, size="micro")  # which the other process does not know
    monkeypatch.setitem(bench.CASES, "cpu", [[unknown, small, replace(small, tokens=32)]])
    rows = bench.suite(tmp_path, minutes=2)
    assert sorted(os.listdir(tmp_path)) == [
        "step_1M_16.jsonl",
        "step_micro_16.jsonl",
    ]  # the third was not needed
    assert "unknown size 'micro'" in rows[0]["outcome"] and [
        row["variant"] for row in rows[1:]
    ] == list(TWO)
    assert read_rows(tmp_path / "step_1M_16.jsonl") == rows[1:] and rows[1]["rounds"] == EVERY
    printed = capsys.readouterr().out
    assert re.search(r"^all[ -]+unknown size 'micro'", printed, re.M)
    assert printed.count("÷ naive") == 2  # one table


def test_a_case_out_of_time_is_a_row(monkeypatch, tmp_path):
    def late(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(bench.subprocess, "run", late)
    (row,) = bench._apart(Case("micro", 16), tmp_path / "step_x.jsonl", 3.0)
    assert (
        row["outcome"] == "out of time after 3 s"
        and read_rows(tmp_path / "step_x.jsonl")[0]["size"] == "micro"
    )


def test_a_killed_case_says_how_it_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(
        bench.subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, -9, "", "last words\n"),
    )
    assert (
        bench._apart(Case("micro", 16), tmp_path / "x.jsonl", 3.0)[0]["outcome"]
        == "ended with -9: last words"
    )


def test_the_suites_of_each_device_cover_the_targets():
    assert [choices[0].label for choices in bench.CASES["cpu"]] == ["10M_512", "10M_128"]
    full, short, twice, adapter = bench.CASES["cuda"]
    assert {case.precision for choices in bench.CASES["cuda"] for case in choices} == {"bfloat16"}
    assert [case.label for case in full] == [
        "7B_4096_bfloat16",
        "7B_4096_sgd_bfloat16",
        "1B_4096_bfloat16",
    ]
    assert (
        short[0].tokens == 1024 and twice[0].checkpointing and "ngdiff-recompute" in twice[0].names
    )
    assert [(case.size, case.lora) for case in adapter] == [("7B", 16), ("1B", 16)]


def test_it_runs_without_packages_that_are_not_needed(tmp_path):
    """On a machine with torch, transformers, peft and accelerate only."""
    code = """
import runpy, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        gone = ("datasets", "rouge_score", "papermill", "scipy", "sklearn", "pandas",\
 "pyarrow", "typer", "matplotlib")
        return None if name.split(".")[0] in gone else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
runpy.run_module("ngdiff.timing.step", run_name="__main__", alter_sys=True)
"""
    options = asdict(Case("1M", 16, pairs=1, lora=2, variants=TWO)) | {
        "json": str(tmp_path / "rows.jsonl")
    }
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(options)],
        capture_output=True,
        text=True,
        cwd=Path(bench.__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert [row["variant"] for row in read_rows(tmp_path / "rows.jsonl")] == list(TWO)


# ------------------------------------------------------------------------------------------- README
def test_the_readme_shows_what_rows_have_and_a_dash_where_one_lacks_it(tmp_path, measured):
    folder = tmp_path / "data/results/bench"
    folder.mkdir(parents=True)
    rows = [row | {"size": "1M"} for row in measured[0]]
    old = {"precision", "mfu", "reads", "peak_extra_predicted_bytes"}
    write_rows(
        folder / "step_1M_16.jsonl",
        [{k: v for k, v in row.items() if k not in old} for row in rows],
    )
    head = readme.bench(tmp_path).split("\n")[0]
    assert head.startswith("| tokens | step |") and "reads" not in head and "MFU" not in head
    failed = {
        **asdict(Case("7B", 4096, lora=16)),
        "variant": "all",
        "outcome": "no room",
        "stamp": rows[0]["stamp"],
    }
    write_rows(folder / "step_7B_4096.jsonl", [failed])
    write_rows(folder / "step_1M_16.jsonl", [row | {"mfu": 0.425} for row in rows])
    lines = readme.bench(tmp_path).split("\n")
    assert lines[0].endswith("| peak − two, MB (predicted) | reads | MFU |")
    assert lines[2].startswith("| 1M float32, adamw | 16 | graddiff-two | 1.000 |") and lines[
        2
    ].endswith("| 0 | 42% |")
    assert lines[9].startswith("| 7B float32, LoRA 16 | 4096 | all: no room | – |")
    assert lines[-1].startswith("0.0M parameters, torch.float32, 10 rounds, ")
