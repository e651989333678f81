"""A real agent over a Kubernetes pool: an order by hand goes through limits and cordons to evictions until the pool's meter
shows it; the real kubectl sees it; what a killed agent held is given back by hand. The API server is a stand-in (sim/kube)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from sim.gpus import SimGpus
from sim.kube.cluster import GPU, Cluster
from sim.kube.server import KubeServer
from sim.kube.store import NAMESPACES, NODES, PODS
from sim.tls_port import TlsPort
from tests.conftest import missing
from tests.system.ai_rig import AiRig, rig_of

pytestmark = pytest.mark.system

ADMIN, AGENT = "admin-token", "agent-token"
GPUS, PER_NODE = 8, 4
POOLS = """[[gpu.pools]]
name = "training"
priority = "spot"
host_w_per_gpu = 400.0
[gpu.pools.kubernetes]
namespace = "train"
node_selector = "pool=train"
api_url = "https://localhost:{api}"
ca_file = "{place}/ca.pem"
token_file = "{place}/token"
priorities = {{ scavenge = "spot" }}
ends_within_s = 5.0
deadline_s = 2.0
"""


class KubeSite(AiRig):
    """Two nodes of four GPUs: a spot Job fills the first, guaranteed work half of the second."""

    def __init__(self, place: Path, gpus: SimGpus) -> None:
        super().__init__(place, gpus)
        self.cluster = Cluster()
        self.cluster.store.create(NAMESPACES, {"metadata": {"name": "train"}})
        for n in range(2):
            self.cluster.add_node(f"gpu{n}", gpus=PER_NODE, labels={"pool": "train"})
        self.cluster.add_job("train", "scavenge", gpus=4, priority_class="scavenge", node="gpu0")
        self.cluster.add_job("train", "serve", gpus=2, priority_class="", node="gpu1")
        self.server = KubeServer(self.cluster, ADMIN, AGENT)
        self.port = TlsPort(self.server)
        self.loads = self._loads

    def _loads(self) -> None:
        """GPUs work where pods run."""
        busy = [0, 0]
        for pod in self.cluster.store.all(PODS):
            if pod["spec"].get("nodeName"):
                busy[int(pod["spec"]["nodeName"][3:])] += int(pod["spec"]["containers"][0]["resources"]["limits"][GPU])
        for node, count in enumerate(busy):
            for gpu in range(PER_NODE):
                self.gpus.state.set_load(1.0 if gpu < count else 0.0, PER_NODE * node + gpu)

    def jobs(self) -> set[str]:
        """Jobs that have a pod on a node."""
        return {pod["metadata"]["labels"]["job"] for pod in self.cluster.store.all(PODS) if pod["spec"].get("nodeName")}

    def cordoned(self) -> set[str]:
        """Nodes that take no new work."""
        return {n["metadata"]["name"] for n in self.cluster.store.all(NODES) if n["spec"].get("unschedulable")}

    def kubectl(self, *words: str) -> str:
        """As an admin of the cluster types it."""
        where = ("--server", f"https://localhost:{self.port.port}", "--token", ADMIN)
        files = ("--certificate-authority", str(self.place / "ca.pem"), "--cache-dir", str(self.place / "cache"))
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.place), "KUBECONFIG": os.devnull}
        done = subprocess.run(
            ["kubectl", *where, *files, *words], env=environ, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def until_given_back(self) -> None:
        """No mark of ours is left, and all work runs."""
        began_s = time.monotonic()
        while self.jobs() != {"scavenge", "serve"} or self.cordoned():
            assert time.monotonic() - began_s < 10.0, (self.jobs(), self.cordoned())
            self.cluster.settle()
            await asyncio.sleep(0.05)
        nodes = json.loads(await asyncio.to_thread(self.kubectl, "get", "nodes", "-o", "json"))["items"]
        assert not any("gridpivot/orders" in node["metadata"].get("annotations", {}) for node in nodes)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[KubeSite]:
    if shutil.which("kubectl") is None:
        missing("kubectl (Debian: kubernetes-client)")
    async with rig_of(KubeSite, tmp_path, GPUS) as made:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        (tmp_path / "token").write_text(AGENT + "\n")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(tls)
        await made.port.open(tls)
        try:
            await made.start_agent(POOLS.format(place=tmp_path, api=made.port.port))
            yield made
        finally:
            await made.agent.stop()
            await made.port.close()


async def test_order_by_hand_ends_in_evictions_that_kubectl_sees_and_is_given_back_by_hand(site: KubeSite) -> None:
    # Six GPUs work, two idle: 6 x 700 + 2 x 75 W, and 400 W of host each.
    await site.until(lambda: site.power_told() > 7_000.0, "GPUs at work, and the meter is believed")
    await asyncio.to_thread(site.asked, op="shed", to_w=4_600.0, for_s=600.0, reason="hot transformer")
    await site.until(lambda: site.jobs() == {"serve"}, "spot work is off")
    await site.until(lambda: site.power_w <= 4_700.0, "the meter shows it")
    await site.until(lambda: "requeue brought" in site.log(), "told with figures")
    assert "serve" in site.jobs(), "guaranteed work was touched"
    assert 'gridpivot_ai_lever_outcomes_total{lever="requeue"' in await asyncio.to_thread(site.metrics)
    job = json.loads(await asyncio.to_thread(site.kubectl, "get", "job", "scavenge", "-n", "train", "-o", "json"))
    assert job["spec"]["suspend"] and "gridpivot/orders" in job["metadata"]["annotations"]
    held = site.cordoned()
    await site.kill_agent()
    assert (site.jobs(), site.cordoned()) == ({"serve"}, held)
    freed = await asyncio.to_thread(site.command, "ai", "release", "--yes")
    assert freed.returncode == 0, freed.stdout + freed.stderr
    await site.until_given_back()


async def test_token_that_runs_out_has_its_word_and_is_read_anew(site: KubeSite) -> None:
    await site.until(lambda: 'workload_up{pool="training"} 1.0' in site.metrics(), "the pool is seen")
    site.server.agent_token = "renewed"
    await site.until(lambda: "401" in site.log() and "token" in site.log(), "an expired token has its word")
    assert 'workload_up{pool="training"} 0.0' in await asyncio.to_thread(site.metrics)
    (site.place / "token").write_text("renewed\n")
    await site.until(lambda: "workload manager answers again" in site.log(), "the token is read anew")
    assert site.jobs() == {"scavenge", "serve"} and not site.cordoned()
