"""What a step costs: NGDiff beside both GradDiffs and a naive NGDiff, in one process, turn by turn.

Every round takes one step of each variant on the same model, optimizer and batches, so that a drift
of the machine's speed falls on all alike; ratios are taken round by round and their medians
reported with a bootstrap bound. `ngdiff.engine` prepares model and optimizer, for GradDiff too, so
that the time is a user's. The rate is so small that the steps of one variant change nothing that
another's time depends on. AutoLR is amortised: rounds come in multiples of its period.

    graddiff-two      the usual implementation: two backwards, the second accumulates onto the first
    graddiff-one      one backward of c·R − (1−c)·F: both graphs are alive at once
    naive             NGDiff as a first draft: clones, a loop over parameters, .item() for each norm
    ngdiff            ours, at a rate given beforehand
    ngdiff-recompute  ours, never holding two gradients (memory="recompute")
    ngdiff+autolr     ours, probing as by default: the step's rows and three times as many others;
                      -2, -1: probing the step's own rows with two forwards or with one
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ngdiff.core import vector
from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import NGDiff
from ngdiff.core.gradients import MODES
from ngdiff.core.point import inner
from ngdiff.core.step import UnlearningStep
from ngdiff.engine import meters
from ngdiff.engine.engine import PRECISIONS, Engine

Row = dict[str, Any]
EVERY, LR = 10, 1e-6
SIZES = {  # hidden, layers, heads, intermediate, vocabulary
    "1M": (128, 3, 4, 352, 2048),
    "10M": (256, 8, 4, 1024, 8192),
    "100M": (768, 12, 12, 2048, 16384),
    "1B": (2048, 18, 16, 5632, 32000),
    "7B": (4096, 32, 32, 11008, 32000),  # Llama-2-7B
}
LARGE = ("1B", "7B")  # output layer of their own, rows of 1024 tokens instead of 128
BASES = ("graddiff-two", "graddiff-one", "naive")
VARIANTS = (*BASES, "ngdiff", "ngdiff+autolr-2", "ngdiff+autolr-1", "ngdiff+autolr")
MAKE: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": partial(torch.optim.AdamW, lr=LR, weight_decay=0.01, fused=True),
    "sgd": partial(torch.optim.SGD, lr=LR, fused=True),
}
MOMENTS = {"adamw": 8, "sgd": 0}  # bytes a trained weight


def _autolr(forwards: int, fresh: int = 0) -> AutoLR:
    """Probes on the step's own rows with two forwards or one, or like the default, on four times
    the rows (`fresh=3`); no search, which is made once a run, no widening, so that every probe
    costs the same, and the rate stays LR."""
    return AutoLR(
        lr=LR, min_lr=LR, max_lr=LR, every=EVERY, forwards=forwards, fresh=fresh, search=0, widen=0
    )


OURS: dict[str, tuple[AutoLR | None, str]] = {  # step-size rule, memory mode
    "ngdiff": (None, "swap"),
    "ngdiff-recompute": (None, "recompute"),
    "ngdiff+autolr-2": (_autolr(2), "swap"),
    "ngdiff+autolr-1": (_autolr(1), "swap"),
    "ngdiff+autolr": (_autolr(2, fresh=3), "swap"),
}


@dataclass(frozen=True)
class Case:
    """What is measured. length: tokens a row, 0: at most 128 (1024 from 1B on). pairs: rounds, 0:
    30 (CUDA: 50). minutes: all the time there is, 0: as long as it takes; fewer rounds (10 at
    least) and less warm-up then. lora: rank of an adapter on the frozen model, 0: all weights are
    trained. memory="recompute" adds that variant. variants: (): all.

    Errors: ValueError for a name that is not known, or a batch that predicts nothing.
    """

    size: str = "10M"
    tokens: int = 512
    length: int = 0
    pairs: int = 0
    minutes: float = 0.0
    precision: str = "float32"
    optimizer: str = "adamw"
    lora: int = 0
    checkpointing: bool = False
    memory: str = "swap"
    variants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = (("size", SIZES), ("precision", PRECISIONS), ("optimizer", MAKE), ("memory", MODES))
        for what, names in known:
            if getattr(self, what) not in names:
                raise ValueError(
                    f"unknown {what} {getattr(self, what)!r}; choose one of: {', '.join(names)}"
                )
        if strange := [name for name in self.variants if name not in (*BASES, *OURS)]:
            raise ValueError(
                f"unknown variant {strange[0]!r}; choose some of: {', '.join((*BASES, *OURS))}"
            )
        if min(self.tokens, self.length or self.tokens) < 2:
            raise ValueError(
                "a batch needs rows of at least 2 tokens, one to predict from and one to predict, "
                f"got {self.tokens} tokens a batch and {self.length or self.tokens} a row"
            )
        if min(self.lora, self.pairs, self.minutes) < 0:
            raise ValueError("lora, pairs and minutes are 0 or more")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens a row."""
        length = min(self.length or (1024 if self.size in LARGE else 128), self.tokens)
        return max(1, self.tokens // length), length

    @property
    def names(self) -> tuple[str, ...]:
        return self.variants or (
            *VARIANTS[:4],
            *["ngdiff-recompute"][: self.memory == "recompute"],
            *VARIANTS[4:],
        )

    @property
    def label(self) -> str:
        """What distinguishes it, in a line and in the name of its file."""
        extra = (
            [f"lora{self.lora}"]
            if self.lora
            else [self.optimizer]
            if self.optimizer != "adamw"
            else []
        )
        extra += [self.precision] if self.precision != "float32" else []
        return "_".join(
            [self.size, str(self.tokens), *extra, *["checkpointing"][: self.checkpointing]]
        )

    def config(self, layers: int = 0) -> LlamaConfig:
        hidden, depth, heads, intermediate, vocabulary = SIZES[self.size]
        return LlamaConfig(
            hidden_size=hidden,
            num_hidden_layers=layers or depth,
            num_attention_heads=heads,
            vocab_size=vocabulary,
            intermediate_size=intermediate,
            max_position_embeddings=self.shape[1],
            tie_word_embeddings=self.size not in LARGE,
        )


def llama(case: Case, device: str, layers: int = 0) -> nn.Module:
    """A randomly initialised Llama of about that many parameters, made where it will be and in the
    precision it will have; with lora, frozen under an adapter like `ngdiff.lm.lora`'s."""
    kept = torch.get_default_dtype()
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        torch.set_default_dtype(getattr(torch, case.precision))
        try:
            model: Any = LlamaForCausalLM(case.config(layers))
        finally:
            torch.set_default_dtype(kept)
        if case.lora:
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(
                r=case.lora,
                lora_alpha=2 * case.lora,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            )
            model = get_peft_model(model, config)
    return model


# ----------------------------------------------------------------------------------------- variants
class Subject:
    """One model, one optimizer, a retain and a forget batch: all variants take turns on them."""

    def __init__(self, case: Case, device: str, layers: int = 0) -> None:
        self.case, self.device = case, device
        self.engine = Engine(device, case.precision, checkpointing=case.checkpointing)
        model, low = self.engine.prepare(llama(case, device, layers).eval())
        self.model: Any = model
        self.params: list[Any] = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = self.engine.optimizer(self.params, low, MAKE[case.optimizer])
        self.low = list(low.values())
        self.tied = case.size not in LARGE
        make = torch.Generator().manual_seed(1)
        vocabulary = SIZES[case.size][-1]
        self.ids = [
            torch.randint(0, vocabulary, case.shape, generator=make).to(device) for _ in "RF"
        ]

    def loss(self, which: int) -> torch.Tensor:
        ids = self.ids[which]  # (rows, time)
        logits = self.model(ids, use_cache=False).logits
        return nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()
        )

    def update(self) -> None:
        self.optimizer.step()
        self.clear()  # in the time of the variant that made the gradients

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def held(self) -> int:
        """Bytes that stay from step to step: weights, their low bits, optimizer state; on CUDA all
        that is allocated.
        """
        if self.device == "cuda":
            return torch.cuda.memory_allocated()
        states = inner(self.optimizer).state.values()
        moments = [t for s in states for t in s.values() if isinstance(t, torch.Tensor)]
        return sum(t.nbytes for t in [*self.model.parameters(), *self.low, *moments])


