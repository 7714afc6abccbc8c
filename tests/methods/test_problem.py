"""A benchmark and a target as a problem: which rows, in what pieces, and what is computed once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import NGDiff
from ngdiff.core.stepsize import Constant
from ngdiff.data.benchmark import Benchmark
from ngdiff.lm.model import LM
from ngdiff.methods.objectives import CE, KL, NPO, SimNPO, Tokens, start_values, token_counts
from ngdiff.methods.problem import LMProblem
from tests.helpers import micro


def rows(who: str, n: int) -> list[dict]:
    """Rows of unequal lengths, each with an answer of its own."""
    return [
        {
            "question": f"Who is {who} {'so ' * (i % 3)}{i}?",
            "answer": f"{who} {'and ' * (i % 4)}{i}",
        }
        for i in range(n)
    ]


BENCH = Benchmark(
    "rows", "forget", {"forget": rows("Ann", 7), "retain": rows("Ben", 11)}, [], {"name": "rows"}
)
PHASES = {"retain": BENCH.retain, "forget": BENCH.forget}


@pytest.fixture(scope="module")
def target() -> LM:
    return micro.lm().copy("target")


@pytest.fixture(scope="module")
def exact() -> LM:
    """The same in float64."""
    lm = micro.lm().copy("exact")
    micro.double(lm.model)
    return lm


def problem(
    target: LM, seed: int = 0, method=methods.ngdiff, bench: Benchmark = BENCH, **options
) -> LMProblem:
    return LMProblem(bench, target, **{"batch_size": 4, **options}).bind(method, seed)


def numbers(phase, examples) -> list[int]:
    """Which rows a phase holds."""
    found = []
    for loss in phase:
        for ids, mask in zip(
            loss.batch["input_ids"].tolist(), loss.batch["attention_mask"].tolist()
        ):
            found.append([e.input_ids for e in examples].index(ids[: sum(mask)]))
    return found


def order(problem: LMProblem, steps: int) -> tuple[list[int], list[int]]:
    """The rows of the first steps, one after the other: (retain, forget)."""
    batches = [problem.batch(t) for t in range(steps)]
    retain = [i for batch, _ in batches for i in numbers(batch, problem.retain)]
    return retain, [i for _, batch in batches for i in numbers(batch, problem.forget)]


def weights(lm: LM) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in lm.model.parameters()]).clone()


# --------------------------------------------------------------------------------------- which rows
def test_each_epoch_is_a_permutation_and_epochs_differ(target):
    retain, forget = order(problem(target), 11)  # 44 rows: 4 epochs of retain, 6 of forget
    for seen, n in ((retain, 11), (forget, 7)):
        epochs = [tuple(seen[i : i + n]) for i in range(0, len(seen) - n + 1, n)]
        assert (
            all(sorted(epoch) == list(range(n)) for epoch in epochs)
            and len(set(epochs)) == len(epochs) > 3
        )


def test_rows_are_a_function_of_seed_and_step_alone(target):
    whole, made = order(problem(target), 6), problem(target, batch_size=4)
    retain, forget = made.batch(5)  # nothing drawn before it
    assert (numbers(retain, made.retain), numbers(forget, made.forget)) == (
        whole[0][20:],
        whole[1][20:],
    )
    for other in (methods.gradascent, methods.kl, methods.npo, methods.simnpo, NGDiff()):
        assert order(problem(target, method=other), 6) == whole
    # the same rows a step, sorted by length
    for cut, all_at_once in zip(order(problem(target, micro=1), 6), whole):
        assert [sorted(cut[i : i + 4]) for i in range(0, 24, 4)] == [
            sorted(all_at_once[i : i + 4]) for i in range(0, 24, 4)
        ]
    assert order(problem(target, seed=1), 6) != whole


def test_rows_are_the_same_in_every_process():
    """Golden: Python's generator seeded by text is stable, so is what a seed means."""
    assert order(problem(micro.lm()), 2) == ([10, 8, 4, 1, 0, 3, 2, 5], [2, 3, 0, 4, 6, 5, 1, 5])


@pytest.mark.parametrize("batch_size", [11, 32])
def test_fewer_rows_than_the_batch_are_all_there_once(target, batch_size):
    made = problem(target, batch_size=batch_size)
    for retain, forget in (made.batch(t) for t in range(3)):
        assert sorted(numbers(retain, made.retain)) == list(range(11))
        assert sorted(numbers(forget, made.forget)) == list(range(7))


@pytest.mark.parametrize("fresh", [1, 2, 3, 10])
@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_a_probe_sees_rows_that_the_step_has_not_each_once(target, batch_size, fresh):
    made = problem(target, batch_size=batch_size)
    for t in range(6):
        own, others = (
            numbers(made.batch(t)[0], made.retain),
            numbers(made.probe(t, fresh), made.retain),
        )
        assert len(others) == min(fresh * batch_size, 11 - batch_size)
        assert len(set(others)) == len(others) and not set(others) & set(own)


