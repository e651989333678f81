"""What changed between the inventory and what stands on the network. Pure: rows and findings in, events and moves out.

Devices are their MACs: a new lease moves nothing but the endpoint. A device counts as lost after two looks without it,
as swapped when another one answers where it stood and it is nowhere else. Each thing is said once, and again only
after it had mended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.asic.probing import Finding
from agent.asic.transport import Endpoint
from gridpivot.vocabulary import EventKind

LOST_AFTER_LOOKS = 2


@dataclass(frozen=True, slots=True)
class Placed:
    """One row of the inventory now: who it is, where it is asked, whether it answers there, whether it was looked for.

    `answers`: the poller has a believed reading; such a device is where it should be. `in_range`: the look covered
    its address, without which its absence means nothing. `mac` in lower case, empty = the inventory does not say.
    """

    mac: str
    endpoint: Endpoint
    answers: bool
    in_range: bool = True


@dataclass(frozen=True, slots=True)
class Said:
    """One event: kind, sentence for a person, and how many devices it is about."""

    kind: EventKind
    message: str
    devices: int = 1


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look means: events in the order of what matters, and new endpoints by row."""

    events: tuple[Said, ...] = ()
    moves: tuple[tuple[int, Endpoint], ...] = ()


@dataclass(slots=True)
class Known:
    """What earlier looks have said. Owned by whoever calls `compare`."""

    found: set[str] = field(default_factory=set)  # MACs or hosts
    lost: set[int] = field(default_factory=set)
    missed: dict[int, int] = field(default_factory=dict)
    swapped: dict[int, str] = field(default_factory=dict)


def compare(rows: Sequence[Placed], findings: Sequence[Finding], known: Known) -> Changes:
    """Changes against the inventory; `known` is brought up to date."""
    by_mac: dict[str, list[Finding]] = {}
    by_host = {found.host: found for found in findings}
    for found in findings:
        if found.mac and found.family:
            by_mac.setdefault(found.mac, []).append(found)
    row_of_mac = {row.mac: number for number, row in enumerate(rows) if row.mac}
    moves: list[tuple[int, Endpoint]] = []
    events: list[Said] = []
    missing: list[int] = []
    taken: set[str] = set()
    for number, row in enumerate(rows):
        here, there = by_host.get(row.endpoint.host), by_mac.get(row.mac, []) if row.mac else []
        at_home = row.answers or any(found.host == row.endpoint.host for found in there)
        at_home = at_home or (here is not None and bool(here.family) and (not row.mac or here.mac is None))
        if at_home:
            known.lost.discard(number)
            known.missed.pop(number, None)
            known.swapped.pop(number, None)
            taken.add(row.endpoint.host)
        elif len(there) == 1:
            endpoint = _endpoint_at(there[0].host, row.endpoint)
            moves.append((number, endpoint))
            known.lost.discard(number)
            known.missed.pop(number, None)
            known.swapped.pop(number, None)
            taken.add(endpoint.host)
            events.append(
                Said(EventKind.DEVICE_MOVED, f"device {row.mac} moved from {row.endpoint.host} to {endpoint.host}")
            )
        elif not there:  # two answers with one MAC are no address to follow
            missing.append(number)
    for number in missing:
        row, here = rows[number], by_host.get(rows[number].endpoint.host)
        if here is not None and here.family and here.mac and here.mac not in row_of_mac:
            taken.add(here.host)
            known.found.add(here.mac)  # said here, as what it is
            if known.swapped.get(number) != here.mac:
                known.swapped[number] = here.mac
                told = f"device {row.mac} at {here.host} was swapped: {_named(here)} answers there"
                events.append(Said(EventKind.DEVICE_SWAPPED, told))
        elif row.in_range:
            known.missed[number] = known.missed.get(number, 0) + 1
            if known.missed[number] == LOST_AFTER_LOOKS and number not in known.lost:
                known.lost.add(number)
                told = f"device {row.mac or row.endpoint.host} is lost: last asked at {row.endpoint.host}"
                events.append(Said(EventKind.DEVICE_LOST, told))
    for found in findings:
        key = found.mac or found.host
        ours = found.mac in row_of_mac if found.mac else found.host in taken
        if found.family and not ours and found.host not in taken and key not in known.found:
            known.found.add(key)
            events.append(
                Said(EventKind.DEVICE_FOUND, f"{_named(found)} at {found.host} is not in the inventory; run discover")
            )
    return Changes(tuple(events), tuple(moves))


def _endpoint_at(host: str, before: Endpoint) -> Endpoint:
    """The same ports at another address: they are the firmware's, not the lease's."""
    return Endpoint(host, before.api_port, before.http_port, before.aux_port)


def _named(found: Finding) -> str:
    return f"{found.model or found.family} {found.mac or 'of unknown MAC'}"
