"""`ngdiff score`: files worked out by hand, and every way in which a file can be wrong."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from math import exp, log

import pytest
from scipy.stats import ks_2samp

from ngdiff import score
from ngdiff.evaluation.conventions import convention
from ngdiff.evaluation.items import UTILITY as UTILITY_NAMES
from ngdiff.score import muse, open_unlearning, semeval, tofu

EPS = convention("open-unlearning").eps
NAN, INF = float("nan"), float("inf")


def save(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def change(document, *keys, value=None, drop=False):
    """A copy with one value replaced or taken away."""
    document = copy.deepcopy(document)
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    if drop:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return document


def filtered(warnings):
    """The warnings, without those of a reference that is the same model, or was not tested."""
    return [w for w in warnings if "not tested" not in w and "the same values" not in w]


# TOFU's log ---------------------------------------------------------------------------------------


def tofu_log(true, told, wrong, recall, name="q"):
    """Probabilities go in, losses are stored."""
    fields = {
        "avg_gt_loss": [-log(p) for p in true],
        "avg_paraphrased_loss": [-log(p) for p in told],
        "average_perturb_loss": [[-log(p) for p in ps] for ps in wrong],
        "rougeL_recall": recall,
        "generated_text": [
            [f"Question: {name}{i}?\n", "Answer: so", f"{name}{i}."] for i in range(len(true))
        ],
    }
    return {
        field: {str(i): value for i, value in enumerate(values)} for field, values in fields.items()
    }


# R = geometric mean of the wrong answers / the "paraphrase". Retain: ½, ¼, 2; real authors: 1/8
# each; world facts: ½, 1, 4/3
LOG = {
    "eval_log.json": tofu_log(
        [0.5, 0.25, 1],
        [0.5, 0.25, 0.125],
        [[0.25, 0.25], [0.125, 0.03125], [0.25] * 2],
        [1, 0.5, 0],
    ),
    "eval_real_author_wo_options.json": tofu_log(
        [0.5, 0.25, 0.1], [1, 0.5, 0.4], [[0.125] * 2, [0.0625] * 2, [0.05] * 2], [0, 1, 1]
    ),
    "eval_real_world_wo_options.json": tofu_log(
        [0.5, 0.25, 0.3], [1, 0.25, 0.3], [[0.5], [0.25], [0.4]], [1, 1, 1]
    ),
    "eval_log_forget.json": tofu_log(
        [1, 1, 0.25], [0.5, 0.25, 0.125], [[0.25], [0.25], [0.5]], [0.25, 0.25, 1]
    ),
}
PARTS = {
    "retain_Q_A_Prob": 1.75 / 3,
    "retain_Q_A_ROUGE": 1.5 / 3,
    "retain_Truth_Ratio": (0.5 + 0.75 + 0) / 3,
    "ra_Q_A_Prob_normalised": (0.5 / 0.75 + 0.25 / 0.375 + 0.1 / 0.2) / 3,
    "ra_Q_A_ROUGE": 2 / 3,
    "ra_Truth_Ratio": 7 / 8,
    "wf_Q_A_Prob_normalised": (0.5 + 0.5 + 3 / 7) / 3,
    "wf_Q_A_ROUGE": 1,
    "wf_Truth_Ratio": (0.5 + 0 + 0) / 3,
}
FORGET = {
    "forget_Q_A_Prob": 2.25 / 3,
    "forget_Q_A_PARA_Prob": 0.875 / 3,
    "forget_Q_A_PERT_Prob": 1 / 3,
    "forget_Q_A_ROUGE": 0.5,
    "forget_truth_ratio": (0.5 + 1 + 0.25) / 3,  # R = ½, 1, 4
    "forget_truth_ratio_prob_mean": (2 / 3 + 1 / 2 + 1 / 5) / 3,
}
UTILITY = 9 / sum(1 / value for value in PARTS.values())


@pytest.fixture
def log_file(tmp_path):
    return save(tmp_path / "log.json", LOG)


def test_tofu_by_hand(log_file):
    values, warnings = tofu.score(log_file)
    assert warnings == []
    for name, value in (PARTS | FORGET).items():
        assert values[name] == pytest.approx(value, rel=1e-14), name
    assert values["model_utility"] == pytest.approx(UTILITY, rel=1e-14)
    assert values["ra_Q_A_Prob"] == pytest.approx(0.85 / 3) and values[
        "retain_Q_A_PERT_Prob"
    ] == pytest.approx((0.25 + 0.078125 + 0.25) / 3)
    assert "forget_quality" not in values


def test_tofu_forget_quality(tmp_path, log_file):
    assert tofu.score(log_file, log_file)[0]["forget_quality"] == 1
    # R = ½, 1, 4 against 8, 16, 32: D = 1, 2 of the C(6, 3) = 20 orders are that extreme
    other = change(
        LOG,
        "eval_log_forget.json",
        "average_perturb_loss",
        value={str(i): [-log(p)] for i, p in enumerate((1, 1, 1))},
    )
    other = change(
        other,
        "eval_log_forget.json",
        "avg_paraphrased_loss",
        value={str(i): log(8 * 2**i) for i in range(3)},
    )
    # all that is needed of a reference
    only = {"eval_log_forget.json": other["eval_log_forget.json"]}
    values, warnings = tofu.score(log_file, save(tmp_path / "retain.json", only))
    assert values["forget_quality"] == pytest.approx(0.1) and filtered(warnings) == []


def test_tofu_convention(tmp_path, log_file):
    values, _ = tofu.score(log_file, log_file, "open-unlearning")
    R = [0.25 / (0.5 + EPS), 0.25 / (0.25 + EPS), 0.5 / (0.125 + EPS)]
    assert values["forget_truth_ratio"] == pytest.approx(
        sum(min(r, 1 / (r + EPS)) for r in R) / 3, rel=1e-15
    )
    share = (0.5 / (1 + EPS) + 0.25 / (0.5 + EPS) + 0.3 / (0.7 + EPS)) / 3
    assert values["wf_Q_A_Prob_normalised"] == pytest.approx(share, rel=1e-15)
    assert values["wf_Q_A_Prob_normalised"] != tofu.score(log_file)[0]["wf_Q_A_Prob_normalised"]
    assert tofu.score(log_file, convention="tofu") == tofu.score(log_file)
    with pytest.raises(ValueError, match="'paper'"):
        tofu.score(log_file, convention="paper")


def test_tofu_without_the_forget_log(tmp_path):
    path = save(tmp_path / "log.json", change(LOG, "eval_log_forget.json", drop=True))
    values, _ = tofu.score(path)
    assert values["model_utility"] == pytest.approx(UTILITY) and not any(
        name.startswith("forget") for name in values
    )
    with pytest.raises(ValueError, match="log.json has no eval_log_forget.json"):
        tofu.score(path, path)


def test_tofu_fields_that_no_score_needs_may_be_empty(tmp_path, log_file):
    empty = {log: {**fields, "truth_ratio": {}, "rouge1_recall": {}} for log, fields in LOG.items()}
    assert tofu.score(save(tmp_path / "empty.json", empty)) == tofu.score(log_file)
    part = change(empty, "eval_log.json", "truth_ratio", value={"0": 0.5})
    with pytest.raises(
        ValueError, match=r"eval_log.json, truth_ratio: 1 rows, but avg_gt_loss has 3"
    ):
        tofu.score(save(tmp_path / "part.json", part))


def test_tofu_of_one_row_and_of_collapse(tmp_path):
    # R = ½, shares 1, 1, ½, rouge 1: utility 9/(2 + 1 + 2 + 2·(2 + 1 + 2))
    one = {key: tofu_log([0.5], [0.5], [[0.25, 0.25]], [1.0]) for key in LOG}
    assert tofu.score(save(tmp_path / "a.json", one))[0]["model_utility"] == pytest.approx(9 / 15)
    for bad in (NAN, INF):
        path = save(
            tmp_path / "b.json", change(one, "eval_log.json", "avg_gt_loss", "0", value=bad)
        )
        values, warnings = tofu.score(path)
        assert values["retain_Q_A_Prob"] == 0 and values["model_utility"] == 0
        assert (
            "eval_log.json: 1 losses are not finite, the first in avg_gt_loss, index 0"
            in warnings[0]
        )


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("eval_log.json",), None, r"eval_log.json: null"),
        (
            ("eval_log.json", "avg_gt_loss", "1"),
            None,
            r"eval_log.json, avg_gt_loss, index 1: null, where a number",
        ),
        (("eval_log.json", "avg_gt_loss", "1"), "0.5", r'avg_gt_loss, index 1: "0.5"'),
        (("eval_log.json", "avg_gt_loss", "1"), True, r"avg_gt_loss, index 1: true"),
        (("eval_log.json", "avg_gt_loss", "1"), -1, r"index 1: -1.0 is no loss"),
        (("eval_log.json", "rougeL_recall", "1"), 1.5, r"index 1: 1.5 is no recall"),
        (("eval_log.json", "rougeL_recall", "1"), NAN, r"index 1: nan is no recall"),
        (
            ("eval_log.json", "average_perturb_loss", "2"),
            [],
            r"average_perturb_loss, index 2: \[\]",
        ),
        (
            ("eval_log.json", "average_perturb_loss", "2"),
            1.0,
            r"average_perturb_loss, index 2: 1.0, where a list",
        ),
        (
            ("eval_log.json", "average_perturb_loss", "2"),
            [1, None],
            r"average_perturb_loss, index 2: null",
        ),
        (("eval_log.json", "rougeL_recall"), {}, r"rougeL_recall: \{\}"),
    ],
)
def test_tofu_values_that_are_none(tmp_path, keys, value, message):
    path = save(tmp_path / "log.json", change(LOG, *keys, value=value))
    with pytest.raises(ValueError, match=message) as caught:
        tofu.score(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ("eval_real_world_wo_options.json",),
            r"has no eval_real_world_wo_options.json: it holds .eval_log.json",
        ),
        (
            ("eval_log.json", "avg_paraphrased_loss"),
            r"eval_log.json: the field avg_paraphrased_loss is missing",
        ),
        (
            ("eval_log.json", "rougeL_recall", "1"),
            r"rougeL_recall: 2 rows, but avg_gt_loss has 3.*index 1",
        ),
        (
            ("eval_log.json", "avg_gt_loss", "2"),
            r"avg_paraphrased_loss: 3 rows, but avg_gt_loss has 2.*index 2",
        ),
        (
            ("eval_log_forget.json", "generated_text", "0"),
            r"generated_text: 2 rows, but avg_gt_loss has 3.*index 0",
        ),
    ],
)
def test_tofu_what_is_missing(tmp_path, keys, message):
    path = save(tmp_path / "log.json", change(LOG, *keys, drop=True))
    with pytest.raises(ValueError, match=message) as caught:
        tofu.score(path)
    assert str(path) in str(caught.value)


def forget_log(first, n):
    """Rows first … first + n − 1 of a population, indexed from 0."""
    losses = {str(i): 1 + 0.01 * i for i in range(n)}
    text = {str(i): [f"Question: {first + i}\n", "…", f"answer {first + i}"] for i in range(n)}
    wrong = {i: [2.0] for i in losses}
    fields = {"avg_gt_loss": losses, "avg_paraphrased_loss": losses, "average_perturb_loss": wrong}
    return LOG | {
        "eval_log_forget.json": fields
        | {"rougeL_recall": losses.fromkeys(losses, 1), "generated_text": text}
    }


def test_a_reference_of_another_size_is_legal(tmp_path):
    paths = [save(tmp_path / f"{n}.json", forget_log(0, n)) for n in (30, 20)]
    values, warnings = tofu.score(*paths)
    R = [[exp(1 + 0.01 * i - 2) for i in range(n)] for n in (30, 20)]
    assert values["forget_quality"] == pytest.approx(ks_2samp(*R).pvalue, rel=1e-12)
    assert filtered(warnings) == []


def test_a_reference_that_saved_the_whole_prompt(tmp_path):
    """One tool saves the question, another the prompt around it: the same rows."""
    ours = forget_log(0, 20)
    theirs = json.loads(json.dumps(ours))
    for text in theirs["eval_log_forget.json"]["generated_text"].values():
        text[0] = f"system\n\nYou are a helpful assistant.user\n\n{text[0]}assistant\n\n"
    values, warnings = tofu.score(
        save(tmp_path / "ours.json", ours), save(tmp_path / "theirs.json", theirs)
    )
    assert values["forget_quality"] == 1 and filtered(warnings) == []


@pytest.mark.parametrize(("first", "n"), [(40, 20), (20, 20), (30, 20)])
def test_a_reference_of_another_split_is_refused(tmp_path, first, n):
    """No row in common; the smaller one the end of the larger, either way round."""
    ours, theirs = (
        save(tmp_path / "ours.json", forget_log(0, 40)),
        save(tmp_path / "theirs.json", forget_log(first, n)),
    )
    if first + n == 50:  # some rows in common, at other indices: a sample? told, not refused
        assert "index 0" in tofu.score(ours, theirs)[1][0]
        return
    for pair in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ValueError, match="different splits.*index 0 is") as caught:
            tofu.score(*pair)
        assert str(ours) in str(caught.value) and str(theirs) in str(caught.value)


def test_a_reference_without_texts_cannot_be_compared(tmp_path, log_file):
    bare = change(LOG, "eval_log_forget.json", "generated_text", drop=True)
    values, warnings = tofu.score(log_file, save(tmp_path / "bare.json", bare))
    assert values["forget_quality"] == 1 and "no texts to compare" in warnings[0]


# open-unlearning's file ---------------------------------------------------------------------------


def rows(key, *values, **more):
    return {str(i): {key: value} for i, value in enumerate(values)}


def entry(agg, items=None):
    return {"agg_value": agg} | ({"value_by_index": items} if items else {})


RATIOS = [0.5, 1.0, 4.0]
EVAL = {
    **{
        "retain_Q_A_Prob": entry(0.9, rows("prob", 0.25, 0.75)),
        "forget_Q_A_Prob": entry(0.9, rows("prob", 0.25, 0.75, 0.5)),
    },
    "forget_Q_A_PERT_Prob": entry(None, rows("prob", [0.25, 0.75], [0.0, 0.5], [0.375])),  # ½, ¼, ⅜
    "ra_Q_A_Prob_normalised": entry(0.5, rows("prob", 0.5, 0.5)),
    "wf_Q_A_Prob_normalised": entry(0.25),  # no items: passed on
    **{
        f"{part}_Q_A_ROUGE": entry(0.5, rows("rougeL_recall", 1, 0))
        for part in ("retain", "ra", "wf")
    },
    "forget_Q_A_ROUGE": entry(0.5, rows("rougeL_recall", 1, 0, 0.5)),
    "retain_Truth_Ratio": entry(0.25, rows("score", 0.5, 2.0)),
    "ra_Truth_Ratio": entry(0.25, rows("score", 0.75, 0.75)),
    "wf_Truth_Ratio": entry(0.5, rows("score", 0.5, None)),
    "forget_truth_ratio": entry(None, rows("score", *RATIOS)),
    "forget_quality": entry(None),
    "exact_memorization": entry(
        0.5, {**rows("score", 0.25, 0.75), "2": {"score": None}, "3": None}
    ),
    "mia_min_k": {
        "forget": entry(1.5, rows("score", 1, 3)),
        "holdout": entry(3, rows("score", 2, 4)),
        **{"auc": 0.75, "agg_value": 0.75},
    },
    "privleak": entry(-50),
    "forget_verbmem_ROUGE": entry(
        0.5,
        {
            "0": {"rougeL_f1": 0.25, "rougeL_recall": 1},
            "1": {"rougeL_f1": 0.75, "rougeL_recall": 1},
        },
    ),
    "forget_Q_A_gibberish": entry(0.125, rows("probability_of_sense", 0.1)),
}


def test_open_unlearning_by_hand(tmp_path):
    path = save(tmp_path / "EVAL.json", EVAL)
    values, warnings = open_unlearning.score(path)
    expected = {
        **{
            "retain_Q_A_Prob": 0.5,
            "forget_Q_A_Prob": 0.5,
            "forget_Q_A_PERT_Prob": 0.375,
            "wf_Truth_Ratio": 0.5,
        },
        **{
            "ra_Q_A_Prob_normalised": 0.5,
            "wf_Q_A_Prob_normalised": 0.25,
            "retain_Truth_Ratio": 0.25,
        },
        **{"ra_Truth_Ratio": 0.25, "exact_memorization": 0.5, "mia_min_k": 0.75, "privleak": -50},
        **{"forget_verbmem_ROUGE": 0.5, "forget_Q_A_gibberish": 0.125},
        **{f"{part}_Q_A_ROUGE": 0.5 for part in ("retain", "ra", "wf", "forget")},
        "forget_truth_ratio": sum(min(r, 1 / (r + EPS)) for r in RATIOS) / 3,
        # prob ½ ½ ¼, rouge ½ ½ ½, truth ¼ ¼ ½: 9/(2 + 2 + 4 + 2 + 2 + 2 + 4 + 4 + 2)
        "model_utility": 9 / 24,
    }
    assert values == {name: pytest.approx(value, rel=1e-15) for name, value in expected.items()}
    assert (
        len(warnings) == 2
        and "retain_Q_A_Prob: its agg_value is 0.9, its items give 0.5" in warnings[0]
    )


def test_open_unlearning_against_a_reference(tmp_path):
    path = save(tmp_path / "EVAL.json", EVAL)
    reference = change(
        EVAL, "forget_truth_ratio", "value_by_index", value=rows("score", 8.0, 9.0, 10.0, 11.0)
    )
    # AUC ½
    reference = change(
        reference, "mia_min_k", "holdout", "value_by_index", value=rows("score", 2, 2)
    )
    other = save(tmp_path / "RETAIN.json", reference)
    values, warnings = open_unlearning.score(path, other)
    assert not any("AUC_ret = ½" in w for w in warnings)
    # D = 1 on 3 against 4
    assert values["forget_quality"] == pytest.approx(2 / math.comb(7, 3), rel=1e-12)
    assert values["privleak"] == pytest.approx((0.25 - 0.5) / (0.5 + EPS) * 100, rel=1e-12)
    assert any("no texts to compare" in w for w in warnings)
    assert open_unlearning.score(path, path)[0]["forget_quality"] == 1


def test_open_unlearning_privleak_without_reference_or_statement(tmp_path):
    values, warnings = open_unlearning.score(
        save(tmp_path / "e.json", change(EVAL, "privleak", drop=True))
    )
    assert values["privleak"] == pytest.approx(-50) and any("AUC_ret is ½" in w for w in warnings)


def test_open_unlearning_summary(tmp_path):
    summary = {"forget_Q_A_Prob": 0.25, "forget_quality": None, **dict.fromkeys(UTILITY_NAMES, 0.5)}
    values, warnings = open_unlearning.score(save(tmp_path / "TOFU_SUMMARY.json", summary))
    assert values["model_utility"] == 0.5 and values["forget_Q_A_Prob"] == 0.25 and warnings == []
    assert "forget_quality" not in values


def test_open_unlearning_tells_what_it_leaves_out(tmp_path):
    path = save(tmp_path / "EVAL.json", EVAL | {"forget_Q_A_Prob": {"by_index": {}}})
    assert any("forget_Q_A_Prob left out" in warning for warning in open_unlearning.score(path)[1])


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            ("retain_Q_A_Prob", "value_by_index", "1", "prob"),
            "x",
            r'retain_Q_A_Prob, index 1: "x", where a number',
        ),
        (("retain_Q_A_Prob", "value_by_index", "1", "prob"), [], r"retain_Q_A_Prob, index 1: \[\]"),
        (
            ("retain_Q_A_Prob", "value_by_index", "1", "prob"),
            [0.5, None],
            r"retain_Q_A_Prob, index 1: null",
        ),
        (
            ("retain_Q_A_Prob", "value_by_index", "1"),
            {"score": 1},
            r"retain_Q_A_Prob, index 1: .* has no 'prob'",
        ),
        (
            ("retain_Q_A_Prob", "value_by_index", "1"),
            0.5,
            r"retain_Q_A_Prob, index 1: 0.5 has no 'prob'",
        ),
        (("retain_Q_A_Prob", "value_by_index"), {}, r"retain_Q_A_Prob, value_by_index: \{\}"),
        (("retain_Q_A_Prob", "agg_value"), "x", r'retain_Q_A_Prob, agg_value: "x"'),
        (("retain_Q_A_Prob",), [1], r"retain_Q_A_Prob, agg_value: \[1\]"),
        (
            ("mia_min_k", "holdout", "value_by_index", "1"),
            {},
            r"mia_min_k, index 1: \{\} has no 'score'",
        ),
        (("mia_min_k", "holdout"), None, r"mia_min_k: holdout is null, but an object is needed"),
        (("mia_min_k", "forget"), [1], r"mia_min_k: forget is \[1\], but an object is needed"),
        (
            ("retain_Truth_Ratio", "value_by_index", "1", "score"),
            [1, 2],
            r"retain_Truth_Ratio, index 1: \[1, 2\]",
        ),
        (
            ("retain_Q_A_Prob", "value_by_index", "1", "prob"),
            -3,
            r"retain_Q_A_Prob, index 1: prob is -3.0, which does",
        ),
        (
            ("ra_Q_A_ROUGE", "value_by_index", "1", "rougeL_recall"),
            1.5,
            r"ra_Q_A_ROUGE, index 1: rougeL_recall is 1.5",
        ),
    ],
)
def test_open_unlearning_refuses(tmp_path, keys, value, message):
    path = save(tmp_path / "EVAL.json", change(EVAL, *keys, value=value))
    with pytest.raises(ValueError, match=message) as caught:
        open_unlearning.score(path)
    assert str(path) in str(caught.value)


def test_open_unlearning_warns_of_a_metric_with_other_rows(tmp_path):
    part = change(EVAL, "forget_truth_ratio", "value_by_index", value=rows("score", *RATIOS[:2]))
    warnings = open_unlearning.score(save(tmp_path / "EVAL.json", part))[1]
    assert [w.split(", ", 1)[1] for w in warnings if "rows, but" in w] == [
        "forget_truth_ratio: 2 rows, but forget_Q_A_Prob has 3; the first that only one has is "
        "index 2"
    ]
    assert not any(
        "rows, but" in w for w in open_unlearning.score(save(tmp_path / "EVAL.json", EVAL))[1]
    )


def test_open_unlearning_references_that_do_not_fit(tmp_path):
    path = save(tmp_path / "EVAL.json", EVAL)
    short = save(tmp_path / "short.json", change(EVAL, "forget_truth_ratio", drop=True))
    with pytest.raises(ValueError, match="short.json has no items of forget_truth_ratio"):
        open_unlearning.score(path, short)
    texts = ("forget_Q_A_ROUGE", "value_by_index")
    sides = [
        save(
            tmp_path / f"{name}.json",
            change(
                EVAL,
                *texts,
                value={
                    "0": {"rougeL_recall": 1, "input": "Who?", "ground_truth": f"{name}."},
                    "1": {"rougeL_recall": 0, "input": "Where?", "ground_truth": f"In {name}."},
                },
            ),
        )
        for name in ("A", "B")
    ]
    with pytest.raises(ValueError, match=r"different splits.*index 0"):
        open_unlearning.score(*sides)
    assert not any("texts to compare" in w for w in open_unlearning.score(sides[0], sides[0])[1])
    with pytest.raises(ValueError, match="holds no metric"):
        open_unlearning.score(save(tmp_path / "empty.json", {}))


# SemEval's folder ---------------------------------------------------------------------------------

HEADER = "id,task,input,expected_output,model_output,nll\n"
FOLDER = {
    # a literal quote in an id is doubled in csv. sc: 1, and 0 (the word "nan"); qa: 1, and 0 ("nan"
    # again)
    "forget_0.csv": HEADER
    + '"""2eb""sc1",Task1,Once,"the cat sat on, alone","the cat sat on, alone",0.5\n'
    + '"""2eb""sc2",Task1,Once,a b c,,0.5\n'
    + '"""2eb""qa0",Task1,Who?,Odilia, odilia ,0.5\n',
    "forget_1.csv": HEADER + '"""2eb""qa1",Task1,Who?,Odilia,None,0.5\n',
    "retain_0.csv": HEADER
    + 'asc1,Task1,x,"two\nlines of text","lines of\ntext",\naqa0,Task1,x,1987,1987,1\n',
}


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "out"
    (out / "mia_results").mkdir(parents=True)
    for name, text in FOLDER.items():
        save(out / name, text)
    return out


