"""SemEval's scoring against numbers worked out by hand, and its quirks."""

from __future__ import annotations

import math

import pytest

from ngdiff.evaluation import terms

NAN = float("nan")
DOC = '"2ebbbb06-ab81"'  # Task1's documents carry literal quotes


def row(id, task, truth, generation):
    return {"id": id, "task": task, "expected_output": truth, "model_output": generation}


# Task1 sc: 1 of 4 words in order, then 3 of 4: mean ½; Task1 qa: hit, miss: ½; Task2 sc 2/4; Task2
# qa: miss 0
FORGET = [
    row(f"{DOC}sc1", "Task1", "the cat sat on", "on a"),
    row(f"{DOC}sc2", "Task1", "the cat sat on", "cat sat on"),
    row(f"{DOC}qa0", "Task1", "Odilia", " odilia\n"),
    row(f"{DOC}qa1", "Task1", "Odilia", "Odilia."),
    row("b0sc1", "Task2", "a b c d", "d c a b"),
    row("b0qa0", "Task2", "12", "21"),
]
# retain: 1, 1; ¾, ½
RETAIN = [
    row("csc1", "Task2", "a b c d", "a b c"),
    row("cqa1", "Task2", "yes", "no"),
    row("cqa2", "Task2", "yes", "YES"),
    row("dsc1", "Task1", "novels", "novel"),  # the stemmer is on
    row("dqa1", "Task1", "x", "x"),
]


def test_by_hand():
    result = terms.score(FORGET, RETAIN)
    assert list(result) == [
        *(
            "forget-set",
            "retain-set",
            "aggregated-terms",
            "harmonic-mean-task-aggregate",
            "aggregate-score",
        )
    ]
    assert result["forget-set"] == {
        "overall-regurgitation-score": pytest.approx((0.25 + 0.75 + 0.5) / 3),  # rows, not tasks
        "overall-knowledge-score": pytest.approx(1 / 3),
        "Task1": {"regurgitation-score": 0.5, "knowledge-score": 0.5},
        "Task2": {"regurgitation-score": 0.5, "knowledge-score": 0},
    }
    assert list(result["retain-set"])[2:] == ["Task1", "Task2"]
    assert result["aggregated-terms"] == [0.5, 0.5, 0.5, 1, 1, 1, 0.75, 0.5]
    # 8/(2 + 2 + 2 + 1 + 1 + 1 + 4/3 + 2)
    assert result["harmonic-mean-task-aggregate"] == pytest.approx(8 / (37 / 3), rel=1e-15)
    assert result["aggregate-score"] == -1


def test_all_parts():
    # members 1, 2, 3 against 2, 4: pairs with the member lower 1<2 1<4 2<4 3<4, one tie: AUC 4.5/6
    # = ¾, MIA ½
    result = terms.score(FORGET, RETAIN, [1, 2, 3], [2, 4], 0.4)
    assert list(result)[2:] == [
        *("mia_loss_acc", "mmlu_average", "aggregated-terms", "harmonic-mean-task-aggregate"),
        *("aggregate-score", "mia_final_score"),
    ]
    assert (
        result["mia_loss_acc"] == 0.75
        and result["mia_final_score"] == 0.5
        and result["mmlu_average"] == 0.4
    )
    assert result["aggregate-score"] == pytest.approx((24 / 37 + 0.5 + 0.4) / 3, rel=1e-15)


def test_a_missing_part_leaves_the_final_score_open():
    for parts in ({"mmlu": 0.4}, {"member": [1.0], "nonmember": [2.0]}):
        result = terms.score(FORGET, RETAIN, **parts)
        assert result["aggregate-score"] == -1 and "mia_final_score" not in result


def test_one_zero_term_zeroes_the_aggregate():
    known = [*FORGET[:-1], row("b0qa0", "Task2", "12", "12")]
    result = terms.score(known, RETAIN)
    assert result["aggregated-terms"][3] == 0 and result["harmonic-mean-task-aggregate"] == 0


@pytest.mark.parametrize(
    ("id", "kind"),
    [
        (f"{DOC}sc1", "sc"),
        ("aqa7", "qa"),
        ("aqa10", None),
        ("asc12", None),
        ("a1", None),
        ("", None),
        ("sc", None),
    ],
)
def test_kind(id, kind):
    assert terms.kind(id) == kind
    assert (terms.value(row(id, "Task1", "a", "a")) is None) == (kind is None)


def test_rows_of_neither_kind_are_left_out():
    assert terms.score([*FORGET, row("aqa10", "Task2", "x", "x")], RETAIN) == terms.score(
        FORGET, RETAIN
    )


@pytest.mark.parametrize(
    ("id", "truth", "generation", "value"),
    [
        ("asc1", "a b", "", 0),
        ("asc1", "nan", NAN, 1),  # what an empty cell becomes
        ("aqa1", "nan", NAN, 1),
        ("aqa1", 1987, "1987", 1),  # a column of numbers
        ("aqa1", "", "  ", 1),
        ("aqa1", "Ł", "ł", 1),
        ("asc1", "東京", "東京", 0),  # rouge_score knows [a-z0-9] only
        ("asc1", "東京 a", "a", 1),
    ],
)
def test_odd_texts(id, truth, generation, value):
    assert terms.value(row(id, "Task1", truth, generation)) == value


def test_a_kind_without_rows_is_undefined():
    result = terms.score(FORGET[:2], RETAIN)
    assert math.isnan(result["forget-set"]["overall-knowledge-score"])
    assert math.isnan(result["aggregated-terms"][1]) and math.isnan(
        result["harmonic-mean-task-aggregate"]
    )


@pytest.mark.parametrize(("auc", "mia"), [(1, 0), (0, 0), (0.5, 1), (0.75, 0.5), (0.25, 0.5)])
def test_membership(auc, mia):
    assert terms.membership(auc) == mia


def test_ties_and_collapse():
    assert terms.score(FORGET, RETAIN, [2, 2], [2, 2, 2])["mia_loss_acc"] == 0.5
    assert terms.score(FORGET, RETAIN, [math.inf], [1.0])["mia_loss_acc"] == 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"forget": []}, "no forget rows"),
        ({"member": [1.0]}, "no nonmember losses"),
        ({"member": [], "nonmember": [1.0]}, "no member losses"),
        ({"member": [1.0, NAN], "nonmember": [1.0]}, "member loss 1 is NaN"),
        ({"mmlu": 44.3}, "44.3"),
        ({"mmlu": NAN}, "nan"),
    ],
)
def test_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        terms.score(**{"forget": FORGET, "retain": RETAIN, **parts})
