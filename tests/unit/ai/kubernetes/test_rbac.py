"""The manifest grants what the agent asks for (every test's server enforces it) and nothing that it never asks for."""

from __future__ import annotations

import pytest

from tests.unit.ai.kubernetes.conftest import Site, granted

pytestmark = pytest.mark.unit


async def test_manifest_grants_exactly_the_verbs_that_are_used(site: Site) -> None:
    wish = {"gridpivot/checkpoint": ""}
    site.cluster.add_job("train", "saves", gpus=4, priority_class="scavenge", node="gpu2", annotations=wish)
    site.cluster.add_job("train", "queued", gpus=2, priority_class="batch", node="gpu2", queue="batch")
    local = site.pool(local_queue="batch", checkpoint_evidence="gridpivot/checkpointed", checkpoint_wait_s=0.1)
    await local.hold(["gpu2"], site.order())
    await local.checkpoint(["Job/saves"], site.order())
    site.fail("create", "pods/eviction", status=409, times=1)
    await local.requeue(["Job/saves", "Job/queued"], site.order())
    await local.close_admission(site.order())
    await local.release(None)
    whole = site.pool(cluster_queue="all")
    await whole.close_admission(site.order())
    await whole.release(None)
    assert site.server.asked == granted()
