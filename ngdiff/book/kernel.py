"""`python -m ngdiff.book.kernel`: the kernel of a notebook that `ngdiff.book.execute` runs.

It is ipykernel's, but for one thing. Where the process that started it is gone, ipykernel ends the
kernel alone, and looks only once it runs. This one ends what the notebook started too, and looks
from its first moment (`ngdiff.store.orphans`). Where the kernel itself is killed, a guard does.
"""

from __future__ import annotations

import os
import sys

from ngdiff.store.orphans import end_with, guard


def main() -> None:
    """Run ipykernel under our watch; jupyter_client gives the parent's id in JPY_PARENT_PID."""
    guard()
    end_with(int(os.environ["JPY_PARENT_PID"]))
    from ipykernel.kernelapp import launch_new_instance  # takes a second, watched already

    sys.argv.append("--IPKernelApp.parent_handle=1")  # which ipykernel does not watch itself
    launch_new_instance()


if __name__ == "__main__":
    main()
