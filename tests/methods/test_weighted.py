"""Methods with a retain weight c in place of their own: what they are, and how they are called."""

from __future__ import annotations

import itertools

import pytest

from ngdiff.core.directions import GradDiff, NGDiff
from ngdiff.methods import lookup, recipes
from ngdiff.methods.definition import Method
from ngdiff.methods.lookup import label, look, method, ordered
from ngdiff.methods.objectives import NPO
from ngdiff.methods.recipes import METHODS, WEIGHTS, candidates, family, graddiff, named, tagged
from ngdiff.study.trial import Trial

BASES = tagged("weighted")
PAIRS = list(itertools.product(BASES, (*WEIGHTS, 0.25)))


@pytest.mark.parametrize(("name", "c"), PAIRS)
def test_only_the_weights_of_the_base_are_replaced(name, c):
    base, found = METHODS[name], recipes.weighted(name, c)
    assert found.direction == GradDiff(c)
    assert (found.retain, found.forget, found.trains) == (base.retain, base.forget, base.trains)
    assert found.look == base.look
    assert (found.name, found.key) == (f"{base.name}({c:g})", f"{name}-{c:g}")
    assert found.tags == () and found.defaults is None, "not the published setting"
    assert METHODS[name] is base and found != base


@pytest.mark.parametrize(("name", "c"), PAIRS)
def test_a_key_with_a_weight_goes_round(name, c):
    made = recipes.weighted(name, c)
    assert named(made.key) == method(made.key) == method(made) == lookup.known(made.key) == made
    by_key, by_value = Trial(made.key), Trial(made)
    assert by_key == by_value and by_key.method == by_value.method == made.key  # a text
    assert by_key.recipe == made and by_key.row()["method"] == made.key
    assert "colour" not in by_key.row(), "a method of the package needs no look in its rows"
    assert family(made.key) == name
    assert label(made.key) == made.name and look(made.key) == METHODS[name].look


@pytest.mark.parametrize("key", METHODS)
def test_a_method_as_it_is_published_is_its_own_family(key):
    assert family(key) == key and named(key) is METHODS[key]
    several = tuple(f"{key}-{c:g}" for c in WEIGHTS)
    assert candidates(key) == (several if key in BASES else (key,))
    assert [family(candidate) for candidate in candidates(key)] == [key] * len(candidates(key))


@pytest.mark.parametrize("key", ["graddiff-0.7", "graddiff-0.9", "mine", "", "npo-", "-0.5"])
def test_what_has_no_weight_to_choose_is_its_own_family(key):
    assert family(key) == key and candidates(key) == (key,)


@pytest.mark.parametrize(("c", "near"), [(0.6, 0.5), (0.97, 0.99), (0.125, 0.1)])
def test_graddiff_has_every_weight_by_name(c, near):
    key = f"graddiff-{c:g}"
    found = method(key)
    assert found == graddiff(c) == Method(f"GradDiff({c:g})", GradDiff(c)) and found.key == key
    assert Trial(key).method == Trial(graddiff(c)).method == key
    assert (
        label(key) == f"GradDiff({c:g})" and look(key).colour == look(f"graddiff-{near:g}").colour
    )
    assert method(f"graddiff-.{key.partition('.')[2]}") == found  # the zero may be left out


@pytest.mark.parametrize("key", ["foo-0.9", "gradascent-0.9", "ngdiff-0.5", "dpo-0.5", "-0.5"])
def test_other_names_with_a_number_are_refused(key):
    assert named(key) is None
    for take in (method, Trial):
        with pytest.raises(ValueError, match=f"unknown method '{key}'; choose one of: ngdiff, "):
            take(key)


@pytest.mark.parametrize("key", ["npo-1.5", "npo-1", "npo--0.5", "npo-0.5x", "npo-nan", "npo-1e-3"])
def test_a_weight_outside_of_zero_and_one_is_no_method(key):
    with pytest.raises(ValueError, match="unknown method"):
        method(key)


@pytest.mark.parametrize("name", ["foo", "gradascent", "ngdiff", "npo-0.5", ""])
def test_a_method_without_fixed_weights_has_none_to_choose(name):
    words = f"^{name} has no retain weight to choose; these have: {', '.join(BASES)}$"
    with pytest.raises(ValueError, match=words):
        recipes.weighted(name, 0.5)


def test_a_method_of_a_user_belongs_to_no_family_of_ours():
    """It may begin as one of ours does; one with the very name of ours is refused."""
    mine = Method("NPO mine", NGDiff(), forget=NPO(0.3))
    assert mine.key == "npo-mine" and family(mine.key) == mine.key
    assert Trial(mine).method == mine and named(mine.key) is None
    with pytest.raises(ValueError, match=r"'NPO\(0.9\)' \(key npo-0.9\) is the name of another"):
        method(Method("NPO(0.9)", NGDiff(), forget=NPO()))
    for own in (Method("mine", NGDiff(), key="NPO"), Method("mine", NGDiff(), key="KL")):
        assert Trial(own).recipe == own, "a key that is the label of one of ours"


def test_weights_stand_beside_their_method_in_every_table():
    names = ["zz", "wga-0.99", "npo-0.99", "graddiff-0.97", "mgda", "npo", "npo-0.5", "ngdiff"]
    names += ["graddiff-0.7", "kl-0.9", "graddiff-0.99", "graddiff-0.1", "lossnorm"]
    wanted = ["ngdiff", "graddiff-0.1", "graddiff-0.7", "graddiff-0.97", "graddiff-0.99"]
    wanted += ["kl-0.9", "lossnorm", "npo", "npo-0.5", "npo-0.99", "wga-0.99", "mgda", "zz"]
    for order in (names, names[::-1], sorted(names)):
        assert ordered(order) == wanted


def test_every_candidate_of_a_rival_has_a_name_and_a_key_of_its_own():
    keys = [key for name in tagged("rival") for key in candidates(name)]
    names = [method(key).name for key in keys]
    assert len(set(keys)) == len(set(names)) == len(keys)
    assert [method(key).key for key in keys] == keys
