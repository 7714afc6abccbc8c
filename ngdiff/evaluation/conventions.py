"""The published conventions: each benchmark's own code, where it does something else than its definition says.

"ngdiff" is the definition, corrected. The others are there because their numbers must be comparable.

    tofu             locuslab/tofu: the answer tag ("Answer: ") is labelled as well, and left out of what generation is given;
                     prompt and answer have 200 tokens together, of more the rest is cut off, and no EOS follows
                     (in training, and in `ngdiff losses`, 500; shorter rows are padded to that by EOS)
    open-unlearning  locuslab/open-unlearning: 1e-10 in denominators; extraction strength never below 1/n; the answer begins
                     after as many tokens as the prompt has alone, so one made of the prompt's last space and the answer's
                     first word is not labelled; a chat template renders the answer too, EOS is added where it does not end so;
                     without one, prompt and answer are cut to 512 tokens before that; documents get no EOS;
                     the mask hides every token of the padding's id, EOS where the tokenizer came without a padding token
    muse             swj0419/muse_bench: as the definition, ROUGE without a stemmer
    semeval          the task's evaluator: bfloat16, one row at a time; input and output joined by nothing for its `nll`
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Convention:
    """eps: added to denominators. floor: extraction strength is 1/n where nothing matches. labels: where the answer's labels
    begin, "answer" (its first token), "tag" (the answer tag before it) or "alone" (after the tokens of the prompt alone).
    stemmer: of MUSE's ROUGE. cut: tokens of a row that are looked at, EOS not counted. longest: tokens of prompt and generation
    together. trained: what `cut` is in training, where rows are also padded to it."""

    name: str
    eps: float = 0.0
    floor: bool = False
    labels: str = "answer"
    stemmer: bool = False
    cut: int | None = None
    longest: int | None = None
    trained: int | None = None


CONVENTIONS = {
    c.name: c
    for c in (
        Convention("ngdiff"),
        Convention("tofu", labels="tag", cut=200, longest=200, trained=500),
        Convention("open-unlearning", eps=1e-10, floor=True, labels="alone", stemmer=True, cut=512),
        Convention("muse"),
        Convention("semeval"),
    )
}


SUITES = {
    "tofu": ("ngdiff", "tofu", "open-unlearning"),
    "muse": ("ngdiff", "muse", "open-unlearning"),
    "semeval": ("ngdiff", "semeval"),
}  # which of them speak of which benchmark


def convention(name: str | Convention, suite: str | None = None) -> Convention:
    """The convention of that name; a Convention comes back as it is.

    Errors: ValueError, listing the known names, for another one, and for one that does not speak of the benchmark `suite`.
    """
    if isinstance(name, Convention):
        return name
    known = SUITES.get(suite or "", tuple(CONVENTIONS))
    if name not in known:
        what = (
            f"the convention {name!r} says nothing of {suite}"
            if name in CONVENTIONS
            else f"unknown convention {name!r}"
        )
        raise ValueError(f"{what}: choose one of {', '.join(map(repr, known))}")
    return CONVENTIONS[name]
