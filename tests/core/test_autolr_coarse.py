"""AutoLR on a coarse forward: the radius grows until weights can show it, noise is never taken for
a bend.
"""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass

import pytest
import torch

import ngdiff as ng
from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import NGDiff
from ngdiff.core.parabola import Z, fit, scatter, student
from ngdiff.core.point import Point
from ngdiff.core.search import BLUR, MOST
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import EPS, Line, State
from ngdiff.data.benchmark import Benchmark
from ngdiff.engine.master import Master
from ngdiff.timing import probes as bench_probes
from tests.helpers import micro
from tests.helpers.twin import Net

COARSE = 2.0**-8


@dataclass
class Noisy(Line):
    """Rows of L(η) = L₀ + s·η + ½c·η², each with an error of its own, of standard deviation
    `sigma`, at every look.
    """

    slope_of: float
    curvature: float
    sigma: float
    seed: int
    rows: int = 32
    level: float = 1.0
    eps: float = COARSE
    resolved: float = 0.0  # radius from which the weights show it

    def __post_init__(self):
        self.random, self.looks = random.Random(self.seed), []

    def __call__(self, eta):
        self.looks.append(eta)
        value = self.level + self.slope_of * eta + 0.5 * self.curvature * eta**2
        return [value / self.rows + self.random.gauss(0, self.sigma) for _ in range(self.rows)]

    def blur(self, eta):
        return self.resolved / abs(eta)


# -------------------------------------------------------------------------------------- the verdict
@pytest.mark.parametrize("slope", [0.0, -1.0, -100.0])
@pytest.mark.parametrize("rows", [8, 32, 128])
def test_noise_alone_is_never_a_bend(slope, rows):
    """2000 straight lines with noise: at most 0.27 % pass three standard errors, half of those as
    concave.
    """
    accepted = 0
    for seed in range(2000):
        line = Noisy(slope, 0.0, 0.01, seed, rows)
        accepted += fit(line, line(0.0), 1e-3, z=3.0).outcome == "ok"
    assert accepted <= 2000 * 0.00135 + 3 * math.sqrt(2000 * 0.00135)


@pytest.mark.parametrize("bend", [1.0, 3.0, 10.0, 100.0])
def test_a_concave_line_is_never_accepted(bend):
    """Curvature from one to a hundred standard errors below zero."""
    sigma, h, rows = 0.01, 1e-3, 32
    error = math.sqrt(6 * rows) * sigma  # of the second difference
    for seed in range(1000):
        line = Noisy(-100.0, -bend * error / h**2, sigma, seed, rows)
        found = fit(line, line(0.0), h, z=3.0)
        assert found.outcome in ("noise", "concave", "uphill")  # uphill: its slope drowns too


def test_a_bend_well_above_the_noise_is_accepted_and_right():
    sigma, h, rows = 1e-4, 1e-3, 32
    for seed in range(200):
        # second difference 0.2, its error 1.4e-3; of the slope 4 %
        line = Noisy(-2.0, 2000.0, sigma, seed, rows)
        found = fit(line, line(0.0), 10 * h, z=3.0)
        assert found.outcome == "ok" and found.eta == pytest.approx(1e-3, rel=0.15)


def test_the_bound_of_rounding_is_for_exact_forwards_and_few_rows():
    """A bend of 0.1 % of the loss: below bfloat16's worst case, far above what 32 rows that agree
    show.
    """
    for eps, rows, outcome in ((COARSE, 32, "ok"), (COARSE, 7, "noise"), (EPS, 7, "ok")):
        line = Noisy(-1.0, 1000.0, 0.0, 0, rows, eps=eps)
        assert fit(line, line(0.0), 1e-3, z=3.0).outcome == outcome


def test_students_t_widens_few_rows():
    from scipy import stats

    for n in (8, 16, 128, 10_000):
        exact = stats.t.ppf(stats.norm.cdf(3.0), n - 1)
        assert student(3.0, n) == pytest.approx(exact, rel=0.03)
    assert scatter([1.0, 2.0, 3.0]) == pytest.approx(math.sqrt(3 * 1.0))


