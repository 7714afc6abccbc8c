"""The options of `ngdiff losses`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ngdiff.commands.asking import Asking
from ngdiff.commands.places import need_model
from ngdiff.data.files import need
from ngdiff.evaluation import conventions
from ngdiff.evaluation.suites import TOFU
from ngdiff.store.cache import probe_file


@dataclass(frozen=True)
class Comparison(Asking):
    """A model, the model before unlearning, and the rows on which objectives are computed.

    Errors: ValueError for a convention that is not known, FileNotFoundError.
    """

    forget: Path = field(metadata={"help": 'Rows {"question", "answer"} or {"text"}.'})
    retain: Path = field(metadata={"help": "Rows to keep; DPO uses them as refusals."})
    start: str | None = field(
        default=None, metadata={"help": "The model before unlearning; default: --model."}
    )
    rows: int = field(
        default=4, metadata={"min": 1, "help": "First rows of each file that are used."}
    )
    convention: str = field(
        default="ngdiff",
        metadata={"help": f"{', '.join(conventions.names(TOFU.name))}; others act as ngdiff."},
    )
    json: Path | None = field(default=None, metadata={"help": "File to write; default: stdout."})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, …"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for path in (self.forget, self.retain):
            need(path)
        if self.start is not None:
            need_model(self.start, "--start")
        if self.json is not None:
            probe_file(self.json)
        conventions.convention(self.convention)
