"""Findings written down as an inventory that a person can read and edit, and merged into one that exists. Pure.

Devices are known by their MAC address: a new lease changes an address and nothing else. What a person wrote (class,
feeder, container, PDU, rack, maintenance) is never overwritten.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.asic.inventory_file import ClassEntry, DeviceRow
from agent.asic.probing import Finding
from agent.asic.registry import CAPABILITIES
from agent.asic.transport import Endpoint
from gridpivot.curves import NAMEPLATE

_MAKES = ("antminer ", "whatsminer ", "avalon ", "auradine ")
_SUFFIX = r"([_ ]v[a-z]?\d{2,3}[a-z]?)?"  # Whatsminer: the board's revision
FEEDER = "main"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Classes by name, rows, and what was left out with why."""

    classes: Mapping[str, ClassEntry]
    rows: tuple[DeviceRow, ...]
    measured: frozenset[str]  # classes without a listed nameplate: taken from readings, or left to be filled in
    left_out: tuple[Finding, ...]
    displaced: tuple[DeviceRow, ...]  # silent ones whose address another known device has now: no place to ask them at
    added: int
    moved: int
    swapped: int


def catalogue(
    findings: Sequence[Finding], classes: Mapping[str, ClassEntry], rows: Sequence[DeviceRow], doors: Endpoint
) -> Catalogue:
    """Merge findings into what is written down; `doors` carries odd ports (0 = the families' own).

    A machine with another MAC at a known address, whose old machine was found nowhere, took its place: it inherits
    feeder, container, PDU and rack, since these belong to the place.
    """
    merged, known = list(rows), dict(classes)
    by_mac = {row.mac.lower(): number for number, row in enumerate(rows) if row.mac}
    moved = swapped = 0
    for finding in findings:
        number = by_mac.get(finding.mac or "")
        if number is not None and merged[number].endpoint.host != finding.host:
            merged[number] = replace(merged[number], endpoint=replace(merged[number].endpoint, host=finding.host))
            moved += 1
    found_macs = {finding.mac for finding in findings}
    # A silent device's old address may belong to another known one by now, and an inventory cannot hold both.
    taken = {merged[n].endpoint.host for f in findings if (n := by_mac.get(f.mac or "")) is not None}
    displaced = [row for row in merged if row.endpoint.host in taken and row.mac.lower() not in found_macs]
    merged = [row for row in merged if row not in displaced]
    by_host = {
        row.endpoint.host: number
        for number, row in enumerate(merged)
        if not row.mac or row.mac.lower() not in found_macs
    }
    fresh: dict[str, list[Finding]] = {}
    left_out: list[Finding] = []
    for finding in findings:
        if finding.mac is not None and finding.mac in by_mac:
            continue
        place = by_host.get(finding.host)
        if place is not None and (finding.mac is None or not merged[place].mac):
            merged[place] = replace(merged[place], mac=merged[place].mac or finding.mac or "")
            continue
        if finding.family is None or finding.family not in CAPABILITIES:
            left_out.append(finding)
            continue
        name = class_name(finding)
        fresh.setdefault(name, []).append(finding)
        if place is not None:
            merged[place] = replace(merged[place], class_name=name, mac=finding.mac or "")
            swapped += 1
        else:
            merged.append(DeviceRow(replace(doors, host=finding.host), name, FEEDER, finding.mac or ""))
    measured = set()
    for name, members in fresh.items():
        if name not in known:
            known[name], guessed = _class(members)
            if guessed:
                measured.add(name)
    added = len(merged) - len(rows) + len(displaced)
    return Catalogue(
        known, tuple(merged), frozenset(measured), tuple(left_out), tuple(displaced), added, moved, swapped
    )


def class_name(finding: Finding) -> str:
    """A short name from model and family, such as s21-luxos."""
    model = (finding.model or "unknown").lower()
    for make in _MAKES:
        model = model.removeprefix(make)
    slug = re.sub(r"[^a-z0-9+]+", "-", model.replace("++", "pp").replace("+", "p")).strip("-")
    return f"{slug or 'unknown'}-{(finding.family or 'unknown').replace('_', '-')}"


def nameplate_model(model: str | None) -> str | None:
    """The model of the nameplate table that this is, hardware suffix (`_VL30`) or not; None where the table has none.

    A name that only begins like one (`S19 Pro+ Hyd`) is another machine.
    """
    said = (model or "").strip().lower()
    return next((name for name in NAMEPLATE if re.fullmatch(re.escape(name.lower()) + _SUFFIX, said)), None)


def _class(members: Iterable[Finding]) -> tuple[ClassEntry, bool]:
    """The class of new findings, and whether its nameplate had to be taken from readings."""
    found = list(members)
    family = found[0].family or ""
    listed = nameplate_model(found[0].model)
    if listed is not None:
        return ClassEntry(family=family, model=listed), False
    working = [f for f in found if f.hashing]
    hashrates = [f.hashrate_hs / 1e12 for f in working if f.hashrate_hs]
    watts = [f.power_w for f in working if f.power_w]
    return ClassEntry(
        family=family,
        model=found[0].model or "unknown",
        hashrate_th_per_s=round(statistics.median(hashrates), 1) if hashrates else None,
        power_w=round(statistics.median(watts)) if watts else None,
    ), True
