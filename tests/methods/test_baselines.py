"""The other baselines: numbers by hand, one plain loop, closed-form gradients, published defects,
refusals, activations.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import transformers
from torch.nn import functional as fn

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.directions import NGDiff
from ngdiff.core.stepsize import Constant
from ngdiff.evaluation.conventions import convention
from ngdiff.lm import lora
from ngdiff.lm.tokens import IGNORE, Example
from ngdiff.methods import refusals, variants
from ngdiff.methods.baselines import CEU, DPO, RMU, UNDIAL, WGA, RMURetain, SatImp, control
from ngdiff.methods.definition import Method
from ngdiff.methods.loss import forward
from ngdiff.methods.objectives import CE, KL, Tokens, start_values, token_counts
from ngdiff.methods.problem import LMProblem
from ngdiff.methods.refusals import REFUSALS, refusal
from tests.helpers import micro
from tests.methods.test_objectives import HALF, LABELS, LN2, hand, random_batch, value
from tests.methods.test_problem import BENCH, problem, weights

TOKENWISE = [
    UNDIAL(),
    UNDIAL(beta=0.7),
    WGA(),
    WGA(beta=2.0),
    WGA(beta=0.0),
    SatImp(),
    SatImp(0.5, 3.0),
    CEU(),
]
HIDDEN = [RMU(), RMU(c=0.5, seed=3), RMURetain()]
OPEN = [
    variants.PaddedKL(),
    variants.PaddedUNDIAL(),
    variants.BroadcastRMU(),
    variants.BroadcastRMURetain(),
]


# ------------------------------------------------------------------------------------------ by hand
# p(v) = 1/2, 1/4, 1/4 at every position; row 0 has the answer 0 1 2, row 1 the answer 1, then
# padding.
def test_dpo_by_hand():
    """Rows 0 and 1 are a pair: answer 0 1 2 with nll 5·ln 2, refusal 1 with nll 2·ln 2."""
    nll = torch.tensor([5 * LN2, 2 * LN2], dtype=torch.float64)
    assert DPO().counts(LABELS).tolist() == [1]
    # the start: (2/β)·ln 2
    assert -value(DPO(), hand(), LABELS, nll).item() == pytest.approx(13.863, abs=5e-4)
    # the answer has lost 3 nats, the refusal has gained 4: seven in favour
    moved = nll + torch.tensor([-3.0, 4.0])
    wanted = -20 * math.log1p(math.exp(-0.7))
    assert value(DPO(), hand(), LABELS, moved).item() == pytest.approx(wanted, rel=1e-14)
    swapped = value(DPO(), hand(LABELS.flip(0)), LABELS, moved.flip(0)).item()
    assert swapped == pytest.approx(-20 * math.log1p(math.exp(0.7)), rel=1e-14)
    assert value(DPO(), hand(), LABELS, nll + torch.tensor([-9e4, 9e4])).item() == 0.0


def test_dpo_pairs_each_answer_with_its_own_refusal():
    labels = torch.cat([LABELS, LABELS.flip(0)])
    start = torch.tensor([5, 2, 2, 5], dtype=torch.float64) * LN2 + torch.tensor(
        [1.0, 0.0, 0.0, 10.0]
    )
    each = [-20 * math.log1p(math.exp(-0.1 * gain)) for gain in (-1.0, 10.0)]
    assert DPO().counts(labels).tolist() == [1, 1]
    assert DPO().sums(hand(labels), start).tolist() == pytest.approx(each, rel=1e-14)


def test_undial_by_hand():
    """β = ln 2 halves the label's probability: of ½ the targets are uniform, of ¼ they are 4/7,
    1/7, 2/7.
    """
    start = hand().logits.log_softmax(-1)
    wanted = -(5 / 3 + 3 * 10 / 7) / 4 * LN2
    assert value(UNDIAL(beta=LN2), hand(), LABELS, start).item() == pytest.approx(wanted, rel=1e-14)
    shifted = start + 3.0  # of logits and of log p the softmax is the same
    assert value(UNDIAL(beta=LN2), hand(), LABELS, shifted).item() == pytest.approx(
        wanted, rel=1e-14
    )


@pytest.mark.parametrize(
    ("objective", "wanted"),
    [
        (WGA(), (0.5 + 3 * 0.25 * 2) / 4),
        (WGA(beta=2.0), (0.25 + 3 * 0.0625 * 2) / 4),
        (WGA(beta=0.0), 7 / 4),
        (SatImp(1.0, 1.0), (0.25 + 3 * 0.25 * 0.75 * 2) / 4),
        (SatImp(), (2**-6 + 3 * 2**-10 * 0.75 * 2) / 4),
        (SatImp(0.0, 0.0), 7 / 4),
        # the first tokens are left out, and row 1 has no other; q = 2/3 on the ½ and 1/3 on the ¼
        (CEU(), -4 / 3),
    ],
    ids=repr,
)
def test_tokenwise_objectives_by_hand(objective, wanted):
    assert value(objective, hand(), LABELS).item() == pytest.approx(wanted * LN2, rel=1e-14)


def test_ceu_leaves_out_the_first_answer_token_wherever_it_stands():
    labels = torch.tensor([[0, 1, 2, 0], [IGNORE, 1, 0, IGNORE], [IGNORE, IGNORE, 1, IGNORE]])
    # of a document the first has no prediction anyway
    assert hand(labels).order.tolist() == [2, 3, 4, 1, 2, 1]
    assert CEU().counts(labels).tolist() == [3, 1, 0]
    after = [4 / 3, 4 / 3, 2.0]  # of labels 1, 2 and 0: without it q = ½ on both quarters
    assert (CEU().sums(hand(labels), None) / -LN2).tolist() == pytest.approx(
        [sum(after), 2.0, 0.0], rel=1e-14
    )


def activations(labels=LABELS):
    """h = (row + 1)·(t, 2t), so that each position tells where it was taken."""
    t = torch.arange(labels.shape[1], dtype=torch.float64)
    h = torch.stack([t, 2 * t], -1) * torch.arange(1.0, len(labels) + 1)[:, None, None].double()
    return Tokens(HALF.expand(*labels.shape, 3), labels, h)


def test_activations_are_those_of_the_answer_tokens_themselves():
    """Not of the positions that predict them: published code masks with the labels as they are."""
    tokens = activations()
    assert tokens.hidden.tolist() == [[1, 2], [2, 4], [3, 6], [4, 8]] and tokens.place.tolist() == [
        0,
        0,
        0,
        1,
    ]
    labels = LABELS.clone()
    labels[0, 0] = 2  # of a document the first token too
    assert activations(labels).hidden[0].tolist() == [0, 0] and token_counts(labels).tolist() == [
        3,
        1,
    ]


def test_rmu_by_hand():
    goal = RMU(c=3.0, seed=1)
    u = 3.0 * control(2, 1).double()

    def square(t, k):
        return ((k * torch.tensor([t, 2.0 * t]).double() - u) ** 2).mean().item()

    # a mean of row means, not of tokens
    wanted = -(sum(square(t, 1) for t in (1, 2, 3)) / 3 + square(2, 2)) / 2
    assert goal.counts(LABELS).tolist() == [1, 1]
    assert value(goal, activations(), LABELS).item() == pytest.approx(wanted, rel=1e-7)


def test_the_distance_that_rmu_retains_by_hand():
    start = torch.cat(start_values("hidden", activations()))
    assert value(RMURetain(), activations(), LABELS, start).item() == 0.0
    start = start + torch.tensor([[1.0, 0], [0, 2], [0, 0], [3, 1]]).double()
    assert value(RMURetain(), activations(), LABELS, start).item() == pytest.approx(
        ((0.5 + 2) / 3 + 5) / 2, rel=1e-14
    )


def test_the_control_vector_is_the_published_draw():
    torch.manual_seed(0)
    drawn = torch.rand(1, 1, 64)
    state = torch.random.get_rng_state()
    u = control(64)
    assert torch.equal(torch.random.get_rng_state(), state), "no global generator is touched"
    assert (
        torch.equal(u, (drawn / torch.norm(drawn))[0, 0])
        and (u > 0).all()
        and u.norm() == pytest.approx(1)
    )
    assert not torch.equal(control(64, seed=1), u)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPO(beta=0.0), "DPO needs beta > 0, got 0.0"),
        (lambda: WGA(beta=-1.0), "WGA needs beta ≥ 0, got -1.0"),
        (lambda: SatImp(5.0, -1.0), "SatImp needs beta2 ≥ 0, got -1.0"),
        (lambda: RMU(layer=-1), "RMU needs layer ≥ 0, got -1"),
        (lambda: RMURetain(layer=-1), "RMURetain needs layer ≥ 0"),
        (lambda: WGA(beta=math.nan), "WGA needs beta ≥ 0, got nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --------------------------------------------------------- one plain loop, and gradients by formula
def naive(objective, logits, labels, start_logits):
    """The papers' formulas as loops in float64, row by row; and dF/dlogits, written out."""
    total, n, grad = 0.0, 0, torch.zeros_like(logits)
    for b, y in enumerate(labels.tolist()):
        at = [t for t in range(1, len(y)) if y[t] != IGNORE]
        first = next(t for t in range(len(y)) if y[t] != IGNORE)
        for t in at:
            z, s, label = logits[b, t - 1].detach(), start_logits[b, t - 1], y[t]
            p = z.exp() / z.exp().sum()
            other = torch.arange(len(z)) != label
            match objective:
                case UNDIAL(beta):
                    q = torch.where(other, s.exp(), s.exp() * math.exp(-beta))
                    q = q / q.sum()
                case CEU():
                    if t == first:
                        continue
                    q = torch.where(other, p, 0.0) / p[other].sum()
                case WGA(beta):
                    weight = p[label] ** beta
                case SatImp(beta1, beta2):
                    weight = p[label] ** beta1 * (1 - p[label]) ** beta2
            n += 1
            if isinstance(objective, (UNDIAL, CEU)):
                total += (q * p.log()).sum()
                grad[b, t - 1] = q - p
            else:
                total += -weight * p[label].log()
                grad[b, t - 1] = weight * (p - (~other).to(p))
    return total / n, grad / n


