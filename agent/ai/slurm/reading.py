"""One look at a cluster: four questions at once, each with its own deadline, parsed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent.ai.slurm import parse
from agent.ai.slurm.calls import Commands
from agent.ai.slurm.view import Cluster

Look = Callable[[], Awaitable[Cluster]]


async def look(commands: Commands, partition: str, unix_clock: Callable[[], float]) -> Cluster:
    """The cluster now; raises WorkloadRefused, the first of what went wrong. A look takes no longer than one deadline."""
    unix_s = unix_clock()
    asked = [
        asyncio.ensure_future(commands.read(*words))
        for words in (
            ("sinfo", "--json"),
            ("squeue", "--json"),
            ("scontrol", "show", "reservation", "-o"),
            ("scontrol", "show", "partition", partition, "-o"),
        )
    ]
    try:
        nodes, jobs, reservations, shown = await asyncio.gather(*asked)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return await asyncio.to_thread(_cluster, unix_s, nodes, jobs, reservations, shown)


def _cluster(unix_s: float, nodes: str, jobs: str, reservations: str, shown: str) -> Cluster:
    """In a thread: a queue of ten thousand jobs is tens of megabytes of JSON."""
    return Cluster(
        unix_s, parse.nodes(nodes), parse.jobs(jobs), parse.reservations(reservations), parse.partition(shown)
    )
