"""The HTML report of a reproduction: figures, claims, committed against new, the stamp. One file,
nothing to fetch.

Committed rows come from git's HEAD (or, without git, from a copy made before the first run), new
ones only from files that a valid execution wrote. What was not run says so; it is never filled from
the other side.
"""

from __future__ import annotations

import base64
import html
import json
import math
import shutil
import subprocess
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngdiff.store.cache import atomic_write
from ngdiff.store.rows import read_rows, stamp

SUMMARY, CLAIMS = "*summary.jsonl", "*claims.jsonl"  # under data/results/<label>/
NOT_RUN = "not run"
HEAD = ["number", "committed", "new", "tolerance", "ok"]


@dataclass(frozen=True)
class Ran:
    """One notebook of the run: `done`, `still valid` or `FAILED`, and the seconds its execution
    took.
    """

    name: str
    word: str
    seconds: float


@dataclass(frozen=True)
class Compared:
    """One number: committed and new, None where a side has no row; ok, differs, new, not run, or
    not compared.
    """

    name: str
    committed: dict[str, Any] | None
    new: dict[str, Any] | None

    @property
    def tolerance(self) -> float | None:
        return (self.committed or self.new or {}).get("tolerance")

    @property
    def long_grid(self) -> bool:
        """Whether the number comes from rows of the long grid, which run on `--refresh` only."""
        source = (self.committed or self.new or {}).get("source") or []
        return any(
            name.startswith("grid_") for name in ([source] if isinstance(source, str) else source)
        )

    @property
    def status(self) -> str:
        if self.new is None:
            return NOT_RUN
        if self.committed is None:
            return "new"
        old, new = self.committed["value"], self.new["value"]
        if not (_number(old) and _number(new)):
            return "ok" if old == new else "differs"
        if self.tolerance is None:
            return "not compared"
        return "ok" if abs(new - old) <= self.tolerance else "differs"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# --------------------------------------------------------------------------------------------- rows
def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def committed_rows(root: Path, label: str, backup: Path) -> dict[str, dict[str, Any]]:
    """name -> summary row as committed; without git, as they were before the first run (kept in
    `backup`).
    """
    folder = f"data/results/{label}"
    top = _git(root, "rev-parse", "--show-toplevel")
    names = _git(root, "ls-tree", "--name-only", "HEAD", f"{folder}/") if top else None
    if top and Path(top.strip()) == root.resolve() and names is not None:
        texts = (
            _git(root, "show", f"HEAD:{name}")
            for name in names.splitlines()
            if Path(name).match(SUMMARY)
        )
        rows = [json.loads(line) for text in texts for line in (text or "").splitlines()]
        return {row["name"]: row for row in rows}
    if not backup.exists():
        temporary = backup.with_name(f".{backup.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for path in (root / folder).glob(SUMMARY):
            shutil.copy(path, temporary)
        temporary.rename(backup)
    return {row["name"]: row for path in sorted(backup.glob(SUMMARY)) for row in read_rows(path)}


def _fresh(folder: Path, pattern: str, root: Path, files: Iterable[str]) -> list[Path]:
    """The files of `folder` that a valid execution wrote."""
    written = set(files)
    return [
        path
        for path in sorted(folder.glob(pattern))
        if path.relative_to(root).as_posix() in written
    ]


def new_rows(root: Path, label: str, files: Iterable[str]) -> dict[str, dict[str, Any]]:
    """name -> summary row of this run; `files`: what valid executions wrote, relative to root.

    A row computed from saved rows names their file (or files) as its `source`; where one of them is
    not of this run (its notebook failed, or was not chosen), the number was read from committed
    rows and counts as not run.
    """
    folder, written = f"data/results/{label}", set(files)

    def fresh(row: Mapping[str, Any]) -> bool:
        source = row.get("source") or []
        return {
            f"{folder}/{name}" for name in ([source] if isinstance(source, str) else source)
        } <= written

    rows = [
        row for path in _fresh(root / folder, SUMMARY, root, written) for row in read_rows(path)
    ]
    return {row["name"]: row for row in rows if fresh(row)}


def compare(
    committed: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]
) -> list[Compared]:
    """Every number that either side has, in the committed order, new names last."""
    return [
        Compared(name, committed.get(name), new.get(name))
        for name in dict.fromkeys([*committed, *new])
    ]


