"""Which rows: one spelling for every option, parameter and trial that names them.

    spelling                    rows
    "", "authors"               the generated authors, in TOFU's form
    "news", "dossiers"          the generated news (MUSE's form), dossiers (SemEval's)
    "authors-3", "news-3"       another population of them: the seed of its generator
    "authors-all"               the authors with every retain row, whatever the profile keeps
    "stand-in", "muse:stand-in" the generated ones in a benchmark's form, TOFU's where none is named
    "hub", "muse:hub"           the hub's rows of a benchmark, TOFU's where none is named
    FOLDER, "muse:FOLDER"       a folder; without a name its files say of which benchmark

Where another option has named the benchmark (`ngdiff evaluate --benchmark muse`), no name is
needed, and another one is an error. A folder called as one of these words is spelled "./news".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngdiff.evaluation import suites
from ngdiff.evaluation.suites import SUITES, TOFU, Suite

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.profiles import Profile

HUB, STAND_IN = "hub", "stand-in"


@dataclass(frozen=True)
class Which:
    """Rows of a benchmark. place: "hub", or a folder; "" for the generated stand-in. variant: which
    one of the generated (`Suite.generated`).
    """

    suite: Suite
    place: str = ""
    variant: str = ""

    @property
    def text(self) -> str:
        """The shortest spelling of these rows: one for each place."""
        if self.place:
            return self.real
        name = "-".join(filter(None, (self.suite.stand_in, self.variant)))
        return "" if name == TOFU.stand_in else name

    @property
    def label(self) -> str:
        """The name of these rows in saved rows and tables: no folder of this machine is in it."""
        return f"{self.suite.name} rows" if self.place else self.text or self.suite.stand_in

    @property
    def real(self) -> str:
        """The spelling of real rows, which sets a run apart (`store.paths`); "" of generated."""
        named = self.place and (self.suite is not TOFU or ":" in self.place)
        return f"{self.suite.name}:{self.place}" if named else self.place

    @property
    def root(self) -> Path | None:
        """The folder, None where there is none."""
        return Path(self.place).expanduser() if self.place not in ("", HUB) else None

    def of(self, name: str) -> Which:
        """Return these rows where they are of that benchmark, else its generated ones."""
        wanted = suites.suite(name)
        return self if self.suite is wanted else Which(wanted)

    def need(self, option: str) -> None:
        """Raise FileNotFoundError, naming the option, for a folder that is not there."""
        if self.root is not None and not self.root.is_dir():
            raise FileNotFoundError(
                f"{option} {self.place}: no such folder; give one with the benchmark's rows, or "
                f"{HUB}"
            )

    def resolved(self) -> Which:
        """Return the same rows, a folder by its absolute path."""
        return self if self.root is None else replace(self, place=str(self.root.resolve()))

    def bench(self, P: Profile, split: str = "") -> Benchmark:
        """Return the benchmark that a run of this profile works on; split "" is the default one."""
        if not self.place:
            return self.suite.generated(P, split, self.variant)
        return self.suite.rows(P, split or self.suite.split(P), root=self.root)

    def asked(self, split: str = "", **sources: Any) -> Benchmark:
        """Return the benchmark of an evaluation; of generated ones the tiny profile's."""
        if not self.place:
            return self.suite.generated("tiny", split, self.variant)
        return self.suite.asked(split or self.suite.asked_split, self.root, **sources)


def which(text: str, suite: Suite | None = None) -> Which:
    """Return the rows that a text spells. suite: the benchmark that another option has named.

    `Which.need` tests whether a folder is there. Errors: ValueError for an unknown benchmark before
    the colon, and for rows of another benchmark than `suite`.
    """
    name, colon, place = text.partition(":")
    if not colon or Path(text).expanduser().is_dir():
        name, place = "", text
    named = _named(name, text) if name else suite
    word, _, variant = place.partition("-")
    if made := next((known for known in SUITES if known.stand_in == word), None):
        found = Which(made, variant=_variant(made, variant, text))
    elif place in ("", STAND_IN):
        found = Which(named or TOFU)
    else:
        found = Which(named or _seen(place), place)
    for wanted in filter(None, (named, suite)):
        if found.suite is not wanted:
            raise ValueError(
                f"{text!r} names rows of {found.suite.title}, not of {wanted.title}: leave the "
                "benchmark's name out, or give the rows of that one"
            )
    return found


def _variant(made: Suite, variant: str, text: str) -> str:
    every = made is TOFU and variant == "all"
    if not variant or variant.isdecimal() or every:
        return variant
    raise ValueError(
        f"data={text!r}: write {made.stand_in}, or {made.stand_in}-3 for the population of seed 3"
    )


def _named(name: str, text: str) -> Suite:
    try:
        return suites.suite(name)
    except ValueError as error:
        known = ", ".join(known.name for known in SUITES)
        raise ValueError(
            f"unknown benchmark {name!r} in data={text!r}: write one of {known} before the colon"
        ) from error


def _seen(place: str) -> Suite:
    """Return the benchmark whose files a folder holds, TOFU where it has no mark of another."""
    folder = Path(place).expanduser()
    marked = (s for s in reversed(SUITES) if any((folder / mark).exists() for mark in s.marks))
    return next(marked, TOFU)
