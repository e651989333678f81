"""Forty agents' ends of the link in one process: real uplinks with spools, and what a site of 11,250 devices sends.

A roll-up every two seconds, the device table every fifteen with noise in every reading, heartbeats as the welcome asks.
Told by JSON lines: dial (`tls`, `plain` or `parts`), go, flood, hang_up, idle; see `Ends`.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from agent.uplink.session import Uplink, UplinkTarget
from gridpivot import observability
from gridpivot.clock import SystemClock
from gridpivot.columns import DeviceTable, encode_report
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.link.codec import KIND_OF, encode_payload
from gridpivot.link.credentials import CLIENT_OPTIONS, KeyPair, client_credentials
from gridpivot.link.lanes import Lane
from gridpivot.link.pace import Pace
from gridpivot.plan import verify
from gridpivot.v1 import plan_pb2, session_pb2_grpc
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority, DeviceState
from sim.lines import hear, say

CLOCK = SystemClock()
MODELS = ("Antminer S19", "Antminer S19j Pro", "Antminer S19 XP", "Whatsminer M60", "Antminer S21")
ROLLUP_S, DEVICES_S = 2.0, 15.0
HASH = bytes(range(32))
# Without it gRPC lets all plain channels to one address share a single connection.
PLAIN_OPTIONS = (*CLIENT_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
UNDER_WAY = 6  # tables of one site in a flood
ALWAYS_PARTS_BYTES = 128 * 1024.0  # below what counts as a fast link: records go in parts


class BenchUplink(Uplink):
    """An uplink that may do without TLS, or think its link thin."""

    how = "tls"

    def _channel(self, target: UplinkTarget) -> grpc.aio.Channel:
        if self.how == "plain":
            return grpc.aio.insecure_channel(target.address, options=list(PLAIN_OPTIONS))
        return super()._channel(target)

    def _welcomed(self, welcome: wire.Welcome) -> Any:
        watch = super()._welcomed(welcome)
        if self.how == "parts":
            self.pace = Pace(window_bytes=ALWAYS_PARTS_BYTES, most_bytes=ALWAYS_PARTS_BYTES)
        return watch


class Site:
    """What one site has to say."""

    def __init__(self, name: str, number: int, devices: int, keys: dict[str, Ed25519PublicKey]) -> None:
        self.name, self.devices, self._keys = name, devices, keys
        self._chance = np.random.default_rng(number)
        self.table = DeviceTable(devices)
        for column in ("state", "mode", "desired_mode"):
            self.table[column][:] = 1 if column == "state" else 3
        self.plans = 0
        self.uplink: BenchUplink | None = None
        self._energy_j = 10**15 + number

    def inventory(self) -> pb.Inventory:
        """Five classes, two pools."""
        kinds = [miner_class(f"class-{n}", "luxos", m, shed_s=3, wake_s=240) for n, m in enumerate(MODELS)]
        pools = [gpu_pool(n, AiPriority.GUARANTEED, 2000) for n in ("inference", "train")]
        return pb.Inventory(
            inventory_hash=HASH,
            device_count=self.devices,
            classes=[kind.to_proto() for kind in kinds],
            class_indexes=(np.arange(self.devices) % len(MODELS)).astype(np.uint8).tobytes(),
            pools=[pool.to_proto() for pool in pools],
        )

    def on_plan(self, signed: plan_pb2.SignedPlan) -> None:
        """Verified where it is signed, as an agent does."""
        plan = verify(signed, self._keys) if signed.signature else plan_pb2.Plan.FromString(signed.plan)
        assert plan.site == self.name
        self.plans += 1

    def report(self) -> pb.DeviceReport:
        """The table with new readings in every row."""
        chance, count, table = self._chance, self.devices, self.table
        table["power_w"][:] = chance.normal(3250, 60, count)
        table["hashrate_hs"][:] = chance.normal(95e12, 3e12, count)
        table["temp_c"][:] = chance.normal(68, 4, count)
        table["age_s"][:] = chance.uniform(0, 10, count)
        table["accepted_shares"][:] = chance.integers(1, 100_000, count)
        table["uptime_s"][:] = chance.integers(1, 1_000_000, count)
        return encode_report(table, HASH, CLOCK.now().unix_ms)

    def rollup(self) -> pb.SiteRollup:
        """As a site with five classes and two pools fills it."""
        now, each = CLOCK.now(), self.devices // len(MODELS)
        self._energy_j += 80_000_000
        counts = [0] * len(DeviceState)
        counts[DeviceState.HASHING.code] = each
        noise = self._chance.normal(0, 1e4, 8).tolist()
        return pb.SiteRollup(
            observed_at_unix_ms=now.unix_ms,
            metered_power_w=40e6 + noise[0],
            assumed_power_w=40e6 + noise[0],
            mining_power_w=33e6 + noise[1],
            ai_power_w=5e6 + noise[2],
            overhead_power_w=2e6,
            hashrate_hs=1.2e18 + noise[3],
            live_ceiling_w=45e6,
            site_ceiling_w=45e6,
            import_energy_j=self._energy_j,
            meter_trust="trusted",
            rung="plan",
            stage="full",
            plan_epoch=1,
            plan_version=1,
            devices_beat_s=DEVICES_S,
            classes=[
                pb.ClassRollup(
                    name=f"class-{n}",
                    state_counts=counts,
                    mode_counts=[0, 0, each, 0],
                    power_w=6.6e6 + noise[4],
                    hashrate_hs=2.4e17,
                    available=each,
                )
                for n in range(len(MODELS))
            ],
            pools=[
                pb.PoolRollup(name=n, power_w=2.5e6, limit_w=3e6, demand_w=2.5e6, gpus_present=2000)
                for n in ("inference", "train")
            ],
            energy=pb.EnergyTotals(ledger_id=bytes(16), import_j=self._energy_j, mining_j=self._energy_j),
        )

    def send(self, lane: Lane, message: pb.Inventory | pb.DeviceReport | pb.SiteRollup) -> None:
        """Into the spool."""
        assert self.uplink is not None
        self.uplink.send(lane, KIND_OF[type(message)], encode_payload(message))

    async def speak(self, offset: float) -> None:
        """Roll-ups and tables at their beats; `offset` of a beat later than the first site."""
        began_s, number = time.monotonic() + offset * ROLLUP_S, 0
        next_table_s = began_s + offset * DEVICES_S
        while True:
            await asyncio.sleep(max(0.0, began_s + number * ROLLUP_S - time.monotonic()))
            number += 1
            self.send(wire.LANE_SITE, self.rollup())
            if time.monotonic() >= next_table_s:
                next_table_s += DEVICES_S
                self.send(wire.LANE_DEVICES, self.report())

    async def flood(self, seconds: float) -> None:
        """Tables as fast as they are acknowledged, a few under way."""
        until_s = time.monotonic() + seconds
        assert self.uplink is not None
        while time.monotonic() < until_s:
            if self.uplink.tables_under_way() < UNDER_WAY:
                self.send(wire.LANE_DEVICES, self.report())
            await asyncio.sleep(0.002)


class Ends:
    """All sites' ends."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.place, self.ports = Path(asked["place"]), asked["ports"]
        keys = {}
        for path in sorted((self.place / "planner").glob("*.pub")):
            key = load_pem_public_key(path.read_bytes())
            assert isinstance(key, Ed25519PublicKey)
            keys["bench"] = keys[path.stem] = key
        self.ca_pem = (self.place / "ca.crt").read_bytes()
        self.sites = [Site(name, n, asked["devices"], keys) for n, name in enumerate(asked["sites"])]
        self._dials = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: list[asyncio.Task[None]] = []
        self.idle_welcomed = 0

    def target(self, name: str, how: str) -> UplinkTarget:
        """Address and identity."""
        place = self.place / "sites" / name
        own = KeyPair((place / "site.key").read_bytes(), (place / "site.crt").read_bytes())
        port = self.ports["plain" if how == "plain" else "tls"]
        return UplinkTarget(f"localhost:{port}", client_credentials(self.ca_pem, own), name)

    async def dial(self, how: str) -> None:
        """Every site connected; nothing is sent but heartbeats and, where it is asked for, the inventory."""
        self._dials += 1
        for site in self.sites:
            spool = self.place / "spools" / f"{self._dials}-{site.name}" / "spool.sqlite"
            spool.parent.mkdir(parents=True)
            site.uplink = BenchUplink(
                self.target(site.name, how),
                spool,
                CLOCK,
                on_plan=site.on_plan,
                on_heartbeat=lambda _beat: None,
                hello=lambda name=site.name: wire.Hello(site=name, inventory_hash=HASH),  # type: ignore[misc]
                on_link=lambda _up, _why: None,
                inventory_wanted=lambda site=site: site.send(wire.LANE_EVENTS, site.inventory()),  # type: ignore[misc]
            )
            site.uplink.how = how
            self._tasks.append(asyncio.create_task(site.uplink.run()))
        async with asyncio.timeout(60):
            while not all(s.uplink is not None and s.uplink.state.connected for s in self.sites):
                await asyncio.sleep(0.02)

    def go(self) -> None:
        """Begin to report."""
        count = len(self.sites)
        self._tasks += [asyncio.create_task(site.speak(n / count)) for n, site in enumerate(self.sites)]

    async def flood(self, sites: int, seconds: float) -> None:
        """Some sites send as fast as they can."""
        await asyncio.gather(*(site.flood(seconds) for site in self.sites[:sites]))

    async def hang_up(self) -> None:
        """Every session ended."""
        for task in (*self._tasks, *self._idle):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._idle, return_exceptions=True)
        self._tasks.clear()
        self._idle.clear()

    async def idle(self, names: list[str]) -> None:
        """Sessions that say hello and keep their heartbeat, and nothing else."""
        self.idle_welcomed = 0
        self._idle = [asyncio.create_task(self._keep_idle(name)) for name in names]
        async with asyncio.timeout(120):
            while self.idle_welcomed < len(names):
                await asyncio.sleep(0.05)

    async def _keep_idle(self, name: str) -> None:
        target = self.target(name, "tls")
        async with grpc.aio.secure_channel(target.address, target.credentials, options=list(CLIENT_OPTIONS)) as channel:
            stream = session_pb2_grpc.SessionServiceStub(channel).Session()
            await stream.write(
                wire.SessionRequest(hello=wire.Hello(site=name, boot_id=name.encode().ljust(16)[:16], instance_id=b"i"))
            )
            await stream.read()
            self.idle_welcomed += 1
            while True:
                await asyncio.sleep(ROLLUP_S)
                beat = wire.Heartbeat(monotonic_ms=round(time.monotonic() * 1000))
                await stream.write(wire.SessionRequest(heartbeat=beat))

    def figures(self) -> dict[str, int]:
        """Over all sites since the last dial."""
        states = [s.uplink.state for s in self.sites if s.uplink is not None]
        return {
            "connected": sum(state.connected for state in states),
            "sessions": sum(state.sessions_total for state in states),
            "acked": sum(state.records_acked_total for state in states),
            "plans": sum(site.plans for site in self.sites),
        }

    async def obey(self, line: dict[str, Any]) -> None:
        """One line from the parent; answered when it is done."""
        match line["op"]:
            case "dial":
                await self.dial(line["how"])
            case "go":
                self.go()
            case "flood":
                await self.flood(line["sites"], line["seconds"])
            case "idle":
                await self.idle(line["names"])
            case "hang_up":
                await self.hang_up()
        say("done", op=line["op"], **self.figures())


async def serve(asked: dict[str, Any]) -> None:
    """Obey until standard input closes."""
    observability.configure("json", level="error", stream=io.StringIO())
    ends = Ends(asked)
    orders: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def work() -> None:
        while True:
            await ends.obey(await orders.get())

    working = asyncio.create_task(work())
    working.add_done_callback(lambda task: sys.exit(1) if not task.cancelled() and task.exception() else None)
    say("up")
    try:
        await hear(orders.put_nowait)
    finally:
        working.cancel()
        await ends.hang_up()


def main() -> None:
    """`link_sites.py JSON`."""
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
