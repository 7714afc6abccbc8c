"""Step-size rules on analytic lines: no torch, no model.

Every outcome, every bound, golden values by hand.
"""

from __future__ import annotations

import math
import random
import struct
from collections import Counter
from dataclasses import FrozenInstanceError, dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngdiff.core.autolr import AutoLR
from ngdiff.core.parabola import Fit, fit, parabola
from ngdiff.core.stepsize import Constant, Line, WarmupCosine, WarmupLinear

EPS_32 = 2.0**-23


@dataclass
class Curve(Line):
    """A line of one row (or of the rows it gives), counting its calls."""

    f: object
    slope: float | None = None
    eps: float = 2.0**-52
    calls: int = 0

    def __call__(self, eta):
        self.calls += 1
        value = self.f(eta)
        return value if isinstance(value, list) else [value]


def float32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def valley(best, curvature=1.0, R_0=1.0):
    """The parabola of height R_0 at 0 with its minimum at `best`."""
    return lambda h: R_0 + curvature * (0.5 * h * h - best * h)


def probed(rule, f, state=None, **kw):
    return rule.step(state or rule.init(), Curve(f, **kw))


PLAIN = AutoLR(lr=0.1, fresh=0, search=0)


# ------------------------------------------------------------------------------------- the parabola
def test_parabola_by_hand():
    assert parabola(7.0, 3.0, 1.0, 0.5) == (-6.0, 8.0)  # 3 − 6h + 4h²
    assert parabola(1.0, 3.0, 7.0, -0.5) == (-6.0, 8.0)


@given(st.floats(1e-3, 1e3), st.floats(-3, 3), st.floats(-4, 4), st.sampled_from([1, 2]))
def test_exact_on_a_parabola_from_any_radius(best, curvature, radius, forwards):
    curvature, h = 10**curvature, best * 10 ** (radius / 2)
    f = valley(best, curvature, R_0=curvature * best**2)
    found = fit(Curve(f, slope=-curvature * best), [f(0)], h, forwards)
    assert found.outcome == "ok"
    assert found.eta == pytest.approx(best, rel=1e-9)
    assert (found.slope, found.curvature) == pytest.approx((-curvature * best, curvature), rel=1e-9)


def test_rows_are_addends():
    f = valley(0.2)
    rows = Curve(lambda h: [0.1 * f(h), 0.6 * f(h), 0.3 * f(h)])
    assert fit(rows, rows(0.0), 0.1).eta == pytest.approx(0.2)


@pytest.mark.parametrize("forwards", [1, 2])
@pytest.mark.parametrize(
    ("f", "outcome"),
    [
        (valley(0.2), "ok"),
        (valley(-0.2), "uphill"),
        (lambda h: 1 - h - h * h, "concave"),
        (lambda h: 1 + h - h * h, "uphill"),
        (lambda h: 1 - h, "noise"),  # a straight line down: no bend to be seen
        (lambda h: 1 + h, "uphill"),
        (lambda h: 1.0, "noise"),
        (lambda h: math.nan if h else 1.0, "nonfinite"),
        (lambda h: math.inf if h else 1.0, "nonfinite"),
        (lambda h: [math.inf, -math.inf] if h else [1.0, 1.0], "nonfinite"),
        (lambda h: [1e308, 1e308] if h else [1.0, 1.0], "nonfinite"),
        (lambda h: math.nan, "nonfinite"),
    ],
)
def test_every_fit_has_its_name(f, outcome, forwards):
    slope = {"uphill": 1.0, "noise": -(f(0.1) != f(0))}.get(outcome, -1.0)
    line = Curve(f, slope=-0.2 if outcome == "ok" else slope)
    assert fit(line, line(0.0), 0.1, forwards).outcome == outcome
    assert (Fit(-1.0, 0.0, "noise").eta, Fit(-1.0, 4.0, "ok").eta)[1] == 0.25
    assert math.isnan(Fit(-1.0, 0.0, "noise").eta)


