"""The README says nothing that a saved row does not, and its links lead somewhere."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch

from ngdiff.book import build as book
from ngdiff.book import readme
from ngdiff.study import sentences as findings
from tests.helpers.micro_trials import MICRO

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "README.md"


def test_the_tables_are_those_of_the_committed_rows(tmp_path):
    """Of the last commit: a reproduction that has just written other rows is no reason to fail."""
    parts = ["README.md", "data/results", "notebooks"]
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
    }
    for kind, n in (("retain", 4), ("forget", 4), ("wider_retain", 16)):
        names[f"{kind}_batch"] = torch.randn(n, 3)
    exec(text.replace('ng.profile("tiny")', "MICRO"), names)
    assert (
        names["info"].updated
        and names["run"].history
        and names["run"].stopped in ("forget_level", "steps")
    )
    assert {"model_utility", "forget_quality", "privleak", "mia_gradnorm"} <= names[
        "report"
    ].metrics.keys()


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
    pages = list((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
    assert len(pages) > 10 and all(book.header(path).question for path in pages)


def test_findings_are_worked_out_from_the_rows():
    """A grid of one method beside ours: every number and every name by hand."""
    ours, theirs = (
        {"method": m, "stepsize": r, "stopped": "forget_level"}
        for m, r in (("ngdiff", "autolr"), ("npo", "constant"))
    )
    cost = {"updates": 40, "seconds": 5.0, "forwards": 12, "score": 0.9, "loss_forget": 3.0}
    matched = [
        ours | cost,
        {**ours, **cost, "stopped": "steps"},
        ours | cost | {"stepsize": "constant", "updates": 90},
    ]
    matched += [theirs | cost | {"stepsize": "autolr", "score": 0.95}]
    tuning = [
        theirs | {"lr": lr, "score": s, "stopped": w}
        for lr, s, w in ((1, 0.5, "steps"), (2, 0.9, "forget_level"), (3, 0.8, "forget_level"))
    ]
    starts = [ours | cost | {"lr": 1e-5, "updates": 60}, ours | cost | {"lr": 1e-2}]
    against = {
        "name": "against npo",
        "low": -0.1,
        "high": 0.2,
        "mean": 0.1,
        "verdict": "tuned npo better",
    }
    named = {
        "AutoLR over starting rates": 0.003,
        "swing of graddiff with c": 0.1,
        "ascent keeps, at matched forgetting": 0.8,
        "ascent keeps, without a stop at 0.001": 0.0,
    }
    claimed = [against, *({"name": name, "mean": mean} for name, mean in named.items())]
    verdicts, autolr, rates, cost_of, ascent, walked = findings.sentences(
        matched, tuning, starts, [theirs | cost], claimed
    )
    assert (
        "better than none; **worse than NPO**" in verdicts
        and "against none; in the other's, against none" in verdicts
    )
    assert (
        "NGDiff (0.900) has a lower mean score than NPO (0.950)" in autolr
        and "NGDiff 50%, NPO 100%" in autolr
    )
    assert "moves by 0.003" in rates and "from 40 to 60" in rates and "from 100% to 100%" in rates
    assert "moves by 0.10 (NPO) to 0.10 (NPO); over all by 0.40 (NPO)" in rates
    assert (
        "40 updates in 5.0 s" in cost_of
        and "makes 90 in 5.0 s" in cost_of
        and "1 of its 2 runs" in cost_of
    )
    assert "keeps 0.80" in ascent and "0.00 at 0.001" in ascent and "NPO 0.900 (3.0)" in walked
