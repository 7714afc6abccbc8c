"""A table shows the same cells in each of its forms, whatever characters stand in them."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from ngdiff.store.table import LATEX, Column, Link, Table, displayed

CELLS = [
    "a & b",
    "100 %",
    "snake_case _em_ *strong* **both**",
    "x | y || z",
    "<b>bold</b> &lt; &amp; a<b",
    "\"double\" 'single' `code`",
    "back\\slash \\| \\\\ \\",
    "line\nbreak\r\nagain",
    "comma, semicolon; tab\tend",
    "Łódź η ‖g‖ 東京 é",
    "$x^2$ {~} #1 -- ---",
    "[text](target) [ref]: ![i](j)",
    "~~gone~~",
    "",
    "# heading",
    "- item",
    "=1+1",
]
COLUMNS = (Column("name", "na|me <&> %_"), Column("text"), Column("n", align="right"))
ROWS = [{"name": cell, "text": cell[::-1], "n": i} for i, cell in enumerate(CELLS)]
TABLE = Table(COLUMNS, ROWS)
GIVEN = [[c.head for c in COLUMNS], *([r["name"], r["text"], str(r["n"])] for r in ROWS)]


def breaks(text: str) -> str:
    return re.sub(r"\r\n|\r", "\n", text)


# ------------------------------------------------------------------------------------------- values
def test_formats_missing_words_and_headings() -> None:
    columns = (
        Column("a", format=".2f"),
        Column("b", "B", format=lambda pair: f"{pair[0]} of {pair[1]}"),
        Column("c", "", format=".3g"),
    )
    rows = [{"a": 0.125, "b": (1, 2), "c": "as it is"}, {"b": None, "c": 0}]
    assert Table(columns, rows).cells() == [["0.12", "1 of 2", "as it is"], ["–", "–", "0"]]
    assert Table(columns, rows, missing="not run").cells()[1][0] == "not run"
    assert [c.head for c in columns] == ["a", "B", ""]


def test_a_column_that_no_row_has_is_left_out_on_request() -> None:
    table = Table((Column("a"), Column("b"), Column("c")), [{"a": 0, "b": None}, {"b": None}])
    assert [c.key for c in table.shown().columns] == ["a"]
    assert table.shown().markdown() == "| a |\n| --- |\n| 0 |\n| – |"


def test_a_table_of_no_rows_has_its_headings() -> None:
    table = Table((Column("a"), Column("b", align="right")), [])
    assert table.text() == "a  b" and table.markdown() == "| a | b |\n| --- | ---: |"
    assert table.csv() == "a,b\r\n"
    assert (
        table.html() == '<table>\n<tr><th>a</th><th style="text-align: right">b</th></tr>\n</table>'
    )


# --------------------------------------------------------------------------------------------- text
def test_text_lines_up_whatever_the_letters_are_wide() -> None:
    names = ["ascii", "東京", "e\u0301te\u0301", "ＡＢ", "zero\u200bwidth", "line\nbreak"]
    rows = [{"name": name, "n": 10**i} for i, name in enumerate(names)]
    lines = Table((Column("name"), Column("n", align="right")), rows).lines()
    assert len({displayed(line) for line in lines}) == 1 and len(lines) == 7
    assert lines[2].startswith("東京       ") and lines[6].startswith("line break  ")


def test_text_aligns_left_and_right_and_ends_without_blanks() -> None:
    table = Table(
        (Column("a", width=5), Column("b", align="right"), Column("c")),
        [{"a": "x", "b": 10, "c": "long"}, {"a": "y", "b": 5, "c": "s"}],
    )
    assert table.text() == "a       b  c\nx      10  long\ny       5  s"


def test_displayed_widths() -> None:
    texts = ("", "abc", "東京", "e\u0301", "η−÷")
    assert [displayed(text) for text in texts] == [0, 3, 4, 1, 3]


# ------------------------------------------------------------------------------------ read back
def test_csv_comes_back_by_the_csv_module() -> None:
    assert list(csv.reader(io.StringIO(TABLE.csv(), newline=""))) == GIVEN


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self.marks: list[dict[str, str | None]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.marks.append(dict(attrs))
        elif tag == "br":
            self.rows[-1][-1] += "\n"

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.removesuffix("\n") if data == "\n" else data


def parsed(text: str) -> Cells:
    parser = Cells()
    parser.feed(text)
    parser.close()
    return parser


def test_html_comes_back_by_a_parser() -> None:
    found = parsed(TABLE.html())
    assert found.rows == [[breaks(cell) for cell in line] for line in GIVEN]
    assert found.tags == {"table", "tr", "td", "th", "br"}


def test_the_class_of_a_cell_is_its_text_and_cannot_break_out() -> None:
    table = Table((Column("n"), Column("ok")), [{"n": 1, "ok": '"><script>'}, {"n": 2, "ok": "ok"}])
    found = parsed(table.html(status="ok"))
    assert [mark for mark in found.marks if mark] == [{"class": '"><script>'}, {"class": "ok"}]
    assert "script" not in found.tags and "class" not in table.html()


def split(line: str) -> list[str]:
    """The cells of a markdown line, as GitHub splits it: at each | that no backslash escapes."""
    cells = re.findall(r"((?:\\.|[^|\\])*)\|", line)
    assert cells[0] == ""
    return [cell.strip(" ") for cell in cells[1:]]


def test_markdown_has_a_line_a_row_and_its_cells() -> None:
    lines = TABLE.markdown().split("\n")
    assert lines[1] == "| --- | --- | ---: |" and len(lines) == len(GIVEN) + 1
    read = [
        [re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.replace("<br>", "\n")) for cell in split(line)]
        for line in (lines[0], *lines[2:])
    ]
    assert read == [[breaks(cell).strip(" ") for cell in line] for line in GIVEN]


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("model_utility", "model_utility"),  # no emphasis inside a word
        ("_em_", r"\_em\_"),
        ("2 * 3", r"2 \* 3"),
        ("[−0.1, +0.2], n = 3", "[−0.1, +0.2], n = 3"),
        ("a < b & c", "a < b & c"),
        ("<b> &amp;", r"\<b> \&amp;"),
        ("a|b", r"a\|b"),
        (r"\|", r"\\\|"),
        ("a\\\nb", r"a\\<br>b"),
        ("[a](b)", r"[a\](b)"),
        ("-0.010", "-0.010"),
    ],
)
def test_markdown_escapes_what_has_a_meaning_and_nothing_else(cell: str, written: str) -> None:
    assert Table((Column("a"),), [{"a": cell}]).markdown().split("\n")[2] == f"| {written} |"


def test_links() -> None:
    table = Table((Column("a"),), [{"a": Link("0_0 | x", "a b(c)|.ipynb")}])
    assert "[0_0 \\| x](a%20b%28c%29%7C.ipynb)" in table.markdown()
    assert '<a href="a b(c)|.ipynb">0_0 | x</a>' in table.html()
    assert table.text() == "a\n0_0 | x" and table.csv() == "a\r\n0_0 | x\r\n"


def unlatex(text: str) -> str:
    for letter, written in sorted(LATEX.items(), key=lambda pair: -len(pair[1])):
        text = text.replace(written, f"\x00{ord(letter)}\x00")
    text = text.replace("-{}-", "--").replace("-{}-", "--")
    return re.sub("\x00(\\d+)\x00", lambda found: chr(int(found[1])), text)


def test_latex_comes_back_and_nothing_is_left_unescaped() -> None:
    lines = TABLE.latex().split("\n")
    assert lines[0] == r"\begin{tabular}{llr}" and lines[-1] == r"\end{tabular}"
    rows = [line for line in lines[1:-1] if line != r"\hline"]
    assert lines.count(r"\hline") == 3 and all(row.endswith(r" \\") for row in rows)
    read = [
        [unlatex(cell) for cell in re.split(r"(?<!\\) ?& ?", row.removesuffix(r" \\"))]
        for row in rows
    ]
    plain = [[re.sub(r"[\n\r\t]", " ", cell) for cell in line] for line in GIVEN]
    assert [[cell.strip() for cell in line] for line in read] == [
        [cell.strip() for cell in line] for line in plain
    ]
    for row in rows:
        assert not re.search(r"(?<!\\)[%#]", row) and row.count("$") % 2 == row.count(r"\$") % 2
    assert Table((Column("a"),), [{"a": "[1]"}, {"a": "*"}]).latex().count("{[}1]") == 1
