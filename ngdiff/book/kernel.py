"""`python -m ngdiff.book.kernel`: the kernel of a notebook that `ngdiff.book.execute` runs.

It is ipykernel's, but for one thing. Where the process that started it is gone, ipykernel ends the
kernel alone; this one also ends what the notebook started (`ngdiff.store.orphans`).
"""

from __future__ import annotations

from functools import partial

from ipykernel.kernelapp import IPKernelApp

from ngdiff.store.orphans import end_after, wait_while_child_of


class NotebookKernel(IPKernelApp):
    """ipykernel's application with another watch over the parent.

    parent_handle: the parent's id, from JPY_PARENT_PID, which jupyter_client sets.
    """

    def init_poller(self) -> None:
        """Begin to watch; `poller`, ipykernel's own thread, stays None."""
        if self.parent_handle:
            end_after(partial(wait_while_child_of, self.parent_handle))


if __name__ == "__main__":
    NotebookKernel.launch_instance()
