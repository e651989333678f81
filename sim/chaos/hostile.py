"""Absurd numbers from an enrolled site, one field at a time; garbage, bombs and torn records over the same session."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from agent.uplink.reports import event, inventory_message
from gridpivot.clock import SystemClock
from gridpivot.columns import COLUMNS, DeviceTable, encode_report
from gridpivot.link.codec import MAX_RECORD_BYTES, encode_payload
from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import EventKind
from sim.chaos.absurd import Case, cases
from sim.chaos.besieged import Siege, besieged
from sim.chaos.intruder import LANE_OF, Session, hello_of, session
from sim.chaos.outcome import Outcome
from sim.chaos.rig import Site
from sim.fleet import inventory_of

HUGE_BYTES = 200 * 10**6
LOOKS_A_PLAN = 20


class Intrusion:
    """The enrolled site that sends what it likes; a session that is ended is opened again."""

    def __init__(self, siege: Siege, inventory: pb.Inventory, rollup: pb.SiteRollup) -> None:
        self.siege, self.rig, self.inventory, self.rollup = siege, siege.rig, inventory, rollup
        self.pair = self.rig.pair(siege.victim)
        self.sent = self._looks = 0
        self.words: dict[str, int] = {}  # how the controller answered, by word
        self.notes: list[str] = []

    def open(self, hello: wire.Hello | None = None) -> Any:
        """A session as the victim's name."""
        return session(self.rig.session_port, self.rig.ca_pem, self.pair, hello or hello_of(self.siege.victim))

    def heard(self, word: str, what: str) -> None:
        """Count an answer; one that is neither acknowledgement nor goaway is a finding."""
        self.sent += 1
        self.words[word.split(":")[0]] = self.words.get(word.split(":")[0], 0) + 1
        if ":" in word or word == "closed":
            self.notes.append(f"{what}: {word}")

    async def records(self, messages: Iterator[tuple[str, Any, bytes]], at_once: int) -> None:
        """Send records, so many before their answers are awaited; then look as an operator would, and plan now and then."""
        left = list(messages)
        while left:
            async with self.open() as stream:
                while left and not stream.ended:
                    chunk, left = left[:at_once], left[at_once:]
                    numbers = [(what, await stream.put(message, payload)) for what, message, payload in chunk]
                    for what, number in numbers:
                        self.heard(await stream.settled(*number), what)
                    await self.rig.call("ListSites", op.ListSitesRequest())
                    await asyncio.to_thread(self.rig.metric, "gridpivot_sites")
                    self._looks += 1
                    if self._looks % LOOKS_A_PLAN == 0:
                        await self.siege.planned_anew()

    def saw(self) -> str:
        """For the operator's column."""
        bad = self.rig.metric("gridpivot_records_bad_total")
        words = ", ".join(f"{word} {count}" for word, count in sorted(self.words.items()))
        return f"{self.sent} messages: {words}; gridpivot_records_bad_total {bad:.0f}"


async def intrusion(siege: Siege) -> Intrusion:
    """The intruder with the sane examples that it spoils: another site's last roll-up, its own true inventory."""
    (site,) = siege.rig.sites

    def newest() -> pb.SiteRollup:
        query = "SELECT payload FROM rollups WHERE site = ? ORDER BY seq DESC LIMIT 1"
        return pb.SiteRollup.FromString(siege.rig.read(query, site.spec.name)[0][0])

    inventory = inventory_message(inventory_of(siege.rig.specs[1]))
    return Intrusion(siege, inventory, await asyncio.to_thread(newest))


async def absurd_numbers(place: Path, short: bool) -> Outcome:
    """Every numeric field that an agent may send, NaN to 2^63, against the controller; it goes on planning."""
    async with besieged(place) as siege:
        mine = await intrusion(siege)
        await _hellos(mine)
        await _envelopes(mine)
        await mine.records(_records(mine, siege.rig.sites[0]), at_once=16 if short else 1)
        return await siege.outcome("absurd_numbers", await asyncio.to_thread(mine.saw), notes=mine.notes)