def mia(folder, member="1\n2\n3", nonmember="2\n4"):
    for side, losses in (("member", member), ("nonmember", nonmember)):
        lines = "".join(f"{side}{i},{loss}\n" for i, loss in enumerate(losses.split("\n")))
        save(folder / "mia_results" / f"{side}_0.csv", "id,nll\n" + lines)


def test_semeval_by_hand(folder, tmp_path):
    result, warnings = semeval.score(folder)
    assert result["forget-set"]["Task1"] == {"regurgitation-score": 0.5, "knowledge-score": 0.5}
    # retain, sc: 3 of the 4 words, in order
    assert result["aggregated-terms"] == [0.5, 0.5, 0.75, 1] and result["aggregate-score"] == -1
    assert [w.split("; ")[0] for w in warnings[:2]] == [
        f"{folder}/{split}_*.csv: Task2 is missing, Task3 is missing"
        for split in ("forget", "retain")
    ]
    assert (
        "its aggregate-score is -1: it needs mia_results and an MMLU metrics.json (--mmlu) too"
        in warnings[2]
    )
    assert result["harmonic-mean-task-aggregate"] == pytest.approx(
        4 / (2 + 2 + 4 / 3 + 1), rel=1e-15
    )
    mia(folder)  # AUC ¾, MIA ½ (test_terms)
    result, warnings = semeval.score(folder, save(tmp_path / "metrics.json", {"average_acc": 0.5}))
    assert (
        result["aggregate-score"] == pytest.approx((12 / 19 + 0.5 + 0.5) / 3, rel=1e-15)
        and len(warnings) == 2
    )
    assert (
        "must stay above 0.371"
        in semeval.score(folder, save(tmp_path / "low.json", {"average_acc": 0.3}))[1][2]
    )


