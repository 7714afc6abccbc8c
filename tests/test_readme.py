"""The README says nothing that a saved row does not: its tables are a refill, its links lead somewhere."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch
from micro_trials import MICRO

from ngdiff import readme

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "README.md"


def test_the_tables_are_those_of_the_committed_rows(tmp_path):
    """Of the last commit: a reproduction that has just written other rows is no reason to fail."""
    parts = ["README.md", "data/results", "notebooks/10_every_figure.py"]
    packed = subprocess.run(["git", "archive", "HEAD", *parts], cwd=ROOT, capture_output=True)
    if packed.returncode:
        pytest.skip("no git, so it is not known what was committed")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(tmp_path, filter="data")
    text = (tmp_path / "README.md").read_text("utf-8")
    assert readme.fill(text, tmp_path) == text, "run: ngdiff book"


def test_the_example_runs_as_it_stands():
    """Every line of the first Python block, on a model so small that it takes seconds."""
    text = re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)[1]
    assert 'ng.profile("tiny")' in text
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    names = {
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters()),
        "loss": lambda x: (model(x) - x.sum(1, keepdim=True)).square().mean(),
        "MICRO": MICRO,
        **{f"{kind}_batch": torch.randn(n, 3) for kind, n in (("retain", 4), ("forget", 4), ("wider_retain", 16))},
    }
    exec(text.replace('ng.profile("tiny")', "MICRO"), names)
    assert names["info"].updated and names["run"].history and names["run"].stopped in ("forget_level", "steps")
    assert {"model_utility", "forget_quality", "privleak", "mia_gradnorm"} <= names["report"].metrics.keys()


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
