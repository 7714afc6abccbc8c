"""Trials: settings checked, rows cached under all they depend on, kills survived, matched runs that
stop where they should.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
from dataclasses import asdict, fields, replace

import pytest

from ngdiff import profiles
from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.info import SetLevel
from ngdiff.core.stepsize import Constant, WarmupCosine, WarmupLinear
from ngdiff.lm import pair as models
from ngdiff.store.cache import cache_dir, found
from ngdiff.study import trials
from ngdiff.study.trial import STEPSIZES, Trial, rule_of
from tests.helpers import micro_trials
from tests.helpers.micro_trials import MICRO

CHANGES = {
    "method": "npo",
    "stepsize": "cosine",
    "lr": 2e-3,
    "seed": 7,
    "target_seed": 3,
    "rule": "fixed",
    "profile": "tiny",
    "split": "forget05",
    "steps": 4,
    "optimizer": "sgd",
    "mmlu": True,
}


@pytest.fixture(scope="module", autouse=True)
def _micro(tmp_path_factory):
    """The micro profile, its two models (trained here, not in processes of their own) and a trial
    cache of its own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiles, "_PROFILES", micro_trials.KNOWN)
        patch.setattr(trials, "run", micro_trials.run)
        bench = trials.benchmark("micro", "", "")
        models.target(bench, MICRO)
        models.reference(bench, MICRO)
        # tests damage and refresh entries: another worker must not see that
        mine = tmp_path_factory.mktemp("trials")
        (mine / "models").symlink_to(cache_dir() / "models")
        patch.setenv("NGDIFF_CACHE", str(mine))
        yield


def trial(**changes) -> Trial:
    return Trial(
        **{
            "method": "graddiff-0.5",
            "stepsize": "constant",
            "lr": 3e-3,
            "profile": "micro",
            **changes,
        }
    )


def numbers(row: dict) -> dict:
    """A row without what a clock put into it."""
    return {name: value for name, value in row.items() if name not in ("seconds", "stamp")}


def entry(t: Trial):
    return found(trials._root(), trials.key_of(t))


@pytest.fixture
def ran(monkeypatch):
    """The trials that really ran in this process."""
    seen, unlearned = [], trials.unlearned
    monkeypatch.setattr(
        trials, "unlearned", lambda t, *rest: (seen.append(t), unlearned(t, *rest))[1]
    )
    return seen


# ----------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "gpt"}, "unknown method 'gpt'; choose one of: ngdiff, "),
        ({"stepsize": "adaptive"}, "unknown step-size rule 'adaptive'; choose one of: constant, "),
        ({"rule": "equal"}, "unknown comparison 'equal'; choose matched or fixed"),
        ({"profile": "huge"}, "unknown profile 'huge'; choose one of: tiny, laptop, small, paper"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; choose one of: adamw, sgd"),
    ],
)
def test_unknown_names_are_refused_before_anything_runs(wrong, message):
    with pytest.raises(ValueError, match=message):
        trial(**wrong)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="choose one of: forget01, forget05, forget10"):
        trials.run(trial(split="forget20"))


def test_step_size_names_are_what_they_say():
    made = {name: rule_of(name, 2e-3, 40) for name in STEPSIZES}
    assert made["constant"] == Constant(2e-3) and made["autolr"] == AutoLR(2e-3)
    assert made["linear"] == WarmupLinear(2e-3, total=40) and made["cosine"] == WarmupCosine(
        2e-3, total=40
    )
    assert made["three-point"] == ThreePoint(2e-3) and made["once"].factor == 1  # see test_rules
    assert rule_of("autolr fresh=0 slack=0", 2e-3, 40) == AutoLR(2e-3, fresh=0, slack=0)
    assert rule_of("linear warmup=5", 1e-2, 30) == WarmupLinear(1e-2, warmup=5, total=30)


