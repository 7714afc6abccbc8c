"""The options of `ngdiff mmlu`, and its work: MMLU of a model, into a metrics.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ngdiff.commands.asking import Asking
from ngdiff.evaluation.mmlu import HUB
from ngdiff.store.cache import probe_file


@dataclass(frozen=True)
class Exam(Asking):
    """A model and where MMLU's questions are; the command's options.

    The questions are put as lm-eval puts them, so `prompt` does not change the number.
    """

    json: Path = field(metadata={"help": "The metrics.json to write."})
    data: str = field(
        default=HUB, metadata={"help": "The hub's data set, or a folder with its files."}
    )
    limit: int | None = field(
        default=None,
        metadata={"min": 1, "help": "At most so many questions per subject, for a trial."},
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, …"})


def run(exam: Exam) -> None:
    """Write the metrics.json of a model, for `ngdiff evaluate --mmlu` and `ngdiff score semeval
    --mmlu`; print the accuracy.
    """
    probe_file(exam.json)
    from ngdiff.engine.device import device_named
    from ngdiff.evaluation.mmlu import mmlu, write
    from ngdiff.lm.model import load

    lm = load(exam.model, device=device_named(exam.device), **exam.asked())
    found = mmlu(lm, exam.data, limit=exam.limit)
    write(found, exam.json.expanduser())
    print(f"{found['average_acc']:.4f} over {len(found['subjects'])} subjects; wrote {exam.json}")
