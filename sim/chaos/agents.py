"""Faults on the site's side of the wire: a controller that never acknowledges, plans that must not be followed, two agents
with one identity, messages lost and doubled, clocks that step, a disk that is full.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridpivot.link.credentials import KeyPair, session_server_credentials
from gridpivot.plan import key_id, sign
from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import plan_pb2, session_pb2_grpc
from gridpivot.v1 import session_pb2 as wire
from sim import staging
from sim.chaos.crash import accounts
from sim.chaos.outcome import Outcome
from sim.chaos.rig import Rig, Site, free_port, standing, until
from sim.children import Child, wait_for_log


class FakeController(session_pb2_grpc.SessionServiceServicer):
    """Welcomes, sends heartbeats and whatever plans it is told to; never acknowledges anything."""

    def __init__(self) -> None:
        self.plans: asyncio.Queue[plan_pb2.SignedPlan] = asyncio.Queue()
        self.records = 0
        self.named = (0, 0)

    async def Session(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        """One session."""
        await context.read()
        now_ms = round(time.time() * 1000)
        welcome = wire.Welcome(
            heartbeat_ms=500, dead_after_ms=5_000, window_bytes=256 * 1024, wall_clock_unix_ms=now_ms
        )
        await context.write(wire.SessionResponse(welcome=welcome))
        reading = asyncio.create_task(self._read(context))
        try:
            while not reading.done():
                while not self.plans.empty():
                    await context.write(wire.SessionResponse(plan=self.plans.get_nowait()))
                beat = wire.Heartbeat(plan_epoch=self.named[0], plan_version=self.named[1])
                await context.write(wire.SessionResponse(heartbeat=beat))
                await asyncio.wait((reading,), timeout=0.5)
        finally:
            reading.cancel()

    async def _read(self, context: Any) -> None:
        while isinstance(request := await context.read(), wire.SessionRequest):
            self.records += len(request.batch.records)


async def _fake(rig: Rig) -> tuple[FakeController, grpc.aio.Server, int]:
    """A fake controller with the rig's server certificate."""
    tls = rig.place / "controller" / "tls"
    own = KeyPair((tls / "server.key").read_bytes(), (tls / "server.crt").read_bytes())
    fake, server = FakeController(), grpc.aio.server()
    session_pb2_grpc.add_SessionServiceServicer_to_server(fake, server)
    port = server.add_secure_port("127.0.0.1:0", session_server_credentials(rig.ca_pem, own))
    await server.start()
    return fake, server, port


def _planner(rig: Rig) -> Ed25519PrivateKey:
    pem = (rig.place / "controller" / "planner.key").read_bytes()
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


async def never_acks(place: Path, short: bool) -> Outcome:
    """A controller that takes everything and acknowledges nothing: the agent's window closes, its spool grows, it governs on."""
    rig = Rig(place)
    fake, server, port = await _fake(rig)
    site = Site(rig, rig.specs[0])
    rig.sites = [site]
    try:
        await site.start(address=f"127.0.0.1:{port}")
        await until(lambda: site.connected, 20.0, "session with the fake")
        process, began_mb = psutil.Process(), psutil.Process().memory_info().rss / 1e6
        now = site.clock.now()
        for _ in range(3_000 if short else 20_000):
            site.agent._send_rollup(now)
        ticks = site.agent.counters.ticks_total
        await asyncio.sleep(10.0 if short else 60.0)
        assert site.agent.uplink is not None
        waiting, sent = site.agent.uplink.waiting(), fake.records
        grown_mb = process.memory_info().rss / 1e6 - began_mb
        governed = site.agent.counters.ticks_total - ticks >= 8
        bounded = site.agent.uplink.outbox.in_flight_bytes <= 256 * 1024 + 64 * 1024
        note = "" if governed and bounded and not site.acked else "not bounded, or the governor stood still"
        saw = f"gridpivot_spool_records {waiting}; {sent} records under way and no more"
        return Outcome("never_acks", not note, saw, "fake controller", memory_growth_mb=max(0.0, grown_mb), note=note)
    finally:
        await site.stop()
        await server.stop(0.5)


