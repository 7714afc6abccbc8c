"""What `ngdiff unlearn` is asked for: its options, checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ngdiff import methods
from ngdiff.core.step import UnlearningStep
from ngdiff.data.benchmark import Benchmark
from ngdiff.engine.engine import Engine
from ngdiff.lm.lora import ADAPTER
from ngdiff.store.cache import content_key
from ngdiff.store.content import content
from ngdiff.study.trial import OPTIMIZERS, rule_of

PLACES = ("forget", "retain", "holdout", "out")  # what is in the files counts, not where they are
ENGINE = ("device", "precision", "memory", "checkpointing", "compile", "sharding")
WHERE = (
    "device",
    "memory",
    "checkpointing",
    "compile",
    "sharding",
    "save_every",
)  # up to rounding no result differs


@dataclass(frozen=True)
class Job:
    """Settings of one run; the command's options. lr: None is 1e-3, which AutoLR's search starts
    from and others refuse.

    Errors, all before a model is loaded: ValueError for a name, number or combination that cannot
    work, FileNotFoundError.
    """

    model: str
    forget: Path
    retain: Path
    out: Path
    holdout: Path | None = None
    stop_level: float | None = None
    method: str = "ngdiff"
    stepsize: str = "autolr"
    lr: float | None = None
    steps: int = 100
    batch_size: int = 32
    micro: int | None = None
    seed: int = 0
    optimizer: str = "adamw"
    dropout: bool = False
    precision: str = "float32"
    lora: int | None = None
    lora_alpha: float = 32.0
    lora_targets: str = "all-linear"
    device: str = "auto"
    memory: str = "swap"
    checkpointing: bool = False
    compile: bool = False
    sharding: str = "shard"
    save_every: int = 50

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("micro", 1),
            ("lora", 1),
            ("save_every", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(
                    f"--{name.replace('_', '-')} must be at least {least}, got {value}"
                )
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"unknown optimizer {self.optimizer!r}; choose one of: {', '.join(OPTIMIZERS)}"
            )
        if self.stop_level is not None and (self.holdout or not 0 < self.stop_level < math.inf):
            raise ValueError(
                "--stop-level takes a positive loss in nats per token, and no --holdout beside it"
            )
        if self.lora is None and (self.lora_alpha, self.lora_targets) != (
            Job.lora_alpha,
            Job.lora_targets,
        ):
            raise ValueError("--lora-alpha and --lora-targets say how --lora R adapts: add --lora")
        if self.lora is not None and not 0 < self.lora_alpha < math.inf:
            raise ValueError(f"--lora-alpha must be positive, got {self.lora_alpha}")
        if self.lora is not None and (Path(self.place) / ADAPTER).is_file():
            raise ValueError(
                f"{self.model} is an adapter already: leave --lora out to train it on, or merge "
                "it first"
            )
        if str(self.folder) == self.place:
            raise ValueError(f"--out {self.out} is the model itself: choose another folder")
        self.rehearse()

    def rehearse(self) -> None:
        """A step on one number: what it would refuse is refused before anything is loaded."""
        rule, word = self.rule, self.stepsize.split()[0]
        if self.lr is None and not word.startswith("autolr") and " lr=" not in self.stepsize:
            raise ValueError(
                f"--stepsize {word} does not find its rate: give one, such as --lr 1e-5"
            )
        one = torch.zeros(1, requires_grad=True)
        optimizer = (self.make or torch.optim.AdamW)([{"params": [one]}])
        UnlearningStep([one], optimizer, self.recipe.direction, rule, memory=self.engine.memory)

    @property
    def folder(self) -> Path:
        return self.out.expanduser().resolve()

    @property
    def work(self) -> Path:
        """Where the run lives until it is finished."""
        return self.folder.with_name(f".{self.folder.name}.unfinished")

    @cached_property
    def place(self) -> str:
        """The model's folder, absolute (an adapter names its base by it), or its hub id."""
        folder = Path(self.model).expanduser()
        return str(folder.resolve()) if folder.is_dir() else self.model

    @property
    def recipe(self) -> methods.Method:
        return methods.method(self.method)

    @property
    def rule(self) -> Any:
        return rule_of(self.stepsize or "''", 1e-3 if self.lr is None else self.lr, self.steps)

    @property
    def make(self) -> Callable[[Any], torch.optim.Optimizer] | None:
        """None: the problem's AdamW."""
        return _sgd if self.optimizer == "sgd" else None

    @cached_property
    def engine(self) -> Engine:
        try:
            kind = torch.device("cpu" if self.device == "auto" else self.device).type
            engine = Engine(**{name: getattr(self, name) for name in ENGINE})
        except (
            RuntimeError
        ) as error:  # torch's, of a device; the engine's, of a launch that owns the gradients
            raise ValueError(str(error).splitlines()[0]) from error
        if kind != "cpu" and not torch.accelerator.is_available():
            raise ValueError(
                f"--device {self.device}: there is no accelerator here; take auto or cpu"
            )
        return engine

    def settings(self, bench: Benchmark) -> dict[str, Any]:
        """All that decides the result: a checkpoint or a finished run of other settings is not this
        one's.
        """
        mine = {
            name: value for name, value in asdict(self).items() if name not in (*PLACES, *WHERE)
        }
        if (
            self.precision == "bfloat16"
        ):  # shards hold float32 weights, others bfloat16 and the low bits
            mine["sharded"] = self.engine.sharded
        if self.recipe.key not in methods.METHODS:  # a method of the user: its code counts
            mine["method"] = content_key(content(self.recipe))
        return mine | {"model": self.place, "rows": bench.fingerprint}


def _sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=1e-3)
