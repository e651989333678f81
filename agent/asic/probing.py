"""Look at addresses: who is there, which family speaks there, who exactly it is. I/O; `discovery` holds the values.

First a bare connect on the port that most families share, then on the others: nearly all of a range's addresses are
settled by that alone. Where something answers, the families' probes are asked in registry order, the most particular
first, and the family that recognises itself polls once. A range is paced, so that no switch drowns in ARP.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.asic.conversation import Line
from agent.asic.discovery import Finding, Ranges, parse_neighbours
from agent.asic.family import ApiRequest, Family, GrpcRequest, HttpRequest, Memory, Ports, Request
from agent.asic.keyring import Keyring
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import Reason

FIRST_PORT = Ports().api
ARP = Path("/proc/net/arp")
_SPARE_DESCRIPTORS = 128
_NOBODY = (Reason.REFUSED, Reason.SLOW)


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard to look. `knock_s`: a bare connect; `ask_s`: one request; `rate_per_s`: addresses begun, 0 = no limit;
    `deadline_s`: the whole look, 0 = none."""

    concurrency: int = 512
    knock_s: float = 1.0
    ask_s: float = 3.0
    rate_per_s: float = 1000.0
    deadline_s: float = 0.0


@dataclass(slots=True)
class Look:
    """One look at ranges, growing while it runs. `complete` is False when its deadline cut it off."""

    addresses: int
    looked_at: int = 0
    findings: list[Finding] = field(default_factory=list)
    complete: bool = True


async def look(
    ranges: Ranges,
    pace: Pace = Pace(),
    keyring: Keyring | None = None,
    seen: Callable[[Look], None] = lambda _: None,
    skip: frozenset[str] = frozenset(),
    families: Mapping[str, Family] = FAMILIES,
) -> Look:
    """Look at every address but those in `skip`; `seen` hears of each one that is done. Findings in address order.

    Without a keyring no password is ever sent.
    """
    result = Look(ranges.count)
    addresses = enumerate(host for host in ranges if host not in skip)
    result.looked_at = len([host for host in skip if host in ranges])
    loop = asyncio.get_running_loop()
    begun_s = loop.time()

    async def work() -> None:
        for number, host in addresses:
            if pace.rate_per_s:
                await asyncio.sleep(max(0.0, begun_s + number / pace.rate_per_s - loop.time()))
            found = await look_at(host, pace, keyring, families)
            if found is not None:
                result.findings.append(found)
            result.looked_at += 1
            seen(result)

    workers = min(pace.concurrency, _descriptors() - _SPARE_DESCRIPTORS)
    try:
        async with asyncio.timeout(pace.deadline_s or None), asyncio.TaskGroup() as group:
            for _ in range(max(1, min(workers, ranges.count))):
                group.create_task(work())
    except TimeoutError:
        result.complete = False
    neighbours = await asyncio.to_thread(_neighbours)
    result.findings = [
        replace(found, mac=neighbours.get(found.host)) if found.mac is None else found
        for found in sorted(result.findings, key=lambda found: socket.inet_aton(found.host))
    ]
    return result


async def look_at(
    host: str, pace: Pace, keyring: Keyring | None = None, families: Mapping[str, Family] = FAMILIES
) -> Finding | None:
    """What answers at one address; None when nothing does."""
    open_ports = await _knock(host, pace.knock_s, families)
    if not open_ports:
        return None
    family = await _recognise(host, pace.ask_s, families)
    if family is None:
        return Finding(host, open_ports=open_ports)
    keys = None if keyring is None else keyring.device(family.name)
    line = Line(family, Endpoint(host).or_else(family.ports), None, Memory(), pace.ask_s, Counter(), keys)
    known = Finding(host, family.name, open_ports=open_ports)
    try:
        reading = await line.read(slow=True, now_s=asyncio.get_running_loop().time())
    except DeviceUnreachable as error:
        return replace(known, reason=Reason(error.reason))
    except BadReply:
        return replace(known, reason=Reason.GARBLED)
    except Exception:  # a defect in one family's parser must not end the look at every other address
        return replace(known, reason=Reason.FAILED)
    return replace(
        known,
        model=reading.model,
        firmware=reading.firmware,
        mac=None if reading.mac is None else reading.mac.lower(),
        power_w=reading.power_w,
        hashrate_hs=reading.hashrate_hs,
        reason=reading.reason,
    )


async def _knock(host: str, deadline_s: float, families: Mapping[str, Family]) -> tuple[int, ...]:
    """Ports that accept a connection: the common one, else whichever of the others do."""
    if await _connects(host, FIRST_PORT, deadline_s):
        return (FIRST_PORT,)
    others = sorted(_probe_ports(families) - {FIRST_PORT})
    answers = await asyncio.gather(*(_connects(host, port, deadline_s) for port in others))
    return tuple(itertools.compress(others, answers))


async def _connects(host: str, port: int, deadline_s: float) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as door:
        door.setblocking(False)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(deadline_s):
                await asyncio.get_running_loop().sock_connect(door, (host, port))
            return True
    return False


def _probe_ports(families: Mapping[str, Family]) -> set[int]:
    return {port for family in families.values() for probe in family.probes if (port := _port(family, probe))}


def _port(family: Family, probe: Request) -> int:
    """Port that a probe goes to; 0 for what a library asks by itself."""
    if isinstance(probe, (ApiRequest, HttpRequest, GrpcRequest)):
        return Endpoint("").or_else(family.ports).port(probe.port)
    return 0


async def _recognise(host: str, deadline_s: float, families: Mapping[str, Family]) -> Family | None:
    """The first family, in registry order, that knows its own among the answers to its probes."""
    answers: dict[tuple[Any, ...], Any] = {}
    closed: set[tuple[type, int]] = set()  # a port deaf to one way of speaking may hear another
    for family in families.values():
        line = Line(family, Endpoint(host).or_else(family.ports), None, Memory(), deadline_s, Counter())
        replies: dict[str, Any] = {}
        for probe in family.probes:
            door = (type(probe), _port(family, probe))
            asked = (*door, _content(probe))
            if asked not in answers and door not in closed:
                answers[asked] = None
                try:
                    answers[asked] = await line.put(probe)
                except DeviceUnreachable as error:
                    if door[1] and error.reason in _NOBODY:
                        closed.add(door)
                except BadReply:
                    pass
            if answers.get(asked) is not None:
                replies[probe.name] = answers[asked]
        with suppress(Exception):  # what a stranger answers may be anything
            if replies and family.recognise(replies):
                return family
    return None


def _content(probe: Request) -> Sequence[Any]:
    """What makes two probes the same question."""
    if isinstance(probe, ApiRequest):
        return (probe.payload, probe.length_prefixed)
    if isinstance(probe, HttpRequest):
        return (probe.method, probe.path, probe.body, probe.plain_text)
    if isinstance(probe, GrpcRequest):
        return (probe.method, probe.body)
    return (probe.action, probe.argument)


def _descriptors() -> int:
    """How many files this process may open, raised to what the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 8192) if hard != resource.RLIM_INFINITY else 8192
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft if soft != resource.RLIM_INFINITY else 8192


def _neighbours() -> dict[str, str]:
    """MACs that this host's own network has seen; empty behind a router, or where Linux does not tell."""
    try:
        return parse_neighbours(ARP.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
