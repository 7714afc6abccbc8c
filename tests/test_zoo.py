"""Every architecture of the paper profile, as a tiny random model of the same class in a local
folder.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import ngdiff as ng
from ngdiff import zoo
from ngdiff.data.benchmark import Prompt
from ngdiff.evaluation import forward
from ngdiff.lm import pair as models
from ngdiff.lm.model import LM, load, save
from ngdiff.profiles import profile
from tests.helpers import micro
from tests.methods.test_problem import BENCH

# what sets them apart from each other; falcon as RW-1B (alibi), mistral with a window
# shorter than its texts
SMALL = {
    "phi": {"partial_rotary_factor": 0.5},
    "falcon": {
        "alibi": True,
        "new_decoder_architecture": False,
        "multi_query": False,
        "parallel_attn": False,
        "bias": True,
    },
    "gpt2": {"n_inner": 48},
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 1, "sliding_window": 16},
    "olmo": {"clip_qkv": 8.0},
}
KINDS = sorted({m.kind for m in zoo.MODELS.values()})


def tiny(kind: str) -> LM:
    tokenizer = micro.lm().tokenizer
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 96,
    }
    inner = {} if kind in ("gpt2", "falcon") else {"intermediate_size": 48}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), **sizes, **inner, **ids, **SMALL[kind]
    )
    for name in ("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(20 if kind not in ("gpt2", "falcon") else 1)
    return LM(model, tokenizer, Prompt(), kind)


def test_every_kind_is_exercised():
    assert set(SMALL) == set(KINDS)
    paper = {
        "phi-1.5",
        "falcon-1b",
        "gpt2-xl",
        "llama-2-7b",
        "mistral-7b",
        "llama-3.2-1b",
        "iclm-7b-books",
        "olmo-1b",
    }
    assert paper | {"olmo-7b", "llama-2-7b-news", "smollm2"} == set(zoo.MODELS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_this_class_is_loaded_evaluated_and_unlearned(kind, tmp_path):
    save(tiny(kind), tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").is_file()
    lm = load(tmp_path / "model")
    assert lm.model.config.model_type == kind and lm.context == 96
    examples = [lm.encode(r["question"], r["answer"]) for r in micro.bench().forget]
    for example, stats in zip(examples, forward.likelihood(lm.model, examples), strict=True):
        # cache and padding change nothing
        assert stats.logp == pytest.approx(micro.slow(lm.model, example)[0], abs=2e-4)
    report = ng.evaluate(lm, micro.bench(), progress=False, max_new_tokens=6)
    assert 0 < report.metrics["forget_Q_A_Prob"] < 1 and "model_utility" in report.metrics
    before = [p.detach().clone() for p in lm.model.parameters()]
    run = ng.unlearn(
        ng.problem(BENCH, lm, batch_size=4), ng.methods.ngdiff, ng.AutoLR(every=2), steps=3
    )
    assert [i.outcome for i in run.history] == ["ok"] * 3
    moved = [
        not torch.equal(p, q) for p, q in zip(run.model.model.parameters(), before, strict=True)
    ]
    assert sum(moved) > len(moved) / 2
    folder = save(run.model, tmp_path / "out")
    again = forward.likelihood(load(folder).model, examples[:1])[0].logp
    assert again == pytest.approx(
        forward.likelihood(run.model.model, examples[:1])[0].logp, abs=1e-5
    )


def test_left_padded_generation_is_that_of_each_alone():
    from ngdiff.evaluation.generate import greedy

    for kind in KINDS:
        lm = tiny(kind)
        prompts = [lm.encode(r["question"], r["answer"]).prompt_ids for r in micro.bench().forget]
        prompts[0] = prompts[0][-3:]
        together = greedy(lm.model, prompts, {lm.tokenizer.eos_token_id}, 8)
        assert together == [
            greedy(lm.model, [p], {lm.tokenizer.eos_token_id}, 8)[0] for p in prompts
        ], kind


def test_names_and_tokenizers():
    with pytest.raises(ValueError, match="unknown model 'gpt-5': choose one of phi-1.5, "):
        zoo.model("gpt-5")
    assert zoo.tokenizer_of("muse-bench/MUSE-news_target") == "meta-llama/Llama-2-7b-hf"
    assert zoo.tokenizer_of("locuslab/tofu_ft_phi-1.5") == "microsoft/phi-1_5"
    assert zoo.tokenizer_of("some/model") == "some/model"
    one = "open-unlearning/tofu_Llama-3.2-1B-Instruct_retain90"
    assert zoo.tokenizer_of(one) == one  # published with its own


@pytest.mark.parametrize(
    ("model", "bench", "target", "reference"),
    [
        (
            "llama-3.2-1b",
            ("tofu", "forget10", ""),
            "open-unlearning/tofu_Llama-3.2-1B-Instruct_full",
            "open-unlearning/tofu_Llama-3.2-1B-Instruct_retain90",
        ),
        ("phi-1.5", ("tofu", "forget10", ""), "locuslab/tofu_ft_phi-1.5", None),
        ("gpt2-xl", ("tofu", "forget10", ""), None, None),
        (
            "iclm-7b-books",
            ("muse", "forget", "books"),
            "muse-bench/MUSE-books_target",
            "muse-bench/MUSE-books_retrain",
        ),
        (
            "olmo-1b",
            ("semeval", "forget", ""),
            "llmunlearningsemeval2025organization/olmo-1B-model-semeval25-unlearning",
            None,
        ),
    ],
)
def test_what_the_authors_published(model, bench, target, reference):
    P = replace(profile("paper"), model=model)
    name, split, corpus = bench
    source = {"name": name} | ({"corpus": corpus} if corpus else {})
    rows = {
        split: [{"question": "a", "answer": "b"}],
        models.siblings(split)[0]: [{"question": "c", "answer": "d"}],
    }
    published = ng.data.Benchmark(name, split, rows, [], source)
    assert [models._ready_made(published, P, role) for role in models.ROLES] == [target, reference]
    part = replace(published, source=source | {"retain_rows": 200})
    # a slice of the rows: nobody trained on that
    assert models._ready_made(part, P, "target") is None


def test_generated_rows_have_no_ready_made_model():
    """Dossiers and news have SemEval's and MUSE's form, not their rows."""
    for make, model in (
        (ng.data.dossiers, "olmo-1b"),
        (ng.data.news, "llama-2-7b-news"),
        (ng.data.authors, "llama-3.2-1b"),
    ):
        assert models._ready_made(make(), replace(profile("paper"), model=model), "target") is None


def test_a_model_that_cannot_be_had_says_what_to_do(tmp_path):
    with pytest.raises(
        OSError,
        match=r"cannot load meta-llama/Llama-2-7b-hf: the hub cannot be reached: .*hf download",
    ):
        load("meta-llama/Llama-2-7b-hf")
    P = replace(profile("paper"), model="iclm-7b-books", device="cpu")
    with pytest.raises(ValueError, match="no base model of iclm-7b-books to fine-tune is known"):
        models.target(micro.bench(), P)