def graddiff_two(on: Subject) -> None:
    (0.5 * on.loss(0)).backward()
    (-0.5 * on.loss(1)).backward()
    on.update()


def graddiff_one(on: Subject) -> None:
    (0.5 * on.loss(0) - 0.5 * on.loss(1)).backward()
    on.update()


def naive(on: Subject) -> None:
    stashes = []
    for which in (0, 1):
        on.clear()
        on.loss(which).backward()
        grads = [p.grad.clone() for p in on.params]
        stashes.append((grads, sum(g.norm().item() ** 2 for g in grads) ** 0.5))
    (g_R, n_R), (g_F, n_F) = stashes
    for p, x, y in zip(on.params, g_R, g_F, strict=True):
        p.grad = x / n_R - y / n_F
    on.update()


class Variant:
    """One way to take the step. skipped: how many of its steps changed nothing (a loss that is not
    finite, say).
    """

    def __init__(self, name: str, subject: Subject) -> None:
        self.name, self.subject, self.skipped = name, subject, 0
        self.restart()

    def restart(self) -> None:
        """Its rule, where it has one, is due to probe in the next step."""
        on = self.subject
        if self.name not in OURS:
            plain = {"graddiff-two": graddiff_two, "graddiff-one": graddiff_one, "naive": naive}[
                self.name
            ]
            self.step: Callable[[], Any] = partial(plain, on)
            return
        rule, memory = OURS[self.name]
        options = replace(on.engine, memory=memory).options
        ours = UnlearningStep(on.model, on.optimizer, NGDiff(), rule, **options)
        fresh = rule.fresh if rule else 0  # the default looks at as many more batches

        def step() -> None:
            wide = [lambda: on.loss(0) / (1 + fresh)] * (1 + fresh) if fresh else None
            self.skipped += not ours(lambda: on.loss(0), lambda: on.loss(1), wide).updated

        self.step = step

    def peak(self) -> int:
        """Peak bytes of one step, one that probes where the rule does."""
        self.subject.clear()
        self.restart()
        return self.subject.held() + meters.allocated(self.step, self.subject.device)[0]


