"""What can be wrong at the agent's end: a controller that never acknowledges, plans that are not ours, two agents with
one identity, a link that loses, doubles and reorders, a disk that is full."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gridpivot.link.credentials import SERVER_OPTIONS, KeyPair, session_server_credentials
from gridpivot.plan import key_id, sign
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import session_pb2_grpc
from sim.chaos.crash import accounts
from sim.chaos.outcome import Outcome
from sim.chaos.rig import Rig, Site, standing, until


class FakeController(session_pb2_grpc.SessionServiceServicer):
    """Welcomes, beats, and acknowledges nothing; says whatever plans it is given."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.received = 0
        self.plans: asyncio.Queue[pb.SignedPlan] = asyncio.Queue()
        self.identity = (0, 0)

    async def Session(self, requests: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802 - the protocol's
        """One session."""
        await context.read()
        welcome = wire.Welcome(
            controller_version="fake",
            heartbeat_ms=500,
            dead_after_ms=10_000,
            window_bytes=256 * 1024,
            wall_clock_unix_ms=round(time.time() * 1000),
            inventory_wanted=True,
        )
        await context.write(wire.SessionResponse(welcome=welcome))
        beats = asyncio.create_task(self._beat(context))
        try:
            while isinstance(await context.read(), wire.SessionRequest):
                self.received += 1
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)

    async def _beat(self, context: Any) -> None:
        while True:
            while not self.plans.empty():
                await context.write(wire.SessionResponse(plan=self.plans.get_nowait()))
            epoch, version = self.identity
            beat = wire.Heartbeat(monotonic_ms=round(time.monotonic() * 1000), plan_epoch=epoch, plan_version=version)
            await context.write(wire.SessionResponse(heartbeat=beat))
            await asyncio.sleep(0.5)

    async def offer(self, signed: pb.SignedPlan, site: Answering) -> list[str]:
        """Say a plan; returns what the site answered to it."""
        before = len(site.answers)
        self.plans.put_nowait(signed)
        await until(lambda: len(site.answers) > before, 15.0, "an answer to the plan")
        return site.answers[before:]


class Answering(Site):
    """A site that keeps what it says about plans."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig, rig.specs[0])
        self.answers: list[str] = []

    async def start(self, *, address: str | None = None) -> None:
        """As every site."""
        await super().start(address=address)
        say = self.agent.say

        def told(kind: Any, message: str, *more: Any, **named: Any) -> None:
            if kind.value == "plan_status":
                self.answers.append(message)
            say(kind, message, *more, **named)

        setattr(self.agent, "say", told)  # noqa: B010 - an instance's own method


@contextlib.asynccontextmanager
async def fooled(place: Path) -> AsyncIterator[tuple[Rig, FakeController, Answering]]:
    """A site whose controller is a fake with the real one's certificate."""
    rig = Rig(place)
    tls = place / "controller" / "tls"
    own = KeyPair((tls / "server.key").read_bytes(), (tls / "server.crt").read_bytes())
    fake = FakeController(rig)
    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    session_pb2_grpc.add_SessionServiceServicer_to_server(fake, server)
    server.add_secure_port(f"127.0.0.1:{rig.session_port}", session_server_credentials(rig.ca_pem, own))
    await server.start()
    site = Answering(rig)
    rig.sites = [site]
    try:
        await site.start()
        await until(lambda: site.connected, 20.0, "session with the fake controller")
        yield rig, fake, site
    finally:
        await rig.stop()
        await server.stop(0.5)


def virtual_account(rig: Rig, name: str, saw: str, note: str = "", growth_mb: float | None = None) -> Outcome:
    """The accounts where no real controller stands."""
    return Outcome(
        name,
        ok=not note,
        saw=saw,
        how="in process, fake gRPC controller",
        ledger_gap_j=rig.ledger_gap_j(),
        ceiling_excess_pct=rig.excess_pct(),
        protection_reached=rig.protection_reached(),
        memory_growth_mb=growth_mb,
        note=note,
    )