async def _hellos(mine: Intrusion) -> None:
    for case in cases(hello_of(mine.siege.victim)):
        case.message.boot_id = os.urandom(16)
        async with mine.open(case.message) as stream:
            mine.heard(
                "acked" if stream.welcomed else stream.goaway or stream.broken, f"hello.{case.field} {case.value}"
            )


async def _envelopes(mine: Intrusion) -> None:
    """Batches, their records' own fields, heartbeats."""
    record = wire.LaneRecord(seq=1, kind=wire.RECORD_KIND_SITE_ROLLUP, payload=encode_payload(mine.rollup))
    batch = wire.LaneBatch(lane=wire.LANE_SITE, records=[record])
    spoilt = [wire.SessionRequest(batch=case.message) for case in cases(batch)]
    spoilt += [wire.SessionRequest(heartbeat=case.message) for case in cases(wire.Heartbeat())]
    for request in spoilt:
        async with mine.open() as stream:
            await stream.send(request)
            # A good record behind it: answered, or the session was ended with a word.
            mine.heard(await stream.settled(*await _good(stream, mine)), str(request)[:80])


async def _good(stream: Session, mine: Intrusion) -> tuple[int, int]:
    return await stream.put(pb.SiteEvent(), encode_payload(event(EventKind.LINK_RESTORED, "x", SystemClock().now())))


def _records(mine: Intrusion, site: Site) -> Iterator[tuple[str, Any, bytes]]:
    """Inventories, then roll-ups and tables of the sane one, then events."""
    status = pb.PlanStatus(epoch=1, version=1, status="applied")
    said = event(EventKind.PLAN_STATUS, "chaos", SystemClock().now(), {"power_w": 1.0}, status)
    for case in cases(mine.inventory):
        case.message.inventory_hash = os.urandom(32)  # each is news
        yield _named(case)
        yield _fresh(mine)
    yield "inventory", mine.inventory, encode_payload(mine.inventory)
    for rollup in cases(mine.rollup):
        if rollup.field != "observed_at_unix_ms":
            rollup.message.observed_at_unix_ms = round(time.time() * 1000)
        yield _named(rollup)
    table = encode_report(DeviceTable(site.spec.devices), mine.inventory.inventory_hash, round(time.time() * 1000))
    for report in cases(table):
        yield _named(report)
    for column in COLUMNS:
        for fill in (b"\xff", b"\x80", b"\x7f"):
            spoilt = pb.DeviceReport.FromString(table.SerializeToString())
            spoilt.columns[column.number - 1].values = fill * len(spoilt.columns[column.number - 1].values)
            spoilt.observed_at_unix_ms = round(time.time() * 1000)
            yield f"column {column.name} {fill!r}", spoilt, encode_payload(spoilt)
    for spoken in cases(said):
        yield _named(spoken)
    yield _fresh(mine)


def _named(case: Case[Any]) -> tuple[str, Any, bytes]:
    what = f"{type(case.message).__name__}.{case.field} {case.value}"
    return what, case.message, encode_payload(case.message)


def _fresh(mine: Intrusion) -> tuple[str, Any, bytes]:
    """A sane roll-up of now, so that the planner takes the site into account."""
    mine.rollup.observed_at_unix_ms = round(time.time() * 1000)
    return "rollup", mine.rollup, encode_payload(mine.rollup)


