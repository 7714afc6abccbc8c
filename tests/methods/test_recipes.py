"""Recipes: published weights, every method with every step-size rule, free composition."""

from __future__ import annotations

import math

import pytest
import torch

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import MGDA, GradAscent, GradDiff, LossNorm, NGDiff, PCGrad, Sum
from ngdiff.core.stepsize import Constant
from ngdiff.methods.baselines import CEU, DPO, RMU, UNDIAL, WGA, RMURetain, SatImp
from ngdiff.methods.definition import SPARE, Defaults, Method
from ngdiff.methods.lookup import label, look, method, ordered
from ngdiff.methods.objectives import CE, KL, NPO, SimNPO
from ngdiff.methods.problem import LMProblem
from ngdiff.methods.recipes import METHODS, named_objectives, tagged
from ngdiff.study.trial import STEPSIZES
from tests.helpers import micro
from tests.methods.test_problem import BENCH


@pytest.fixture(scope="module")
def problem() -> LMProblem:
    return LMProblem(BENCH, micro.lm(), batch_size=4)


def _gram(n_R: float, n_F: float, cosine: float) -> torch.Tensor:
    dot = cosine * n_R * n_F
    return torch.tensor([[n_R**2, dot], [dot, n_F**2]], dtype=torch.float64)


def weights(lm) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in lm.model.parameters()])


TABLE = {  # name: retain, forget, direction; as architecture and published defaults say
    "gradascent": (CE(), CE(), GradAscent()),
    "graddiff-0.99": (CE(), CE(), GradDiff(0.99)),
    "graddiff-0.9": (CE(), CE(), GradDiff(0.9)),
    "graddiff-0.5": (CE(), CE(), GradDiff(0.5)),
    "graddiff-0.1": (CE(), CE(), GradDiff(0.1)),
    "kl": (KL(), CE(), Sum(1.0, 1.0)),
    "lossnorm": (CE(), CE(), LossNorm()),
    "npo": (CE(), NPO(beta=0.1), Sum(1.0, 1.0)),
    "simnpo": (CE(), SimNPO(beta=4.5, delta=0.0), Sum(retain=1.0, forget=0.125)),
    "ngdiff": (CE(), CE(), NGDiff()),
    "ngdiff-npo": (CE(), NPO(beta=0.1), NGDiff()),
    "ngdiff-kl": (KL(), CE(), NGDiff()),
    "dpo": (CE(), DPO(beta=0.1), Sum(1.0, 1.0)),
    "rmu": (RMURetain(layer=7), RMU(c=2.0, layer=7, seed=0), Sum(1.0, 1.0)),
    "undial": (CE(), UNDIAL(beta=10.0), GradAscent()),
    "wga": (CE(), WGA(beta=1.0), Sum(1.0, 1.0)),
    "satimp": (CE(), SatImp(beta1=5.0, beta2=1.0), Sum(retain=1.0, forget=0.1)),
    "ceu": (CE(), CEU(), GradAscent()),
    "retain-ft": (CE(), CE(), GradDiff(1.0)),
    "pcgrad": (CE(), CE(), PCGrad()),
    "mgda": (CE(), CE(), MGDA()),
}
DEFAULTS: dict[str, Defaults] = {k: m.defaults for k, m in METHODS.items() if m.defaults}
ZERO = [
    name for name, m in METHODS.items() if m.retain in (KL(), RMURetain())
]  # nothing to keep to at the start


def test_the_table_is_the_published_one():
    assert {name: (m.retain, m.forget, m.direction) for name, m in METHODS.items()} == TABLE
    assert next(iter(METHODS)) == "ngdiff"
    assert len({m.name for m in METHODS.values()}) == len(METHODS) and not any(
        m.trains for m in METHODS.values()
    )


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_published_defaults_are_those_of_the_method(name):
    """Weights up to a common factor (GradDiff's γ = α = 1 is twice GradDiff(½)), and every option
    by its name.
    """
    row, mine = DEFAULTS[name], method(name)
    a, b = mine.direction.weights(
        torch.eye(2, dtype=torch.float64), torch.tensor([2.0, 3.0])
    ).tolist()
    if row.gamma is None:
        assert (row.alpha, mine.direction) in [(None, LossNorm()), (None, NGDiff())]
    else:
        assert (
            a * row.gamma == b * row.alpha
            and (a > 0) == (row.alpha > 0)
            and (b > 0) == (row.gamma > 0)
        )
    fields = dict(vars(mine.retain)) | vars(mine.forget)
    assert row.options == {key: fields[key] for key in fields if key != "seed"}
    assert row.source and row.batch == 32 and mine.trains is None
    assert (row.lr, row.epochs) == {
        "undial": (1e-4, 10),
        "wga": (1e-5, 5),
        "satimp": (1e-5, 5),
    }.get(name, (1e-5, 10))


