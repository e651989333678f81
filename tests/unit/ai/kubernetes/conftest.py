"""A small cluster behind the stand-in API server, over real TLS, under the permissions of deploy/kubernetes/rbac.yaml."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from agent.ai.kubernetes.pool import KubernetesPool
from agent.ai.kubernetes.settings import KubernetesSettings
from agent.ai.workload import Order
from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority
from sim.kube.cluster import Cluster
from sim.kube.server import Fault, KubeServer, Permission
from sim.kube.store import BUDGETS, CLUSTER_QUEUES, LOCAL_QUEUES, NAMESPACES, NODES
from sim.tls_port import TlsPort
from tests.conftest import ROOT

ADMIN, AGENT = "admin-token", "agent-token"
NOON_UNIX_S = 1_767_268_800.0  # 2026-01-01T12:00:00Z; jobs of the stand-in began at midnight


class HandClock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.unix_s = NOON_UNIX_S

    def now(self) -> Instant:
        return Instant(self.unix_s - NOON_UNIX_S, self.unix_s)


def granted() -> frozenset[Permission]:
    """What the manifest grants."""
    found = set()
    for document in yaml.safe_load_all((ROOT / "deploy/kubernetes/rbac.yaml").read_text()):
        for rule in document.get("rules", ()):
            found |= {
                Permission(verb, group, resource, document["kind"] == "Role")
                for verb in rule["verbs"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
            }
    return frozenset(found)


@dataclass
class Site:
    """A cluster, its server, and how to make pools on it."""

    cluster: Cluster
    server: KubeServer
    port: TlsPort
    clock: HandClock
    directory: Path
    pools: list[KubernetesPool]

    def settings(self, **more: Any) -> KubernetesSettings:
        given = {
            "namespace": "train",
            "node_selector": "pool=train",
            "api_url": f"https://localhost:{self.port.port}",
            "ca_file": self.directory / "ca.pem",
            "token_file": self.directory / "token",
            "priorities": {"batch": AiPriority.STANDARD, "scavenge": AiPriority.SPOT},
            "deadline_s": 20,
        }
        return KubernetesSettings.model_validate(given | more)

    def pool(self, **more: Any) -> KubernetesPool:
        pool = KubernetesPool(self.settings(**more), self.clock)
        self.pools.append(pool)
        return pool

    def order(self, name: str = "o1", seconds: float = 600.0) -> Order:
        return Order(name, "a test", self.clock.unix_s + seconds)

    def fail(self, verb: str, resource: str, **how: Any) -> None:
        self.server.faults.append(Fault(verb, resource, **how))

    def budget(self, job: str, allowed: int) -> None:
        self.cluster.store.create(
            BUDGETS,
            {
                "metadata": {"namespace": "train", "name": f"budget-{job}-{allowed}"},
                "spec": {"selector": {"matchLabels": {"job": job}}},
                "status": {"disruptionsAllowed": allowed},
            },
        )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Four nodes: a spot job on gpu0, a guaranteed one on gpu1, gpu2 free, gpu3 cordoned by an admin."""
    cluster = Cluster()
    for name in ("train", "other"):
        cluster.store.create(NAMESPACES, {"metadata": {"name": name}})
    for n in range(4):
        cluster.add_node(f"gpu{n}", labels={"pool": "train"})
    cluster.add_node("login", gpus=0)
    cluster.store.patch(NODES, "", "gpu3", {"spec": {"unschedulable": True}})
    cluster.add_job("train", "spot", priority_class="scavenge", node="gpu0")
    cluster.add_job("train", "serve", priority_class="", node="gpu1")
    cluster.store.create(CLUSTER_QUEUES, {"metadata": {"name": "all"}, "spec": {}})
    cluster.store.create(
        LOCAL_QUEUES, {"metadata": {"namespace": "train", "name": "batch"}, "spec": {"clusterQueue": "all"}}
    )
    server = KubeServer(cluster, ADMIN, AGENT)
    server.grants = granted()
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "token").write_text(AGENT + "\n")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(tls)
    port = TlsPort(server)
    await port.open(tls)
    made = Site(cluster, server, port, HandClock(), tmp_path, [])
    yield made
    for pool in made.pools:
        await pool.close()
    await port.close()
    assert not server.refused, "the manifest does not grant what was asked"
