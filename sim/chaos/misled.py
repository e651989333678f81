"""A controller that says absurd things, properly signed: every numeric field of its messages against a complete agent."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.uplink.session import LONGEST_PAUSE_S
from gridpivot.link.credentials import SERVER_OPTIONS, KeyPair, session_server_credentials
from gridpivot.plan import key_id, sign
from gridpivot.v1 import plan_pb2, session_pb2_grpc
from gridpivot.v1 import session_pb2 as wire
from sim.chaos.absurd import cases
from sim.chaos.outcome import Outcome
from sim.chaos.rig import Rig, Site, until

BACK_S = 20.0
LAST = ("epoch", "version")  # a fence that is set highest of all lets nothing follow it


class Liar(session_pb2_grpc.SessionServiceServicer):
    """Welcomes whoever comes with `welcome`, then says what is put into `out`; None ends the stream."""

    def __init__(self) -> None:
        self.welcome = wire.Welcome(heartbeat_ms=500, dead_after_ms=5_000, window_bytes=2**20)
        self.out: asyncio.Queue[wire.SessionResponse | None] = asyncio.Queue()
        self.streams = 0

    async def Session(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        """One session."""
        await context.read()
        self.out = asyncio.Queue()
        self.streams += 1
        await context.write(wire.SessionResponse(welcome=self.welcome))
        hearing = asyncio.create_task(self._hear(context))
        try:
            while (response := await self._next()) is not None:
                await context.write(response)
        finally:
            hearing.cancel()

    async def _next(self) -> wire.SessionResponse | None:
        try:
            async with asyncio.timeout(0.5):
                return await self.out.get()
        except TimeoutError:
            return wire.SessionResponse(heartbeat=wire.Heartbeat())

    async def _hear(self, context: Any) -> None:
        while await context.read() is not grpc.aio.EOF:
            pass


class Misled:
    """The agent under test beside the liar that it believes."""

    def __init__(self, rig: Rig, site: Site, liar: Liar) -> None:
        self.rig, self.site, self.liar = rig, site, liar
        pem = (rig.place / "controller" / "planner.key").read_bytes()
        key = serialization.load_pem_private_key(pem, password=None)
        assert isinstance(key, Ed25519PrivateKey)
        self._key, self._name = key, key_id(key.public_key().public_bytes_raw())
        self._marks: set[int] = set()
        self._mark = 10**9
        uplink = site.agent.uplink
        assert uplink is not None
        beaten = uplink._on_heartbeat

        def noted(beat: wire.Heartbeat) -> None:
            self._marks.add(beat.monotonic_ms)
            beaten(beat)

        uplink._on_heartbeat = noted

    def plan(self, version: int) -> plan_pb2.Plan:
        """A sane plan of now."""
        spec, inventory, now_ms = self.site.spec, self.site.world.inventory, round(time.time() * 1000)
        half_w = 0.5 * spec.ceiling_w
        classes = [
            plan_pb2.ClassTarget(name=c.name, normal_machines=1e6, value_usd_per_mwh=50.0) for c in inventory.classes
        ]
        pools = [plan_pb2.PoolTarget(name=p.name, max_w=p.max_w, fallback_w=p.min_w) for p in inventory.pools]
        fallback = plan_pb2.Fallback(posture="hold", ceiling_w=half_w)
        far = plan_pb2.EventWindow(event_id="e", ceiling_w=half_w, starts_at_unix_ms=now_ms + 10**7)
        return plan_pb2.Plan(
            site=spec.name,
            epoch=1,
            version=version,
            issued_at_unix_ms=now_ms,
            valid_for_ms=20_000,
            ceiling_w=half_w,
            classes=classes,
            pools=pools,
            fallback=fallback,
            events=[far],
        )

    def signed(self, plan: plan_pb2.Plan) -> wire.SessionResponse:
        """As the planner would sign it."""
        return wire.SessionResponse(plan=sign(plan, self._key, self._name))

    async def says(self, response: wire.SessionResponse | None, what: str) -> list[str]:
        """Let the liar say it; what is wrong with the agent afterwards."""
        self._mark += 1
        mark, streams = self._mark, self.liar.streams
        self.liar.out.put_nowait(response)
        if response is not None:
            self.liar.out.put_nowait(wire.SessionResponse(heartbeat=wire.Heartbeat(monotonic_ms=mark)))
        # However long a goaway asks for, an agent comes back within its own longest pause.
        back_s = BACK_S + (LONGEST_PAUSE_S if "retry_after" in what else 0.0)
        await until(lambda: mark in self._marks or self.liar.streams > streams, back_s, f"the agent after {what}")
        return [f"{what}: {wrong}" for wrong in self.wrong()]

    def wrong(self) -> list[str]:
        """What no agent may come to believe or do."""
        agent, found = self.site.agent, []
        if self.site._tasks[1].done():
            return [f"the agent ended: {self.site._tasks[1].exception()!r}"]
        orders = agent.book.orders(self.site.clock.now())
        if not (math.isfinite(orders.ceiling_w) and 0.0 <= orders.ceiling_w <= self.site.spec.ceiling_w):
            found.append(f"ceiling {orders.ceiling_w}")
        if orders.class_modes is not None and not np.isfinite(orders.class_modes).all():
            found.append("machine counts that are no numbers")
        if not all(limit is None or 0.0 <= limit < math.inf for limit in orders.pool_max_w):
            found.append(f"pool limits {orders.pool_max_w}")
        return found


@contextlib.asynccontextmanager
async def misled(place: Path) -> AsyncIterator[Misled]:
    """A complete agent with physics, and the liar with the rig's own certificate and keys."""
    rig, liar = Rig(place, sites=1), Liar()
    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    session_pb2_grpc.add_SessionServiceServicer_to_server(liar, server)
    tls = place / "controller" / "tls"
    own = KeyPair((tls / "server.key").read_bytes(), (tls / "server.crt").read_bytes())
    port = server.add_secure_port("127.0.0.1:0", session_server_credentials(rig.ca_pem, own))
    await server.start()
    rig.sites = [Site(rig, rig.specs[0])]
    try:
        await rig.sites[0].start(address=f"127.0.0.1:{port}")
        await until(lambda: rig.sites[0].connected, BACK_S, "the agent connected")
        yield Misled(rig, rig.sites[0], liar)
    finally:
        await rig.stop()
        await server.stop(1.0)


