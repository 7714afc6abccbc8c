"""The README's tables, filled in from saved rows.

Between `<!-- name -->` and `<!-- end name -->` nothing is typed. A table whose rows are not there
says "not run". `ngdiff book` fills them, a test compares the README with a refill.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ngdiff.book import build as book
from ngdiff.methods.lookup import label, ordered
from ngdiff.store.rows import read_rows
from ngdiff.store.table import DASH, Column, Link, Table
from ngdiff.study import plan as plans
from ngdiff.study import protocol
from ngdiff.study.claims import OURS
from ngdiff.study.intervals import select
from ngdiff.study.sentences import average, sentences, share

Row = dict[str, Any]
NOT_RUN = "not run"


def _saved(path: Path) -> list[Row]:
    return read_rows(path) if path.exists() else []


def _decimals(x: float | None, n: int = 3) -> str:
    return DASH if x is None else f"{x:.{n}f}"


def _gap(row: Row, prefix: str) -> str:
    """Return mean and interval of a claim, or a dash where there is none."""
    middle, low, high = (row[f"{prefix}{key}"] for key in ("mean", "low", "high"))
    if middle is None:
        return DASH
    return f"{middle:+.3f}" + ("" if low is None else f" [{low:+.3f}, {high:+.3f}]")


# ------------------------------------------------------------------------------------------- tables
def notebooks(root: Path) -> str:
    """Return the table of notebooks: number, question, seconds (`ngdiff reproduce --alone`)."""
    seconds = {r["name"]: r for r in _saved(root / "data/results/tiny/times.jsonl")}
    lines = []
    for source in (path for path in book.sources(root / "notebooks") if path.stem != "cell"):
        name = source.stem
        page, question = Link(name[:2], f"notebooks/{name}.ipynb"), book.header(source).question
        lines.append({"page": page, "question": question, **seconds.get(name, {})})
    if not lines:
        return NOT_RUN
    device = ", ".join(
        sorted({f"{r['stamp']['device']}, {r['stamp']['cpus']} cores" for r in seconds.values()})
    )
    how = "each notebook alone, from an empty cache, the training of its models included"
    if not all(r["alone"] for r in seconds.values()):
        how = "one `make reproduce` from an empty cache, two notebooks at a time"
    note = f"\n\nSeconds: {how} ({device})." if device else ""
    columns = (Column("page", ""), Column("question"), Column("seconds", None, ".0f", "right"))
    return Table(columns, lines, missing=NOT_RUN).markdown() + note


def claims(root: Path) -> str:
    """Return the grid's main table: NGDiff + AutoLR, each method, the paired differences."""
    folder = root / "data/results/tiny"
    rows, claimed = _saved(folder / "grid_matched.parquet"), _saved(folder / "grid_claims.jsonl")
    if not (rows and claimed):
        return NOT_RUN
    gaps = {
        r["name"].removeprefix("against "): r for r in claimed if r["name"].startswith("against ")
    }

    def line(method: str, rule: str) -> Row:
        gap = gaps.get(method) if rule == "constant" else None
        return _method(select(rows, method=method, stepsize=rule), gap)

    methods = ordered({r["method"] for r in rows})
    lines = [line(OURS, "autolr")]
    lines += [line(m, "constant") for m in methods]
    lines += [line(m, "autolr") for m in methods if m != OURS]
    pairs = len({(r["target_seed"], r["seed"]) for r in rows})
    columns = (
        Column("method", format=label),
        Column("rate"),
        Column("score", format=".3f", align="right"),
        Column("model_utility", "model utility", ".3f", "right"),
        Column("forget_Q_A_ROUGE", "forget ROUGE-L", ".3f", "right"),
        Column("updates", "steps", ".0f", "right"),
        Column("reached", format=".0%", align="right"),
        Column("every", f"(NGDiff + AutoLR) − it, all {pairs} pairs"),
        Column("both", "the same, pairs that both arrived"),
        Column("verdict", "verdict on these"),
    )
    return Table(columns, lines).markdown()


def _method(mine: list[Row], gap: Row | None) -> Row:
    """Return a line of `claims`: a method's runs under one rule, and its claim if it has one."""
    constant = mine[0]["stepsize"] == "constant"
    edge = ", end of the grid" if gap and gap["edge"] else ""
    means = {k: average(mine, k) for k in ("score", "model_utility", "forget_Q_A_ROUGE")}
    both = _gap(gap, "arrived_") if gap else ""
    both += f", n = {gap['arrived_n']}" if gap and 0 < gap["arrived_n"] < gap["n"] else ""
    return {
        "method": mine[0]["method"],
        "rate": f"{mine[0]['lr']:g}{edge}" if constant else "AutoLR, untuned",
        **means,
        "updates": average(mine, "updates"),
        "reached": share(mine),
        "every": _gap(gap, "") if gap else "",
        "both": both,
        "verdict": gap["verdict"] if gap else "",
    }


def swings(root: Path) -> str:
    """Return the grid's other claims.

    They are swings over rates, AutoLR over its starting rates, and what ascent keeps.
    """
    claimed = _saved(root / "data/results/tiny/grid_claims.jsonl")
    lines = []
    for r in (r for r in claimed if not r["name"].startswith("against ")):
        spread = f" [{r['low']:.3f}, {r['high']:.3f}]" if r["low"] is not None else ""
        spread += ", range" if r["kind"] == "range" else ""
        lines.append(r | {"mean": _decimals(r["mean"]) + spread})
    columns = (
        Column("name", "claim"),
        Column("what"),
        Column("mean", "mean [95 % interval]"),
        Column("n", align="right"),
    )
    return Table(columns, lines).markdown() if lines else NOT_RUN


