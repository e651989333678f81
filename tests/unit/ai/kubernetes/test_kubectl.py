"""The stand-in server is checked by a foreign client: the real kubectl works with it, and sees what the agent did."""

from __future__ import annotations

import asyncio
import json
import os
import shutil

import pytest

from gridpivot.vocabulary import LeverOutcome
from sim.kube.store import PODS
from tests.unit.ai.kubernetes.conftest import ADMIN, Site

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which("kubectl") is None and not os.environ.get("CI"),
        reason="no kubectl: nobody foreign checks the stand-in server (Debian: kubernetes-client)",
    ),
]


async def kubectl(site: Site, *words: str, token: str = ADMIN) -> tuple[int, str]:
    where = (
        "--server",
        f"https://localhost:{site.port.port}",
        "--certificate-authority",
        str(site.directory / "ca.pem"),
    )
    process = await asyncio.create_subprocess_exec(
        "kubectl", *where, "--token", token, "--cache-dir", str(site.directory / "cache"), *words,
        env={"PATH": os.environ["PATH"], "HOME": str(site.directory), "KUBECONFIG": os.devnull},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def done(site: Site, *words: str) -> str:
    code, said = await kubectl(site, *words)
    assert code == 0, said
    return said


async def test_kubectl_lists_nodes_and_pods(site: Site) -> None:
    assert "gpu0" in await done(site, "get", "nodes", "-l", "pool=train")
    found = json.loads(await done(site, "get", "pods", "-n", "train", "-o", "json"))
    assert sorted(pod["spec"]["nodeName"] for pod in found["items"]) == ["gpu0", "gpu1"]
    assert "batch" in await done(site, "get", "localqueues", "-n", "train")


async def test_node_that_kubectl_cordoned_is_not_ours_and_ours_shows_in_kubectl(site: Site) -> None:
    pool = site.pool()
    await done(site, "cordon", "gpu0")
    steps = await pool.hold(["gpu0", "gpu2"], site.order())
    assert [step.outcome for step in steps] == [LeverOutcome.NOT_OURS, LeverOutcome.DONE]
    node = json.loads(await done(site, "get", "node", "gpu2", "-o", "json"))
    assert node["spec"]["unschedulable"] and node["metadata"]["annotations"]["gridpivot/orders"].startswith("o1=")
    await done(site, "uncordon", "gpu0")
    await pool.release(None)
    assert not any(n.held for n in (await pool.observe(0.0)).nodes if n.name != "gpu3")


async def test_kubectl_drains_through_the_eviction_api_and_meets_budgets(site: Site) -> None:
    site.cluster.add_pod("train", "lone", "gpu2", gpus=1, labels={"job": "lone"})
    site.budget("lone", 1)
    await done(site, "drain", "gpu2", "--force", "--timeout=20s")
    assert site.cluster.store.get(PODS, "train", "lone") is None
    site.cluster.add_pod("train", "lone", "gpu2", gpus=1, labels={"job": "lone"})
    code, said = await kubectl(site, "drain", "gpu2", "--force", "--timeout=1s")
    assert code and "disruption budget" in said
    assert site.cluster.store.get(PODS, "train", "lone") is not None


async def test_kubectl_suspends_and_annotates_and_is_refused_without_a_token(site: Site) -> None:
    await done(site, "patch", "job", "spot", "-n", "train", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    work = await site.pool().observe(0.0)
    assert "Job/spot" not in {job.job_id for job in work.jobs} and work.suspended == ()  # suspended, and not by us
    await done(site, "annotate", "node", "gpu2", "note=hello")
    code, said = await kubectl(site, "get", "nodes", token="wrong")
    assert code and ("Unauthorized" in said or "logged in" in said), said