def test_every_published_method_has_its_defaults():
    free = {
        "graddiff-0.99",  # weights and compositions of ours
        "graddiff-0.9",
        "graddiff-0.1",
        "ngdiff-npo",
        "ngdiff-kl",
        "pcgrad",  # published for other tasks
        "mgda",
    }
    assert [name for name in METHODS if name not in free] == list(DEFAULTS)


def test_a_key_is_made_from_the_name():
    written = {"ceu", "retain-ft"}  # shorter than their labels
    for key, m in METHODS.items():
        assert m.key == key
        assert (Method(m.name, m.direction).key == key) == (key not in written)
    assert Method("GradDiff(0.25) on My loss", NGDiff()).key == "graddiff-0.25-my-loss"


def test_the_lists_of_the_comparisons_are_read_off_the_tags():
    """As the comparisons were frozen, in the order of the tables."""
    fixed = ("gradascent", "graddiff-0.5", "graddiff-0.9", "graddiff-0.99")
    assert tagged("rival") == (*fixed, "kl", "lossnorm", "npo", "simnpo", "rmu", "wga")
    assert tagged("weighted") == ("kl", "npo", "simnpo", "rmu", "wga")
    assert tagged("published") == ("dpo", "undial", "satimp", "ceu", "retain-ft")
    assert tagged("semeval") == ("gradascent", "graddiff-0.5", "kl", "npo")
    assert tagged("composed") == ("ngdiff-npo", "ngdiff-kl")
    used = {tag for m in METHODS.values() for tag in m.tags}
    assert used == {"rival", "weighted", "published", "semeval", "composed"}, "a tag nobody reads"


def test_every_objective_of_a_method_is_named_once():
    found = named_objectives()
    both = {"ce_retain", "ce_forget", "rmu", "rmu_retain"}
    alone = {"kl", "npo", "simnpo", "dpo", "undial", "wga", "satimp", "ceu"}
    assert set(found) == both | alone
    assert found["kl"] == ("retain", KL()) and found["rmu_retain"] == ("retain", RMURetain())
    assert found["rmu"] == ("forget", RMU()) and found["npo"] == ("forget", NPO())


def test_a_value_is_a_method():
    assert method(NGDiff()) is METHODS["ngdiff"]
    assert method(GradDiff(0.3)) == Method("GradDiff(c=0.3)", GradDiff(0.3))
    assert method(NPO(0.5)) == Method("NGDiff on NPO(beta=0.5)", NGDiff(), forget=NPO(0.5))
    mine = Method("mine", GradDiff(0.3))
    assert method(mine) is mine and method(methods.npo) is METHODS["npo"]
    assert method("tests.methods.test_recipes:MINE") is MINE
    assert methods.graddiff(0.5) is METHODS["graddiff-0.5"]
    assert methods.graddiff(0.25) == Method("GradDiff(0.25)", GradDiff(0.25))


MINE = Method("mine", GradDiff(0.3))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (3, "no method"),
        ("no.such.module:x", "No module named 'no'"),
        ("math:nothing", "nothing"),
        ("math:pi", "no method"),
        (Method("NGDiff", GradDiff(0.5)), "name of another method"),
        (Method("CE-U", GradDiff(0.5)), "name of another method"),  # a label, not a key
        (NGDiff, r"NGDiff is a class: pass a value of it, NGDiff\("),
        ("ngdiff.methods.definition:Method", "write a value of it into the module"),
    ],
    ids=lambda x: str(x)[:12],
)
def test_what_is_no_method_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        method(wrong)


class Unnamed:
    """A rule without a repr of its own."""

    def weights(self, gram, losses): ...


