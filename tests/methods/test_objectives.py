"""Objectives against numbers worked out by hand and against one plain loop over rows and tokens."""

from __future__ import annotations

import math

import pytest
import torch

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.stepsize import Constant
from ngdiff.lm.tokens import IGNORE
from ngdiff.methods.objectives import CE, KL, NPO, SimNPO, Tokens, start_values, token_counts
from tests.helpers import micro

LN2 = math.log(2)
OBJECTIVES = [CE(), KL(), NPO(), NPO(beta=0.7), SimNPO(), SimNPO(beta=2.0, delta=0.5)]
EACH = pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)


def value(objective, tokens, labels, start=None):
    return objective.sums(tokens, start).sum() / objective.counts(labels).sum()


# ------------------------------------------------------------------------------------------ by hand
# p(v) = 1/2, 1/4, 1/4 at every position; row 0 has the answer 0 1 2, row 1 the answer 1, then
# padding.
P_START, P_OTHER = (0.5, 0.25, 0.25), (0.7, 0.2, 0.1)
HALF = torch.tensor(P_START, dtype=torch.float64).log()
LABELS = torch.tensor([[IGNORE, 0, 1, 2], [IGNORE, IGNORE, 1, IGNORE]])


def hand(labels=LABELS, logp=HALF):
    return Tokens(logp.expand(*labels.shape, 3), labels)


def test_tokens_by_hand():
    tokens = hand()
    assert tokens.target.tolist() == [0, 1, 2, 1] and tokens.row.tolist() == [0, 0, 0, 1]
    assert (tokens.nll / LN2).tolist() == pytest.approx([1, 2, 2, 2], rel=1e-14)
    assert (tokens.by_row(tokens.nll) / LN2).tolist() == pytest.approx([5, 2], rel=1e-14)
    assert token_counts(LABELS).tolist() == [3, 1]


def test_a_label_is_predicted_one_position_earlier_and_the_first_one_never():
    logits = torch.arange(24.0, dtype=torch.float64).reshape(1, 4, 6)
    labels = torch.tensor([[5, IGNORE, 3, 0]])
    tokens = Tokens(logits, labels)
    assert torch.equal(tokens.logits, logits[0, [1, 2]]) and tokens.target.tolist() == [3, 0]
    assert token_counts(labels).tolist() == [2]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_logits_are_never_less_than_float32(given, kept):
    assert hand(logp=HALF.to(given)).logits.dtype == kept


def test_ce_is_a_mean_over_tokens_not_over_rows():
    # of row means: 11/6·ln 2
    assert value(CE(), hand(), LABELS).item() == pytest.approx(7 / 4 * LN2, rel=1e-14)


def test_kl_by_hand():
    start = hand().logits.log_softmax(-1)
    other = hand(logp=HALF[[1, 0, 2]])  # p_θ = 1/4, 1/2, 1/4 against p_start = 1/2, 1/4, 1/4
    assert value(KL(), other, LABELS, start).item() == pytest.approx(LN2 / 4, rel=1e-14)
    uneven = HALF.new_tensor(P_OTHER).log()
    there, back = (
        sum(p * math.log(p / q) for p, q in zip(*pair))
        for pair in ((P_START, P_OTHER), (P_OTHER, P_START))
    )
    assert value(KL(), hand(logp=uneven), LABELS, start).item() == pytest.approx(there, rel=1e-13)
    assert there != pytest.approx(back, rel=0.05)  # so the order of the two is tested


def test_npo_starts_at_minus_two_over_beta_ln_2():
    start = torch.tensor([5 * LN2, 2 * LN2], dtype=torch.float64)
    assert -value(NPO(), hand(), LABELS, start).item() == pytest.approx(13.863, abs=5e-4)
    assert value(NPO(beta=0.4), hand(), LABELS, start).item() == pytest.approx(-5 * LN2, rel=1e-14)


def test_npo_by_hand_is_bounded_and_rises_as_rows_are_forgotten():
    nll = torch.tensor([5 * LN2, 2 * LN2], dtype=torch.float64)
    seen = {}
    for forgotten in (-10.0, 0.0, 10.0, 1e4):  # nats that each row's summed NLL has risen by
        seen[forgotten] = value(NPO(), hand(), LABELS, nll - forgotten).item()
    assert seen[10.0] == pytest.approx(-20 * math.log1p(math.exp(-1)), rel=1e-14)
    assert seen[-10.0] == pytest.approx(-20 * math.log1p(math.e), rel=1e-14)
    assert seen[-10.0] < seen[0.0] < seen[10.0] < seen[1e4] == 0.0
    one = value(NPO(), hand(), LABELS, nll - torch.tensor([10.0, 0.0])).item()  # each row by itself
    assert one == pytest.approx((seen[10.0] + seen[0.0]) / 2, rel=1e-14)


