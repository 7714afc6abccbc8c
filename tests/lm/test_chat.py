"""The prompt of a model: from its chat template, never from a name, and the same on every day."""

from __future__ import annotations

from datetime import datetime

import pytest
import transformers.utils.chat_template_utils as rendering

from ngdiff import zoo
from ngdiff.data.benchmark import Prompt
from ngdiff.lm import chat
from ngdiff.lm.tokens import encode, train_tokenizer
from tests.helpers import micro

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>\n{% "
    "endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
DATED = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}" + TEMPLATE
CLOCK = "{{ strftime_now('%-d %B %Y, %A %Y-%m-%d') }}" + TEMPLATE
THINK = TEMPLATE.replace(
    "{{ m.content | trim }}",
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content | trim }}",
)


def tokenizer(template: str = TEMPLATE):
    made = train_tokenizer(["a b"], 300)
    made.add_special_tokens(
        {"additional_special_tokens": ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]}
    )
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    "template, start",
    [
        (TEMPLATE, "<|system|>You are"),
        (NO_SYSTEM, "<|user|>"),
        (DATED, "10 Apr 2025"),
        (CLOCK, "10 April 2025, Thursday 2025-04-10"),
    ],
)
def test_a_chat_template_becomes_fixed_text_and_the_tokenizer_stays_as_it_came(template, start):
    own = tokenizer(template)
    own.pad_token = own.eos_token
    prompt = chat.prompt_of(own)
    opening = prompt.question_start.replace("<bos>", "")
    assert opening.startswith(start) and opening.endswith("<|user|>")
    assert prompt.text("Who?").endswith("<|user|>Who?<|end|>\n<|assistant|>")
    assert (own.eos_token, own.pad_token) == ("<eos>", "<eos>") and prompt.answer_end == "<|end|>"
    ids = encode(own, prompt, "Who?", "Ann").input_ids
    assert ids.count(own.bos_token_id) == 1 and ids[-1] == own.convert_tokens_to_ids("<|end|>")


@pytest.mark.parametrize("template", [DATED, CLOCK])
def test_a_template_that_writes_the_date_says_so_and_gives_the_same_every_day(
    template, monkeypatch
):
    class Tomorrow(datetime):
        @classmethod
        def now(cls):
            return datetime(2031, 7, 3)

    today = chat.chat_prompt(tokenizer(template))
    monkeypatch.setattr(rendering, "datetime", Tomorrow)
    assert chat.chat_prompt(tokenizer(template)) == today
    assert chat.dated(tokenizer(template), today)
    plain = tokenizer()
    assert not chat.dated(plain, chat.chat_prompt(plain)) and not chat.dated(plain, Prompt())


def test_what_a_template_writes_before_an_answer_belongs_to_the_prompt():
    """Qwen3's empty think block and Mistral's space stand before every answer it was trained on."""
    assert (
        chat.chat_prompt(tokenizer(THINK))
        .text("Who?")
        .endswith("<|assistant|><think>\n\n</think>\n\n")
    )
    mistral = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} "
        "[/INST]{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% else %}"
        "{{ raise_exception('no system') }}{% endif %}{% endfor %}"
    )
    own = tokenizer(mistral)
    assert chat.chat_prompt(own) == Prompt("<bos>[INST] ", " [/INST] ", "", "<eos>", True)
    assert encode(own, chat.chat_prompt(own), "a", "b").input_ids == [
        own.bos_token_id,
        *own("[INST] a [/INST] b", add_special_tokens=False)["input_ids"],
        own.eos_token_id,
    ]


def test_no_bos_but_the_templates_own():
    """A tokenizer that puts BOS before every text puts none before a template's."""
    from tests.evaluation.test_texts import words

    own = words("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", bos=True)
    own.chat_template = TEMPLATE.removeprefix("{{ bos_token }}")
    ids = encode(own, chat.chat_prompt(own), "a", "b").input_ids
    assert own.bos_token_id not in ids and own("a")["input_ids"][0] == own.bos_token_id
    turns = [chat.SYSTEM, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    theirs = own.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert ids == theirs[: len(ids)]


def test_names_of_folders_say_nothing_and_the_table_knows_its_published_models():
    own, plain = tokenizer(), train_tokenizer(["a b"], 300)
    assert chat.prompt_of(own, "me/llama-2-7b-mine") == chat.chat_prompt(own)
    assert chat.prompt_of(plain, "me/llama2") == Prompt() == chat.prompt_of(plain)
    for known in ("locuslab/tofu_ft_llama2-7b", "meta-llama/Llama-2-7b-chat-hf"):
        assert chat.prompt_of(own, known) == Prompt("[INST] ", " [/INST]", "")
    assert zoo.prompt_of("microsoft/phi-1_5") == zoo.prompt_of("") == ""


def test_templates_that_cannot_be_asked_say_what_to_give():
    with pytest.raises(ValueError, match="refuses a question .*tools only.*--prompt"):
        chat.prompt_of(tokenizer("{{ raise_exception('tools only') }}"))
    with pytest.raises(ValueError, match=r"once each: give the prompt \(--prompt"):
        chat.prompt_of(tokenizer(TEMPLATE + TEMPLATE))


def test_a_prompt_without_a_template_has_the_fingerprint_it_had():
    """Later fields of a prompt enter a benchmark's fingerprint only where they say something."""
    assert Prompt().content() == {
        "question_start": "Question: ",
        "question_end": "\n",
        "answer_start": "Answer: ",
    }
    assert micro.bench().fingerprint.startswith("38dd3ad910fcb716")


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{{ messages + 1 }}",
        "{% import 'os' as o %}",
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{{" + "(" * 3000 + "1" + ")" * 3000 + "}}",
        "{% for m in messages %}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        {"tool": TEMPLATE},
        5,
    ],
)
def test_a_template_that_fails_in_any_way_asks_for_a_prompt(template):
    own = tokenizer(template)
    with pytest.raises(ValueError, match=r"(refuses a question|cannot be used) \(.*--prompt"):
        chat.prompt_of(own)
