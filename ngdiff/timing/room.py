"""Whether a case fits on the device, before its model is built, and which changes of it would."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ngdiff.engine import meters
from ngdiff.engine.footprint import Footprint, planned, stash
from ngdiff.timing.case import SHARED, SIZES, Case
from ngdiff.timing.subject import Subject


def needs(case: Case, activations: float, memory: str = "swap") -> Footprint:
    """Return the estimate of one NGDiff step, from the number of weights of the case.

    activations: bytes a token of a batch (`per_token`).
    """
    hidden, layers, heads, intermediate, vocabulary = SIZES[case.size]
    shared = hidden * SHARED.get(case.size, heads) // heads  # width of keys and of values
    block = 2 * hidden * (hidden + shared) + 3 * hidden * intermediate + 2 * hidden
    N = layers * block + hidden + vocabulary * hidden * (2 if case.large else 1)
    trained, frozen = (
        (case.lora * layers * (9 * hidden + 2 * shared + 3 * intermediate), N)
        if case.lora
        else (N, 0)
    )
    return planned(
        trained,
        frozen,
        precision=case.precision,
        optimizer=case.optimizer,
        activations=activations * case.shape[0] * case.shape[1],
        memory=memory,
        adapter=bool(case.lora),
    )


def per_token(case: Case, device: str) -> float:
    """Return bytes of activations a token, from one and two of L layers: A₁ + (L − 1)·(A₂ − A₁).

    These are the most bytes alive in a forward, what the loss takes for itself included.
    `ngdiff.engine.watch.prepared` counts those that the forward keeps for its backward.
    """
    one_row = replace(case, tokens=case.shape[1])
    held = []
    for layers in (1, 2):
        on = Subject(one_row, device, layers)
        with torch.no_grad():
            on.loss(1)  # what a library takes for itself at the first forward is no activation
        held.append(meters.allocated(partial(on.loss, 1), device)[0])
    return (held[0] + (SIZES[case.size][1] - 1) * (held[1] - held[0])) / one_row.tokens


def advice(case: Case, device: str, room: float) -> str:
    """Return why a case does not fit into `room` bytes, and which changes of it would."""
    changes = {flag: replace(case, **change) for flag, change in _changes(case).items()}
    tokens = {c: per_token(c, device) for c in dict.fromkeys([case, *changes.values()])}
    found = needs(case, tokens[case])
    sums = {flag: needs(c, tokens[c], c.memory).peak() for flag, c in changes.items()}
    fit = [
        f"{flag} (about {size / 1e9:.2g} GB)" for flag, size in sums.items() if 1.1 * size < room
    ]
    parts = {
        "weights": found.weights,
        "gradients": found.gradients,
        "stash": stash(found.gradients, found.forget),
        "activations": found.forget,
        case.optimizer: found.optimizer,
    }
    what = ", ".join(f"{name} {size / 1e9:.2g}" for name, size in parts.items())
    less = "; ".join(fit) or "none of these changes alone, take fewer tokens too"
    return (
        f"{case.label} needs about {found.peak() / 1e9:.3g} GB ({what}) and the device has "
        f"{room / 1e9:.3g}; estimated to fit: {less}"
    )


def _changes(case: Case) -> dict[str, dict[str, Any]]:
    """Return what may need less than the case: flags of the command, and what they set."""
    smaller = list(SIZES)[: list(SIZES).index(case.size)][-1:]
    recompute = "--memory recompute --variants graddiff-two,ngdiff-recompute"
    changes: dict[str, dict[str, Any]] = {}
    if not case.checkpointing:
        changes["--checkpointing"] = {"checkpointing": True}
    if case.precision == "float32":
        changes["--precision bfloat16"] = {"precision": "bfloat16"}
    if case.optimizer != "sgd" and not case.lora:
        changes["--optimizer sgd"] = {"optimizer": "sgd"}
    if not case.lora:
        changes["--optimizer sgd --checkpointing"] = {"optimizer": "sgd", "checkpointing": True}
    changes[recompute] = {"memory": "recompute"}
    if not case.lora:
        changes["--lora 16"] = {"lora": 16}
    return changes | {f"--size {name}": {"size": name} for name in smaller}


def capacity(device: str) -> float | None:
    """Return the bytes of the device; None for a host, which may swap."""
    return float(torch.cuda.get_device_properties(0).total_memory) if device == "cuda" else None
