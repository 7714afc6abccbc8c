"""A process whose parent is gone ends, with the group that it leads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ngdiff.store.code import HOME
from tests.helpers.processes import VARIABLE, marked, none_left, wait_for

SCRIPT = """
import os, subprocess, sys, time
from ngdiff.store.orphans import end_with

below = subprocess.Popen(["sleep", "60"])
parent = {parent}  # before the line that may end it
print("begins to watch", flush=True)
end_with(parent)
time.sleep(60)
"""


@pytest.mark.parametrize("late", [False, True])  # late: the parent was gone before the first look
def test_a_process_without_its_parent_ends_with_its_group(tmp_path: Path, late: bool) -> None:
    mark = str(tmp_path)
    env = os.environ | {VARIABLE: mark, "PYTHONPATH": str(HOME.parent)}
    script = SCRIPT.format(parent=1 if late else "os.getppid()")
    start = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {script!r}], "
    start += "start_new_session=True)\ntime.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", start], stdout=subprocess.PIPE, text=True, env=env
    ) as above:
        assert above.stdout is not None and above.stdout.readline() == "begins to watch\n"
        if late:
            wait_for(lambda: [p.pid for p in marked(mark)] == [above.pid], 5)
        else:
            assert len(marked(mark)) == 3
        above.kill()
    none_left(mark)


def test_a_process_that_leads_no_group_ends_alone() -> None:
    code = "import time; from ngdiff.store.orphans import end_after; end_after(int)\ntime.sleep(60)"
    env = os.environ | {"PYTHONPATH": str(HOME.parent)}
    assert subprocess.run([sys.executable, "-c", code], env=env, timeout=30).returncode == 1
