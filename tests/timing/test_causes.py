"""What makes κ large: rows that are joined, the cases and what each changes, a measured case."""

from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from ngdiff.data.benchmark import Benchmark
from ngdiff.evaluation.spelling import which
from ngdiff.profiles import profile
from ngdiff.store.rows import read_rows
from ngdiff.study.trial import Trial
from ngdiff.study.tuning import TUNING_SEED
from ngdiff.timing import causes
from ngdiff.timing.causes import Cause, joined
from tests.helpers.micro_trials import MICRO

OWN = {"forget10", "retain90", "holdout10", "forget10_perturbed", "retain_perturbed"}


# ------------------------------------------------------------------------------------------- joined
def plain(name: str, n: int) -> list[dict]:
    return [{"question": f"{name}{i}?", "answer": f"{name}{i}."} for i in range(n)]


def perturbed(name: str, n: int) -> list[dict]:
    return [
        row | {"paraphrased_answer": f"({row['answer']})", "perturbed_answer": [f"a{i}", f"b{i}"]}
        for i, row in enumerate(plain(name, n))
    ]


BENCH = Benchmark(
    "by hand",
    "forget10",
    {
        "forget10": plain("f", 5),
        "retain90": plain("r", 4),
        "holdout10": plain("h", 3),
        "forget10_perturbed": perturbed("f", 5),
        "retain_perturbed": perturbed("r", 4),
        "real_authors": plain("x", 3),
        "real_authors_perturbed": perturbed("x", 3),
        "world_facts": plain("w", 3),
        "world_facts_perturbed": perturbed("w", 3),
    },
    plain("p", 3),
    {"name": "by hand"},
)


def test_two_rows_become_one_with_the_first_question():
    two = joined(BENCH, 2)
    assert two.forget == [
        {"question": "f0?", "answer": "f0. f1."},
        {"question": "f2?", "answer": "f2. f3."},
    ], "the fifth row fills no group"
    assert [row["answer"] for row in two.retain] == ["r0. r1.", "r2. r3."]
    assert two.holdout == [{"question": "h0?", "answer": "h0. h1."}]
    assert two.forget_perturbed[1] == {
        "question": "f2?",
        "answer": "f2. f3.",
        "paraphrased_answer": "(f2.) (f3.)",
        "perturbed_answer": ["a2 a3", "b2 b3"],
    }