async def wrong_plans(place: Path, short: bool) -> Outcome:
    """An old plan replayed, one for another site, one signed by a stranger: refused, said, and the last good one stays."""
    rig = Rig(place)
    fake, server, port = await _fake(rig)
    site = Site(rig, rig.specs[0])
    rig.sites = [site]
    key = _planner(rig)
    name = key_id(key.public_key().public_bytes_raw())

    def plan(version: int, site_name: str = "site-0", ceiling_w: float = 5e5) -> plan_pb2.Plan:
        fallback = plan_pb2.Fallback(posture="hold", ceiling_w=ceiling_w)
        return plan_pb2.Plan(
            site=site_name,
            epoch=3,
            version=version,
            valid_for_ms=60_000,
            ceiling_w=ceiling_w,
            fallback=fallback,
            issued_at_unix_ms=round(time.time() * 1000),
        )

    try:
        await site.start(address=f"127.0.0.1:{port}")
        await until(lambda: site.connected, 20.0, "session with the fake")
        good = sign(plan(5), key, name)
        await fake.plans.put(good)
        await until(lambda: site.agent.book.highest == (3, 5), 10.0, "the good plan")
        stranger = Ed25519PrivateKey.generate()
        wrong = [
            sign(plan(4, ceiling_w=7e5), key, name),
            sign(plan(9, "site-7", 7e5), key, name),
            sign(plan(9, ceiling_w=7e5), stranger, name),
            sign(plan(9, ceiling_w=float("nan")), key, name),
        ]
        before = site.said.count("plan_status")
        for one in wrong:
            await fake.plans.put(one)
        await until(lambda: site.said.count("plan_status") >= before + len(wrong), 15.0, "every refusal said")
        kept = site.agent.book.highest == (3, 5) and site.agent.book.orders(site.clock.now()).ceiling_w == 5e5
        saw = f"{len(wrong)} plan_status rejected: version, identity, signature, unit"
        return Outcome("wrong_plans", kept, saw, "fake controller", note="" if kept else "the good plan did not stay")
    finally:
        await site.stop()
        await server.stop(0.5)


async def two_agents(place: Path, short: bool) -> Outcome:
    """A second agent with the same identity: refused and told why, the first undisturbed; after the first ends it gets in."""
    async with standing(place, sites=1) as rig:
        (first,) = rig.sites
        second = Site(rig, first.spec)
        assert first.agent.uplink is not None
        sessions = first.agent.uplink.state.sessions_total
        rig_agents = rig.place / "agents"
        first_dir = rig_agents / first.spec.name
        twin_dir = rig_agents / "twin"
        twin_dir.mkdir()
        second.state_name = "twin"
        await second.start()
        try:
            assert second.agent.uplink is not None
            uplink = second.agent.uplink
            await until(lambda: "duplicate_site" in uplink.state.last_error, 20.0, "the second is refused")
            await asyncio.sleep(6.0)
            undisturbed = first.connected and first.agent.uplink.state.sessions_total == sessions
            await rig.drained()
            outcome = await accounts(rig, "two_agents", "goaway duplicate_site on both sides")
            await first.stop()
            back_s = await until(lambda: second.connected, 40.0, "the second gets in")
            note = "" if undisturbed and first_dir.exists() else "the first was disturbed"
            return Outcome(
                outcome.scenario,
                not note,
                outcome.saw,
                outcome.how,
                acked_lost=outcome.acked_lost,
                ledger_gap_j=outcome.ledger_gap_j,
                recovery_s=back_s,
                note=note,
            )
        finally:
            await second.stop()


async def message_loss(place: Path, short: bool) -> Outcome:
    """Batches lost, doubled and out of order between agent and controller: the session ends or goes on, nothing is lost."""
    async with standing(place, sites=1) as rig:
        (site,) = rig.sites
        assert site.agent.uplink is not None
        uplink, put = site.agent.uplink, site.agent.uplink._put
        held: list[wire.SessionRequest] = []
        count = 0

        async def unreliable(stream: Any, request: wire.SessionRequest) -> None:
            nonlocal count
            count += request.HasField("batch")
            if request.HasField("batch") and count % 10 in (1, 4, 7):
                if count % 10 == 4:
                    held.append(request)  # comes later, out of order
                return
            await put(stream, request)
            if request.HasField("batch") and count % 10 == 9:
                await put(stream, request)
                while held:
                    await put(stream, held.pop())

        uplink._put = unreliable  # type: ignore[method-assign]
        for _ in range(3 if short else 20):
            for _ in range(20):
                site.agent._send_rollup(site.clock.now())
            await asyncio.sleep(1.0)
        uplink._put = put  # type: ignore[method-assign]
        # What was swallowed is in flight for ever on this stream: a new session sends it again.
        site.link.dark()
        await until(lambda: not site.connected, 30.0, "agent notices")
        site.link.light()
        back_s = await until(lambda: site.connected, 40.0, "agent back")
        await rig.drained()
        return await accounts(rig, "message_loss", f"{count} batches, 3 in 10 lost, 1 doubled", recovery_s=back_s)