async def absurd_controller(place: Path, short: bool) -> Outcome:
    """Plans, heartbeats, acknowledgements, welcomes with absurd numbers: the agent stays under its own ceiling."""
    async with misled(place) as against:
        notes: list[str] = []
        said = 0
        plans = list(cases(against.plan(1)))
        for version, case in enumerate(sorted(plans, key=lambda c: c.field in LAST), 1):
            fresh = against.plan(version)
            if case.field not in LAST:
                case.message.version = version
                case.message.issued_at_unix_ms = (
                    case.message.issued_at_unix_ms if "issued" in case.field else fresh.issued_at_unix_ms
                )
            notes += await against.says(against.signed(case.message), f"plan.{case.field} {case.value}")
            said += 1
        example = wire.SessionResponse(acks=wire.LaneAcks(), heartbeat=wire.Heartbeat())
        for told in cases(example):
            kind = told.field.partition(".")[0]
            if kind in ("acks", "heartbeat", "goaway") and not (
                told.field == "goaway.retry_after_ms" and short and told.value
            ):
                notes += await against.says(told.message, f"{told.field} {told.value}")
                said += 1
        for welcome in cases(against.liar.welcome):
            if welcome.field.startswith("plan") or (
                short and welcome.value not in (0, -(2**63), 2**63 - 1, 2**64 - 1, 2**32 - 1)
            ):
                continue
            against.liar.welcome = welcome.message
            notes += await against.says(None, f"welcome.{welcome.field} {welcome.value}")
            said += 1
        (site,) = against.rig.sites
        notes += against.wrong()
        await until(lambda: site.connected, BACK_S, "the agent connected")
        excess_pct = against.rig.excess_pct()
        states = sorted({word for word in site.said if "plan" in word or "fault" in word or "degraded" in word})
        saw = f"{said} messages; said at the site: {', '.join(states)}; plan_status rejected with unit, version, ..."
        return Outcome(
            "absurd_controller",
            ok=not notes,
            saw=saw,
            how="agent in process, gRPC server of the test",
            ceiling_excess_pct=excess_pct,
            protection_reached=against.rig.protection_reached(),
            note="; ".join(notes)[:1500],
        )


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {"absurd_controller": absurd_controller}