def test_a_rule_without_a_repr_is_called_by_its_class():
    assert method(Unnamed()).name == "Unnamed"
    assert method(Method("CE-U", GradAscent(), forget=CEU())) is methods.ceu


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"direction": NGDiff}, "mine: the direction is .*such as ng.NGDiff"),
        ({"direction": NPO()}, "mine: the direction is NPO"),
        ({"direction": NGDiff(), "forget": "npo"}, "mine: forget is 'npo': give an objective"),
    ],
)
def test_parts_that_are_none_are_refused(parts, words):
    with pytest.raises(ValueError, match=words):
        Method("mine", **parts)


def test_a_missing_attribute_lists_those_there_are():
    with pytest.raises(AttributeError, match=r"it has ngdiff, ngdiff_npo, .*graddiff\(c\)"):
        _ = methods.ngdif
    assert {"ngdiff", "graddiff", "Method", "retain_ft"} <= set(dir(methods))
    with pytest.raises(AttributeError, match=r"write import ngdiff.study.tables"):
        _ = ng.study.nothing


def test_a_method_of_a_user_comes_last_and_has_a_colour():
    assert ordered(["zz", "mgda", "ngdiff", "aa"]) == ["ngdiff", "mgda", "aa", "zz"]
    assert Method("mine", NGDiff()).look.colour in SPARE
    assert not {m.look.colour for m in METHODS.values()} & set(SPARE)
    assert label("nobody's") == "nobody's" and look("nobody's").colour == "#999999"


@pytest.mark.parametrize("name", METHODS)
def test_a_name_finds_its_method(name):
    assert method(name) is METHODS[name]