def test_one_forward_needs_the_exact_slope():
    with pytest.raises(ValueError, match="fresh=0"):
        fit(Curve(valley(0.1)), [1.0], 0.1, forwards=1)


def rounded(seed, best=1e-2, **kw):
    """A float32 loss of a valley: the fit's outcome at `h`."""
    R_0 = random.Random(seed).uniform(0.5, 4.0)
    f = valley(best, 100.0, R_0)
    return lambda h, forwards: fit(
        Curve(lambda x: float32(f(x)), -100 * best, EPS_32), [float32(R_0)], h, forwards
    )


@pytest.mark.parametrize("forwards", [1, 2])
def test_rounding_noise_is_never_accepted(forwards):
    for seed in range(200):
        line = rounded(seed)
        for k in range(-9, -1):
            h = 10**k * random.Random(seed).uniform(0.5, 2)
            found = line(h, forwards)
            if found.outcome == "ok":  # then it is right
                assert 0.4 < found.eta / 1e-2 < 2.5
            assert k > -5 or found.outcome != "ok"
            assert k < -2 or found.outcome == "ok"


@pytest.mark.parametrize("forwards", [1, 2])
def test_a_line_flat_to_rounding_is_noise_not_uphill(forwards):
    outcomes = Counter(
        rounded(seed)(h, forwards).outcome for seed in range(100) for h in (1e-9, 1e-8, 1e-7)
    )
    assert outcomes["noise"] == 300  # "uphill" would shrink the rate further into the noise


@given(st.integers(0, 10**6), st.floats(1e-7, 1e-4))
def test_a_straight_float32_line_has_no_minimum(seed, h):
    slope, R_0 = -random.Random(seed).uniform(0.1, 10), random.Random(seed + 1).uniform(0.5, 4)
    found = fit(Curve(lambda x: float32(R_0 + slope * x), eps=EPS_32), [float32(R_0)], h)
    assert found.outcome == "noise"


@given(st.floats(0.1, 10), st.floats(0.01, 10), st.floats(1e-3, 1.0))
def test_concave_lines_are_never_accepted(slope, bend, h):
    for forwards in (1, 2):
        line = Curve(lambda x: 5 - slope * x - bend * x * x, -slope)
        assert fit(line, line(0.0), h, forwards).outcome == "concave"


def test_curvature_must_stand_clear_of_its_scatter_over_rows():
    def rows(h):  # second differences 3h², −h²: mean h², standard error 2h² of it, the sum's 4h²
        return [1 - h + 1.5 * h * h, 1 - h - 0.5 * h * h]

    line = Curve(rows)
    assert [fit(line, rows(0), 0.1, z=z).outcome for z in (0.0, 0.49, 0.51)] == [
        "ok",
        "ok",
        "noise",
    ]


# ------------------------------------------------------------------------------------------- AutoLR
@pytest.mark.parametrize(
    ("best", "eta", "outcome"),
    [
        (0.1, 0.1, "accepted"),
        (0.19, 0.19, "accepted"),
        (0.051, 0.051, "accepted"),
        (5.0, 0.2, "clipped_up"),
        (0.01, 0.05, "clipped_down"),
        (-0.1, 0.05, "uphill"),
    ],
)
def test_a_probe_moves_the_rate_by_at_most_the_clip(best, eta, outcome):
    state = probed(PLAIN, valley(best))
    assert state.eta == pytest.approx(eta, rel=1e-9) and state.outcome == outcome
    assert state.proposed == pytest.approx(best, rel=1e-9)
    assert (state.slope, state.curvature) == pytest.approx((-best, 1.0), rel=1e-9)


