"""What each method is called in legends and tables, and its place in their order. Imports no torch.

A method is named as on the command line ("graddiff-0.5"), as in a legend ("GradDiff(0.5)") or by
its rule's repr: all find the same label.
"""

from __future__ import annotations

from collections.abc import Iterable

# command-line name -> legend name, in the order of every table and legend
LABELS = {
    "ngdiff": "NGDiff",
    "ngdiff-npo": "NGDiff on NPO",
    "ngdiff-kl": "NGDiff on KL",
    "gradascent": "GradAscent",
    "graddiff-0.1": "GradDiff(0.1)",
    "graddiff-0.5": "GradDiff(0.5)",
    "graddiff-0.9": "GradDiff(0.9)",
    "graddiff-0.9-npo": "GradDiff(0.9) on NPO",
    "kl": "KL",
    "lossnorm": "LossNorm",
    "npo": "NPO",
    "simnpo": "SimNPO",
    "dpo": "DPO",
    "rmu": "RMU",
    "undial": "UNDIAL",
    "wga": "WGA",
    "satimp": "SatImp",
    "ceu": "CE-U",
    "retain-ft": "Retain-only fine-tuning",
    "pcgrad": "PCGrad",
    "mgda": "MGDA",
}
_BY_LABEL = {label: name for name, label in LABELS.items()}


def name_of(method: str) -> str:
    """The command-line name behind a name, a legend or a rule's repr ("NGDiff()",
    "GradDiff(c=0.5)").
    """
    text = method.removesuffix("()").replace("(c=", "(")
    return method if method in LABELS else _BY_LABEL.get(text, text)


def label(method: str) -> str:
    """The method's name in legends and tables."""
    return LABELS.get(name_of(method), name_of(method))


def ordered(methods: Iterable[str]) -> list[str]:
    """Methods in the order of every table; unknown ones last, by name."""
    place = {name: i for i, name in enumerate(LABELS)}
    return sorted(methods, key=lambda m: (place.get(name_of(m), len(place)), m))