# -------------------------------------------------------------------------------------- measurement
def measure(case: Case, device: str) -> list[Row]:
    """One row a variant: seconds, ratios to both GradDiffs and to naive, peak bytes and their
    ratios, reads, utilisation.
    """
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
    for n in range(rounds):
        order = (
            fit[n % len(fit) :] + fit[: n % len(fit)]
        )  # nobody is always first, or always behind the same one
        taken = {v.name: meters.timed(v.step, device) for v in (order if n % 2 else order[::-1])}
        meters.settle(device)
        for name, read in taken.items():
            seconds[name].append(read())
        print(f"  round {n + 1}/{rounds}", end="\r" if n + 1 < rounds else "\n", flush=True)
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
    """Its first step, which is the one that takes most memory. Errors: OutOfMemoryError if it
    `must` fit.
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
    """Steps of warm-up and timed rounds, whole periods of AutoLR: as asked, or as many as one round
    says will fit.
    """
    on_cuda = variants[0].subject.device == "cuda"
    warm, rounds = (2 * EVERY, case.pairs or 50) if on_cuda else (EVERY, case.pairs or 30)
    rounds = -(-rounds // EVERY) * EVERY
    if not case.minutes:
        return warm, rounds
    meters.settle(variants[0].subject.device)
    start = time.perf_counter()
    for v in variants:
        v.step()
    meters.settle(variants[0].subject.device)
    now = time.perf_counter()
    left = (
        0.9 * (60 * case.minutes - (now - began)) / (now - start) - 4
    )  # rounds; four are for memory and reads
    warm = int(min(warm, max(2, left / 5)))
    return warm, int(min(rounds, max(1, (left - warm) // EVERY) * EVERY))


def _about(on: Subject) -> Row:
    """What is the same in every row of a case."""
    case, activations = on.case, meters.allocated(lambda: on.loss(1), on.device)[1]
    name = torch.cuda.get_device_name() if on.device == "cuda" else on.device
    return {
        **{"size": case.size, "parameters": sum(p.numel() for p in on.model.parameters())},
        **{
            "trained": sum(p.numel() for p in on.params),
            "tokens": on.ids[0].numel(),
            "length": case.shape[1],
        },
        **{
            "dtype": f"torch.{case.precision}",
            "precision": case.precision,
            "optimizer": case.optimizer,
            "lora": case.lora,
        },
        **{"checkpointing": case.checkpointing},
        **{"clock": meters.CLOCK[on.device], "reads_by": meters.READS_BY[on.device]},
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
    """Seconds of a variant and their ratios; of AutoLR, of whole periods, since a probe falls on
    one round in EVERY.
    """
    name, mine = row["variant"], seconds[row["variant"]]
    out: Row = {"seconds_median": statistics.median(mine), "seconds_mean": statistics.fmean(mine)}
    out["seconds_range"] = [min(mine), max(mine)]
    taken = out["seconds_mean" if "autolr" in name else "seconds_median"]
    out["mfu"] = row["flops"] / taken / row["flops_top"] if row["flops_top"] else None
    for base in (base for base in BASES if base in seconds):
        pairs = list(zip(mine, seconds[base], strict=True))
        many = EVERY if "autolr" in name else 1
        blocks = [pairs[i : i + many] for i in range(0, len(pairs), many)]
        ratios = [sum(a for a, _ in block) / sum(b for _, b in block) for block in blocks]
        out[f"time_ratio_{base}"] = statistics.median(ratios)
        out[f"time_ratio_{base}_range"] = [min(ratios), max(ratios)]
        if len(ratios) >= 5 and base != name:
            out[f"time_ratio_{base}_upper95"] = meters.upper95(ratios)
    return out


def _memory(row: Row, found: dict[str, Row]) -> Row:
    """Peak bytes beside the bases', and what swap should take beyond GradDiff with two backwards,
    in two ways:

    max(0, G − A_F)                  G bytes of gradients, A_F alive after the forget forward
    max(0, held + 2·G + 2·E − peak)  what swap ends its second backward with, less GradDiff's
                                     measured peak, in which are also the loss's own temporaries; E:
                                     the gradient of a tied table, which autograd has three times
                                     while it adds its two parts
    """
    peak, ours = row["peak_bytes"], OURS.get(row["variant"])
    out: Row = {
        f"peak_ratio_{base}": peak / found[base]["peak_bytes"] for base in BASES if base in found
    }
    if two := found.get("graddiff-two"):
        out["peak_extra_bytes"] = peak - two["peak_bytes"]
    if row["variant"] == "ngdiff":
        G = row["gradient_bytes"]
        out["peak_extra_simple_bytes"] = max(0, G - row["forget_activation_bytes"])
        if two:
            last = row["held_bytes"] + 2 * G + 2 * row["tied_bytes"]
            out["peak_extra_predicted_bytes"] = max(0, last - two["peak_bytes"])
    kernels = {"kernels": "triton" if row["fused"] else "eager", "memory": ours[1]} if ours else {}
    return out | kernels
