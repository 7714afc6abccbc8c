"""Each variant takes the step that it is called by."""

from __future__ import annotations

import pytest
import torch

from ngdiff.core.autolr import AutoLR
from ngdiff.core.step import UnlearningStep
from ngdiff.engine import meters
from ngdiff.timing import variants
from ngdiff.timing.case import BASES, VARIANTS, Case
from ngdiff.timing.subject import LR, Subject
from ngdiff.timing.variants import EVERY, Variant
from tests.helpers.lines import Curve, valley
from tests.helpers.timed import built


@pytest.mark.parametrize("name", [*VARIANTS, "ngdiff-recompute"])
def test_every_variant_takes_its_own_step(name):
    """One step from the same weights: GradDiff's two forms agree, and so do all forms of NGDiff."""
    made, base = built(name), built("graddiff-one" if name.startswith("graddiff") else "naive")
    before = [p.detach().clone() for p in made.subject.params]
    for one in (made, base):
        one.step()
        assert all(p.grad is None for p in one.subject.params) and one.skipped == 0
    moved, wanted = (
        torch.cat([(p - q).detach().flatten() for p, q in zip(one.subject.params, before)])
        for one in (made, base)
    )
    assert moved.any()
    # Adam's first step is a sign: rounding flips some
    assert torch.cosine_similarity(moved, wanted, dim=0) > 0.98


def test_both_graddiffs_and_naive_ngdiff_are_what_they_claim_on_a_shared_model():
    subject = Subject(Case("micro", 16), "cpu")
    subject.optimizer = torch.optim.SGD(subject.params, lr=1.0)
    start = [p.detach().clone() for p in subject.params]

    def direction(name):
        torch._foreach_copy_([p.data for p in subject.params], start)
        Variant(name, subject).step()
        return torch.cat([(q - p).detach().flatten() for p, q in zip(subject.params, start)])

    g_R, g_F = (
        torch.cat([g.flatten() for g in torch.autograd.grad(subject.loss(k), subject.params)])
        for k in (0, 1)
    )
    graddiff, ours = 0.5 * g_R - 0.5 * g_F, g_R / g_R.norm() - g_F / g_F.norm()
    for name in (*BASES, "ngdiff", "ngdiff-recompute"):
        wanted = graddiff if name.startswith("graddiff") else ours
        assert (direction(name) - wanted).norm() < 1e-5 * wanted.norm(), name


def test_variants_share_one_model_and_no_rate_moves():
    subject = Subject(Case("micro", 16), "cpu")
    variants = [Variant(name, subject) for name in VARIANTS]
    for _ in range(EVERY + 1):
        for v in variants:
            v.step()
            assert [group["lr"] for group in subject.optimizer.param_groups] == [LR], v.name
    assert all(v.skipped == 0 for v in variants)
    assert all(torch.isfinite(p).all() for p in subject.params)


def test_the_peak_of_autolr_is_that_of_a_step_that_probes(monkeypatch):
    probes, real = [], UnlearningStep._probe
    monkeypatch.setattr(UnlearningStep, "_probe", lambda *a: (probes.append(1), real(*a))[1])
    ours = built("ngdiff+autolr", tokens=4)
    for _ in range(3):
        ours.step()
    assert len(probes) == 1
    plain = ours.subject.held() + meters.allocated(ours.step, "cpu")[0]
    peaks = [ours.peak() for _ in range(2)]
    assert len(probes) == 3 and peaks[0] == peaks[1]  # each is a first step again
    assert peaks[0] >= plain


def test_a_steady_probe_is_a_fit_on_as_many_batches_as_the_default_looks_at():
    """Two looks at `fresh` batches each and one at the weights themselves, in EVERY updates."""
    rule = variants._Steady(lr=LR)
    line = Curve(valley(2e-3, 1e6))  # its rate differs from the radius, which must not follow it
    state, looks = rule.init(), []
    for _ in range(2 * EVERY):
        line.looks.clear()
        state = rule.step(state, line if rule.probes(state) else None)
        looks.append(len(line.looks))
        assert state.eta == LR and state.radius == rule.radius
    assert looks == [3, *[0] * (EVERY - 1)] * 2 and rule.fresh == AutoLR().fresh


def test_old_gradients_do_not_count():
    two = built("graddiff-two")
    two.step()
    first = two.peak()
    two.subject.loss(0).backward()
    assert two.peak() == first  # gradients of before, freed in the profiled step, would lower it
