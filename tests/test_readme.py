"""The README says nothing that a saved row does not: its tables are a refill, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ngdiff import readme

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "README.md"


def test_the_tables_are_those_of_the_committed_rows():
    text = PAGE.read_text("utf-8")
    assert readme.fill(text, ROOT) == text, "run: ngdiff book"


def test_a_typed_number_does_not_survive(monkeypatch):
    monkeypatch.setattr(readme, "BLOCKS", {"x": lambda root: "| 1.234 |"})
    text = "before\n<!-- x -->\n| 9.999 |\n<!-- end x -->\nafter\n"
    assert readme.fill(text, ROOT) == "before\n<!-- x -->\n| 1.234 |\n<!-- end x -->\nafter\n"


@pytest.mark.parametrize("name", readme.BLOCKS)
def test_without_rows_a_table_says_so(name, tmp_path):
    assert readme.NOT_RUN in readme.BLOCKS[name](tmp_path)


def test_a_missing_mark_is_named():
    with pytest.raises(ValueError, match="<!-- claims -->"):
        readme.fill(PAGE.read_text("utf-8").replace("<!-- claims -->", ""), ROOT)


def test_every_link_and_picture_is_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE.read_text("utf-8"))
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_every_notebook_has_its_question():
    assert set(readme.QUESTIONS) == {path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.py")}
