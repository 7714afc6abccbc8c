"""A profile so small that a trial takes a second: four authors, one layer.

Workers of `run_all` import `run` from here.
"""

from __future__ import annotations

from dataclasses import replace

from ngdiff import profiles
from ngdiff.profiles import TinyLM, Training
from ngdiff.study import trials

MICRO = replace(
    profiles.profile("tiny"),
    name="micro",
    authors=4,
    questions=6,
    lm=TinyLM(hidden=32, layers=1, heads=2, intermediate=64, vocab=512, context=128),
    training=Training(epochs=16, pretrain_epochs=5, lr=1.5e-2, batch_size=16, replay=0.5),
    steps=5,
    batch_size=4,
    max_new_tokens=8,
)
KNOWN = (*profiles._PROFILES, MICRO)
_run = trials.run


def run(trial: trials.Trial, refresh: bool = False) -> trials.Row:
    """`trials.run` in a process that has not heard of the profile."""
    profiles._PROFILES = KNOWN
    return _run(trial, refresh)