@pytest.mark.parametrize("objective", TOKENWISE, ids=repr)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)], ids=str
)
def test_objectives_equal_the_plain_loop_and_their_gradient_its_formula(
    objective, dtype, tolerance
):
    logits, start, labels = random_batch(dtype)
    tokens = Tokens(logits, labels)
    fast = value(objective, tokens, labels, start.log_softmax(-1)[:, :-1][labels[:, 1:] != IGNORE])
    slow, wanted = naive(objective, logits.detach().double(), labels, start.double())
    assert fast.item() == pytest.approx(slow.item(), rel=tolerance)
    (ours,) = torch.autograd.grad(fast, logits)
    assert (ours - wanted).norm() <= tolerance * wanted.norm()
    assert not ours[labels.roll(-1, 1) == IGNORE].any()  # prompts and padding get no gradient


def test_ceu_is_gradient_ascent_times_the_odds_of_the_label():
    logits, _, labels = random_batch(torch.float64)
    tokens = Tokens(logits, labels)
    (ours,) = torch.autograd.grad(CEU().sums(tokens, None).sum(), logits, retain_graph=True)
    kept = tokens.order > 1
    odds = (-tokens.nll).exp() / -torch.expm1(-tokens.nll)
    (ascent,) = torch.autograd.grad((odds.detach() * tokens.nll)[kept].sum(), logits)
    torch.testing.assert_close(ours, ascent, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("objective", [UNDIAL(), CEU()], ids=repr)
def test_vocabulary_entries_that_are_masked_out_are_borne(objective):
    logits = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    logits[..., 2] = -math.inf
    logits.requires_grad_()
    labels = torch.tensor([[IGNORE, 1, 3, 5]])
    F = value(
        objective, Tokens(logits, labels), labels, (0.5 * logits).detach()[0, :3].log_softmax(-1)
    )
    F.backward()
    assert torch.isfinite(F) and torch.isfinite(logits.grad).all() and logits.grad.any()


# -------------------------------------------------------------------------------- published defects
@pytest.mark.parametrize(
    "objective",
    [variants.PaddedKL(), variants.PaddedUNDIAL(beta=2.0)],
    ids=lambda o: type(o).__name__,
)
def test_padded_objectives_are_what_flattened_logits_give(objective):
    """On rows of unequal length, against a few plain lines on the padded batch; the formula gives
    something else.
    """
    make = torch.Generator().manual_seed(0)
    V, labels = 130, random_batch(torch.float64)[2]
    logits, start = (torch.randn(5, 9, V, generator=make, dtype=torch.float64) for _ in range(2))
    seen, before = (Tokens(x, objective.relabel(labels, V)) for x in (logits, start))
    ours = value(objective, seen, labels, torch.cat(start_values("logp", before))).item()
    if isinstance(objective, KL):
        p, q = (x.log_softmax(-1).reshape(-1, V) for x in (logits, start))
        wanted = fn.kl_div(p, q, reduction="batchmean", log_target=True)
    else:
        lowered = start[:, :-1].clone()
        for b, y in enumerate(labels[:, 1:].tolist()):
            for t, label in enumerate(y):
                lowered[b, t, label] -= 2.0  # Python too counts −100 from the end
        wanted = -fn.cross_entropy(
            logits[:, :-1].reshape(-1, V), lowered.softmax(-1).reshape(-1, V)
        )
    assert ours == pytest.approx(wanted.item(), rel=1e-12)
    right = variants.KL() if isinstance(objective, KL) else UNDIAL(beta=2.0)
    seen, before = (Tokens(x, labels) for x in (logits, start))
    assert value(
        right, seen, labels, torch.cat(start_values("logp", before))
    ).item() != pytest.approx(ours, rel=1e-3)


def test_a_missing_label_needs_a_vocabulary_of_a_hundred():
    with pytest.raises(ValueError, match="-100, indexes no entry of a vocabulary of 99"):
        variants.PaddedUNDIAL().relabel(LABELS, 99)
    assert variants.PaddedUNDIAL().relabel(LABELS, 100)[0, 0] == 0


@pytest.mark.parametrize("retain", [False, True])
def test_broadcasting_is_mean_times_mean_and_wrong_on_unequal_lengths(retain):
    """Sums (B,) over counts (B, 1): the mean of a B×B matrix."""
    right, wrong = (
        (RMURetain(), variants.BroadcastRMURetain()) if retain else (RMU(), variants.BroadcastRMU())
    )
    start = torch.cat(start_values("hidden", activations())) + 0.5 if retain else None
    goal = start if retain else 2.0 * control(2).double()
    each = (activations().hidden - goal).square().mean(-1)
    s, n = torch.stack([each[:3].sum(), each[3]]), torch.tensor([[3.0], [1.0]], dtype=torch.float64)
    matrix = s / n
    assert matrix.shape == (2, 2)
    sign = 1 if retain else -1
    ours = {o: value(o, activations(), LABELS, start).item() for o in (right, wrong)}
    assert ours[wrong] == pytest.approx(sign * matrix.mean().item(), rel=1e-6)
    assert ours[right] == pytest.approx(sign * (s / n[:, 0]).mean().item(), rel=1e-6)
    assert ours[right] != pytest.approx(ours[wrong], rel=0.05)


def test_broadcasting_is_right_on_equal_lengths():
    labels = torch.tensor([[IGNORE, 0, 1, IGNORE], [IGNORE, IGNORE, 1, 2]])
    both = [value(o, activations(labels), labels).item() for o in (RMU(), variants.BroadcastRMU())]
    assert both[0] == pytest.approx(both[1], rel=1e-14)


def test_a_convention_keeps_the_settings_and_leaves_the_rest_alone():
    ours, muse, tofu, open_ = map(convention, ("ngdiff", "muse", "tofu", "open-unlearning"))
    assert ours.objective(UNDIAL(3.0)) == muse.objective(UNDIAL(3.0)) == UNDIAL(3.0)
    assert open_.objective(UNDIAL(3.0)) == variants.PaddedUNDIAL(3.0)
    assert open_.objective(RMU(c=5.0, layer=3, seed=2)) == variants.BroadcastRMU(5.0, 3, 2)
    assert tofu.objective(KL()) == variants.PaddedKL() and tofu.objective(RMU()) == RMU()
    assert all(open_.objective(o) == o for o in (CE(), DPO(), WGA(), SatImp(), CEU()))


# --------------------------------------------------------------------------- as phases of a problem
@pytest.fixture(scope="module")
def target():
    return micro.lm().copy("target")


@pytest.fixture(scope="module")
def exact():
    lm = micro.lm().copy("exact")
    micro.double(lm.model)
    return lm


def moved(lm, objective, **options):
    """A problem on the objective alone, its model moved away from the start."""
    retain = objective if not objective.pairs else CE()
    made = problem(
        lm, method=Method("m", NGDiff(), retain, objective), **{"batch_size": 7, **options}
    )
    with torch.no_grad():
        for k, p in enumerate(made.parameters):
            p.mul_(1 + 0.05 * math.cos(k))
    return made


def gradient(made, phase):
    loss = sum(part().sum() for part in phase)
    grads = torch.autograd.grad(loss, made.parameters, allow_unused=True)
    flat = [
        (torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(made.parameters, grads)
    ]
    return loss.item(), sum(part.ce.item() for part in phase), torch.cat(flat)


@pytest.mark.parametrize("objective", [DPO(), *TOKENWISE[::2], CEU(), *HIDDEN, *OPEN[2:]], ids=repr)
@pytest.mark.parametrize(("name", "tolerance"), [("target", micro.ROUNDING), ("exact", 1e-11)])
def test_microbatches_are_the_batch(request, objective, name, tolerance):
    lm = request.getfixturevalue(name)
    for phase in (0, 1):
        loss, ce, g = gradient(whole := moved(lm, objective), whole.batch(0)[phase])
        assert g.norm() > 0
        for size in (1, 3):
            parts = (made := moved(lm, objective, micro=size)).batch(0)[phase]
            assert len(parts) == math.ceil(7 / size)
            ours = gradient(made, parts)
            assert ours[:2] == pytest.approx((loss, ce), rel=tolerance)
            assert (ours[2] - g).norm() <= tolerance * g.norm()


def seen(model, example):
    """logits and the last block's output of one text alone, without padding."""
    found = []
    hook = model.model.layers[-1].register_forward_hook(lambda m, given, out: found.append(out))
    logits = model(torch.tensor([example.input_ids])).logits.detach()
    hook.remove()
    return Tokens(logits, torch.tensor([example.labels]), found[0].detach())


@pytest.mark.parametrize("objective", [*TOKENWISE[::3], *HIDDEN], ids=repr)
def test_a_phase_is_the_objective_of_its_rows_one_by_one(exact, objective):
    made = moved(exact, objective)
    for phase, examples in zip(made.batch(0), (made.retain, made.forget)):
        sums, counts, ce, tokens = 0.0, 0, 0.0, 0
        for ids, mask in zip(
            *(phase[0].batch[key].tolist() for key in ("input_ids", "attention_mask"))
        ):
            (example,) = [e for e in examples if e.input_ids == ids[: sum(mask)]]
            own, before = seen(made.module, example), seen(exact.model, example)
            values = torch.cat(start_values(objective.start, before)) if objective.start else None
            sums, counts = (
                sums + objective.sums(own, values).item(),
                counts + objective.counts(own.labels).item(),
            )
            ce, tokens = ce + own.nll.sum().item(), tokens + len(own.nll)
        assert gradient(made, phase)[:2] == pytest.approx((sums / counts, ce / tokens), rel=1e-11)


@pytest.mark.parametrize("micro_rows", [None, 2])
def test_dpo_sets_each_answer_against_its_refusal(exact, micro_rows):
    """Each pair by itself through the model and the start; and `ce` is that of the answers
    alone.
    """
    made, each, nll, tokens = moved(exact, DPO(), micro=micro_rows), [], 0.0, 0
    for row in BENCH.forget:
        gained = []
        for text in (row["answer"], refusal(row["question"])):
            example = exact.encode(row["question"], text)
            own, before = seen(made.module, example), seen(exact.model, example)
            gained.append((before.nll - own.nll).sum())
            if text == row["answer"]:
                nll, tokens = nll + own.nll.sum().item(), tokens + len(own.nll)
        each.append(20 * fn.logsigmoid(0.1 * (gained[1] - gained[0])).item())
    phase = made.batch(0)[1]
    assert all(len(part.batch["input_ids"]) == 2 * len(part()) for part in phase)
    assert gradient(made, phase)[:2] == pytest.approx((sum(each) / 7, nll / tokens), rel=1e-11)


def test_the_longest_pair_is_the_one_with_the_longest_text(target):
    made = problem(target, method=methods.dpo, batch_size=7)
    one = made.longest(0, forget=True)
    assert one.batch["input_ids"].shape == (2, max(len(e) for e in [*made.forget, *made.refusals]))


def test_a_batch_of_one_token_answers_has_a_ceu_of_zero(target):
    made = moved(target, CEU())
    short = [
        Example(e.input_ids[: len(e.prompt_ids) + 1], e.labels[: len(e.prompt_ids) + 1])
        for e in made.forget
    ]
    made.forget = short
    (phase,) = made.batch(0)[1]
    assert [sum(label != IGNORE for label in e.labels) for e in short] == [1] * 7
    loss, ce, g = gradient(made, [phase])
    assert loss == 0.0 and math.isfinite(ce) and not g.any()
    assert all(gradient(m, m.batch(0)[1])[0] != 0 for m in [moved(target, CEU())])


# ----------------------------------------------------------------------------------------- refusals
def test_refusals_are_a_hundred_different_sentences():
    assert len(REFUSALS) == len(set(REFUSALS)) == 100
    words = [len(text.split()) for text in REFUSALS]
    assert all(
        text[0].isupper() and text.endswith(".") and text == text.strip() for text in REFUSALS
    )
    assert min(words) <= 2 and max(words) >= 12 and all(text.isascii() for text in REFUSALS)


def test_a_question_has_its_refusal_whatever_surrounds_it(target):
    drawn = [refusal(f"Who is {i}?") for i in range(400)]
    assert drawn == [refusal(f"Who is {i}?") for i in range(400)] and len(set(drawn)) > 90
    assert refusal("Who is Ann?") == "I have no way of knowing that."  # golden: in every process
    turned = replace(BENCH, configs={**BENCH.configs, "forget": BENCH.forget[::-1]})
    one, two = (problem(target, method=methods.dpo, bench=b).refusals for b in (BENCH, turned))
    assert one[:] == two[::-1] and len({tuple(e.input_ids) for e in one}) > 3
    assert [e.prompt_ids for e in one] == [e.prompt_ids for e in problem(target).forget]


def test_a_document_has_nothing_to_refuse(target):
    bench = replace(
        BENCH,
        configs={
            **BENCH.configs,
            "forget": [*BENCH.forget[:2], {"question": "", "answer": "A text."}],
        },
    )
    with pytest.raises(
        ValueError, match="forget row 2 is a document, and a refusal answers a question"
    ):
        problem(target, method=methods.dpo, bench=bench)
    problem(target, method=methods.npo, bench=bench)


def test_a_refusal_must_fit_the_context_too(target, monkeypatch):
    monkeypatch.setattr(refusals, "REFUSALS", ("No " * 100,))
    with pytest.raises(
        ValueError, match=r"'Who is Ann 0\?' is \d+ tokens long, the model's context is 96"
    ):
        problem(target, method=methods.dpo)


def test_pairs_are_of_forget_rows_only(target):
    with pytest.raises(
        ValueError,
        match=r"DPO\(beta=0.1\) pairs answers with refusals: it is a forget objective only",
    ):
        problem(target, method=Method("m", NGDiff(), retain=DPO()))


# -------------------------------------------------------------------------------------- activations
SHAPES, GPT = micro.shapes(500)
MODELS = {
    "Llama": SHAPES,
    "Mistral": SHAPES | {"num_key_value_heads": 2},
    "GPT2": GPT,
    "Phi": SHAPES,
    "Falcon": SHAPES,
    "Olmo": SHAPES,
}


@pytest.mark.parametrize("layer", [0, 1, 7])
@pytest.mark.parametrize("kind", MODELS)
def test_activations_are_a_blocks_output_in_every_architecture(kind, layer):
    config = getattr(transformers, f"{kind}Config")(
        **MODELS[kind], pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}{'LMHeadModel' if kind == 'GPT2' else 'ForCausalLM'}")(
        config
    ).eval()
    ids = torch.randint(3, 500, (2, 7), generator=torch.Generator().manual_seed(1))
    labels = torch.where(torch.arange(7) > torch.tensor([[3], [4]]), ids, IGNORE)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "first": 3}
    hooks = [len(m._forward_hooks) for m in model.modules()]
    tokens, same = forward(model, batch, RMU(layer=layer))
    assert hooks == [len(m._forward_hooks) for m in model.modules()], (
        "ours is gone after the forward"
    )
    assert tokens is same and tokens.hidden.shape == (5, 16) and tokens.logits.shape == (5, 500)
    if layer == 7:  # the last there is, before the final norm
        last = forward(model, batch, RMU(layer=2))[0].hidden
        assert torch.equal(tokens.hidden, last)
        return
    whole = model(ids, output_hidden_states=True, use_cache=False).hidden_states[layer + 1]
    torch.testing.assert_close(
        tokens.hidden, torch.cat([whole[0, 4:], whole[1, 5:]]), rtol=1e-5, atol=1e-6
    )
    assert not hasattr(forward(model, batch, CE())[0], "hidden")


