"""The README and docs/ say nothing that a saved row does not, and what they show can be done."""

from __future__ import annotations

import ast
import io
import re
import shlex
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import ngdiff as ng
from ngdiff.book import build as book
from ngdiff.book import contents, costs, evidence_tables, readme
from ngdiff.book.saved import NOT_RUN
from ngdiff.commands.cli import app
from ngdiff.store.rows import write_rows
from tests.helpers import micro
from tests.helpers.micro_trials import MICRO

ROOT = Path(__file__).resolve().parents[2]
PAGES = readme.pages(ROOT)
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
PROSE = [page for page in PAGES if page.suffix == ".md"]
each_page = pytest.mark.parametrize("page", PROSE, ids=[page.name for page in PROSE])


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language; "" is none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.M | re.S)
    return [text for name, text in found if name == language]


# ---------------------------------------------------------------------------------------- filled in
def test_the_pages_are_those_of_the_committed_rows(tmp_path):
    """Of the last commit: a reproduction that has just written other rows is no reason to fail."""
    data = ["data/results", "data/protocol"]
    parts = ["README.md", "docs", *data, "figures", "notebooks", "ngdiff", contents.PLAN]
    packed = subprocess.run(["git", "archive", "HEAD", *parts], cwd=ROOT, capture_output=True)
    if packed.returncode:
        pytest.skip("no git, so it is not known what was committed")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(tmp_path, filter="data")
    assert len(readme.pages(tmp_path)) >= 8
    assert not readme.stale(tmp_path), "run: ngdiff book"


def test_every_block_has_its_place():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert set(readme.MARK.findall(text)) == set(readme.BLOCKS)


def test_no_two_blocks_have_one_name():
    of_each = [name for part in (contents, evidence_tables, costs) for name in part.BLOCKS]
    assert sorted(of_each) == sorted(readme.BLOCKS)


def test_a_typed_number_does_not_survive(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "BLOCKS", {"x": lambda root: "| 1.234 |"})
    typed = "before\n<!-- x -->\n| 9.999 |\n<!-- end x -->\nafter\n"
    made = typed.replace("9.999", "1.234")
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(made)
    (page := tmp_path / "docs/page.md").write_text(typed)
    assert readme.stale(tmp_path) == {page: made}
    assert readme.write(tmp_path) == [page] and page.read_text() == made
    assert readme.write(tmp_path) == []


@pytest.mark.parametrize("name", readme.BLOCKS)
def test_without_rows_a_block_says_so(name, tmp_path):
    assert NOT_RUN in readme.BLOCKS[name](tmp_path)


@pytest.mark.parametrize(
    ("marks", "named"),
    [
        ("<!-- setup -->", "<!-- end setup -->"),
        ("<!-- end setup -->\n<!-- setup -->", "in this order"),
        ("<!-- setup -->\n<!-- setup -->\n<!-- end setup -->", "once each"),
        ("<!-- setupp -->\n<!-- end setupp -->", "'setupp'; choose one of: "),
    ],
)
def test_a_wrong_mark_is_named_with_its_page(marks, named, tmp_path):
    (tmp_path / "README.md").write_text(f"text\n{marks}\ntext\n")
    with pytest.raises(ValueError, match=f"README.md: .*{re.escape(named)}"):
        readme.stale(tmp_path)


def test_the_table_of_folders_has_every_folder():
    folders = {path.parent.name for path in (ROOT / "ngdiff").glob("*/__init__.py")}
    assert set(contents.order(ROOT)) == folders
    assert all(f"| ngdiff/{name} |" in contents.folders(ROOT) for name in folders)


