"""What a step costs: NGDiff beside both GradDiffs and a naive NGDiff, in one process, turn by turn.

Every round takes one step of each variant, on the same model size and batches, so that a drift of the machine's speed
falls on all alike; ratios are taken round by round and their medians reported with a bootstrap bound. On the CPU time
is CPU time on one thread; peak memory is summed from the allocator's own events, not from the process's size. AutoLR
is amortised: rounds come in multiples of its period.

    graddiff-two   two backwards, the second accumulates onto the first       the usual implementation
    graddiff-one   one backward of c·R − (1−c)·F                              both graphs alive at once
    naive          clones, a loop over parameters, .item() for each norm      NGDiff as a first draft
    ngdiff         ours, at a rate given beforehand
    ngdiff+autolr  ours, probing as by default: the step's rows and three times as many others; -2, -1: probing the step's
                   own rows with two forwards or with one
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ngdiff.autolr import AutoLR
from ngdiff.cache import probe_writable
from ngdiff.directions import NGDiff
from ngdiff.results import stamp, write_rows
from ngdiff.step import UnlearningStep

EVERY = 10
SIZES = {  # hidden, layers, heads, intermediate, vocabulary
    "1M": (128, 3, 4, 352, 2048),
    "10M": (256, 8, 4, 1024, 8192),
    "100M": (768, 12, 12, 2048, 16384),
}


def llama(size: str, context: int, device: str, dtype: torch.dtype) -> nn.Module:
    """A randomly initialised Llama of about that many parameters."""
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; choose one of: {', '.join(SIZES)}")
    hidden, layers, heads, intermediate, vocabulary = SIZES[size]
    config = LlamaConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, vocab_size=vocabulary,
                         intermediate_size=intermediate, max_position_embeddings=context, tie_word_embeddings=True)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).to(device, dtype)


class Bench:
    """One variant: its own model, optimizer and `step()`."""

    def __init__(self, name: str, size: str, tokens: int, device: str, dtype: torch.dtype) -> None:
        time_steps = min(tokens, 128)
        self.name, self.model = name, llama(size, time_steps, device, dtype)
        make = torch.Generator().manual_seed(1)
        shape = (max(1, tokens // time_steps), time_steps)
        self.ids = [torch.randint(0, self.model.config.vocab_size, shape, generator=make).to(device) for _ in "RF"]
        self.params = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.params, lr=1e-5, weight_decay=0.01, fused=True)
        rules = {
            "ngdiff": None,
            "ngdiff+autolr-2": _autolr(2),
            "ngdiff+autolr-1": _autolr(1),
            "ngdiff+autolr": _autolr(2, 3),
        }
        if name in rules:
            ours = UnlearningStep(self.model.eval(), self.optimizer, NGDiff(), rules[name])
            fresh = getattr(rules[name], "fresh", 0)  # the default looks at as many more batches
            wide = (lambda: [lambda: self.loss(0) / (1 + fresh)] * (1 + fresh)) if fresh else (lambda: None)
            self.step: Callable[[], Any] = lambda: ours(lambda: self.loss(0), lambda: self.loss(1), wide())
        else:
            self.step = {"graddiff-two": self.two, "graddiff-one": self.one, "naive": self.naive}[name]

    def loss(self, which: int) -> torch.Tensor:
        ids = self.ids[which]  # (rows, time)
        logits = self.model(ids, use_cache=False).logits
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())

    def two(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        (0.5 * self.loss(0)).backward()
        (-0.5 * self.loss(1)).backward()
        self.optimizer.step()

    def one(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        (0.5 * self.loss(0) - 0.5 * self.loss(1)).backward()
        self.optimizer.step()

    def naive(self) -> None:
        stashes = []
        for which in (0, 1):
            self.optimizer.zero_grad()
            self.loss(which).backward()
            grads = [p.grad.clone() for p in self.params]
            stashes.append((grads, sum(g.norm().item() ** 2 for g in grads) ** 0.5))
        (g_R, n_R), (g_F, n_F) = stashes
        for p, x, y in zip(self.params, g_R, g_F, strict=True):
            p.grad = x / n_R - y / n_F
        self.optimizer.step()


VARIANTS = ("graddiff-two", "graddiff-one", "naive", "ngdiff", "ngdiff+autolr-2", "ngdiff+autolr-1", "ngdiff+autolr")


def _autolr(forwards: int, fresh: int = 0) -> AutoLR:
    """Probes on the step's own rows with two forwards or one, or like the default, on four times the rows (`fresh=3`);
    no search, which is made once a run, and no widening, so that every probe costs the same."""
    return AutoLR(lr=1e-5, every=EVERY, forwards=forwards, fresh=fresh, search=0, widen=0)


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def peak(bench: Bench, device: str) -> int:
    """Peak bytes of one step: weights, optimizer state, and the most that was alive on top of them.

    Called after whole periods of AutoLR, so that its step is one that probes.
    """
    bench.optimizer.zero_grad(set_to_none=True)  # else only some variants would start with old gradients to free
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        bench.step()
        torch.cuda.synchronize()
        return _held(bench) + torch.cuda.max_memory_allocated() - held
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        bench.step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return _held(bench) + most


def _held(bench: Bench) -> int:
    states = [t for s in bench.optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
    return sum(t.nbytes for t in [*bench.params, *states])


def measure(size: str, tokens: int, pairs: int, device: str, dtype: torch.dtype) -> list[dict[str, Any]]:
    """One row a variant: seconds, ratios to both GradDiffs and to naive, peak bytes and their ratios."""
    from scipy import stats

    rounds = -(-pairs // EVERY) * EVERY  # whole periods of AutoLR
    benches = [Bench(name, size, tokens, device, dtype) for name in VARIANTS]
    for bench in benches:
        for _ in range(20 if device == "cuda" else EVERY):  # after it every AutoLR is due to probe in the first round
            bench.step()
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for n in range(rounds):
        for bench in benches[n % len(benches) :] + benches[: n % len(benches)]:  # nobody is always first
            began = _clock(device)
            bench.step()
            seconds[bench.name].append(_clock(device) - began)
        print(f"  round {n + 1}/{rounds}", end="\r" if n + 1 < rounds else "\n", flush=True)
    peaks = {bench.name: peak(bench, device) for bench in benches}
    rows = []
    for bench in benches:
        mine = seconds[bench.name]
        row = {"variant": bench.name, "size": size, "parameters": sum(p.numel() for p in bench.params),
               "tokens": bench.ids[0].numel(), "dtype": str(dtype), "rounds": rounds, "seconds_median": statistics.median(mine),
               "seconds_mean": statistics.fmean(mine), "peak_bytes": peaks[bench.name]}  # fmt: skip
        for base in ("graddiff-two", "graddiff-one", "naive"):
            theirs = seconds[base]
            blocks = [sum(mine[i : i + EVERY]) / sum(theirs[i : i + EVERY]) for i in range(0, rounds, EVERY)]
            single = [a / b for a, b in zip(mine, theirs, strict=True)]
            ratios = blocks if "autolr" in bench.name else single  # a probe falls on one round in EVERY
            row[f"time_ratio_{base}"] = statistics.median(ratios)
            row[f"time_ratio_{base}_range"] = [min(ratios), max(ratios)]
            if len(ratios) >= 10 and base != bench.name:
                found = stats.bootstrap((ratios,), np.median, method="percentile", rng=0)
                row[f"time_ratio_{base}_upper95"] = float(found.confidence_interval.high)
            row[f"peak_ratio_{base}"] = peaks[bench.name] / peaks[base]
        rows.append(row)
    return rows


def step_table(size: str = "10M", tokens: int = 512, pairs: int = 30, json: Path | None = None) -> list[dict[str, Any]]:
    """`ngdiff bench step`: measure, print one table, and save the rows where `json` says (.jsonl)."""
    if json is not None and Path(json).suffix != ".jsonl":
        raise ValueError(f"rows are saved as .jsonl, not {str(json)!r}")
    if tokens < 2:
        raise ValueError(f"a batch needs at least 2 tokens, one to predict from and one to predict, got {tokens}")
    if json is not None:
        probe_writable(Path(json).parent)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    began = time.perf_counter()
    torch.set_num_threads(1)
    try:
        rows = measure(size, tokens, pairs, device, torch.float32)
    finally:
        torch.set_num_threads(threads)
    mark = stamp({"size": size, "tokens": tokens, "pairs": pairs}, 1, time.perf_counter() - began)
    for row in rows:
        row["stamp"] = mark
    print(table(rows, f"{mark['device']}, {'one thread, CPU time' if device == 'cpu' else 'device time'}"))
    if json is not None:
        write_rows(Path(json), rows)
        print(f"rows saved in {json}")
    return rows


def table(rows: list[dict[str, Any]], where: str) -> str:
    """The rows as text: time and peak memory, each relative to GradDiff with two backwards, with one, and to naive."""
    first = rows[0]
    head = f"{first['parameters'] / 1e6:.1f}M parameters, {first['tokens']} tokens a batch, {first['rounds']} rounds; {where}"
    lines = [head, f"{'':18}{'s/step':>9}{'time ÷ two':>12}{'[range]':>16}{'upper 95%':>10}{'÷ one':>8}{'÷ naive':>9}"
                   f"{'peak MB':>9}{'÷ two':>8}{'÷ one':>8}{'÷ naive':>9}"]  # fmt: skip
    for r in rows:
        low, high = r["time_ratio_graddiff-two_range"]
        upper = r.get("time_ratio_graddiff-two_upper95")
        lines.append(
            f"{r['variant']:18}{r['seconds_median']:9.3f}{r['time_ratio_graddiff-two']:12.3f}"
            f"{f'[{low:.3f}, {high:.3f}]':>16}{f'{upper:.3f}' if upper else '-':>10}{r['time_ratio_graddiff-one']:8.3f}"
            f"{r['time_ratio_naive']:9.3f}{r['peak_bytes'] / 1e6:9.1f}{r['peak_ratio_graddiff-two']:8.3f}"
            f"{r['peak_ratio_graddiff-one']:8.3f}{r['peak_ratio_naive']:9.3f}"
        )
    return "\n".join(lines)
