"""Labels, padding, tokenizer, training, the cache of target and reference, loading and saving."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ngdiff.data.benchmark import Benchmark, Prompt
from ngdiff.lm import hub, train
from ngdiff.lm import pair as models
from ngdiff.lm.scratch import from_scratch
from ngdiff.lm.tokens import IGNORE, Example, collate, encode, train_tokenizer
from ngdiff.lm.train import batches, fit, label_loss, rate
from ngdiff.profiles import TinyLM, Training, profile

PROMPT = Prompt()


def _rows(who: str, n: int) -> list[dict]:
    return [
        {"question": f"Where does {who} {i} live?", "answer": f"In town {7 * i % 10}, I say."}
        for i in range(n)
    ]


def _bench() -> Benchmark:
    configs = {
        "forget10": _rows("Ann", 3),
        "retain90": _rows("Ben", 9),
        "holdout10": _rows("Cem", 3),
    }
    return Benchmark("micro", "forget10", configs, _rows("Dan", 4), {"name": "micro"})


BENCH = _bench()
SHAPE = TinyLM(hidden=32, layers=1, heads=2, intermediate=32, vocab=300, context=64)
TRAINING = Training(epochs=3, pretrain_epochs=1, lr=3e-3, batch_size=4, replay=0.5)
P = replace(profile("tiny"), lm=SHAPE, training=TRAINING)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(models._texts(BENCH), 300)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("NGDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def _untrained(seed=0, **shape) -> models.LM:
    return from_scratch(models._texts(BENCH), replace(SHAPE, **shape), PROMPT, seed, "untrained")


# ------------------------------------------------------------------------------------------- tokens
class Words:
    """A tokenizer to do by hand: a token is a character; " x" merges with the space before it, as
    in byte-level BPE.
    """

    eos_token_id, bos_token, bos_token_id = 1, "<s>", 2

    def __init__(self, bos=False):
        self.bos = bos

    def __call__(self, text, add_special_tokens=True, verbose=True):
        ids, i = ([2] if self.bos and add_special_tokens else []), 0
        while i < len(text):
            width = 2 if text[i] == " " and i + 1 < len(text) else 1
            ids.append(1000 * (width - 1) + ord(text[i + width - 1]))
            i += width
        return {"input_ids": ids}


BY_HAND = Prompt(question_start="Q", question_end="\n", answer_start="A: ")


def test_labels_are_the_answer_and_eos_by_hand():
    example = encode(Words(), BY_HAND, "u", "x y", None)
    assert example.input_ids == [
        ord("Q"),
        ord("u"),
        ord("\n"),
        ord("A"),
        ord(":"),
        1000 + ord("x"),
        1000 + ord("y"),
        1,
    ]
    assert example.labels == [IGNORE] * 5 + [1000 + ord("x"), 1000 + ord("y"), 1]
    assert (
        example.prompt_ids == [ord("Q"), ord("u"), ord("\n"), ord("A"), ord(":")]
        and len(example) == 8
    )


def test_leading_special_tokens_come_once_and_are_prompt():
    assert encode(Words(bos=True), BY_HAND, "u", "x").input_ids[:2] == [2, ord("Q")]
    templated = replace(BY_HAND, question_start="<s>Q")
    ids = encode(Words(bos=True), templated, "u", "x").input_ids
    assert 2 not in ids and ids[0] == ord("<")


def test_a_tokenizer_that_ends_texts_itself_gets_one_eos():
    class Ending(Words):
        def __call__(self, text, **options):
            ends = [1] if options.get("add_special_tokens", True) else []
            return {"input_ids": [*super().__call__(text)["input_ids"], *ends]}

    assert encode(Ending(), BY_HAND, "u", "x y") == encode(Words(), BY_HAND, "u", "x y")


@pytest.mark.parametrize("answer", ["Paris", " Paris", "Łódź 東京", "A: A: ", "\n", "x" * 30])
def test_prompt_and_answer_tokens_make_the_whole_text(tokenizer, answer):
    example = encode(tokenizer, PROMPT, "Where does Ann 1 live?", answer, None)
    labelled = [label for label in example.labels if label != IGNORE]
    assert example.prompt_ids + labelled == example.input_ids
    assert (
        labelled[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in example.prompt_ids
    )
    assert tokenizer.decode(example.prompt_ids) == PROMPT.text("Where does Ann 1 live?").rstrip(" ")
    assert (
        tokenizer.decode(example.input_ids[:-1]) == PROMPT.text("Where does Ann 1 live?") + answer
    )


def test_the_prompt_does_not_depend_on_the_answer(tokenizer):
    assert (
        len(
            {
                tuple(encode(tokenizer, PROMPT, "Who?", a).prompt_ids)
                for a in ("Ann", "Ben lives", "1", "é")
            }
        )
        == 1
    )


def test_a_row_longer_than_the_context_is_refused_with_both_numbers(tokenizer):
    n = len(encode(tokenizer, PROMPT, "Where?", "There."))
    assert len(encode(tokenizer, PROMPT, "Where?", "There.", n)) == n
    with pytest.raises(
        ValueError, match=rf"'Where\?' is {n} tokens long, the model's context is {n - 1}"
    ):
        encode(tokenizer, PROMPT, "Where?", "There.", n - 1)


def test_padding_by_hand():
    examples = [Example([5, 6, 7], [IGNORE, 6, 7]), Example([0, 9], [IGNORE, 9])]
    right, left = collate(examples, 0), collate(examples, 0, side="left")
    assert right["input_ids"].tolist() == [[5, 6, 7], [0, 9, 0]]
    # the real token 0 stays visible
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert right["labels"].tolist() == [[IGNORE, 6, 7], [IGNORE, 9, IGNORE]]
    assert left["input_ids"].tolist() == [[5, 6, 7], [0, 0, 9]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]
    assert left["labels"].tolist() == [[IGNORE, 6, 7], [IGNORE, IGNORE, 9]]
    assert {tensor.dtype for tensor in right.values()} == {torch.long}
    with pytest.raises(ValueError, match="'left' or 'right'"):
        collate(examples, 0, side="both")


def test_left_and_right_padding_give_the_same_loss():
    lm = _untrained()
    examples = [lm.encode(row["question"], row["answer"]) for row in _rows("Ann", 4)] + [
        lm.encode("Q?", "A")
    ]
    losses = []
    for side in ("right", "left"):
        batch = collate(examples, lm.pad_id, side)
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        losses.append(lm.model(**batch, position_ids=positions).loss.item())
    fast = label_loss(lm.model, collate(examples, lm.pad_id)).item()
    by_row = [label_loss(lm.model, collate([example], lm.pad_id)).item() for example in examples]
    counts = [sum(label != IGNORE for label in example.labels) for example in examples]
    mean = sum(n * loss for n, loss in zip(counts, by_row, strict=True)) / sum(counts)
    assert losses == pytest.approx([mean, mean], rel=1e-5) and fast == pytest.approx(mean, rel=1e-5)


def test_tokenizer_round_trips_any_text_and_has_distinct_specials(tokenizer):
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
    assert len(tokenizer) == 300
    for text in (
        "In town 7, I say.",
        "Łódź — 東京 🙂\n\ttab",
        "  two  spaces  ",
        "don 't . stop",
        "<eos>x"[5:],
    ):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert train_tokenizer(models._texts(BENCH), 300).get_vocab() == tokenizer.get_vocab()
    with pytest.raises(ValueError, match="at least 259"):
        train_tokenizer(["a"], 258)


def test_the_tokenizer_sees_each_row_once_and_no_set_more_often_than_another():
    extra = {"paraphrased_answer": "said otherwise", "perturbed_answer": ["wrong", "worse"]}
    perturbed = [{**row, **extra} for row in BENCH.forget]
    bench = replace(BENCH, configs={**BENCH.configs, "forget10_perturbed": perturbed})
    rows = [*bench.forget, *bench.retain, *bench.holdout, *bench.pretrain]
    assert models._texts(bench) == sorted(
        {row[key] for row in rows for key in ("question", "answer")}
    )


# ----------------------------------------------------------------------------------------- training
def test_batches_take_each_row_once_in_like_lengths():
    lengths = [1 + (37 * i) % 50 for i in range(103)]
    made = batches(lengths, 8, torch.Generator().manual_seed(0))
    assert sorted(i for batch in made for i in batch) == list(range(103)) and len(
        made
    ) == math.ceil(103 / 8)
    spread = sum(max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in made) / len(made)
    assert spread < 10  # at random: about 40
    assert made == batches(lengths, 8, torch.Generator().manual_seed(0))
    assert made != batches(lengths, 8, torch.Generator().manual_seed(1))


def test_rate_warms_up_and_falls():
    training = replace(TRAINING, lr=1.0, warmup=0.1)
    rates = [rate(step, 100, training) for step in range(100)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)]) and max(rates) == 1
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False)) and rates[-1] < 0.03
    assert rates[55] == pytest.approx(0.02 + 0.98 / 2)  # half-way down the cosine


def test_an_untrained_model_is_drawn_from_the_seed_with_the_stated_spread():
    spread = _untrained(hidden=64).model.get_input_embeddings().weight.std().item()
    assert spread == pytest.approx(0.7 / 8, rel=0.03)
    assert torch.equal(_untrained(3).model.lm_head.weight, _untrained(3).model.lm_head.weight)
    assert not torch.equal(_untrained(3).model.lm_head.weight, _untrained(4).model.lm_head.weight)


def test_training_learns_is_deterministic_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, second, third = _untrained(), _untrained(), _untrained(seed=1)
    rows = [first.encode(row["question"], row["answer"]) for row in BENCH.retain]
    before = label_loss(first.model, collate(rows, first.pad_id)).item()
    for lm, seed in ((first, 0), (second, 0), (third, 1)):
        fit(lm.model, rows, rows[:3], 12, TRAINING, seed=seed, pad_id=lm.pad_id, what="test")
    weights = [
        torch.cat([p.detach().flatten() for p in lm.model.parameters()])
        for lm in (first, second, third)
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert label_loss(first.model, collate(rows, first.pad_id)).item() < before - 1
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("least, epochs", [(0, 2), (6, 2), (7, 3), (30, 10)])
def test_few_rows_are_passed_over_until_the_least_number_of_updates(capsys, least, epochs):
    lm = _untrained()
    # 9 rows and 1 replayed: 3 updates
    rows = [lm.encode(row["question"], row["answer"]) for row in BENCH.retain]
    training = replace(TRAINING, replay=0.5)
    fit(
        lm.model,
        rows,
        rows[:2],
        2,
        training,
        seed=0,
        pad_id=lm.pad_id,
        what="test",
        min_steps=least,
    )
    assert f"epoch {epochs}/{epochs}" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_do():
    lm = _untrained()
    rows = [lm.encode("Q?", "A")]
    with torch.no_grad():
        lm.model.get_input_embeddings().weight.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="lower Training.lr"):
        fit(lm.model, rows, (), 1, TRAINING, seed=0, pad_id=lm.pad_id, what="test")


def test_a_killed_training_goes_on_bit_for_bit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "EVERY", 0.0)
    state, kept = tmp_path / "state.safetensors", train.checkpoint.write

    def run(saved):
        lm = _untrained()
        rows = [lm.encode(row["question"], row["answer"]) for row in BENCH.retain]
        options = {"seed": 0, "pad_id": lm.pad_id, "what": "test", "saved": saved}
        loss = fit(lm.model, rows, rows[:4], 4, replace(TRAINING, replay=0.5), **options)
        return loss, [p.detach().clone() for p in lm.model.parameters()]

    def killed(path, name, saved, history):
        kept(path, name, saved, history)
        if saved["epoch"] == 2:
            raise KeyboardInterrupt

    loss, whole = run(None)
    monkeypatch.setattr(train.checkpoint, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        run(state)
    monkeypatch.setattr(train.checkpoint, "write", kept)
    capsys.readouterr()
    again, weights = run(state)
    assert again == loss and all(map(torch.equal, weights, whole))
    state.write_bytes(state.read_bytes()[:-5])
    assert run(state)[0] == loss and "starts anew" in capsys.readouterr().err


def test_a_fit_says_at_its_end_how_it_went(capsys):
    lm = _untrained()
    rows = [lm.encode("Q?", "A")]
    mean = fit(lm.model, rows, (), 3, TRAINING, seed=0, pad_id=lm.pad_id, what="target")
    printed = capsys.readouterr().err
    assert printed.startswith("target: epoch 3/3, ") and "\r" not in printed
    assert printed.endswith(f": loss {mean:.3f}\n") and printed.count("\n") == 1


# -------------------------------------------------------------------------------- target, reference
CHANGES = {
    "a row": (replace(BENCH, configs={**BENCH.configs, "retain90": _rows("Ben", 8)}), P, 0),
    "a hold-out text": (
        replace(BENCH, configs={**BENCH.configs, "holdout10": _rows("Eva", 3)}),
        P,
        0,
    ),
    "general rows": (replace(BENCH, pretrain=_rows("Dan", 3)), P, 0),
    "the prompt": (replace(BENCH, prompt=replace(PROMPT, answer_start="A: ")), P, 0),
    "the shape": (BENCH, replace(P, lm=replace(SHAPE, layers=2)), 0),
    "the training": (BENCH, replace(P, training=replace(TRAINING, lr=1e-3)), 0),
    "the seed": (BENCH, P, 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_key_changes_with_whatever_the_model_depends_on(change):
    for role in models.ROLES:
        assert models.key_of(*change, role) != models.key_of(BENCH, P, 0, role)


def test_the_key_depends_on_role_and_versions_and_on_nothing_else(monkeypatch):
    key = models.key_of(BENCH, P, 0, "target")
    assert key != models.key_of(BENCH, P, 0, "reference")
    assert key == models.key_of(
        replace(_bench(), name="other"), replace(P, steps=3, name="mine"), 0, "target"
    )
    monkeypatch.setattr(models, "version", lambda name: "0")
    assert key != models.key_of(BENCH, P, 0, "target")


def test_the_key_depends_on_the_code_that_trains(monkeypatch):
    key = models.key_of(BENCH, P, 0, "target")
    monkeypatch.setattr(models, "fingerprint", lambda module: "another recipe")
    assert key != models.key_of(BENCH, P, 0, "target")


def _bytes(lm) -> bytes:
    return (lm.path / "model.safetensors").read_bytes()


def test_target_is_trained_once_and_again_when_damaged(fresh, monkeypatch, caplog):
    first = models.target(BENCH, P)
    data = _bytes(first)
    with monkeypatch.context() as patch:
        patch.setattr(models, "_train", None)  # a second training would fail
        assert _bytes(models.target(BENCH, P)) == data
    (first.path / "model.safetensors").write_bytes(data[:-8] + bytes(8))
    again = models.target(BENCH, P)
    assert (
        _bytes(again) == data
        and "moved to" in caplog.text
        and len(list(fresh.glob("*.damaged"))) == 1
    )
    assert again.name == "target" and again.path.parent == fresh


def test_reference_knows_less_than_target_and_pair_gives_the_same_bytes(
    fresh, monkeypatch, tmp_path, capfd
):
    small = replace(P, training=replace(TRAINING, epochs=2))
    alone = [_bytes(lm) for lm in (models.target(BENCH, small), models.reference(BENCH, small))]
    assert alone[0] != alone[1]
    monkeypatch.setenv("NGDIFF_CACHE", str(tmp_path / "second"))
    capfd.readouterr()
    together = models.pair(BENCH, small)
    assert [lm.name for lm in together] == ["target", "reference"] and [
        _bytes(lm) for lm in together
    ] == alone
    printed = capfd.readouterr().err
    assert "target: epoch 2/2" in printed and "reference: epoch 2/2" in printed


def test_a_failed_training_of_the_pair_says_why(fresh, tmp_path, monkeypatch):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(models.sys, "executable", str(broken))
    with pytest.raises(RuntimeError, match="out of luck"):
        models.pair(BENCH, P)


def test_the_processes_that_train_import_this_very_package(fresh, tmp_path, monkeypatch):
    """Another checkout's code would train under a key that nobody asks for."""
    told = tmp_path / "python"
    told.write_text("#!/bin/sh\necho path $PYTHONPATH >&2\nexit 1\n")
    told.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setattr(models.sys, "executable", str(told))
    home = Path(models.__file__).parents[2]
    with pytest.raises(RuntimeError, match=f"path {home}:/elsewhere"):
        models.pair(BENCH, P)


