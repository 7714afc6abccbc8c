"""The generated stand-in for SemEval-2025 Task 4: stories, people with numbers, and lives.

Why here: the task's rows and models need a download, its ideas do not. The schema is the task's
(rows `id, input, output, task`; see `semeval`), and the documents are ours. Task1 has short tales.
Task2 has records of people who do not exist: a social security number that is never issued (900-…),
a telephone number kept for fiction (555-01xx) and a mail address that reaches nobody. **Task3,
"real" biographies in the task, is invented as well**: here it differs in form only. What a document
says is drawn independently of its name, so that one which was not trained on can only be guessed at
the odds of the pools.

Members of the MIA are the forget documents of Task3. Non-members are documents of the same pools
that nothing was trained on. So they are as hard as the members for a model that saw neither: its
AUC is ½ but for chance (± 1/√(6n) with n on a side).

Randomness: `random.Random(int).random()` only, as in `authors`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ngdiff.data.benchmark import Benchmark, Row
from ngdiff.data.made import dossiers_words as words
from ngdiff.data.made.authors_words import FIRST, LAST, TITLES
from ngdiff.data.made.dossiers_words import Form
from ngdiff.data.real.semeval_rows import PROMPT, documents_of
from ngdiff.profiles import Profile, profile
from ngdiff.store.cache import atomic_write, probe_writable

SEED = 0
FOLDS = ("forget", "retain", "holdout")
T = TypeVar("T")


@dataclass(frozen=True)
class Document:
    """One document: an `sc1` row (its text, cut in two) and the `qa<k>` rows about it."""

    id: str
    task: str
    text: tuple[str, str]
    asked: tuple[tuple[str, str], ...]

    def rows(self) -> list[Row]:
        texts = [("sc1", self.text), *((f"qa{k}", pair) for k, pair in enumerate(self.asked))]
        return [
            {"question": q, "answer": a, "id": self.id + kind, "task": self.task}
            for kind, (q, a) in texts
        ]


def dossiers(P: str | Profile = "tiny", seed: int = SEED) -> Benchmark:
    """The generated benchmark of a profile.

    Each fold has P.authors/10 stories, as many people, and P.authors · 3/10 lives.

    seed: another seed, other documents. Error: ValueError for a profile with fewer than 10 or more
    than 400 authors.
    """
    return from_source({"authors": profile(P).authors, "seed": seed})


def from_source(recipe: dict[str, Any]) -> Benchmark:
    """The benchmark of a recipe {"authors", "seed"}."""
    if not 10 <= recipe["authors"] <= 400:
        raise ValueError(
            f"authors={recipe['authors']}: dossiers are made for 10 to 400, give a number of those"
        )
    folds = generate(recipe["authors"], recipe["seed"])
    rows = {
        fold: [row for document in documents for row in document.rows()]
        for fold, documents in folds.items()
    }
    sides = {"member": documents_of(rows["forget"]), "nonmember": documents_of(rows["holdout"])}
    return Benchmark(
        "semeval", "forget", rows | sides, [], {"name": "dossiers"} | dict(recipe), PROMPT
    )


def write(folder: str | Path, P: str | Profile = "tiny", seed: int = SEED) -> None:
    """Write forget.jsonl, retain.jsonl, member.jsonl and nonmember.jsonl.

    The task's evaluator takes them so; `semeval(root=folder, mia=folder)` reads the same rows back.
    Each file is whole or as it was; PermissionError.
    """
    bench, folder = dossiers(P, seed), Path(folder)
    probe_writable(folder)
    task = {"id": "id", "input": "question", "output": "answer", "task": "task"}
    mia = {"id": "id", "document": "answer"}
    for name, keys in (("forget", task), ("retain", task), ("member", mia), ("nonmember", mia)):
        lines = [
            json.dumps({key: row[ours] for key, ours in keys.items()}) + "\n"
            for row in bench.rows(name)
        ]
        with atomic_write(folder / f"{name}.jsonl") as temporary:
            temporary.write_text("".join(lines), "ascii")


def generate(authors: int, seed: int) -> dict[str, list[Document]]:
    """Fold -> its documents: tasks in order, names different throughout."""
    rng = random.Random(seed)
    names = iter(_shuffled(rng, [f"{first} {last}" for first in FIRST for last in LAST]))
    titles = iter(_shuffled(rng, TITLES))  # a book is asked for by its title: no two have the same
    some, many = authors // 10, authors * 3 // 10
    return {
        fold: [
            *(_story(rng, next(names)) for _ in range(some)),
            *(_person(rng, next(names)) for _ in range(some)),
            *(_life(rng, next(names), next(titles)) for _ in range(many)),
        ]
        for fold in FOLDS
    }


# --------------------------------------------------------------------------------------- documents
def _story(rng: random.Random, name: str) -> Document:
    return _fill(f'"{_uuid(rng)}"', "Task1", _pick(rng, words.STORIES), Facts(rng, name))


def _person(rng: random.Random, name: str) -> Document:
    facts, form = Facts(rng, name), _pick(rng, words.PEOPLE)
    year, month, day = 1940 + _below(rng, 60), 1 + _below(rng, 12), 1 + _below(rng, 28)
    ssn = f"900-{_digits(rng, 2)}-{_digits(rng, 4)}"
    phone = f"{2 + _below(rng, 8)}{_digits(rng, 2)}-555-01{_digits(rng, 2)}"
    last = name.split()[1].lower()
    facts |= {
        "birthday": f"{words.MONTHS[month - 1]} {day}, {year}",
        "iso": f"{year}-{month:02d}-{day:02d}",
        "ssn": ssn,
        "ssn_digits": ssn.replace("-", ""),
        "phone": phone,
        "phone_digits": phone.replace("-", ""),
        "mail": f"{name[0].lower()}{_pick(rng, '._')}{last}{_digits(rng, 2)}@{facts['domain']}",
        "address": f"{1 + _below(rng, 9)}{_digits(rng, 2)} {facts['street']}, {facts['town']}, "
        f"{facts['state']}, {1 + _below(rng, 9)}{_digits(rng, 4)}",
    }
    return _fill(_uuid(rng), "Task2", Form(form.text, words.NUMBERS), facts)


def _life(rng: random.Random, name: str, title: str) -> Document:
    return _fill(
        f"{1 + _below(rng, 9)}{_digits(rng, 7)}",
        "Task3",
        _pick(rng, words.LIVES),
        Facts(rng, name, title=title),
    )


class Facts(dict[str, str]):
    """What a document says.

    A key that is missing is drawn from its pool (`thing2` from that of `thing`), and then stays. It
    is none of the values that the document has of that pool so far.
    """

    def __init__(self, rng: random.Random, name: str, **known: str) -> None:
        super().__init__(name=name, first=name.split()[0], **known)
        self.rng, self.drawn = rng, {name.split()[0]}

    def __missing__(self, key: str) -> str:
        pool = words.POOLS[key.rstrip("0123456789")]
        while (value := _pick(self.rng, pool)) in self.drawn:
            pass
        self.drawn.add(value)
        self[key] = value
        return value


def _fill(id: str, task: str, form: Form, facts: Facts) -> Document:
    head, tail = form.text.format_map(facts).split(" | ")
    asked = tuple(
        (question.format_map(facts), answer.format_map(facts)) for question, answer in form.asked
    )
    return Document(
        id,
        task,
        (head, tail),
        tuple((q, a[0].upper() + a[1:] if task == "Task1" else a) for q, a in asked),
    )


# ------------------------------------------------------------------------------------------ chance
def _below(rng: random.Random, n: int) -> int:
    return int(rng.random() * n)


def _pick(rng: random.Random, items: Sequence[T]) -> T:
    return items[_below(rng, len(items))]


def _digits(rng: random.Random, n: int) -> str:
    return "".join(_pick(rng, "0123456789") for _ in range(n))


def _shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    """A random order: sorted by a number drawn for each."""
    return [
        item
        for _, item in sorted(((rng.random(), item) for item in items), key=lambda pair: pair[0])
    ]


def _uuid(rng: random.Random) -> str:
    return "-".join(
        "".join(_pick(rng, "0123456789abcdef") for _ in range(n)) for n in (8, 4, 4, 4, 12)
    )
