"""Tables: the one place where rows become text, HTML, markdown, CSV or LaTeX.

    Table((Column("method"), Column("score", format=".3f", align="right")), rows).markdown()

Every form shows the same cells. A value that a row lacks, or has as None, prints the table's
`missing` word. What has a meaning in a form is escaped there, so that each cell reads as it was
given.
"""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

DASH = "–"
GAP = "  "  # between two columns of text


@dataclass(frozen=True)
class Link:
    """A cell that leads somewhere; where a form has no links, its text alone."""

    text: str
    target: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Column:
    """One column: which value of a row it shows, under which heading, and how.

    format: a format specification for numbers (text is shown as it is), or a function of the value.
    width: of the text form, at least; tables printed under one another line up by it.
    """

    key: str
    heading: str | None = None  # None: the key
    format: str | Callable[[Any], str] = ""
    align: Literal["left", "right"] = "left"
    width: int = 0

    @property
    def head(self) -> str:
        return self.key if self.heading is None else self.heading

    def cell(self, row: Mapping[str, Any], missing: str) -> str | Link:
        """Return what the row has to show here."""
        value = row.get(self.key)
        if value is None:
            return missing
        if callable(self.format):
            return self.format(value)
        return value if isinstance(value, (str, Link)) else format(value, self.format)