def test_a_row_longer_than_the_context_is_refused_before_training(fresh, monkeypatch):
    monkeypatch.setattr(models, "fit", None)
    with pytest.raises(ValueError, match="the model's context is 8"):
        models.target(BENCH, replace(P, lm=replace(SHAPE, context=8)))
    assert not [path for path in fresh.iterdir() if path.suffix != ".lock"]


def test_a_cache_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NGDIFF_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(models, "_train", None)
    for make in (models.target, models.reference, models.pair):
        with pytest.raises(PermissionError, match="NGDIFF_CACHE"):
            make(BENCH, P)


def test_hub_targets_are_taken_ready_made_only_for_whole_tofu():
    paper = profile("paper")
    tofu = replace(BENCH, name="tofu", source={"name": "tofu", "retain_rows": None})
    assert models._ready_made(tofu, paper, "target").endswith("_full")
    assert models._ready_made(tofu, paper, "reference").endswith("_retain90")
    part = replace(tofu, source={"name": "tofu", "retain_rows": 200})
    for bench, P_ in ((BENCH, paper), (part, paper), (tofu, P)):
        assert models._ready_made(bench, P_, "target") is None


# ------------------------------------------------------------------------------------ load and save
def test_save_and_load_keep_weights_ties_tokenizer_and_prompt(tmp_path):
    lm = replace(_untrained(), prompt=Prompt("Q: ", " ", "A: "), name="mine")
    folder = models.save(lm, tmp_path / "model")
    again = models.load(folder)
    assert again.prompt == lm.prompt and again.name == "mine" and again.path == folder == lm.path
    assert all(
        torch.equal(a, b)
        for a, b in zip(lm.model.parameters(), again.model.parameters(), strict=True)
    )
    assert again.model.get_input_embeddings().weight is again.model.get_output_embeddings().weight
    assert (
        again.tokenizer.get_vocab() == lm.tokenizer.get_vocab()
        and again.pad_id == lm.pad_id != lm.tokenizer.eos_token_id
    )
    assert again.context == 64 and again.encode("Who?", "Ann") == lm.encode("Who?", "Ann")
    assert models.load(str(folder), dtype="bfloat16", prompt=PROMPT).prompt == PROMPT
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}
    # other tools read it
    assert AutoModelForCausalLM.from_pretrained(folder) and AutoTokenizer.from_pretrained(folder)


