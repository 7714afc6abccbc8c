"""What a step costs: NGDiff beside both GradDiffs and a naive NGDiff, in one process, turn by turn.

Every round takes one step of each variant on the same model, optimizer and batches, so that a drift
of the machine's speed falls on all alike; ratios are taken round by round and their medians
reported with a bootstrap bound. `ngdiff.engine` prepares model and optimizer, for GradDiff too, so
that the time is a user's. The rate is so small that the steps of one variant change nothing that
another's time depends on. AutoLR is amortised: it probes once in EVERY rounds, and the probe's time
is spread over the OVER updates that lie between two probes of a run.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from ngdiff.core import vector
from ngdiff.engine import meters
from ngdiff.engine.footprint import stash
from ngdiff.store.progress import Progress
from ngdiff.timing.case import AUTOCAST, BASES, Case
from ngdiff.timing.subject import Subject
from ngdiff.timing.variants import EVERY, OURS, OVER, Variant

Row = dict[str, Any]


def measure(case: Case, device: str) -> list[Row]:
    """Return a row a variant: seconds, peak bytes, the ratios of both, reads, utilisation."""
    began = time.perf_counter()
    subject = Subject(case, device)
    variants = [Variant(name, subject) for name in case.names]
    fit = [v for v in variants if _fits(v, must=v is variants[0])]
    warm, rounds = _plan(case, fit, began)
    for v in fit:
        for _ in range(warm):
            v.step()
        v.restart()
        v.skipped = 0
    seconds: dict[str, list[float]] = {v.name: [] for v in fit}
    progress = Progress(f"{case.label}: round", rounds)
    for n in range(rounds):
        # nobody is always first, or always behind the same one
        order = fit[n % len(fit) :] + fit[: n % len(fit)]
        taken = {v.name: meters.timed(v.step, device) for v in (order if n % 2 else order[::-1])}
        meters.settle(device)
        for name, read in taken.items():
            seconds[name].append(read())
        progress(n + 1)
    found = {v.name: {"skipped": v.skipped, "peak_bytes": v.peak()} for v in fit}

    def forwards() -> None:
        for which in (0, 1):
            subject.loss(which)

    theirs = meters.reads(forwards, device)  # the model library's own
    for v in fit:  # the step after one that probed
        found[v.name] |= {"reads": meters.reads(v.step, device) - theirs, "reads_model": theirs}
    about = _about(subject) | {"warmup": warm, "rounds": rounds}
    rows = [
        about | {"variant": v.name} | found.get(v.name, {"outcome": "out of memory"})
        for v in variants
    ]
    for row in rows:
        if row["variant"] in seconds:
            row |= _times(row, seconds) | _memory(row, found)
    return rows


def _fits(variant: Variant, must: bool) -> bool:
    """Take its first step, which needs most memory; return whether there was enough.

    must: then too little is an OutOfMemoryError.
    """
    try:
        variant.step()
        return True
    except torch.OutOfMemoryError:
        if must:
            raise
    variant.subject.clear()
    variant.restart()
    gc.collect()
    torch.cuda.empty_cache()
    return False


def _plan(case: Case, variants: Sequence[Variant], began: float) -> tuple[int, int]:
    """Return steps of warm-up and timed rounds, in multiples of EVERY.

    There are as many as asked, or as one round says will fit into the case's minutes.
    """
    on_cuda = variants[0].subject.device == "cuda"
    warm, rounds = (2 * EVERY, case.pairs or 50) if on_cuda else (EVERY, case.pairs or 40)
    rounds = -(-rounds // EVERY) * EVERY
    if not case.minutes:
        return warm, rounds
    meters.settle(variants[0].subject.device)
    start = time.perf_counter()
    for v in variants:
        v.step()
    meters.settle(variants[0].subject.device)
    now = time.perf_counter()
    left = 0.9 * (60 * case.minutes - (now - began)) / (now - start)  # rounds
    left -= 4  # for memory and reads
    warm = int(min(warm, max(2, left / 5)))
    return warm, int(min(rounds, max(1, (left - warm) // EVERY) * EVERY))


def _about(on: Subject) -> Row:
    """Return what is the same in every row of a case."""
    case, activations = on.case, meters.allocated(lambda: on.loss(1), on.device)[1]
    name = torch.cuda.get_device_name() if on.device == "cuda" else on.device
    return {
        "size": case.size,
        "parameters": sum(p.numel() for p in on.model.parameters()),
        "trained": sum(p.numel() for p in on.params),
        "tokens": on.ids[0].numel(),
        "length": case.shape[1],
        "dtype": f"torch.{case.precision}",
        "precision": case.precision,
        "optimizer": case.optimizer,
        "lora": case.lora,
        "checkpointing": case.checkpointing,
        "clock": meters.CLOCK[on.device],
        "reads_by": meters.READS_BY[on.device],
        "flops": meters.flops(on.model, 2 * on.ids[0].numel(), case.shape[1]),  # both batches
        "flops_top": meters.top(name, case.precision),
        "gradient_bytes": sum(p.nbytes for p in on.params),
        "forget_activation_bytes": activations,
        "held_bytes": on.held(),
        "tied_bytes": sum(
            p.nbytes for p in on.params if p is on.model.get_input_embeddings().weight and on.tied
        ),
        "fused": vector.fused(vector._axpby_, on.params[0].device) is not None,
    }


def _times(row: Row, seconds: dict[str, list[float]]) -> Row:
    """Return the seconds of a variant and their ratios to the bases.

    AutoLR's are amortised, block by block of EVERY rounds, the first of which probes.
    """
    name, mine = row["variant"], seconds[row["variant"]]
    auto = "autolr" in name
    many = EVERY if auto else 1
    spent = [_amortised(mine[i : i + many]) for i in range(0, len(mine), many)]
    out: Row = {"seconds_median": statistics.median(mine), "seconds_mean": statistics.fmean(spent)}
    out["seconds_range"] = [min(mine), max(mine)]
    taken = out["seconds_mean" if auto else "seconds_median"]
    out["mfu"] = row["flops"] / taken / row["flops_top"] if row["flops_top"] else None
    for base in (base for base in (*BASES, *AUTOCAST) if base in seconds):
        theirs = seconds[base]
        means = [statistics.fmean(theirs[i : i + many]) for i in range(0, len(theirs), many)]
        ratios = [a / b for a, b in zip(spent, means, strict=True)]
        out[f"time_ratio_{base}"] = statistics.median(ratios)
        out[f"time_ratio_{base}_range"] = [min(ratios), max(ratios)]
        if len(ratios) >= 5 and base != name:
            out[f"time_ratio_{base}_upper95"] = meters.upper95(ratios)
    return out


def _amortised(block: Sequence[float]) -> float:
    """Return the mean seconds of an update when the block's first round, which probes, is one of
    OVER; of a block of one, its seconds.
    """
    probe, *held = block
    return (probe + (OVER - 1) * statistics.fmean(held)) / OVER if held else probe


def _memory(row: Row, found: dict[str, Row]) -> Row:
    """Return peak bytes beside the bases', and what swap should take beyond GradDiff with two.

    The latter is reckoned in two ways:

    max(0, G − A_F)                  G bytes of gradients, A_F alive after the forget forward
    max(0, held + 2·G + 2·E − peak)  what swap ends its second backward with, less GradDiff's
                                     measured peak, in which are also the loss's own temporaries; E:
                                     the gradient of a tied table, which autograd has three times
                                     while it adds its two parts
    """
    peak, ours = row["peak_bytes"], OURS.get(row["variant"])
    out: Row = {
        f"peak_ratio_{base}": peak / found[base]["peak_bytes"]
        for base in (*BASES, *AUTOCAST)
        if base in found
    }
    if two := found.get("graddiff-two"):
        out["peak_extra_bytes"] = peak - two["peak_bytes"]
    if row["variant"] == "ngdiff":
        G = row["gradient_bytes"]
        out["peak_extra_simple_bytes"] = stash(G, row["forget_activation_bytes"])
        if two:
            last = row["held_bytes"] + 2 * G + 2 * row["tied_bytes"]
            out["peak_extra_predicted_bytes"] = max(0, last - two["peak_bytes"])
    kernels = {"kernels": "triton" if row["fused"] else "eager", "memory": ours[1]} if ours else {}
    return out | kernels
