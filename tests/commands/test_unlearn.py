"""`ngdiff unlearn` from end to end on a model of one layer: what it writes, how it goes on, what it
refuses.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from ngdiff.commands import card, finish, origin
from ngdiff.commands import unlearn as command
from ngdiff.commands.job import Job
from ngdiff.commands.outcome import STATUS
from ngdiff.core.loop import unlearn
from ngdiff.data import files
from ngdiff.data.benchmark import Prompt
from ngdiff.engine.engine import Engine
from ngdiff.engine.halves import split
from ngdiff.evaluation import evaluate
from ngdiff.evaluation.forward import loss
from ngdiff.lm.model import load, save
from ngdiff.methods.problem import LMProblem
from ngdiff.store.rows import read_rows, write_rows
from tests.helpers import killed, micro, own_model
from tests.helpers.own_model import VERDICTS, arguments, done, go, weights

ROOT = Path(__file__).resolve().parents[2]
# rounding is not amplified
FIXED = ("--optimizer", "sgd", "--stepsize", "constant", "--lr", "0.02")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with `model`, which knows the forget rows by heart, and the rows."""
    return own_model.folder(tmp_path_factory.mktemp("given"))


def apart(one, other):
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ----------------------------------------------------------------------------------- what it reads
def test_the_tokenizer_and_the_prompt_may_be_given(given, tmp_path):
    """As `evaluate` takes them; a model without its tokenizer says which option is needed."""
    bare = shutil.copytree(given / "model", tmp_path / "bare")
    for path in bare.glob("tokenizer*"):
        path.unlink()
    one = (*FIXED, "--steps=1", f"--model={bare}")
    refused = go(given, tmp_path / "out", *one)
    assert "--tokenizer" in str(refused.exception) and "safetensors" not in str(refused.exception)
    asked = "Q: {question}\\nA: "
    done(given, tmp_path / "out", *one, f"--tokenizer={given / 'model'}", f"--prompt={asked}")
    out = load(tmp_path / "out")
    assert out.prompt == Prompt("Q: ", "\n", "A: ")
    assert out.tokenizer.get_vocab() == load(given / "model").tokenizer.get_vocab()
    assert apart(weights(tmp_path / "out"), done(given, tmp_path / "own", *FIXED, "--steps=1")) > 0


def test_rows_of_other_forms_are_read_and_unused_keys_named(given, tmp_path):
    rows = [
        {"instruction": row["question"], "output": row["answer"], "category": "towns"}
        for row in micro.bench().forget
    ]
    write_rows(tmp_path / "forget.jsonl", rows)
    more = (*FIXED, "--steps=2", f"--forget={tmp_path / 'forget.jsonl'}")
    with pytest.warns(UserWarning, match=r"forget\.jsonl: not used.*: category \(8\)"):
        found = done(given, tmp_path / "out", *more)
    assert apart(found, done(given, tmp_path / "own", *FIXED, "--steps=2")) == 0


# ----------------------------------------------------------------------------------- what it writes
def test_a_run_stops_at_the_level_of_rows_never_seen(given, tmp_path):
    result = go(
        given,
        tmp_path / "out",
        "--holdout",
        given / "holdout.jsonl",
        "--steps",
        "100",
        "--method",
        "ngdiff",
        "--forget-bound",
        "1",
    )
    assert result.exit_code == 0, result.exception
    start, lm = load(given / "model"), load(tmp_path / "out")
    level = evaluate(start, micro.bench(), generate=False, gradnorm=False).metrics["loss_holdout"]
    row = json.loads((tmp_path / "out/run.json").read_text())
    history = read_rows(tmp_path / "out/history.jsonl")
    assert row["level"] == pytest.approx(level, rel=1e-6) and row["stopped"] == "forget_level"
    assert (
        history[-1]["forget_ce"] >= row["level"] > max(info["forget_ce"] for info in history[:-1])
    )
    assert row["updates"] == len(history) - 1 < 100 and [info["step"] for info in history] == list(
        range(len(history))
    )
    assert (
        row["settings"]["method"] == "ngdiff"
        and row["stamp"]["config"]["device"] == "cpu"
        and row["seconds"] > 0
    )
    assert loss(lm, micro.bench().forget) == pytest.approx(history[-1]["forget_ce"], rel=1e-4)
    assert (
        loss(start, micro.bench().forget) < 0.02
        and lm.name == start.name
        and lm.prompt == start.prompt
    )
    assert (
        "27,744 of 27,744 parameters trained; one process on cpu, float32, memory swap"
        in result.output
    )
    assert (
        "8 forget rows, 3 retain rows" in result.output and f"reaches {level:.4g}" in result.output
    )
    assert "forget_level: the forget loss has reached the level" in result.output
    assert listing(tmp_path)[0] == "out", "what was unfinished is gone"