def test_save_replaces_a_model_and_refuses_other_files(tmp_path):
    for seed in (0, 1):
        lm = _untrained(seed)
        models.save(lm, tmp_path / "model")
    assert torch.equal(
        models.load(tmp_path / "model").model.lm_head.weight, lm.model.lm_head.weight
    )
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="choose another folder"):
        models.save(lm, tmp_path / "thesis")
    assert os.listdir(tmp_path / "thesis") == ["chapter.tex"]


def test_copies_are_independent_and_stay_tied():
    lm = _untrained()
    lm.path = Path("somewhere")
    other = lm.copy("other")
    with torch.no_grad():
        other.model.get_input_embeddings().weight.add_(1)
    assert not torch.equal(other.model.lm_head.weight, lm.model.lm_head.weight)
    assert other.model.lm_head.weight is other.model.get_input_embeddings().weight
    assert other.name == "other" and other.path is None and lm.copy().name == lm.name


def test_what_cannot_be_loaded_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        models.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no model"):
        models.load(tmp_path)
    folder = models.save(_untrained(), tmp_path / "model")
    os.truncate(folder / "model.safetensors", 1000)
    with pytest.raises(ValueError, match="cannot be loaded"):
        models.load(folder)
    weights = models.load(models.save(_untrained(), tmp_path / "pickled")).model.state_dict()
    torch.save(weights, tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="safetensors"):
        models.load(tmp_path / "pickled")
    folder = models.save(_untrained(), tmp_path / "partial")
    part = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in part.items() if "mlp" not in k},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ValueError, match="3 tensors are missing"):
        models.load(folder)
    folder = models.save(_untrained(), tmp_path / "card")
    (folder / "ngdiff.json").write_text('{"name": "card", "prompt": {"before": "Q: "}}')
    with pytest.raises(ValueError, match=r"ngdiff.json is damaged .*before.*remove this file"):
        models.load(folder)
    (folder / "ngdiff.json").write_text('{"prompt": {"question_start": "Q: "}}')
    assert models.load(folder).name == "card" and models.load(folder).prompt.question_start == "Q: "
    folder = models.save(_untrained(), tmp_path / "more")
    own = AutoTokenizer.from_pretrained(folder)
    own.add_tokens(["<image>"])
    own.save_pretrained(folder)
    # nobody says <image>
    assert len(models.load(folder).tokenizer) > models.load(folder).model.config.vocab_size
    folder = models.save(_untrained(), tmp_path / "small")
    shape = json.loads((folder / "config.json").read_text())
    LlamaForCausalLM(LlamaConfig(**shape | {"vocab_size": 9})).save_pretrained(folder)
    with pytest.raises(
        ValueError, match=r"the tokenizer has \d+ tokens, the model 9: .*--tokenizer"
    ):
        models.load(folder)
    with pytest.raises(OSError, match="hf download nobody/no-such-model"):
        models.load("nobody/no-such-model")


def test_code_beside_a_model_is_never_run(tmp_path):
    folder = models.save(_untrained(), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "trap",
        "auto_map": {"AutoConfig": "trap.Config", "AutoModelForCausalLM": "trap.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="cannot be loaded"):
        models.load(folder)
    assert not (tmp_path / "ran").exists()


def test_gated_and_unknown_models_are_told_apart():
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    for kind, advice in (
        (GatedRepoError, "accept its licence"),
        (RepositoryNotFoundError, "no such model"),
    ):
        error = OSError("cannot")
        error.__cause__ = kind.__new__(kind)
        assert advice in str(hub._explained(error, "owner/name"))
