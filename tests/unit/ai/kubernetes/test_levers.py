"""Levers over Kubernetes, from promise to restore: what they say is what the cluster shows."""

from __future__ import annotations

import pytest

from agent.ai.lever import PoolPower
from agent.ai.levers.hold import Admission
from agent.ai.levers.requeue import Requeue
from gridpivot.vocabulary import LeverOutcome
from sim.kube.store import JOBS, NODES
from tests.unit.ai.kubernetes.conftest import Site

pytestmark = pytest.mark.unit

POWER = PoolPower(0.0, power_w=20_000.0, limit_w=24_000.0, min_w=6_000.0, idle_w=4_000.0, gpu_count=32)


async def test_requeue_takes_the_spot_job_and_its_node_and_gives_both_back(site: Site) -> None:
    pool = site.pool()
    lever = Requeue(pool, site.clock)
    promise = lever.promise(await pool.observe(0.0), POWER, 50_000.0)
    assert promise.subjects == ("Job/spot",) and promise.promised_w > 0.0  # never the guaranteed one
    for _ in range(2):  # pulled, then renewed
        report = await lever.act(site.order(), promise)
        assert report.outcome is LeverOutcome.DONE
    assert (await lever.verify(site.order(), promise)).outcome is LeverOutcome.DONE
    job, node = site.cluster.store.get(JOBS, "train", "spot"), site.cluster.store.get(NODES, "", "gpu0")
    assert job is not None and job["spec"]["suspend"] and node is not None and node["spec"]["unschedulable"]
    assert (await lever.restore(site.order())).outcome is LeverOutcome.DONE
    work = await pool.observe(0.0)
    assert "Job/spot" in {job.job_id for job in work.jobs} and [n.name for n in work.nodes if n.held] == ["gpu3"]


async def test_admission_closes_the_queue_and_opens_it(site: Site) -> None:
    pool = site.pool(local_queue="batch")
    lever = Admission(pool, site.clock)
    promise = lever.promise(await pool.observe(0.0), POWER, 1.0)
    assert (await lever.act(site.order(), promise)).outcome is LeverOutcome.DONE
    site.cluster.add_job("train", "late", gpus=1, priority_class="batch", queue="batch")
    assert "Job/late" not in {job.job_id for job in (await pool.observe(0.0)).jobs}
    assert (await lever.verify(site.order(), promise)).outcome is LeverOutcome.DONE
    assert (await lever.restore(site.order())).outcome is LeverOutcome.DONE
    assert "Job/late" in {job.job_id for job in (await pool.observe(0.0)).jobs}
