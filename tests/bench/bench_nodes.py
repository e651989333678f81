"""What 64 GPU hosts cost the site's agent: reports of 8 GPUs each at a 2 s beat over mutual TLS, limits that move.

    make bench-nodes

The hosts are one process of their own with 64 TLS sessions, the site's agent's side of them is this one: both ports, the
pools, and what a governor asks of them (a reading a second, a sign of life a second, new limits for every GPU each ten
seconds). CPU is this process's, every thread of it. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import logging
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from agent.gpu.reading import GpuReading
from agent.node.report import boards, report
from agent.nodes.assembly import NodesSide, open_nodes
from agent.nodes.authority import open_authority, place_of
from agent.nodes.registry import Book, CertificateRow
from agent.settings import AgentSettings
from gridpivot.clock import SystemClock
from gridpivot.link.certificates import certify_node, key_pem, new_key, serial_of
from gridpivot.link.credentials import CLIENT_OPTIONS, KeyPair, client_credentials
from gridpivot.v1 import node_pb2 as pb
from gridpivot.v1 import node_pb2_grpc

BAR_CORE = 0.05
NODES, GPUS, BEAT_S = 64, 8, 2.0
MOST_W, HOST_W = 700.0, 400.0


class Host:
    """One host's GPUs and session; it takes limits as a board does, at once."""

    def __init__(self, name: str) -> None:
        self.name, self.sequence, self.applied = name, 0, 0
        self.limit_w = [MOST_W] * GPUS
        self._turn = asyncio.Lock()  # one write at a time

    def readings(self) -> list[GpuReading]:
        return [
            GpuReading(
                f"GPU-{self.name}-{n}", "NVIDIA H100 80GB HBM3", power_w=watts * random.uniform(0.8, 0.99), energy_j=1e9,
                limit_requested_w=watts, limit_enforced_w=watts, limit_min_w=200.0, limit_max_w=MOST_W,
                limit_default_w=MOST_W, util_ratio=0.9, temp_c=61.0, memory_used_bytes=70 * 2**30,
                memory_total_bytes=80 * 2**30, clock_event_reasons=4, sm_clock_hz=1.7e9, memory_clock_hz=2.6e9,
            )
            for n, watts in enumerate(self.limit_w)
        ]  # fmt: skip

    async def run(self, address: str, ca_pem: bytes, own: KeyPair) -> None:
        async with grpc.aio.secure_channel(
            address, client_credentials(ca_pem, own), options=list(CLIENT_OPTIONS)
        ) as channel:
            stream = node_pb2_grpc.NodeServiceStub(channel).Session()
            hello = pb.NodeHello(
                site="bench", node=self.name, instance_id=os.urandom(16), agent_version="bench",
                gpus=boards(self.readings()), guarded_after_ms=20_000,
            )  # fmt: skip
            await stream.write(pb.NodeServiceSessionRequest(hello=hello))
            first = await stream.read()
            assert first.HasField("welcome"), first
            hearing = asyncio.create_task(self._hear(stream))
            await asyncio.sleep(random.random() * BEAT_S)
            while not hearing.done():
                await self._report(stream)
                await asyncio.sleep(BEAT_S)
            hearing.result()

    async def _report(self, stream: Any) -> None:
        self.sequence += 1
        now, readings = time.monotonic(), self.readings()
        wall_w = GPUS * HOST_W + sum(reading.power_w or 0.0 for reading in readings)
        message = report(
            readings, self.sequence, self.applied, round(time.time() * 1000), round(now * 1000), (wall_w, "bmc")
        )
        async with self._turn:
            await stream.write(pb.NodeServiceSessionRequest(report=message))

    async def _hear(self, stream: Any) -> None:
        while isinstance(said := await stream.read(), pb.NodeServiceSessionResponse):
            if not said.HasField("limits") or said.limits.sequence == self.applied:
                continue
            for gpu in said.limits.gpus:
                self.limit_w[gpu.row] = gpu.limit_w
            self.applied = said.limits.sequence
            outcomes = [pb.GpuOutcome(row=gpu.row, outcome="ok") for gpu in said.limits.gpus]
            async with self._turn:
                await stream.write(
                    pb.NodeServiceSessionRequest(ack=pb.NodeLimitsAck(sequence=self.applied, gpus=outcomes))
                )
            await self._report(stream)