def test_semeval_reads_an_empty_output_as_nan(folder):
    """pandas turns an empty, "None" or "NA" cell into NaN, whose str is "nan".

    That is the evaluator's quirk.
    """
    nan = HEADER + "asc1,Task1,x,my nan is here,,1\naqa1,Task1,x,nan,None,1\n"
    save(folder / "retain_0.csv", nan)
    assert semeval.score(folder)[0]["retain-set"]["Task1"] == {
        "regurgitation-score": 0.25,
        "knowledge-score": 1,
    }


def test_semeval_ids_that_the_evaluator_leaves_out(folder):
    before = semeval.score(folder)[0]
    save(folder / "retain_1.csv", HEADER + "aqa10,Task1,x,a,b,1\nasc12,Task1,x,a,b,1\n")
    result, warnings = semeval.score(folder)
    assert result == before and "2 rows are left out" in warnings[0] and "'aqa10'" in warnings[0]
    save(folder / "retain_1.csv", FOLDER["retain_0.csv"])
    assert "2 ids stand more than once, as 'asc1'" in semeval.score(folder)[1][0]


@pytest.mark.parametrize("column", ["id", "task", "expected_output", "model_output"])
def test_semeval_missing_column(folder, column):
    save(folder / "retain_0.csv", FOLDER["retain_0.csv"].replace(column, "other"))
    with pytest.raises(ValueError, match=rf"retain_0.csv: the column {column} is missing"):
        semeval.score(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("asc1,Task1,x,a,a,1\naqa,Task1,x,a,a,1\n", r"retain_0.csv, row 2: the id 'aqa'"),
        ("asc1,Task1,x,a,a,1\n17,Task1,x,a,a,1\n", r"retain_0.csv, row 2: the id '17'"),
        (",Task1,x,a,a,1\n", r"retain_0.csv, row 1: the id 'nan'"),
        ("asc1,,x,a,a,1\n", r"retain_0.csv, row 1: the task is empty"),
        (
            'asc1,Task1,"x\ny",a,a,1\naqa1,Task1,x,a\n',
            r"retain_0.csv: .*row 2 \(line 4\) has 4 fields, the header 6",
        ),
        ("asc1,Task1,x,a,a,1\naqa1,Task1,x,a,a,1,1\n", r"row 2 \(line 3\) has 7 fields"),
        ('asc1,Task1,x,a,a,1\naqa1,Task1,x,a,"a cut', r"retain_0.csv: .*row 2"),
        ("asc1,Task1,x,a,a,1\n", r"retain_\*.csv: Task1 has no qa row"),
        ("", r"retain_\*.csv: a header and no row"),
    ],
)
def test_semeval_bad_rows(folder, text, message):
    save(folder / "retain_0.csv", HEADER + text)
    with pytest.raises(ValueError, match=message):
        semeval.score(folder)


