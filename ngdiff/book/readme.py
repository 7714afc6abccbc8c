"""The README's tables, filled in from saved rows: between `<!-- name -->` and `<!-- end name -->`
nothing is typed.

A table whose rows are not there says "not run". `ngdiff book` fills them, a test compares the
README with a refill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ngdiff.book import build as book
from ngdiff.methods.lookup import label, ordered
from ngdiff.store.rows import read_rows
from ngdiff.study import plan as compare
from ngdiff.study import protocol
from ngdiff.study.claims import OURS
from ngdiff.study.intervals import select
from ngdiff.study.sentences import average, sentences, share

Row = dict[str, Any]
NOT_RUN = "not run"


def _saved(path: Path) -> list[Row]:
    return read_rows(path) if path.exists() else []


def _table(head: Iterable[str], align: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [head, align, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _decimals(x: float | None, n: int = 3) -> str:
    return "–" if x is None else f"{x:.{n}f}"


def _gap(row: Row, prefix: str) -> str:
    """Mean and interval of a claim, or a dash where there is none."""
    middle, low, high = (row[f"{prefix}{key}"] for key in ("mean", "low", "high"))
    return (
        "–"
        if middle is None
        else f"{middle:+.3f}"
        if low is None
        else f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]"
    )


# ------------------------------------------------------------------------------------------- tables
def notebooks(root: Path) -> str:
    """Return the table of notebooks: number, question, seconds alone and cold (`ngdiff reproduce
    --alone`).
    """
    seconds = {r["name"]: r for r in _saved(root / "data/results/tiny/times.jsonl")}
    lines = []
    for source in (path for path in book.sources(root / "notebooks") if path.stem != "cell"):
        name = source.stem
        time = f"{seconds[name]['seconds']:.0f}" if name in seconds else NOT_RUN
        lines.append((f"[{name[:2]}](notebooks/{name}.ipynb)", book.header(source).question, time))
    if not lines:
        return NOT_RUN
    device = ", ".join(
        sorted({f"{r['stamp']['device']}, {r['stamp']['cpus']} cores" for r in seconds.values()})
    )
    how = "each notebook alone, from an empty cache, its models trained in them"
    if not all(r["alone"] for r in seconds.values()):
        how = "one `make reproduce` from an empty cache, two notebooks at a time"
    note = f"\n\nSeconds: {how} ({device})." if device else ""
    return _table(("", "question", "seconds"), ("---", "---", "---:"), lines) + note


def claims(root: Path) -> str:
    """The grid's main table: each method at its tuned rate, NGDiff + AutoLR, and the paired
    difference.
    """
    folder = root / "data/results/tiny"
    rows, claimed = _saved(folder / "grid_matched.parquet"), _saved(folder / "grid_claims.jsonl")
    if not (rows and claimed):
        return NOT_RUN
    gaps = {
        r["name"].removeprefix("against "): r for r in claimed if r["name"].startswith("against ")
    }

    def cells(method: str, rule: str) -> list[str]:
        mine = select(rows, method=method, stepsize=rule)
        gap = gaps.get(method) if rule == "constant" else None
        edge = ", end of the grid" if gap and gap["edge"] else ""
        rate = f"{mine[0]['lr']:g}{edge}" if rule == "constant" else "AutoLR, untuned"
        means = [
            _decimals(average(mine, k)) for k in ("score", "model_utility", "forget_Q_A_ROUGE")
        ]
        updates = f"{average(mine, 'updates'):.0f}"
        reached = f"{share(mine):.0%}"
        every, both = (_gap(gap, prefix) if gap else "" for prefix in ("", "arrived_"))
        both += f", n = {gap['arrived_n']}" if gap and 0 < gap["arrived_n"] < gap["n"] else ""
        return [
            label(method),
            rate,
            *means,
            updates,
            reached,
            every,
            both,
            gap["verdict"] if gap else "",
        ]

    methods = ordered({r["method"] for r in rows})
    lines = [cells(OURS, "autolr")]
    lines += [cells(m, "constant") for m in methods]
    lines += [cells(m, "autolr") for m in methods if m != OURS]
    pairs = len({(r["target_seed"], r["seed"]) for r in rows})
    head = (
        "method",
        "rate",
        "score",
        "model utility",
        "forget ROUGE-L",
        "steps",
        "reached",
        f"(NGDiff + AutoLR) − it, all {pairs} pairs",
        "the same, pairs that both arrived",
        "verdict on these",
    )
    return _table(head, ("---", "---", *["---:"] * 5, *["---"] * 3), lines)


def swings(root: Path) -> str:
    """The other claims of the grid: swings over rates, AutoLR over its starting rates, what ascent
    keeps.
    """
    claimed = _saved(root / "data/results/tiny/grid_claims.jsonl")
    lines = []
    for r in (r for r in claimed if not r["name"].startswith("against ")):
        spread = f" [{r['low']:.3f}, {r['high']:.3f}]" if r["low"] is not None else ""
        spread += ", range" if r["kind"] == "range" else ""
        lines.append((r["name"], r["what"], _decimals(r["mean"]) + spread, r["n"]))
    return (
        _table(("claim", "what", "mean [95 % interval]", "n"), ("---", "---", "---", "---:"), lines)
        if lines
        else NOT_RUN
    )


def findings(root: Path) -> str:
    """The grid in sentences (`ngdiff.study.sentences`)."""
    parts = ("matched.parquet", "starts.parquet", "fixed.parquet", "claims.jsonl")
    matched, *others = (_saved(root / "data/results/tiny" / f"grid_{name}") for name in parts)
    files = [matched, protocol.saved(compare.plan("grid", ()).tuning(profile="tiny")), *others]
    return "\n".join(f"- {line}" for line in sentences(*files)) if all(files) else NOT_RUN


def bench(root: Path) -> str:
    """`ngdiff bench`: a row a variant of each case; a column that no row has is left out, what one
    row lacks is a dash.
    """
    rows = [
        r
        for path in sorted((root / "data/results/bench").glob("step_*.jsonl"))
        for r in read_rows(path)
    ]
    rows.sort(key=lambda r: (r["stamp"]["device"], _digits(r["size"]), _recipe(r), r["tokens"]))
    if not rows:
        return NOT_RUN

    def ratio(r: Row, key: str) -> str:
        upper = r.get(f"{key}_upper95") if key == "time_ratio_graddiff-two" else None
        return _decimals(r.get(key)) + (f" (≤ {upper:.3f})" if upper else "")

    def extra(r: Row) -> str:
        return f"{r['peak_extra_bytes'] / 1e6:.1f} ({r['peak_extra_predicted_bytes'] / 1e6:.1f})"

    every: list[
        tuple[str, str, Callable[[Row], Any], str]
    ] = [  # heading, alignment, cell, the key it needs
        ("model", "---", lambda r: f"{r['size']} {_recipe(r)}", "precision"),
        ("tokens", "---:", lambda r: r["tokens"], "tokens"),
        (
            "step",
            "---",
            lambda r: f"{r['variant']}: {r['outcome']}" if "outcome" in r else r["variant"],
            "variant",
        ),
        (
            "time ÷ two backwards (upper 95 %)",
            "---:",
            lambda r: ratio(r, "time_ratio_graddiff-two"),
            "variant",
        ),
        *(
            (f"÷ {n}", "---:", lambda r, k=k: ratio(r, f"time_ratio_{k}"), "variant")
            for n, k in _OTHERS
        ),
        ("peak ÷ two", "---:", lambda r: ratio(r, "peak_ratio_graddiff-two"), "variant"),
        *(
            (f"÷ {n}", "---:", lambda r, k=k: ratio(r, f"peak_ratio_{k}"), "variant")
            for n, k in _OTHERS
        ),
        ("peak − two, MB (predicted)", "---:", extra, "peak_extra_predicted_bytes"),
        ("reads", "---:", lambda r: r["reads"], "reads"),
        ("MFU", "---:", lambda r: f"{r['mfu']:.0%}", "mfu"),
    ]
    shown = [column for column in every if any(r.get(column[3]) is not None for r in rows)]
    cells = [
        [cell(r) if r.get(key) is not None else "–" for _, _, cell, key in shown] for r in rows
    ]
    notes = dict.fromkeys(
        f"{r['parameters'] / 1e6:.1f}M parameters, {r['dtype']}, {r['rounds']} rounds, "
        f"{r['stamp']['device']}."
        for r in rows
        if "rounds" in r
    )
    head, align, _, _ = zip(*shown, strict=True)
    return _table(head, align, cells) + "\n\n" + " ".join(notes)


def probes(root: Path) -> str:
    """`ngdiff bench probes`, in a sentence."""
    from ngdiff.timing.probes import summary

    return _sentence(
        root,
        "probes_tiny",
        lambda rows: f"{len(rows)} probes on the tiny target, {{device}}: {summary(rows)}.",
    )


def evaluation(root: Path) -> str:
    """`ngdiff bench evaluate`, in a sentence."""
    from ngdiff.timing.evaluate import summary

    return _sentence(
        root,
        "evaluate",
        lambda rows: f"{summary(rows)}; {rows[0]['stamp']['config']['data']}, {{device}}.",
    )


def _sentence(root: Path, name: str, said: Callable[[list[Row]], str]) -> str:
    """What a bench's saved rows say; {device} is where they were measured."""
    path = root / "data/results/bench" / f"{name}.jsonl"
    if not path.is_file():
        return NOT_RUN
    rows = read_rows(path)
    return said(rows).replace("{device}", rows[0]["stamp"]["device"])


