"""References in files: tested before they are believed. TOFU's older logs are read."""

from __future__ import annotations

import copy
import json
import math

import pytest

from ngdiff.score import open_unlearning, tofu

N = 40


def told(lines, words):
    return [line for line in lines if words in line]


def save(path, content):
    path.write_text(json.dumps(content), "utf-8")
    return path


# open-unlearning's file ---------------------------------------------------------------------------


def results(shift=0.0, apart=0.0):
    """shift: of the losses; apart: by how much hold-out rows are less likely than forget rows."""
    true = [1 + 0.01 * i + shift for i in range(N)]
    wrong = [[2 + 0.02 * i + shift / 2 for _ in range(2)] for i in range(N)]

    def prob(losses):
        return [math.exp(-v) for v in losses] if isinstance(losses, list) else math.exp(-losses)

    def rows(losses):
        return {str(i): {"prob": prob(v), "avg_loss": v} for i, v in enumerate(losses)}

    R = [math.exp(-w[0]) / (math.exp(-t) + 1e-10) for t, w in zip(true, wrong, strict=True)]
    scores = {
        "forget": {str(i): {"score": true[i]} for i in range(N)},
        "holdout": {str(i): {"score": true[i] + apart} for i in range(N)},
    }
    return {
        "forget_Q_A_PARA_Prob": {"agg_value": None, "value_by_index": rows(true)},
        "forget_Q_A_PERT_Prob": {"agg_value": None, "value_by_index": rows(wrong)},
        "forget_truth_ratio": {
            "agg_value": sum(min(r, 1 / (r + 1e-10)) for r in R) / N,
            "value_by_index": {str(i): {"score": r} for i, r in enumerate(R)},
        },
        "mia_min_k": {s: {"value_by_index": rows} for s, rows in scores.items()},
    }


@pytest.fixture
def ours(tmp_path):
    return save(tmp_path / "ours.json", results())


def test_a_good_reference_raises_no_doubt_and_what_was_not_tested_is_said(tmp_path, ours):
    values, lines = open_unlearning.score(ours, save(tmp_path / "ref.json", results(0.3)))
    assert {"forget_quality", "privleak"} <= values.keys()
    assert len(lines) == 1 and "no texts to compare" in lines[0]


def test_the_model_itself_is_told_and_the_values_are_given(ours):
    values, lines = open_unlearning.score(ours, ours)
    assert values["forget_quality"] == 1 and values["privleak"] == 0
    assert told(lines, "it is the same model or file")
    again = results()  # another file, another run of the same model: rounding apart
    for row in again["forget_truth_ratio"]["value_by_index"].values():
        row["score"] *= 1 + 1e-7
    assert told(
        open_unlearning.score(ours, save(ours.parent / "b.json", again))[1], "the same values"
    )


def test_a_reference_that_knows_the_forget_rows_is_told_with_its_auc(tmp_path, ours):
    lines = open_unlearning.score(ours, save(tmp_path / "ref.json", results(0.3, apart=1.0)))[1]
    assert told(lines, "its membership AUC of forget against hold-out rows is 1 ")
    other = results(0.3)
    del other["mia_min_k"]
    lines = open_unlearning.score(ours, save(tmp_path / "ref.json", other))[1]
    assert told(lines, "not tested whether it has seen the forget rows")


def test_items_that_contradict_the_losses_beside_them_are_told(tmp_path, ours):
    other = results(0.3)
    other["forget_Q_A_PARA_Prob"]["value_by_index"]["3"]["prob"] = 0.9
    other["forget_truth_ratio"]["value_by_index"]["5"]["score"] = 7.0
    lines = open_unlearning.score(ours, save(tmp_path / "ref.json", other))[1]
    assert told(lines, "PARA_Prob: in 1 of 40 items prob is not exp(−avg_loss); the first is index")
    assert told(lines, "forget_truth_ratio: in 1 of 40 items the score is not the ratio")
    assert told(open_unlearning.score(tmp_path / "ref.json")[1], "in 1 of 40 items prob is not")