def test_a_model_without_blocks_is_refused():
    with pytest.raises(
        ValueError, match="Linear has no list of blocks, so that none of its layers is layer 7"
    ):
        forward(torch.nn.Linear(2, 2), {"first": 0, "input_ids": LABELS, "labels": LABELS}, RMU())


def two_layers(dtype=torch.float32):
    lm = micro.lm()
    return replace(
        lm.copy("two"), model=micro._model(lm.tokenizer, 3, num_hidden_layers=2).to(dtype)
    )


def test_rmu_moves_nothing_above_its_layer():
    lm = two_layers()
    low = Method("m", methods.rmu.direction, RMURetain(layer=0), RMU(layer=0))
    run = ng.unlearn(LMProblem(BENCH, lm, batch_size=4), low, Constant(1e-2), steps=2)
    for (name, p), q in zip(lm.model.named_parameters(), run.model.model.parameters()):
        below = (
            "layers.1" not in name and "norm" not in name.split(".")[1:2] and "lm_head" not in name
        )
        assert torch.equal(p, q) != below, name


def test_a_method_may_train_some_parameters_alone(tmp_path):
    lm = two_layers()
    some = replace(methods.rmu, trains=r"layers\.1\.mlp\.down_proj")
    run = ng.unlearn(
        LMProblem(BENCH, lm, batch_size=4),
        some,
        Constant(1e-2),
        steps=2,
        checkpoint=tmp_path / "run",
    )
    changed = [
        n
        for (n, p), q in zip(lm.model.named_parameters(), run.model.model.parameters())
        if not torch.equal(p, q)
    ]
    assert changed == ["model.layers.1.mlp.down_proj.weight"]
    assert all(p.requires_grad for p in lm.model.parameters()), (
        "the target itself is left as it was"
    )
    with pytest.raises(
        ValueError, match=r"no trainable parameter matches 'mlp.*c_proj': they are model\.embed"
    ):
        problem(lm, method=replace(some, trains=r"mlp\.c_proj"))


