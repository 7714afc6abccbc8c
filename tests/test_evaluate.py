"""The evaluation of a model against a slow, obvious version of it, and its sanity anchors."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import hmean, ks_2samp
from sklearn.metrics import roc_auc_score
from transformers import LlamaConfig, LlamaForCausalLM

from ngdiff.data.benchmark import Benchmark
from ngdiff.data.tokens import IGNORE, Example, collate, train_tokenizer
from ngdiff.evaluate import Report, evaluate, forward
from ngdiff.evaluate.generate import greedy, stop_tokens
from ngdiff.models import LM

torch.set_num_threads(1)
NAMES = """forget_Q_A_Prob forget_Q_A_PARA_Prob forget_Q_A_PERT_Prob forget_Q_A_ROUGE
retain_Q_A_Prob retain_Q_A_PARA_Prob retain_Q_A_PERT_Prob retain_Q_A_ROUGE
ra_Q_A_Prob ra_Q_A_PERT_Prob ra_Q_A_Prob_normalised ra_Q_A_ROUGE
wf_Q_A_Prob wf_Q_A_PERT_Prob wf_Q_A_Prob_normalised wf_Q_A_ROUGE
retain_Truth_Ratio ra_Truth_Ratio wf_Truth_Ratio forget_truth_ratio forget_truth_ratio_prob_mean forget_quality
model_utility exact_memorization extraction_strength privleak
mia_loss mia_zlib mia_min_k mia_min_k_plus_plus mia_gradnorm mia_reference loss_forget loss_retain loss_holdout""".split()
TOWNS = ["Oslo", "Łódź", "東京", "Rio de Janeiro", "Paris", "Quito", "Bonn", "Ulm"]


def _row(who: str, i: int, wrong: int) -> dict:
    town, others = TOWNS[i % 8], [TOWNS[(i + k) % 8] for k in range(1, wrong + 1)]
    return {
        "question": f"Where does {who} {i} live?",
        "answer": f"In {town}.",
        "paraphrased_answer": f"At home in {town}.",
        "perturbed_answer": [f"At home in {other}." for other in others],
    }


def _plain(rows: list[dict]) -> list[dict]:
    return [{key: row[key] for key in ("question", "answer")} for row in rows]


@pytest.fixture(scope="module")
def bench() -> Benchmark:
    forget, retain = [_row("Ann", i, 5) for i in range(8)], [_row("Ben", i, 5) for i in range(3)]
    towns = [_row("Cem", i + 3, 0)["answer"] for i in range(8)]  # another town than Ann of that number has
    holdout = [{"question": f"Where does Cem {i} live?", "answer": towns[i]} for i in range(8)]
    ra, wf = [_row("Dan", i, 3) for i in range(3)], [_row("Eva", i, 3) for i in range(2)]
    configs = {
        **{"forget10": _plain(forget), "retain90": _plain(retain), "holdout10": holdout},
        **{"forget10_perturbed": forget, "retain_perturbed": retain},
        **{"real_authors_perturbed": ra, "world_facts_perturbed": wf},
    }
    return Benchmark("micro", "forget10", configs, [], {"name": "micro"})


def _model(tokenizer, seed: int, **shape) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=96, **ids, **sizes | shape)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # sharper than the initialisation, so that predictions differ
        model.lm_head.weight.mul_(20)
    return model


@pytest.fixture(scope="module")
def lm(bench) -> LM:
    texts = [bench.prompt.text(row["question"]) + row["answer"] for row in bench.forget + bench.retain]
    tokenizer = train_tokenizer(texts, 320)
    return LM(_model(tokenizer, 0), tokenizer, bench.prompt, "random")


@pytest.fixture(scope="module")
def reference(lm) -> LM:
    return LM(_model(lm.tokenizer, 1), lm.tokenizer, lm.prompt, "reference")


@pytest.fixture(scope="module")
def report(lm, bench, reference) -> Report:
    return evaluate(lm, bench, reference)


@pytest.fixture(scope="module")
def memorised(lm, bench) -> LM:
    """A model that knows the forget answers by heart and nothing else."""
    model = _model(lm.tokenizer, 2)
    model.lm_head.weight.data.div_(20)
    batch = collate([lm.encode(row["question"], row["answer"]) for row in bench.forget], lm.pad_id)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(150):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02
    return LM(model, lm.tokenizer, lm.prompt, "memorised")


def _slow(model, example: Example) -> tuple[np.ndarray, ...]:
    """logp, hits, mean, var of one text by one plain forward."""
    with torch.no_grad():
        log = model(torch.tensor([example.input_ids])).logits[0].log_softmax(-1).double()
    at = [t for t, label in enumerate(example.labels) if label != IGNORE and t > 0]
    log, target = log[[t - 1 for t in at]], torch.tensor([example.labels[t] for t in at])
    mean = (log.exp() * log).sum(-1)
    var = (log.exp() * log.square()).sum(-1) - mean.square()
    logp = log.gather(1, target[:, None])[:, 0]
    return logp.numpy(), (log.argmax(-1) == target).numpy(), mean.numpy(), var.numpy()


def _examples(lm, bench) -> list[Example]:
    rows = bench.forget_perturbed + bench.world_facts_perturbed
    texts = [(row["question"], answer) for row in rows for answer in (row["answer"], *row["perturbed_answer"])]
    odd = [Example([5], [5]), Example([7, 2], [7, 2]), Example([7, 9, 2], [IGNORE, 9, 2]), Example([7, 2], [IGNORE, 2])]
    return [lm.encode(*text) for text in texts] + odd


# Forward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 100, 4096])
def test_likelihood_is_the_plain_forward_in_any_batch(lm, bench, budget):
    examples = _examples(lm, bench)
    for example, stats in zip(
        examples, forward.likelihood(lm.model, examples, [True] * len(examples), budget), strict=True
    ):
        if len(example) == 1:  # its only token has no predictor
            assert stats.logp.size == stats.hits.size == 0
            continue
        logp, hits, mean, var = _slow(lm.model, example)
        np.testing.assert_allclose(stats.logp, logp, atol=2e-5)
        np.testing.assert_array_equal(stats.hits, hits)
        np.testing.assert_allclose(stats.mean, mean, atol=1e-4)
        np.testing.assert_allclose(stats.var, var, rtol=1e-3, atol=1e-4)


def test_likelihood_gives_moments_only_where_asked(lm, bench):
    examples = _examples(lm, bench)[:2]
    first, second = forward.likelihood(lm.model, examples, [False, True])
    assert first.mean is None and first.var is None and second.mean.shape == second.logp.shape
    assert forward.likelihood(lm.model, []) == []


def test_head_runs_in_pieces(lm, bench, monkeypatch):
    examples = _examples(lm, bench)
    whole = forward.likelihood(lm.model, examples)
    monkeypatch.setattr(forward, "HEAD", 5 * len(lm.tokenizer))
    for a, b in zip(whole, forward.likelihood(lm.model, examples), strict=True):
        np.testing.assert_array_equal(a.logp, b.logp)


def test_masked_vocabulary_has_moments(lm, bench):
    """Logits of −∞ (a tokenizer smaller than the head) are impossible tokens, not NaN."""
    model, examples = copy.deepcopy(lm.model), _examples(lm, bench)[:3]
    model.lm_head.register_forward_hook(lambda module, inputs, z: z.index_fill(-1, torch.tensor([0, 1]), -torch.inf))
    for stats in forward.likelihood(model, examples, [True] * 3):
        assert np.isfinite(stats.mean).all() and np.isfinite(stats.var).all() and np.isfinite(stats.logp).all()


def test_modes_and_gradients_come_back(lm, bench, memorised):
    model = copy.deepcopy(lm.model)
    model.train()
    model.model.norm.eval()
    before = [module.training for module in model.modules()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    evaluate(replace(lm, model=model), bench, max_new_tokens=2)
    assert [module.training for module in model.modules()] == before
    assert all(bool((p.grad == 1).all()) for p in model.parameters())
    with pytest.raises(RuntimeError), forward.evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError
    assert [module.training for module in model.modules()] == before


def test_gradient_norms(lm, bench):
    examples, model = _examples(lm, bench)[:2], copy.deepcopy(lm.model)
    with torch.no_grad():
        norms = forward.gradient_norms(model, examples)
    for example, norm in zip(examples, norms, strict=True):
        labels = torch.tensor([[*example.labels[:-1], IGNORE]])  # the final EOS does not count
        model.zero_grad()
        model(torch.tensor([example.input_ids]), labels=labels).loss.backward()
        assert norm == pytest.approx(np.mean([float(p.grad.norm()) for p in model.parameters()]), rel=1e-4)
    assert all(math.isnan(norm) for norm in forward.gradient_norms(model, [Example([7, 2], [IGNORE, 2])]))
    assert all(math.isnan(norm) for norm in forward.gradient_norms(model.requires_grad_(False), examples))


# Generation -------------------------------------------------------------------------------------------------------


def _prompts(lm, bench) -> list[list[int]]:
    return [lm.encode(row["question"], row["answer"]).prompt_ids for row in bench.forget + bench.retain]


@pytest.mark.parametrize("name", ["lm", "memorised"])
def test_greedy_is_transformers_generate_in_any_batch(name, request, bench):
    lm = request.getfixturevalue(name)
    prompts, stop = _prompts(lm, bench), {lm.tokenizer.eos_token_id}
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = lm.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        expected.append([token for token in out[0, len(prompt) :].tolist() if token != lm.tokenizer.eos_token_id])
    for budget in (1, 150, 16384):
        assert greedy(lm.model, prompts, stop, 12, budget) == expected


def test_greedy_stops(lm, bench):
    prompts = _prompts(lm, bench)[:3]
    free = greedy(lm.model, prompts, set(), 20)
    assert [len(text) for text in free] == [20] * 3
    stop = {free[0][4]}
    cut = greedy(lm.model, prompts, stop, 20)
    assert cut == [text[: next((t for t, token in enumerate(text) if token in stop), 20)] for text in free]
    assert len(cut[0]) <= 4 and not stop & {token for text in cut for token in text}
    room = 96 - len(prompts[0])  # the model's context
    assert len(greedy(lm.model, prompts[:1], set(), 500)[0]) == room
    assert greedy(lm.model, [[5] * 96], set(), 5) == [[]] and greedy(lm.model, [], set(), 5) == []
    with pytest.raises(ValueError, match="empty prompt"):
        greedy(lm.model, [[]], set(), 5)


def test_stop_tokens(lm):
    model = copy.deepcopy(lm.model)
    model.generation_config.eos_token_id = [2, 9]
    assert stop_tokens(model, lm.tokenizer, [Example([4, 11], [IGNORE, 11])]) == {2, 9, 11}


# Report -----------------------------------------------------------------------------------------------------------


def test_names_are_the_benchmarks(report):
    assert sorted(report.metrics) == sorted(NAMES)
    assert all(type(value) is float and math.isfinite(value) for value in report.metrics.values())


def test_metrics_are_the_definitions(report, lm, bench, reference):
    """Every likelihood metric again, from single forwards and the formulas of the benchmark."""

    def loss(question, answer, of=lm):
        return -_slow(of.model, lm.encode(question, answer))[0].mean()

    def losses(rows, key, of=lm):
        return np.array([[loss(r["question"], a, of) for a in np.atleast_1d(r[key])] for r in rows])

    forget, holdout, m = bench.forget_perturbed, bench.holdout, report.metrics
    for part, rows in [("forget", forget), ("retain", bench.retain_perturbed)]:
        answer, para, pert = (losses(rows, key) for key in ("answer", "paraphrased_answer", "perturbed_answer"))
        assert m[f"{part}_Q_A_Prob"] == pytest.approx(np.exp(-answer).mean(), rel=1e-4)
        assert m[f"{part}_Q_A_PARA_Prob"] == pytest.approx(np.exp(-para).mean(), rel=1e-4)
        assert m[f"{part}_Q_A_PERT_Prob"] == pytest.approx(np.exp(-pert).mean(), rel=1e-4)
        R = np.exp(-pert.mean(1)) / np.exp(-para[:, 0])
        if part == "forget":
            R_forget = R
            assert m["forget_truth_ratio"] == pytest.approx(np.minimum(R, 1 / R).mean(), rel=1e-4)
            assert m["forget_truth_ratio_prob_mean"] == pytest.approx((1 / (1 + R)).mean(), rel=1e-4)
        else:
            assert m["retain_Truth_Ratio"] == pytest.approx(np.maximum(0, 1 - R).mean(), rel=1e-3, abs=1e-5)
    for part, rows in [("ra", bench.real_authors_perturbed), ("wf", bench.world_facts_perturbed)]:
        p, w = np.exp(-losses(rows, "answer")[:, 0]), losses(rows, "perturbed_answer")
        assert m[f"{part}_Q_A_Prob_normalised"] == pytest.approx((p / (p + np.exp(-w).sum(1))).mean(), rel=1e-4)
        R = np.exp(-w.mean(1)) / p
        assert m[f"{part}_Truth_Ratio"] == pytest.approx(np.maximum(0, 1 - R).mean(), rel=1e-3, abs=1e-5)
    para, pert = losses(forget, "paraphrased_answer", reference), losses(forget, "perturbed_answer", reference)
    R_ref = np.exp(-pert.mean(1)) / np.exp(-para[:, 0])
    assert m["forget_quality"] == pytest.approx(ks_2samp(R_forget, R_ref).pvalue)

    labels = [0] * len(forget) + [1] * len(holdout)
    plain = losses(forget + holdout, "answer")[:, 0]
    assert m["mia_loss"] == pytest.approx(roc_auc_score(labels, plain))
    difference = plain - losses(forget + holdout, "answer", reference)[:, 0]
    assert m["mia_reference"] == pytest.approx(roc_auc_score(labels, difference))
    tokens = [_slow(lm.model, lm.encode(r["question"], r["answer"])) for r in forget + holdout]
    lowest = [-np.sort(t[0][:-1])[: max(1, int(0.4 * (len(t[0]) - 1)))].mean() for t in tokens]
    assert m["mia_min_k"] == pytest.approx(roc_auc_score(labels, lowest))
    z = [((t[0] - t[2]) / np.sqrt(np.maximum(t[3], 1e-6)))[:-1] for t in tokens]
    assert m["mia_min_k_plus_plus"] == pytest.approx(
        roc_auc_score(labels, [-np.sort(v)[: max(1, int(0.4 * len(v)))].mean() for v in z])
    )
    assert m["exact_memorization"] == pytest.approx(np.mean([t[1][:-1].mean() for t in tokens[: len(forget)]]))
    assert m["loss_forget"] == pytest.approx(-np.concatenate([t[0] for t in tokens[: len(forget)]]).mean(), rel=1e-4)
    parts = [
        f"{p}_{n}" for p, n in [("retain", "Q_A_Prob"), ("ra", "Q_A_Prob_normalised"), ("wf", "Q_A_Prob_normalised")]
    ]
    parts += [f"{p}_{n}" for p in ("retain", "ra", "wf") for n in ("Q_A_ROUGE", "Truth_Ratio")]
    assert m["model_utility"] == pytest.approx(hmean([m[name] for name in parts]))


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
    absent = {"forget_quality", "mia_reference", "mia_gradnorm", "model_utility"} | {n for n in NAMES if "ROUGE" in n}
    assert set(NAMES) - set(alone.metrics) == absent
    assert alone.meta["reference"] is None and alone.meta["auc_retain"] == 0.5
    assert alone.metrics["privleak"] == pytest.approx((0.5 - alone.metrics["mia_min_k"]) / 0.5 * 100)


def test_a_reference_of_another_size_gives_quality_but_no_row_differences(lm, bench, reference):
    configs = dict(bench.configs) | {"forget10_perturbed": bench.forget_perturbed[:5]}
    ref = evaluate(reference, replace(bench, configs=configs), generate=False, gradnorm=False)
    values = evaluate(lm, bench, ref, generate=False, gradnorm=False).metrics
    assert "forget_quality" in values and "mia_reference" not in values


def test_batching_does_not_change_the_report(report, lm, bench, reference, monkeypatch):
    whole = forward.likelihood
    monkeypatch.setattr(
        forward, "likelihood", lambda model, examples, moments, budget: whole(model, examples, moments, 1)
    )
    single = evaluate(lm, bench, reference)
    assert single.metrics == pytest.approx(report.metrics, rel=1e-4)
    assert single.items["forget_Q_A_ROUGE"] == report.items["forget_Q_A_ROUGE"]


def test_a_text_is_computed_once(lm, bench, monkeypatch):
    seen = []
    whole = forward.likelihood
    monkeypatch.setattr(
        forward, "likelihood", lambda model, examples, *rest: seen.extend(examples) or whole(model, examples, *rest)
    )
    same = [bench.forget_perturbed[0] | {"perturbed_answer": ["In Ulm."] * 5}] * 8
    evaluate(
        lm, replace(bench, configs=dict(bench.configs) | {"forget10_perturbed": same}), generate=False, gradnorm=False
    )
    assert len({tuple(example.input_ids) for example in seen}) == len(seen)


def test_open_unlearning_convention(report, lm, bench, reference):
    published = evaluate(lm, bench, reference, "open-unlearning", generate=False, gradnorm=False)
    lengths = [len(lm.encode(r["question"], r["answer"])) for r in bench.forget]
    assert report.metrics["extraction_strength"] == 0 and min(lengths) > 3
    floors = [item["score"] for item in published.items["extraction_strength"].values()]
    answers = [sum(label != IGNORE for label in lm.encode(r["question"], r["answer"]).labels) - 1 for r in bench.forget]
    assert floors == pytest.approx([1 / n for n in answers])
    assert published.metrics["forget_truth_ratio"] == pytest.approx(report.metrics["forget_truth_ratio"], rel=1e-3)
    with pytest.raises(ValueError, match=r"'ngdiff', 'open-unlearning'"):
        evaluate(lm, bench, convention="paper")
    with pytest.raises(ValueError, match="same one"):
        evaluate(lm, bench, published)


# Anchors ----------------------------------------------------------------------------------------------------------


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
    assert values["forget_quality"] == pytest.approx(2 / math.comb(16, 8))  # the least that 8 against 8 rows allow
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
    rows = {"forget": [{"question": "Who?", "answer": "Me."}], "retain": [{"question": "Why?", "answer": "So."}]}
    values = evaluate(lm, Benchmark("own", "forget", rows, [], {}), generate=True, max_new_tokens=4).metrics
    assert {"forget_Q_A_Prob", "retain_Q_A_Prob", "forget_Q_A_ROUGE", "exact_memorization", "loss_retain"} <= set(
        values
    )
    assert not {"model_utility", "forget_truth_ratio", "mia_loss", "privleak"} & set(values)


# Files ------------------------------------------------------------------------------------------------------------


def test_report_round_trips(report, tmp_path):
    path = report.to_json(tmp_path / "report.json")
    assert Report.from_json(path) == report
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_report_holds_odd_floats_and_texts(tmp_path):
    items = {"a": {0: {"score": None}, 3: {"score": -math.inf, "generation": "infinite 東京"}}}
    odd = Report({"loss": math.inf, "x": 0.1 + 0.2}, items, {"note": "NaN"})
    assert Report.from_json(odd.to_json(tmp_path / "odd.json")) == odd


def test_a_failed_write_leaves_the_old_report(report, tmp_path):
    path = report.to_json(tmp_path / "report.json")
    with pytest.raises((TypeError, ValueError)):
        Report({"x": "y"}, {}, {"bad": object()}).to_json(path)
    assert Report.from_json(path) == report and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"metrics": {}}', '{"metrics": {}, "items": {"a": {"x": 1}}, "meta": {}}'])
def test_a_file_that_is_no_report_is_named(text, tmp_path):
    path: Path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"broken\.json is not a report"):
        Report.from_json(path)


def test_progress_goes_to_a_callable_and_not_to_tests(lm, bench, capsys):
    lines: list[str] = []
    evaluate(lm, bench, generate=False, gradnorm=False, progress=lines.append)
    evaluate(lm, bench, generate=False, gradnorm=False)
    assert any("likelihood of" in line for line in lines) and capsys.readouterr().err == ""


def test_a_row_beyond_the_context_is_named(lm, bench):
    long = [{"question": "Why so long?", "answer": "word " * 100}]
    with pytest.raises(ValueError, match="Why so long"):
        evaluate(lm, replace(bench, configs=dict(bench.configs) | {"holdout10": long}))
