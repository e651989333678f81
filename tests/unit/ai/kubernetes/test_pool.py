"""A pool under Kubernetes over the stand-in server: the kit of every workload manager, and what only Kubernetes does."""

from __future__ import annotations

import pytest

from agent.ai.kubernetes.marks import ORDERS
from gridpivot.vocabulary import AiPriority, LeverOutcome
from sim.kube.store import JOBS, LOCAL_QUEUES, NODES, PODS, WORKLOADS
from tests.unit.ai.kubernetes.conftest import Site
from tests.unit.ai.workload_kit import World, nothing, passes

pytestmark = pytest.mark.unit


def outcomes(steps: object) -> dict[str, LeverOutcome]:
    return {step.subject: step.outcome for step in steps}  # type: ignore[attr-defined]


async def pass_time_on(site: Site, seconds: float) -> None:
    site.clock.unix_s += seconds


async def test_pool_passes_the_kit(site: Site) -> None:
    async def pass_time(seconds: float) -> None:
        site.clock.unix_s += seconds

    pool = site.pool(local_queue="batch")
    world = World(pool, "gpu2", "gpu3", "Job/spot", "Job/serve", lambda: site.clock.unix_s, pass_time, nothing)
    await passes(world)


async def test_pool_passes_the_kit_with_a_job_of_kueue(site: Site) -> None:
    async def pass_time(seconds: float) -> None:
        site.clock.unix_s += seconds

    site.cluster.add_job("train", "queued", priority_class="batch", node="gpu2", queue="batch", gpus=4)
    pool = site.pool(local_queue="batch")
    world = World(pool, "gpu2", "gpu3", "Job/queued", "Job/serve", lambda: site.clock.unix_s, pass_time, nothing)
    await passes(world)
