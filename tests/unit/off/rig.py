"""A pool of two nodes with everything real but the machines: BMCs over TLS, a scheduler behind commands, the pools, the desk.

The test is the governor and the clock; a node's process is a stand-in that reports as real ones do.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trustme

from agent.ai.commands import CommandsSettings, CommandWorkload
from agent.ai.lever import PoolPower
from agent.ai.runner import AiDesk, PoolSide
from agent.bmc.reader import BmcReader
from agent.bmc.settings import PoolBmcSettings
from agent.bmc.trust import fingerprint
from agent.nodes.pools import NodePools
from agent.off.by_hand import OffByHand
from agent.off.desk import OffDesk
from agent.off.order import OffOrder, OffState
from agent.settings import GpuPoolSettings, NodesSettings
from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority, EventKind
from sim.redfish.bmc import SimBmc, SimHost
from sim.tls_port import TlsPort
from tests.unit.node.site_of_nodes import FakeNode

SCHEDULER = Path(__file__).parents[1] / "ai" / "scheduler.py"
HOST_W, IDLE_GPU_W, LIMIT_W = 100.0, 60.0, 500.0
NAMES = ("a", "b")
GIVEN_W = 8 * HOST_W + 8 * LIMIT_W


class HandClock:
    """Monotonic time by hand, beside a wall clock that is near the real one."""

    def __init__(self) -> None:
        self.s, self._unix0_s = 1000.0, time.time() - 1000.0

    def now(self) -> Instant:
        return Instant(self.s, self._unix0_s + self.s)


class Rig:
    """Two nodes of four GPUs."""

    def __init__(self, place: Path) -> None:
        self.place, self.clock = place, HandClock()
        self.file = place / "scheduler.json"
        nodes = [{"name": name, "gpus": 4, "busy_gpus": 0, "held_by": ""} for name in NAMES]
        state = {"nodes": nodes, "jobs": [], "paused": [], "admission_held_by": "", "until": {}}
        self.file.write_text(json.dumps(state))
        self.hosts = {name: SimHost(draw_w=lambda: 4 * IDLE_GPU_W + 4 * HOST_W, standby_w=50.0) for name in NAMES}
        self.bmcs = {name: SimBmc(host) for name, host in self.hosts.items()}
        self.ports = {name: TlsPort(bmc) for name, bmc in self.bmcs.items()}
        self.said: list[tuple[EventKind, str, str]] = []
        self.nodes: dict[str, FakeNode] = {}
        self.gpu_w = dict.fromkeys(NAMES, IDLE_GPU_W)

    async def open(self, **changed: Any) -> None:
        certificate = trustme.CA().issue_cert("127.0.0.1")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(tls)
        pin = fingerprint(ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode()))
        password = self.place / "password"
        password.write_text("watts\n")
        password.chmod(0o600)
        for port in self.ports.values():
            await port.open(tls)
        self.settings = {
            name: PoolBmcSettings(
                node=name, url=f"https://127.0.0.1:{port.port}", username="meter", password_file=password, pin_sha256=pin,
                **changed,
            )
            for name, port in self.ports.items()
        }  # fmt: skip
        self.readers = {name: BmcReader(name, own, self.clock) for name, own in self.settings.items()}
        pool = GpuPoolSettings(name="train", nodes=NAMES, gpus_per_node=4, host_w_per_gpu=HOST_W)
        self.pools = NodePools([pool], NodesSettings(), {}, self.clock, list(self.readers.values()))
        command = [sys.executable, str(SCHEDULER), str(self.file)]
        commands = CommandsSettings(status=[*command, "status"], pause=[*command, "pause"], resume=[*command, "resume"])
        self.side = PoolSide("train", AiPriority.STANDARD, {}, CommandWorkload(commands, self.clock))
        self.ai = AiDesk([self.side], self.place, self.clock, acts=True)
        self.see()
        for name in NAMES:
            self.nodes[name] = node = FakeNode(self, name, 4, 20.0)  # type: ignore[arg-type]
            node.limit_w = dict.fromkeys(node.limit_w, LIMIT_W)
            self.come(name)
        self.give(GIVEN_W)
        self.begin()
        await self.look()

    def begin(self) -> None:
        """A process's desk; again: the next process's."""
        self.desk = OffDesk(self.pools, self.settings, self.ai, self.place, self.clock)
        self.desk.say = self.say
        self.by_hand = OffByHand(self.desk)

    async def close(self) -> None:
        for reader in self.readers.values():
            await reader.close()
        for port in self.ports.values():
            await port.close()

    def say(self, kind: EventKind, message: str, figures: Mapping[str, float] | None = None, *, actor: str = "",
        order_id: str = "") -> None:  # fmt: skip
        self.said.append((kind, message, actor))

    # ---- what happens around the desk

    def see(self, may_raise: bool = True) -> None:
        power = PoolPower(self.clock.s, 3000.0, 5000.0, 1000.0, 1500.0, 8)
        self.ai.see("train", power, None, False, may_raise, 1e6)

    def give(self, wall_w: float) -> None:
        """As the governor does."""
        self.pools.set_limit(0, wall_w, self.clock.now())
        self.report()

    def report(self) -> None:
        """Nodes that are there hold what is asked of them, and say so."""
        for name, node in self.nodes.items():
            if node.node.connected:
                node.draw_ratio = self.gpu_w[name] / max(node.limit_w.values())
                node.take()

    def come(self, name: str) -> None:
        node = self.nodes[name]
        node.draw_ratio = self.gpu_w[name] / max(node.limit_w.values())
        node.come()

    def boot(self, name: str) -> None:
        """Its boards are at their default after a power cycle."""
        node = self.nodes[name]
        node.limit_w = dict.fromkeys(node.limit_w, 700.0)
        self.come(name)

    async def look(self, seconds: float = 5.0) -> None:
        """Time passes: nodes report, BMCs are read, the desk takes a turn and its calls end."""
        self.clock.s += seconds
        for name, node in self.nodes.items():
            if node.node.connected and not self.hosts[name].on:
                node.go()  # a host that is off has no session
        self.pools.settle_moved(self.clock.now())
        self.report()
        for reader in self.readers.values():
            await reader.look()
        self.reading()
        for order in list(self.desk.orders.values()):
            self.desk.turn(order)
        tasks = [hands.task for hands in self.desk._hands.values() if hands.task is not None]
        await asyncio.gather(*tasks)
        await self.desk.keep()

    def reading(self):
        (found,) = self.pools.read(self.clock.now())
        return found

    async def until(self, state: OffState | None, name: str = "a", looks: int = 30) -> OffOrder | None:
        """Look until the node's order is in a state; None = until it has ended."""
        for _ in range(looks):
            order = self.desk.orders.get(name)
            if (None if order is None else order.state) is state:
                return order
            await self.look()
        raise AssertionError(f"{self.desk.orders.get(name)} {self.desk.endings} {self.said}")

    def work(self, change: Any) -> None:
        state = json.loads(self.file.read_text())
        change(state)
        self.file.write_text(json.dumps(state))

    def run_job(self, name: str, priority: str = "standard") -> None:
        def change(state: Any) -> None:
            job = {
                "id": "17",
                "priority": priority,
                "nodes": [name],
                "gpus": 4,
                "running_s": 60.0,
                "checkpoints": False,
            }
            state["jobs"].append(job)
            next(n for n in state["nodes"] if n["name"] == name)["busy_gpus"] = 4

        self.work(change)

    def held_by(self, name: str) -> str:
        return next(n["held_by"] for n in json.loads(self.file.read_text())["nodes"] if n["name"] == name)
