"""What is labelled and what is generated from, under each convention, on tokenizers made for it."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ngdiff.data.benchmark import Prompt
from ngdiff.evaluation.conventions import CONVENTIONS
from ngdiff.evaluation.definition import unanswered
from ngdiff.lm.chat import chat_prompt, prompt_of
from ngdiff.lm.tokens import IGNORE

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Asked:
    """As much of an `LM` as its texts need."""

    def __init__(self, tokenizer, prompt, context=None):
        self.tokenizer, self.prompt, self.context = tokenizer, prompt, context

    def encode(self, question, answer):
        from ngdiff.lm.tokens import encode

        return encode(self.tokenizer, self.prompt, question, answer, self.context)


def words(*specials, bos=False) -> PreTrainedTokenizerFast:
    """Every letter is a token, and so is a space with the letter after it: spaces merge as in a BPE
    of words.
    """
    letters = [chr(i) for i in range(33, 127)]
    vocab = {
        t: i
        for i, t in enumerate(["<eos>", "<bos>", "Ġ", "Ċ", *letters, *(f"Ġ{c}" for c in letters)])
    }
    merges = [("Ġ", c) for c in letters]
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        ["<eos>", "<bos>", *(AddedToken(s, special=True) for s in specials)]
    )
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", bos_token="<bos>" if bos else None
    )


def labelled(tokenizer, example) -> list[str]:
    assert all(
        label in (IGNORE, token)
        for token, label in zip(example.input_ids, example.labels, strict=True)
    )
    return tokenizer.convert_ids_to_tokens([label for label in example.labels if label != IGNORE])


def truth(how, lm, question, answer) -> str:
    return how.truth(lm, answer, how.encode(lm, question, answer))


def cut_to(name, n):
    """A convention that looks at the first n tokens of a row."""
    return type("Cut", (type(CONVENTIONS[name]),), {"cut": n})()


@pytest.mark.parametrize("bos", [False, True])
def test_where_the_labels_of_a_plain_prompt_begin(bos):
    """ "Q: a\\nA: bc": the prompt's last space and the answer's first letter are one token."""
    lm = Asked(words(bos=bos), Prompt("Q: ", "\n", "A: "))
    got = {name: how.encode(lm, "a", "bc") for name, how in CONVENTIONS.items()}
    assert len({tuple(e.input_ids) for e in got.values()}) == 1, "the same text"
    assert labelled(lm.tokenizer, got["ngdiff"]) == ["Ġb", "c", "<eos>"]
    assert labelled(lm.tokenizer, got["tofu"]) == ["A", ":", "Ġb", "c", "<eos>"]
    # the prompt alone ends in a token "Ġ"
    assert labelled(lm.tokenizer, got["open-unlearning"]) == ["c", "<eos>"]
    given = {n: lm.tokenizer.convert_ids_to_tokens(row.given) for n, row in got.items()}
    assert given["open-unlearning"][-3:] == ["A", ":", "Ġ"] and given["ngdiff"][-2:] == ["A", ":"]
    assert given["tofu"][-2:] == ["Ġa", "Ċ"]  # its generation is not given the tag
    assert truth(CONVENTIONS["open-unlearning"], lm, "a", "bc") == "bc"


def test_an_answer_of_one_token_that_open_unlearning_does_not_label():
    lm = Asked(words(), Prompt("Q: ", "\n", "A: "))
    example = CONVENTIONS["open-unlearning"].encode(lm, "a", "b")
    assert labelled(lm.tokenizer, example) == ["<eos>"]


def test_llama_2_has_no_space_before_the_answer():
    """ "[INST] a [/INST]bc": nothing merges, and every convention labels the same tokens."""
    lm = Asked(words(), Prompt("[INST] ", " [/INST]", ""))
    got = [how.encode(lm, "a", "bc") for how in CONVENTIONS.values()]
    assert all(labelled(lm.tokenizer, e) == ["b", "c", "<eos>"] for e in got)


def test_a_chat_template_that_does_not_end_in_eos():
    """open-unlearning labels all that the template puts after the answer, then its EOS; ours ends
    at the end of turn.
    """
    tokenizer = words("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    tokenizer.chat_template = CHAT
    lm = Asked(tokenizer, prompt_of(tokenizer))
    assert lm.prompt == chat_prompt(tokenizer) and lm.prompt.answer_end == "<|end|>"
    assert tokenizer.eos_token == "<eos>" and tokenizer.pad_token is None, "left as it came"
    assert labelled(tokenizer, CONVENTIONS["ngdiff"].encode(lm, "a", "bc")) == ["b", "c", "<|end|>"]
    published = CONVENTIONS["open-unlearning"].encode(lm, "a", "bc")
    assert labelled(tokenizer, published) == ["b", "c", "<|end|>", "Ċ", "<eos>"]
    assert tokenizer.decode(published.input_ids).startswith(
        "<|system|>You are a helpful assistant.<|end|>\n<|user|>a"
    )
    assert truth(CONVENTIONS["open-unlearning"], lm, "a", " bc ") == "bc"  # the template trims


def test_a_chat_template_is_not_used_where_another_prompt_was_given():
    tokenizer = words("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    tokenizer.chat_template = CHAT
    lm = Asked(tokenizer, Prompt("Q: ", "\n", "A: "))
    got = CONVENTIONS["open-unlearning"].encode(lm, "a", "bc")
    assert tokenizer.decode(got.input_ids) == "Q: a\nA: bc<eos>"


@pytest.mark.parametrize("bos", [False, True])
def test_what_a_cut_leaves(bos):
    """ "Q: a\nA: bcd…": ten tokens of it (eleven with BOS, which counts)."""
    lm = Asked(words(bos=bos), Prompt("Q: ", "\n", "A: "))
    tofu, open_ = (cut_to(name, 10 + bos) for name in ("tofu", "open-unlearning"))
    whole = lm.encode("a", "bcdefgh")
    text = lm.tokenizer.decode(whole.input_ids, skip_special_tokens=True)
    assert text == "Q: a\nA: bcdefgh"
    got = tofu.encode(lm, "a", "bcdefgh")
    assert labelled(lm.tokenizer, got) == ["A", ":", "Ġb", "c", "d", "e"]
    assert got.input_ids == whole.input_ids[: 10 + bos]
    assert truth(tofu, lm, "a", "bcdefgh") == "bcde"
    got = open_.encode(lm, "a", "bcdefgh")
    assert labelled(lm.tokenizer, got) == ["c", "d", "e", "<eos>"]
    assert truth(open_, lm, "a", "bcdefgh") == "bcde"
    for short in ("bcd", "bc"):  # fits, its EOS too
        for how in (tofu, open_):
            assert how.encode(lm, "a", short) == cut_to(how.name, None).encode(lm, "a", short)
            assert truth(how, lm, "a", short) == short
    just = tofu.encode(lm, "a", "bcde")  # just as long: TOFU leaves no EOS
    assert labelled(lm.tokenizer, just)[-1] == "e"
    none = tofu.encode(lm, "a long question", "b")
    assert (
        unanswered(none) and len(none) == 10 + bos and truth(tofu, lm, "a long question", "b") == ""
    )
    assert labelled(lm.tokenizer, open_.encode(lm, "a long question", "b")) == ["<eos>"]


def test_what_a_cut_leaves_of_a_template():
    """The template's tag is of special tokens, which leave no text to look for it in."""
    tokenizer = words("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    tokenizer.chat_template = CHAT
    lm = Asked(tokenizer, prompt_of(tokenizer))
    n = len(lm.encode("a", "bcdefgh"))
    how = cut_to("tofu", n - 3)  # without "g", "h" and the end of turn
    row = how.encode(lm, "a", "bcdefgh")
    assert how.truth(lm, "bcdefgh", row) == "bcdef" == "".join(labelled(tokenizer, row))
    assert truth(cut_to("tofu", n), lm, "a", "bcdefgh") == "bcdefgh"
    assert truth(cut_to("tofu", len(row.given) - 1), lm, "a", "bcdefgh") == ""


def test_a_tokenizer_without_the_token_that_ends_an_answer_is_refused():
    tokenizer = words()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"no EOS token: give the model's own \(--tokenizer\)"):
        Asked(tokenizer, Prompt()).encode("a", "b")
    other = Prompt("Q: ", "\n", "A: ", answer_end="<|im_end|>")
    with pytest.raises(ValueError, match=r"no token '<\|im_end\|>', which ends an answer"):
        Asked(words(), other).encode("a", "b")


