"""`ngdiff …` in forks of one process that has imported everything, killed after random times.

    python -m tests.helpers.forked KILLS SEED OUT WORD…

One command is run whole to OUT/whole, and KILLS more to OUT/0, OUT/1, …: each is killed by SIGKILL
and given again, until it ends. `OUT` in a word stands for the run's folder. It prints how often
each was killed before it ended.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from ngdiff.commands import cli, finish, unlearn

MOST = 5  # times that one run is killed


def started(words: list[str]) -> int:
    """Start a command in a fork; return its id."""
    pid = os.fork()
    if pid:
        return pid
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1), os.dup2(null, 2)
    sys.argv = ["ngdiff", *words]
    try:
        cli.main()
    except SystemExit as end:
        os._exit(int(end.code or 0))
    os._exit(99)


def main(kills: int, seed: int, out: str, words: list[str]) -> None:
    """Run all; the last word printed of each is its exit status."""
    assert finish and unlearn  # which import what a run needs
    draw = random.Random(seed)

    def command(name: str) -> list[str]:
        return [word.replace("OUT", os.path.join(out, name)) for word in words]

    begun = time.monotonic()
    _, status = os.waitpid(started(command("whole")), 0)
    took = time.monotonic() - begun
    print("whole", os.waitstatus_to_exitcode(status), flush=True)
    for n in range(kills):
        killed = 0
        while True:
            pid = started(command(str(n)))
            if killed < MOST:
                time.sleep(draw.uniform(0, took))
                os.kill(pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code != -signal.SIGKILL:
                break
            killed += 1
        print(n, killed, code, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