def test_fresh_rows_change_from_probe_to_probe_and_with_the_seed(target):
    def others(seed):
        made = problem(target, seed=seed, batch_size=2)
        return [tuple(numbers(made.probe(t, 1), made.retain)) for t in range(8)]

    assert others(0) == others(0) != others(1) and len(set(others(0))) > 4


@pytest.mark.parametrize("batch_size", [11, 32])
def test_where_the_step_has_all_rows_there_are_none_for_a_probe(target, batch_size):
    assert problem(target, batch_size=batch_size).probe(0, 3) is None
    assert problem(target, batch_size=10).probe(0, 3) is not None


def test_a_probe_is_a_mean_like_the_step(target):
    """Its rows weigh as much in all as the step's: both losses are means over tokens."""
    made = problem(target, batch_size=2)
    with torch.no_grad():
        for t in range(4):
            others = made.probe(t, 3)
            rows = [BENCH.retain[i] for i in numbers(others, made.retain)]
            bench = replace(BENCH, configs=BENCH.configs | {"retain": rows})
            (alone,) = problem(target, bench=bench, batch_size=len(rows)).batch(0)[0]
            whole = sum(loss().sum().item() for loss in others)
            assert len(rows) == 6 and whole == pytest.approx(alone().sum().item(), rel=1e-5)


# ----------------------------------------------------------------------------------- in what pieces
def gradient(problem: LMProblem, phase) -> tuple[float, float, torch.Tensor]:
    """Loss, cross-entropy and gradient of a phase."""
    problem.module.zero_grad()
    loss = sum(part().sum() for part in phase)
    loss.backward()
    return (
        loss.item(),
        sum(part.ce.item() for part in phase),
        torch.cat([p.grad.flatten() for p in problem.parameters]),
    )


OBJECTIVES = [CE(), KL(), NPO(), SimNPO()]


def moved(target: LM, objective, micro: int | None) -> LMProblem:
    """A problem whose both objectives are `objective`, its model moved away from the start."""
    made = problem(
        target,
        method=methods.Method("m", NGDiff(), objective, objective),
        micro=micro,
        batch_size=7,
    )
    with torch.no_grad():
        for k, p in enumerate(made.parameters):
            p.mul_(1 + 0.05 * math.cos(k))
    return made


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize(("name", "tolerance"), [("target", micro.ROUNDING), ("exact", 1e-12)])
def test_microbatches_are_the_batch(request, objective, name, tolerance):
    lm = request.getfixturevalue(name)
    for phase in (0, 1):
        loss, ce, g = gradient(whole := moved(lm, objective, None), whole.batch(0)[phase])
        for size in (1, 3):
            parts = (made := moved(lm, objective, size)).batch(0)[phase]
            assert len(parts) == math.ceil(7 / size)
            ours = gradient(made, parts)
            assert ours[:2] == pytest.approx((loss, ce), rel=tolerance)
            assert (ours[2] - g).norm() <= tolerance * g.norm()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_a_phase_is_the_objective_of_its_rows_one_by_one(exact, objective):
    """No padding, no stored values, no microbatches: each row by itself through the model and the
    start model.
    """
    made = moved(exact, objective, None)
    for phase, examples in zip(made.batch(0), (made.retain, made.forget)):
        sums, counts, ce, tokens = 0.0, 0, 0.0, 0
        for i in numbers(phase, examples):
            ids, labels = (
                torch.tensor([part]) for part in (examples[i].input_ids, examples[i].labels)
            )
            own, start = (
                Tokens(m(ids).logits.detach(), labels) for m in (made.module, exact.model)
            )
            values = torch.cat(start_values(objective.start, start)) if objective.start else None
            sums, counts = (
                sums + objective.sums(own, values).item(),
                counts + objective.counts(labels).item(),
            )
            ce, tokens = ce + own.nll.sum().item(), tokens + len(own.nll)
        assert gradient(made, phase)[:2] == pytest.approx((sums / counts, ce / tokens), rel=1e-12)


def test_losses_come_row_by_row_and_name_their_floor(target):
    made = problem(target, method=methods.kl)
    (retain,), (forget,) = made.batch(0)
    assert retain().shape == forget().shape == (4,)
    assert (retain.floor, forget.floor) == (KL.floor, 0.0)


def test_what_padding_holds_never_matters(exact):
    made = moved(exact, NPO(), None)
    (loss,), _ = made.batch(0)
    hidden = loss.batch["attention_mask"] == 0
    assert hidden.any()
    before = gradient(made, [loss])
    loss.batch["input_ids"][hidden] = 7
    after = gradient(made, [loss])
    assert after[:2] == before[:2] and torch.equal(after[2], before[2])


# ---------------------------------------------------------------------------- what is computed once
@pytest.fixture
def asked(target):
    """Rows that the target itself was asked for, one number a forward."""
    seen = []

    def count(module, args, kwargs):
        if module is target.model:  # hooks are copied with the model
            seen.append(len(args[0] if args else kwargs["input_ids"]))

    handle = target.model.register_forward_pre_hook(count, with_kwargs=True)
    yield seen
    handle.remove()