async def site_clock_steps(place: Path, short: bool) -> Outcome:
    """The site's wall clock jumps an hour forward, an hour back, to 2038: plan, lease and a running event do not care."""
    async with standing(place, sites=1) as rig:
        (site,) = rig.sites
        now_ms = round(time.time() * 1000)
        event = op.CreateEventRequest(
            sites=[site.spec.name],
            ceiling_ratio=0.8,
            starts_at_unix_ms=now_ms,
            ends_at_unix_ms=now_ms + 26_000,
            reason="x",
        )
        created = await rig.call("CreateEvent", event)
        await until(lambda: created.event_id in site.agent.book.active_events(site.clock.now()), 20.0, "event in force")
        wrong = []
        for step_s in (3_600.0, -3_600.0, 2.2e9 - time.time()):
            site.clock.step_s = step_s
            await asyncio.sleep(4.0)
            now = site.clock.now()
            if created.event_id not in site.agent.book.active_events(now):
                wrong.append(f"the event ended at {step_s:+.0f} s")
            if not site.agent.book.leased(now) or not site.connected:
                wrong.append(f"lease or link lost at {step_s:+.0f} s")
        site.clock.step_s = 0.0
        await until(lambda: not site.agent.book.active_events(site.clock.now()), 60.0, "event over")
        await rig.drained()
        return await accounts(rig, "site_clock_steps", "nothing; reports with another time", note="; ".join(wrong))


async def agent_disk_full(place: Path, short: bool) -> Outcome:
    """A real agent whose disk takes no more: it says so, goes on, obeys what lowers, and recovers by itself."""
    async with standing(place, sites=2) as rig:
        quiet, _ = rig.sites
        name = quiet.spec.name
        await quiet.stop()
        rig.sites.remove(quiet)
        state, http = place / "real", free_port()
        staging.secret(state / "tls" / "site.key", rig.pair(name).key_pem)
        (state / "tls" / "site.crt").write_bytes(rig.pair(name).chain_pem)
        (state / "tls" / "ca.crt").write_bytes(rig.ca_pem)
        (state / "planner").symlink_to(place / "planner")
        config = place / "real.toml"
        config.write_text(
            f'site = "{name}"\nstate_dir = "{state}"\n[uplink]\naddress = "127.0.0.1:{rig.session_port}"\n'
            f"[circuit]\nceiling_mw = 1\n[http]\nport = {http}\n",
            encoding="utf-8",
        )
        child = Child("agent", place / "real.log")
        await child.start(staging.entry("agent.cli", "run", "--config", str(config)))
        try:
            await wait_for_log(child, "agent up", 20.0)
            assert child.process is not None
            process = psutil.Process(child.process.pid)
            wal = state / "spool.sqlite-wal"
            async with asyncio.timeout(30.0):
                while not wal.exists() or wal.stat().st_size < 4_096:  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.2)
            before = process.rlimit(psutil.RLIMIT_FSIZE)
            process.rlimit(psutil.RLIMIT_FSIZE, (wal.stat().st_size, before[1]))
            await _until_log(child, "spool_degraded", 1)
            alive = child.process.returncode is None
            process.rlimit(psutil.RLIMIT_FSIZE, before)
            back_s = await _until_log(child, "spool_degraded", 2)
            note = "" if alive else "the agent ended"
            return Outcome(
                "agent_disk_full", not note, "spool_degraded, twice: it refuses, it takes records again", "processes",
                recovery_s=back_s, note=note,
            )  # fmt: skip
        finally:
            await child.stop()


async def _until_log(child: Child, kind: str, times: int) -> float:
    """Until the child has said an event so often; returns how long it took [s]."""

    def said() -> int:
        lines = child.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return sum(
            line.startswith("{") and json.loads(line).get("kind") == kind for line in lines if line.endswith("}")
        )

    return await until(lambda: said() >= times, 60.0, f"{kind} said")


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {
    "never_acks": never_acks,
    "wrong_plans": wrong_plans,
    "two_agents": two_agents,
    "message_loss": message_loss,
    "site_clock_steps": site_clock_steps,
    "agent_disk_full": agent_disk_full,
}
