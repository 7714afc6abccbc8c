"""The methods of the package, each one value in one place, in the order of every table and legend.

Weights are the published ones (open-unlearning's γ·forget + α·retain): GradDiff with γ = α = 1 is
2·GradDiff(0.5); NPO takes (1, 1), SimNPO (1, 0.125). To add a method, write one more statement
`name = _add(Method(…))` here: its name on the command line, label, colour, comparisons and
published settings are read from it.

Tags: `rival`, in every comparison; `weighted`, its retain weight is tuned beside its rate
(`candidates`); `published`, beside the rivals in the tables of TOFU; `semeval`, a baseline of
SemEval-2025 Task 4's organisers; `composed`, a rule on objectives it was not published with.

"NPO(0.9)" is NPO with the retain weight c = 0.9 and the forget weight 1 − c, as in GradDiff(0.9).
"""

from __future__ import annotations

import re
from dataclasses import replace

from ngdiff.core import directions as rules
from ngdiff.methods import baselines
from ngdiff.methods.definition import Defaults, Look, Method
from ngdiff.methods.objectives import KL, NPO, Objective, SimNPO

METHODS: dict[str, Method] = {}  # key -> method, in the order of the tables


def _add(method: Method) -> Method:
    METHODS[method.key] = method
    return method


OPEN = "open-unlearning"
PAPER = "Bu, Jin et al. 2025, in the others' budget"

ngdiff = _add(
    Method(
        "NGDiff",
        rules.NGDiff(),
        look=Look("#000000"),
        defaults=Defaults(None, None, f"{PAPER}; the rate is where AutoLR starts"),
    )
)
ngdiff_npo = _add(
    Method(
        "NGDiff on NPO",
        rules.NGDiff(),
        forget=NPO(),
        look=Look("#444444", "--"),
        tags=("composed",),
    )
)
ngdiff_kl = _add(
    Method(
        "NGDiff on KL", rules.NGDiff(), retain=KL(), look=Look("#777777", ":"), tags=("composed",)
    )
)
gradascent = _add(
    Method(
        "GradAscent",
        rules.GradAscent(),
        look=Look("#D55E00"),
        tags=("rival", "semeval"),
        defaults=Defaults(1.0, 0.0, OPEN),
    )
)
_add(Method("GradDiff(0.1)", rules.GradDiff(0.1), look=Look("#F0C300")))
_add(
    Method(
        "GradDiff(0.5)",
        rules.GradDiff(0.5),
        look=Look("#E69F00"),
        tags=("rival", "semeval"),
        defaults=Defaults(1.0, 1.0, OPEN),
    )
)
_add(Method("GradDiff(0.9)", rules.GradDiff(0.9), look=Look("#B06A00"), tags=("rival",)))
_add(Method("GradDiff(0.99)", rules.GradDiff(0.99), look=Look("#6B3F00"), tags=("rival",)))
kl = _add(
    Method(
        "KL",
        rules.Sum(),
        retain=KL(),
        look=Look("#56B4E9"),
        tags=("rival", "weighted", "semeval"),
        defaults=Defaults(1.0, 1.0, "TOFU"),
    )
)
lossnorm = _add(
    Method(
        "LossNorm",
        rules.LossNorm(),
        look=Look("#009E73"),
        tags=("rival",),
        defaults=Defaults(None, None, PAPER),
    )
)
npo = _add(
    Method(
        "NPO",
        rules.Sum(),
        forget=NPO(),
        look=Look("#0072B2"),
        tags=("rival", "weighted", "semeval"),
        defaults=Defaults(1.0, 1.0, OPEN, options={"beta": 0.1}),
    )
)
simnpo = _add(
    Method(
        "SimNPO",
        rules.Sum(forget=0.125),
        forget=SimNPO(),
        look=Look("#CC79A7"),
        tags=("rival", "weighted"),
        defaults=Defaults(0.125, 1.0, OPEN, options={"beta": 4.5, "delta": 0.0}),
    )
)
dpo = _add(
    Method(
        "DPO",
        rules.Sum(),
        forget=baselines.DPO(),
        look=Look("#332288"),
        tags=("published",),
        defaults=Defaults(1.0, 1.0, OPEN, options={"beta": 0.1}),
    )
)
rmu = _add(
    Method(
        "RMU",
        rules.Sum(),
        retain=baselines.RMURetain(),
        forget=baselines.RMU(),
        look=Look("#117733"),
        tags=("rival", "weighted"),
        defaults=Defaults(1.0, 1.0, OPEN, options={"c": 2.0, "layer": 7}),
    )
)
undial = _add(
    Method(
        "UNDIAL",
        rules.GradAscent(),  # α = 0: its retain loss is only watched
        forget=baselines.UNDIAL(),
        look=Look("#999933", "--"),
        tags=("published",),
        defaults=Defaults(1.0, 0.0, OPEN, lr=1e-4, options={"beta": 10.0}),
    )
)
wga = _add(
    Method(
        "WGA",
        rules.Sum(),
        forget=baselines.WGA(),
        look=Look("#AA4499", "--"),
        tags=("rival", "weighted"),
        defaults=Defaults(1.0, 1.0, OPEN, epochs=5, options={"beta": 1.0}),
    )
)
satimp = _add(
    Method(
        "SatImp",
        rules.Sum(forget=0.1),
        forget=baselines.SatImp(),
        look=Look("#CC6677", "-."),
        tags=("published",),
        defaults=Defaults(0.1, 1.0, OPEN, epochs=5, options={"beta1": 5.0, "beta2": 1.0}),
    )
)
ceu = _add(
    Method(
        "CE-U",
        rules.GradAscent(),
        forget=baselines.CEU(),
        key="ceu",
        look=Look("#88CCEE", "-."),
        tags=("published",),
        defaults=Defaults(1.0, 0.0, OPEN),
    )
)
retain_ft = _add(
    Method(
        "Retain-only fine-tuning",
        rules.GradDiff(1.0),
        key="retain-ft",
        look=Look("#A67B5B", ":"),
        tags=("published",),
        defaults=Defaults(0.0, 1.0, "GradDiff's, without forgetting"),
    )
)
pcgrad = _add(Method("PCGrad", rules.PCGrad(), look=Look("#882255")))
mgda = _add(Method("MGDA", rules.MGDA(), look=Look("#44AA99")))


