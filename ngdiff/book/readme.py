"""The README, the pages of docs/ and the notebooks' sources, filled from saved rows.

Between `<!-- name -->` and `<!-- end name -->` nothing is typed: a block of that name is made there
(`BLOCKS`). In a notebook's source the marks stand in a markdown cell, behind "# ". A block whose
rows are not there says "not run". `ngdiff book` fills every page, and `ngdiff book --check` names
those that differ from a refill.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from ngdiff.book import contents, costs, evidence_tables
from ngdiff.store.cache import atomic_write

BLOCKS: dict[str, Callable[[Path], str]] = {
    **contents.BLOCKS,
    **evidence_tables.BLOCKS,
    **costs.BLOCKS,
}
MARK = re.compile(r"^(?:# )?<!-- (?:end )?([\w-]+) -->$", re.M)


def pages(root: Path) -> list[Path]:
    """Return the pages that are filled: README.md, docs/, and the notebooks' sources."""
    found = [*sorted((root / "docs").rglob("*.md")), *sorted((root / "notebooks").glob("*.py"))]
    return [root / "README.md", *found]


def fill(text: str, root: Path) -> str:
    """Return a page with each of its blocks made anew.

    Errors: ValueError naming a mark that is not known, or a block that does not begin and end once.
    """
    for name in dict.fromkeys(MARK.findall(text)):
        first, last = f"<!-- {name} -->", f"<!-- end {name} -->"
        if name not in BLOCKS:
            raise ValueError(f"no block is called {name!r}; choose one of: {', '.join(BLOCKS)}")
        if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
            raise ValueError(f"a page needs the marks {first} and {last} once each, in this order")
        before, _, rest = text.partition(first)
        after = rest.partition(last)[2]
        start = before[before.rfind("\n") + 1 :]  # "# " in a notebook's source
        body = textwrap.indent(_wrapped(BLOCKS[name](root), start), start, lambda line: True)
        text = f"{before}{first}\n{body}\n{start}{last}{after}"
    return text


def _wrapped(block: str, start: str) -> str:
    """Return a block as it is; in a source, whose lines have an end, its paragraphs wrapped."""
    if not start:
        return block
    wrap = textwrap.TextWrapper(98, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(map(wrap.fill, block.split("\n\n")))


def stale(root: Path) -> dict[Path, str]:
    """Return the pages that differ from a refill, each with its new text.

    Errors: those of `fill`, with the page's name.
    """
    found = {}
    for page in pages(root):
        text = page.read_text("utf-8")
        try:
            filled = fill(text, root)
        except ValueError as error:
            raise ValueError(f"{page.relative_to(root)}: {error}") from error
        if filled != text:
            found[page] = filled
    return found


def write(root: Path) -> list[Path]:
    """Fill every page and return those that changed."""
    found = stale(root)
    for page, text in found.items():
        with atomic_write(page) as temporary:
            temporary.write_text(text, "utf-8")
    return list(found)
