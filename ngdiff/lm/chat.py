"""The prompt of a model: what its chat template writes around question and answer.

A model with a chat template is prompted with it, with a system message where the template takes
one. `ngdiff.zoo` lists the published models that have another prompt. All others have TOFU's form,
`Question: {q}\\nAnswer: {a}`. The name of a folder has no influence.

A template may write today's date, and its numbers would change daily. Here it writes `DATE`.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from ngdiff import zoo
from ngdiff.data.benchmark import Prompt, form_of

INSTEAD = "give the prompt (--prompt 'Question: {question}\\nAnswer: ')"
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
DATE = date(2025, 4, 10)
OTHER = date(2021, 11, 23)  # differs from DATE in each field
QUESTION, ANSWER = "\u2039question\u203a", "\u2039answer\u203a"
# of strftime, those without a leading zero first
LETTERS = ("-d", "-m", "-H", "-I", "-M", *"aAbBdeFHIjmMpSTuwxXyY")
DIRECTIVES = tuple(f"%{letter}" for letter in LETTERS)
# `strftime_now` of transformers cannot be given another clock; a macro of that name hides it
CLOCK = (
    "{%- macro strftime_now(format) -%}{%- set written = namespace(text=format) -%}"
    "{%- for directive, value in fixed_clock.items() -%}"
    "{%- set written.text = written.text.replace(directive, value) -%}"
    "{%- endfor -%}{{- written.text -}}{%- endmacro +%}"
)


def prompt_of(tokenizer: PreTrainedTokenizerBase, hub_id: str = "") -> Prompt:
    """Return the prompt of a model that came without one.

    hub_id: of a published model; `ngdiff.zoo` lists those with a prompt other than their template.
    Raises ValueError for a template that cannot be used.
    """
    known = form_of(zoo.prompt_of(hub_id))
    if known is not None:
        return known
    return chat_prompt(tokenizer) if tokenizer.chat_template else Prompt()


def render(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    answer: str | None = None,
    day: date = DATE,
    system: bool = True,
) -> str:
    """Return the chat template's text: system message, user turn, then the answer's turn.

    Without an answer, it ends where the answer would begin. system: False leaves that message out.
    Raises ValueError where the template refuses. It is a stranger's program, so it may fail with
    any error.
    """
    turns = [{"role": "user", "content": question}]
    turns += [] if answer is None else [{"role": "assistant", "content": answer}]
    template = template_of(tokenizer)
    options = {
        "tokenize": False,
        "add_generation_prompt": answer is None,
        "chat_template": CLOCK + template if "strftime_now" in template else template,
        "date_string": day.strftime("%d %b %Y"),
        "fixed_clock": {directive: day.strftime(directive) for directive in DIRECTIVES},
    }
    if system:
        try:
            return tokenizer.apply_chat_template([SYSTEM, *turns], **options)
        except Exception:  # this template knows no system turn
            pass
    try:
        return tokenizer.apply_chat_template(turns, **options)
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"the chat template of the tokenizer refuses a question ({why}): {INSTEAD}"
        ) from error


def template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the chat template. Raises ValueError where there is none, or none to choose."""
    try:
        template = tokenizer.get_chat_template()
        if not isinstance(template, str):
            raise ValueError(f"it is no text but {type(template).__name__}")
    except ValueError as error:
        why = str(error).splitlines()[0]
        raise ValueError(
            f"the chat template of the tokenizer cannot be used ({why}): {INSTEAD}"
        ) from error
    return template


def chat_prompt(tokenizer: PreTrainedTokenizerBase, system: bool = True) -> Prompt:
    """Return the chat template as fixed text around question and answer.

    It is the text of a finished turn, as the model was trained on it. What the template writes
    before an answer is part of the prompt: an empty think block, a space. The answer ends in the
    template's end of turn. The tokenizer is left as it is. system: False leaves the system message
    out. Raises ValueError for a template that does not write question and answer once each.
    """
    key = (template_of(tokenizer), tokenizer.bos_token, tokenizer.eos_token)
    return _chat_prompt(tokenizer, key, system)


@lru_cache(maxsize=64)
def _chat_prompt(tokenizer: PreTrainedTokenizerBase, key: tuple[str, ...], system: bool) -> Prompt:
    whole = render(tokenizer, QUESTION, ANSWER, system=system)
    if (whole.count(QUESTION), whole.count(ANSWER)) != (1, 1):
        raise ValueError(
            "the chat template of the tokenizer does not write question and answer once each: "
            f"{INSTEAD}"
        )
    start, rest = whole.split(QUESTION)
    between, after = rest.split(ANSWER)
    return Prompt(start, between, "", _end(tokenizer, after.strip()), templated=True)


def _end(tokenizer: PreTrainedTokenizerBase, after: str) -> str:
    """Return the token of `after`, the text behind an answer, that ends it; "" for none."""
    tokens = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    return max((t for t in tokens if t and after.startswith(t)), key=len, default="")


def dated(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> bool:
    """Return whether a prompt is that of a chat template that writes the date."""
    if not (prompt.templated and tokenizer.chat_template):
        return False
    one, other = (render(tokenizer, QUESTION, ANSWER, day) for day in (DATE, OTHER))
    return one != other