def test_another_aggregator_is_named(tmp_path, ours):
    other = results(0.3)
    scores = [row["score"] for row in other["forget_truth_ratio"]["value_by_index"].values()]
    other["forget_truth_ratio"]["agg_value"] = sum(max(0, 1 - r) for r in scores) / N
    lines = open_unlearning.score(ours, save(tmp_path / "ref.json", other))[1]
    assert told(lines, "averaged by true_better, that of the measured model by closer_to_1_better")
    other["forget_truth_ratio"]["agg_value"] = None
    lines = open_unlearning.score(ours, save(tmp_path / "ref.json", other))[1]
    assert told(lines, "not tested whether its forget_truth_ratio is averaged in the same way")


# TOFU's log ---------------------------------------------------------------------------------------


def log(shift=0.0, prompt="[INST] Who {}? [/INST]", first=0):
    losses = {str(i): 1 + 0.1 * i + shift for i in range(8)}
    texts = {i: [prompt.format(first + int(i)), "so", f"Answer {first + int(i)}."] for i in losses}
    fields = {
        "avg_gt_loss": losses,
        "gt_loss": {i: 7 * v for i, v in losses.items()},
        "num_token_gt": dict.fromkeys(losses, 7),
        "avg_paraphrased_loss": losses,
        "average_perturb_loss": {i: [2.0, 2.5] for i in losses},
        "rougeL_recall": dict.fromkeys(losses, 0.5),
        "generated_text": texts,
    }
    names = (
        "eval_log.json",
        "eval_real_author_wo_options.json",
        "eval_real_world_wo_options.json",
        "eval_log_forget.json",
    )
    return {name: copy.deepcopy(fields) for name in names}


def lists(document):
    return {
        name: {field: list(rows.values()) for field, rows in fields.items()}
        for name, fields in document.items()
    }


def test_the_first_form_of_tofus_log_is_the_same_rows_by_position(tmp_path):
    ours, theirs = log(), log(0.3)
    new = tofu.score(save(tmp_path / "a.json", ours), save(tmp_path / "b.json", theirs))[0]
    old = (save(tmp_path / "c.json", lists(ours)), save(tmp_path / "d.json", lists(theirs)))
    assert tofu.score(*old)[0] == new


@pytest.mark.parametrize("more", [[], ["beam"], ["beam", 3]])
def test_rows_are_compared_where_a_log_has_more_elements_a_row(tmp_path, more):
    logs = [log(), log(0.3, first=20)]
    for document in logs:
        for row in document["eval_log_forget.json"]["generated_text"].values():
            row.extend(more)
    with pytest.raises(ValueError, match="different splits"):
        tofu.score(*(save(tmp_path / f"{i}.json", document) for i, document in enumerate(logs)))
    for document in logs:  # the oldest: without the prompt
        for row in document["eval_log_forget.json"]["generated_text"].values():
            row[:] = row[1:3]
    with pytest.raises(ValueError, match="different splits"):
        tofu.score(*(save(tmp_path / f"{i}.json", document) for i, document in enumerate(logs)))


def test_the_same_rows_under_another_prompt_are_told_not_refused(tmp_path):
    ours = save(tmp_path / "ours.json", log())
    other = save(tmp_path / "other.json", log(0.3, "Question: Who {}?\nAnswer: "))
    values, lines = tofu.score(ours, other)
    assert "forget_quality" in values and told(lines, "the prompts differ")


def test_a_mean_loss_that_is_not_its_sum_over_its_tokens_is_told(tmp_path):
    odd = log(0.3)
    odd["eval_log_forget.json"]["num_token_gt"]["2"] = 9
    ours = save(tmp_path / "ours.json", log())
    lines = tofu.score(ours, save(tmp_path / "odd.json", odd))[1]
    assert told(lines, "avg_gt_loss: in 1 of 8 rows it is not gt_loss/num_token_gt; the first is")
    assert not told(tofu.score(ours)[1], "avg_gt_loss")


def test_answers_that_rouge_cannot_see_are_counted(tmp_path):
    document = log()
    for field in document.values():
        field["generated_text"]["1"][2] = "第3本书"
    lines = tofu.score(save(tmp_path / "log.json", document))[1]
    assert told(lines, "4 of 32 true answers contain no word that ROUGE counts")
