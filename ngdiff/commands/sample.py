"""What a model says of a few rows of each set: its loss on them, and its greedy answers.

The rows are a seeded sample, so the model before and after unlearning is asked the same ones. A
document has no question: its first half is the prompt, and its second half the answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import torch

from ngdiff.data.benchmark import Benchmark, Row, siblings
from ngdiff.evaluation.forward import loss
from ngdiff.evaluation.generate import greedy
from ngdiff.evaluation.metrics import rouge
from ngdiff.evaluation.texts import stop_tokens, text
from ngdiff.lm.model import LM
from ngdiff.store.progress import Progress, to_stderr

SIZE = 64  # rows of a set, at most
LONGEST = 128  # tokens of a true answer that are compared
SPARE = 16  # tokens that an answer may have more than the longest true one
SHOWN = 3  # rows of a set whose answers are saved

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
    verbatim  how many answers are said word for word
    rouge     mean ROUGE-L recall of the answers
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
    return {
        "rows": len(rows),
        "loss": loss(lm, rows),
        "verbatim": sum(verbatim(one, truth) for one, truth in pairs),
        "rouge": sum(rouge(one, truth)["rougeL_recall"] for one, truth in pairs) / len(rows),
        "answers": answers,
    }


def verbatim(said: str, answer: str) -> bool:
    """Return whether a text holds all words of an answer, in a row; case and signs do not count."""
    words, wanted = _words(said), _words(answer)
    return bool(wanted) and any(
        words[i : i + len(wanted)] == wanted for i in range(len(words) - len(wanted) + 1)
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold()) or text.split()
