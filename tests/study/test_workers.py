"""Workers of `run_all` end with the process that asked for the trials, killed in their midst."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ngdiff.store.code import HOME
from tests.helpers.processes import VARIABLE, marked, none_left, wait_for

SCRIPT = """
import os, pathlib, time
from ngdiff.study import trials
from ngdiff.study.trial import Trial

def work(trial, refresh):
    pathlib.Path(str(os.getpid())).touch()
    time.sleep(60)

trials.NEEDED = ("torch",)
trials.run, trials.levels = work, lambda *shape: None
trials._key, trials.found = lambda trial: "", lambda *entry: None
trials.run_all([Trial("ngdiff", "constant", 1e-3, seed=seed) for seed in range(3)])
"""


def test_no_worker_outlives_the_process_that_asked_for_trials(tmp_path: Path) -> None:
    env = os.environ | {VARIABLE: str(tmp_path), "PYTHONPATH": str(HOME.parent)}
    asked = subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=tmp_path, env=env)
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    assert {path.name for path in tmp_path.iterdir()} <= {str(p.pid) for p in marked(str(tmp_path))}
    asked.kill()
    asked.wait()
    none_left(str(tmp_path))
