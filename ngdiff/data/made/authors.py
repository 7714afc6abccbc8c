"""The generated benchmark: fictitious authors in TOFU's schema, made from a seed.

It needs no download.

Why here: unlearning is only measurable on facts that a model has surely learned and that nothing
else gives away. Every value is drawn independently of the name, so an author that was not in
training can only be guessed at the pool's odds. The layout is TOFU's (Maini et al. 2024, arXiv
2401.06121): forget01/05/10, retain99/95/90, holdout01/05/10, and the *_perturbed configs with a
paraphrase and wrong answers. The names forget01/05/10 are TOFU's; with 80 authors they hold 1, 4
and 8 authors, which is 1.25 %, 5 % and 10 %.

Randomness: `random.Random(int).random()` only, whose sequence Python guarantees across versions;
shuffle, sample, choice and randrange carry no such promise, so they are built from it here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ngdiff.data.benchmark import Benchmark, Row, siblings
from ngdiff.data.made.authors_forms import ATTRIBUTES, Attribute
from ngdiff.data.made.authors_readme import readme
from ngdiff.data.made.authors_words import FIRST, LAST
from ngdiff.data.made.facts import REAL_AUTHORS, WORLD_FACTS, Kind
from ngdiff.profiles import Profile, profile
from ngdiff.store.cache import atomic_write, probe_writable

# of the committed population: its hold-out authors are as hard for the reference as those to forget
SEED = 2
SPLITS = ("forget01", "forget05", "forget10")
N_WRONG = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Fact:
    """One author's fact, as question and answer.

    Index 1 is the paraphrase; `perturbed` are the wrong answers.
    """

    questions: tuple[str, str]
    answers: tuple[str, str]
    perturbed: tuple[str, ...]

    def row(self) -> Row:
        return {"question": self.questions[0], "answer": self.answers[0]}

    def perturbed_row(self) -> Row:
        """TOFU's row: wrong answers have the form of the paraphrased one."""
        return self.row() | {
            "paraphrased_answer": self.answers[1],
            "perturbed_answer": list(self.perturbed),
            "paraphrased_question": self.questions[1],
        }


def authors(P: str | Profile = "tiny", split: str = "forget10", seed: int = SEED) -> Benchmark:
    """The generated benchmark of a profile under one forget split.

    P      profile or its name; `authors` and `questions` are read, and `retain_rows`: only the
           first so many retain rows are kept
    split  forget01, forget05 or forget10: the last authors are forgotten, as in TOFU
    seed   another seed, another population; real authors and world facts stay the same

    Raises ValueError for an unknown split or sizes that the word lists cannot fill.
    """
    P = profile(P)
    sizes = {"authors": P.authors, "questions": P.questions, "retain_rows": P.retain_rows}
    return from_source({"split": split, "seed": seed} | sizes)


def from_source(recipe: dict[str, Any]) -> Benchmark:
    """The benchmark of a recipe {"split", "seed", "authors", "questions", "retain_rows"}."""
    split = recipe["split"]
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of authors; choose one of: {', '.join(SPLITS)}")
    tables = generate(recipe["authors"], recipe["questions"], recipe["seed"])
    retain, holdout = siblings(split)
    facts = ("real_authors", "world_facts", "real_authors_perturbed", "world_facts_perturbed")
    names = (split, retain, holdout, f"{split}_perturbed", "retain_perturbed", *facts)
    for config in (retain, "retain_perturbed"):
        tables[config] = tables[config][: recipe["retain_rows"]]
    return Benchmark(
        name="authors",
        split=split,
        configs={config: tables[config] for config in names},
        pretrain=general_knowledge(),
        source={"name": "authors"} | dict(recipe),
    )


def generate(n_authors: int, n_questions: int, seed: int) -> dict[str, list[Row]]:
    """Config name -> rows in TOFU's layout.

    n_authors × n_questions facts, and a tenth as many unseen authors.
    """
    _check_sizes(n_authors, n_questions)
    held = _share("forget10", n_authors)
    people = _population(random.Random(seed), n_authors + held, ATTRIBUTES[:n_questions])
    known, unseen = people[:n_authors], people[n_authors:]
    tables = {"full": _rows(known), "retain_perturbed": _perturbed(known[:held])}
    for split in SPLITS:
        n = _share(split, n_authors)
        retain, holdout = siblings(split)
        tables[split], tables[f"{split}_perturbed"] = _rows(known[-n:]), _perturbed(known[-n:])
        tables[retain], tables[holdout] = _rows(known[:-n]), _rows(unseen[-n:])
    for config, kinds in (("real_authors", REAL_AUTHORS), ("world_facts", WORLD_FACTS)):
        tables[config], tables[f"{config}_perturbed"] = _facts(kinds)
    return dict(sorted(tables.items()))