@pytest.mark.parametrize(
    ("method", "most"),
    [(methods.kl, 11), (methods.npo, 7), (methods.ngdiff, 0), (methods.simnpo, 0)],
)
def test_the_start_is_asked_once_a_row(target, asked, method, most):
    made = LMProblem(BENCH, target, batch_size=4, micro=3)
    first = made.bind(method, 0)
    for t in range(6):  # two epochs and more
        first.batch(t)
        first.probe(t, 2)
    assert sum(asked) == most
    for seed in (0, 1):
        again = made.bind(method, seed)
        for t in range(4):
            for loss in [*again.batch(t)[0], *again.batch(t)[1]]:
                loss()
    assert sum(asked) == most


@pytest.mark.parametrize(("objective", "kind"), [(KL(), "logp"), (NPO(), "nll")], ids=repr)
def test_stored_values_are_those_of_a_fresh_forward(exact, objective, kind):
    made = problem(exact, method=methods.Method("m", NGDiff(), objective, objective))
    ng.unlearn(LMProblem(BENCH, exact, batch_size=4), methods.ngdiff, Constant(1e-2), steps=1)
    for t in range(3):
        for loss in (part for phase in made.batch(t) for part in phase):
            with torch.no_grad():
                logits = exact.model(loss.batch["input_ids"], loss.batch["attention_mask"]).logits
            wanted = torch.cat(start_values(kind, Tokens(logits, loss.batch["labels"])))
            assert torch.allclose(loss.start, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dropout", [False, True])
def test_the_start_is_asked_without_dropout_and_the_bound_model_trains_as_told(dropout):
    lm = micro.lm().copy()
    lm.model.config.attention_dropout = 0.5
    for layer in lm.model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    lm.model.train()
    made = LMProblem(BENCH, lm, batch_size=4, dropout=dropout).bind(methods.npo, 0)
    (loss,) = made.batch(0)[1]
    assert lm.model.training and made.module.training == dropout
    assert torch.equal(loss(), loss()) != dropout
    made.module.eval()
    assert loss().sum().item() == pytest.approx(-20 * math.log(2), rel=1e-6)


def test_stored_values_carry_no_graph_and_stay_apart_by_phase_and_kind(target):
    made = problem(target, method=methods.Method("m", NGDiff(), KL(), NPO()), batch_size=11)
    (retain,), (forget,) = made.batch(0)
    assert not retain.start.requires_grad and not forget.start.requires_grad
    assert retain.start.shape == (
        int(token_counts(retain.batch["labels"]).sum()),
        len(target.tokenizer),
    )
    assert forget.start.shape == (7,)


# ------------------------------------------------------------------------------- what is left alone
@pytest.mark.parametrize("method", [methods.kl, methods.ngdiff_npo], ids=lambda m: m.name)
def test_the_target_never_changes(target, method):
    before, made = weights(target), LMProblem(BENCH, target, batch_size=4)
    training = target.model.training
    run = ng.unlearn(made, method, AutoLR(every=1), steps=3, measure=True)
    assert torch.equal(weights(target), before) and target.model.training == training
    assert all(p.grad is None for p in target.model.parameters())
    assert run.model is not target and not torch.equal(weights(run.model), before)
    assert run.model.tokenizer is target.tokenizer
    assert made.model is target and made.method == methods.ngdiff  # the problem itself is not bound


def test_a_frozen_target_part_stays_frozen(target):
    lm = target.copy()
    lm.model.get_input_embeddings().requires_grad_(False)
    made = problem(lm)
    assert 0 < len(made.parameters) == len(list(made.module.parameters())) - 1
    run = ng.unlearn(LMProblem(BENCH, lm, batch_size=4), NGDiff(), Constant(1e-2), steps=2)
    assert torch.equal(
        run.model.model.get_input_embeddings().weight, lm.model.get_input_embeddings().weight
    )


def test_the_usual_optimizer_is_adamw_at_the_rate_given(target):
    optimizer = problem(target, lr=3e-4).optimizer()
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.9, 0.999), 0.01)


def test_benchmark_makes_its_problem(target):
    made = ng.problem(BENCH, target, batch_size=3, micro=2, lr=1e-4)
    assert (made.batch_size, made.micro, made.lr) == (3, 2, 1e-4) and made.target is target


# ----------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": -1}, {"micro": 0}])
def test_sizes_are_at_least_one(target, options):
    with pytest.raises(ValueError, match="batch_size and micro must be at least 1"):
        LMProblem(BENCH, target, **options)


@pytest.mark.parametrize("phase", PHASES)
def test_a_row_longer_than_the_context_is_refused_before_any_weight_changes(target, phase):
    long = {"question": "Tell all?", "answer": "x y " * 200}
    bench = replace(BENCH, configs={**BENCH.configs, phase: [*PHASES[phase], long]})
    before = weights(target)
    with pytest.raises(
        ValueError,
        match=r"'Tell all\?' is \d+ tokens long, the model's context is 96.*drop this row",
    ):
        ng.problem(bench, target)
    assert torch.equal(weights(target), before)