async def never_acks(place: Path, short: bool) -> Outcome:
    """The controller takes everything and acknowledges nothing: the window fills, the spool is bounded, the site is governed."""
    async with fooled(place) as (rig, fake, site):
        uplink = site.agent.uplink
        assert uplink is not None
        await until(lambda: site.agent.counters.rollups_total >= 2, 20.0, "first roll-ups")
        process = psutil.Process()
        before_mb, ticks = process.memory_info().rss / 1e6, site.agent.counters.ticks_total
        began_s, now = time.monotonic(), site.clock.now()
        for number in range(6_000 if short else 60_000):  # hours of roll-ups in seconds
            site.agent._send_rollup(now)
            if number % 200 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(5.0 if short else 30.0)
        elapsed_s = time.monotonic() - began_s
        growth_mb = process.memory_info().rss / 1e6 - before_mb
        ticked = site.agent.counters.ticks_total - ticks
        size_mb = sum(path.stat().st_size for path in (rig.place / "agents").rglob("spool.sqlite*")) / 1e6
        under_way = uplink.outbox.window_bytes
        note = ""
        if site.acked:
            note = f"{len(site.acked)} records count as acknowledged"
        elif ticked < 0.6 * elapsed_s:
            note = f"{ticked} ticks in {elapsed_s:.0f} s"
        saw = (
            f"gridpivot_spool_waiting {uplink.waiting()}; {fake.received} messages into a window of "
            f"{under_way // 1024} KiB; spool {size_mb:.1f} MB; {ticked} ticks in {elapsed_s:.0f} s"
        )
        return virtual_account(rig, "never_acks", saw, note, growth_mb)