def test_without_a_stop_it_says_so_and_makes_all_steps(given, tmp_path):
    result = go(given, tmp_path / "out", "--steps", "2")
    assert (
        "NO STOP (no --holdout, no --stop-level): the run makes all 2 steps" in result.output
        and "steps: all steps were made" in result.output
    )
    assert json.loads((tmp_path / "out/run.json").read_text())["level"] is None


def test_a_level_that_is_reached_already_is_named(given, tmp_path):
    assert "before any update" in go(given, tmp_path / "out", "--stop-level", "1e-6").output
    assert apart(weights(tmp_path / "out"), load_file(given / "model/model.safetensors")) == 0


def test_a_run_that_breaks_is_written_and_fails(given, tmp_path):
    result = go(
        given, tmp_path / "out", *FIXED, "--lr", "1e30", "--steps", "9", "--method", "gradascent"
    )
    assert result.exit_code == 1 and "nonfinite: a loss or gradient is not finite" in result.output
    assert json.loads((tmp_path / "out/run.json").read_text())["stopped"] == "nonfinite"


def test_an_adapter(given, tmp_path, monkeypatch):
    monkeypatch.chdir(given)  # a relative folder must not end up in the adapter
    more = (
        "--model",
        "model",
        "--lora",
        "4",
        "--lora-targets",
        "q_proj,v_proj",
        "--lora-alpha",
        "8",
        "--lr",
        "1e-2",
    )
    result = go(given, tmp_path / "out", *more, "--stepsize", "constant", "--steps", "12")
    assert result.exit_code in VERDICTS, result.exception
    assert "512 of 28,256 parameters trained" in result.output
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], sorted(config["target_modules"])) == (
        4,
        8,
        ["q_proj", "v_proj"],
    )
    assert (
        config["base_model_name_or_path"] == str(given / "model")
        and not (tmp_path / "out/model.safetensors").exists()
    )
    lm = load(tmp_path / "out")
    assert lm.adapted and loss(lm, micro.bench().forget) > 0.1
    with lm.without_adapter():
        assert loss(lm, micro.bench().forget) < 0.02
    # trained on
    result = go(given, tmp_path / "on", "--model", tmp_path / "out", *FIXED, "--steps", "1")
    assert result.exit_code in VERDICTS and "512 of 28,256" in result.output
    result = go(given, tmp_path / "x", "--model", tmp_path / "out", "--lora", "4")
    assert "is an adapter already: leave --lora out" in str(result.exception)


