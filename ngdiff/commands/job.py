"""The options of `ngdiff unlearn`, checked before anything is loaded.

The command reads its options off the fields (`ngdiff.commands.options`), so torch is imported by
the methods that need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngdiff import methods
from ngdiff.commands.asking import Asking
from ngdiff.commands.places import need_out
from ngdiff.data.benchmark import Benchmark
from ngdiff.data.files import need
from ngdiff.store.content import content_key
from ngdiff.store.values import content
from ngdiff.study.trial import OPTIMIZERS, rule_of

if TYPE_CHECKING:  # the command's help reads the fields, and torch takes seconds
    import torch

    from ngdiff.engine.engine import Engine

# what is in the files counts, not where they are
LONG = ("", "truncate", "skip")  # "" refuses
PLACES = ("model", "tokenizer", "forget", "retain", "holdout", "out")
ASKED = ("prompt", "long")  # settings only where they are given
JUDGED = ("allow_unknown", "forget_bound", "retain_bound")  # no weight depends on them
ENGINE = ("device", "precision", "memory", "checkpointing", "compile", "sharding")
WHERE = (
    "device",
    "memory",
    "checkpointing",
    "compile",
    "sharding",
    "save_every",
    "trust_remote_code",
)  # up to rounding no result differs


@dataclass(frozen=True)
class Job(Asking):
    """Settings of one run; the command's options. lr: AutoLR starts its search there, at 1e-3 where
    it is None. Other rules need one.

    Errors, all before a model is loaded: ValueError for a name, number or combination that cannot
    work, FileNotFoundError.
    """

    forget: Path = field(
        metadata={"help": 'Rows {"question", "answer"} or {"text"}: JSON lines or an array.'}
    )
    retain: Path = field(metadata={"help": "Rows to keep."})
    out: Path = field(
        metadata={"help": "Folder to write: model, report.html, run.json, model card."}
    )
    holdout: Path | None = field(
        default=None, metadata={"help": "Hold-out rows: stop at the model's loss on them."}
    )
    stop_level: float | None = field(
        default=None, metadata={"help": "Stop at this forget loss (nats per token)."}
    )
    allow_unknown: bool = field(
        default=False,
        metadata={"help": "Go on where the model knows the forget rows no better than hold-out."},
    )
    forget_bound: float = field(
        default=0.1,
        metadata={"help": "Share of forget answers that may still be said verbatim in the end."},
    )
    retain_bound: float = field(
        default=0.9,
        metadata={"help": "Share of the retain answers' score that must be kept; 0: no bound."},
    )
    method: str = field(
        default="ngdiff",
        metadata={"help": "ngdiff, graddiff-0.9, npo, kl, …, or your own module:name."},
    )
    stepsize: str = field(
        default="autolr",
        metadata={"help": 'autolr, constant, linear, cosine, three-point; or "autolr every=5".'},
    )
    lr: float | None = field(
        default=None,
        metadata={"help": "Learning rate; for autolr the starting rate (default 1e-3)."},
    )
    steps: int = field(default=100, metadata={"help": "Largest number of updates."})
    batch_size: int = field(
        default=32,
        metadata={"help": "Forget rows per step, and as many retain rows (all processes)."},
    )
    micro: int | None = field(
        default=None, metadata={"help": "Rows per forward pass: less memory, the same result."}
    )
    long: str = field(
        default="",
        metadata={"help": "Rows longer than the model's context: truncate or skip; else an error."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the order of the rows."})
    optimizer: str = field(default="adamw", metadata={"help": "adamw or sgd."})
    dropout: bool = field(default=False, metadata={"help": "Train with the model's own dropout."})
    precision: str = field(
        default="float32", metadata={"help": "float32 or bfloat16 (the updates stay exact)."}
    )
    lora: int | None = field(
        default=None, metadata={"help": "Train only a LoRA adapter of this rank (peft's format)."}
    )
    lora_alpha: float = field(default=32.0, metadata={"help": "The adapter's alpha."})
    lora_targets: str = field(
        default="all-linear", metadata={"help": "Modules to adapt, such as q_proj,v_proj."}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, …"})
    memory: str = field(
        default="swap", metadata={"help": "swap, or recompute: less memory, 1/3 to 1/2 more time."}
    )
    checkpointing: bool = field(
        default=False, metadata={"help": "Recompute activations in the backward pass."}
    )
    compile: bool = field(default=False, metadata={"help": "Use torch.compile on each block."})
    sharding: str = field(
        default="shard",
        metadata={"help": "With several processes: shard (FSDP2) or replicate (DDP)."},
    )
    save_every: int = field(default=50, metadata={"help": "Steps between checkpoints; 0: none."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for path in (self.forget, self.retain, self.holdout):
            if path is not None:
                need(path)
        if str(self.folder) == self.place:
            raise ValueError(f"--out {self.out} is the model itself: choose another folder")
        need_out(self.folder)
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
        for name in ("forget_bound", "retain_bound"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"--{name.replace('_', '-')} is a share from 0 to 1, got {getattr(self, name)}"
                )
        if self.long not in LONG:
            raise ValueError(f"--long takes truncate or skip, not {self.long!r}")
        self._check_adapter()
        self.rehearse()

    def _check_adapter(self) -> None:
        from ngdiff.lm.lora import ADAPTER

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

    def rehearse(self) -> None:
        """Make a step on one number, so that what it would refuse is refused before anything is
        loaded.
        """
        import torch

        from ngdiff.core.processes import Processes
        from ngdiff.core.step import UnlearningStep

        rule, word = self.rule, self.stepsize.split()[0]
        if self.lr is None and not word.startswith("autolr") and " lr=" not in self.stepsize:
            raise ValueError(
                f"--stepsize {word} does not find its rate: give one, such as --lr 1e-5"
            )
        one = torch.zeros(1, requires_grad=True)
        optimizer = (self.make or torch.optim.AdamW)([{"params": [one]}])
        alone = Processes()  # whatever the launch
        options: dict[str, Any] = {"memory": self.engine.memory, "processes": alone}
        UnlearningStep([one], optimizer, self.recipe.direction, rule, **options)

    @property
    def folder(self) -> Path:
        return self.out.expanduser().resolve()

    @property
    def work(self) -> Path:
        """Return the folder of the run until it is finished."""
        return self.folder.with_name(f".{self.folder.name}.unfinished")

    @cached_property
    def place(self) -> str:
        """Return the model's folder, absolute (an adapter names its base by it), or its hub id."""
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
        import torch

        from ngdiff.engine.engine import Engine

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
        """Return all that decides the result beside the model. A checkpoint or a finished run of
        other settings belongs to another run.
        """
        mine = {
            name: value
            for name, value in asdict(self).items()
            if name not in (*PLACES, *WHERE, *JUDGED) and (value or name not in ASKED)
        }
        if (
            self.precision == "bfloat16"
        ):  # shards hold float32 weights, others bfloat16 and the low bits
            mine["sharded"] = self.engine.sharded
        if self.recipe.key not in methods.METHODS:  # a method of the user: its code counts
            mine["method"] = content_key(content(self.recipe.parts))
        return mine | {"rows": bench.fingerprint}


def _sgd(groups: Any) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(groups, lr=1e-3)