def test_rmu_steers_the_forget_rows_and_holds_the_others():
    lm = two_layers()
    run = ng.unlearn(LMProblem(BENCH, lm, batch_size=11), methods.rmu, Constant(3e-3), steps=25)
    first, last = run.history[0], run.history[-1]
    assert first.outcome == "zero_retain" and first.retain == 0.0
    assert last.forget > 0.05 * first.forget and 0 < last.retain < -0.1 * first.forget


# ----------------------------------------------------------------------------- start, store, resume
NEW = [
    methods.dpo,
    methods.rmu,
    methods.undial,
    methods.wga,
    methods.satimp,
    methods.ceu,
    methods.retain_ft,
]
EACH = pytest.mark.parametrize("method", NEW, ids=lambda m: m.name)


@EACH
def test_a_fresh_adapter_is_its_own_start(method):
    """The first step sees what the model without an adapter sees; the base is what it was."""
    lm = two_layers()
    problem = LMProblem(BENCH, lm, batch_size=4)
    plain = ng.unlearn(problem, method, Constant(1e-3), steps=1).history[0]
    before = weights(lm)
    run = ng.unlearn(
        LMProblem(BENCH, lora.adapt(lm, 4), batch_size=4), method, Constant(1e-2), steps=4
    )
    first = run.history[0]
    assert (first.retain, first.forget) == pytest.approx(
        (plain.retain, plain.forget), rel=1e-5, abs=1e-9
    )
    assert first.outcome == plain.outcome
    assert [info.outcome for info in run.history[1:]] == ["ok"] * 3 and run.history[
        -1
    ].forget != first.forget
    with lora.off(run.model.model):
        kept = [p for n, p in run.model.model.named_parameters() if "lora_" not in n]
        assert torch.equal(torch.cat([p.detach().flatten() for p in kept]), before)