def test_bfloat16(given, tmp_path):
    """It writes what the engine makes of the same run, bit for bit, in the model's own dtype; how
    near that is to float32 is test_engine's.
    """
    job = Job(
        str(given / "model"),
        given / "forget.jsonl",
        given / "retain.jsonl",
        tmp_path / "rounded",
        precision="bfloat16",
        device="cpu",
        optimizer="sgd",
        stepsize="constant",
        lr=0.02,
    )
    rounded = done(given, job.out, *FIXED, "--steps", "3", "--precision", job.precision)
    exact = done(given, tmp_path / "exact", *FIXED, "--steps", "3")
    bench = files.benchmark(job.forget, job.retain)
    problem = LMProblem(bench, load(given / "model"), batch_size=job.batch_size, engine=job.engine)
    wanted = unlearn(
        problem, job.recipe, job.rule, 3, job.seed, optimizer=job.make
    ).model.model.state_dict()
    assert {x.dtype for x in exact.values()} == {torch.float32} and rounded.keys() == wanted.keys()
    # the user's dtype, with the low bits that the engine keeps
    assert all(x.dtype == torch.float32 for x in rounded.values())
    assert all(torch.equal(split(x)[0], wanted[k]) for k, x in rounded.items())
    assert any(not torch.equal(x, wanted[k].float()) for k, x in rounded.items())
    assert any(not torch.equal(x, rounded[k]) for k, x in exact.items())


@pytest.mark.parametrize(
    "more",
    [
        ("--memory", "recompute"),
        ("--micro", "3"),
        ("--checkpointing",),
        ("--micro", "1", "--memory", "recompute"),
    ],
)
def test_less_memory_gives_the_same(given, tmp_path, more):
    plain = done(given, tmp_path / "plain", *FIXED, "--steps", "4")
    assert apart(done(given, tmp_path / "less", *FIXED, "--steps", "4", *more), plain) < 1e-5


def test_shards_of_bfloat16_do_not_go_on_as_a_whole(given, monkeypatch):
    """Their checkpoints differ: float32 weights there, bfloat16 and low bits here. In float32 they
    are the same.
    """
    bench = files.benchmark(given / "forget.jsonl", given / "retain.jsonl")

    def settings(precision):
        job = Job(
            str(given / "model"),
            given / "forget.jsonl",
            given / "retain.jsonl",
            given / "o",
            precision=precision,
        )
        return job.settings(bench)

    whole = [settings(precision) for precision in ("float32", "bfloat16")]
    monkeypatch.setattr(Engine, "sharded", True)
    shards = [settings(precision) for precision in ("float32", "bfloat16")]
    assert shards[0] == whole[0] and shards[1] == whole[1] | {"sharded": True} != whole[1]


@pytest.mark.parametrize("method", ["npo", "kl"])
@pytest.mark.parametrize("more", [(), ("--lora", "2")], ids=["full", "lora"])
def test_methods_that_need_the_start(given, tmp_path, method, more):
    result = go(given, tmp_path / "out", *FIXED, "--method", method, "--steps", "3", *more)
    assert result.exit_code in VERDICTS, result.exception
    forget = [info["forget_ce"] for info in read_rows(tmp_path / "out/history.jsonl")]
    assert forget[-1] > forget[0]


def test_documents(given, tmp_path):
    write_rows(
        tmp_path / "d.jsonl",
        [{"text": "Ann 1 lives in Oslo."}, {"question": "Who?", "answer": "Ann."}],
    )
    result = go(given, tmp_path / "out", "--forget", tmp_path / "d.jsonl", "--steps", "2")
    assert result.exit_code in VERDICTS and "2 forget rows" in result.output
    write_rows(tmp_path / "long.jsonl", [{"text": "very " * 200}])
    result = go(given, tmp_path / "long", "--forget", tmp_path / "long.jsonl")
    assert "the model's context of 96" in str(result.exception) and "long" not in listing(tmp_path)


