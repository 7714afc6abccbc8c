"""A reference is tested before it is believed, in every benchmark's evaluation."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from ngdiff.data import dossiers, news
from ngdiff.evaluation import evaluate, sight, trust
from ngdiff.evaluation.items import scores
from tests.helpers import micro

QUICK = {"generate": False, "gradnorm": False}


def test_the_day_in_a_template_does_not_make_another_row():
    texts = [
        {"0": (f"Cutting\nToday Date: {day}\nWho?", "A")} for day in ("10 Apr 2025", "11 May 2026")
    ]
    assert trust.same_rows(*texts, "a", "b") == []


def test_a_membership_score_far_from_half_is_told_where_chance_does_not_explain_it():
    assert trust.membership(0.75, (400, 400), "ref")[0].startswith("ref: its membership AUC")
    assert "is 0.2 " in trust.membership(0.2, (400, 400), "ref")[0]
    assert trust.membership(0.59, (4000, 4000), "ref") == []  # near enough
    assert trust.membership(0.75, (8, 8), "ref") == []  # three standard errors are 0.45
    assert "not tested" in trust.membership(None, (8, 8), "ref")[0]
    assert "not tested" in trust.membership(0.5, (8, 0), "ref")[0]


def test_two_models_are_the_same_where_all_values_are():
    one = {"a": scores([1.0, 2.0]), "b": scores([3.0, np.nan])}
    near = {"a": scores([1.0 + 1e-6, 2.0]), "b": scores([3.0, np.nan])}
    other = {"a": scores([1.0, 2.0]), "b": scores([3.1, np.nan])}
    assert "(3 compared)" in trust.same_model(one, near, "ref")[0]
    assert trust.same_model(one, other, "ref") == trust.same_model(one, {}, "ref") == []
    infinite = {"a": scores([np.inf, np.inf])}
    assert trust.same_model(infinite, infinite, "ref") == []  # two collapsed models


def doubts(model, bench, reference, **options):
    """The warnings of an evaluation; its report's meta has the same lines and those not tested."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = evaluate(model, bench, reference, **options)
    lines = [str(w.message) for w in caught if "the reference" in str(w.message)]
    assert set(lines) <= set(report.meta["doubts"])
    return lines, report.meta["doubts"]


def test_tofu_names_the_model_itself_given_as_its_reference(lm, bench, reference):
    said = []
    own = evaluate(lm, bench, **QUICK)
    for given in (lm, own):
        assert "it is the same model or file" in doubts(lm, bench, given, **QUICK)[0][0]
    assert doubts(lm, bench, reference, progress=said.append, **QUICK) == ([], [])
    assert evaluate(lm, bench, **QUICK).meta["doubts"] == []


def test_tofu_names_a_report_that_contradicts_itself(lm, bench, reference):
    ref = evaluate(reference, bench, **QUICK)
    row = ref.items["forget_truth_ratio"][3]
    row["score"] *= 2
    lines, _ = doubts(lm, bench, ref, **QUICK)
    assert any("in 1 of 8 items the score is not the ratio of these losses" in s for s in lines)
    assert any("its forget_truth_ratio is" in line for line in lines)


def test_tofu_says_what_it_could_not_test(lm, bench, reference):
    configs = {name: rows for name, rows in bench.configs.items() if not name.startswith("holdout")}
    bare = replace(bench, configs=configs)
    warned, lines = doubts(lm, bare, reference, **QUICK)
    assert warned == [] and "not tested whether it has seen the forget rows" in lines[0]
    less = {**bench.configs, "forget10_perturbed": bench.rows("forget10_perturbed")[:5]}
    other = replace(bench, configs={**less, "forget10": bench.forget[:5]})
    told = doubts(lm, bench, evaluate(reference, other, **QUICK), **QUICK)[1]
    assert any("no texts to compare" in line for line in told)
    assert "mia_reference is left out" in told[-1]


def test_muse_and_semeval_name_the_model_itself(lm):
    stories = news()
    some = {name: rows[:3] for name, rows in stories.configs.items()}
    some["forget"], some["retain"] = stories.forget[:1], stories.retain[:1]
    short = {name: [_short(row) for row in rows] for name, rows in some.items()}
    muse = replace(stories, configs=short)
    assert "it is the same model" in doubts(lm, muse, lm, generate=False)[0][0]
    assert doubts(lm, muse, micro.reference(), generate=False)[0] == []
    files = dossiers()
    configs = {name: rows[:3] for name, rows in files.configs.items()}
    semeval = replace(files, configs={n: [_short(r) for r in rows] for n, rows in configs.items()})
    assert "it is the same model" in doubts(lm, semeval, lm, generate=False)[0][0]
    assert doubts(lm, semeval, micro.reference(), generate=False)[0] == []


def _short(row):
    return row | {"question": row["question"][:40], "answer": row["answer"][:40]}


@pytest.mark.parametrize(
    ("answer", "blind"),
    [
        ("In Oslo.", False),
        ("Łódź", False),
        ("1952", False),
        ("東京", True),
        ("第0本书", True),
        ("•••", True),
        ("", False),
    ],
)
def test_which_answers_rouge_cannot_see(answer, blind):
    assert sight.blind(answer) == blind


def test_the_reader_is_told_how_many_answers_rouge_cannot_see(lm, bench):
    assert sight.unseen(["In Oslo.", "1"]) == []
    rows = [row | {"answer": f"東京{i}"} for i, row in enumerate(bench.forget)]
    perturbed = [
        row | {"answer": f"東京{i}"} for i, row in enumerate(bench.rows("forget10_perturbed"))
    ]
    other = {**bench.configs, "forget10": rows, "forget10_perturbed": perturbed}
    report = evaluate(lm, replace(bench, configs=other), gradnorm=False, max_new_tokens=2)
    assert any("8 of 16 true answers contain no word" in line for line in report.meta["left_out"])
    assert report.metrics["forget_Q_A_ROUGE"] == 0