@pytest.mark.parametrize(
    ("f", "factor", "outcome"),
    [
        (lambda h: 1 - h - h * h, 2.0, "concave"),
        (lambda h: 1 - h, 2.0, "noise"),
        (lambda h: math.nan if h else 1.0, 0.5, "nonfinite"),
        (lambda h: 1 + h + h * h, 0.5, "uphill"),
    ],
)
def test_a_fit_that_does_not_count_still_moves_the_rate(f, factor, outcome):
    state = probed(PLAIN, f)
    assert (state.eta, state.outcome) == (0.1 * factor, outcome)
    assert probed(replace(PLAIN, clip=3.0, shrink=0.25), f).eta == pytest.approx(
        0.1 * (3 if factor > 1 else 0.25)
    )


def test_uphill_stops_shrinking_at_a_share_of_the_searched_rate_and_nothing_else_does():
    rule = AutoLR(lr=0.1, fresh=0, every=1, floor=0.3)
    first = probed(rule, valley(0.2))
    assert first.found == first.eta == pytest.approx(0.2)
    rising, broken = (lambda h: 1 + h + h * h), (lambda h: math.nan if h else 1.0)
    state, rates = first, []
    for _ in range(4):
        state = probed(rule, rising, state)
        rates.append(state.eta)
    assert rates == pytest.approx([0.1, 0.06, 0.06, 0.06]) and state.outcome == "uphill"
    # a loss that is not finite asks for less
    assert probed(rule, broken, state).eta == pytest.approx(0.03)
    low = probed(rule, valley(0.01), state)
    assert low.eta == pytest.approx(0.03)  # nor is a fit that counts held up
    # and below the floor uphill moves nothing
    assert probed(rule, rising, low).eta == pytest.approx(0.03)
    assert probed(replace(rule, floor=0.0), rising, low).eta == pytest.approx(0.015)
    unsearched = replace(rule, search=0)
    # nothing was found
    assert probed(unsearched, rising, probed(unsearched, rising)).eta == pytest.approx(0.025)


@pytest.mark.parametrize(("best", "bound"), [(5.0, {"max_lr": 0.15}), (0.01, {"min_lr": 0.09})])
def test_hard_bounds(best, bound):
    state = probed(replace(PLAIN, **bound), valley(best))
    assert (state.eta, state.outcome) == (*bound.values(), "bounded")
    for f in (lambda h: 1 - h, lambda h: 1 + h + h * h):  # whatever the outcome
        rule = replace(PLAIN, min_lr=0.09, max_lr=0.15)
        assert rule.min_lr <= probed(rule, f).eta <= rule.max_lr


def test_the_radius_is_apart_from_the_rate():
    looked = []
    probed(replace(PLAIN, radius=0.03), lambda h: looked.append(h) or valley(0.1)(h))
    probed(PLAIN, lambda h: looked.append(h) or valley(0.1)(h))
    assert looked == [0.0, 0.03, -0.03, 0.0, 0.1, -0.1]


def test_where_the_curvature_is_noise_the_radius_grows_and_not_the_rate():
    looked = []

    def shallow(h):  # a bend that float32 losses show from h = 1 on; the minimum is at 0.12
        looked.append(h)
        return 1.0 + 2e-6 * (0.5 * h * h - 0.12 * h)

    state = probed(PLAIN, shallow, eps=EPS_32)
    assert looked == [0.0, 0.1, -0.1, 1.0, -1.0] and state.outcome == "accepted"
    assert state.eta == pytest.approx(0.12, rel=1e-6) and state.forwards == 5
    # no bend at any radius: the rate grows
    flat = probed(PLAIN, lambda h: 1.0 - 1e-12 * h, eps=EPS_32)
    assert (flat.outcome, flat.eta, flat.forwards) == (
        "noise",
        PLAIN.clip * PLAIN.lr,
        1 + 2 * (PLAIN.widen + 1),
    )
    still = probed(replace(PLAIN, widen=0), shallow, eps=EPS_32)
    assert (still.outcome, still.forwards) == ("noise", 3)


