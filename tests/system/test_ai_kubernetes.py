"""A real agent over a Kubernetes pool: an order by hand goes through limits and cordons to evictions until the pool's meter
shows it; the real kubectl sees it; what a killed agent held is given back by hand. The API server is a stand-in (sim/kube)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import trustme

from agent.local_control import ask
from gridpivot.errors import GridpivotError
from sim import staging
from sim.children import Child, wait_for_log
from sim.gpus import HOST_W_PER_GPU, SimGpus
from sim.kube.cluster import Cluster
from sim.kube.server import KubeServer
from sim.kube.store import NAMESPACES, NODES, PODS
from sim.meter import POWER_ADDRESS, SimMeter
from sim.nvml.state import STATE_VARIABLE
from sim.tls_port import TlsPort
from tests.conftest import missing

pytestmark = pytest.mark.system

ADMIN, AGENT = "admin-token", "agent-token"
GPUS, PER_NODE = 8, 4
SETTINGS = """site = "t-1"
state_dir = "{place}/state"
[circuit]
ceiling_w = 12000
[governor]
stage = "full"
overhead_ratio = 0.01
[meter]
host = "127.0.0.1"
port = {meter}
power_address = {power}
power_type = "int32"
[[gpu.pools]]
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
[http]
port = 0
"""


class KubeSite:
    """Two nodes of four GPUs: a spot Job fills the first, guaranteed work half of the second; a meter over them."""

    def __init__(self, place: Path, gpus: SimGpus) -> None:
        self.place, self.gpus, self.power_w = place, gpus, 0.0
        self.cluster = Cluster()
        self.cluster.store.create(NAMESPACES, {"metadata": {"name": "train"}})
        for n in range(2):
            self.cluster.add_node(f"gpu{n}", gpus=PER_NODE, labels={"pool": "train"})
        self.cluster.add_job("train", "scavenge", gpus=4, priority_class="scavenge", node="gpu0")
        self.cluster.add_job("train", "serve", gpus=2, priority_class="", node="gpu1")
        self.server = KubeServer(self.cluster, ADMIN, AGENT)
        self.port = TlsPort(self.server)
        self.meter = SimMeter(lambda: (self.power_w, 0.0), delay_s=0.5)
        self.agent = Child("agent", place / "agent.log")
        self.environ = os.environ | {"LD_LIBRARY_PATH": str(gpus.library_dir), STATE_VARIABLE: str(gpus.state_path)}

    async def physics(self) -> None:
        """GPUs work where pods run."""
        while True:
            busy = [0, 0]
            for pod in self.cluster.store.all(PODS):
                if pod["spec"].get("nodeName"):
                    gpus = pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
                    busy[int(pod["spec"]["nodeName"][3:])] += int(gpus)
            for node, count in enumerate(busy):
                for gpu in range(PER_NODE):
                    self.gpus.state.set_load(1.0 if gpu < count else 0.0, PER_NODE * node + gpu)
            self.power_w = self.gpus.state.power_w() + GPUS * HOST_W_PER_GPU
            await asyncio.sleep(0.1)

    def jobs(self) -> set[str]:
        """Jobs that have a pod on a node."""
        return {pod["metadata"]["labels"]["job"] for pod in self.cluster.store.all(PODS) if pod["spec"].get("nodeName")}

    def cordoned(self) -> set[str]:
        return {n["metadata"]["name"] for n in self.cluster.store.all(NODES) if n["spec"].get("unschedulable")}

    def log(self) -> str:
        return self.agent.log.read_text(encoding="utf-8", errors="replace")

    def power_told(self) -> float:
        with contextlib.suppress(GridpivotError):
            return float(ask(self.place / "state", {"op": "orders"})["power_w"] or 0.0)
        return 0.0

    def metrics(self) -> str:
        up = [json.loads(line) for line in self.log().splitlines() if '"event": "agent up"' in line]
        with urllib.request.urlopen(up[-1]["http"], timeout=5.0) as page:
            text: str = page.read().decode()
        return text

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        arguments = staging.entry("agent.cli", *words, "--config", str(self.place / "agent.toml"))
        return subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=40)

    def kubectl(self, *words: str) -> str:
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

    async def until(self, true: Callable[[], object], what: str, limit_s: float = 35.0) -> None:
        began_s = time.monotonic()
        while not await asyncio.to_thread(true):
            self.agent.check()
            assert time.monotonic() - began_s < limit_s, f"{what}: {self.log()[-3000:]}"
            await asyncio.sleep(0.05)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[KubeSite]:
    if shutil.which("kubectl") is None:
        missing("kubectl (Debian: kubernetes-client)")
    tmp_path.chmod(0o755)
    gpus = SimGpus.open(tmp_path, GPUS)
    if gpus is None:
        missing("a C compiler (cc or the package ziglang)")
    assert gpus is not None
    made = KubeSite(tmp_path, gpus)
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "token").write_text(AGENT + "\n")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(tls)
    await made.port.open(tls)
    await made.meter.start()
    task = asyncio.create_task(made.physics())
    text = SETTINGS.format(place=tmp_path, meter=made.meter.port, power=POWER_ADDRESS, api=made.port.port)
    (tmp_path / "agent.toml").write_text(text)
    try:
        command = staging.entry("agent.cli", "run", "--config", str(tmp_path / "agent.toml"))
        await made.agent.start(command, made.environ)
        await wait_for_log(made.agent, "agent up", 30.0)
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.agent.stop()
        await made.port.close()
        await made.meter.stop()
        gpus.close()


async def test_order_by_hand_ends_in_evictions_that_kubectl_sees_and_is_given_back_by_hand(site: KubeSite) -> None:
    # Six GPUs work, two idle: 6 x 700 + 2 x 75 W, and 400 W of host each.
    await site.until(lambda: site.power_told() > 7_000.0, "GPUs at work, and the meter is believed")
    shed = {"op": "shed", "to_w": 4_600.0, "for_s": 600.0, "reason": "hot transformer"}
    await asyncio.to_thread(ask, site.place / "state", shed)
    await site.until(lambda: site.jobs() == {"serve"}, "spot work is off")
    await site.until(lambda: site.power_w <= 4_700.0, "the meter shows it")
    await site.until(lambda: "requeue brought" in site.log(), "told with figures")
    assert "serve" in site.jobs(), "guaranteed work was touched"
    assert 'gridpivot_ai_lever_outcomes_total{lever="requeue"' in await asyncio.to_thread(site.metrics)
    job = json.loads(await asyncio.to_thread(site.kubectl, "get", "job", "scavenge", "-n", "train", "-o", "json"))
    assert job["spec"]["suspend"] and "gridpivot/orders" in job["metadata"]["annotations"]
    held = site.cordoned()
    assert site.agent.process is not None
    os.kill(psutil.Process(site.agent.process.pid).pid, signal.SIGKILL)
    await site.agent.process.wait()
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
