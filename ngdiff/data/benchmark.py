"""A benchmark: named sets of question/answer rows, and how a question becomes text.

One noun for every data set: TOFU's config names point to rows, a row is a plain dict. The
rows for training, forgetting and evaluation are all read from here. A hash of the rows' content
(`fingerprint`) is the cache key of everything that is made of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    r"""How a question becomes text: question_start + question + question_end + answer_start, then
    the answer.

    The default is TOFU's form for models without a chat template: "Question: {q}\nAnswer: {a}".

    answer_end   the token that ends an answer; "" is the tokenizer's EOS
    templated    it is a chat template's text: it brings its special tokens, BOS among them
    """

    question_start: str = "Question: "
    question_end: str = "\n"
    answer_start: str = "Answer: "
    answer_end: str = ""
    templated: bool = False

    def content(self) -> dict[str, Any]:
        """Return the fields as JSON, the last two where they say something."""
        return {k: v for k, v in asdict(self).items() if v or k not in ("answer_end", "templated")}

    def text(self, question: str) -> str:
        """The text before the answer."""
        return f"{self.question_start}{question}{self.question_end}{self.answer_start}"


BARE = Prompt("", "", "")  # of a document: a row without a question


def form_of(text: str) -> Prompt | None:
    r"""Return the prompt that a text with {question} in it describes. The last line after the
    question is the answer tag, such as "Answer: " in "Question: {question}\nAnswer: ". What follows
    in the question's own line ends the question. "" is None.

    Error: ValueError for a text that has {question} not just once.
    """
    if not text:
        return None
    if text.count("{question}") != 1:
        raise ValueError(
            f"--prompt needs {{question}} once, such as 'Question: {{question}}\\nAnswer: '; got "
            f"{text!r}"
        )
    start, rest = text.replace("\\n", "\n").split("{question}")
    cut = rest.rfind("\n") + 1 or len(rest)
    return Prompt(start, rest[:cut], rest[cut:])


def siblings(split: str) -> tuple[str, str]:
    """The retain and holdout configs of a forget split: forget05 -> (retain95, holdout05).

    A split called plainly "forget" belongs to "retain" and "holdout". ValueError for any other
    name.
    """
    if split == "forget":
        return "retain", "holdout"
    match = re.fullmatch(r"forget(\d\d)", split)
    if match is None:
        raise ValueError(
            f"unknown split {split!r}; splits are named forget01, forget05, forget10, … or forget"
        )
    share = match.group(1)
    return f"retain{100 - int(share):02d}", f"holdout{share}"


@dataclass(frozen=True)
class Benchmark:
    """Rows of a benchmark under one forget split.

    name      "authors", "tofu", …
    split     the forget split, e.g. "forget10"
    configs   config name -> rows; needs the split and its retain config, the rest is read when
              used
    pretrain  question/answer rows of the phase before fine-tuning (general knowledge)
    source    JSON-able recipe that `data.load` turns back into this benchmark
    prompt    how a question becomes text
    places    config name -> where each row was read ("FILE, line 3"), for messages; it may lack any

    Raises ValueError, naming config and row, for an empty forget or retain set, a row without
    `question` or `answer`, a perturbed row without wrong answers (or paraphrase), and forget
    questions that are retained or pre-trained too. Rows without a question (plain documents) are
    compared by their answer.
    """

    name: str
    split: str
    configs: Mapping[str, list[Row]] = field(repr=False)
    pretrain: list[Row] = field(repr=False)
    source: dict[str, Any]
    prompt: Prompt = Prompt()
    places: Mapping[str, list[str]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        retain, _ = siblings(self.split)
        for config in (self.split, retain):
            if not self.configs.get(config):
                raise ValueError(
                    f"{self.name}: config {config!r} is empty or missing; "
                    "unlearning needs at least one row to forget and one to retain (configs "
                    f"given: {', '.join(self.configs) or 'none'})"
                )
        for config, rows in [*self.configs.items(), ("pretrain", self.pretrain)]:
            paraphrased = config in (f"{self.split}_perturbed", "retain_perturbed")
            texts = (
                ("question", "answer", "paraphrased_answer")
                if paraphrased
                else ("question", "answer")
            )
            _check_rows(
                f"{self.name}: {config}", rows, texts, perturbed=config.endswith("_perturbed")
            )
        _check_disjoint(self.name, self.split, self.forget, retain, self.retain)
        _check_disjoint(self.name, self.split, self.forget, "pretrain", self.pretrain)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def rows(self, config: str) -> list[Row]:
        """The rows of one config; KeyError names the ones there are."""
        if config not in self.configs:
            raise KeyError(
                f"{self.name} has no config {config!r}; it has {', '.join(self.configs)}"
            )
        return self.configs[config]

    def first(self, n: int | None) -> Benchmark:
        """Return the benchmark with the first `n` rows of every set; None: all of them.

        Sets that are aligned stay so. `data.load` makes it again from its `source`.
        """
        if n is None:
            return self
        if n < 1:
            raise ValueError(f"at least one row of a set is needed, got {n}")
        cut = {name: rows[:n] for name, rows in self.configs.items()}
        return replace(self, configs=cut, source={**self.source, "first": n})

    @property
    def forget(self) -> list[Row]:
        return self.rows(self.split)

    @property
    def retain(self) -> list[Row]:
        return self.rows(siblings(self.split)[0])

    @property
    def holdout(self) -> list[Row]:
        return self.rows(siblings(self.split)[1])

    @property
    def full(self) -> list[Row]:
        """Training rows of the target: retain, then forget.

        This is TOFU's `full`, the same for every split.
        """
        return [*self.retain, *self.forget]

    @property
    def forget_perturbed(self) -> list[Row]:
        return self.rows(f"{self.split}_perturbed")

    @property
    def retain_perturbed(self) -> list[Row]:
        return self.rows("retain_perturbed")

    @property
    def real_authors_perturbed(self) -> list[Row]:
        return self.rows("real_authors_perturbed")

    @property
    def world_facts_perturbed(self) -> list[Row]:
        return self.rows("world_facts_perturbed")

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON of split, rows and prompt.

        Name and source do not enter.
        """
        content = [self.split, dict(self.configs), self.pretrain, self.prompt.content()]
        text = json.dumps(
            content, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False
        )
        return hashlib.sha256(text.encode()).hexdigest()


def _check_rows(where: str, rows: list[Row], texts: tuple[str, ...], perturbed: bool) -> None:
    for i, row in enumerate(rows):
        for key in texts:
            if not isinstance(row.get(key), str):
                raise ValueError(
                    f"{where}, row {i}: no text under {key!r}; each row needs {', '.join(texts)}"
                )
        if not row["answer"].strip():
            raise ValueError(f"{where}, row {i}: the answer is empty; drop the row or fill it in")
        wrong = row.get("perturbed_answer")
        if perturbed and not (
            isinstance(wrong, list) and wrong and all(isinstance(w, str) for w in wrong)
        ):
            raise ValueError(
                f"{where}, row {i}: perturbed_answer must be a non-empty list of wrong answers"
            )


def _check_disjoint(name: str, split: str, forget: list[Row], other: str, rows: list[Row]) -> None:
    known = {row["question"] or row["answer"]: i for i, row in enumerate(rows)}
    for i, row in enumerate(forget):
        key = row["question"] or row["answer"]
        if key in known:
            raise ValueError(
                f"{name}: {split} row {i} and {other} row {known[key]} ask the same ({key!r}); "
                f"a row cannot be forgotten and kept: remove it from one of the two"
            )