@pytest.mark.parametrize(
    "name", ["autolr depth=3", "autolr fresh", "autolr fresh=x", "autolr slack=2"]
)
def test_a_field_that_is_none_of_the_rule_is_refused(name):
    with pytest.raises(ValueError, match="write fields of AutoLR as name=value"):
        Trial(stepsize=name)


# -------------------------------------------------------------------------------------------- cache
def test_a_trial_runs_once_and_its_row_is_whole(ran):
    t = trial(seed=1)
    row = trials.run(t)
    assert trials.run(t) == row and ran == [t]
    shown = asdict(t) | {"data": "authors"}  # by its name
    assert {name: row[name] for name in shown} == shown == t.row()
    assert row["stamp"]["seed"] == 1 and row["stamp"]["config"] == shown and row["seconds"] > 0
    assert {
        "model_utility",
        "forget_quality",
        "forget_Q_A_ROUGE",
        "mia_loss",
        "kept",
        "forgot",
        "score",
    } <= row.keys()
    assert 0 <= row["mia_gradnorm"] <= 1


def test_history_is_a_row_a_step(ran):
    t = trial(seed=1, rule="fixed")
    row, history = trials.run(t), trials.history(t)
    assert (
        ran == [t] and row["stopped"] == "steps" and row["updates"] == len(history) == MICRO.steps
    )
    assert [h["step"] for h in history] == list(range(MICRO.steps))
    assert {h["outcome"] for h in history} == {"ok"} and {h["eta"] for h in history} == {3e-3}
    assert row["eta_first"] == row["eta_median"] == row["eta_last"] == 3e-3
    assert row["uphill_retain"] == sum(h["dR"] > 0 for h in history) / len(history)
    assert row["downhill_forget"] == sum(h["dF"] < 0 for h in history) / len(history)
    assert row["forget_ce_last"] == history[-1]["forget_ce"]


def test_refresh_runs_again_and_gives_the_same_numbers(ran):
    t = trial(seed=1)
    before = trials.run(t)
    after = trials.run(t, refresh=True)
    assert (
        ran[-1] == t and numbers(after) == numbers(before) and after["seconds"] != before["seconds"]
    )
    assert trials.run(t) == after


def test_any_other_setting_is_another_trial(monkeypatch):
    t = trial()
    keys = {name: trials.key_of(replace(t, **{name: value})) for name, value in CHANGES.items()}
    assert {f.name for f in fields(Trial)} == {*keys, "data"}  # data counts by its rows, see below
    assert len({trials.key_of(t), *keys.values()}) == len(keys) + 1
    assert trials.key_of(trial()) == trials.key_of(t)


def test_the_profiles_own_steps_need_not_be_said():
    assert trials.key_of(trial(steps=MICRO.steps)) == trials.key_of(trial())


def test_rows_count_and_the_folder_they_lie_in_does_not(monkeypatch):
    bench, t = trials.benchmark("micro", "", ""), trial()
    other = replace(bench, pretrain=bench.pretrain[1:])
    there = {"": bench, "/here/tofu": bench, "/other": other}
    monkeypatch.setattr(trials, "benchmark", lambda name, split, data: there[data])
    key = trials.key_of(t)
    assert (
        trials.key_of(replace(t, data="/here/tofu"))
        == key
        != trials.key_of(replace(t, data="/other"))
    )


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 6},
        {"batch_size": 5},
        {"max_new_tokens": 9},
        {"training": replace(MICRO.training, lr=1e-2)},
        {"lm": replace(MICRO.lm, hidden=64)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_profile_is_another_trial(monkeypatch, change):
    key = trials.key_of(trial())
    monkeypatch.setattr(profiles, "_PROFILES", (replace(MICRO, **change),))
    assert trials.key_of(trial()) != key


def test_other_code_is_another_trial(monkeypatch):
    key, t = trials.key_of(trial()), trial()
    monkeypatch.setattr(trials, "fingerprint", lambda module: "other")
    assert trials.key_of(t) != key


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("row.jsonl", "cut"),
        ("row.jsonl", "gone"),
        ("history.parquet", "cut"),
        ("manifest.json", "gone"),
    ],
)
def test_a_damaged_entry_is_run_again(ran, caplog, file, how):
    t = trial(seed=1)
    row, path = trials.run(t), entry(t) / file
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
    ran.clear()
    assert numbers(trials.run(t)) == numbers(row) and ran == [t]
    assert "is damaged" in caplog.text and "moved to" in caplog.text
    assert trials.history(t)[0]["step"] == 0 and ran == [t]


