"""Who is at an address: a cheap knock first, then the families' own questions, then one poll for model and MAC.

Nothing is written to a device, and no password is offered unless one was given. An address that answers and is no
miner that a family knows is a finding too: nothing at a site stays invisible.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.asic.conversation import Line
from agent.asic.family import Family, Login, Memory, Port, Ports, Reading, Request
from agent.asic.registry import FAMILIES
from agent.asic.sockets import is_open
from agent.asic.transport import Endpoint
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Reason

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Finding:
    """What answered at an address. `family` is None where no family knows it; figures as in `Reading`, None = unknown."""

    host: str
    family: str | None = None
    model: str | None = None
    firmware: str | None = None
    mac: str | None = None
    serial: str | None = None
    hashing: bool = False
    power_w: float | None = None
    hashrate_hs: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Probing:
    """How a search goes about it. `doors` overrides the ports that are knocked at, for sites with odd ports."""

    deadline_s: float = 2.0
    knock_s: float = 1.0
    concurrency: int = 512
    per_s: float = 0.0  # addresses a second at most; 0 = as fast as it goes
    doors: Ports | None = None
    logins: Mapping[str, Login] | None = None
    library: bool = True  # ask pyasic-rs about what no family knows
    library_s: float = 15.0  # it identifies over the network first


def doors_of(probing: Probing) -> tuple[int, ...]:
    """Ports to knock at: every family's API port and its web port, or those given."""
    if probing.doors is not None:
        return tuple(port for port in (probing.doors.api, probing.doors.web) if port)
    kinds = [family.ports for name, family in FAMILIES.items() if name != OTHER]
    return tuple(sorted({port for ports in kinds for port in (ports.api, ports.web)}, key=lambda p: (p != 4028, p)))


async def search(hosts: Iterable[str], probing: Probing, on_done: Callable[[Finding | None], None]) -> list[Finding]:
    """Look at every address; `on_done` is called for each. Findings come in the order of the addresses."""
    numbered = enumerate(hosts)
    found: list[tuple[int, Finding]] = []
    loop = asyncio.get_running_loop()
    began_s, handed = loop.time(), 0

    async def work(source: Iterator[tuple[int, str]]) -> None:
        nonlocal handed
        for number, host in source:
            handed += 1
            early_s = began_s + handed / probing.per_s - loop.time() if probing.per_s else 0.0
            if early_s > 0:
                await asyncio.sleep(early_s)
            finding = await look(host, probing)
            if finding is not None:
                found.append((number, finding))
            on_done(finding)

    async with asyncio.TaskGroup() as group:
        for _ in range(probing.concurrency):
            group.create_task(work(numbered))
    return [finding for _, finding in sorted(found, key=lambda pair: pair[0])]


async def look(host: str, probing: Probing) -> Finding | None:
    """What is at one address; None for nobody."""
    open_ports = await _knock(host, doors_of(probing), probing.knock_s)
    if not open_ports:
        return None
    told = f"answers on {', '.join(map(str, open_ports))}"
    try:
        family = await _recognise(host, open_ports, probing)
        if family is not None:
            return await _introduce(host, family, probing)
        if probing.library:
            found = await _introduce(host, FAMILIES[OTHER], replace(probing, deadline_s=probing.library_s))
            if found.model is not None:
                return found
    except Exception as error:  # a defect in one family's parser must not end the search of a whole site
        return Finding(host, note=f"{told}, then {type(error).__name__} in its family: please report it")
    return Finding(host, note=f"{told}, no family knows it")


async def _knock(host: str, ports: tuple[int, ...], knock_s: float) -> tuple[int, ...]:
    """Which of the ports are open. A door that opens at once spares the wait for the others' silence."""
    if await is_open(host, ports[0], knock_s):
        return (ports[0],)
    if len(ports) == 1:
        return ()
    rest = await asyncio.gather(*(is_open(host, port, knock_s) for port in ports[1:]))
    return tuple(port for port, opened in zip(ports[1:], rest, strict=True) if opened)


def _endpoint(host: str, family: Family, probing: Probing) -> Endpoint:
    given = probing.doors
    own = Endpoint(host) if given is None else Endpoint(host, given.api, given.web, given.aux)
    return own.or_else(family.ports)


async def _recognise(host: str, open_ports: tuple[int, ...], probing: Probing) -> Family | None:
    """The first family that knows the replies to the probes asked so far; each probe is asked once."""
    asked: dict[tuple[int, Request], Any] = {}
    for name, family in FAMILIES.items():
        if name == OTHER:
            continue
        endpoint = _endpoint(host, family, probing)
        line = Line(family, endpoint, None, Memory(), probing.deadline_s, Counter())
        replies: dict[str, Any] = {}
        for probe in family.probes:
            port = endpoint.port(getattr(probe, "port", Port.API))
            if port in doors_of(probing) and port not in open_ports and len(open_ports) < 2 and port != 80:
                continue  # that door did not open
            if (port, probe) not in asked:
                try:
                    asked[port, probe] = await line.put(probe)
                except (DeviceUnreachable, BadReply):
                    asked[port, probe] = None
            if asked[port, probe] is not None:
                replies[probe.name] = asked[port, probe]
                if family.recognise(replies):
                    return family
    return None


async def _introduce(host: str, family: Family, probing: Probing) -> Finding:
    """One poll: model, firmware, MAC. What it withholds without a password stays unknown, with a note."""
    login = (probing.logins or {}).get(family.name)
    line = Line(family, _endpoint(host, family, probing), login, Memory(), probing.deadline_s, Counter())
    note = ""
    try:
        reading = await line.read(slow=True, now_s=asyncio.get_running_loop().time())
    except DeviceUnreachable as error:
        reading, note = Reading(), f"recognised, then {error.reason}"
    except BadReply as error:
        reading, note = Reading(), f"recognised, then {Reason.GARBLED}: {error}"
    if not note and reading.reason in (Reason.NO_CREDENTIALS, Reason.UNAUTHORISED):
        note = f"{reading.reason}: some facts need a password"
    return Finding(
        host=host,
        family=family.name,
        model=reading.model,
        firmware=reading.firmware,
        mac=None if reading.mac is None else reading.mac.lower(),
        serial=reading.serial,
        hashing=reading.state is DeviceState.HASHING,
        power_w=reading.power_w,
        hashrate_hs=reading.hashrate_hs,
        note=note,
    )