@dataclass(frozen=True)
class Table:
    """Columns, rows as mappings, and the word for a missing value."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    missing: str = DASH

    def shown(self) -> Table:
        """Return the table without the columns for which no row has a value."""
        some = [c for c in self.columns if any(row.get(c.key) is not None for row in self.rows)]
        return replace(self, columns=some)

    def cells(self) -> list[list[str | Link]]:
        """Return what stands in the table, row by row, without the headings."""
        return [[c.cell(row, self.missing) for c in self.columns] for row in self.rows]

    # ----------------------------------------------------------------------------------- for a page
    def lines(self) -> list[str]:
        """Return the lines of `text`: the headings, then one line a row."""
        written = [[_one_line(str(cell)) for cell in line] for line in (self._heads, *self.cells())]
        widths = [
            max(column.width, *(displayed(line[i]) for line in written))
            for i, column in enumerate(self.columns)
        ]
        return [GAP.join(map(_padded, line, widths, self._aligned)).rstrip() for line in written]

    def text(self) -> str:
        """Return the table in columns of equal width."""
        return "\n".join(self.lines())

    def markdown(self) -> str:
        """Return a table of GitHub's markdown."""
        rule = ["---:" if align == "right" else "---" for align in self._aligned]
        lines = [[_markdown(cell) for cell in line] for line in (self._heads, *self.cells())]
        return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))

    def html(self, status: str = "") -> str:
        """Return a table of HTML.

        status: the key of a column whose text is also the class of its cells, for a style sheet.
        """

        def line(tag: str, cells: Sequence[str | Link]) -> str:
            made = (
                f"<{tag}{_attributes(column, tag, str(cell), status)}>{_html(cell)}</{tag}>"
                for column, cell in zip(self.columns, cells, strict=True)
            )
            return f"<tr>{''.join(made)}</tr>"

        body = [line("td", cells) for cells in self.cells()]
        return "\n".join(["<table>", line("th", self._heads), *body, "</table>"])

    def csv(self) -> str:
        """Return comma-separated values, headings first, quoted where needed (RFC 4180)."""
        out = io.StringIO()
        csv.writer(out).writerows(
            [str(cell) for cell in line] for line in (self._heads, *self.cells())
        )
        return out.getvalue()

    def latex(self) -> str:
        """Return a `tabular` that needs no package, for any LaTeX since 2020.

        Greek letters and the signs in `SIGNS` are written as commands. Other letters stay as they
        are: pdfLaTeX knows those of Latin alphabets, XeLaTeX and LuaLaTeX all that the font has.
        """
        align = "".join(align[0] for align in self._aligned)
        lines = [" & ".join(map(_latex, line)) + r" \\" for line in (self._heads, *self.cells())]
        body = [r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"]
        return "\n".join([f"\\begin{{tabular}}{{{align}}}", *body, r"\end{tabular}"])

    @property
    def _heads(self) -> list[str | Link]:
        return [column.head for column in self.columns]

    @property
    def _aligned(self) -> list[str]:
        return [column.align for column in self.columns]


# --------------------------------------------------------------------------------------------- text
def displayed(text: str) -> int:
    """Return the width of `text` on a terminal: a wide letter takes two, a combining mark none."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    marks = sum(unicodedata.category(letter) in ("Mn", "Me", "Cf") for letter in text)
    return len(text) + wide - marks


def _padded(text: str, width: int, align: str) -> str:
    space = " " * (width - displayed(text))
    return space + text if align == "right" else text + space


def _one_line(text: str) -> str:
    """Put a space for line breaks, tabs and other control characters, which would break a line."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)


# ----------------------------------------------------------------------------------- HTML, markdown
def _broken(text: str) -> str:
    return re.sub(r"\r\n|\r|\n", "<br>", text)


def _html(cell: str | Link) -> str:
    text = _broken(html.escape(str(cell)))
    return f'<a href="{html.escape(cell.target)}">{text}</a>' if isinstance(cell, Link) else text


def _attributes(column: Column, tag: str, text: str, status: str) -> str:
    right = ' style="text-align: right"' if column.align == "right" else ""
    mark = f' class="{html.escape(text)}"' if tag == "td" and column.key == status else ""
    return right + mark


MARKS = re.compile(
    r"[|*`~]"  # cells; emphasis; code; strikethrough
    r"|\\(?=[!-/:-@\[-`{-~\r\n]|$)"  # what would itself escape, a line break too
    r"|(?<!\w)_|_(?!\w)"  # emphasis; inside a word an underscore is one
    r"|<(?=[A-Za-z/!?])"  # a tag
    r"|&(?=#?\w+;)"  # an entity
    r"|\](?=[(\[:])"  # a link
    r"|^[#>+-](?=\s|$)"  # a block, in case a renderer looks for one
)


def _markdown(cell: str | Link) -> str:
    text = _broken(MARKS.sub(r"\\\g<0>", str(cell)))
    if not isinstance(cell, Link):
        return text
    target = re.sub(r"[\s()<>|\\]", lambda found: f"%{ord(found[0]):02X}", cell.target)
    return f"[{text}]({target})"


# -------------------------------------------------------------------------------------------- LaTeX
GREEK = {
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta"},
    **{"η": "eta", "θ": "theta", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi"},
    **{"π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "varphi", "χ": "chi", "ψ": "psi"},
    **{"ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Σ": "Sigma"},
    **{"Φ": "Phi", "Ψ": "Psi", "Ω": "Omega"},
}
# what a sign is in mathematics
SIGNS = {
    **{"−": "-", "≤": r"\le", "≥": r"\ge", "≈": r"\approx", "≠": r"\ne", "∞": r"\infty"},
    **{"×": r"\times", "÷": r"\div", "±": r"\pm", "·": r"\cdot", "→": r"\to", "∈": r"\in"},
    **{"‖": r"\|", "∇": r"\nabla", "√": r"\surd", "½": r"\frac12", "²": "^2", "³": "^3"},
    **{letter: rf"\{name}" for letter, name in GREEK.items()},
}
LATEX = {
    **{letter: f"${name}$" for letter, name in SIGNS.items()},
    **{letter: f"\\{letter}" for letter in "#$%&_{}"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "*": "{*}",  # after the end of a line, \\* and \\[ have a meaning
    "[": "{[}",
}


def _latex(cell: str | Link) -> str:
    text = "".join(LATEX.get(letter, letter) for letter in _one_line(str(cell)))
    return text.replace("--", "-{}-").replace("--", "-{}-")  # two hyphens are no dash