# ------------------------------------------------------------------------------- what is never lost
@pytest.mark.parametrize("name", ["loaded", "measure"])
def test_a_model_that_cannot_be_measured_is_kept(given, tmp_path, monkeypatch, name):
    def broken(*_, **__):
        raise RuntimeError("out of luck\nat line 3")

    monkeypatch.setattr(finish, name, broken)
    out = tmp_path / "out"
    result = go(given, out, *FIXED, "--steps", "2", "--save-every", "1")
    assert result.exit_code == 7, result.output + repr(result.exception)
    last = result.output.strip().splitlines()[-1]
    assert last == f"not measured: out of luck; the model is in {out}"
    row = json.loads((out / "run.json").read_text())
    assert (row["verdict"], row["status"], row["after"]) == ("not measured", 7, None)
    text = (out / "README.md").read_text()  # to be published: an error may name a folder
    assert "- Verdict: not measured\n" in text and str(tmp_path) not in text
    assert len(read_rows(out / "history.jsonl")) == 2
    assert load(out).name == load(given / "model").name and (out / "report.html").is_file()
    monkeypatch.undo()
    assert apart(weights(out), done(given, tmp_path / "whole", *FIXED, "--steps", "2")) == 0
    assert listing(tmp_path)[0] == "out", "what was unfinished is gone"


def test_a_report_that_cannot_be_drawn_leaves_model_and_verdict(given, tmp_path, monkeypatch):
    monkeypatch.setattr(card, "report", lambda *_: 1 / 0)
    result = go(given, tmp_path / "out", *FIXED, "--steps", "2")
    row = json.loads((tmp_path / "out/run.json").read_text())
    assert result.exit_code == row["status"] != 7 and row["after"]
    assert "ZeroDivisionError" in result.output and load(tmp_path / "out")
    assert not (tmp_path / "out/report.html").exists()


def test_the_trained_model_is_let_go_before_the_saved_one_is_loaded(given, tmp_path, monkeypatch):
    held = []

    def seen(*args, **options):
        run = unlearn(*args, **options)
        held.extend(weakref.ref(p) for p in run.model.model.parameters())
        moments = options["watch"].optimizer.state.values()
        held.extend(weakref.ref(one["exp_avg"]) for one in moments)
        return run

    def measured(*args):
        assert len(held) > 2 and not [one for one in held if one() is not None]
        return loaded(*args)

    loaded = finish.loaded
    monkeypatch.setattr(command, "unlearn", seen)
    monkeypatch.setattr(finish, "loaded", measured)
    for method in ("ngdiff", "kl"):  # which keeps the start
        held.clear()
        done(given, tmp_path / method, "--steps", "2", "--method", method)
        row = json.loads((tmp_path / method / "run.json").read_text())
        assert row["verdict"] != "not measured", row["why"]


# ----------------------------------------------------------------------------------------- going on
KILLED = killed.script(".", "from ngdiff.commands.cli import main; main()")