def test_a_cut_row_fits_a_context_that_the_whole_row_does_not():
    lm = Asked(words(), Prompt("[INST] ", " [/INST]", ""), context=20)
    row = cut_to("tofu", 18).encode(lm, "a", "bcdefghijkl")
    assert lm.tokenizer.decode(row.given) == "[INST] a [/INST]"
    assert row.prompt_ids == row.given


def test_a_template_that_brings_its_own_bos_has_it_once_under_each_convention():
    tokenizer = words("<|user|>", bos=True)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"
    )
    lm = Asked(tokenizer, chat_prompt(tokenizer))
    for how in CONVENTIONS.values():
        example = how.encode(lm, "a", "bc")
        assert example.input_ids.count(tokenizer.bos_token_id) == 1, how.name
        assert example.given == example.prompt_ids, how.name
        whole = how.name == "open-unlearning" or labelled(tokenizer, example)[:2] == ["b", "c"]
        assert whole, how.name


def test_a_document_has_no_eos_under_open_unlearning():
    lm = Asked(words(), Prompt("Q: ", "\n", "A: "), context=4)
    how = CONVENTIONS["open-unlearning"]
    assert labelled(lm.tokenizer, how.encode(lm, "", "abc")) == ["b", "c"]
    with pytest.raises(ValueError, match=r"text 'abcde' is 5 tokens long"):
        how.encode(lm, "", "abcde")


