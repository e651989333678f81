"""How long a look at a big cluster holds the event loop, which the governor's tick shares.

    make bench-kube

5,000 pods of some 6 kB each, as a cluster with managedFields lists them, 512 of them on the pool's 64 nodes, behind the
stand-in's TLS port in a process of its own. The probe sleeps 1 ms at a time beside the looks; what it oversleeps is what the
loop was held. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import functools
import gc
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme

from agent.ai.kubernetes.pool import KubernetesPool
from agent.ai.kubernetes.settings import KubernetesSettings
from gridpivot.clock import SystemClock
from sim.miners.web import WebAnswer, WebRequest
from sim.tls_port import TlsPort

BAR_S = 0.05  # a twentieth of the governor's beat
PODS, NODES, GPU_PODS = 5_000, 64, 512


class CannedServer:
    """Answers lists only, pages made once."""

    def web(self, request: WebRequest) -> WebAnswer | None:
        url = urlsplit(request.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        start, size = int(query.get("continue", "0")), int(query.get("limit", "500"))
        return WebAnswer(_page(url.path.rsplit("/", 1)[-1], start, size), 200, (("Content-Type", "application/json"),))


@functools.cache
def _page(kind: str, start: int, size: int) -> bytes:
    made = {"nodes": (NODES, _node), "pods": (PODS, _pod)}.get(kind)
    items = [] if made is None else [made[1](n) for n in range(start, min(start + size, made[0]))]
    more = made is not None and start + size < made[0]
    meta = {"resourceVersion": "1", **({"continue": str(start + size)} if more else {})}
    return json.dumps({"metadata": meta, "items": items}).encode()


def _node(n: int) -> dict[str, Any]:
    status = {"capacity": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": f"gpu{n}", "labels": {"pool": "train"}}, "spec": {}, "status": status}


def _pod(n: int) -> dict[str, Any]:
    name, gpu = f"worker-{n:05}", n % (PODS // GPU_PODS) == 0
    fields = {f"f:field-{m}": {"f:name": {}, "f:value": {}, f'k:{{"name":"e{m}"}}': {".": {}}} for m in range(24)}
    container = {
        "name": "main",
        "image": "registry.example/train@sha256:" + "0" * 64,
        "env": [{"name": f"VARIABLE_{m}", "value": f"value-{m}-{name}"} for m in range(30)],
        "resources": {"limits": {"nvidia.com/gpu": "1"} if gpu else {"cpu": "2"}},
        "volumeMounts": [{"name": f"volume-{m}", "mountPath": f"/mnt/{m}"} for m in range(6)],
    }
    return {
        "metadata": {
            "name": name,
            "namespace": "train" if gpu else "other",
            "uid": f"{n:032x}",
            "resourceVersion": str(n),
            "labels": {f"label-{m}": name for m in range(8)},
            "ownerReferences": [{"kind": "Job", "name": f"job-{n // 8}", "uid": str(n // 8), "controller": True}],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": fields}],
        },
        "spec": {
            "nodeName": f"gpu{n % NODES}" if gpu else f"cpu{n % 300}",
            "containers": [container],
            "tolerations": [{"key": f"key-{m}", "operator": "Exists"} for m in range(4)],
            "volumes": [{"name": f"volume-{m}", "configMap": {"name": f"map-{m}"}} for m in range(6)],
        },
        "status": {
            "phase": "Running",
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": f"Condition{m}", "status": "True"} for m in range(5)],
        },
    }


async def serve(directory: Path) -> None:
    """The other process: until it is ended."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "server.pem")
    port = TlsPort(CannedServer())
    await port.open(tls)
    print(port.port, flush=True)
    await asyncio.Event().wait()


async def _probe(held_s: list[float]) -> None:
    while True:
        began_s = time.perf_counter()
        await asyncio.sleep(0.001)
        held_s.append(time.perf_counter() - began_s - 0.001)


async def looks(port: int, directory: Path, count: int) -> dict[str, Any]:
    """Looks one after another with the probe beside them; the first, which opens connections and makes pages, is not counted."""
    pool = KubernetesPool(
        KubernetesSettings.model_validate(
            {
                "namespace": "train",
                "node_selector": "pool=train",
                "api_url": f"https://localhost:{port}",
                "ca_file": directory / "ca.pem",
                "token_file": directory / "token",
                "deadline_s": 60,
            }
        ),
        SystemClock(),
    )
    longest_s, took_s, cpu_s = [], [], []
    for number in range(count + 1):
        held_s: list[float] = []
        probe = asyncio.create_task(_probe(held_s))
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        work = await pool.observe(0.0)
        took, cpu = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        await asyncio.sleep(0.01)
        probe.cancel()
        assert len(work.nodes) == NODES and sum(node.busy_gpus for node in work.nodes) >= GPU_PODS
        if number:
            longest_s.append(max(held_s))
            took_s.append(took)
            cpu_s.append(cpu)
        else:
            gc.collect()
            gc.freeze()  # as the agent does once its first looks are done
    await pool.close()
    return {
        "looks": count,
        "pods": PODS,
        "pods_bytes": sum(len(_page("pods", start, 500)) for start in range(0, PODS, 500)),
        "look_s": round(statistics.median(took_s), 3),
        "look_cpu_s": round(statistics.median(cpu_s), 3),
        "loop_held_s": round(statistics.median(longest_s), 4),
        "loop_held_worst_s": round(max(longest_s), 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--looks", type=int, default=8)
    parser.add_argument("--serve", type=Path)
    given = parser.parse_args()
    if given.serve is not None:
        asyncio.run(serve(given.serve))
        return 0
    with tempfile.TemporaryDirectory() as place:
        directory, ca = Path(place), trustme.CA()
        ca.cert_pem.write_to_path(directory / "ca.pem")
        ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
        (directory / "token").write_text("token")
        server = subprocess.Popen([sys.executable, __file__, "--serve", place], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            found = asyncio.run(looks(int(server.stdout.readline()), directory, given.looks))
        finally:
            server.terminate()
            server.wait()
            server.stdout.close()
    good = found["loop_held_s"] <= BAR_S
    print(f"a look at {PODS} pods: {found['look_s']} s, loop held {found['loop_held_s'] * 1e3:.1f} ms at the longest")
    when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    print(json.dumps({"bench": "kube", "at": when, "cores": os.cpu_count(), **found, "bar_s": BAR_S, "good": good}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