# --------------------------------------------------------------------------------------- the radius
@pytest.mark.parametrize("resolved", [1e-6, 1e-4, 3e-3])
def test_the_radius_grows_until_weights_can_show_it_at_no_forward(resolved):
    line = Noisy(-2.0, 2000.0, 0.0, 0, resolved=resolved)
    rule = AutoLR(lr=1e-4, slack=0.0)
    state = rule.step(State(eta=1e-4, found=1e-4), line)
    # `resolved` is where rounding is all of the way: half of it is at twice that
    assert state.radius == pytest.approx(max(1e-4, 2 * resolved), rel=2**0.5 - 1)
    assert line.blur(state.radius) <= BLUR
    assert len(line.looks) == 3 == state.forwards
    assert state.proposed == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize("start", [1e-7, 1e-5, 1e-3, 1e-1])
def test_the_search_never_looks_closer_than_weights_can_show(start):
    line = Noisy(-2.0, 2000.0, 0.0, 0, resolved=3e-4)  # η* = 1e-3
    rule = AutoLR(lr=start, slack=0.0)
    state = rule.step(rule.init(), line)
    assert state.eta == pytest.approx(1e-3, rel=1e-6) and state.outcome == "accepted"
    assert min(abs(h) for h in line.looks if h) >= 2 * 3e-4 * (1 - 1e-12)


def test_where_even_the_largest_rate_cannot_be_seen_nothing_is_accepted():
    line = Noisy(-2.0, 0.0, 0.1, 0, resolved=1e9)
    for state in (State(eta=1e-3), State(eta=1e-3, found=1e-4)):
        after = AutoLR().step(state, line)
        assert (after.outcome, after.radius, after.eta) == ("flat", MOST, 1e-3)