async def garbage(place: Path, short: bool) -> Outcome:
    """Random bytes, bombs, torn records and 200 MB at once over an enrolled site's session."""
    async with besieged(place) as siege:
        mine = await intrusion(siege)
        await mine.records(_random(40 if short else 400), at_once=20)
        await mine.records(_bombs(), at_once=20)
        for lane, kind, payload in _floods():
            async with mine.open() as stream:
                records = [wire.LaneRecord(seq=n + 1, kind=kind, payload=payload) for n in range(40 if short else 120)]
                await stream.send(wire.SessionRequest(batch=wire.LaneBatch(lane=lane, records=records)))
                mine.heard(await stream.settled(lane, len(records)), f"{len(records)} bombs of kind {kind} at once")
        for parts in _torn():
            async with mine.open() as stream:
                await stream.send(wire.SessionRequest(batch=wire.LaneBatch(lane=wire.LANE_SITE, records=parts)))
                mine.heard(
                    await stream.settled(*await _good(stream, mine)), f"parts {[(p.part, p.parts) for p in parts]}"
                )
        async with mine.open() as stream:
            record = wire.LaneRecord(seq=1, kind=wire.RECORD_KIND_SITE_EVENT, payload=bytes(HUGE_BYTES))
            await stream.send(wire.SessionRequest(batch=wire.LaneBatch(lane=wire.LANE_EVENTS, records=[record])))
            word = await stream.settled(wire.LANE_EVENTS, 1)
            mine.heard("too large" if word.startswith("RESOURCE_EXHAUSTED") else word, "200 MB")
        return await siege.outcome("garbage", await asyncio.to_thread(mine.saw), notes=mine.notes)


def _random(count: int) -> Iterator[tuple[str, Any, bytes]]:
    for number in range(count):
        for kind in LANE_OF:
            raw = os.urandom(1 + number * 37 % 4096)
            yield f"random {kind.__name__}", kind(), raw
            yield f"random {kind.__name__} in zstd", kind(), zstandard.compress(raw)


def _bombs() -> Iterator[tuple[str, Any, bytes]]:
    """More than may come out: said openly, left unsaid, understated."""
    zeros = bytes(64 * 2**20)
    whole = zstandard.compress(zeros)
    unsaid = zstandard.ZstdCompressor(write_content_size=False).compress(zeros)
    small = zstandard.compress(bytes(1000))
    for kind in LANE_OF:
        for name, payload in (("bomb", whole), ("bomb of unknown size", unsaid), ("empty", b""), ("cut", small[:-3])):
            yield f"{name} as {kind.__name__}", kind(), payload
        yield f"two frames as {kind.__name__}", kind(), small + whole


def _floods() -> Iterator[tuple[wire.Lane.ValueType, wire.RecordKind.ValueType, bytes]]:
    """Each record is within the limit when unpacked and a thousandth of it on the wire."""
    text = "a" * (MAX_RECORD_BYTES - 4096)
    yield wire.LANE_EVENTS, wire.RECORD_KIND_SITE_EVENT, encode_payload(pb.SiteEvent(kind="note", message=text))
    yield wire.LANE_SITE, wire.RECORD_KIND_SITE_ROLLUP, encode_payload(pb.SiteRollup(rung=text))
    yield (
        wire.LANE_DEVICES,
        wire.RECORD_KIND_DEVICE_REPORT,
        encode_payload(pb.DeviceReport(columns=[pb.Column(number=1, values=text.encode())])),
    )
    yield (
        wire.LANE_EVENTS,
        wire.RECORD_KIND_INVENTORY,
        encode_payload(pb.Inventory(inventory_hash=b"x", mac_addresses=text.encode())),
    )


def _torn() -> Iterator[list[wire.LaneRecord]]:
    """Parts that contradict each other, or promise what never comes."""
    for pairs in (
        [(1, 2)],
        [(0, 2), (0, 2), (0, 3)],
        [(0, 3), (2, 3)],
        [(0, 2), (1, 3)],
        [(5, 2)],
        [(0, 2**32 - 1)],
        [(1, 0)],
        [(0, 2), (1, 2), (2, 2)],
    ):
        yield [
            wire.LaneRecord(seq=1, kind=wire.RECORD_KIND_SITE_ROLLUP, payload=b"x" * 10, part=part, parts=parts)
            for part, parts in pairs
        ]
    # Eight lanes' worth of unfinished megabytes under one number.
    yield [
        wire.LaneRecord(seq=1, kind=wire.RECORD_KIND_SITE_ROLLUP, payload=bytes(700_000), part=part, parts=60_000)
        for part in range(10)
    ]


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {
    "absurd_numbers": absurd_numbers,
    "garbage": garbage,
}