def test_a_killed_run_goes_on_bit_for_bit(given, tmp_path):
    more = [
        "--holdout",
        given / "holdout.jsonl",
        *["--steps", "9", "--save-every", "2", "--batch-size", "3", "--lora", "2"],
    ]
    out, unfinished = tmp_path / "out", tmp_path / ".out.unfinished"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments(given, out, *more)], cwd=ROOT, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert "SyncActivityProfiler" not in killed.stderr.decode()  # by which memory is measured
    assert not out.exists() and len(list(unfinished.glob(".*.tmp"))) == 1, (
        "a checkpoint was half written"
    )
    saved = shutil.copytree(unfinished, tmp_path / "saved")

    result = go(given, out, *more, "--seed", "1")
    assert "an interrupted run with other settings (seed: 0 there, 1 here)" in str(result.exception)
    assert (unfinished / command.CHECKPOINT).read_bytes() == (
        saved / command.CHECKPOINT
    ).read_bytes()
    result = go(given, out, *more, "--checkpointing")  # where it computes may change
    assert result.exit_code in VERDICTS and "resumes from its checkpoint" in result.output
    assert json.loads((out / "run.json").read_text())["steps_before"] == 2
    whole = done(given, tmp_path / "whole", *more)
    assert len(read_rows(out / "history.jsonl")) > 4
    assert apart(weights(out), whole) == 0
    ends = [
        json.loads((place / "run.json").read_text())["stopped"]
        for place in (out, tmp_path / "whole")
    ]
    assert ends[0] == ends[1]
    assert read_rows(out / "history.jsonl") == read_rows(tmp_path / "whole/history.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "saved", "whole"]

    shutil.copytree(saved, tmp_path / ".new.unfinished")
    done(given, tmp_path / "new", *more, "--seed", "1", "--force")
    assert json.loads((tmp_path / "new/run.json").read_text())["steps_before"] == 0
    assert read_rows(tmp_path / "new/history.jsonl") != read_rows(out / "history.jsonl")


def test_a_finished_run_is_replaced_by_force_alone(given, tmp_path, monkeypatch):
    out = tmp_path / "out"
    done(given, out, "--steps", "2")
    before = (out / "run.json").read_bytes()
    result = go(given, out, "--steps", "2")
    assert result.exit_code == 0 and "holds this run, finished: nothing is done" in result.output
    assert (out / "run.json").read_bytes() == before
    result = go(given, out, "--steps", "3")
    assert isinstance(result.exception, FileExistsError) and "(steps: 2 there, 3 here)" in str(
        result.exception
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            finish, "save", lambda lm, folder, state: (_ for _ in ()).throw(OSError("disk full"))
        )
        assert "disk full" in str(go(given, out, "--steps", "3", "--force").exception)
    assert (out / "run.json").read_bytes() == before and [
        path.name for path in tmp_path.iterdir()
    ] == ["out"]
    done(given, out, "--steps", "3", "--force")
    assert len(read_rows(out / "history.jsonl")) == 3


def test_what_a_killed_write_left_goes_and_nothing_else(given, tmp_path):
    mark = "0123456789abcdef" * 2
    left = [f".out.{mark}.tmp", f".out.{mark}.old.tmp", f"..out.{mark}.tmp.{mark}.tmp"]
    others = [f".out.b.{mark}.tmp", ".out.b.unfinished", "out.b", f".{mark}.tmp"]
    for name in left + others:
        (tmp_path / name).mkdir()
    done(given, tmp_path / "out", "--steps", "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "out"])


# ---------------------------------------------------------------------------------------- processes
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


ON_CPU = os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
LAUNCH = (
    "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no "
    "--main_process_port"
)


def test_two_processes_are_one(given, tmp_path):
    more = (
        *FIXED,
        "--holdout",
        given / "holdout.jsonl",
        "--steps",
        "5",
        "--micro",
        "2",
        "--save-every",
        "2",
    )
    start = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *LAUNCH.split(),
        free_port(),
        "-m",
        "ngdiff",
    ]
    command_line = [*start, *arguments(given, tmp_path / "two", *more)]
    two = subprocess.run(
        command_line, env=ON_CPU, cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    # the first process alone has the verdict's status, for which the launcher gives 1. gloo may
    # abort while it is taken down, on a busy machine, after everything was written: what is
    # asserted below
    ended = two.returncode == 1 and "exitcode  : 3" in two.stderr
    assert ended or "terminate called without an active exception" in two.stderr, two.stderr
    assert "2 processes (shard) on cpu" in two.stdout and two.stdout.count("  stop: when") == 1
    assert apart(weights(tmp_path / "two"), done(given, tmp_path / "one", *more)) < 1e-4
    rows = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two")]
    assert (
        rows[0]["level"] == pytest.approx(rows[1]["level"])
        and rows[0]["updates"] == rows[1]["updates"]
        and rows[0]["verdict"] == rows[1]["verdict"] == "level not reached"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_the_line_of_steps_counts_those_of_this_process_alone(capsys):
    """Of a run that goes on at step 7; a process that is not the first says nothing."""

    def info(step):
        rates = {"retain_ce": 1.25, "forget_ce": 2.5, "eta": 1e-3}
        return SimpleNamespace(step=step, stepsize="", outcome="ok", **rates)

    for shown in (True, False):
        with command._Bar(10, shown) as bar:
            bar.say("memory: enough")
            for step in (7, 8, 9):
                bar(info(step))
        assert bar.before == 7
        printed = capsys.readouterr()
        if shown:
            assert printed.out == "memory: enough\n"
            assert printed.err == "step 10/10, 0 s: retain 1.25 forget 2.5 η 0.001 ok\n"
        else:
            assert printed.out == printed.err == ""


FAILING = """
import os
from ngdiff.commands import unlearn as command
seen = command._Bar.__call__
def bar(self, info):
    if info.step == 2 and os.environ["RANK"] == "1":
        raise ValueError("the second process is broken")
    seen(self, info)
command._Bar.__call__ = bar
from ngdiff.commands.cli import main
main()
"""


def together(script, words, timeout=240):
    """Run a script in two processes without a launcher; return (statuses, standard errors)."""
    env = ON_CPU | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    line = [sys.executable, "-c", script, *words]
    both = [
        subprocess.Popen(line, env=env | {"RANK": rank, "LOCAL_RANK": rank}, **pipes)
        for rank in "01"
    ]
    try:
        said = [process.communicate(timeout=timeout)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    return [process.returncode for process in both], said


def test_one_broken_process_ends_all(given, tmp_path):
    """Even where no launcher ends the others."""
    more = (*FIXED, "--sharding", "replicate", "--steps", "500")
    ends, said = together(FAILING, arguments(given, tmp_path / "out", *more))
    # gloo, taken down on a busy machine while the other process is going, may abort after all was
    # said
    assert ends[0] == 2 and ends[1] in (2, -6)
    assert "ngdiff (process 1): the second process is broken" in said[1]
    assert "another process of this launch ended first" in said[0] and "Traceback" not in said[0]
    assert not (tmp_path / "out").exists()


SLOW = """
import time
from datetime import timedelta
import torch
begin = torch.distributed.init_process_group
def impatient(*args, **options):
    return begin(*args, **options | {"timeout": timedelta(seconds=6)})
torch.distributed.init_process_group = impatient
from ngdiff.commands import finish, start
measure = start.measure
def slow(*args):
    time.sleep(8)
    return measure(*args)
start.measure = finish.measure = slow
from ngdiff.commands.cli import main
main()
"""


def test_processes_wait_for_a_slow_measurement_or_end(given, tmp_path):
    """Longer than a collective may take, as NCCL's ten minutes are of a large model."""
    more = (*FIXED, "--steps", "2", "--stop-level", "9")
    ends, said = together(SLOW, arguments(given, tmp_path / "out", *more))
    assert ends[0] == STATUS["level not reached"] and ends[1] in (0, -6), said
    assert json.loads((tmp_path / "out/run.json").read_text())["after"]


UNWRITTEN = """
from ngdiff.commands import finish
def broken(*_):
    raise OSError("the disk is gone")
finish._row = broken
from ngdiff.commands.cli import main
main()
"""


def test_a_first_process_that_cannot_write_ends_alone(given, tmp_path):
    """The shards are gathered before anything can fail, so the other does not wait for it."""
    more = (*FIXED, "--steps", "2")
    ends, said = together(UNWRITTEN, arguments(given, tmp_path / "out", *more))
    assert ends[0] == 2 and ends[1] in (0, -6), said
    assert "the disk is gone" in said[0] and not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "nope"], "unknown method 'nope'; choose one of: ngdiff"),
        (["--stepsize", "nope"], "unknown step-size rule 'nope'"),
        (["--stepsize", ""], "unknown step-size rule"),
        (["--stepsize", "autolr evry=5"], "write fields of AutoLR as name=value"),
        (["--stepsize", "constant"], "--stepsize constant does not find its rate: give one"),
        (["--stepsize", "linear warmup=2"], "does not find its rate"),
        (["--stepsize", "constant", "--lr", "-1"], "must be positive"),
        (["--precision", "float16"], "use precision='bfloat16'"),
        (["--precision", "fp8"], "unknown precision 'fp8'"),
        (["--memory", "less"], "unknown memory 'less'"),
        (["--sharding", "zero"], "unknown sharding 'zero'"),
        (["--optimizer", "adafactor"], "unknown optimizer 'adafactor'"),
        (["--device", "abacus"], "abacus"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--micro", "0"], "--micro must be at least 1"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--save-every", "-1"], "--save-every must be at least 0"),
        (["--lora", "0"], "--lora must be at least 1"),
        (["--lora", "2", "--lora-alpha", "0"], "--lora-alpha must be positive"),
        (["--lora-targets", "q_proj"], "add --lora"),
        (["--stop-level", "-1"], "--stop-level takes a positive loss"),
        (["--stop-level", "2", "--holdout", "{given}/holdout.jsonl"], "no --holdout beside it"),
        (["--holdout", "{given}/retain.jsonl"], "rows must be ones the model was never trained on"),
        (["--retain", "{given}/forget.jsonl"], "A row cannot be forgotten and kept"),
        (["--forget", "{given}/none.jsonl"], "no file .*none.jsonl"),
        (["--forget", "{given}/model/model.safetensors"], "model.safetensors, line 1: not"),
        (["--out", "{given}/model"], "is the model itself"),
        (["--out", "{given}"], "holds files that are not a finished run"),
        (["--out", "{given}", "--force"], "holds files that are not a finished run"),
        (["--out", "{given}/forget.jsonl"], "is a file"),
        (["--out", "{given}/forget.jsonl/out"], "cannot write to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_refused_before_the_model_is_loaded(
    given, tmp_path, monkeypatch, more, message
):
    monkeypatch.setattr(origin, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    before = listing(given)
    result = go(given, tmp_path / "out", *(word.replace("{given}", str(given)) for word in more))
    assert isinstance(result.exception, (ValueError, OSError)), result.output
    with pytest.raises(type(result.exception), match=message):
        raise result.exception
    assert listing(given) == before and listing(tmp_path) == []


def test_a_launch_that_owns_the_gradients_is_refused(given, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert "DeepSpeed owns the gradients" in str(go(given, tmp_path / "out").exception)
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    if not torch.accelerator.is_available():
        assert "there is no accelerator here" in str(
            go(given, tmp_path / "out", "--device", "cuda").exception
        )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "does not exist: give a model folder or a hub id"),
        ("{given}", "holds no model"),
        ("acme/none", "the hub cannot be reached"),
    ],
)
def test_a_model_that_is_not_there_leaves_nothing(given, tmp_path, model, message):
    result = go(given, tmp_path / "out", "--model", model.replace("{given}", str(given)))
    assert message in str(result.exception) and listing(tmp_path) == []


def test_a_broken_start_has_no_level(given, tmp_path):
    lm = micro.memorised().copy()
    with torch.no_grad():
        next(lm.model.parameters()).fill_(math.nan)
    save(lm, tmp_path / "broken")
    result = go(
        given,
        tmp_path / "out",
        "--model",
        tmp_path / "broken",
        "--holdout",
        given / "holdout.jsonl",
    )
    assert "this model is already broken" in str(result.exception)


def test_memory_that_runs_out_says_what_needs_less(given, tmp_path, monkeypatch):
    def full(*args, **kw):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(command, "unlearn", full)
    assert "2 GiB. Less memory, cheapest first: --micro 1" in str(
        go(given, tmp_path / "out").exception
    )
    more = ("--micro=1", "--checkpointing", "--lora=2")
    said = str(go(given, tmp_path / "out", *more).exception)  # what was given is no advice
    assert "--memory recompute, --precision" in said
    assert not any(option.split("=")[0] in said for option in more)
    assert listing(tmp_path) == []