def test_semeval_bad_files(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        semeval.score(tmp_path / "nowhere")
    mia(folder, member="1\n")
    with pytest.raises(ValueError, match=r"member_0.csv, row 2: the nll is nan"):
        semeval.score(folder)
    mia(folder, nonmember="high")
    with pytest.raises(ValueError, match=r"nonmember_0.csv, row 1: the nll is 'high'"):
        semeval.score(folder)
    save(folder / "mia_results" / "nonmember_0.csv", "id,loss\na,1\n")
    with pytest.raises(
        ValueError, match=r"nonmember_0.csv: the column nll is missing, it has id, loss"
    ):
        semeval.score(folder)
    (folder / "mia_results" / "nonmember_0.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no nonmember_\*.csv"):
        semeval.score(folder)
    (folder / "mia_results" / "member_0.csv").unlink()
    with pytest.raises(ValueError, match="average_acc"):
        semeval.score(folder, save(tmp_path / "metrics.json", {"acc": 0.5}))
    (folder / "forget_0.csv").write_bytes(b"id,task\n\xff,x\n")
    with pytest.raises(ValueError, match="forget_0.csv"):
        semeval.score(folder)
    save(folder / "forget_0.csv", "")
    with pytest.raises(ValueError, match="forget_0.csv"):
        semeval.score(folder)
    for file in folder.glob("forget_*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no forget_\*.csv"):
        semeval.score(folder)


# MUSE's file --------------------------------------------------------------------------------------

MUSE = {
    # F1: LCS "the cat" 2 of 3 and of 2 words: 2·(2/3)·1/(5/3) = 4/5; 0
    "verbmem": [{"response": "the big cat", "gt": "the cat"}, {"response": "", "gt": "a"}],
    "knowmem_f": [{"response": "novels", "gt": "novel"}],  # the stemmer is off
    # rouge_score knows [a-z0-9]: "d in 1987"
    "knowmem_r": [{"response": "Łódź in 1987", "gt": "in 1987"}],
    "privleak": {"forget": [1, 3], "holdout": [2, 4], "retain": [1, 3]},  # AUC ¾
}


def test_muse_by_hand(tmp_path):
    path = save(tmp_path / "muse.json", MUSE)
    values, warnings = muse.score(path)
    expected = {
        "verbmem_f": 0.4,
        "knowmem_f": 0,
        "knowmem_r": 2 * (2 / 3) / (5 / 3),
        "mia_min_k": 0.75,
        "privleak": -50,
    }
    assert {name: values[name] for name in expected} == {
        k: pytest.approx(v, rel=1e-14) for k, v in expected.items()
    }
    assert "AUC_ret = ½" in warnings[0]
    assert muse.score(path, convention="open-unlearning")[0]["knowmem_f"] == 1
    # AUC ½
    other = save(tmp_path / "ret.json", {"privleak": {"forget": [2, 3], "holdout": [2, 3]}})
    assert muse.score(path, other)[0] == pytest.approx(values)
    assert filtered(muse.score(path, other)[1]) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (change(MUSE, "knowmem_f", 0, "gt", drop=True), "muse.json: knowmem_f, row 0"),
        (change(MUSE, "privleak", "forget", 1, value="x"), "muse.json: privleak forget, row 1"),
        (change(MUSE, "verbmem", value=[]), "muse.json: verbmem is empty"),
        (
            change(MUSE, "privleak", "forget", 1, value={"infinite": "x"}),
            "muse.json: privleak forget, row 1",
        ),
        ({}, "muse.json: the file is empty"),
    ],
)
def test_muse_refuses(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        muse.score(save(tmp_path / "muse.json", content))


def test_muse_says_that_privleak_is_undefined(tmp_path):
    path = save(tmp_path / "muse.json", change(MUSE, "privleak", "holdout", value=[None, None]))
    values, warnings = muse.score(path)
    assert "privleak" not in values and "privleak is undefined" in warnings[-1]
    # AUC 1
    known = save(tmp_path / "ret.json", {"privleak": {"forget": [0, 0], "holdout": [1, 1]}})
    values, warnings = muse.score(save(tmp_path / "m.json", MUSE), known)
    assert "privleak" not in values and "the reference's AUC is 1" in warnings[-1]


def test_muse_references_that_do_not_fit(tmp_path):
    path = save(tmp_path / "muse.json", MUSE)
    for content, message in (
        ({"verbmem": MUSE["verbmem"]}, "ret.json: the reference has no privleak"),
        (
            change(MUSE, "privleak", "forget", value=[1]),
            "ret.json: privleak forget: 2 scores, but 1",
        ),
        (change(MUSE, "privleak", "forget", value=[True]), "ret.json: privleak forget, row 0"),
    ):
        with pytest.raises(ValueError, match=message):
            muse.score(path, save(tmp_path / "ret.json", content))
    with pytest.raises(ValueError, match="nothing to compare"):
        muse.score(save(tmp_path / "a.json", {"verbmem": MUSE["verbmem"]}), path)


# Documents and the command ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tofu", "open-unlearning", "muse"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(LOG, indent=1)[:-400], r"bad.json, line \d+: not JSON .*cut short"),
        ("", r"bad.json, line 1: not JSON"),
        ("[1]", r"bad.json: a JSON object is needed, this is a list"),
        (b'{"a":\n "\xff"}', r"bad.json, line 2: not UTF-8"),
    ],
)
def test_documents_that_cannot_be_read(tmp_path, kind, content, message):
    path = tmp_path / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        score.score(kind, path)
    with pytest.raises(FileNotFoundError, match="no file .*gone.json"):
        score.score(kind, tmp_path / "gone.json")