def test_a_skewed_fit_shrinks_the_rate():
    """Exact slope −1, central slope −1 + h² = −0.19 at h = 0.9: a cubic, off by more than half."""
    line = Curve(lambda h: 1 - h + h * h + h**3, slope=-1.0)
    state = replace(PLAIN, lr=0.9).step(replace(PLAIN, lr=0.9).init(), line)
    assert (state.outcome, state.eta) == ("skewed", pytest.approx(0.45))
    within = Curve(lambda h: 1 - h + h * h + h**3, slope=-1.0)
    # −1 + .36 = −.64: off by less
    state = replace(PLAIN, lr=0.6).step(replace(PLAIN, lr=0.6).init(), within)
    assert state.outcome == "clipped_down" or state.outcome == "accepted"


def test_a_searched_rate_is_halved_until_it_lowers_the_loss():
    """A valley with a wall at 0.3: the parabola of a probe before the wall points behind it."""
    wall = lambda h: valley(0.5)(h) + (1e3 if h > 0.3 else 0.0)  # noqa: E731
    state = probed(replace(PLAIN, search=8, lr=0.25), wall)
    assert (
        state.outcome == "accepted"
        and state.eta == pytest.approx(0.25)
        and state.proposed == pytest.approx(0.5)
    )


@pytest.mark.parametrize(("z", "least", "most"), [(0.0, 50, 200), (3.0, 0, 10)])
def test_lines_with_noisy_rows_are_taken_for_parabolas_unless_the_scatter_is_asked(z, least, most):
    """200 straight falling lines of 128 rows whose losses are rounded as bfloat16 would, at a
    radius that shows nothing.
    """
    draw, accepted = random.Random(0), 0
    for _ in range(200):
        rows = [draw.uniform(0.5, 2) / 128 for _ in range(128)]

        def line(h, rows=rows):
            return [(r - h * r) * (1 + draw.uniform(-1, 1) * 2**-9) for r in rows]

        found = fit(Curve(line, eps=EPS_32), line(0.0), 1e-3, z=z)
        accepted += found.outcome in ("ok", "concave")
    assert least <= accepted <= most


def test_the_noise_is_the_larger_of_rounding_and_scatter_not_their_sum():
    """Two rows with second differences 4 and 0.

    Their sum 4 stands against rounding eps·size = 2.4 and one standard error of 4·1.
    """
    L = {0.0: [1.0, 1.0], 1.0: [2.0, 0.5], -1.0: [4.0, 1.5]}
    size = sum(map(abs, L[1.0])) + 2 * sum(L[0.0]) + sum(L[-1.0])  # 12
    seen = {
        z: fit(Curve(L.__getitem__, eps=2.4 / size), L[0.0], 1.0, z=z).outcome
        for z in (0.0, 0.99, 1.0)
    }
    assert seen == {0.0: "ok", 0.99: "ok", 1.0: "noise"}


def test_probes_every_so_often_and_holds_in_between():
    rule = replace(PLAIN, every=3)
    state, line, history = rule.init(), Curve(valley(1.0)), []
    for _ in range(7):
        due = rule.probes(state)
        state = rule.step(state, line if due else None)
        history.append((due, state.outcome, state.eta, state.forwards))
    assert [h[0] for h in history] == [True, False, False] * 2 + [True]
    assert [h[1] for h in history] == ["clipped_up", "held", "held"] * 2 + ["clipped_up"]
    assert [h[2] for h in history] == pytest.approx([0.2] * 3 + [0.4] * 3 + [0.8])
    assert [h[3] for h in history] == [3] * 3 + [6] * 3 + [9] and line.calls == 9
    with pytest.raises(ValueError, match="no line"):
        rule.step(rule.init(), None)


@pytest.mark.parametrize(("forwards", "calls"), [(1, 2), (2, 3)])
@pytest.mark.parametrize("known", [False, True])
def test_forwards_are_counted_and_a_known_loss_is_free(forwards, calls, known):
    line = Curve(valley(0.1), slope=-0.1)
    if known:
        line.at_zero = [1.0]
    state = replace(PLAIN, forwards=forwards).step(PLAIN.init(), line)
    assert state.forwards == line.calls == calls - known
    assert state.eta == pytest.approx(0.1)


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