@pytest.mark.parametrize("start", [1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("resolved", [1e-5, 1e-3])
def test_a_search_without_a_find_takes_the_least_radius_the_weights_show(start, resolved):
    """A straight rise: every radius moves R, and those that no weight shows are not asked."""
    line = Noisy(50.0, 0.0, 0.0, 0, resolved=resolved)
    after = AutoLR(lr=start, slack=0.0).step(State(eta=start), line)
    assert not after.found and after.outcome == "clipped_down"
    least = min(h for h in line.looks if h > 0)
    assert after.eta == pytest.approx(least) and 1 <= least / (2 * resolved) < 2 * 2**0.5


def test_blur_lets_pass_no_radius_at_which_no_weight_moves():
    """Where nothing moves the blur is 1: all of the way is rounding."""
    line = Noisy(-2.0, 2000.0, 0.0, 0)
    line.blur = lambda eta: 1.0 if abs(eta) < 3e-4 else 0.0
    AutoLR(lr=1e-7).step(State(eta=1e-7), line)
    assert min(abs(h) for h in line.looks if h) >= 3e-4


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_exact_weights_have_no_blur(kind):
    net = Net(kind)
    looked = []

    class Look(AutoLR):
        def step(self, state, line, info=None):
            looked.append(line.blur(1e-9))
            return super().step(state, line, info)

    UnlearningStep(net, torch.optim.SGD(net.trained(), lr=0.1), NGDiff(), Look(fresh=0))(
        net.R, net.F
    )
    assert looked == [0.0]


def test_blur_is_what_rounding_does_to_the_way():
    """By hand: θ = 1 and u = 1, η below and above half the spacing 2⁻⁷ of bfloat16 above 1."""
    theta = torch.nn.Parameter(torch.ones(4))
    point = Point([theta], torch.optim.SGD([theta], lr=1.0), None)
    point.save(None)
    point.u = [torch.ones(4)]
    assert point.blur(2.0**-9, torch.bfloat16) == 1.0  # nothing moves: the error is all of the way
    assert point.blur(2.0**-7, torch.bfloat16) == 0.0
    # rounds up by a third of the way
    assert point.blur(3 * 2.0**-9, torch.bfloat16) == pytest.approx(1 / 3)
    assert point.blur(2.0**-9, torch.float32) == 0.0


def test_blur_of_a_master_sees_the_low_bits():
    """θ = 1 + 2⁻⁹, whose bfloat16 is 1: a way of 2⁻⁸ more crosses half the spacing, and shows as
    2⁻⁷.
    """
    theta = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    master = Master([theta], lambda groups: torch.optim.SGD(groups, lr=1.0))
    theta.grad = torch.full((2,), -(2.0**-9), dtype=torch.bfloat16)
    master.step()
    point = master.point([theta], master, None)
    point.save(None)
    point.u = [torch.ones(2)]
    # twice the way
    assert theta.tolist() == [1.0, 1.0] and point.blur(2.0**-8, torch.bfloat16) == 1.0
    assert point.blur(2.0**-9 * 0.5, torch.bfloat16) == 1.0  # none of it


# ----------------------------------------------------------------------- a model in both precisions
@dataclass
class Both:
    """A probe in bfloat16, and float32 along the very same line: rows at −h, 0 and h."""

    state: State
    blur: float  # at h
    drowned: float  # the blur at DROWNED
    u: list
    coarse: list
    fine: list | None = None

    def differences(self):
        """(second, first) difference of each row's loss, in bfloat16 and in float32."""
        kinds = (lambda m, o, p: p + m - 2 * o), (lambda m, _, p: p - m)
        return [
            [[kind(*row) for row in zip(*rows)] for rows in (self.coarse, self.fine)]
            for kind in kinds
        ]

    @property
    def errors(self):
        """Of both differences, bfloat16's less float32's, in standard errors of what bfloat16
        saw.
        """
        return [(sum(seen) - sum(true)) / scatter(seen) for seen, true in self.differences()]


def recorder(found):
    def look(line, h):
        return [line(at) for at in (-h, 0.0, h)]

    class Recorded(bench_probes._At):
        """Puts a `Both` a probe into `found`; bfloat16 comes first."""

        def step(self, state, line, info=None):
            after, point = super().step(state, line, info), line.point
            if line.eps > EPS:
                blur = [line.blur(h) for h in (after.radius, bench_probes.DROWNED)]
                found.append(
                    Both(after, *blur, [x.float() for x in point.u], look(line, after.radius))
                )
            else:
                own, point.u = point.u, found[-1].u
                found[-1].fine = look(line, found[-1].state.radius)
                point.u = own
            return after

    return Recorded


@pytest.fixture(scope="module")
def probed():
    forget = micro.bench().forget
    retain = [
        {"question": f"Where does Gil {i} work?", "answer": f"In {micro.TOWNS[i % 8]}."}
        for i in range(64)
    ]
    holdout = micro.bench().holdout
    bench = Benchmark(
        "many",
        "forget",
        {"forget": forget, "retain": retain, "holdout": holdout},
        [],
        {"name": "many"},
    )
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_probes, "_At", recorder(found))
        bench_probes.compare(ng.problem(bench, micro.memorised(), batch_size=16), 20)
    return found


def test_what_a_probe_says_of_its_own_error_holds(probed):
    """Same weights, rows and line as in float32: both differences of the losses lie within the z
    standard errors that the rule reckons with, and half of them within one. One in ten may not:
    what rounding the weights does to all rows alike is not in their scatter. The lines of the two
    precisions are not compared: the unit gradient of a forget loss near zero is rounding for the
    most part, and its line another one on each machine."""
    z = student(Z, len(probed[0].fine[0]))
    assert sum(max(map(abs, both.errors)) > z for both in probed) <= len(probed) / 10
    for errors in zip(*(both.errors for both in probed)):
        assert statistics.median(map(abs, errors)) <= 1


def test_an_accepted_bend_is_one_in_float32(probed):
    """No bend that counts is the opposite one along the line in float32, and no fall is a rise, by
    z standard errors.
    """
    counted = [both for both in probed if both.state.outcome in bench_probes.COUNT]
    assert len(counted) >= 4, "each of the four runs should find a rate"
    for both in counted:
        (_, second), (_, first) = both.differences()
        z = student(Z, len(first))
        bend = math.copysign(sum(second), sum(second) * both.state.curvature)
        assert bend >= -z * scatter(second)
        if both.state.slope < 0:
            assert sum(first) <= z * scatter(first)
    assert sum(both.state.slope < 0 for both in counted) >= 4


def test_a_probe_never_looks_where_there_is_only_rounding(probed):
    for both in probed:
        assert both.blur <= BLUR < both.drowned


def test_the_summary_counts_what_the_rows_hold():
    given = (
        ("accepted", "accepted", 1.1, 1.3, "ok", "noise"),
        ("clipped_up", "nonfinite", 0.7, 1.0, "noise", "uphill"),
        ("flat", "accepted", 5.0, 5.0, "ok", "ok"),
    )
    keys = ("outcome_bfloat16", "outcome_float32", "ratio_there", "ratio", "there", "drowned")
    text = bench_probes.summary([dict(zip(keys, row)) for row in given])
    assert (
        text.startswith("2 of 3 fits count")
        and "in 1 at the same radius (off by 20.0% in the median, 30.0% at most)" in text
    )
    assert (
        "and in 1 at float32's own; 1 of them float32 would refuse there; both accept or both "
        "refuse in 1 of 3" in text
    )
    assert text.endswith("accepted 2")
