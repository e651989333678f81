"""Findings become an inventory that a person edits on: rows kept by MAC, classes named after family and model.

Pure up to `save`. What a hand wrote stays: feeder, container, PDU, rack, class and maintenance of a known device are
never touched, and inventory.toml is only ever added to.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.asic.discovery import Finding
from agent.asic.inventory_file import ClassEntry, DeviceRow, InventoryFile, read_header, read_rows, write_devices
from agent.asic.transport import Endpoint
from gridpivot.curves import NAMEPLATE
from gridpivot.errors import GridpivotError
from gridpivot.vocabulary import EventKind

HEAD = """# Written by `gridpivot-agent discover`, to be edited: name your feeders, then say in {devices} which device hangs on
# which feeder, container, PDU and rack. A later discover adds to this file and changes nothing that stands here.
devices = {devices}
feeders = ["main"]
"""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The two files' content. `text` is the TOML as written, `header` what it means (None before the first)."""

    rows: tuple[DeviceRow, ...] = ()
    header: InventoryFile | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Merged:
    """The inventory after a look. `what` says by host what each finding was to it; `displaced` rows lost their place:
    another known device answers at their address, and they nowhere. `unfinished` classes want figures of a person."""

    inventory: Inventory
    what: Mapping[str, EventKind | None]
    displaced: tuple[DeviceRow, ...] = ()
    unfinished: tuple[str, ...] = ()


def merge(before: Inventory, findings: Iterable[Finding], devices: str = "miners.csv") -> Merged:
    """Fold findings into an inventory. Rows of devices that did not answer stay: they may be off for an hour."""
    miners = [found for found in findings if found.family]
    classes, text, unfinished = _classes(before, miners, devices)
    feeder = before.header.feeders[0] if before.header is not None and before.header.feeders else "main"
    entries = before.header.classes if before.header is not None else {}
    rows = list(before.rows)
    by_mac = {row.mac.lower(): number for number, row in enumerate(rows) if row.mac}
    by_host = {row.endpoint.host: number for number, row in enumerate(rows)}
    present = {found.mac for found in miners if found.mac}
    what: dict[str, EventKind | None] = {}
    settled: dict[int, str] = {}  # row -> host where it answers
    for found in miners:
        number = by_mac.get(found.mac) if found.mac else by_host.get(found.host)
        if number is not None and number not in settled:
            same = rows[number].endpoint.host == found.host
            what[found.host] = None if same else EventKind.DEVICE_MOVED
            settled[number] = found.host
            if not same:
                rows[number] = replace(rows[number], endpoint=_at(found.host, rows[number].endpoint))
    for found in miners:
        if found.host in what:
            continue
        there = by_host.get(found.host)
        free = there is not None and there not in settled and rows[there].mac.lower() not in present
        if there is not None and free:
            # The place stays: its feeder and rack are the same, whatever machine was put there.
            kind = classes[_key(found)]
            row = rows[there]
            was = entries.get(row.class_name)
            same_kind = was is not None and was.family == found.family and (not found.model or was.model == found.model)
            what[found.host] = EventKind.DEVICE_SWAPPED if row.mac else None
            rows[there] = replace(row, mac=found.mac or row.mac, class_name=row.class_name if same_kind else kind)
            settled[there] = found.host
        else:
            what[found.host] = EventKind.DEVICE_FOUND
            settled[len(rows)] = found.host
            rows.append(DeviceRow(Endpoint(found.host), classes[_key(found)], feeder, found.mac or ""))
    places = set(settled.values())
    displaced = [row for number, row in enumerate(rows) if number not in settled and row.endpoint.host in places]
    kept = tuple(row for row in rows if row not in displaced)
    return Merged(Inventory(kept, None, text), what, tuple(displaced), unfinished)


def _at(host: str, before: Endpoint) -> Endpoint:
    return Endpoint(host, before.api_port, before.http_port, before.aux_port)


def _key(found: Finding) -> tuple[str, str]:
    return found.family, found.model or "unknown model"