def test_command_prints_or_writes_the_same_at_full_precision(tmp_path, log_file, capsys):
    score.command("tofu", log_file, reference=log_file, convention="ngdiff")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == tofu.score(log_file, log_file)[0]
    assert [line for line in filtered(printed.err.splitlines()) if line] == []
    score.command("tofu", log_file, reference=log_file, json_out=tmp_path / "new" / "scores.json")
    assert (
        capsys.readouterr().out == ""
        and (tmp_path / "new" / "scores.json").read_text() == printed.out
    )


def test_command_leaves_nothing_half_written(tmp_path, capsys):
    out = save(tmp_path / "out.json", "old")
    bad = save(
        tmp_path / "bad.json", change(LOG, "eval_log_forget.json", "avg_gt_loss", "2", value=None)
    )
    with pytest.raises(ValueError, match="eval_log_forget.json, avg_gt_loss, index 2"):
        score.command("tofu", bad, json_out=out)
    assert (
        out.read_text() == "old"
        and sorted(tmp_path.iterdir()) == [bad, out]
        and capsys.readouterr().out == ""
    )


def test_command_writes_null_for_what_json_cannot_say(tmp_path, capsys):
    score.command(
        "open-unlearning",
        save(tmp_path / "s.json", '{"a": NaN, "b": 1}'),
        convention="open-unlearning",
    )
    printed = capsys.readouterr()
    assert (
        json.loads(printed.out) == {"a": None, "b": 1}
        and "warning: a is nan, written as null" in printed.err
    )


