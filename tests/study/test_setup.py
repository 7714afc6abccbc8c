"""Which benchmark a name gives, which two of its metrics are compared, and the tables of published
points.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ngdiff import zoo
from ngdiff.evaluation.suites import MUSE
from ngdiff.methods.recipes import METHODS, tagged
from ngdiff.profiles import profile
from ngdiff.store import paths
from ngdiff.store.rows import read_rows, write_rows
from ngdiff.study import plan as plans
from ngdiff.study import tables, trials
from ngdiff.study.setup import Setup

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("data", "name", "suite"),
    [("", "authors", "tofu"), ("news", "news", "muse"), ("dossiers", "dossiers", "semeval")],
)
def test_stand_ins_by_name(data, name, suite):
    setup = Setup.of("tiny", data=data)
    assert setup.bench.source["name"] == name and setup.suite.name == suite and setup.unseen
    again = Setup.of(setup.profile, data=setup.bench)  # a benchmark as it is
    assert again == setup and again.bench is setup.bench
    assert trials.benchmark("tiny", "", data) == setup.bench


def test_a_name_that_is_none():
    with pytest.raises(
        ValueError,
        match=r"unknown benchmark 'wmdp' in data='wmdp:hub': write one of tofu, muse, semeval",
    ):
        Setup.of("tiny", data="wmdp:hub")
    with pytest.raises(ConnectionError, match="muse-bench/MUSE-News"):
        Setup.of("tiny", data="muse:hub")


def test_a_step_and_an_answer_are_as_long_as_the_suite_says():
    P = replace(profile("tiny"), batch_size=5, batch_documents=3, max_new_tokens=7)
    made = [Setup.of(P, data=data) for data in ("", "news", "dossiers")]
    assert [setup.batch_size for setup in made] == [5, 3, 3]
    ours = {"convention": "ngdiff"}
    assert [setup.options for setup in made] == [ours | {"max_new_tokens": 7}, ours, ours]
    few = replace(P, measured=4)  # no backward pass a row
    short = [Setup.of(few, data=data).options for data in ("", "news")]
    assert short == [ours | {"max_new_tokens": 7, "gradnorm": False}, ours]


def test_scores_use_the_axes():
    start, ideal = {"verbmem_f": 1.0, "knowmem_r": 0.8}, {"verbmem_f": 0.2, "knowmem_r": 0.8}
    found = trials.scores({"verbmem_f": 0.6, "knowmem_r": 0.4}, start, ideal, MUSE)
    assert (found["kept"], found["forgot"], found["score"]) == pytest.approx((0.5, 0.5, 0.5))
    assert trials.scores({"verbmem_f": 0.1}, start, ideal, MUSE)["score"] == 0  # no utility at all
    with pytest.raises(
        ValueError, match="recalls 0.2 of the forget set, against the reference's 0.2"
    ):
        trials.scores(ideal, ideal, ideal, MUSE)


def test_documents_are_cut_to_the_context():
    bench = Setup.of("tiny", data="news").bench
    tokenizer = trials  # never asked: authors have no documents
    other = Setup.of("tiny")
    assert other.fitted(tokenizer) is other.bench
    from ngdiff.lm.scratch import from_scratch

    lm = from_scratch(
        [row["answer"] for row in bench.full],
        replace(profile("tiny").lm, context=64),
        bench.prompt,
        0,
        "short",
    )
    cut = Setup.of("tiny", data=bench).fitted(lm)
    assert (
        len(cut.forget) > len(bench.forget)
        and max(len(lm.encode("", r["answer"])) for r in cut.forget) <= 64
    )
    assert "".join(r["answer"] for r in cut.forget) == "".join(r["answer"] for r in bench.forget)


def test_profiles_of_the_papers_models():
    P = profile("paper-gpt2-xl")
    assert (P.name, P.model, P.dtype) == ("paper-gpt2-xl", "gpt2-xl", "bfloat16")
    with pytest.raises(ValueError, match="unknown model 'gpt5'"):
        profile("paper-gpt5")


# Tables -------------------------------------------------------------------------------------------
def test_every_published_point_has_a_source_a_model_and_a_method():
    for benchmark in ("tofu", "muse", "semeval"):
        rows = tables.published(benchmark)
        assert rows and all(row["source"] and row["model"] in zoo.MODELS for row in rows)
        ours = {row["method"] for row in rows if row.get("kind") != "entry"} - {
            "target",
            "retain-only",
        }
        assert ours <= set(METHODS)


def test_the_published_final_scores_are_means_of_three():
    for row in tables.published("semeval"):
        three = [row[k] for k in ("task_aggregate", "mia_final_score", "mmlu")]
        # each has three digits
        assert row["aggregate"] == pytest.approx(sum(three) / 3, abs=1.1e-3)


def test_beside_and_not_run():
    theirs = [{"model": "a", "method": "npo", "x": 0.5}, {"model": "a", "method": "kl", "x": 0.25}]
    ours = [{"model": "a", "method": "npo", "x": 0.25}, {"model": "a", "method": "npo", "x": 0.5}]
    table = tables.beside(theirs, ours, ("model", "method"), ("x",))
    assert table[0]["x"] == {"published": 0.5, "ours": 0.375, "difference": -0.125}
    assert table[1]["x"] == {"published": 0.25, "ours": None, "difference": None}
    lines = tables.printed(table, ("model", "method"), ("x",)).splitlines()
    assert "0.5 | 0.375 | -0.125" in lines[1] and "0.25 | not run" in lines[2]


def test_the_runs_table_averages_over_seeds_and_marks_what_stopped_short():
    """Order and marks as in the pages: † an end of the grid, * a run short of the level; a better
    rate has its own line.
    """

    def row(lr, score, stopped="forget_level", method="npo", stepsize="constant"):
        return {
            "method": method,
            "stepsize": stepsize,
            "lr": lr,
            "stopped": stopped,
            "score": score,
        }

    done = {
        "levels": [{"model": "start", "score": 1}],
        "tuning": [row(lr, 0.5) for lr in (1e-4, 1e-3, 1e-2)],
        "matched": [row(1e-2, 0.25), row(1e-3, 0.5, "steps", "ngdiff", "autolr"), row(1e-2, 0.5)],
        "unmatched": [row(1e-3, 0.5), row(1e-3, None, "steps")],
    }
    lines = tables.runs(done, {"score": "score", "n": "n", "reached": "reached"}).splitlines()
    assert [line.split() for line in lines] == [
        ["score", "n", "reached"],
        ["start", "1", "–", "–"],
        ["NGDiff", "+", "AutoLR", "*", "0.5", "1", "0"],
        ["NPO,", "0.01†", "0.375", "2", "1"],
        ["NPO,", "0.001", "*", "–", "2", "0.5"],
    ]
    assert len({len(line) for line in lines}) == 1
    done["tuning"] = done["tuning"][-1:]
    assert "†" not in tables.runs(done, {"score": "score"})  # one rate is no grid


def test_run_sheets_are_arithmetic():
    (row,) = tables.run_sheet("tofu", ["llama-3.2-1b"], runs=8, steps=10, tokens=1000)
    assert (
        row["target"].endswith("_full")
        and "gated" in row["base"]
        and row["disk_GB"] == pytest.approx(4.8)
    )
    assert row["memory_GB"] == 19  # 16 bytes of 1.2 billion parameters
    big = tables.run_sheet("tofu", ["gpt2-xl"], runs=4, steps=100, tokens=10**6, trained=10**9)[0]
    assert big["disk_GB"] == 12.8  # two models in float32
    # no target of it is published: two models to train
    flops = 8 * 1.6e9 * 1e6 * 100 * 4 + 6 * 1.6e9 * 1e9 * 2
    assert (
        big["gpu_hours"] == round(flops / (989e12 * 0.4) / 3600, 1)
        and big["target"] == "fine-tuned by ngdiff"
    )
    assert "ngdiff reproduce --profile paper-<model> --only 07" in tables.sheet(
        [big], "07", "locuslab/TOFU"
    )


def test_a_plan_counts_its_runs():
    plan = plans.Plan(
        "x", ("npo", "kl"), (1e-4, 1e-3, 1e-2), (0, 1), starts_from=(), walked=(), mmlu=True
    )
    tuning, reported = 2 * 3 * 3, 2 * 2  # two methods, three weights, three rates; two orders
    assert plan.runs == tuning + reported + 2 * 2 + 2  # two automatic rules, then without a stop
    assert len(plan.tuning()) == tuning
    assert all(t.mmlu for t in plan.reported({"npo": ("npo-0.9", 1e-4)}, "matched"))
    assert not any(t.mmlu for t in plans.tuning(plan.methods))


def test_conventions_are_those_of_the_published_numbers_for_the_hubs_models_alone():
    benches = {
        name: Setup.of("tiny", data=data).bench
        for data, name in (("", "tofu"), ("news", "muse"), ("dossiers", "semeval"))
    }
    for name, bench in benches.items():
        assert Setup.of("tiny", data=bench).convention == "ngdiff"
        named = replace(bench, name=name)
        assert {Setup.of("paper", data=named).convention} == {
            row["convention"] for row in tables.published(name)
        }
    assert Setup.of("tiny", data=benches["tofu"]).unseen == benches["tofu"].holdout
    bare = replace(
        benches["semeval"],
        configs={k: v for k, v in benches["semeval"].configs.items() if k != "holdout"},
    )
    with pytest.raises(
        ValueError, match="has no rows that the model has never seen.*--data FOLDER"
    ):
        _ = Setup.of("tiny", data=bare).unseen


def test_rows_of_a_folder_count_as_those_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "checkout", lambda start=None: tmp_path)
    for label, score in (
        ("paper-olmo-1b", 0.25),
        ("paper-olmo-1b-semeval", 0.5),
        ("paper-olmo-1b-semeval-smoke", 1.0),
    ):
        row = {"method": "npo", "score": score}
        write_rows(tmp_path / "data" / "results" / label / "semeval_matched.parquet", [row])
    assert [row["score"] for row in tables.saved("paper-olmo-1b", "semeval", "olmo-1b")] == [
        0.25,
        0.5,
    ]


def test_plans_of_the_benchmarks_pages():
    for name in ("tofu", "muse", "semeval"):
        plan = plans.plan(name, (0, 1))
        assert (
            plan.seeds == ((0,) if name == "tofu" else (0, 1))
            and set(plan.methods) <= set(METHODS)
            and plans.OURS in plan.methods
        )
    assert set(tagged("semeval")) == {"gradascent", "graddiff-0.5", "kl", "npo"}


@pytest.mark.parametrize(
    ("name", "auc", "more"),
    [
        (
            "tofu",
            "mia_min_k",
            lambda start: start["privleak"] < -95 and start["forget_quality"] < 1e-6,
        ),
        ("muse", "mia_min_k", lambda start: start["privleak"] < -95),
        ("semeval", "mia_auc", lambda start: start["task_aggregate"] == 0),
    ],
)
def test_the_saved_start_of_each_stand_in_stands_on_its_anchors(name, auc, more):
    """A target that knows its rows by heart gives them away; the retain-only model does not."""
    start, ideal = read_rows(ROOT / "data" / "results" / "tiny" / f"{name}_levels.jsonl")
    assert (start["model"], ideal["model"]) == ("start", "retain-only")
    assert (
        start[auc] > 0.95
        and abs(ideal[auc] - 0.5) < 0.1
        and more(start)
        and start["stamp"]["commit"]
    )
