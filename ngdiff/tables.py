"""Published points beside our own, and what the runs of the paper profile would take.

Published numbers live in data/published/<benchmark>.jsonl, each row with its source; ours are saved rows with a stamp. What
was not run prints "not run", never a stand-in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ngdiff.methods import METHODS
from ngdiff.paths import checkout
from ngdiff.results import read_rows
from ngdiff.zoo import MODELS

Row = dict[str, Any]
NOT_RUN = "not run"
# dense matrix products of one H100 or H200 in bfloat16, times the utilisation we ask of a step (docs: 40 %)
FLOPS = 989e12 * 0.40
GATED = " (accept its licence on the hub first)"


def published(benchmark: str) -> list[Row]:
    """The rows of data/published/<benchmark>.jsonl. FileNotFoundError outside a checkout."""
    path = (checkout() or Path.cwd()) / "data" / "published" / f"{benchmark}.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: published numbers are in the repository, not in the installed package")
    return read_rows(path)


def beside(theirs: Iterable[Row], ours: Iterable[Row], keys: Sequence[str], columns: Sequence[str]) -> list[Row]:
    """One row a published point: its keys, and for each column {"published", "ours", "difference"} (ours − published).

    ours: saved rows with the same keys; the mean over those that agree, None ("not run") where there is none.
    """
    own = list(ours)
    table = []
    for row in theirs:
        mine = [r for r in own if all(r.get(key) == row.get(key) for key in keys)]
        found: Row = {key: row.get(key) for key in keys}
        for column in columns:
            values = [r[column] for r in mine if r.get(column) is not None]
            mean = sum(values) / len(values) if values else None
            gap = None if mean is None else mean - row[column]
            found[column] = {"published": row[column], "ours": mean, "difference": gap}
        table.append(found)
    return table


def printed(table: Sequence[Mapping[str, Any]], keys: Sequence[str], columns: Sequence[str]) -> str:
    """The table as text: published, ours, difference."""
    heads = [*keys, *(f"{c} published | ours | difference" for c in columns)]
    lines = [heads, *([str(row[k]) for k in keys] + [_cell(row[c]) for c in columns] for row in table)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cell(value: Mapping[str, float | None]) -> str:
    if value["ours"] is None:
        return f"{value['published']:.3g} | {NOT_RUN}"
    return f"{value['published']:.3g} | {value['ours']:.3g} | {value['difference']:+.3g}"


# ---------------------------------------------------------------------------------------------------------- run sheets
def run_sheet(
    benchmark: str, models: Sequence[str], methods: Sequence[str], steps: int, tokens: int, trained: int = 0
) -> list[Row]:
    """What one table of the paper profile takes, a row a model.

    tokens: of one step, retain and forget together; trained: tokens of the fine-tuning where no target is published (epochs
    × tokens of the rows). GPU hours = FLOPs / (989·10¹² · 0.40): 8·N FLOPs a token of a step with recomputed
    activations (6·N without), 6·N a token of fine-tuning; evaluation is not in it. Disk: bfloat16 weights of target,
    retain-only model and one result a method, 2 bytes a parameter. An estimate: nothing of it was measured.
    """
    sheet = []
    for name in models:
        m = MODELS[name]
        N = m.billions * 1e9
        ready = next((pair for key, pair in m.ready.items() if key.split()[0] == benchmark), None)
        missing = 2 if ready is None else ready.count(None) if benchmark != "semeval" else 0
        hours = (8 * N * tokens * steps * len(methods) + 6 * N * trained * missing) / FLOPS / 3600
        sheet.append(
            {
                "model": name,
                "hub": ready[0] if ready else (m.base or NOT_RUN) + (GATED if m.gated else ""),
                "target": "published" if ready else "fine-tuned by ngdiff",
                "methods": len(methods),
                "disk_GB": round(2 * m.billions * (2 + len(methods)), 1),
                "gpu_hours": round(hours, 1),
            }
        )
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose among: {', '.join(METHODS)}")
    return sheet
