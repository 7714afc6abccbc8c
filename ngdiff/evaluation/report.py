"""The result of an evaluation: aggregates, the per-item values they come from, and what was
evaluated.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ngdiff.store.progress import Say, to_stderr
from ngdiff.store.rows import write_document
from ngdiff.store.textfile import parsed, text_of

INFINITE = "infinite"  # JSON has no infinity: ±∞ is written as {"infinite": ±1}


FIRST = 4  # metrics that a repr shows


@dataclass(frozen=True)
class Report:
    """Metrics of one model on one benchmark.

    metrics  name -> aggregate; a metric that cannot be computed is absent, never a stand-in
    items    name -> {row index -> value or dict of values}; None where a row leaves the value
             undefined
    meta     model, benchmark fingerprint, convention, reference, row counts, seconds
    """

    metrics: dict[str, float]
    items: dict[str, dict[int, Any]] = field(repr=False, default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The first few metrics; items and meta would fill pages."""
        shown = [f"{name} {value:.4g}" for name, value in self.metrics.items()][:FIRST]
        more = len(self.metrics) - len(shown)
        rest = f", and {more} more" if more else ""
        return f"<Report of {self.meta.get('model')}: {', '.join(shown)}{rest}>"

    @classmethod
    def of(
        cls, values: dict[str, float], items: dict[str, dict[int, Any]], meta: dict[str, Any]
    ) -> Report:
        """Return the report of these values; those that are undefined (NaN) are left out, and
        None in the items.
        """
        defined = {name: value for name, value in values.items() if not math.isnan(value)}
        return cls(defined, _none_for_nan(items), meta)

    def to_json(self, path: str | Path, stamp: dict[str, Any] | None = None) -> Path:
        """Write strict JSON atomically: the file is the whole report, and its stamp if given, or is
        not there.
        """
        content = {name: plain(getattr(self, name)) for name in ("metrics", "items", "meta")}
        content |= {} if stamp is None else {"stamp": plain(stamp)}
        write_document(Path(path), content)
        return Path(path)

    @classmethod
    def from_json(cls, path: str | Path) -> Report:
        """The inverse of `to_json`; ValueError names a file that is no report."""
        try:
            content = parsed(text_of(Path(path)), object_hook=_revive)
            items = {
                name: {int(i): v for i, v in rows.items()}
                for name, rows in content["items"].items()
            }
            return cls(metrics=content["metrics"], items=items, meta=content["meta"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not a report of ngdiff.evaluate ({error!r}): evaluate again"
            ) from error


def speaker(progress: bool | Say) -> Say:
    """Return where an evaluation's lines go.

    A callable is taken as it is. True is stderr (silent under pytest), False is nowhere.
    """
    if callable(progress):
        return progress
    if progress and "PYTEST_CURRENT_TEST" not in os.environ:
        return to_stderr
    return lambda line: None


def meta_of(
    lm: Any,
    bench: Any,
    how: Any,
    reference: Any = None,
    prompts: bool = True,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the meta of every report: model, benchmark, split, convention, the rows' fingerprint,
    and how the model was prompted (`asking`).

    reference: a model or its report; "notes" are the given ones, and what differs (`asked_alike`).
    """
    content = {
        "model": lm.name,
        "benchmark": bench.name,
        "split": bench.split,
        "convention": how.name,
    }
    content |= {"fingerprint": bench.fingerprint} | asking(lm, how) | {"notes": [*notes]}
    if reference is not None:
        own = isinstance(reference, Report)
        theirs = reference.meta if own else {"model": reference.name} | asking(reference, how)
        content["notes"] += asked_alike(content, theirs, prompts)
    return content


def asking(lm: Any, how: Any) -> dict[str, Any]:
    """Return how a model is prompted: the prompt, the tokenizer (`identity`), the day that a
    template writes, and the token that always counts as padding.
    """
    from ngdiff.lm.tokenizer import identity  # transformers: scoring a file does without

    hidden = how.hidden(lm)
    return {
        "prompt": lm.prompt.content(),
        "tokenizer": identity(lm.tokenizer),
        "date": lm.date,
        "hidden": None if hidden is None else lm.tokenizer.convert_ids_to_tokens(hidden),
    }


def asked_alike(mine: dict[str, Any], theirs: dict[str, Any], prompts: bool) -> list[str]:
    """Compare how a model and its reference were prompted (`asking`); return the differences.

    prompts: whether the benchmark's rows are put into a prompt. Raises ValueError where the two
    prompts differ.
    """
    who = f"the reference {theirs.get('model')}"
    kinds = ("prompt", "tokenizer", "hidden") if prompts else ("tokenizer", "hidden")
    if missing := [kind for kind in kinds if kind not in theirs]:
        return [f"{who} does not state its {' and '.join(missing)}: not compared"]
    if prompts and mine["prompt"] != theirs["prompt"]:
        raise ValueError(
            f"{who} was evaluated with the prompt {theirs['prompt']}, the model with "
            f"{mine['prompt']}: "
            "evaluate both with the same one (--prompt)"
        )
    words = {"tokenizer": "has another tokenizer", "hidden": "hides another token as padding"}
    return [
        f"{who} {words[kind]}: numbers a token do not compare"
        for kind in kinds
        if mine[kind] != theirs[kind]
    ]


def check_reference(
    ref: Any,
    bench: Any,
    how: Any,
    rows: tuple[str, str] = ("fingerprint", ""),
    name: str = "the reference report",
) -> None:
    """A reference's Report (a model is taken as it is) is of the same convention and, by meta's
    entry `rows`, of the same rows ("": the benchmark's fingerprint). Errors: ValueError that says
    what the two are of, and begins with `name`.
    """
    if not isinstance(ref, Report):
        return
    how.check(ref.meta, name)
    if ref.meta.get(rows[0]) != (rows[1] or bench.fingerprint):
        raise ValueError(
            f"{name} is of other rows ({ref.meta.get('benchmark')} {ref.meta.get('split')}; here "
            f"{bench.name} {bench.split}): "
            "evaluate the reference on these"
        )


def plain(value: Any) -> Any:
    """`value` in JSON's types: numpy scalars become floats, NaN null, ±∞ {"infinite": ±1}."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    if math.isnan(number):
        return None
    return {INFINITE: int(math.copysign(1, number))} if math.isinf(number) else number


def _none_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _none_for_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_none_for_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _revive(content: dict[str, Any]) -> Any:
    return content[INFINITE] * math.inf if set(content) == {INFINITE} else content
