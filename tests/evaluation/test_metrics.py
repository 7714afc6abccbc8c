"""Every metric against numbers worked out by hand, and against the odd cases: empty, one, ties,
unicode, collapse.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from scipy.stats import norm

from ngdiff.evaluation import metrics
from ngdiff.evaluation.conventions import convention

NAN, INF, LN2 = float("nan"), float("inf"), math.log(2)
EPS = convention("open-unlearning").eps


def test_conventions():
    assert (
        convention("ngdiff").eps == 0
        and EPS == 1e-10
        and convention(convention("muse")).name == "muse"
    )
    with pytest.raises(ValueError, match="'ngdiff', 'tofu', 'open-unlearning', 'muse', 'semeval'"):
        convention("paper")


# Likelihood ---------------------------------------------------------------------------------------


def test_mean_nll_and_probability():
    logp = np.log([0.5, 0.25, 1.0])  # ℓ = (ln 2 + 2 ln 2 + 0)/3 = ln 2
    assert metrics.mean_nll(logp) == pytest.approx(LN2)
    assert metrics.probability(metrics.mean_nll(logp)) == pytest.approx(0.5)
    assert metrics.probability([0.0, LN2]) == pytest.approx([1, 0.5])


@pytest.mark.parametrize("bad", [NAN, -INF, INF])
def test_mean_nll_of_a_collapsed_model_is_infinite(bad):
    assert metrics.mean_nll([-1.0, bad, -1.0]) == INF
    assert metrics.probability(INF) == 0


def test_mean_nll_of_no_token_is_undefined():
    assert math.isnan(metrics.mean_nll([]))


@pytest.mark.parametrize("eps", [0, EPS])
def test_share(eps):
    # p = .5 against .25, .125, .125: one half
    assert metrics.share(LN2, [2 * LN2, 3 * LN2, 3 * LN2], eps) == pytest.approx(0.5)
    assert metrics.share(1.0, [1.0], eps) == pytest.approx(0.5)  # tie
    assert metrics.share(INF, [1.0, 2.0], eps) == 0
    assert metrics.share(1.0, [INF, INF], eps) == pytest.approx(1)
    assert metrics.share(INF, [INF], eps) == 0


def test_share_where_probabilities_underflow():
    assert metrics.share(1000.0, [1000.0 + LN2]) == pytest.approx(2 / 3)
    assert metrics.share(1000.0, [1000.0 + LN2], EPS) == 0  # the published convention loses it


def test_truth_ratio():
    # wrong: geometric mean of 1/4 and 1/16 is 1/8; true 1/2; R = 1/4
    wrong = [2 * LN2, 4 * LN2]
    assert metrics.truth_ratio(LN2, wrong) == pytest.approx(0.25)
    assert metrics.truth_ratio(LN2, wrong, EPS) == pytest.approx(0.125 / (0.5 + 1e-10), rel=1e-14)
    assert metrics.truth_ratio(3 * LN2, [LN2]) == pytest.approx(4)


def test_truth_ratio_of_vanishing_probabilities():
    assert metrics.truth_ratio(1000.0, [1000.0 - LN2]) == pytest.approx(2)  # exp alone would be 0/0
    assert metrics.truth_ratio(1.0, [INF, 2.0]) == 0
    assert metrics.truth_ratio(INF, [1.0]) == metrics.truth_ratio(INF, [INF]) == INF
    assert metrics.truth_ratio(INF, [INF], EPS) == 0  # 0/1e-10, as published
    assert metrics.truth_ratio(1e4, [0.0]) == INF  # overflow, no warning


def test_truth_ratio_aggregates():
    R = [0.5, 1.0, 4.0]
    assert metrics.closer_to_1(R) == pytest.approx((0.5 + 1 + 0.25) / 3)
    assert metrics.true_better(R) == pytest.approx(0.5 / 3)
    assert metrics.closer_to_1([2.0], EPS) == pytest.approx(1 / (2 + 1e-10), rel=1e-14)
    assert metrics.closer_to_1([0.0, INF]) == 0 and metrics.true_better([INF]) == 0
    assert metrics.closer_to_1([0.0], EPS) == 0


def test_harmonic_mean():
    assert metrics.harmonic_mean([1, 0.5, 0.25]) == pytest.approx(3 / 7)
    assert metrics.harmonic_mean([0.3] * 9) == pytest.approx(0.3)
    assert metrics.harmonic_mean([1, 0, 1]) == 0
    with pytest.raises(ValueError, match="≥ 0"):
        metrics.harmonic_mean([1, -0.1])


def test_ks_pvalue():
    same = [0.1, 0.2, 0.3]
    assert metrics.ks_pvalue(same, same) == 1
    # D = 1 on 3 against 3: 2 of the C(6, 3) = 20 orders are that extreme
    assert metrics.ks_pvalue([1, 2, 3], [4, 5, 6]) == pytest.approx(0.1)
    assert metrics.ks_pvalue([1.0], [2.0]) == pytest.approx(1)
    # invariant under R -> 1/R, sizes may differ, +∞ is a value like any other
    a, b = np.array([0.5, 0.7, 0.8]), np.array([0.2, 0.6, 0.9, 1.5])
    assert metrics.ks_pvalue(a, b) == pytest.approx(metrics.ks_pvalue(1 / a, 1 / b))
    assert metrics.ks_pvalue([INF] * 20, [0.5] * 20) < 1e-9


# Text ---------------------------------------------------------------------------------------------


def test_rouge():
    # answer 4 words; the longest common subsequence "the cat on" has 3, the common words are 4
    scores = metrics.rouge("on the cat sat on", "the cat sat on")
    assert scores["rougeL_recall"] == 1 and scores["rouge1_recall"] == 1
    scores = metrics.rouge("the on cat", "the cat sat on")
    assert scores["rougeL_recall"] == pytest.approx(2 / 4) and scores[
        "rouge1_recall"
    ] == pytest.approx(3 / 4)
    assert scores["rougeL_f1"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))


def test_rouge_stems():
    assert metrics.rouge("He writes novels", "he writing novel")["rougeL_recall"] == 1
    assert metrics.rouge("He writes novels", "he writing novel", stemmer=False)[
        "rougeL_recall"
    ] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("generation", "answer"), [("", "a b"), ("x y", "a b"), ("東京", "東京"), ("a", "…")]
)
def test_rouge_zero(generation, answer):
    assert metrics.rouge(generation, answer)["rougeL_recall"] == 0


# Memorisation -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "exact", "strength", "published"),
    [
        ([1, 1, 1, 1], 1, 1, 1),
        ([0, 1, 0, 1], 0.5, 0.25, 0.25),  # from k = 3 on
        ([1, 1, 1, 0], 0.75, 0, 0.25),  # the published search never reaches k = n
        ([0, 0, 0, 0], 0, 0, 0.25),
        ([1], 1, 1, 1),
        ([0], 0, 0, 1),
    ],
)
def test_memorisation(hits, exact, strength, published):
    assert metrics.exact_memorization(hits) == exact
    assert metrics.extraction_strength(hits) == pytest.approx(strength)
    assert metrics.extraction_strength(hits, floor=True) == pytest.approx(published)


def test_memorisation_of_nothing_is_undefined():
    assert math.isnan(metrics.exact_memorization([])) and math.isnan(
        metrics.extraction_strength([])
    )


# Membership ---------------------------------------------------------------------------------------


def test_zlib():
    assert metrics.zlib_score(3.0, "abc") == pytest.approx(3 / len(zlib.compress(b"abc")))
    text = "Łukasz 東京 🙂"
    assert metrics.zlib_score(1.0, text) == pytest.approx(1 / len(zlib.compress(text.encode())))


def test_min_k():
    logp = [-1, -5, -2, -4, -3]  # ⌊.4·5⌋ = 2: the mean of 5 and 4
    assert metrics.min_k(logp) == pytest.approx(4.5)
    assert metrics.min_k([-1, -3]) == pytest.approx(3)  # max(1, ⌊.8⌋)
    assert metrics.min_k([-7]) == pytest.approx(7)
    assert metrics.min_k(logp, k=1) == pytest.approx(3)
    assert metrics.min_k([-1, NAN, -2]) == INF and math.isnan(metrics.min_k([]))


def test_min_k_plus_plus():
    # p = (¾, ¼): μ = ¾ ln ¾ + ¼ ln ¼ and σ = √(¾·¼)·ln 3, since the two logs differ by ln 3
    mean, var = 0.75 * math.log(0.75) + 0.25 * math.log(0.25), 0.75 * 0.25 * math.log(3) ** 2
    z = (math.log(0.25) - mean) / math.sqrt(var)
    assert z == pytest.approx(-math.sqrt(3))
    logp = np.log([0.75, 0.25, 0.75])
    assert metrics.min_k_plus_plus(logp, [mean] * 3, [var] * 3) == pytest.approx(math.sqrt(3))
    # variance floor 1e-6
    assert metrics.min_k_plus_plus([-1.0], [-1.5], [0.0]) == pytest.approx(-0.5 / 1e-3)
    assert metrics.min_k_plus_plus([NAN], [NAN], [NAN]) == INF


def test_auc():
    assert metrics.auc([1, 2], [3, 4]) == 1  # members score lower
    assert metrics.auc([3, 4], [1, 2]) == 0
    assert metrics.auc([1, 3], [2, 4]) == pytest.approx(3 / 4)
    assert metrics.auc([1, 1], [1, 1]) == 0.5  # ties count half
    assert metrics.auc([1], [2]) == 1
    assert metrics.auc([INF, INF], [INF, 1]) == pytest.approx(1 / 4)
    assert metrics.auc([1, NAN], [2]) == 1 and math.isnan(metrics.auc([NAN], [2]))


def test_auc_of_two_normals():
    rng = np.random.default_rng(0)
    value = metrics.auc(rng.normal(0, 1, 4000), rng.normal(1, 1, 4000))
    # P(N(1, 2) > 0); standard error 0.005
    assert value == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.02)


def test_privleak():
    assert metrics.privleak(1.0, 0.5) == pytest.approx(-100)
    assert metrics.privleak(0.5, 0.5) == 0
    assert metrics.privleak(0.25, 0.5) == pytest.approx(50)  # (¾ − ½)/½
    assert metrics.privleak(0.9, 0.6) == pytest.approx(-75)  # (.1 − .4)/.4
    assert metrics.privleak(0.9, 0.6, EPS) == pytest.approx(-30 / (0.4 + 1e-10), rel=1e-13)
    assert math.isnan(metrics.privleak(0.5, 1.0)) and metrics.privleak(
        0.5, 1.0, EPS
    ) == pytest.approx(0.5e12, rel=1e-6)
