"""One checkout's evaluation, part by part as it is asked: the process that `against` starts.

It is run as a file, with another checkout's package on the path. So it names only what both have,
and imports nothing that is beside it. It reads a part's name per line and answers with one line of
JSON: the seconds, and the numbers that came out.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any


def subject(data: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parts that can be timed, and the model and rows that they use."""
    import torch

    from ngdiff.data.benchmark import Prompt
    from ngdiff.evaluation import tofu
    from ngdiff.evaluation.conventions import Convention
    from ngdiff.lm.scratch import from_scratch
    from ngdiff.timing import evaluate

    torch.set_num_threads(1)
    bench = evaluate.rows_of(data)
    texts = [
        row[key]
        for rows in bench.configs.values()
        for row in rows
        for key in ("question", "answer")
    ]
    lm = from_scratch(texts, evaluate.SHAPE, Prompt(), 0, "random")
    rows: dict[str, Any] = {}
    for part, names in tofu.PARTS.items():
        for name in names:
            with contextlib.suppress(KeyError):  # no such rows
                rows.setdefault(part, getattr(bench, name))
    one = tofu.Subject(lm, Convention(), lambda line: None)
    parts = {
        "likelihood": lambda: tofu._likelihood(one, rows)[0],
        "generation": lambda: tofu._rouge(one, rows, 200),
        "gradient norms": lambda: tofu._gradnorm(one, rows),
    }
    weights = [float(p.detach().double().abs().sum()) for p in lm.model.parameters()]
    about = {
        "weights": weights,
        "rows": {name: len(members) for name, members in rows.items()},
        "parameters": sum(p.numel() for p in lm.model.parameters()),
    }
    return parts, about


def main(data: str) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    parts, about = subject(data)
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        found = parts[line.strip()]()
        spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        print(json.dumps(spent | {"found": found}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