def _classes(
    before: Inventory, miners: Sequence[Finding], devices: str
) -> tuple[dict[tuple[str, str], str], str, tuple[str, ...]]:
    """Class of each (family, model), the TOML with what was missing added, and classes that want figures."""
    there: Mapping[str, ClassEntry] = before.header.classes if before.header is not None else {}
    named = {(entry.family, entry.model): name for name, entry in reversed(tuple(there.items()))}
    text = before.text or HEAD.format(devices=json.dumps(devices))
    unfinished: list[str] = []
    for family, model in sorted({_key(found) for found in miners} - named.keys()):
        name = _name(family, model, {*there, *named.values()})
        named[family, model] = name
        alike = [found for found in miners if _key(found) == (family, model)]
        lines, complete = _class_text(name, family, model, alike)
        if not complete:
            unfinished.append(name)
        text = text.rstrip("\n") + "\n\n" + lines
    return named, text, tuple(unfinished)


def _name(family: str, model: str, taken: set[str]) -> str:
    core = model if family.split("-")[0] in model.lower() else f"{model} {family}"
    stem = re.sub(r"[^a-z0-9]+", "-", core.lower().replace("+", "p")).strip("-")[:48] or family
    tail = 1
    name = stem
    while name in taken:
        tail += 1
        name = f"{stem}-{tail}"
    return name


def _class_text(name: str, family: str, model: str, alike: Sequence[Finding]) -> tuple[str, bool]:
    """One [class.NAME] table; figures only where the model's nameplate is not known here."""
    # JSON's strings are TOML's basic strings; text out of firmware is quoted by it, never pasted.
    lines = [f"[class.{json.dumps(name)}]", f"family = {json.dumps(family)}", f"model = {json.dumps(model)}"]
    if model in NAMEPLATE:
        return "\n".join([*lines, ""]), True
    terahash = [found.hashrate_hs / 1e12 for found in alike if found.hashrate_hs]
    watts = [found.power_w for found in alike if found.power_w and found.hashrate_hs]
    lines.append(f"# CHECK: no nameplate is known for this model. Measured on {len(alike)} device(s), median:")
    lines.append(_figure("hashrate_th_per_s", terahash, 1))
    lines.append(_figure("power_w", watts, 0))
    return "\n".join([*lines, ""]), bool(terahash and watts)


def _figure(key: str, measured: Sequence[float], digits: int) -> str:
    if not measured:
        return f"# {key} =   # not measured: write the nameplate's figure and take the # away"
    return f"{key} = {round(statistics.median(measured), digits):.10g}"


# -- files ---------------------------------------------------------------------------------------------------------


def open_inventory(path: Path) -> Inventory:
    """The inventory on file; empty when there is none yet. Raises SettingsError for one that cannot be read."""
    if not path.exists():
        return Inventory()
    header = read_header(path)
    rows, _ = read_rows(path.parent / header.devices)
    return Inventory(tuple(rows), header, path.read_text(encoding="utf-8"))


def save(path: Path, before: Inventory, merged: Merged, devices: str = "miners.csv") -> list[Path]:
    """Write what changed, each file whole or not at all; the former ones stay beside them as *.bak.

    Displaced rows go to a file of their own. Returns what was written; raises GridpivotError.
    """
    table = path.parent / (before.header.devices if before.header is not None else Path(devices))
    written: list[Path] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if merged.inventory.rows != before.rows or before.header is None:
            _keep(table)
            fresh = table.with_suffix(".new")
            write_devices(fresh, merged.inventory.rows)
            fresh.replace(table)
            written.append(table)
        if merged.displaced:
            lost = table.with_suffix(".displaced.csv")
            write_devices(lost, merged.displaced)
            written.append(lost)
        if merged.inventory.text != before.text:
            _keep(path)
            fresh = path.with_suffix(".new")
            fresh.write_text(merged.inventory.text, encoding="utf-8")
            fresh.replace(path)
            written.append(path)
    except OSError as error:
        raise GridpivotError(f"{path}: {error.strerror}; give another --output, or correct its owner") from None
    return written


def _keep(path: Path) -> None:
    if path.exists():
        path.with_suffix(path.suffix + ".bak").write_bytes(path.read_bytes())