def test_too_long_a_row_is_refused_under_each_convention():
    lm = Asked(words(), Prompt("Q: ", "\n", "A: "), context=6)
    for how in CONVENTIONS.values():
        with pytest.raises(ValueError, match="tokens long"):
            how.encode(lm, "a", "bcdef")


def test_a_padding_token_that_is_eos_hides_it_under_open_unlearning_alone():
    """A template with EOS in the prompt, a tokenizer without a padding token: its collator masks
    every EOS. The likelihoods are those of a plain forward with that mask, positions counted as
    they stand."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ngdiff.evaluation import forward

    tokenizer = words("<|user|>")
    tokenizer.chat_template = "{% for m in messages %}<|user|>{{ m['content'] }}<eos>{% endfor %}"
    lm = Asked(tokenizer, prompt_of(tokenizer))
    how = CONVENTIONS["open-unlearning"]
    assert how.hidden(lm) == 0 and CONVENTIONS["ngdiff"].hidden(lm) is None
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).eval()
    model.lm_head.weight.data.mul_(20)
    rows = (("a", "bc"), ("a", "bcd"), ("longer", "x y z"))
    examples = [how.encode(lm, question, answer) for question, answer in rows]
    found = forward.likelihood(model, examples, blind=0)
    for example, stats in zip(examples, found, strict=True):
        ids = torch.tensor([example.input_ids])
        assert 0 in example.prompt_ids
        with torch.no_grad():
            logp = model(ids, attention_mask=(ids != 0).long()).logits[0].log_softmax(-1)
        at = [t for t, label in enumerate(example.labels) if label != IGNORE]
        assert stats.logp == pytest.approx([logp[t - 1, ids[0, t]].item() for t in at], abs=1e-5)
    apart = [
        abs(a.logp - b.logp).max()
        for a, b in zip(found, forward.likelihood(model, examples), strict=True)
    ]
    assert min(apart) > 1e-4  # it matters


def test_names_are_what_the_command_line_takes():
    assert json.dumps([*CONVENTIONS]) == '["ngdiff", "tofu", "open-unlearning", "muse", "semeval"]'
