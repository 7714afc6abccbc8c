"""What a model says of a few rows of each set: its loss on them, and its greedy answers.

The rows are a seeded sample, so the model before and after unlearning is asked the same ones. A
document has no question: its first half is the prompt, and its second half the answer.
"""

from __future__ import annotations

import math
import random
import statistics
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch

from ngdiff.data.benchmark import Benchmark, Row, siblings
from ngdiff.evaluation.forward import likelihood
from ngdiff.evaluation.generate import greedy
from ngdiff.evaluation.metrics import mean_nll
from ngdiff.evaluation.texts import stop_tokens, text
from ngdiff.lm.model import LM
from ngdiff.store.progress import Progress, to_stderr

SIZE = 64  # rows of a set, at most
LONGEST = 128  # tokens of a true answer that are compared
SPARE = 16  # tokens that an answer may have more than the longest true one
SHORT = 2  # words of an answer that counts only where it is said first
SHOWN = 3  # rows of a set whose answers are saved
# scripts that are written without spaces, as the Unicode names of their letters begin
SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")

Measured = dict[str, dict[str, Any]]  # set -> numbers and answers, as JSON


def sampled(bench: Benchmark, seed: int) -> dict[str, list[Row]]:
    """Return at most SIZE rows of each set that there is."""
    sets = {"forget": bench.forget, "retain": bench.retain}
    if siblings(bench.split)[1] in bench.configs:
        sets["holdout"] = bench.holdout
    found = {}
    for name, rows in sets.items():
        chosen = random.Random(f"{seed} {name}").sample(range(len(rows)), min(SIZE, len(rows)))
        found[name] = [rows[i] for i in chosen]
    return found


def measure(lm: LM, bench: Benchmark, seed: int) -> Measured:
    """Return the numbers of each set's sample, and the first few answers.

    loss      mean over the tokens, nats
    row_loss  mean over the rows of each one's loss
    verbatim  how many answers are said word for word
    rouge     mean ROUGE-L recall of the answers, in the words of any script (`words`)

    row_loss_sd and rouge_sd are the standard deviations of the rows, NaN for one row.
    """
    return {name: _measured(lm, rows, name) for name, rows in sampled(bench, seed).items()}


def placed(lm: LM, place: torch.device | None) -> LM:
    """Move a model to where it is measured; to the CPU where it does not fit there as a whole."""
    if place is None:
        return lm
    model: Any = lm.model
    try:
        model.to(place)
    except torch.OutOfMemoryError:
        model.to("cpu")
        to_stderr(f"the whole model does not fit on {place}: its answers come from the CPU, slowly")
    return lm


def _measured(lm: LM, rows: Sequence[Row], name: str) -> dict[str, Any]:
    encoded = [lm.encode(row["question"], row["answer"]) for row in rows]
    starts = [
        len(example.prompt_ids) if row["question"] else max(1, len(example) // 2)
        for row, example in zip(rows, encoded, strict=True)
    ]
    given = [example.input_ids[:cut] for example, cut in zip(encoded, starts, strict=True)]
    true = [
        example.input_ids[cut:-1][:LONGEST] for example, cut in zip(encoded, starts, strict=True)
    ]
    most = max(map(len, true)) + SPARE
    stop = stop_tokens(lm.model, lm.tokenizer, encoded)
    tick = Progress(f"{name} answers", len(rows), last=False)
    generated = greedy(lm.model, given, stop, most, tick=tick)
    said = [text(lm.tokenizer, ids) for ids in generated]
    truths = [text(lm.tokenizer, ids) for ids in true]
    pairs = list(zip(said, truths, strict=True))
    answers = [
        {
            "question": row["question"] or text(lm.tokenizer, ids),
            "answer": truth.strip(),
            "said": one.strip(),
        }
        for row, ids, (one, truth) in zip(rows, given, pairs[:SHOWN], strict=False)
    ]
    likely = [stats.logp for stats in likelihood(lm.model, encoded)]
    losses = [mean_nll(logp) for logp in likely]
    recalls = [recall(one, truth) for one, truth in pairs]
    return {
        "rows": len(rows),
        "loss": mean_nll([logp for row in likely for logp in row]),
        "row_loss": sum(losses) / len(rows),
        "row_loss_sd": _deviation(losses),
        "verbatim": sum(verbatim(one, truth) for one, truth in pairs),
        "rouge": sum(recalls) / len(rows),
        "rouge_sd": _deviation(recalls),
        "answers": answers,
    }


def _deviation(values: Sequence[float]) -> float:
    many = len(values) > 1 and all(map(math.isfinite, values))
    return statistics.stdev(values) if many else math.nan


def verbatim(said: str, answer: str) -> bool:
    """Return whether a text holds all words of an answer, in a row; case and signs do not count.

    An answer of one or two words must be the first thing said: later it may be there by chance.
    """
    spoken, wanted = words(said), words(answer)
    places = 1 if len(wanted) <= SHORT else len(spoken) - len(wanted) + 1
    return bool(wanted) and any(spoken[i : i + len(wanted)] == wanted for i in range(places))


def recall(said: str, answer: str) -> float:
    """Return the ROUGE-L recall of an answer: the share of its words that are said in its order."""
    return float(_scorer().score(answer, said)["rougeL"].recall)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=words))


def words(text: str) -> list[str]:
    """Return the words of a text, without case and signs; of signs alone, what stands between
    spaces.

    Letters of every script count, with their marks. A script without spaces has a word a letter.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(map(_spaced, folded)).split() or folded.split()


@lru_cache(maxsize=8192)
def _spaced(letter: str) -> str:
    if unicodedata.category(letter)[0] not in "LMN":
        return " "
    return f" {letter} " if unicodedata.name(letter, "").startswith(SPACELESS) else letter