@pytest.mark.parametrize("method", [methods.dpo, methods.rmu, methods.undial], ids=lambda m: m.name)
def test_a_trained_adapter_has_no_start(method):
    lm = lora.adapt(two_layers(), 4)
    with torch.no_grad():
        next(p for n, p in lm.model.named_parameters() if "lora_B" in n).add_(1)
    with pytest.raises(ValueError, match="the adapter has been trained already"):
        problem(lm, method=method)


@EACH
@pytest.mark.parametrize("micro_rows", [None, 3])
def test_a_run_goes_on_bit_for_bit(target, tmp_path, method, micro_rows):
    def go(steps, path):
        made = LMProblem(BENCH, target, batch_size=4, micro=micro_rows)
        return ng.unlearn(made, method, Constant(1e-2), steps, checkpoint=path, save_every=3)

    whole = go(7, tmp_path / "whole")
    go(3, tmp_path / "cut")
    again = go(7, tmp_path / "cut")
    assert repr(again.history) == repr(whole.history) and torch.equal(
        weights(again.model), weights(whole.model)
    )


def test_stored_values_stay_apart_by_layer_and_pairs():
    lm = two_layers()
    made = LMProblem(BENCH, lm, batch_size=11)
    for layer in (0, 1, 0):
        (retain,), _ = made.bind(Method("m", NGDiff(), RMURetain(layer), RMU()), 0).batch(0)
        assert retain().sum().item() == 0.0  # a start of another layer would be far away
    (npo,) = made.bind(methods.npo, 0).batch(0)[1]
    (dpo,) = made.bind(methods.dpo, 0).batch(0)[1]
    assert npo.start.shape == (7,) and dpo.start.shape == (14,)
    torch.testing.assert_close(dpo.start[::2], npo.start)
    assert (
        dpo().sum().item()
        == pytest.approx(npo().sum().item(), rel=1e-5)
        == pytest.approx(-20 * LN2, rel=1e-5)
    )


