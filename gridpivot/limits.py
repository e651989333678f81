"""What the process may use: open files, since a site of 11,000 miners keeps hundreds of sockets busy at once."""

from __future__ import annotations

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
