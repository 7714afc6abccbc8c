"""What is measured: a model's size, a batch, a precision, and the variants of the step.

`ngdiff bench step` reads its options off `Case` (`ngdiff.commands.options`), so torch is imported
only once a case is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ngdiff.engine.footprint import SLOTS

SIZES = {  # hidden, layers, heads, intermediate, vocabulary
    "1M": (128, 3, 4, 352, 2048),
    "10M": (256, 8, 4, 1024, 8192),
    "100M": (768, 12, 12, 2048, 16384),
    "135M": (576, 30, 9, 1536, 49152),  # SmolLM2-135M
    "1B": (2048, 18, 16, 5632, 32000),
    "7B": (4096, 32, 32, 11008, 32000),  # Llama-2-7B
}
SHARED = {"135M": 3}  # heads of keys and values, where there are fewer
LARGE = ("1B", "7B")  # output layer of their own, rows of 1024 tokens instead of 128
BASES = ("graddiff-two", "graddiff-one", "naive")
AUTOCAST = ("graddiff-autocast",)  # measured where it is asked for: it has weights of its own
AUTOLR = ("ngdiff+autolr",)
VARIANTS = (*BASES, "ngdiff", *AUTOLR)
EVERY_VARIANT = (*BASES, *AUTOCAST, "ngdiff", "ngdiff-recompute", *AUTOLR)


@dataclass(frozen=True)
class Case:
    """What is measured; the command's options.

    minutes: where they are short, rounds are fewer (10 at least) and the warm-up is shorter.
    memory="recompute" adds that variant. variants: (): all.

    Errors: ValueError for a name that is not known, or a batch that predicts nothing.
    """

    size: str = field(
        default="10M", metadata={"help": "Parameters of the model: 1M, 10M, 100M, 135M, 1B or 7B."}
    )
    tokens: int = field(default=512, metadata={"min": 1, "help": "Tokens a batch."})
    length: int = field(
        default=0, metadata={"min": 0, "help": "Tokens a row; 0: at most 128, from 1B on 1024."}
    )
    pairs: int = field(
        default=0,
        metadata={"min": 0, "help": "Interleaved measurements of each step; 0: 40, on CUDA 56."},
    )
    minutes: float = field(
        default=0.0, metadata={"min": 0, "help": "All the time there is; 0: as long as it takes."}
    )
    precision: str = field(
        default="float32", metadata={"help": "float32, or bfloat16 with exact masters."}
    )
    optimizer: str = field(default="adamw", metadata={"help": "adamw or sgd."})
    lora: int = field(
        default=0, metadata={"min": 0, "help": "Rank of an adapter on the frozen model; 0: none."}
    )
    checkpointing: bool = field(default=False, metadata={"help": "Compute activations twice."})
    memory: str = field(default="swap", metadata={"help": "swap; recompute measures that too."})
    variants: tuple[str, ...] = field(
        default=(), metadata={"help": "Some of them only, such as graddiff-two,ngdiff."}
    )

    def __post_init__(self) -> None:
        from ngdiff.core.gradients import MODES
        from ngdiff.engine.engine import PRECISIONS

        known = {"size": SIZES, "precision": PRECISIONS, "optimizer": SLOTS, "memory": MODES}
        for what, names in known.items():
            if getattr(self, what) not in names:
                raise ValueError(
                    f"unknown {what} {getattr(self, what)!r}; choose one of: {', '.join(names)}"
                )
        if strange := [name for name in self.variants if name not in EVERY_VARIANT]:
            raise ValueError(
                f"unknown variant {strange[0]!r}; choose some of: {', '.join(EVERY_VARIANT)}"
            )
        if min(self.tokens, self.length or self.tokens) < 2:
            raise ValueError(
                "a batch needs rows of at least 2 tokens, one to predict from and one to predict, "
                f"got {self.tokens} tokens a batch and {self.length or self.tokens} a row"
            )
        if min(self.lora, self.pairs, self.minutes) < 0:
            raise ValueError("lora, pairs and minutes are 0 or more: give no negative number")

    @property
    def large(self) -> bool:
        """Return True for a model with an output layer of its own and long rows."""
        return self.size in LARGE

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens a row."""
        length = min(self.length or (1024 if self.large else 128), self.tokens)
        return max(1, self.tokens // length), length

    @property
    def names(self) -> tuple[str, ...]:
        """The variants that are measured, in order."""
        every = tuple(name for name in EVERY_VARIANT if name not in AUTOCAST)
        return self.variants or (every if self.memory == "recompute" else VARIANTS)

    @property
    def label(self) -> str:
        """Return what distinguishes it, in a line and in the name of its file."""
        parts = [self.size, str(self.tokens)]
        if self.lora:
            parts.append(f"lora{self.lora}")
        elif self.optimizer != "adamw":
            parts.append(self.optimizer)
        if self.precision != "float32":
            parts.append(self.precision)
        return "_".join([*parts, "checkpointing"] if self.checkpointing else parts)
