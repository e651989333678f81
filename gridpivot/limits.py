"""What the process may use: open files, since a site of 11,000 miners keeps hundreds of sockets busy at once; memory that
it has freed and the C library keeps."""

from __future__ import annotations

import ctypes
import resource

ENOUGH_FILES = 8192


def raise_file_limit(wanted: int = ENOUGH_FILES) -> int:
    """Raise the soft limit of open files towards `wanted`, as far as the hard one allows; returns what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and goal > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
        return goal
    return soft


def give_back_memory() -> bool:
    """Return freed memory to the system; True when there was any. Other C libraries than glibc do it by themselves."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False
