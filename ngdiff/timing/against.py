"""This evaluation beside an older one's: alternating, part by part, on the same model and rows.

Each checkout's package runs in a process of its own, on one thread, and only one of them works at a
time. A drift of the machine's speed falls on both. Every number that one gives is compared with the
other's.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from ngdiff.store.code import HOME
from ngdiff.store.progress import Progress
from ngdiff.store.table import Column, Table

PARTS = ("likelihood", "generation", "gradient norms")
TOGETHER = "together"
WORKER = Path(__file__).with_name("against_worker.py")
Row = dict[str, Any]


@contextmanager
def checkout(name: str) -> Iterator[Path]:
    """Give the folder of a checkout: `name` itself, or that revision of this one, written out.

    Raises ValueError for what is neither.
    """
    if (folder := Path(name).expanduser()).is_dir():
        if not (folder / "ngdiff" / "timing" / "evaluate.py").is_file():
            raise ValueError(f"--against {name}: no checkout of ngdiff; give one, or a revision")
        yield folder.resolve()
        return
    command = ["git", "-C", str(HOME.parent), "archive", "--format=tar", name, "ngdiff"]
    with tempfile.TemporaryDirectory(prefix="ngdiff-against-") as place:
        file = Path(place) / "package.tar"
        with file.open("wb") as out:
            done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=False)
        if done.returncode:
            raise ValueError(
                f"--against {name}: neither a folder nor a revision of {HOME.parent} "
                f"({done.stderr.decode().strip()})"
            )
        with tarfile.open(file) as tar:
            tar.extractall(place, filter="data")
        yield Path(place)


class Side:
    """A checkout's process, which is asked for parts."""

    def __init__(self, root: Path, data: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), data],
            env=environment,
            cwd=root,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.about = self._answer()

    def ask(self, part: str) -> Row:
        """Return seconds, cpu_seconds and what was found."""
        assert self.process.stdin is not None
        self.process.stdin.write(part + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Row:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the evaluation of {self.root} ended with status {self.process.wait()}: what it "
                "printed stands above"
            )
        return json.loads(line)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def measure(name: str, data: str, rounds: int) -> list[Row]:
    """Return a row for each part, round and code ("older", "this"), with how far apart they are.

    apart      largest difference of two numbers, over max(1, |number|)
    different  how many texts differ

    Raises ValueError where the two do not evaluate the same model and rows.
    """
    rows: list[Row] = []
    with ExitStack() as stack:
        roots = {"older": stack.enter_context(checkout(name)), "this": HOME.parent}
        sides = {code: Side(root, data) for code, root in roots.items()}
        for side in sides.values():
            stack.callback(side.close)
        if sides["older"].about != sides["this"].about:
            raise ValueError(f"--against {name} makes another model or other rows: not comparable")
        progress = Progress("round", rounds)
        for n in range(rounds):
            for part in PARTS:
                order = list(sides)[:: -1 if n % 2 else 1]
                found = {code: sides[code].ask(part) for code in order}
                apart, different = compared(*(found[code].pop("found") for code in sides))
                about = {"part": part, "round": n, "parameters": sides["this"].about["parameters"]}
                about |= {"apart": apart, "different": different}
                rows += [about | {"code": code} | found[code] for code in sides]
            progress(n + 1)
    return rows


def compared(a: Any, b: Any) -> tuple[float, int]:
    """Return the largest difference of numbers, over max(1, |number|), and how many texts differ.

    Raises ValueError where the two have not the same shape.
    """
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        if a == b or (math.isnan(a) and math.isnan(b)):
            return 0.0, 0
        return abs(a - b) / max(1.0, abs(b)), 0
    if isinstance(a, (str, type(None))) and isinstance(b, (str, type(None))):
        return 0.0, int(a != b)
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        pairs = [compared(a[key], b[key]) for key in a]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [compared(x, y) for x, y in zip(a, b, strict=True)]
    else:
        raise ValueError(f"the two evaluations give different items: {a!r:.80} and {b!r:.80}")
    return max((x for x, _ in pairs), default=0.0), sum(y for _, y in pairs)


def compare_table(rows: list[Row]) -> Table:
    """CPU time of each part under both codes: medians, the median ratio, and what differs."""
    taken: dict[tuple[str, int, str], float] = {}
    for row in rows:
        taken[row["part"], row["round"], row["code"]] = row["cpu_seconds"]
    rounds = sorted({row["round"] for row in rows})
    for n in rounds:
        for code in ("older", "this"):
            taken[TOGETHER, n, code] = sum(taken[part, n, code] for part in PARTS)
    found = []
    for part in (*PARTS, TOGETHER):
        mine = [row for row in rows if part in (row["part"], TOGETHER)]
        older, this = ([taken[part, n, code] for n in rounds] for code in ("older", "this"))
        ratios = [a / b for a, b in zip(older, this, strict=True)]
        found.append(
            {"part": part, "older": median(older), "this": median(this)}
            | {"ratio": median(ratios), "least": min(ratios)}
            | {"apart": max(row["apart"] for row in mine)}
            | {"different": sum(row["different"] for row in mine if row["code"] == "this")}
        )
    heads = {"older": "older, CPU s", "this": "this, CPU s", "ratio": "ratio", "least": "least"}
    numbers = (Column(key, head, ".2f", "right") for key, head in heads.items())
    apart = Column("apart", "largest difference", ".1e", "right")
    return Table((Column("part"), *numbers, apart, Column("different", "texts differ")), found)