def test_simnpo_by_hand():
    each = [-2 / 4.5 * math.log1p(math.exp(-4.5 * mean)) for mean in (5 / 3 * LN2, 2 * LN2)]
    assert value(SimNPO(), hand(), LABELS).item() == pytest.approx(sum(each) / 2, rel=1e-14)
    centred = SimNPO(beta=3.0, delta=2 * LN2)
    labels = LABELS[1:]  # mean NLL = δ: σ is ½
    assert value(centred, hand(labels), labels).item() == pytest.approx(-2 / 3 * LN2, rel=1e-14)


@pytest.mark.parametrize("objective", [NPO, SimNPO])
@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_beta_is_positive(objective, beta):
    with pytest.raises(ValueError, match=rf"{objective.__name__} needs beta > 0, got {beta}"):
        objective(beta=beta)


# -------------------------------------------------------------- one plain loop over rows and tokens
def naive(objective, logits, labels, start_logits):
    """The formulas of the literature as loops in float64, row by row."""
    rows, n = [], 0
    for z, y, s in zip(logits.double(), labels.tolist(), start_logits.double()):
        at = [t for t in range(1, len(y)) if y[t] != IGNORE]
        logp = [z[t - 1] - z[t - 1].exp().sum().log() for t in at]
        logp_start = [s[t - 1] - s[t - 1].exp().sum().log() for t in at]
        nll = -sum(p[y[t]] for p, t in zip(logp, at))
        nll_start = -sum(p[y[t]] for p, t in zip(logp_start, at))
        n += len(at)
        match objective:
            case CE():
                rows.append(nll)
            case KL():
                rows.append(sum((q.exp() * (q - p)).sum() for p, q in zip(logp, logp_start)))
            case NPO(beta):
                rows.append(-2 / beta * torch.log1p(torch.exp(-beta * (nll - nll_start))))
            case SimNPO(beta, delta):
                rows.append(-2 / beta * torch.log1p(torch.exp(-beta * (nll / len(at) - delta))))
    return torch.stack(rows).sum() / (n if isinstance(objective, (CE, KL)) else len(rows))


def random_batch(dtype, seed=0):
    """Logits of (rows, time, V) = (5, 9, 11) and labels of unequal lengths: padding right of an
    answer, prompts left.
    """
    make = torch.Generator().manual_seed(seed)
    logits, start = (
        3 * torch.randn(5, 9, 11, generator=make, dtype=torch.float64) for _ in range(2)
    )
    labels = torch.randint(0, 11, (5, 9), generator=make)
    for row, (first, last) in enumerate([(1, 9), (4, 5), (3, 7), (2, 3), (6, 9)]):
        labels[row, :first], labels[row, last:] = IGNORE, IGNORE
    return logits.to(dtype).requires_grad_(), start.to(dtype), labels


def start_of(objective, start, labels):
    return (
        torch.cat(start_values(objective.start, Tokens(start, labels))) if objective.start else None
    )


@EACH
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str
)
def test_objectives_equal_the_plain_loop(objective, dtype, tolerance):
    logits, start, labels = random_batch(dtype)
    fast = value(objective, Tokens(logits, labels), labels, start_of(objective, start, labels))
    slow = naive(objective, logits, labels, start)
    assert fast.item() == pytest.approx(slow.item(), rel=tolerance)
    ours, theirs = (torch.autograd.grad(v, logits)[0] for v in (fast, slow))
    assert (ours - theirs).norm() <= tolerance * theirs.norm()
    assert not ours[labels.roll(-1, 1) == IGNORE].any()  # prompts and padding get no gradient


@EACH
def test_parts_of_a_batch_add_up(objective):
    logits, start, labels = random_batch(torch.float64)
    whole = value(objective, Tokens(logits, labels), labels, start_of(objective, start, labels))
    total = objective.counts(labels).sum()
    parts = []
    for rows in ([0, 1], [2], [3, 4]):
        values = start_of(objective, start[rows], labels[rows])
        parts.append(objective.sums(Tokens(logits[rows], labels[rows]), values).sum() / total)
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-14)