def _planner(rig: Rig) -> Ed25519PrivateKey:
    key = load_pem_private_key((rig.place / "controller" / "planner.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def _plan(rig: Rig, site: str, epoch: int, version: int, ratio: float) -> pb.Plan:
    ceiling_w = ratio * rig.specs[0].ceiling_w
    return pb.Plan(
        site=site,
        epoch=epoch,
        version=version,
        ceiling_w=ceiling_w,
        valid_for_ms=20_000,
        issued_at_unix_ms=round(time.time() * 1000),
        fallback=pb.Fallback(posture="hold", ceiling_w=ceiling_w),
    )


async def _wrong_plan(place: Path, name: str, make: Callable[[Rig], Sequence[pb.SignedPlan]]) -> Outcome:
    """Good plans first; then each of the wrong ones must be refused, said, and leave the last good one in force."""
    async with fooled(place) as (rig, fake, site):
        key = _planner(rig)
        named = key_id(key.public_key().public_bytes_raw())
        good = [
            sign(_plan(rig, rig.specs[0].name, 5, version, ratio), key, named)
            for version, ratio in ((3, 1.0), (4, 0.8))
        ]
        for signed in good:
            await fake.offer(signed, site)
        fake.identity = (5, 4)
        await until(lambda: site.agent.book.highest == (5, 4), 10.0, "good plan")
        answers = [(await fake.offer(signed, site))[0] for signed in make(rig)]
        await asyncio.sleep(2.0)
        book, now = site.agent.book, site.clock.now()
        standing_w = book.orders(now).ceiling_w
        note = ""
        if not all("rejected" in answer for answer in answers):
            note = f"answered {answers}"
        elif book.highest != (5, 4) or not book.leased(now) or abs(standing_w - 0.8 * rig.specs[0].ceiling_w) > 1.0:
            note = f"stands on {book.highest}, {standing_w:.0f} W, lease {book.leased(now)}"
        return virtual_account(rig, name, "plan_status: " + " / ".join(answers)[:200], note)


async def old_plan(place: Path, short: bool) -> Outcome:
    """Plans from before are replayed: the last but one, one of an older epoch with a higher version."""

    def made(rig: Rig) -> list[pb.SignedPlan]:
        key = _planner(rig)
        named = key_id(key.public_key().public_bytes_raw())
        site = rig.specs[0].name
        return [sign(_plan(rig, site, 5, 3, 1.0), key, named), sign(_plan(rig, site, 4, 900, 1.0), key, named)]

    return await _wrong_plan(place, "old_plan", made)


async def foreign_plan(place: Path, short: bool) -> Outcome:
    """Signed by a stranger: under his own name, under the planner's, and a true plan with a byte changed."""

    def made(rig: Rig) -> list[pb.SignedPlan]:
        key, stranger = _planner(rig), Ed25519PrivateKey.generate()
        named = key_id(key.public_key().public_bytes_raw())
        plan = _plan(rig, rig.specs[0].name, 9, 1, 1.0)
        bent = sign(_plan(rig, rig.specs[0].name, 9, 2, 0.5), key, named)
        bent.plan = plan.SerializeToString()
        own_name = key_id(stranger.public_key().public_bytes_raw())
        return [sign(plan, stranger, own_name), sign(plan, stranger, named), bent]

    return await _wrong_plan(place, "foreign_plan", made)


async def other_site(place: Path, short: bool) -> Outcome:
    """A true plan of the true planner, for another site."""

    def made(rig: Rig) -> list[pb.SignedPlan]:
        key = _planner(rig)
        return [sign(_plan(rig, "site-77", 9, 1, 1.0), key, key_id(key.public_key().public_bytes_raw()))]

    return await _wrong_plan(place, "other_site", made)


async def two_agents(place: Path, short: bool) -> Outcome:
    """A second agent with the same identity: refused while the first lives, let in when it has gone."""
    async with standing(place, sites=1) as rig:
        (first,) = rig.sites
        assert first.agent.uplink is not None
        sessions = first.agent.uplink.state.sessions_total
        second = Site(rig, rig.specs[0])
        elsewhere = rig.place / "second"
        elsewhere.mkdir()
        agents, rig.place = rig.place, elsewhere
        try:  # the rig's place is where a site's state goes; its credentials stay where they are
            for name in ("planner", "sites"):
                (elsewhere / name).symlink_to(agents / name)
            await second.start()
        finally:
            rig.place = agents
        try:
            uplink = second.agent.uplink
            assert uplink is not None
            await until(lambda: "duplicate_site" in uplink.state.last_error, 15.0, "the second is refused")
            await asyncio.sleep(6.0 if short else 30.0)
            undisturbed = first.connected and first.agent.uplink.state.sessions_total == sessions
            refused = await asyncio.to_thread(rig.metric, "gridpivot_sessions_refused_total")
            alone = not second.connected and second.agent.book.highest == (0, 0)
            await rig.drained()
            outcome = await accounts(rig, "two_agents", "", note="")
            await first.stop()
            back_s = await until(lambda: second.connected, 30.0, "the second gets in")
        finally:
            await second.stop()
        note = "" if undisturbed and alone else f"first undisturbed {undisturbed}, second alone {alone}"
        saw = (
            f"controller log: session refused duplicate_site ({refused:g}); the agent's log says 'stop one of the two'"
        )
        return replaced(outcome, saw, note, back_s)


def replaced(outcome: Outcome, saw: str, note: str, recovery_s: float) -> Outcome:
    """An outcome with what came to light after its accounts."""
    return dataclasses.replace(outcome, saw=saw, note=note, ok=not note, recovery_s=recovery_s)


async def message_loss(place: Path, short: bool) -> Outcome:
    """Of the batches 30 % vanish, as many are said twice, and neighbours change places; sessions break now and then."""
    async with standing(place, sites=1) as rig:
        (site,) = rig.sites
        uplink = site.agent.uplink
        assert uplink is not None
        put, dice = uplink._put, random.Random(7)
        held: list[tuple[Any, wire.SessionRequest]] = []
        counts = {"lost": 0, "twice": 0, "late": 0}

        async def bad(stream: Any, request: wire.SessionRequest) -> None:
            if not request.HasField("batch"):
                await put(stream, request)
                return
            fate = dice.random()
            if fate < 0.3:
                counts["lost"] += 1
                return
            if fate < 0.45:
                counts["late"] += 1
                held.append((stream, request))
                return
            for _ in range(2 if fate > 0.7 else 1):
                await put(stream, request)
            counts["twice"] += fate > 0.7
            while held:
                late_stream, late = held.pop()
                if late_stream is stream:
                    await put(stream, late)

        setattr(uplink, "_put", bad)  # noqa: B010 - an instance's own method
        for number in range(1 if short else 15):
            for _ in range(40):
                site.agent._send_rollup(site.clock.now())
            await asyncio.sleep(2.5)
            if number % 2:
                assert uplink._current is not None
                site.link.dark()
                await until(lambda: not site.connected, 30.0, "agent notices")
                site.link.light()
                await until(lambda: site.connected, 40.0, "agent back")
        setattr(uplink, "_put", put)  # noqa: B010
        began_s = time.monotonic()
        site.link.dark()  # what was lost is said again by the next session
        await until(lambda: not site.connected, 30.0, "agent notices")
        site.link.light()
        await until(lambda: site.connected, 40.0, "agent back")
        await rig.drained()
        await asyncio.sleep(1.0)
        boot = uplink.spool.opened.boot_id
        rows = rig.read("SELECT count(*), count(DISTINCT seq) FROM rollups WHERE boot_id = ?", boot)[0]
        note = "" if rows[0] == rows[1] else f"{rows[0] - rows[1]} records stored twice"
        saw = f"{counts['lost']} batches lost, {counts['twice']} doubled, {counts['late']} late; {rows[0]} roll-ups stored"
        return await accounts(rig, "message_loss", saw, recovery_s=time.monotonic() - began_s, note=note)


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {
    "never_acks": never_acks,
    "old_plan": old_plan,
    "foreign_plan": foreign_plan,
    "other_site": other_site,
    "two_agents": two_agents,
    "message_loss": message_loss,
}