async def hosts(place: Path, address: str) -> None:
    """The other process."""
    ca_pem = (place / "ca.pem").read_bytes()
    pairs = {n: KeyPair((place / f"n{n}.key").read_bytes(), (place / f"n{n}.crt").read_bytes()) for n in range(NODES)}
    await asyncio.gather(*(Host(f"n{n}").run(address, ca_pem, pair) for n, pair in pairs.items()))


def settings_of(place: Path) -> AgentSettings:
    """A site of one pool over all hosts."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    pool = {"name": "train", "nodes": [f"n{n}" for n in range(NODES)], "gpus_per_node": GPUS, "host_w_per_gpu": HOST_W}
    nodes = {
        "listen": f"127.0.0.1:{ports[0]}",
        "enrol_listen": f"127.0.0.1:{ports[1]}",
        "host": "localhost",
        "beat_s": BEAT_S,
    }
    return AgentSettings.model_validate(
        {"site": "bench", "state_dir": place / "state", "gpu": {"pools": [pool]}, "nodes": nodes}
    )


def identities(place: Path, settings: AgentSettings) -> None:
    """Certificates of all hosts, on record."""
    now = dt.datetime.now(dt.UTC)
    where = place_of(settings)
    authority = open_authority(where, now)
    (place / "ca.pem").write_bytes(authority.certificate_pem)
    rows = []
    for n in range(NODES):
        key = new_key()
        made = certify_node(authority, where.fleet, "bench", f"n{n}", key.public_key(), now, 1.0)
        (place / f"n{n}.key").write_bytes(key_pem(key))
        (place / f"n{n}.crt").write_bytes(made.public_bytes(Encoding.PEM))
        ms = round(now.timestamp() * 1000)
        rows.append(
            CertificateRow(
                serial=serial_of(made), node=f"n{n}", issued_at_unix_ms=ms, not_after_unix_ms=ms + 86_400_000
            )
        )
    (where.directory / "registry.json").write_text(Book(certificates=tuple(rows)).model_dump_json())


async def govern(side: NodesSide, until_s: float, down_s: list[float]) -> None:
    """What a governor asks of its pools; how long until limits were read back everywhere."""
    pools, clock, turn = side.pools, SystemClock(), 0
    full_w = pools.declared[0].max_w
    while time.monotonic() < until_s:
        now = clock.now()
        pools.read(now)
        pools.hold([0.5 * full_w + 2000.0 * random.random()], now)
        if turn % 10 == 0:
            wanted_w = full_w * (0.6 if turn % 20 else 0.8)
            pools.set_limit(0, wanted_w, now)
            if turn % 20:
                while pools.read(clock.now())[0].limit_w > wanted_w and time.monotonic() - now.monotonic_s < 9:
                    await asyncio.sleep(0.02)
                down_s.append(time.monotonic() - now.monotonic_s)
        turn += 1
        await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - now.monotonic_s)))


async def site(place: Path, seconds: float) -> dict[str, Any]:
    """This process: everything up, then the measured time."""
    settings = settings_of(place)
    identities(place, settings)
    side = open_nodes(settings, SystemClock())
    serving = asyncio.create_task(side.run())
    await asyncio.sleep(0.5)
    child = await asyncio.create_subprocess_exec(sys.executable, __file__, "--hosts", str(place), settings.nodes.listen.replace("127.0.0.1", "localhost"))  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while sum(node.connected for node in side.pools.table.nodes) < NODES:
                await asyncio.sleep(0.1)
        await govern(side, time.monotonic() + 4.0, [])
        taken, cpu_s, wall_s = side.pools.node_counters["reports"]["taken"], time.process_time(), time.monotonic()
        down_s: list[float] = []
        await govern(side, wall_s + seconds, down_s)
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
        core = cpu_s / wall_s
        return {
            "bench": "nodes",
            "nodes": NODES,
            "gpus": NODES * GPUS,
            "beat_s": BEAT_S,
            "seconds": round(wall_s, 1),
            "reports_per_s": round((side.pools.node_counters["reports"]["taken"] - taken) / wall_s, 1),
            "core": round(core, 4),
            "limits_read_back_everywhere_s": round(statistics.median(down_s), 2) if down_s else None,
            "bars": {"core": BAR_CORE},
            "ok": core <= BAR_CORE,
        }
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def main() -> None:
    """Parent or child."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--hosts", nargs=2, metavar=("PLACE", "ADDRESS"))
    given = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if given.hosts:
        asyncio.run(hosts(Path(given.hosts[0]), given.hosts[1]))
        return
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(asyncio.run(site(Path(place), given.seconds))))


if __name__ == "__main__":
    main()