def test_every_notebook_has_its_question():
    pages = list((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
    assert len(pages) > 10 and all(book.header(path).question for path in pages)


@each_page
def test_sentences_are_short(page):
    """Of what is typed: 90 % of the sentences have at most 28 words."""
    text = re.sub(r"<!-- ([\w-]+) -->.*?<!-- end \1 -->", "", page.read_text("utf-8"), flags=re.S)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    prose = (line for line in text.splitlines() if not line.startswith(("|", "#", "![")))
    paragraphs = re.split(r"\n\s*\n|\n\s*(?:-|\d\.) ", "\n".join(prose))
    said = [s.split() for p in paragraphs for s in re.split(r"(?<=[.!?:])\s+(?=[A-Z`*(])", p)]
    sizes = sorted(len(words) for words in said if len(words) > 2)
    assert sizes[int(0.9 * (len(sizes) - 1))] <= 28


# -------------------------------------------------------------------------------------- can be done
def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 120 and len(text.split()) <= 900


def test_the_ten_lines_run_unchanged(capsys):
    (text,) = blocks("README.md", "python")
    assert len([line for line in text.splitlines() if line and "import " not in line]) == 10
    names: dict = {}
    with torch.random.fork_rng():
        exec(text, names)
    info = names["info"]
    assert info.outcome == "forget_level" and info.retain < 0.1 < 1.39 <= info.forget
    assert capsys.readouterr().out.startswith("step 0: retain 0.00")


def test_the_lines_for_a_language_model_run():
    """As they stand, on a model so small that it takes seconds."""
    text = blocks("docs/your_model.md", "python")[0]
    assert 'ng.profile("tiny")' in text
    names: dict = {"MICRO": MICRO}
    exec(text.replace('ng.profile("tiny")', "MICRO"), names)
    assert names["run"].history and names["run"].stopped in ("forget_level", "steps")
    wanted = {"model_utility", "forget_quality", "privleak", "mia_gradnorm"}
    assert wanted <= names["report"].metrics.keys()


def test_the_lines_for_ones_own_files_run(tmp_path, monkeypatch):
    ng.save(micro.lm(), tmp_path / "DIR")
    bench = micro.bench()
    sets = {"forget": bench.forget, "retain": bench.retain, "unseen": bench.holdout}
    for name, rows in sets.items():
        write_rows(tmp_path / f"{name}.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(blocks("docs/your_model.md", "python")[2].replace("steps=100", "steps=2"), names)
    assert names["run"].stopped in ("forget_level", "steps")
    assert ng.load(tmp_path / "OUT").tokenizer.vocab_size == micro.lm().tokenizer.vocab_size


def test_the_loop_of_ones_own_runs():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    rows = [torch.randn(n, 3) for n in (4, 4, 16)]
    names = {
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters()),
        "loss": lambda x: (model(x) - x.sum(1, keepdim=True)).square().mean(),
        "batches": [rows, rows],
        "level": 1e9,
    }
    exec(blocks("docs/your_model.md", "python")[3], names)
    assert names["info"].updated and names["info"].step == 1


def commands(page: str) -> Iterator[str]:
    """Every command of a page: lines of its blocks without a language, and inline code."""
    lines = "\n".join(blocks(page, "")).splitlines()
    yield from (line for line in lines if line.startswith(("ngdiff ", "accelerate ", "make ")))
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text("utf-8"), flags=re.M | re.S)
    yield from re.findall(r"`((?:ngdiff|make)\s[^`]+)`", text)


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and its arguments. Errors: KeyError for none."""
    found: Any = typer.main.get_command(app)
    words = [word for word in words if word != "--debug"]
    while hasattr(found, "commands") and words and words[0] != "…":
        found, words = found.commands[words[0]], words[1:]
    return found, words


@pytest.mark.parametrize("page", IDS)
def test_every_command_is_there_with_its_options(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for line in commands(page):
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert set(words[1:2]) <= targets, line
        else:
            command, given = command_of(words[words.index("ngdiff") + 1 :])
            known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
            asked = {word for word in given if word.startswith("--")}
            assert asked <= known, f"{line}: {command.name} has no {asked - known}"


def test_every_message_that_is_explained_is_in_the_package():
    table = (ROOT / "docs/your_model.md").read_text("utf-8").partition("## What do errors mean?")[2]
    heads = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    quoted = {words for head in heads for words in re.findall(r'"([^"]+)"', head)}
    nodes = (
        node
        for path in (ROOT / "ngdiff").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )
    text = "\n".join(
        n.value for n in nodes if isinstance(n, ast.Constant) and str(n.value) == n.value
    )
    assert len(quoted) > 15 and not {words for words in quoted if words not in text}


def test_a_command_that_is_not_there_is_noticed():
    with pytest.raises(KeyError):
        command_of(["unlean", "--model", "DIR"])
    command, given = command_of(["score", "tofu", "log.json", "--reference", "r.json"])
    assert command.name == "tofu" and given[0] == "log.json"


# -------------------------------------------------------------------------------------------- links
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    plain = (re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", head)).strip().lower() for head in heads)
    return {head.replace(" ", "-") for head in plain}


@each_page
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\((?!https?://)([^)\s]+)\)", text)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {link}"


@each_page
def test_every_page_is_linked_from_the_readme(page):
    name = page.relative_to(ROOT).as_posix()
    assert name == "README.md" or f"]({name})" in (ROOT / "README.md").read_text("utf-8")


def test_the_map_calls_nothing_reproduced_that_was_not_seen():
    lines = contents.paper_map(ROOT).splitlines()[2:]
    statuses = [line.strip("| ").split(" | ")[-1] for line in lines]
    assert len(statuses) >= 8 and "reproduced" not in "".join(lines)
    for status in statuses:
        assert status.startswith(("derived", "our own data", "not run")), status
