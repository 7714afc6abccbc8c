"""What a run of `ngdiff unlearn` may replace, what it goes on from, and what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ngdiff.commands import card, finish, places
from ngdiff.commands import unlearn as command
from ngdiff.commands.claim import CHECKPOINT
from ngdiff.store.content import digests
from tests.helpers import own_model
from tests.helpers.own_model import VERDICTS, arguments, done, go, weights

ROOT = Path(__file__).resolve().parents[2]
FIXED = ("--optimizer=sgd", "--stepsize=constant", "--lr=0.02")
RUN = (*FIXED, "--steps=4", "--save-every=2")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return own_model.folder(tmp_path_factory.mktemp("given"))


@pytest.fixture
def model(given, tmp_path):
    """A copy of the model, to be changed."""
    return shutil.copytree(given / "model", tmp_path / "here")


def interrupted(given, out, monkeypatch, *more, after=2):
    """Run until that step, and then press Ctrl-C; return the result."""
    seen = command._Bar.__call__

    def bar(self, info):
        seen(self, info)
        if info.step == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command._Bar, "__call__", bar)
        return go(given, out, *RUN, *more)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(x, other[k]) for k, x in one.items())


# -------------------------------------------------------------------------------------- interrupted
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(given, tmp_path, monkeypatch):
    out = tmp_path / "out"
    result = interrupted(given, out, monkeypatch, after=1)
    assert (
        result.exit_code == 130 and "no checkpoint was saved yet (--save-every 2)" in result.output
    )
    assert list(tmp_path.iterdir()) == []
    result = interrupted(given, out, monkeypatch)
    assert result.exit_code == 130 and not out.exists()
    assert f"the checkpoint of step 2 is kept in {tmp_path / '.out.unfinished'}" in result.output
    assert "give the same command again: ngdiff" in result.output
    result = go(given, out, *RUN)
    assert result.exit_code in VERDICTS and "resumes from its checkpoint" in result.output
    assert equal(weights(out), done(given, tmp_path / "whole", *RUN))


def test_ctrl_c_while_the_model_is_measured_keeps_it_and_the_command_measures_it(
    given, tmp_path, monkeypatch
):
    def pressed(*_):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(finish, "measure", pressed)
        result = go(given, out, *RUN)
    assert result.exit_code == 130 and "not measured yet. To measure it" in result.output
    saved = (out / "model.safetensors").read_bytes()
    result = go(given, out, *RUN)
    row = json.loads((out / "run.json").read_text())
    assert result.exit_code == row["status"] in VERDICTS and row["after"]
    assert "finished but not measured" in result.output and (out / "report.html").is_file()
    assert (out / "model.safetensors").read_bytes() == saved
    assert {*row["files"], "run.json"} == set(digests(out))
    assert go(given, out, *RUN).exit_code == 0


def test_a_run_without_its_report_is_not_called_finished(given, tmp_path, monkeypatch):
    """As when it is killed while the report is written."""

    def pressed(*_):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(card, "report", pressed)
        assert go(given, out, *RUN).exit_code == 130
    for name in ("report.html", "run.json", "README.md"):  # half written when it was killed
        (out / f".{name}.{'0123456789abcdef' * 2}.tmp").write_text("<ht")
    shutil.copytree(out, tmp_path / "two")
    assert go(given, out, *RUN).exit_code in VERDICTS and (out / "report.html").is_file()
    row = json.loads((out / "run.json").read_text())
    assert {*row["files"], "run.json"} == set(digests(out)) and row["card"] == "README.md"
    assert go(given, tmp_path / "two", *RUN, "--force").exit_code in VERDICTS
    assert set(digests(tmp_path / "two")) == set(digests(out))


def test_what_a_run_killed_after_its_last_write_left_is_cleared(given, tmp_path, monkeypatch):
    out, work = tmp_path / "out", tmp_path / ".out.unfinished"
    interrupted(given, out, monkeypatch)
    saved = shutil.copytree(work, tmp_path / "saved")
    assert go(given, out, *RUN).exit_code in VERDICTS
    shutil.copytree(saved, work)
    before = digests(out)
    assert go(given, out, *RUN).exit_code == 0 and not work.exists() and digests(out) == before
    # the checkpoint of another run is none of ours
    shutil.copytree(saved, work)
    other = json.loads((work / "start.json").read_text())
    other["settings"]["seed"] = 5
    (work / "start.json").write_text(json.dumps(other))
    assert go(given, out, *RUN).exit_code == 0 and (work / CHECKPOINT).is_file()


# ------------------------------------------------------------------------- the model's own content
def test_a_run_goes_on_with_the_same_model_elsewhere(given, model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    interrupted(given, out, monkeypatch, f"--model={model}")
    moved = shutil.move(model, tmp_path / "there")
    result = go(given, out, *RUN, f"--model={moved}")
    assert result.exit_code in VERDICTS and "resumes from its checkpoint" in result.output
    assert equal(weights(out), done(given, tmp_path / "whole", *RUN))
    # and a finished one is known there too
    assert go(given, out, *RUN).exit_code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.safetensors", "model.safetensors has changed"),
        ("tokenizer_config.json", "tokenizer_config.json has changed"),
        ("ngdiff.json", "ngdiff.json is gone"),
        ("chat_template.jinja", "chat_template.jinja is new"),
    ],
)
def test_a_run_does_not_go_on_with_another_model_in_its_place(
    given, model, tmp_path, monkeypatch, name, said
):
    out, path = tmp_path / "out", model / name
    interrupted(given, out, monkeypatch, f"--model={model}")
    if "gone" in said:
        path.unlink()
    elif path.suffix == ".safetensors":
        state = load_file(path)
        state["lm_head.weight"][0, 0] += 1
        save_file(state, path, {"format": "pt"})
    else:
        path.write_text((path.read_text() if path.exists() else "") + " ")
    before = digests(tmp_path)
    refused = str(go(given, out, *RUN, f"--model={model}").exception)
    assert f"an interrupted run with other settings ({said})" in refused, refused
    assert "--force" in refused and digests(tmp_path) == before


def test_notes_beside_the_weights_make_no_other_model(given, model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    interrupted(given, out, monkeypatch, f"--model={model}")
    (model / "notes.txt").write_text("mine")
    result = go(given, out, *RUN, f"--model={model}")
    assert "resumes from its checkpoint" in result.output


def test_another_base_of_an_adapter_is_another_model(given, model, tmp_path, monkeypatch):
    """Its path stands in the adapter, and its content counts."""
    done(given, tmp_path / "adapter", *FIXED, "--steps=1", "--lora=2", f"--model={model}")
    out, more = tmp_path / "out", f"--model={tmp_path / 'adapter'}"
    interrupted(given, out, monkeypatch, more)
    state = load_file(model / "model.safetensors")
    state["lm_head.weight"][0, 0] += 1
    save_file(state, model / "model.safetensors", {"format": "pt"})
    refused = str(go(given, out, *RUN, more).exception)
    assert "(base/model.safetensors has changed)" in refused


# ------------------------------------------------------------------------------------ finished
def test_a_finished_command_changes_nothing(given, tmp_path):
    out = tmp_path / "out"
    done(given, out, *RUN)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.rglob("*")}
    result = go(given, out, *RUN)
    row = json.loads((out / "run.json").read_text())
    assert result.exit_code == 0 and "finished: nothing is done" in result.output
    assert result.output.strip().endswith(f"{row['verdict']}: {row['why']}")
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.rglob("*")}
    # bounds judge a run and do not make another one
    assert "by the bounds of then" in go(given, out, *RUN, "--retain-bound=0.5").output


def test_a_finished_run_with_a_lost_weight_is_not_called_finished(given, tmp_path):
    out = tmp_path / "out"
    done(given, out, *RUN)
    (out / "model.safetensors").unlink()
    assert "files are gone or changed (model.safetensors)" in str(go(given, out, *RUN).exception)
    assert go(given, out, *RUN, "--force").exit_code in VERDICTS
    assert go(given, out, *RUN).exit_code == 0


def test_force_removes_only_what_the_command_wrote(given, tmp_path):
    out = tmp_path / "out"
    done(given, out, *RUN)
    for name, text in (("notes.txt", "mine"), ("sub/data.bin", "mine"), ("README.md", "edited")):
        (out / name).parent.mkdir(exist_ok=True)
        was = (out / name).read_text() if (out / name).exists() else None
        (out / name).write_text(text)
        before = digests(tmp_path)
        refused = str(go(given, out, *RUN, "--force").exception)
        assert "did not write, or that were changed since" in refused and name in refused
        assert digests(tmp_path) == before
        (out / name).unlink() if was is None else (out / name).write_text(was)
    assert go(given, out, *RUN, "--force").exit_code in VERDICTS


def test_a_folder_of_the_user_under_our_name_keeps_its_files(given, tmp_path):
    work, mark = tmp_path / ".out.unfinished", "0123456789abcdef" * 2
    work.mkdir()
    for name in ("notes.txt", f".mine.{mark}.tmp", ".x.tmp"):
        (work / name).write_text("mine")
    (work / f".start.json.{mark}.tmp").write_text("half")  # ours
    done(given, tmp_path / "out", *RUN)
    assert sorted(p.name for p in work.iterdir()) == [f".mine.{mark}.tmp", ".x.tmp", "notes.txt"]


# -------------------------------------------------------------------------------------- places
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--forget={given}/none.jsonl"], "no file .*none.jsonl"),
        (["--retain={given}/none.jsonl"], "no file .*none.jsonl"),
        (["--holdout={given}/none.jsonl"], "no file .*none.jsonl"),
        (["--model={given}/none"], "none does not exist"),
        (["--model={given}"], "holds no model"),
        (["--model={given}/forget.jsonl"], "is a file: give the folder"),
        (["--tokenizer=./none"], "none does not exist"),
        (["--out={given}"], "holds files that are not a finished run"),
        (["--out=" + "x" * 300], "300 bytes, and it may have 175 here"),
        (["--out=" + "ä" * 88], "176 bytes, and it may have 175 here"),
        (["--forget=" + "x" * 300], "a name is too long: xxx"),
        (["--model=" + "x" * 300], "a name is too long: xxx"),
    ],
    ids=lambda value: value[0][:20] if isinstance(value, list) else "",
)
def test_a_wrong_place_is_told_before_anything_slow_is_imported(given, tmp_path, more, message):
    words = [word.replace("{given}", str(given)) for word in more]
    script = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name in ('torch', 'transformers', 'datasets', 'pyarrow'):\n"
        "            sys.exit(f'{name} was imported')\n"
        "sys.meta_path.insert(0, No())\n"
        "from ngdiff.commands.cli import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments(given, tmp_path / "out", *words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("ngdiff: ") and "imported" not in ended.stderr
    assert re.search(message, ended.stderr), ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_that_is_taken_works(given, tmp_path):
    name = "x" * (os.pathconf(tmp_path, "PC_NAME_MAX") - places.NESTED)
    done(given, tmp_path / name, *RUN)
    assert go(given, tmp_path / name, *RUN, "--force").exit_code in VERDICTS
    assert "it may have" in str(go(given, tmp_path / f"{name}x", *RUN).exception)


def test_ctrl_c_before_the_work_is_one_line(given, tmp_path):
    script = (
        "from ngdiff.commands.job import Job\n"
        "def pressed(self): raise KeyboardInterrupt\n"
        "Job.rehearse = pressed\n"
        "from ngdiff.commands.cli import main; main()"
    )
    words = arguments(given, tmp_path / "out")
    ended = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 130
    assert ended.stderr == "ngdiff: interrupted; what was finished is kept\n"
