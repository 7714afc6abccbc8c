"""The tables of the benchmarks' pages: our runs, published points, the cost of the paper profile.

Published numbers are in data/published/<benchmark>.jsonl, each row with its source. Ours are saved
rows with a stamp. What was not run prints "not run", never a stand-in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ngdiff import zoo
from ngdiff.engine.footprint import planned
from ngdiff.evaluation.suites import SUITES
from ngdiff.methods import lookup
from ngdiff.store import paths
from ngdiff.store.rows import read_rows
from ngdiff.store.table import Column, Table
from ngdiff.study import claims
from ngdiff.study.rules import run_label
from ngdiff.study.tuning import LADDER

Row = dict[str, Any]
NOT_RUN = "not run"
# dense matrix products of one H100 or H200 in bfloat16, times the utilisation we ask of a step
# (docs: 40 %)
FLOPS = 989e12 * 0.40


def published(benchmark: str) -> list[Row]:
    """Return the rows of data/published/<benchmark>.jsonl.

    Errors: FileNotFoundError outside a checkout.
    """
    path = (paths.checkout() or Path.cwd()) / "data" / "published" / f"{benchmark}.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}: published numbers are in the repository, not in the installed package"
        )
    return read_rows(path)


def beside(
    theirs: Iterable[Row], ours: Iterable[Row], keys: Sequence[str], columns: Sequence[str]
) -> list[Row]:
    """Return a row for each published point: its keys, and a cell for each column.

    A cell is {"published", "ours", "difference"}, the last being ours − published. "ours" is the
    mean over our rows with the same keys, None ("not run") where there are none.
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


def ours_beside(points: Iterable[Row], benchmark: str) -> list[Row]:
    """Return our runs under the paper profile of the models of the published points."""
    names = sorted({point["model"] for point in points})
    return [row for name in names for row in saved(f"paper-{name}", benchmark, name)]


def printed(table: Sequence[Mapping[str, Any]], keys: Sequence[str], columns: Sequence[str]) -> str:
    """Return the rows of `beside` as text: published, ours, difference."""
    heads = {c: f"{c} published | ours | difference" for c in columns}
    shown = (Column(c, head, _cell) for c, head in heads.items())
    return Table((*map(Column, keys), *shown), table).text()


FOOT = (
    "means over the reported seeds; * not every run reached the hold-out level, so "
    "its forgetting is not matched\n"
    "† tuned to an end of the grid: a better rate may lie outside"
)


def grid(
    rows: Iterable[Row], columns: Mapping[str, str], name: Callable[[Row], str], width: int = 10
) -> str:
    """Return rows against columns as text, with a dash where a row has no such metric.

    columns: {metric: heading}. name: gives the first cell of a row.
    """
    metrics = (Column(c, head, ".3g", "right", width - 2) for c, head in columns.items())
    named = [{**row, "run's name": name(row)} for row in rows]
    return Table((Column("run's name", "", width=26), *metrics), named).text()