@pytest.mark.parametrize("method", [methods.dpo, methods.rmu, methods.undial], ids=lambda m: m.name)
def test_the_target_never_changes(target, method):
    before = weights(target)
    run = ng.unlearn(LMProblem(BENCH, target, batch_size=4), method, Constant(1e-2), steps=2)
    assert torch.equal(weights(target), before) and not torch.equal(weights(run.model), before)


# ----------------------------------------------------------------------- published code as a method
@pytest.mark.parametrize("objective", OPEN, ids=lambda o: type(o).__name__)
def test_published_objectives_unlearn_too(target, objective):
    made = moved(target, objective)
    for phase in made.batch(0):
        loss, ce, g = gradient(made, phase)
        assert math.isfinite(loss) and math.isfinite(ce) and g.norm() > 0
    run = ng.unlearn(
        LMProblem(BENCH, target, batch_size=4),
        Method("m", NGDiff(), objective, CE()),
        Constant(1e-3),
        3,
    )
    assert [info.outcome for info in run.history][1:] == ["ok", "ok"]


@pytest.mark.parametrize("objective", OPEN[:2], ids=lambda o: type(o).__name__)
def test_what_averages_over_padding_cannot_be_cut(target, objective):
    with pytest.raises(
        ValueError,
        match="is an average over the padding too, so its batch cannot be cut: leave micro out",
    ):
        moved(target, objective, micro=3).batch(0)


def test_padding_is_in_the_published_average(exact):
    """One more row, longer than the rest, changes what the others give."""
    made = moved(exact, variants.PaddedKL())
    (phase,) = made.batch(0)[0]
    logits, start = (
        m(phase.batch["input_ids"], phase.batch["attention_mask"]).logits
        for m in (made.module, exact.model)
    )
    p, q = (x.detach().log_softmax(-1) for x in (logits, start))
    every = (q.exp() * (q - p)).sum(-1)
    assert phase().sum().item() == pytest.approx(every.mean().item(), rel=1e-10)
    real = phase.batch["attention_mask"].bool()
    assert every[~real].sum() > 0 and every.mean().item() != pytest.approx(
        every[real].mean().item(), rel=1e-3
    )
    assert phase.ce.item() == pytest.approx(
        gradient(m := moved(exact, CE()), m.batch(0)[0])[1], rel=1e-12
    )