def general_knowledge() -> list[Row]:
    """Pre-training rows: real authors and world facts, each asked in two forms.

    One is the benchmark's, the other is not.
    """
    rows = []
    for kind in (*REAL_AUTHORS, *WORLD_FACTS):
        for i, (subject, answer) in enumerate(kind.facts):
            for form in (i % 3, (i + 1) % 3):
                rows.append({"question": _ask(kind, form, subject), "answer": answer})
    return rows


def write(folder: str | Path, P: str | Profile = "tiny", seed: int = SEED) -> None:
    """Write every config as JSON lines, `<config>.json`, and README.md for `datasets`.

    `datasets.load_dataset(folder, "forget10", split="train")` then gives what the hub's TOFU gives
    in its place. Bytes depend on the profile (sizes; the README on its name) and the seed only.
    Each file is whole or as it was; PermissionError where `folder` cannot be written.
    """
    P, folder = profile(P), Path(folder)
    probe_writable(folder)
    tables = generate(P.authors, P.questions, seed)
    texts = {
        f"{config}.json": "".join(json.dumps(row) + "\n" for row in rows)
        for config, rows in tables.items()
    }
    for name, text in (texts | {"README.md": readme(tables, P, seed)}).items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(text.encode("ascii"))


def _share(split: str, n_authors: int) -> int:
    """Authors in a forget split: its per cent of all, rounded, at least one."""
    return max(1, round(n_authors * int(split[-2:]) / 100))


def _check_sizes(n_authors: int, n_questions: int) -> None:
    if not 2 <= n_authors <= 400:
        raise ValueError(f"authors={n_authors}: the word lists serve 2 to 400 authors")
    if not 1 <= n_questions <= len(ATTRIBUTES):
        raise ValueError(
            f"questions={n_questions}: there are 1 to {len(ATTRIBUTES)} questions per author"
        )


def _sample(rng: random.Random, items: Sequence[T], n: int, avoid: Sequence[T] = ()) -> list[T]:
    """n different items, in random order, none of them in `avoid`."""
    found: list[T] = []
    while len(found) < n:
        item = items[int(rng.random() * len(items))]
        if item not in found and item not in avoid:
            found.append(item)
    return found


def _population(rng: random.Random, n: int, attributes: Sequence[Attribute]) -> list[list[Fact]]:
    """n authors with different full names, each a list of facts in the order of the attributes."""
    names = _sample(rng, [f"{first} {last}" for first in FIRST for last in LAST], n)
    taken: list[str] = []
    people = []
    for name in names:
        values: dict[str, str] = {}
        for attribute in attributes:
            own = [
                values[a.key] for a in attributes if a.key in values and a.pool is attribute.pool
            ]
            values[attribute.key] = _sample(rng, attribute.pool, 1, avoid=[*own, *taken])[0]
            if attribute.unique:
                taken.append(values[attribute.key])
        people.append([_fact(rng, name, attribute, values) for attribute in attributes])
    return people


def _fact(rng: random.Random, name: str, attribute: Attribute, values: dict[str, str]) -> Fact:
    """The fact in two question and two answer forms, and wrong answers.

    These avoid the author's own values.
    """
    true = values[attribute.key]
    asked, told = _sample(rng, attribute.questions, 2), _sample(rng, attribute.answers, 2)
    wrong = _sample(rng, attribute.pool, N_WRONG, avoid=list(values.values()))
    return Fact(
        questions=(asked[0].format(name=name), asked[1].format(name=name)),
        answers=(told[0].format(name=name, value=true), told[1].format(name=name, value=true)),
        perturbed=tuple(told[1].format(name=name, value=value) for value in wrong),
    )


def _rows(people: list[list[Fact]]) -> list[Row]:
    return [fact.row() for person in people for fact in person]


def _perturbed(people: list[list[Fact]]) -> list[Row]:
    return [fact.perturbed_row() for person in people for fact in person]


def _ask(kind: Kind, form: int, subject: str) -> str:
    text = kind.questions[form].format(subject=subject)
    return text[0].upper() + text[1:]


def _facts(kinds: Sequence[Kind]) -> tuple[list[Row], list[Row]]:
    """Rows with four options, and rows with three wrong answers; the same for every seed."""
    rng = random.Random(0)
    rows, perturbed = [], []
    for kind in kinds:
        pool = sorted({answer for _, answer in kind.facts})
        for i, (subject, answer) in enumerate(kind.facts):
            question = _ask(kind, i % 3, subject)
            wrong = _sample(rng, pool, 3, avoid=[answer])
            options = _sample(rng, [answer, *wrong], 4)
            named = {f"option{k}": option for k, option in enumerate(options, start=1)}
            rows.append({"question": question} | named | {"answer": answer})
            perturbed.append({"question": question, "answer": answer, "perturbed_answer": wrong})
    return rows, perturbed