def test_start_values_are_one_tensor_a_row():
    _, start, labels = random_batch(torch.float64)
    nll, logp = (start_values(kind, Tokens(start, labels)) for kind in ("nll", "logp"))
    assert [v.shape for v in nll] == [(1,)] * 5
    assert [tuple(v.shape) for v in logp] == [(n, 11) for n in token_counts(labels).tolist()]
    assert torch.allclose(torch.cat(logp).exp().sum(-1), torch.ones(17, dtype=torch.float64))


# ------------------------------------------------------------------------------------- as gradients
@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if o != KL()], ids=repr)
def test_ascending_a_forget_objective_forgets_every_row(objective):
    logits, start, labels = random_batch(torch.float64)
    tokens = Tokens(logits, labels)
    F = value(objective, tokens, labels, start_of(objective, start, labels))
    ours, nll = (
        torch.autograd.grad(v, logits, retain_graph=True)[0].flatten(1)
        for v in (F, tokens.nll.sum())
    )
    cosine = (ours * nll).sum(1) / ours.norm(dim=1) / nll.norm(dim=1)
    # each row's NLL rises, with a weight of its own
    assert cosine.tolist() == pytest.approx([1] * 5, rel=1e-12)


def test_npo_at_the_start_is_half_weighted_ascent_on_summed_nll():
    logits, _, labels = random_batch(torch.float64)
    tokens = Tokens(logits, labels)
    F = value(NPO(), tokens, labels, start_of(NPO(), logits.detach(), labels))
    summed = tokens.by_row(tokens.nll).mean()
    ours, plain = (torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (F, summed))
    assert torch.allclose(ours, plain, rtol=1e-12, atol=0)  # dF/dnll = 2·σ(0) = 1


def test_kl_at_the_start_is_zero_and_so_is_its_gradient():
    logits = 5 * torch.randn(4, 20, 1000, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 1000, (4, 20), generator=torch.Generator().manual_seed(1))
    kl = value(
        KL(),
        Tokens(logits.requires_grad_(), labels),
        labels,
        start_of(KL(), logits.detach(), labels),
    )
    kl.backward()
    # through log_softmax: about 1e-7 of p for each token
    assert kl.item() == 0 and not logits.grad.any()


def test_what_rounding_makes_of_kl_at_the_start_is_named_zero_retain():
    """A row's stored log p may come from a batch of another width: rounding, below the floor, never
    a direction.
    """
    problem = ng.problem(micro.bench(), micro.lm(), batch_size=3)
    (loss,) = problem.bind(methods.ngdiff_kl, 0).batch(0)[0]  # fills the store
    for key, stored in problem._starts.values.items():
        problem._starts.values[key] = stored * (
            1 + 1e-7 * torch.randn(stored.shape, generator=torch.Generator().manual_seed(0))
        )
    (loss,) = problem.bind(methods.ngdiff_kl, 0).batch(0)[0]
    loss().sum().backward()
    noise = (
        torch.cat([p.grad.flatten() for p in loss.model.parameters() if p.grad is not None])
        .norm()
        .item()
    )
    assert 1e-9 < noise < KL.floor, "what this test is about"
    run = ng.unlearn(problem, methods.ngdiff_kl, Constant(1e-2), steps=2)
    first, second = run.history
    assert (first.outcome, first.a, first.norm_R) == ("zero_retain", 0.0, 0.0) and abs(
        first.retain
    ) < 1e-6
    assert first.b * first.norm_F == pytest.approx(1)
    assert (
        second.outcome == "ok"
        and second.retain > 1e-4
        and second.a * second.norm_R == pytest.approx(1)
    )


def test_kl_bears_vocabulary_entries_that_are_masked_out():
    logits = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    logits[..., 2] = -math.inf
    labels = torch.tensor([[IGNORE, 1, 3, 5]])
    start = start_of(KL(), logits.clone(), labels)
    moved = (logits + 0.1 * torch.arange(6)).requires_grad_()
    kl = value(KL(), Tokens(moved, labels), labels, start)
    kl.backward()
    keep = [0, 1, 3, 4, 5]
    p, q = (x.detach()[0, :3, keep].log_softmax(-1) for x in (logits, moved))
    assert kl.item() == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-5)
    assert torch.isfinite(moved.grad).all() and moved.grad.any()


def test_a_floor_rises_with_the_coarseness_of_the_logits():
    logits, labels = torch.randn(1, 3, 5), torch.tensor([[IGNORE, 1, 2]])
    coarse = {
        dtype: Tokens(logits.to(dtype), labels).coarse
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
    }
    assert coarse == {torch.float64: 1.0, torch.float32: 1.0, torch.bfloat16: 2.0**12}
