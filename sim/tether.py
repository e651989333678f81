"""Tie a child to its parent: when the parent dies, however it dies, the kernel ends the child.

`python -m sim.tether COMMAND...` sets PR_SET_PDEATHSIG and becomes the command; `tether()` does the same in place.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tether(parent_pid: int, number: int = signal.SIGKILL) -> None:
    """Die with the parent. Exits at once when it has gone already. Linux only; elsewhere it does nothing."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(1)


def main() -> None:
    """First argument: the parent's pid; then the command."""
    tether(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command is our own


if __name__ == "__main__":
    main()