MIXED = "graddiff-"  # how the keys of GradDiff with a fixed c begin
WEIGHTS = (0.5, 0.9, 0.99)  # the retain weights that a comparison tries


def mixtures() -> tuple[str, ...]:
    """Return the keys of the package's GradDiff(c)."""
    return tuple(key for key in METHODS if key.startswith(MIXED))


def graddiff(c: float) -> Method:
    """Return GradDiff with that c: the package's where it has one, else a new method."""
    near = min(mixtures(), key=lambda key: abs(float(key.removeprefix(MIXED)) - c))
    look = replace(METHODS[near].look, dashes=":")  # the colour of the nearest one
    fresh = Method(f"GradDiff({c:g})", rules.GradDiff(c), look=look)
    return METHODS.get(fresh.key, fresh)


def weighted(name: str, c: float) -> Method:
    """Return a method with the retain weight c and the forget weight 1 − c in place of its own.

    name: the key of one whose two losses carry fixed weights. Errors: ValueError for another.
    """
    if name not in tagged("weighted"):
        known = ", ".join(tagged("weighted"))
        raise ValueError(f"{name} has no retain weight to choose; these have: {known}")
    base = METHODS[name]
    return replace(
        base,
        name=f"{base.name}({c:g})",
        direction=rules.GradDiff(c),
        key=f"{name}-{c:g}",
        tags=(),
        defaults=None,
    )


def family(key: str) -> str:
    """Return the key of the method whose retain weight was chosen: "npo" of "npo-0.9"."""
    name, c = _weight(key)
    return name if c is not None and name in tagged("weighted") else key


def candidates(name: str) -> tuple[str, ...]:
    """Return the keys that tuning chooses from for a method: itself, or a key for each weight."""
    every = "weighted" in METHODS[name].tags if name in METHODS else False
    return tuple(weighted(name, c).key for c in WEIGHTS) if every else (name,)


def named(key: str) -> Method | None:
    """Return the package's method of that key, one with a weight in it too; None for another."""
    name, c = _weight(key)
    if c is None:
        return METHODS.get(key)
    if name == "graddiff":
        return graddiff(c)
    return weighted(name, c) if name in tagged("weighted") else None


def _weight(key: str) -> tuple[str, float | None]:
    """Return the name and the weight in a key; weight None where the key is all name."""
    name, _, number = key.rpartition("-")
    if key in METHODS or not re.fullmatch(r"0?\.\d+", number):
        return key, None
    return name, float(number)


def tagged(*tags: str) -> tuple[str, ...]:
    """Return the keys of the methods that have one of these tags, in the order of the tables."""
    return tuple(key for key, known in METHODS.items() if set(tags) & set(known.tags))


def named_objectives() -> dict[str, tuple[str, Objective]]:
    """Return every objective of the methods, by name: the rows it looks at, and itself.

    `ce_retain` and `ce_forget` are the cross-entropies. Others bear the key of the first method
    that has them; where a method brings two of its own, its retain objective ends in `_retain`.
    """
    plain = Method("CE", rules.GradDiff())
    found: dict[str, tuple[str, Objective]] = {
        "ce_retain": ("retain", plain.retain),
        "ce_forget": ("forget", plain.forget),
    }
    for method in sorted(METHODS.values(), key=lambda m: "composed" in m.tags):
        both = method.retain != plain.retain and method.forget != plain.forget
        retain, forget = ("retain", method.retain), ("forget", method.forget)
        for name, pair in ((method.key + "_retain" * both, retain), (method.key, forget)):
            if pair not in found.values():
                found[name] = pair
    return found