@pytest.mark.parametrize("many", [1, 2, 3])
def test_only_rows_to_train_on_and_to_evaluate_as_such_are_joined(many):
    found = joined(BENCH, many)
    for name, rows in BENCH.configs.items():
        assert len(found.configs[name]) == (len(rows) // many if name in OWN else len(rows))
        assert name in OWN or found.configs[name] == rows
    assert found.pretrain == BENCH.pretrain
    assert found.source == {"name": "by hand", "joined": many}
    assert (found.fingerprint == BENCH.fingerprint) == (many == 1)


def test_the_rows_that_are_given_stay_as_they_are():
    before = BENCH.fingerprint
    joined(BENCH, 2)
    assert replace(BENCH).fingerprint == before


def test_forget_and_retain_rows_stay_disjoint():
    bench = joined(which("authors-all").bench(profile("tiny")), 3)
    for key in ("question", "answer"):
        forget, retain = ({row[key] for row in rows} for rows in (bench.forget, bench.retain))
        assert forget and retain and not forget & retain


def test_more_rows_than_there_are_leave_nothing_to_forget():
    with pytest.raises(ValueError, match="forget10"):
        joined(BENCH, 6)


# -------------------------------------------------------------------------------------------- cases
def changed(one: Cause, other: Cause) -> set[str]:
    """Names of the rows and of the fields of the profile that differ.

    `retain_rows` of a profile is left out: it says how the retain rows were cut.
    """
    pairs = ((one.bench.configs, other.bench.configs), (asdict(one.profile), asdict(other.profile)))
    return {k for a, b in pairs for k in a.keys() | b.keys() if a.get(k) != b.get(k)} - {
        "retain_rows"
    }


@pytest.fixture(scope="module")
def cases() -> dict[str, list[Cause]]:
    found: dict[str, list[Cause]] = {}
    for cause in causes.causes():
        found.setdefault(cause.factor, []).append(cause)
    return found


def test_the_number_of_retain_rows_changes_the_retain_rows_alone(cases):
    sized = cases["retain rows"]
    every = sized[-1]
    counts = [len(case.bench.retain) for case in sized]
    assert counts == sorted(set(counts)) and [case.value for case in sized] == list(
        map(str, counts)
    )
    for case, count in zip(sized[:-1], counts, strict=False):
        assert changed(case, every) == {"retain90"}
        assert case.bench.retain == every.bench.retain[:count]


def test_the_batch_changes_its_size_alone(cases):
    (case,) = cases["rows of a batch"]
    every = cases["retain rows"][-1]
    assert changed(case, every) == {"batch_size"}
    assert case.value == str(case.profile.batch_size) != str(every.profile.batch_size)


def test_joined_answers_are_compared_at_the_same_number_of_retain_rows(cases):
    (case,) = cases["answers joined"]
    same = [c for c in cases["retain rows"] if len(c.bench.retain) == len(case.bench.retain)]
    assert len(same) == 1 and changed(case, same[0]) == OWN
    texts = [row["answer"] for row in cases["retain rows"][-1].bench.retain[:600]]
    assert " ".join(row["answer"] for row in case.bench.retain) == " ".join(texts)


def test_real_rows_need_their_folders(cases, monkeypatch):
    assert [case.value for case in cases["rows"]] == ["generated authors"]
    read = []

    def real(text: str):
        if text.startswith("authors"):
            return which(text)
        return SimpleNamespace(bench=lambda P: read.append((text, P)) or BENCH)

    monkeypatch.setattr(causes, "which", real)
    tiny, kept = profile("tiny"), ("TOFU's", "LUME's", "generated authors")
    for folders, names, places in (
        ({"tofu": "/t"}, kept[::2], ["/t"]),
        ({"lume": "/l"}, kept[1:], ["semeval:/l"]),
        ({"tofu": "/t", "lume": "/l"}, kept, ["/t", "semeval:/l"]),
    ):
        read.clear()
        found = [case for case in causes.causes(**folders) if case.factor == "rows"]
        assert tuple(case.value for case in found) == names
        assert read == [(place, tiny) for place in places]
        assert {case.profile for case in found} == {tiny}


# --------------------------------------------------------------------------------------- a run
CAUSE = Cause("factor", "value", MICRO, BENCH)


def step(norm_R: float, norm_F: float, cosine: float, retain: float) -> dict:
    known = {"retain": retain, "retain_ce": retain, "forget": 1.0, "forget_ce": 1.0}
    return known | {"norm_R": norm_R, "norm_F": norm_F, "cosine": cosine}


def test_a_case_is_measured_along_ngdiff_with_autolr_on_the_tuning_seed(monkeypatch):
    """Inside Eq. 7 is c/(1 - c) in [.9, 1.1], then in [2, 8], then in [.9, 90]."""
    steps = [step(2, 2, 0.9, 0.1), step(1, 4, 0.5, 0.2), step(0.5, 4.5, 0.1, 0.3)]
    asked = []

    def run(trial: Trial) -> dict:
        asked.append(trial)
        return {"updates": 3, "stopped": "forget_level", "stamp": {}}

    def history(trial: Trial) -> list[dict]:
        asked.append(trial)
        return steps

    def levels(*which) -> tuple[dict, dict]:
        assert which == (MICRO, "", BENCH, 0)
        return {"loss_holdout": 3.5, "loss_forget": 0.1}, {"loss_holdout": 9.0, "loss_forget": 4.0}

    models = SimpleNamespace(run=run, history=history, levels=levels)
    monkeypatch.setattr(causes, "trials", models)
    row = causes.measure(CAUSE)
    ours = Trial("ngdiff", "autolr", 1e-3, TUNING_SEED, profile=MICRO, data=BENCH)
    assert asked == [ours, ours] and ours.rule == "matched"
    assert (row["kappa_start"], row["rho_start"]) == (1, 0.9)
    assert (row["kappa_50"], row["rho_50"]) == (4, 0.5)
    assert row["inside_0.5"] == pytest.approx(2 / 3)
    assert row["inside_0.9"] == pytest.approx(1 / 3)
    assert (row["level"], row["reference_forget"], row["retain_last"]) == (3.5, 4.0, 0.3)
    sizes = row["retain_rows"], row["forget_rows"], row["batch"]
    assert sizes == (4, 5, MICRO.batch_size)
    assert {column.key for column in causes.COLUMNS} <= row.keys()


def test_the_table_saves_each_row_as_it_comes(monkeypatch, tmp_path):
    path, said, seen = tmp_path / "new" / "ratio.jsonl", [], []

    def measured(cause: Cause) -> dict:
        seen.append(len(read_rows(path)) if path.is_file() else 0)
        return {"factor": cause.factor, "value": cause.value}

    monkeypatch.setattr(causes, "measure", measured)
    monkeypatch.setattr(causes, "causes", lambda *_: [CAUSE, replace(CAUSE, value="other")])
    rows = causes.table(path, say=said.append)
    assert [row["value"] for row in rows] == ["value", "other"] and seen == [0, 1]
    assert read_rows(path) == rows
    assert said[:2] == ["factor: value", "factor: other"] and "other" in said[2]
