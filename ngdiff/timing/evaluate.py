"""Time of an evaluation, of a random model of some three million parameters.

It is asked 40 rows to forget, 64 to retain, 40 about real authors and 40 about the world. What is
timed is what `ngdiff.evaluate` runs: likelihood of every text (what texts share computed once),
greedy answers, gradient norms. Beside it the same likelihoods with one plain forward per text, the
obvious way. One thread. A random model never ends an answer, so that each has its full 200 tokens:
the worst case.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ngdiff.data import Benchmark, authors, semeval, tofu
from ngdiff.data.benchmark import Prompt
from ngdiff.evaluation import tofu as evaluator
from ngdiff.evaluation.conventions import Convention
from ngdiff.lm.scratch import from_scratch
from ngdiff.lm.train import one_thread
from ngdiff.profiles import TinyLM, profile
from ngdiff.store.rows import probe_rows, stamp, write_rows
from ngdiff.store.table import Column, Table
from ngdiff.timing import against as compare
from ngdiff.timing import floor as floors

ROWS = {
    "forget_perturbed": 40,
    "retain_perturbed": 64,
    "real_authors_perturbed": 40,
    "world_facts_perturbed": 40,
}
SHAPE = TinyLM(hidden=192, layers=5, heads=6, intermediate=512, vocab=4096, context=1024)
Row = dict[str, Any]


def rows_of(data: str) -> Benchmark:
    """ROWS of TOFU's forget01 from a folder, or of the generated authors."""
    bench = (
        tofu("tiny", "forget01", root=data)
        if data
        else authors(replace(profile("tiny"), authors=200), "forget05")
    )
    sizes = {name.replace("forget", bench.split): n for name, n in ROWS.items()}
    return replace(
        bench, configs={k: rows[: sizes.get(k, len(rows))] for k, rows in bench.configs.items()}
    )


def parts_of(
    bench: Benchmark,
) -> tuple[evaluator.Subject, dict[str, list[Row]], dict[str, Callable[[], Any]]]:
    """Return a random model under the default convention, its rows, and what is timed of it."""
    texts = [
        row[key]
        for rows in bench.configs.values()
        for row in rows
        for key in ("question", "answer")
    ]
    lm = from_scratch(texts, SHAPE, Prompt(), 0, "random")
    rows, _ = evaluator._rows(bench, evaluator.PARTS, Convention())
    subject = evaluator.Subject(lm, Convention(), lambda line: None)
    return (
        subject,
        rows,
        {
            "likelihood": lambda: evaluator._likelihood(subject, rows),
            "generation": lambda: evaluator._rouge(subject, rows, 200),
            "gradient norms": lambda: evaluator._gradnorm(subject, rows),
        },
    )


def measure(bench: Benchmark, rounds: int = 3) -> list[Row]:
    """Seconds of each part, a row a part and round."""
    subject, rows, parts = parts_of(bench)
    lm = subject.lm
    parts["likelihood, one forward a text"] = lambda: _plain(lm, rows)
    with one_thread():
        return [_timed(name, n, lm, part) for n in range(rounds) for name, part in parts.items()]


@torch.inference_mode()
def _plain(lm: Any, rows: dict[str, list[Row]]) -> None:
    """Take a forward for each text that a likelihood metric needs, logits and all."""
    asked = {
        (r["question"], a)
        for part in rows.values()
        for r in part
        for a in (r["answer"], r.get("paraphrased_answer"), *r.get("perturbed_answer", ()))
        if a is not None
    }
    for question, answer in asked:
        example = lm.encode(question, answer)
        ids = torch.tensor([example.input_ids])
        logp = lm.model(ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        logp.gather(1, ids[0, 1:, None])


def measure_semeval(root: str) -> list[Row]:
    """Return the seconds of SemEval's validation split: 254 + 278 rows and the MIA's documents.

    The model is a random one of the tiny profile's shape, so each generation has its full 256
    tokens.
    """
    from ngdiff.evaluation import evaluate

    bench = semeval("tiny", "validation", root=root)
    texts = [
        f"{row['question']} {row['answer']}" for rows in bench.configs.values() for row in rows
    ]
    lm = from_scratch(
        texts, replace(profile("tiny").lm or TinyLM(), context=4096), bench.prompt, 0, "random"
    )
    with one_thread():
        return [
            _timed("SemEval, validation split", 0, lm, lambda: evaluate(lm, bench, progress=False))
        ]


def _timed(part: str, n: int, lm: Any, work: Callable[[], Any]) -> Row:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    return {
        "part": part,
        "round": n,
        "parameters": sum(p.numel() for p in lm.model.parameters()),
        **spent,
    }


def summary(rows: list[Row]) -> str:
    """Medians, in a sentence."""
    found = {
        part: [r["seconds"] for r in rows if r["part"] == part]
        for part in dict.fromkeys(r["part"] for r in rows)
    }
    size = {r["part"]: r["parameters"] for r in rows}
    return "; ".join(
        f"{part} {median(s):.1f} s ({size[part] / 1e6:.1f}M parameters)"
        for part, s in found.items()
    )


def medians(rows: list[Row]) -> Table:
    """CPU time of each part: median, least and most of its rounds."""
    spent: dict[str, list[float]] = {}
    for row in rows:
        spent.setdefault(row["part"], []).append(row["cpu_seconds"])
    found = [
        {"part": part, "median": median(s), "least": min(s), "most": max(s), "rounds": len(s)}
        for part, s in spent.items()
    ]
    heads = {"median": "CPU s, median", "least": "least", "most": "most"}
    seconds = (Column(key, head, ".2f", "right") for key, head in heads.items())
    return Table((Column("part"), *seconds, Column("rounds", align="right")), found)


def table(
    data: str = "",
    lume: str = "",
    rounds: int = 3,
    json: Path | None = None,
    against: str = "",
    floor: bool = False,
) -> list[Row]:
    """Run `ngdiff bench evaluate`: measure, print medians, and save the rows where `json` says.

    against: compare with that checkout or revision (`timing.against`). floor: say what the time
    goes to (`timing.floor`). One thing at a time.

    Raises ValueError for two of lume, against and floor.
    """
    probe_rows(json)
    if lume and not Path(lume).is_dir():
        raise FileNotFoundError(
            f"--lume {lume}: no such folder; give one of LUME's rows, or leave it out"
        )
    if sum(map(bool, (lume, against, floor))) > 1:
        raise ValueError("give one of --lume, --against and --floor: each is a run of its own")
    began = time.perf_counter()
    if against:
        found = compare.measure(against, str(Path(data).resolve()) if data else "", rounds)
    elif floor:
        found = floors.measure(*parts_of(rows_of(data)))
    else:
        found = measure(rows_of(data), rounds) + (measure_semeval(lume) if lume else [])
    used = {
        "data": "TOFU, forget01" if data else "generated authors",
        "lume": bool(lume),
        "rounds": rounds,
    }
    used |= {"against": against} if against else {}
    mark = stamp(used, 0, time.perf_counter() - began)
    show = compare.compare_table if against else floors.floor_table if floor else medians
    print(show(found).text())
    if json is not None:
        write_rows(Path(json), [row | {"stamp": mark} for row in found])
    return found