def test_a_cache_that_cannot_be_written_is_refused_before_any_work(ran, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NGDIFF_CACHE", str(tmp_path / "file"))
    with pytest.raises(PermissionError, match="NGDIFF_CACHE"):
        trials.run(trial(seed=11))
    assert ran == []


# -------------------------------------------------------------------------------------------- kills
def killed(t: Trial, refresh: bool, where: str) -> int:
    """The exit code of a process that runs the trial and is killed in the middle of `where`."""

    def kill(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def child():
        from ngdiff.core.step import UnlearningStep

        write, step = trials.write_rows, UnlearningStep.__call__
        if where == "a step":
            UnlearningStep.__call__ = lambda self, *phases: (
                kill() if self.count == 2 else step(self, *phases)
            )
        elif where == "the evaluation":
            trials.evaluated = kill
        else:
            trials.write_rows = lambda path, rows: (
                kill() if path.suffix == ".parquet" else write(path, rows)
            )
        micro_trials.run(t, refresh)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("where", ["a step", "the evaluation", "writing the rows"])
def test_a_killed_trial_leaves_nothing_that_is_taken_for_whole(ran, where):
    t = trial(method="graddiff-0.9", seed=len(where))
    trials.levels("micro", "", "", 0)
    assert killed(t, False, where) == -signal.SIGKILL and entry(t) is None
    row = trials.run(t)
    assert ran == [t] and row["updates"] == len(trials.history(t)) and entry(t)
    # what the killed process left is gone
    assert not list(trials._root().glob(f".{trials.key_of(t)}.*.tmp"))
    # a refresh: the old entry stands until the new one is whole
    assert killed(t, True, where) == -signal.SIGKILL
    assert trials.run(t) == row and ran == [t]


# ------------------------------------------------------------------------------------------ matched
def test_a_matched_run_stops_at_the_hold_out_level_before_the_update():
    level = trials.levels("micro", "", "", 0)[0]["loss_holdout"]
    t = trial(method="ngdiff", lr=3e-3, steps=40)
    row, history = trials.run(t), trials.history(t)
    assert (
        row["stopped"] == history[-1]["outcome"] == "forget_level"
        and 1 < row["updates"] == len(history) - 1
    )
    assert all(h["outcome"] == "ok" for h in history[:-1])
    # the evaluation finds the whole set above the level; an update earlier it was below, or the
    # batch was too far below for a look
    near = SetLevel(level).near * level
    assert row["loss_forget"] >= level * (1 - 1e-5)
    earlier = trials.run(replace(t, rule="fixed", steps=row["updates"] - 1))
    assert earlier["loss_forget"] < level * (1 + 1e-5) or history[-2]["forget_ce"] < near
    assert row["forget_ce_last"] == history[-1]["forget_ce"] >= near
    # the weights that were evaluated are those of the last update: a run of so many fixed steps has
    # the same
    fixed, further = (
        trials.run(replace(t, rule="fixed", steps=row["updates"] + more)) for more in (0, 2)
    )
    # past the level
    assert (further["stopped"], further["updates"]) == ("steps", row["updates"] + 2)
    assert further["loss_forget"] > level
    assert fixed["stopped"] == "steps" and fixed["updates"] == row["updates"]
    assert {k: fixed[k] for k in ("loss_forget", "model_utility", "score")} == {
        k: row[k] for k in ("loss_forget", "model_utility", "score")
    }


def test_a_matched_run_that_never_gets_there_ends_at_the_budget():
    row = trials.run(trial(lr=1e-6))
    assert row["stopped"] == "steps" and row["updates"] == MICRO.steps
    assert row["score"] == pytest.approx(0, abs=0.2) and row["kept"] == pytest.approx(1, abs=0.1)


def test_a_seed_is_an_order_of_rows():
    first = [trials.history(trial(seed=s, rule="fixed"))[0]["forget_ce"] for s in (1, 2)]
    assert first[0] != first[1]


def test_plain_sgd_is_another_run():
    rows = [trials.run(trial(optimizer=name, rule="fixed")) for name in ("adamw", "sgd")]
    assert rows[0]["loss_forget"] != rows[1]["loss_forget"] and rows[1]["eta_first"] == 3e-3


def test_unlearned_is_the_run_of_the_trial():
    t, seen = trial(seed=1), []
    done = trials.unlearned(t, seen.append)
    assert seen == done.history and [i.forget_ce for i in seen] == [
        h["forget_ce"] for h in trials.history(t)
    ]


def test_levels_are_the_start_and_the_reference():
    start, reference = trials.levels("micro", "", "", 0)
    assert start["loss_forget"] < 1 < start["loss_holdout"] and reference["loss_forget"] > 2
    assert (
        start["model_utility"] > 0.2
        and reference["report"].metrics["loss_forget"] == reference["loss_forget"]
    )
    assert "forget_quality" in start and "mia_reference" in start


# ------------------------------------------------------------------------------------------- scores
START, REFERENCE = (
    {"model_utility": 0.6, "forget_Q_A_ROUGE": 0.9},
    {"model_utility": 0.5, "forget_Q_A_ROUGE": 0.4},
)


@pytest.mark.parametrize(
    ("utility", "rouge", "kept", "forgot"),
    [
        (0.6, 0.9, 1.0, 0.0),  # the start itself
        (0.6, 0.4, 1.0, 1.0),  # as the reference, nothing lost
        (0.3, 0.65, 0.5, 0.5),
        (0.9, 0.0, 1.0, 1.0),  # both capped: neither more utility nor less memory is rewarded
        (0.0, 0.0, 0.0, 1.0),  # collapsed
        (0.45, 1.0, 0.75, 0.0),  # remembers more than the start
    ],
)
def test_scores_by_hand(utility, rouge, kept, forgot):
    found = trials.scores({"model_utility": utility, "forget_Q_A_ROUGE": rouge}, START, REFERENCE)
    both = 2 * kept * forgot / (kept + forgot)
    assert (found["kept"], found["forgot"], found["score"]) == pytest.approx((kept, forgot, both))


# ------------------------------------------------------------------------------------- many at once
@pytest.mark.parametrize("start", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_two_at_a_time_give_the_rows_of_one_by_one(monkeypatch, start):
    """`run_all` forks from a server that imports all first; plain forks do the same at once."""
    monkeypatch.setattr(trials, "get_context", lambda _: multiprocessing.get_context(start))
    wanted = [trial(seed=1), trial(seed=1, method="npo"), trial(seed=1)]
    serial = [trials.run(t) for t in wanted]
    lines = []
    again = trials.run_all(wanted, jobs=2, refresh=True, say=lines.append)
    assert [numbers(row) for row in again] == [numbers(row) for row in serial]
    # really run, and each once
    assert again[0]["seconds"] != serial[0]["seconds"] and again[0] == again[2]
    assert sorted(line.split(": ", 1)[1] for line in lines) == sorted(map(str, wanted[:2]))
    # nothing left to run
    assert trials.run_all(wanted, say=lines.append) == again and len(lines) == 2
    assert trials.run_all([]) == []


def test_what_workers_import_beforehand_is_there():
    """A server that cannot import a name says nothing: its workers would only be slow."""
    for name in trials.NEEDED:
        assert importlib.util.find_spec(name), name