@pytest.mark.parametrize("name", ["NGDiff", "", "idk"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(
        ValueError, match=f"unknown method '{name}'; choose one of: ngdiff, .*, gradascent, "
    ):
        method(name)


def test_methods_are_values():
    assert (
        Method("mine", NGDiff(), forget=NPO())
        == Method("mine", NGDiff(), CE(), NPO())
        != methods.ngdiff_npo
    )
    assert repr(methods.npo) == (
        "Method(name='NPO', direction=Sum(retain=1.0, forget=1.0), retain=CE(), "
        "forget=NPO(beta=0.1), trains=None)"
    )


# ------------------------------------------------------------------------------------------ running
@pytest.mark.parametrize("stepsize", STEPSIZES)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_with_every_step_size_rule(problem, name, stepsize):
    run = ng.unlearn(problem, method(name), STEPSIZES[stepsize](1e-3, 3), steps=3, measure=True)
    assert len(run.history) == 3 and run.stopped == "steps"
    first = "zero_retain" if name in ZERO else "ok"
    # also where the retain loss starts at its minimum, 0, and no rate lowers it
    assert [info.outcome for info in run.history] == [first, "ok", "ok"]
    assert all(
        math.isfinite(v)
        for info in run.history
        for v in (info.retain, info.forget, info.eta, info.dR, info.dF)
    )
    assert torch.isfinite(weights(run.model)).all() and not torch.equal(
        weights(run.model), weights(problem.target)
    )


@pytest.mark.parametrize("name", METHODS)
def test_the_first_step_is_the_methods_formula(problem, name):
    """Losses, gradients and weights (a, b) of the first step, from its own two backward passes."""
    (info,) = ng.unlearn(problem, method(name), Constant(1e-3), steps=1).history
    bound, seen = problem.bind(method(name), 0), []
    for phase in bound.batch(0):
        bound.module.zero_grad()
        loss = sum(part().sum() for part in phase)
        loss.backward()
        # RMU's ends below its layer
        g = [p.grad.flatten() for p in bound.parameters if p.grad is not None]
        seen.append(
            (loss.item(), torch.cat(g).norm().item(), sum(part.ce.item() for part in phase))
        )
    (R, n_R, ce_R), (F, n_F, ce_F) = seen
    assert (info.retain_ce, info.forget_ce) == pytest.approx((ce_R, ce_F), rel=1e-6)
    assert (info.retain, info.forget) == pytest.approx((R, F), rel=1e-6, abs=1e-7)
    wanted = {
        "gradascent": (0, 1),
        "npo": (1, 1),
        "simnpo": (1, 0.125),
        "kl": (0, 1),
        "ngdiff-kl": (0, 1 / n_F),
    }
    wanted |= {f"graddiff-{c}": (c, 1 - c) for c in (0.99, 0.9, 0.5, 0.1)}
    wanted |= dict.fromkeys(("dpo", "wga"), (1, 1)) | dict.fromkeys(("undial", "ceu"), (0, 1))
    wanted |= {"rmu": (0, 1), "satimp": (1, 0.1), "retain-ft": (1, 0)}
    if name in ZERO:
        assert info.outcome == "zero_retain" and abs(R) < 1e-7 and n_R < METHODS[name].retain.floor
    else:
        kappa = n_F / n_R
        rule = info.cosine * kappa, info.cosine / kappa
        wanted |= {"lossnorm": (1 / R, 1 / F), "pcgrad": (1 + max(rule[0], 0), 1 + max(rule[1], 0))}
        wanted |= {"mgda": tuple(MGDA().weights(_gram(n_R, n_F, info.cosine), None).tolist())}
        wanted |= dict.fromkeys(("ngdiff", "ngdiff-npo"), (1 / n_R, 1 / n_F))
    assert (info.a, info.b) == pytest.approx(wanted[name], rel=1e-5)
    if METHODS[name].forget in (NPO(), DPO()):
        assert info.forget == pytest.approx(-13.863, abs=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_a_small_plain_step_moves_the_forget_objective_as_its_weights_say(name):
    """All rows at once under SGD: dF = η(b‖g_F‖² − a⟨g_R, g_F⟩), and F follows it. Here ρ > 0: the
    two disagree.
    """
    problem = LMProblem(BENCH, micro.lm(), batch_size=11)
    sgd = lambda theta: torch.optim.SGD(theta, lr=1.0)  # noqa: E731
    first, second = ng.unlearn(
        problem, method(name), Constant(1e-4), 2, optimizer=sgd, measure=True
    ).history
    rises = first.b * first.norm_F > first.a * first.cosine * first.norm_R
    assert first.cosine > 0 or first.outcome == "zero_retain"
    # they lean to the retain loss
    falls = ("graddiff-0.9", "graddiff-0.99", "simnpo", "wga", "satimp", "retain-ft")
    assert rises == (name not in falls)
    # F's value is not what its gradient climbs
    detached = isinstance(METHODS[name].forget, (WGA, SatImp, CEU))
    values = [info.forget_ce if detached else info.forget for info in (first, second)]
    assert (first.dF > 0) == (values[1] > values[0]) == rises


def test_a_bare_direction_is_a_method_on_cross_entropies(problem):
    bare, named = (
        ng.unlearn(problem, m, Constant(1e-3), steps=3) for m in (NGDiff(), methods.ngdiff)
    )
    assert repr(bare.history) == repr(named.history) and torch.equal(
        weights(bare.model), weights(named.model)
    )
    bound = problem.bind(NGDiff(), 0)
    assert bound.method == methods.ngdiff


@pytest.mark.parametrize("direction", [NGDiff(), PCGrad(), MGDA(), GradDiff(0.7)], ids=repr)
@pytest.mark.parametrize("retain", [CE(), KL()], ids=repr)
@pytest.mark.parametrize("forget", [NPO(beta=0.5), SimNPO(beta=2.0, delta=0.1)], ids=repr)
def test_objectives_and_directions_compose_freely(problem, direction, retain, forget):
    mine = Method("mine", direction, retain, forget)
    run = ng.unlearn(problem, mine, AutoLR(every=1), steps=3)
    assert run.history[0].forget < 0
    # the shortest combination with a zero gradient is zero
    if (direction, retain) == (MGDA(), KL()):
        assert run.stopped == "aligned" and len(run.history) == 1
    else:
        assert [info.outcome for info in run.history][1:] == ["ok", "ok"]


def test_equal_seeds_see_equal_rows_whatever_the_method(problem):
    """The first step's cross-entropies are those of the same rows."""
    seen = {
        name: ng.unlearn(problem, method(name), Constant(1e-3), steps=1, seed=5).history[0]
        for name in ("npo", "kl")
    }
    assert (
        seen["npo"].forget_ce == seen["kl"].forget_ce
        and seen["npo"].retain_ce == seen["kl"].retain_ce
    )
    other = ng.unlearn(problem, method("npo"), Constant(1e-3), steps=1, seed=6).history[0]
    assert other.forget_ce != seen["npo"].forget_ce
