"""Benchmark, its recipe and its errors; profiles."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from ngdiff.data import Benchmark, Prompt, authors, load, tofu
from ngdiff.data.benchmark import siblings
from ngdiff.data.made.authors import SEED, SPLITS, generate
from ngdiff.profiles import Profile, profile


@pytest.mark.parametrize("split", SPLITS)
def test_benchmark_reads_its_configs(split):
    bench, tables = authors("tiny", split), generate(80, 12, SEED)
    retain, holdout = siblings(split)
    kept = profile("tiny").retain_rows
    assert bench.forget == tables[split] and bench.retain == tables[retain][:kept]
    assert len(bench.retain) == kept < len(tables[retain])
    assert bench.holdout == tables[holdout] and bench.full == bench.retain + bench.forget
    assert bench.forget_perturbed == tables[f"{split}_perturbed"]
    assert bench.retain_perturbed == tables["retain_perturbed"]
    assert bench.real_authors_perturbed == tables["real_authors_perturbed"]
    assert bench.world_facts_perturbed == tables["world_facts_perturbed"]
    assert len(repr(bench)) < 400


def test_the_profile_says_how_many_retain_rows_are_kept():
    """The first ones, asked about too; forget and hold-out rows stay as they are."""
    tables, tiny = generate(80, 12, SEED), profile("tiny")
    for n in (1, 50, 864, 5000, None):
        bench = authors(replace(tiny, retain_rows=n))
        assert bench.retain == tables["retain90"][:n]
        assert bench.retain_perturbed == tables["retain_perturbed"][:n]
        assert (bench.forget, bench.holdout) == (tables["forget10"], tables["holdout10"])
        assert load(json.loads(json.dumps(bench.source))) == bench
    assert authors(replace(tiny, retain_rows=None)).full == tables["full"]


def test_source_round_trip_and_fingerprint():
    bench = authors(
        replace(profile("tiny"), name="mine", authors=20, questions=5), "forget05", seed=3
    )
    again = load(json.loads(json.dumps(bench.source)))
    assert again == bench and again.fingerprint == bench.fingerprint
    prints = {bench.fingerprint, authors().fingerprint, authors(seed=1).fingerprint}
    prints |= {
        authors(split="forget01").fingerprint,
        replace(bench, prompt=Prompt("Q: ")).fingerprint,
    }
    assert len(prints) == 5


def test_prompt_is_tofus_form():
    assert Prompt().text("Who?") + "Me." == "Question: Who?\nAnswer: Me."


def small(**changes):
    parts = {
        "name": "mine",
        "split": "forget",
        "configs": {
            "forget": [{"question": "a?", "answer": "A"}],
            "retain": [{"question": "b?", "answer": "B"}],
        },
        "pretrain": [],
        "source": {},
    }
    return Benchmark(**(parts | changes))


def configs(forget, retain, **more):
    return {"forget": forget, "retain": retain} | more


A, B = {"question": "a?", "answer": "A"}, {"question": "b?", "answer": "B"}


def test_two_lists_of_rows_are_a_benchmark():
    assert small().full == [B, A]
    documents = small(
        configs=configs([{"question": "", "answer": "x"}], [{"question": "", "answer": "y"}])
    )
    assert len(documents.forget) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"configs": configs([], [B])}, "'forget' is empty or missing"),
        ({"configs": configs([A], [])}, "'retain' is empty or missing"),
        ({"configs": {"forget": [A]}}, "'retain' is empty or missing"),
        (
            {"configs": configs([A], [B, A | {"answer": "other"}])},
            "forget row 0 and retain row 1 ask the same",
        ),
        ({"pretrain": [A]}, "forget row 0 and pretrain row 0 ask the same"),
        (
            {"configs": configs([A, {"question": "c?"}], [B])},
            "forget, row 1: no text under 'answer'",
        ),
        ({"configs": configs([A], [{"answer": "B"}])}, "retain, row 0: no text under 'question'"),
        ({"configs": configs([A | {"answer": 3}], [B])}, "forget, row 0: no text under 'answer'"),
        ({"configs": configs([A | {"answer": " "}], [B])}, "forget, row 0: the answer is empty"),
        (
            {"configs": configs([A], [B], forget_perturbed=[A])},
            "row 0: no text under 'paraphrased_answer'",
        ),
        (
            {"configs": configs([A], [B], world_facts_perturbed=[A])},
            "row 0: perturbed_answer must be",
        ),
        (
            {"configs": configs([A], [B], real_authors_perturbed=[A | {"perturbed_answer": "x"}])},
            "non-empty list",
        ),
        ({"split": "retain90"}, "unknown split 'retain90'"),
    ],
)
def test_bad_benchmarks_are_refused_by_name_and_row(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        small(**changes)


def test_missing_config_is_named_when_asked_for():
    with pytest.raises(KeyError, match=r"no config 'holdout'; it has forget, retain"):
        _ = small().holdout


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: authors("tiny", "forget20"), "choose one of: forget01, forget05, forget10"),
        (lambda: tofu("tiny", "forget20"), "choose one of: forget01, forget05, forget10"),
        (
            lambda: load({"name": "wmdp"}),
            "unknown benchmark 'wmdp' in source; known: authors, tofu, news, muse",
        ),
        (lambda: profile("huge"), "choose one of: tiny, laptop, small, paper"),
        (lambda: generate(401, 12, 0), "2 to 400 authors"),
        (lambda: generate(80, 13, 0), "1 to 12 questions"),
    ],
)
def test_unknown_names_and_sizes_list_what_is_known(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("n_authors", [2, 3, 200, 400])
def test_every_served_size_generates(n_authors):
    made = generate(n_authors, 12, 5)
    assert len(made["full"]) == 12 * n_authors
    assert len(made["holdout10"]) == len(made["forget10"]) == 12 * max(1, round(n_authors / 10))


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_profiles(name):
    P = profile(name)
    assert P.name == name and profile(P) is P and isinstance(P, Profile)
    assert (P.lm is None) != (P.model is None)
    assert hash(P) == hash(profile(name))