_OTHERS = (("one", "graddiff-one"), ("naive", "naive"))


def _digits(size: str) -> float:
    """Parameters by the name of a size: 10M, 7B."""
    return float(size[:-1]) * {"M": 1e6, "B": 1e9}[size[-1]]


def _recipe(r: Row) -> str:
    """How a benchmark's model is trained, from a row that says so."""
    if "precision" not in r:
        return ""
    how = [r["precision"], f"LoRA {r['lora']}" if r["lora"] else r["optimizer"]]
    return ", ".join([*how, *["checkpointing"][: r["checkpointing"]]])


def paper_map(root: Path) -> str:
    """Figure or table of the paper → notebook → our file → status: the table that notebook 10
    prints.
    """
    page = root / "notebooks/10_every_figure.py"
    lines = page.read_text("utf-8").splitlines() if page.exists() else []
    return "\n".join(line.removeprefix("# ") for line in lines if line.startswith("# |")) or NOT_RUN


BLOCKS: dict[str, Callable[[Path], str]] = {
    **{"notebooks": notebooks, "claims": claims, "swings": swings, "findings": findings},
    **{"bench": bench, "probes": probes, "evaluation": evaluation, "map": paper_map},
}


def fill(text: str, root: Path) -> str:
    """The README with every block made anew; ValueError naming a block whose two marks are not
    there once each.
    """
    for name, make in BLOCKS.items():
        first, last = f"<!-- {name} -->", f"<!-- end {name} -->"
        if text.count(first) != 1 or text.count(last) != 1:
            raise ValueError(f"README.md needs the marks {first} and {last} once each")
        before, _, rest = text.partition(first)
        after = rest.partition(last)[2]
        text = f"{before}{first}\n{make(root)}\n{last}{after}"
    return text