def findings(root: Path) -> str:
    """Return the grid in sentences (`ngdiff.study.sentences`)."""
    parts = ("matched.parquet", "starts.parquet", "fixed.parquet", "claims.jsonl")
    matched, *others = (_saved(root / "data/results/tiny" / f"grid_{name}") for name in parts)
    files = [matched, protocol.saved(plans.plan("grid", ()).tuning(profile="tiny")), *others]
    return "\n".join(f"- {line}" for line in sentences(*files)) if all(files) else NOT_RUN


def bench(root: Path) -> str:
    """Return the table of `ngdiff bench`, a line a variant of each case.

    A column that no row has is left out, what one row lacks is a dash.
    """
    rows = [
        r
        for path in sorted((root / "data/results/bench").glob("step_*.jsonl"))
        for r in read_rows(path)
    ]
    rows.sort(key=lambda r: (r["stamp"]["device"], _digits(r["size"]), _recipe(r), r["tokens"]))
    if not rows:
        return NOT_RUN

    notes = dict.fromkeys(
        f"{r['parameters'] / 1e6:.1f}M parameters, {r['dtype']}, {r['rounds']} rounds, "
        f"{r['stamp']['device']}."
        for r in rows
        if "rounds" in r
    )
    return Table(_STEPS, [_step(r) for r in rows]).shown().markdown() + "\n\n" + " ".join(notes)


_OTHERS = {"graddiff-one": "one", "naive": "naive"}
_STEPS = (
    Column("model"),
    Column("tokens", align="right"),
    Column("step"),
    Column("time", "time ÷ two backwards (upper 95 %)", align="right"),
    *(Column(f"time_ratio_{k}", f"÷ {n}", ".3f", "right") for k, n in _OTHERS.items()),
    Column("peak_ratio_graddiff-two", "peak ÷ two", ".3f", "right"),
    *(Column(f"peak_ratio_{k}", f"÷ {n}", ".3f", "right") for k, n in _OTHERS.items()),
    Column("extra", "peak − two, MB (predicted)", align="right"),
    Column("reads", align="right"),
    Column("mfu", "MFU", ".0%", "right"),
)


def _step(r: Row) -> Row:
    """Return a line of `bench`: the row, with the cells that need several of its values."""
    found = dict(r)
    if "precision" in r:
        found["model"] = f"{r['size']} {_recipe(r)}"
    found["step"] = f"{r['variant']}: {r['outcome']}" if "outcome" in r else r["variant"]
    if (ratio := r.get("time_ratio_graddiff-two")) is not None:
        upper = r.get("time_ratio_graddiff-two_upper95")
        found["time"] = _decimals(ratio) + (f" (≤ {upper:.3f})" if upper else "")
    if r.get("peak_extra_predicted_bytes") is not None:
        extra, predicted = (r[f"peak_extra{key}_bytes"] / 1e6 for key in ("", "_predicted"))
        found["extra"] = f"{extra:.1f} ({predicted:.1f})"
    return found


def probes(root: Path) -> str:
    """Return `ngdiff bench probes` in a sentence."""
    from ngdiff.timing.probes import summary

    return _sentence(
        root,
        "probes_tiny",
        lambda rows: f"{len(rows)} probes on the tiny target, {{device}}: {summary(rows)}.",
    )


def evaluation(root: Path) -> str:
    """Return `ngdiff bench evaluate` in a sentence."""
    from ngdiff.timing.evaluate import summary

    return _sentence(
        root,
        "evaluate",
        lambda rows: f"{summary(rows)}; {rows[0]['stamp']['config']['data']}, {{device}}.",
    )


def _sentence(root: Path, name: str, said: Callable[[list[Row]], str]) -> str:
    """Return what a bench's saved rows say; {device} is where they were measured."""
    path = root / "data/results/bench" / f"{name}.jsonl"
    if not path.is_file():
        return NOT_RUN
    rows = read_rows(path)
    return said(rows).replace("{device}", rows[0]["stamp"]["device"])


def _digits(size: str) -> float:
    """Return how many parameters the name of a size says: 10M, 7B."""
    return float(size[:-1]) * {"M": 1e6, "B": 1e9}[size[-1]]


def _recipe(r: Row) -> str:
    """Return how a benchmark's model is trained, from a row that says so."""
    if "precision" not in r:
        return ""
    how = [r["precision"], f"LoRA {r['lora']}" if r["lora"] else r["optimizer"]]
    return ", ".join([*how, *["checkpointing"][: r["checkpointing"]]])


def paper_map(root: Path) -> str:
    """Return the table that notebook 10 prints: figure of the paper, notebook, our file, status."""
    page = root / "notebooks/10_every_figure.py"
    lines = page.read_text("utf-8").splitlines() if page.exists() else []
    return "\n".join(line.removeprefix("# ") for line in lines if line.startswith("# |")) or NOT_RUN


BLOCKS: dict[str, Callable[[Path], str]] = {
    **{"notebooks": notebooks, "claims": claims, "swings": swings, "findings": findings},
    **{"bench": bench, "probes": probes, "evaluation": evaluation, "map": paper_map},
}


def fill(text: str, root: Path) -> str:
    """Return the README with every block made anew.

    Errors: ValueError naming a block whose two marks are not there once each.
    """
    for name, make in BLOCKS.items():
        first, last = f"<!-- {name} -->", f"<!-- end {name} -->"
        if text.count(first) != 1 or text.count(last) != 1:
            raise ValueError(f"README.md needs the marks {first} and {last} once each")
        before, _, rest = text.partition(first)
        after = rest.partition(last)[2]
        text = f"{before}{first}\n{make(root)}\n{last}{after}"
    return text
