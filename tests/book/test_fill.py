"""Blocks in a notebook's source: each line behind "# ", no line too long, filled once for all."""

from __future__ import annotations

import re

import pytest

from ngdiff.book import readme

SOURCE = """# %% [markdown]
# # A page
# <!-- x -->
# something typed
# <!-- end x -->
#
# The text goes on.

# %%
print("no mark: <!-- x -->")
"""
WORDS = "In the long comparison 2 of 10 tuned rivals score higher than NGDiff + AutoLR (0.8000)."


@pytest.fixture
def block(monkeypatch):
    """Set what the block x says."""

    def says(text: str) -> None:
        monkeypatch.setattr(readme, "BLOCKS", {"x": lambda root: text})

    return says


def body(text: str) -> list[str]:
    """The lines between the marks of a source."""
    return re.search(r"# <!-- x -->\n(.*?)\n?# <!-- end x -->", text, re.S).group(1).splitlines()


@pytest.mark.parametrize("words", ["not run", WORDS, " ".join([WORDS] * 9), "word " * 500])
def test_a_block_of_a_source_is_a_comment_with_short_lines(words, block, tmp_path):
    block(words)
    source = SOURCE.replace('<!-- x -->")', '")')
    filled = readme.fill(source, tmp_path)
    lines = body(filled)
    assert lines and all(line.startswith("# ") and len(line) <= 100 for line in lines)
    assert " ".join(line[2:] for line in lines).split() == words.split(), "no word is lost or cut"
    assert readme.fill(filled, tmp_path) == filled
    before, after = source.split("# something typed")
    assert filled.startswith(before) and filled.endswith(after)


def test_a_long_word_is_not_cut(block, tmp_path):
    link = "[a page](https://example.org/" + "x" * 120 + ")"
    block(f"See {link} too.")
    filled = readme.fill(SOURCE.replace('<!-- x -->")', '")'), tmp_path)
    assert link.split()[1] in filled


def test_a_block_of_a_page_stays_as_it_is(block, tmp_path):
    block(f"| a | b |\n| --- | --- |\n| {WORDS} | {WORDS} |")
    page = "text\n<!-- x -->\n<!-- end x -->\nmore"
    filled = readme.fill(page, tmp_path)
    assert f"<!-- x -->\n| a | b |\n| --- | --- |\n| {WORDS} | {WORDS} |\n<!-- end x -->" in filled
    assert readme.fill(filled, tmp_path) == filled


def test_an_unknown_mark_of_a_source_is_named(block, tmp_path):
    block("")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text("")
    (tmp_path / "notebooks/06_page.py").write_text("# <!-- ahaed -->\n# <!-- end ahaed -->\n")
    with pytest.raises(ValueError, match=r"06_page.py: no block is called 'ahaed'; choose one of"):
        readme.stale(tmp_path)


def test_the_same_name_twice_on_a_page_is_named(block, tmp_path):
    block("words")
    with pytest.raises(ValueError, match="once each"):
        readme.fill(SOURCE, tmp_path)
