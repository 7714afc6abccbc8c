"""General questions with a model's own answers."""

from __future__ import annotations

from dataclasses import replace

from ngdiff.evaluation.generate import answers
from ngdiff.lm import replay
from tests.helpers import micro


def test_the_answers_are_the_models_own_whatever_the_batch(monkeypatch):
    lm = micro.lm()
    asked = [row["question"] for row in micro.bench().forget]
    general = [{"question": f"{question} ", "answer": "unused"} for question in asked]
    bench = replace(micro.bench(), pretrain=general)
    monkeypatch.setattr(replay, "SENTENCE", replay.re.compile(r"(?s).+"))
    found = {row["question"]: row["answer"] for row in replay.rows(lm, bench)}
    alone = dict(zip(found, answers(lm, list(found), replay.TOKENS), strict=True))
    assert found and found == alone


class Words:
    """A tokenizer of one character a token."""

    def decode(self, ids, skip_special_tokens):
        return "".join(map(chr, ids))


def said(text: str, end: str = "") -> str:
    lm = type("LM", (), {"tokenizer": Words()})
    return replay._sentence(lm, [*map(ord, text), *map(ord, end)], ord("\0"))


def test_an_answer_is_cut_after_its_first_sentence():
    assert said("Paris. It lies on the Seine.", "\0") == "Paris."
    assert said("It is 3.14 or so. More", "") == "It is 3.14 or so."
    assert said("Paris", "\0") == "Paris"  # it ended
    assert said("It is a long st", "") == ""  # it was cut
    assert said("", "\0") == ""