# --------------------------------------------------------------------------------------------- text
def _show(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cells(item: Compared) -> list[str]:
    unit = (item.committed or item.new or {}).get("unit") or ""
    old = _show(item.committed["value"]) if item.committed else "–"
    new = _show(item.new["value"]) if item.new else NOT_RUN
    return [
        f"{item.name} [{unit}]" if unit else item.name,
        old,
        new,
        _show(item.tolerance),
        item.status,
    ]


def as_text(comparison: Sequence[Compared]) -> str:
    """Return the comparison for a terminal: the verdict first, then a table of the numbers outside
    tolerance.

    The whole table stands in the HTML report.
    """
    wrong = [item for item in comparison if item.status in ("differs", "not compared")]
    if not wrong:
        return verdict(comparison)
    table = [HEAD, *map(_cells, wrong)]
    width = [max(len(row[i]) for row in table) for i in range(5)]
    lines = [
        "  ".join(text.ljust(w) for text, w in zip(row, width, strict=True)).rstrip()
        for row in table
    ]
    return "\n".join([verdict(comparison), "", *lines])


def verdict(comparison: Sequence[Compared]) -> str:
    """Return the comparison in sentences: how many numbers are within tolerance, what is new, what
    was not run.
    """
    if not comparison:
        return "There are no numbers to compare, neither committed nor new."
    both = [item for item in comparison if item.committed and item.new]
    ok = sum(item.status == "ok" for item in both)
    said = [f"{ok} of {len(both)} reproduced numbers are within tolerance."]
    missing = [item for item in comparison if item.new is None]
    grid = sum(item.long_grid for item in missing)
    if grid:
        said.append(f"{grid} belong to the long grid (--refresh) and were not run.")
    if rest := len(missing) - grid:
        said.append(f"{rest} more were not run.")
    if new := sum(item.committed is None for item in comparison):
        said.append(f"{new} are new: nothing is committed to compare them with.")
    return " ".join(said)


# --------------------------------------------------------------------------------------------- html
CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; font-size: .9rem }
th { text-align: left; border-bottom: 2px solid #444 }
td, th { padding: .2rem .8rem .2rem 0; vertical-align: top }
tr:nth-child(even) td { background: #f6f6f6 }
.ok { color: #19692c }
.differs, .FAILED { color: #a3141e; font-weight: 600 }
.not { color: #777 }
figure { margin: 1.5rem 0 }
img { max-width: 100% }
figcaption, .small { font-size: .85rem; color: #555 }
pre { font-size: .8rem; overflow-x: auto; background: #f6f6f6; padding: 1rem }
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; the last cell of a row is also its class."""
    lines = [
        "<table>",
        "<tr>" + "".join(f"<th>{html.escape(text)}</th>" for text in head) + "</tr>",
    ]
    for row in rows:
        cells = [f"<td>{html.escape(text)}</td>" for text in row[:-1]]
        last = f'<td class="{html.escape(row[-1])}">{html.escape(row[-1])}</td>'
        lines.append("<tr>" + "".join(cells) + last + "</tr>")
    return "\n".join([*lines, "</table>"])


def _claims(paths: Sequence[Path]) -> str:
    rows = [row for path in paths for row in read_rows(path)]
    if not rows:
        return f'<p class="not">{NOT_RUN}</p>'
    plain = [{k: v for k, v in row.items() if not isinstance(v, (dict, list))} for row in rows]
    head = list(dict.fromkeys(name for row in plain for name in row))
    return _table([*head, ""], [[*(_show(row.get(name)) for name in head), ""] for row in plain])


def _figure(path: Path, rows: Path, written: set[Path]) -> str:
    """The picture inside the page; its caption is the PNG's own text `Description`
    (`figures.style.save`).

    Where one of its `Source` files (under `rows`) is not of this run, the caption begins by saying
    so.
    """
    from PIL import Image

    with Image.open(path) as image:
        caption, sources = image.info.get("Description", ""), image.info.get("Source", "").split()
    if any(rows / name not in written for name in sources):
        caption = f"From committed rows, not from this run. {caption}"
    data = textwrap.fill(
        base64.b64encode(path.read_bytes()).decode(), 4000
    )  # a browser skips the line ends
    text = html.escape(f"{path.stem}. {caption}" if caption else path.stem)
    picture = f'<img alt="{text}" src="data:image/png;base64,{data}">'
    return (
        f'<figure id="{html.escape(path.stem)}">{picture}\n<figcaption>{text}</figcaption></figure>'
    )


def _figures(root: Path, label: str, files: Iterable[str]) -> str:
    folder = root / "figures" / label
    rows, written = root / "data" / "results" / label, {root / file for file in files}
    fresh = _fresh(folder, "*.png", root, files)
    rest = [path for path in sorted(folder.glob("*.png")) if path not in fresh]
    parts = [
        *(_figure(path, rows, written) for path in fresh),
        *(f'<p class="not">{html.escape(path.stem)}: {NOT_RUN}</p>' for path in rest),
    ]
    return "\n".join(parts) or f'<p class="not">{NOT_RUN}</p>'


def write(
    root: Path,
    label: str,
    ran: Sequence[Ran],
    files: Iterable[str],
    comparison: Sequence[Compared],
    config: Mapping[str, Any],
    seconds: float,
) -> Path:
    """Writes report/<label>.html, whole or not at all, and returns its path."""
    files, made = set(files), stamp(config, None, seconds)
    claims = _fresh(root / "data" / "results" / label, CLAIMS, root, files)
    seeds = "as in the notebooks" if config.get("seeds") is None else config["seeds"]
    commit = f"commit {made['commit'] or 'unknown'}{' (with changes)' if made['dirty'] else ''}"
    line = (
        f"profile {config['profile']}, seeds {seeds}, {made['device']}, {commit}, "
        f"{made['date']}, {seconds:.0f} s"
    )
    parts = [
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>ngdiff "
        f"{html.escape(label)}</title>",
        f"<style>{CSS}</style></head><body>",
        f"<h1>ngdiff, reproduced: {html.escape(label)}</h1>\n<p "
        f"class='small'>{html.escape(line)}</p>",
        f"<p>{verdict(comparison)}</p>",
        "<h2>Notebooks</h2>",
        _table(["notebook", "seconds", ""], [[r.name, f"{r.seconds:.1f}", r.word] for r in ran]),
        f"<h2>Figures</h2>\n{_figures(root, label, files)}",
        f"<h2>Claims</h2>\n{_claims(claims)}",
        f"<h2>Committed and new</h2>\n<p>{verdict(comparison)}</p>",
        _table(HEAD, map(_cells, comparison)),
        f"<h2>Stamp</h2>\n<pre>{html.escape(json.dumps(made, indent=1, ensure_ascii=False))}</pre>",
        "</body></html>\n",
    ]
    page = root / "report" / f"{label}.html"
    with atomic_write(page) as temporary:
        temporary.write_text("\n".join(parts), "utf-8")
    return page
