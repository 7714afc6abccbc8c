"""Other tools' files: scored without a model, by `ngdiff score`.

No model, no torch, no transformers.

Every scorer is a function of paths that returns (scores, warnings). Scores have full precision and
the benchmark's own names. Warnings are lines that say what was odd in the files. What cannot be
scored is a ValueError (or FileNotFoundError) that names the file and the row.

    kind              files                                      scorer
    tofu              eval_log_aggregated.json                   `score.tofu.score`
    open-unlearning   TOFU_EVAL.json                             `score.open_unlearning.score`
    semeval           the evaluator's output folder              `score.semeval.score`
    muse              MUSE's folder of results, or our one file  `score.muse.score`
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ngdiff.store.document import not_finite, text
from ngdiff.store.rows import write_document

# what each kind takes beside its file; the convention of the others is their name
OPTIONS = {
    "tofu": ("reference", "convention"),
    "open-unlearning": ("reference",),
    "semeval": ("mmlu",),
    "muse": ("reference", "convention"),
}


def score(kind: str, path: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """(scores, warnings) of a file of that kind; an option that is None is left to its default.

    Errors: ValueError for an unknown kind and an option that the kind does not take; those of the
    scorer.
    """
    if kind not in OPTIONS:
        raise ValueError(f"unknown kind {kind!r}: choose one of {', '.join(OPTIONS)}")
    given = {name: value for name, value in options.items() if value is not None}
    if extra := [
        name for name, value in given.items() if name not in OPTIONS[kind] and value != kind
    ]:
        takes = " and ".join(f"--{name}" for name in OPTIONS[kind])
        raise ValueError(f"`score {kind}` has no use for --{extra[0]}: it takes {takes}")
    given = {name: value for name, value in given.items() if name in OPTIONS[kind]}
    from ngdiff.score import muse, open_unlearning, semeval, tofu

    scorers: dict[str, Callable[..., tuple[dict[str, Any], list[str]]]] = {
        "tofu": tofu.score,
        "open-unlearning": open_unlearning.score,
        "semeval": semeval.score,
        "muse": muse.score,
    }
    return scorers[kind](Path(path), **given)


def command(
    kind: str,
    path: Path,
    reference: Path | None = None,
    mmlu: Path | None = None,
    convention: str | None = None,
    json_out: Path | None = None,
) -> None:
    """Print the scores as JSON, or write them to `json_out`, whole or not at all.

    Warnings go to stderr.

    JSON has no NaN and no infinity: they become null, with a warning that names them.
    """
    values, warnings = score(kind, path, reference=reference, mmlu=mmlu, convention=convention)
    for warning in (*warnings, *(f"{what}, written as null" for what in not_finite(values))):
        print(f"warning: {warning}", file=sys.stderr)
    if json_out is None:
        sys.stdout.write(text(values))
    else:
        write_document(json_out, values)
