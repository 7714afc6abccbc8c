"""The page and the model card of a run: they say its numbers, and the user's README stays."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from ngdiff.commands import card
from tests.helpers import micro, own_model
from tests.helpers.own_model import done


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return own_model.folder(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def out(given):
    done(given, given / "out", f"--holdout={given / 'holdout.jsonl'}", "--forget-bound=1")
    return given / "out"


class Cells(HTMLParser):
    """The texts of a page, and its tags that fetch something."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.fetched = [], []
        self.feed(page)

    def handle_data(self, data):
        self.texts.append(data)

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_shows_numbers_answers_and_settings(out):
    row = json.loads((out / "run.json").read_text())
    page = Cells((out / "report.html").read_text("utf-8"))
    (picture,) = page.fetched  # of the losses, inside the page
    assert picture.startswith("data:image/png;base64,")
    one = row["before"]["forget"]["answers"][0]
    assert {one["question"], one["answer"], "forget", "retain", "holdout"} <= set(page.texts)
    assert f"{row['verdict']}: {row['why']}" in page.texts
    assert f"{row['before']['holdout']['loss']:.4g}" in page.texts


def test_the_card_says_method_sizes_numbers_and_limits_and_no_row(out):
    text, row = (out / "README.md").read_text("utf-8"), json.loads((out / "run.json").read_text())
    assert "no guarantee of deletion" in text and "ngdiff, step size autolr, adamw" in text
    assert "8 forget, 3 retain, 8 holdout" in text
    assert (
        f"{row['updates']} updates" in text and f"| {row['after']['forget']['loss']:.4g} |" in text
    )
    sets = (micro.bench().forget, micro.bench().retain, micro.bench().holdout)
    texts = [row[key] for rows in sets for row in rows for key in ("question", "answer")]
    assert not [one for one in texts if one in text]


def test_the_card_names_the_model_and_not_its_place(given, out):
    text, row = (out / "README.md").read_text("utf-8"), json.loads((out / "run.json").read_text())
    assert str(given) in row["model"]
    assert "- Model: model\n" in text and str(given) not in text
    hub = row | {"model": "acme/tiny"}
    assert "- Model: acme/tiny\n" in card.card(hub)


def test_a_readme_of_the_user_stays_and_each_card_too(given, tmp_path):
    model, mine = given / "model", "# Mine\r\n"
    place = tmp_path / "model"
    place.mkdir()
    for path in model.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    (place / "Readme.md").write_bytes(mine.encode())
    more = ("--stepsize=constant", "--lr=0.01", "--steps=1")
    done(given, tmp_path / "one", *more, f"--model={place}")
    done(given, tmp_path / "two", *more, f"--model={tmp_path / 'one'}")
    for name in ("one", "two"):
        assert (tmp_path / name / "Readme.md").read_bytes() == mine.encode()
        assert not (tmp_path / name / "README.md").exists()
    first, second = (
        (tmp_path / "two" / n).read_text() for n in ("UNLEARNING.md", "UNLEARNING-2.md")
    )
    assert first == (tmp_path / "one/UNLEARNING.md").read_text() != second


def test_what_a_row_says_is_no_html_or_markdown():
    answers = [{"question": "<b>?", "answer": "|", "said": "<script>"}]
    one = {"rows": 1, "loss": None, "verbatim": 0, "rouge": 0.0, "answers": answers}
    settings = {"lr": 1e-3, "method": "ngdiff", "stepsize": "constant"}
    row = {"before": {"forget": one}, "after": {"forget": one}, "sizes": {"forget": 1}}
    row |= {"settings": settings | {"optimizer": "sgd"}, "verdict": "broken", "why": "a < b"}
    row |= {"updates": 0, "level": None, "bounds": {"forget": 0.1, "retain": 0.9}}
    row |= {"model": "m<i>", "prompt": "<b>", "name": "<n>", "stamp": {}}
    page = card.report(row, [])
    for raw in ("<b>", "<script>", "<i>", "<n>"):
        assert raw not in page
    assert "–" in card.card(row) and "constant 0.001" in card.card(row)