LINES = {
    "parabola": valley,
    "quartic": lambda best: lambda h: 1 - h / best + 0.3 * (h / best) ** 2 + 0.1 * (h / best) ** 4,
    "log-sum-exp": lambda best: (
        lambda h: softplus(6 * (h / best - 1)) + 2 * softplus(-2 * h / best)
    ),
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("best", [1e-4, 1e-2])
def test_the_search_finds_the_order_of_magnitude_from_anywhere(name, best):
    f, rule = LINES[name](best), AutoLR(fresh=0)
    grid = [best * 10 ** (i / 50) for i in range(-100, 100)]
    exact, ends = min(grid, key=f), []
    for k in range(-6, 2):
        state = probed(replace(rule, lr=10.0**k), f, eps=EPS_32)
        assert 0.3 <= state.eta / exact <= 3, (k, state)
        assert f(0) - f(state.eta) > 0.5 * (f(0) - f(exact)), (k, state)
        assert state.forwards <= 1 + 2 * rule.search
        ends.append(state.eta)
    assert max(ends) / min(ends) < 3.5  # eight decades of starting rates end alike


def test_the_search_runs_once():
    rule = AutoLR(lr=1e-6, every=1, fresh=0)
    state = probed(rule, valley(0.1))
    assert state.eta == pytest.approx(0.1)
    # from now on by at most the clip
    assert probed(rule, valley(1e3), state).eta == pytest.approx(0.2)


@pytest.mark.parametrize("f", [lambda h: 1 + h, lambda h: math.nan if h else 1.0])
def test_a_search_that_finds_nothing_ends_low_and_says_why(f):
    state = probed(AutoLR(lr=1e-3, fresh=0), f)
    assert state.outcome in ("uphill", "nonfinite") and state.eta < 1e-3 and state.found == 0.0


def test_a_search_that_found_nothing_is_made_again():
    """A retain loss at its minimum (KL at the start) only rises.

    The rate must not collapse before it has moved.
    """
    rule = AutoLR(lr=1e-3, every=1, fresh=0)
    first = probed(rule, lambda h: 1 + abs(h) + h)
    assert first.eta == 0.5e-3
    again = probed(rule, valley(0.02), first)
    assert again.eta == again.found == pytest.approx(0.02)


def test_where_the_loss_falls_without_a_bend_the_rate_stays():
    state = probed(AutoLR(lr=1e-3, fresh=0, min_lr=1e-4, max_lr=1e-2), lambda h: 1 - h)
    assert (state.eta, state.outcome, state.found) == (1e-3, "noise", 0.0)


def test_a_search_goes_down_to_a_finite_loss():
    state = probed(AutoLR(lr=10.0, fresh=0), lambda h: math.nan if abs(h) > 0.5 else 1 + h)
    assert 0 < state.eta <= 0.05


def test_a_search_stays_within_its_bounds():
    looked = []
    rule = AutoLR(lr=1e-3, fresh=0, min_lr=1e-4, max_lr=1e-2)
    for f in (valley(1e-9), valley(1e9), lambda h: 1 - h, lambda h: 1 + h):
        state = probed(rule, lambda h, f=f: looked.append(abs(h)) or f(h))
        assert 1e-4 <= state.eta <= 1e-2
    assert max(looked) <= 1e-2 * (1 + 1e-12) and min(h for h in looked if h) >= 1e-4 * (1 - 1e-12)


# ------------------------------------------------------------------------------------- AutoLR.paper
def test_the_paper_preset_is_the_bare_formula():
    rule = AutoLR.paper(lr=0.5)
    state = probed(rule, {0.0: 2.0, 0.5: 1.0, -0.5: 4.0}.__getitem__)
    # slope (1 − 4)/(2·½) = −3; curvature (1 − 2·2 + 4)/½² = 4; η* = 3/4
    assert (state.slope, state.curvature, state.eta, state.outcome) == (-3.0, 4.0, 0.75, "accepted")
    assert rule.every == 10 and rule.fresh == 0 and state.forwards == 3


@pytest.mark.parametrize(
    ("f", "eta"),
    [
        (valley(-3.0), -3.0),  # uphill: a negative rate
        (lambda h: 1 - h - h * h, -0.5),  # concave: the maximum
        (valley(1e6), 1e6),  # no clip, no bound
        (valley(0.0), 0.0),
    ],
)
def test_the_paper_preset_checks_nothing(f, eta):
    state = probed(AutoLR.paper(lr=0.5), f)
    assert state.eta == pytest.approx(eta, rel=1e-6, abs=1e-9) and state.outcome == "accepted"
    again = AutoLR.paper(lr=0.5).step(replace(state, step=10), Curve(valley(0.25)))
    # and it goes on from any of them, even from 0
    assert again.eta == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("f", [lambda h: 1.0, lambda h: math.nan, lambda h: math.inf if h else 1.0])
def test_the_paper_preset_keeps_its_rate_where_the_formula_has_no_value(f):
    state = probed(AutoLR.paper(lr=0.5), f)
    assert (state.eta, state.outcome) == (0.5, "nonfinite")


# ---------------------------------------------------------------------------------------- schedules
@pytest.mark.parametrize(
    ("rule", "rates"),
    [
        (Constant(0.3), [0.3] * 6),
        (WarmupLinear(1.0, warmup=2, total=6), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        (
            WarmupCosine(1.0, warmup=2, total=6),
            [0.5, 1.0, 1.0, 0.8535533905932737, 0.5, 0.14644660940672627, 0.0, 0.0],
        ),
        (WarmupLinear(2.0, warmup=0, total=4), [2.0, 1.5, 1.0, 0.5, 0.0]),
        (WarmupCosine(2.0, warmup=0, total=2), [2.0, 1.0, 0.0]),
        (WarmupLinear(1.0, warmup=3, total=3), [1 / 3, 2 / 3, 1.0, 0.0]),
    ],
    ids=repr,
)
def test_schedules_by_hand(rule, rates):
    state, used = rule.init(), []
    assert state.eta == pytest.approx(rates[0])
    for _ in rates:
        assert not rule.probes(state)
        state = rule.step(state, None)
        used.append(state.eta)
        assert state.outcome == "held" and state.forwards == 0
    assert used == pytest.approx(rates, abs=1e-15)
    assert state.step == len(rates)


# -------------------------------------------------------------------------------- values and errors
@pytest.mark.parametrize("rule", [Constant, WarmupLinear, WarmupCosine, AutoLR])
@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_must_be_positive_and_finite(rule, lr):
    with pytest.raises(ValueError, match="lr"):
        rule(lr=lr)


@pytest.mark.parametrize(
    "wrong",
    [
        {"every": 0},
        {"forwards": 3},
        {"forwards": 0},
        {"fresh": -1},
        {"clip": 0.9},
        {"shrink": 0.0},
        {"shrink": 1.1},
        {"floor": -0.1},
        {"floor": 1.1},
        {"min_lr": 0.0},
        {"max_lr": math.inf},
        {"min_lr": 1.0, "max_lr": 0.1},
        {"lr": 1e3},
        {"search": -1},
        {"z": -1.0},
        {"radius": 0.0},
        {"radius": -1.0},
        {"radius": math.nan},
        {"z": math.nan},
        {"forwards": 1},  # with the default fresh rows, whose slope is not known
    ],
    ids=repr,
)
def test_invalid_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="AutoLR needs|fresh=0"):
        AutoLR(**wrong)


def test_rules_are_values():
    assert AutoLR(lr=0.1) == AutoLR(lr=0.1) and hash(Constant(0.1)) == hash(Constant(0.1))
    assert eval(repr(AutoLR.paper())) == AutoLR.paper() and AutoLR.paper() != AutoLR()
    with pytest.raises(FrozenInstanceError):
        AutoLR().lr = 1.0
