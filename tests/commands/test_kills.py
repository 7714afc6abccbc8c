"""`ngdiff unlearn`, killed at random times and given again, ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ngdiff.commands.outcome import STATUS
from ngdiff.store.rows import read_rows
from tests.helpers import own_model
from tests.helpers.own_model import arguments

ROOT = Path(__file__).resolve().parents[2]
MORE = ("--steps=15", "--save-every=3", "--batch-size=3", "--allow-unknown")
SAME = ("updates", "stopped", "before", "after", "verdict", "status", "settings", "sizes", "card")


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_come_to_the_same_weights(tmp_path, kills):
    """The forks share what one process has imported, so that most kills hit the work itself."""
    given, out = own_model.folder(tmp_path), tmp_path / "out"
    out.mkdir()
    words = arguments(given, Path("OUT"), *MORE, f"--holdout={given / 'holdout.jsonl'}")
    script = [sys.executable, "-m", "tests.helpers.forked", str(kills), "7", str(out), *words]
    ended = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
    whole, *others = [line.split() for line in ended.stdout.splitlines()]
    assert len(others) == kills and sum(int(killed) for _, killed, _ in others) >= kills
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted([*map(str, range(kills)), "whole"]), "nothing else is left"
    row = json.loads((out / "whole/run.json").read_text())
    assert int(whole[1]) == row["status"] and row["verdict"] in STATUS
    for name, _, code in others:
        # 0: it was killed after its last write, and the same command found it finished
        assert int(code) in (row["status"], 0)
        mine = json.loads((out / name / "run.json").read_text())
        assert {key: mine[key] for key in SAME} == {key: row[key] for key in SAME}
        for file in ("model.safetensors", "tokenizer.json", "config.json"):
            assert (out / name / file).read_bytes() == (out / "whole" / file).read_bytes()
        histories = [read_rows(out / one / "history.jsonl") for one in (name, "whole")]
        assert histories[0] == histories[1]
        assert {*mine["files"], "run.json"} == set(os.listdir(out / name))