def reported(done: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return the runs of `plan.carry_out` on the reported seeds.

    They are the matched ones, and those at rates that scored higher in tuning without reaching the
    level.
    """
    return [*done["matched"], *done.get("unmatched", ())]


def means(rows: Iterable[Row], values: Iterable[str]) -> list[Row]:
    """Return a row for each method and rate, in the order of every table.

    It has the means of the values, `n`, the number of runs, and `reached`, the share that ended at
    the hold-out level.
    """
    seen = [row | {"reached": float(row["stopped"] == "forget_level")} for row in rows]
    order = lookup.ordered({r["method"] for r in seen})
    seen.sort(key=lambda r: (order.index(r["method"]), r["stepsize"]))
    keys = ("method", "stepsize", "lr", "label")
    found = claims.table(seen, [*values, "reached"], lambda r: tuple(r.get(key) for key in keys))
    return [row | dict(zip(keys, row["group"], strict=True)) for row in found]


def runs(done: Mapping[str, Sequence[Row]], columns: Mapping[str, str], width: int = 10) -> str:
    """Return the start, the retain-only model and the reported runs as text.

    done: what `plan.carry_out` returned. The marks are those of `FOOT`.
    """
    tried = {r["lr"] for r in done["tuning"]}
    edges = {LADDER[0], LADDER[-1]} if tried & set(LADDER) else {min(tried), max(tried)}
    edges = edges if len(tried) > 1 else set()

    def name(row: Row) -> str:
        return row.get("model") or run_name(row, edges) + " *" * (row["reached"] < 1)

    return grid([*done["levels"], *means(reported(done), columns)], columns, name, width)


def run_name(row: Row, edges: Collection[float] = ()) -> str:
    """Return how a table names a run: its method and rate, with † where the rate is in `edges`."""
    method = row["method"] if row.get("label") is None else row["label"]
    if row["stepsize"] != "constant":
        return run_label(method, row["stepsize"])
    return f"{lookup.label(method)}, {row['lr']:g}" + "†" * (row["lr"] in edges)


def _cell(value: Mapping[str, float | None]) -> str:
    if value["ours"] is None:
        return f"{value['published']:.3g} | {NOT_RUN}"
    return f"{value['published']:.3g} | {value['ours']:.3g} | {value['difference']:+.3g}"


def saved(profile: str, benchmark: str, model: str) -> list[Row]:
    """Return our matched runs under a profile and the models themselves, [] where not run.

    The rows are those of the hub or of a folder. Each gets the field `model`.
    """
    rows: list[Row] = []
    folders = [
        paths.rows_folder(profile).with_name(profile + end)
        for end in ("", *(f"-{suite.name}" for suite in SUITES))
    ]
    names = ((f"{benchmark}_matched.parquet", "method"), (f"{benchmark}_levels.jsonl", "model"))
    for folder, (name, key) in itertools.product(folders, names):
        if (folder / name).is_file():
            named = {"start": "target"} if key == "model" else {}
            rows += [
                row | {"method": named.get(row[key], row[key]), "model": model}
                for row in read_rows(folder / name)
            ]
    return rows


# --------------------------------------------------------------------------------------- run sheets
def run_sheet(
    benchmark: str, models: Sequence[str], runs: int, steps: int, tokens: int, trained: int = 0
) -> list[Row]:
    """Return what one table of the paper profile takes, a row for each model.

    runs: how many there are in all (`plan.Plan.runs`).
    tokens: of one step, retain and forget together.
    trained: tokens of fine-tuning one model where none is published (epochs × tokens of the rows).

    GPU hours = FLOPs/(989·10¹²·0.40). A token of a step takes 8·N FLOPs, because activations are
    computed twice; a token of fine-tuning takes 6·N. Evaluation and AutoLR's probes are left out.
    Disk holds the weights of target and retain-only model: 2 bytes a parameter if published, 4 if
    fine-tuned. Memory is that of a step without its activations
    (`ngdiff.engine.footprint.planned`): in bfloat16 with AdamW 16 bytes a parameter.

    This is an estimate: nothing of it was measured.
    """
    sheet = []
    for name in models:
        m = zoo.model(name)
        N = m.billions * 1e9
        ready = next(
            (pair for key, pair in m.ready.items() if key.split()[0] == benchmark), (None, None)
        )
        flops = 8 * N * tokens * steps * runs + 6 * N * trained * ready.count(None)
        sheet.append(
            {
                "model": name,
                "target": ready[0] or "fine-tuned by ngdiff",
                "base": (m.base or "unknown to us") + (" (gated)" if m.gated else ""),
                "disk_GB": round(sum(4 if place is None else 2 for place in ready) * m.billions, 1),
                "memory_GB": round(planned(round(N)).peak() / 1e9),
                "gpu_hours": round(flops / FLOPS / 3600, 1),
            }
        )
    return sheet


def sheet(rows: Sequence[Row], notebook: str, data: str, options: str = "") -> str:
    """Return the run sheet as text: the command, the data, and a line for each model.

    options: more options of the command.
    """
    head = (
        f"data: {data}; command, for each model: ngdiff reproduce --profile paper-<model> "
        f"--only {notebook}{options}"
    )
    names = ("model", "target", "base", "disk_GB", "memory_GB", "gpu_hours")
    return head + "\n" + Table([*map(Column, names)], rows).text()
