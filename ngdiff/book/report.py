"""The HTML report of a reproduction: figures, claims, committed against new, the stamp.

It is one file that fetches nothing. Only what a valid execution wrote is shown as new
(`ngdiff.book.comparison`).
"""

from __future__ import annotations

import base64
import html
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngdiff.book.comparison import NOT_RUN, Compared, fresh_files, shown, table, verdict
from ngdiff.store import document
from ngdiff.store.cache import atomic_write
from ngdiff.store.rows import read_rows, stamp
from ngdiff.store.table import Column, Table

CLAIMS = "*claims.jsonl"  # under data/results/<label>/
RAN = (
    Column("name", "notebook"),
    Column("seconds", format=".1f", align="right"),
    Column("word", ""),
)


@dataclass(frozen=True)
class Ran:
    """One notebook of the run: done, still valid or FAILED, and the seconds it took."""

    name: str
    word: str
    seconds: float


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


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page of HTML with the reports' style; parts: what its body holds."""
    head = [
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title>",
        f"<style>{CSS}</style></head><body>",
    ]
    return "\n".join([*head, *parts, "</body></html>\n"])


def figure(png: bytes, name: str, caption: str) -> str:
    """Return a picture inside the page, with its caption."""
    # a browser skips the line ends
    data = textwrap.fill(base64.b64encode(png).decode(), 4000)
    text = html.escape(caption)
    picture = f'<img alt="{text}" src="data:image/png;base64,{data}">'
    return f'<figure id="{html.escape(name)}">{picture}\n<figcaption>{text}</figcaption></figure>'


def _claims(paths: Sequence[Path]) -> str:
    rows = [row for path in paths for row in read_rows(path)]
    if not rows:
        return f'<p class="not">{NOT_RUN}</p>'
    plain = [{k: v for k, v in row.items() if not isinstance(v, (dict, list))} for row in rows]
    names = dict.fromkeys(name for row in plain for name in row)
    return Table([Column(name, format=shown) for name in names], plain).html()


def _figure(path: Path, rows: Path, written: set[Path]) -> str:
    """Return the picture inside the page, captioned by its own text (`figures.style.save`).

    Where one of its `Source` files (under `rows`) is not of this run, the caption says so first.
    """
    from PIL import Image

    with Image.open(path) as image:
        caption, sources = image.info.get("Description", ""), image.info.get("Source", "").split()
    if any(rows / name not in written for name in sources):
        caption = f"From committed rows, not from this run. {caption}"
    return figure(path.read_bytes(), path.stem, f"{path.stem}. {caption}" if caption else path.stem)


def _figures(root: Path, label: str, files: Iterable[str]) -> str:
    folder = root / "figures" / label
    rows, written = root / "data" / "results" / label, {root / file for file in files}
    fresh = fresh_files(folder, "*.png", root, files)
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
    """Write report/<label>.html, whole or not at all, and returns its path."""
    files, made = set(files), stamp(config, None, seconds)
    claims = fresh_files(root / "data" / "results" / label, CLAIMS, root, files)
    seeds = "as in the notebooks" if config.get("seeds") is None else config["seeds"]
    commit = f"commit {made['commit'] or 'unknown'}{' (with changes)' if made['dirty'] else ''}"
    line = (
        f"profile {config['profile']}, seeds {seeds}, {made['device']}, {commit}, "
        f"{made['date']}, {seconds:.0f} s"
    )
    parts = [
        f"<h1>ngdiff, reproduced: {html.escape(label)}</h1>",
        f"<p class='small'>{html.escape(line)}</p>",
        f"<p>{verdict(comparison)}</p>",
        "<h2>Notebooks</h2>",
        Table(RAN, [vars(one) for one in ran]).html(status="word"),
        f"<h2>Figures</h2>\n{_figures(root, label, files)}",
        f"<h2>Claims</h2>\n{_claims(claims)}",
        f"<h2>Committed and new</h2>\n<p>{verdict(comparison)}</p>",
        table(comparison).html(status="ok"),
        f"<h2>Stamp</h2>\n<pre>{html.escape(document.text(made))}</pre>",
    ]
    written = root / "report" / f"{label}.html"
    with atomic_write(written) as temporary:
        temporary.write_text(page(f"ngdiff {label}", parts), "utf-8")
    return written
