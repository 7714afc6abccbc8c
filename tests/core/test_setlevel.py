"""The stop on the whole forget set: when the set is looked at, and where a run ends."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

import ngdiff as ng
from ngdiff.core.directions import GradAscent, NGDiff
from ngdiff.core.info import ForgetLevel, RetainBound, SetLevel
from ngdiff.core.stepsize import Constant
from tests.core.test_checkpoint import Interrupted, interrupt_at


class Ramp:
    """One number x from 0. Plain ascent of F_t = x + offset_t at rate η moves it to η·t.

    The batch of step t says F_t; the whole set says x, which is what the batches say on average.
    """

    options: ClassVar[dict] = {}
    module = None

    def __init__(self, offsets=(0.0,)):
        self.offsets, self.looks = offsets, []

    def __repr__(self):
        return f"Ramp({self.offsets})"

    def bind(self, method, seed):
        bound = type(self)(self.offsets)
        bound.looks = self.looks
        bound.model = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        bound.parameters = [bound.model]
        return bound

    def optimizer(self, make=None):
        return torch.optim.SGD(self.parameters, lr=1.0)

    def batch(self, step):
        offset = self.offsets[step % len(self.offsets)]
        return lambda: self.model.square().sum() * 0.5 + 1, lambda: self.model.sum() + offset

    def probe(self, step, fresh):
        return None

    def forget_loss(self):
        self.looks.append(self.model.item())
        return self.model.item()


def go(problem, stop, steps=40, eta=0.25, **kw):
    return ng.unlearn(problem, GradAscent(), Constant(eta), steps, stop=stop, **kw)


@pytest.mark.parametrize("level", [0.5, 1.0, 3.0, 3.1])
def test_a_run_ends_where_the_set_passes_whatever_its_batches_say(level):
    """At step t the set is at t/4. Batches are .6 below it and above it in turn."""
    run = go(problem := Ramp((-0.6, 0.6)), SetLevel(level))
    wanted = math.ceil(level / 0.25)
    updates = sum(info.updated for info in run.history)
    ends = problem.looks[-1]
    assert run.stopped == run.history[-1].outcome == "forget_level"
    assert ends == run.model.item() == updates * 0.25 >= level, "before the update"
    # a batch too far below its level hides the set for a step, not for longer
    assert wanted <= updates <= wanted + (level * 0.3 < 0.6)
    assert all(x < level for x in problem.looks[:-1])


def test_one_batch_above_the_level_does_not_end_a_run():
    stop, one = SetLevel(2.0), ForgetLevel(2.0)
    early, late = (go(Ramp((0.0, 1.0)), rule) for rule in (one, stop))
    assert early.model.item() == 1.25 and late.model.item() == 2.0


@pytest.mark.parametrize(("near", "first"), [(0.7, 6), (0.5, 4), (0.0, 0), (1.0, 8)])
def test_the_set_is_looked_at_where_the_batch_is_near(near, first):
    """x = t/4 reaches near·2 at step 8·near; from there on it is looked at every step."""
    run = go(problem := Ramp(), SetLevel(2.0, near))
    assert len(run.history) == 9
    assert problem.looks == [t / 4 for t in range(first, 9)]


def test_far_below_the_level_the_set_is_never_looked_at():
    run = go(problem := Ramp(), SetLevel(100.0), steps=30)
    assert problem.looks == [] and (run.stopped, len(run.history)) == ("steps", 30)


def test_the_look_changes_nothing():
    plain, looked = go(Ramp(), [], steps=12), go(Ramp(), SetLevel(1e9, near=0.0), steps=12)
    assert repr(plain.history) == repr(looked.history)
    assert plain.model.item() == looked.model.item()


def test_a_set_that_is_not_finite_has_not_passed():
    class Broken(Ramp):
        def forget_loss(self):
            return math.nan

    assert go(Broken(), SetLevel(1.0)).stopped == "steps"


def test_it_stands_beside_other_rules_and_each_can_end_a_run():
    rules = [RetainBound(1.5), SetLevel(3.0)]
    assert go(Ramp(), rules).stopped == "retain_bound"  # ½x² > .5 after x = 1
    assert go(Ramp(), [RetainBound(99.0), SetLevel(3.0)]).stopped == "forget_level"
    assert go(Ramp(), ()).stopped == "steps"


def test_a_problem_without_a_forget_set_is_an_error_where_the_set_is_needed():
    pair = ng.quadratics.pair(angle=100, condition=10, dim=3)
    with pytest.raises(AttributeError, match="forget_loss"):
        ng.unlearn(pair, NGDiff(), Constant(0.1), 5, stop=SetLevel(-1e9))


@pytest.mark.parametrize("at", [3, 7, 8])
def test_a_run_goes_on_bit_for_bit(tmp_path, at):
    def run(**kw):
        return go(Ramp((-0.3, 0.3)), SetLevel(2.5), save_every=2, **kw)

    path = tmp_path / "run.safetensors"
    with pytest.raises(Interrupted):
        run(checkpoint=path, progress=interrupt_at(at))
    whole, again = run(), run(checkpoint=path)
    assert repr(whole.history) == repr(again.history) and whole.stopped == again.stopped
    assert whole.model.item() == again.model.item() == 2.5


@pytest.mark.parametrize("other", [SetLevel(2.0), SetLevel(2.5, near=0.5), ForgetLevel(2.5), ()])
def test_a_checkpoint_of_another_stop_is_refused(tmp_path, other):
    """The rule counts as it was given; what it was bound to has an address and is left out."""
    path, stop = tmp_path / "run.safetensors", SetLevel(2.5)
    go(Ramp(), stop, steps=4, checkpoint=path, save_every=2)
    go(Ramp(), replace(stop), steps=5, checkpoint=path, save_every=2)  # an equal one goes on
    with pytest.raises(ValueError, match="another run"):
        go(Ramp(), other, steps=6, checkpoint=path, save_every=2)
