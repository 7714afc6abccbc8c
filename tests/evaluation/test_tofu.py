"""The report of a model against the benchmark's formulas, its sanity anchors."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import hmean, ks_2samp
from sklearn.metrics import roc_auc_score

from ngdiff.data.benchmark import Benchmark, Prompt
from ngdiff.evaluation import Report, evaluate, forward, items, metrics
from ngdiff.evaluation.conventions import CONVENTIONS, convention
from ngdiff.lm.tokens import IGNORE
from tests.helpers import micro

NAMES = {
    *(
        f"{part}_Q_A_{kind}"
        for part in ("forget", "retain")
        for kind in ("Prob", "PARA_Prob", "PERT_Prob", "ROUGE")
    ),
    *(
        f"{part}_Q_A_{kind}"
        for part in ("ra", "wf")
        for kind in ("Prob", "PERT_Prob", "Prob_normalised", "ROUGE")
    ),
    *(
        "retain_Truth_Ratio",
        "ra_Truth_Ratio",
        "wf_Truth_Ratio",
        "forget_truth_ratio",
        "forget_truth_ratio_prob_mean",
    ),
    *("forget_quality", "model_utility", "exact_memorization", "extraction_strength", "privleak"),
    *(
        f"mia_{attack}"
        for attack in ("loss", "zlib", "min_k", "min_k_plus_plus", "gradnorm", "reference")
    ),
    *("loss_forget", "loss_retain", "loss_holdout"),
}


@pytest.fixture(scope="module")
def report(lm, bench, reference) -> Report:
    return evaluate(lm, bench, reference)


# Report -------------------------------------------------------------------------------------------


def test_names_are_the_benchmarks(report):
    assert set(report.metrics) == NAMES
    assert all(type(value) is float and math.isfinite(value) for value in report.metrics.values())


def test_metrics_are_the_definitions(report, lm, bench, reference):
    """Every likelihood metric again, from single forwards and the formulas of the benchmark."""

    def loss(question, answer, of=lm):
        return -micro.slow(of.model, lm.encode(question, answer))[0].mean()

    def losses(rows, key, of=lm):
        return np.array([[loss(r["question"], a, of) for a in np.atleast_1d(r[key])] for r in rows])

    forget, holdout, m = bench.forget_perturbed, bench.holdout, report.metrics
    for part, rows in [("forget", forget), ("retain", bench.retain_perturbed)]:
        answer, para, pert = (
            losses(rows, key) for key in ("answer", "paraphrased_answer", "perturbed_answer")
        )
        assert m[f"{part}_Q_A_Prob"] == pytest.approx(np.exp(-answer).mean(), rel=1e-4)
        assert m[f"{part}_Q_A_PARA_Prob"] == pytest.approx(np.exp(-para).mean(), rel=1e-4)
        assert m[f"{part}_Q_A_PERT_Prob"] == pytest.approx(np.exp(-pert).mean(), rel=1e-4)
        R = np.exp(-pert.mean(1)) / np.exp(-para[:, 0])
        if part == "forget":
            R_forget = R
            assert m["forget_truth_ratio"] == pytest.approx(np.minimum(R, 1 / R).mean(), rel=1e-4)
            assert m["forget_truth_ratio_prob_mean"] == pytest.approx(
                (1 / (1 + R)).mean(), rel=1e-4
            )
        else:
            assert m["retain_Truth_Ratio"] == pytest.approx(
                np.maximum(0, 1 - R).mean(), rel=1e-3, abs=1e-5
            )
    for part, rows in [("ra", bench.real_authors_perturbed), ("wf", bench.world_facts_perturbed)]:
        p, w = np.exp(-losses(rows, "answer")[:, 0]), losses(rows, "perturbed_answer")
        assert m[f"{part}_Q_A_Prob_normalised"] == pytest.approx(
            (p / (p + np.exp(-w).sum(1))).mean(), rel=1e-4
        )
        R = np.exp(-w.mean(1)) / p
        assert m[f"{part}_Truth_Ratio"] == pytest.approx(
            np.maximum(0, 1 - R).mean(), rel=1e-3, abs=1e-5
        )
    para, pert = (
        losses(forget, "paraphrased_answer", reference),
        losses(forget, "perturbed_answer", reference),
    )
    R_ref = np.exp(-pert.mean(1)) / np.exp(-para[:, 0])
    assert m["forget_quality"] == pytest.approx(ks_2samp(R_forget, R_ref).pvalue)

    def per_row(attack):
        """The items of both sides, forget first."""
        sides = [report.items[f"mia_{attack}_{part}"].values() for part in ("forget", "holdout")]
        return pytest.approx([item["score"] for side in sides for item in side], rel=1e-3)

    labels = [0] * len(forget) + [1] * len(holdout)
    plain = losses(forget + holdout, "answer")[:, 0]
    assert m["mia_loss"] == pytest.approx(roc_auc_score(labels, plain))
    assert plain == per_row("loss")
    sizes = [len(zlib.compress(r["answer"].encode())) for r in forget + holdout]
    assert plain / sizes == per_row("zlib") and m["mia_zlib"] == pytest.approx(
        roc_auc_score(labels, plain / sizes)
    )
    difference = plain - losses(forget + holdout, "answer", reference)[:, 0]
    assert m["mia_reference"] == pytest.approx(roc_auc_score(labels, difference))
    tokens = [micro.slow(lm.model, lm.encode(r["question"], r["answer"])) for r in forget + holdout]
    lowest = [-np.sort(t[0][:-1])[: max(1, int(0.4 * (len(t[0]) - 1)))].mean() for t in tokens]
    assert lowest == per_row("min_k") and m["mia_min_k"] == pytest.approx(
        roc_auc_score(labels, lowest)
    )
    theirs = [
        micro.slow(reference.model, lm.encode(r["question"], r["answer"]))[0][:-1]
        for r in forget + holdout
    ]
    retain_only = roc_auc_score(
        labels, [-np.sort(t)[: max(1, int(0.4 * len(t)))].mean() for t in theirs]
    )
    assert retain_only != 0.5 and m["privleak"] == pytest.approx(
        (retain_only - m["mia_min_k"]) / (1 - retain_only) * 100
    )
    z = [((t[0] - t[2]) / np.sqrt(np.maximum(t[3], 1e-6)))[:-1] for t in tokens]
    plus = [-np.sort(v)[: max(1, int(0.4 * len(v)))].mean() for v in z]
    assert plus == per_row("min_k_plus_plus") and m["mia_min_k_plus_plus"] == pytest.approx(
        roc_auc_score(labels, plus)
    )
    assert m["exact_memorization"] == pytest.approx(
        np.mean([t[1][:-1].mean() for t in tokens[: len(forget)]])
    )
    assert m["loss_forget"] == pytest.approx(
        -np.concatenate([t[0] for t in tokens[: len(forget)]]).mean(), rel=1e-4
    )
    parts = [
        f"{p}_{n}"
        for p, n in [
            ("retain", "Q_A_Prob"),
            ("ra", "Q_A_Prob_normalised"),
            ("wf", "Q_A_Prob_normalised"),
        ]
    ]
    parts += [f"{p}_{n}" for p in ("retain", "ra", "wf") for n in ("Q_A_ROUGE", "Truth_Ratio")]
    assert m["model_utility"] == pytest.approx(hmean([m[name] for name in parts]))


def test_aggregates_take_recall_and_leave_the_undefined_out():
    rouge = {"rouge1_recall": 0.9, "rougeL_f1": 0.5, "rougeL_recall": 0.8}
    found = {
        "forget_Q_A_ROUGE": {0: rouge, 1: {**rouge, "rougeL_recall": 0.4}},
        "forget_truth_ratio": items.scores([0.5, math.nan, 4.0]),
        "retain_Truth_Ratio": items.scores([math.nan, 0.25]),
        "exact_memorization": items.scores([math.nan, 0.75]),
        "ra_Truth_Ratio": items.scores([math.nan]),
    }
    values = items.aggregate(found)
    assert math.isnan(values.pop("ra_Truth_Ratio"))
    wanted = {"forget_Q_A_ROUGE": 0.6, "forget_truth_ratio": 0.375, "retain_Truth_Ratio": 0.75}
    assert values == pytest.approx(wanted | {"exact_memorization": 0.75})
    assert math.isnan(metrics.ks_pvalue([], [1.0]))


def test_items_are_kept(report, bench):
    for name in (
        "forget_Q_A_Prob",
        "forget_truth_ratio",
        "exact_memorization",
        "mia_min_k_holdout",
        "forget_Q_A_ROUGE",
    ):
        assert list(report.items[name]) == list(range(8))
    assert len(report.items["forget_Q_A_PERT_Prob"][0]["prob"]) == 5
    assert report.items["forget_Q_A_ROUGE"][1]["ground_truth"] == bench.forget[1]["answer"]
    scores = [item["score"] for item in report.items["exact_memorization"].values()]
    assert report.metrics["exact_memorization"] == pytest.approx(np.mean(scores))


def test_reference_model_and_its_report_agree(report, lm, bench, reference):
    ref = evaluate(reference, bench, generate=False, gradnorm=False)
    again = evaluate(lm, bench, ref)
    assert again.metrics == pytest.approx(report.metrics)
    assert again.meta["auc_retain"] == ref.metrics["mia_min_k"]


def test_without_reference_nothing_stands_in(lm, bench):
    alone = evaluate(lm, bench, gradnorm=False, generate=False)
    absent = {"forget_quality", "mia_reference", "mia_gradnorm", "model_utility"} | {
        n for n in NAMES if "ROUGE" in n
    }
    assert NAMES - set(alone.metrics) == absent
    assert alone.meta["reference"] is None and alone.meta["auc_retain"] == 0.5
    assert alone.metrics["privleak"] == pytest.approx(
        (0.5 - alone.metrics["mia_min_k"]) / 0.5 * 100
    )


def test_a_reference_of_another_size_gives_quality_but_no_row_differences(lm, bench, reference):
    configs = dict(bench.configs) | {"forget10_perturbed": bench.forget_perturbed[:5]}
    ref = evaluate(reference, replace(bench, configs=configs), generate=False, gradnorm=False)
    values = evaluate(lm, bench, ref, generate=False, gradnorm=False).metrics
    assert "forget_quality" in values and "mia_reference" not in values
    other = replace(ref, meta=ref.meta | {"split": "forget05"})
    with pytest.raises(
        ValueError, match=r"is of other rows \(micro forget05; here micro forget10\)"
    ):
        evaluate(lm, bench, other, generate=False, gradnorm=False)


def test_batching_does_not_change_the_report(report, lm, bench, reference, monkeypatch):
    whole = forward.likelihood
    monkeypatch.setattr(
        forward,
        "likelihood",
        lambda model, examples, moments, **more: whole(model, examples, moments, 1),
    )
    single = evaluate(lm, bench, reference)
    assert single.metrics == pytest.approx(report.metrics, rel=1e-4)
    assert single.items["forget_Q_A_ROUGE"] == report.items["forget_Q_A_ROUGE"]


def test_a_text_is_computed_once(lm, bench, monkeypatch):
    seen = []
    whole = forward.likelihood
    monkeypatch.setattr(
        forward,
        "likelihood",
        lambda model, examples, *rest, **more: (
            seen.extend(examples) or whole(model, examples, *rest, **more)
        ),
    )
    same = [bench.forget_perturbed[0] | {"perturbed_answer": ["In Ulm."] * 5}] * 8
    evaluate(
        lm,
        replace(bench, configs=dict(bench.configs) | {"forget10_perturbed": same}),
        generate=False,
        gradnorm=False,
    )
    assert len({tuple(example.input_ids) for example in seen}) == len(seen)


def test_open_unlearning_convention(report, lm, bench, reference):
    published = evaluate(lm, bench, reference, "open-unlearning", generate=False, gradnorm=False)
    assert report.metrics["extraction_strength"] == 0
    floors = [item["score"] for item in published.items["extraction_strength"].values()]
    how = convention("open-unlearning")
    labels = [how.encode(lm, r["question"], r["answer"]).labels for r in bench.forget]
    assert floors == pytest.approx(
        [1 / (sum(label != IGNORE for label in row) - 1) for row in labels]
    )
    true, wrong = (published.items[f"forget_Q_A_{kind}_Prob"] for kind in ("PARA", "PERT"))
    R = [
        math.exp(-np.mean(wrong[i]["avg_loss"])) / (math.exp(-true[i]["avg_loss"]) + 1e-10)
        for i in true
    ]
    assert published.metrics["forget_truth_ratio"] == pytest.approx(
        np.mean([min(r, 1 / (r + 1e-10)) for r in R]), rel=1e-9
    )
    with pytest.raises(ValueError, match=r"'ngdiff', 'tofu', 'open-unlearning'"):
        evaluate(lm, bench, convention="paper")
    with pytest.raises(ValueError, match="same one"):
        evaluate(lm, bench, published)


# Anchors ------------------------------------------------------------------------------------------


def test_a_memorising_model_is_found_out(memorised, bench, reference):
    """privleak near −100, MIA AUC near 1, forget quality near 0."""
    rows = [
        row
        | {
            "paraphrased_answer": row["answer"],
            "perturbed_answer": [a[8:].capitalize() for a in row["perturbed_answer"]],
        }
        for row in bench.forget_perturbed
    ]
    bench = replace(bench, configs=dict(bench.configs) | {"forget10_perturbed": rows})
    values = evaluate(memorised, bench, reference).metrics
    assert values["exact_memorization"] == values["extraction_strength"] == 1
    assert values["forget_Q_A_ROUGE"] == 1 and values["forget_Q_A_Prob"] > 0.95
    for attack in ("loss", "zlib", "min_k", "min_k_plus_plus", "gradnorm", "reference"):
        assert values[f"mia_{attack}"] > 0.95, attack
    # the least that 8 against 8 rows allow
    assert values["forget_quality"] == pytest.approx(2 / math.comb(16, 8))
    assert values["forget_truth_ratio"] < 0.05 and values["forget_truth_ratio_prob_mean"] > 0.95
    assert evaluate(memorised, bench, generate=False, gradnorm=False).metrics["privleak"] < -95


def test_a_collapsed_model_is_scored_not_crashed(lm, bench, reference, tmp_path):
    broken = lm.copy()
    with torch.no_grad():
        broken.model.lm_head.weight.fill_(torch.nan)
    report = evaluate(broken, bench, reference)
    values = report.metrics
    assert values["model_utility"] == values["forget_Q_A_Prob"] == values["forget_Q_A_ROUGE"] == 0
    assert values["exact_memorization"] == 0 and values["loss_forget"] == math.inf
    assert values["mia_loss"] == values["mia_gradnorm"] == 0.5 and values["forget_quality"] < 0.001
    assert values["forget_truth_ratio"] == values["retain_Truth_Ratio"] == 0
    assert Report.from_json(report.to_json(tmp_path / "r.json")) == report


def test_own_data_without_wrong_answers(lm):
    rows = {
        "forget": [{"question": "Who?", "answer": "Me."}],
        "retain": [{"question": "Why?", "answer": "So."}],
    }
    values = evaluate(
        lm, Benchmark("own", "forget", rows, [], {}), generate=True, max_new_tokens=4
    ).metrics
    assert {
        "forget_Q_A_Prob",
        "retain_Q_A_Prob",
        "forget_Q_A_ROUGE",
        "exact_memorization",
        "loss_retain",
    } <= set(values)
    assert not {"model_utility", "forget_truth_ratio", "mia_loss", "privleak"} & set(values)


def test_progress_goes_to_a_callable_and_not_to_tests(lm, bench, capsys):
    lines: list[str] = []
    evaluate(lm, bench, generate=False, gradnorm=False, progress=lines.append)
    evaluate(lm, bench, generate=False, gradnorm=False)
    assert any("likelihood of" in line for line in lines) and capsys.readouterr().err == ""


def test_a_row_beyond_the_context_is_named(lm, bench):
    long = [{"question": "Why so long?", "answer": "word " * 100}]
    with pytest.raises(ValueError, match="Why so long"):
        evaluate(lm, replace(bench, configs=dict(bench.configs) | {"holdout10": long}))


# Rows that a convention does not ask, or of whose answer it keeps nothing
# -------------------------------------------------------------------------------------------------


def test_a_row_without_a_token_of_its_answer_is_counted_and_named(lm, bench, tmp_path):
    """It ends no evaluation and enters no mean; every other row gives what it gives without it."""
    tofu = type("Cut", (type(CONVENTIONS["tofu"]),), {"cut": 60})()
    long = {"question": "Who? " * 20, "answer": "In Oslo."}
    rows = {name: list(rows) for name, rows in bench.configs.items()}
    more = replace(bench, configs=rows | {"holdout10": [*rows["holdout10"], long]})
    asked = {**rows["forget10_perturbed"][0], "question": long["question"]}
    more.configs["forget10"].append({k: asked[k] for k in ("question", "answer")})
    more.configs["forget10_perturbed"].append(asked)
    lines: list[str] = []
    options = {"convention": tofu, "max_new_tokens": 3}
    report = evaluate(lm, more, progress=lines.append, **options)
    plain = evaluate(lm, bench, **options)
    exact = {name: plain.metrics[name] for name in plain.metrics}
    assert report.metrics == pytest.approx(exact, rel=1e-4)
    said = [line for line in lines if "no token of an answer" in line]
    assert len(said) == 1 and "7 texts have no token of an answer under tofu" in said[0]
    assert "question 'Who? Who?" in said[0] and said[0].endswith(report.meta["left_out"][-1])
    assert report.items["forget_Q_A_Prob"][8]["prob"] is None
    assert report.items["mia_min_k_holdout"][8] == {"score": None}
    report.to_json(tmp_path / "report.json")
    assert Report.from_json(tmp_path / "report.json").items == report.items


def test_tofus_script_asks_the_first_300_rows(lm, bench):
    """ds_size of its eval_everything.yaml; of the hold-out set, which it does not know, all."""
    rows = [{"question": f"Who is {i}?", "answer": "A."} for i in range(310)]
    sets = {
        "forget10": rows,
        "retain90": [{**row, "question": f"{row['question']}!"} for row in rows],
        "holdout10": [{**row, "question": f"{row['question']}?"} for row in rows],
    }
    wide = Benchmark("wide", "forget10", sets, [], {"name": "wide"})
    options = {"generate": False, "gradnorm": False}
    for name, n in (("tofu", 300), ("ngdiff", 310), ("open-unlearning", 310)):
        report = evaluate(lm, wide, convention=name, **options)
        assert report.meta["rows"] == {"forget": n, "holdout": 310, "retain": n}, name
        assert len(report.items["forget_Q_A_Prob"]) == n


# How a model was asked
# -------------------------------------------------------------------------------------------------


def test_a_reference_asked_in_another_way_is_refused_or_said(lm, bench, reference):
    options = {"generate": False, "gradnorm": False}
    ref = evaluate(reference, bench, **options)
    assert ref.meta["prompt"] == bench.prompt.content() and ref.meta["date"] is None
    assert ref.meta["hidden"] is None and len(ref.meta["tokenizer"]) == 16
    assert evaluate(lm, bench, ref, **options).meta["notes"] == []
    other = replace(lm, prompt=Prompt("Q: ", "\n", "A: "))
    for given in (ref, reference):
        with pytest.raises(
            ValueError, match=r"was evaluated with the prompt .*'Question: '.*--prompt"
        ):
            evaluate(other, bench, given, **options)
    lines: list[str] = []
    strange = replace(ref, meta=ref.meta | {"tokenizer": "0" * 16})
    report = evaluate(lm, bench, strange, progress=lines.append, **options)
    assert report.meta["notes"] == [
        "the reference reference has another tokenizer: numbers a token do not compare"
    ]
    assert any("another tokenizer" in line for line in lines)
    old = {k: v for k, v in ref.meta.items() if k not in ("prompt", "tokenizer", "hidden")}
    (note,) = evaluate(lm, bench, replace(ref, meta=old), **options).meta["notes"]
    assert note.endswith("does not state its prompt and tokenizer and hidden: not compared")