def test_command_of_every_kind(tmp_path, folder, capsys):
    score.command("semeval", folder, convention="semeval")
    assert json.loads(capsys.readouterr().out) == semeval.score(folder)[0]
    score.command("muse", save(tmp_path / "m.json", MUSE), convention="muse")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["privleak"] == -50 and "AUC_ret" in printed.err


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("wmdp", {}, "unknown kind 'wmdp': choose one of tofu, open-unlearning, semeval, muse"),
        ("tofu", {"mmlu": "m.json"}, "`score tofu` has no use for --mmlu"),
        (
            "semeval",
            {"reference": "r.json"},
            "`score semeval` has no use for --reference: it takes --mmlu",
        ),
        ("open-unlearning", {"convention": "ngdiff"}, "no use for --convention"),
        ("muse", {"convention": "semeval"}, "is not defined for muse"),
    ],
)
def test_options_that_do_not_fit(tmp_path, kind, options, message):
    with pytest.raises(ValueError, match=message):
        score.score(kind, save(tmp_path / "f.json", MUSE), **options)


def test_scoring_loads_neither_torch_nor_transformers(tmp_path, log_file, folder):
    files = {
        **{"tofu": log_file, "open-unlearning": save(tmp_path / "e.json", EVAL)},
        **{"semeval": folder, "muse": save(tmp_path / "m.json", MUSE)},
    }
    script = "import sys; from ngdiff.score import command; from pathlib import Path\n"
    script += "".join(f"command({kind!r}, Path({str(path)!r}))\n" for kind, path in files.items())
    script += "print('loaded', sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("loaded []\n"), done.stdout[-200:] + done.stderr
