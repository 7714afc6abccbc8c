"""What an evaluation's time goes to, beside the least that its matrix products need.

The floor of a part is tokens × FLOPs, at the speed of a matrix product of the model's own shape on
this machine, by the library that the evaluation uses (`engine.linear`). Each token that must be
computed counts 2 FLOPs a weight, and three times that with a backward. Output weights count only
where something is predicted. Attention and all that is no product are above it. Above the floor are
also the operators listed with their own CPU time, by torch.profiler.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ngdiff.engine.linear import quick
from ngdiff.lm.train import one_thread
from ngdiff.store.table import Column, Table

MOST = 8  # operators that are named
Row = dict[str, Any]


def measure(subject: Any, rows: dict[str, list[Row]], parts: dict[str, Callable]) -> list[Row]:
    """Return rows: of each part its CPU time, its floor, and its operators, dearest first."""
    found = []
    with one_thread():
        for part, work in parts.items():
            work()  # what is made once is made
            cpu = time.process_time()
            work()
            cpu = time.process_time() - cpu
            flops = needed(subject, rows)[part]
            found.append({"part": part, "what": "all", "cpu_seconds": cpu, "share": 1.0})
            floor = flops / rate(subject.lm.model.config)
            found.append(_row(part, f"floor: {flops / 1e9:.0f} GFLOP", floor, cpu))
            with profile(activities=[ProfilerActivity.CPU]) as told:
                work()
            events = sorted(told.key_averages(), key=lambda e: -e.self_cpu_time_total)
            # under the profiler all is slower: shares are told of the time without it
            whole = sum(event.self_cpu_time_total for event in events)
            for event in events[:MOST]:
                seconds = event.self_cpu_time_total / whole * cpu
                found.append(_row(part, event.key, seconds, cpu))
    return found


def _row(part: str, what: str, seconds: float, of: float) -> Row:
    return {"part": part, "what": what, "cpu_seconds": seconds, "share": seconds / of}


def rate(config: Any) -> float:
    """FLOP/s of a float32 product of 512 tokens with the model's feed-forward weights."""
    tokens, wide = 512, config.intermediate_size
    x, layer = torch.randn(tokens, config.hidden_size), nn.Linear(config.hidden_size, wide, False)
    best = 0.0
    with quick(layer), torch.inference_mode():
        for _ in range(5):
            cpu = time.process_time()
            for _ in range(20):
                layer(x)
            spent = time.process_time() - cpu
            best = max(best, 20 * 2 * tokens * layer.weight.numel() / spent)
    return best


def needed(subject: Any, rows: dict[str, list[Row]], new: int = 200) -> dict[str, float]:
    """FLOPs of each part's matrix products, attention left out.

    new: tokens of a generation.
    """
    model = subject.lm.model
    head = 2 * model.get_output_embeddings().weight.numel()
    tables = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    body = 2 * (sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in tables))
    seen: set[tuple[int, ...]] = set()  # beginnings of texts: each is computed once
    asked: set[tuple[int, ...]] = set()
    for part, members in rows.items():
        for row in members:
            wrong = () if part == "holdout" else row.get("perturbed_answer", ())
            also = None if part == "holdout" else row.get("paraphrased_answer")
            for answer in filter(None, (row["answer"], also, *wrong)):
                ids, first = _tokens(subject.encode(row["question"], answer))
                seen |= {ids[:n] for n in range(1, len(ids) + 1)}
                asked |= {ids[:n] for n in range(first, len(ids) + 1)}
    prompts = {tuple(subject.answer(r).given) for p, m in rows.items() if p != "holdout" for r in m}
    own = [_tokens(subject.answer(row)) for p in ("forget", "holdout") for row in rows.get(p, ())]
    return {
        "likelihood": float(len(seen) * body + len(asked) * head),
        "generation": float(
            (sum(map(len, prompts)) + len(prompts) * (new - 1)) * body + len(prompts) * new * head
        ),
        "gradient norms": 3.0
        * sum((len(ids) - 1) * body + (len(ids) - first) * head for ids, first in own),
    }


def _tokens(example: Any) -> tuple[tuple[int, ...], int]:
    """Return the tokens that predict something or come before, and the first one that predicts."""
    return tuple(example.input_ids[:-1]), max(1, len(example.prompt_ids))


def floor_table(rows: list[Row]) -> Table:
    """The rows as they are, part by part."""
    spent = Column("cpu_seconds", "CPU s", ".2f", "right")
    share = Column("share", format=".0%", align="right")
    return Table((Column("part"), Column("what"), spent, share), rows)
