"""What `gridpivot-agent discover` does: search with a progress bar, merge, write, tell."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent.asic.catalog import Catalogue, catalogue
from agent.asic.family import Login, Ports
from agent.asic.inventory_file import DeviceRow, InventoryFile, read_header, read_rows, write_devices, write_header
from agent.asic.probing import Finding, Probing, search
from agent.asic.ranges import MANY_ADDRESSES, AddressRange, addresses, parse_ranges
from agent.asic.transport import Endpoint
from gridpivot import console
from gridpivot.errors import SettingsError
from gridpivot.limits import raise_file_limit
from gridpivot.shapes import DiscoveredShape, DiscoveryShape

CHECK_NOTE = "hashrate and power were taken from what these machines read now: check them against the maker's sheet"
FILL_NOTE = "not all figures could be read: add hashrate_th_per_s and power_w from the maker's sheet before use"
SHOWN = 20  # of what was left out


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for; ports of 0 are the families' own."""

    ranges: tuple[str, ...]
    output: Path | None
    concurrency: int
    deadline_s: float
    per_s: float
    api_port: int
    web_port: int
    many: bool
    as_json: bool
    logins: Mapping[str, Login]  # by family, from the agent's settings


def run(wanted: Wanted) -> None:
    """Search and report; raises SettingsError before anything is sent when the ranges or the inventory cannot be read."""
    spans = parse_ranges(wanted.ranges)
    count = sum(map(len, spans))
    if count > MANY_ADDRESSES and not wanted.many:
        raise SettingsError(f"{count} addresses are more than a /15 has; give smaller ranges, or --yes if it is meant")
    if wanted.output is not None and not os.access(wanted.output.parent, os.W_OK):
        raise SettingsError(f"{wanted.output}: its directory is not there or not yours to write; give another --output")
    header, rows = _existing(wanted.output)
    raise_file_limit(2 * wanted.concurrency + 256)
    odd = Endpoint("", wanted.api_port, wanted.web_port)
    doors = Ports(api=wanted.api_port, web=wanted.web_port) if wanted.api_port or wanted.web_port else None
    probing = Probing(
        deadline_s=wanted.deadline_s,
        concurrency=min(wanted.concurrency, count),
        per_s=wanted.per_s,
        doors=doors,
        logins=wanted.logins,
    )
    findings = _search(spans, count, probing, quiet=wanted.as_json)
    found = catalogue(findings, {} if header is None else header.classes, rows, odd)
    if wanted.output is not None:
        _write(wanted.output, header, found)
    if wanted.as_json:
        console.print_json(_shape(count, findings, found))
    else:
        _tell(findings, found, wanted.output)


def _search(spans: list[AddressRange], count: int, probing: Probing, *, quiet: bool) -> list[Finding]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as progress:
        task = progress.add_task("looking", total=count)
        met = 0

        def done(finding: Finding | None) -> None:
            nonlocal met
            met += finding is not None
            progress.update(task, advance=1, description=f"{met} found")

        return asyncio.run(search(addresses(spans), probing, done))


def _existing(output: Path | None) -> tuple[InventoryFile | None, list[DeviceRow]]:
    """What is written down already; a file that cannot be read stops everything before the search."""
    if output is None or not output.exists():
        return None, []
    header = read_header(output)
    rows, _ = read_rows(output.parent / header.devices)
    return header, rows


def _write(output: Path, header: InventoryFile | None, found: Catalogue) -> None:
    """Both files, the CSV first; the TOML is rewritten only when it has a new class or is new itself."""
    devices = Path(f"{output.stem}.csv") if header is None else header.devices
    feeders = ("main",) if header is None else header.feeders
    feeders = tuple(dict.fromkeys([*feeders, *(row.feeder for row in found.rows)]))
    try:
        fresh = (output.parent / devices).with_suffix(".csv.new")
        write_devices(fresh, found.rows)
        if (output.parent / devices).exists():
            (output.parent / devices).replace((output.parent / devices).with_suffix(".csv.bak"))
        fresh.replace(output.parent / devices)
        if found.displaced:  # their feeder and rack were written by hand: kept beside, for whoever looks for them
            write_devices((output.parent / devices).with_suffix(".displaced.csv"), found.displaced)
        if header is None or set(found.classes) != set(header.classes) or feeders != header.feeders:
            notes = {name: _note(found, name) for name in found.measured}
            if header is not None:
                output.replace(output.with_suffix(".toml.bak"))  # comments that a person wrote stand there
            write_header(output, str(devices), feeders, found.classes, notes)
    except OSError as error:
        raise SettingsError(f"{output}: cannot be written: {error.strerror}; give another --output") from error


def _note(found: Catalogue, name: str) -> str:
    """What a person has to do about a class without a listed nameplate."""
    entry = found.classes[name]
    return FILL_NOTE if entry.hashrate_th_per_s is None or entry.power_w is None else CHECK_NOTE


def _tell(findings: list[Finding], found: Catalogue, output: Path | None) -> None:
    counts = Counter((f.family or "unknown", f.model or "unknown", f.firmware or "unknown") for f in findings)
    table = Table("family", "model", "firmware", "machines")
    for (family, model, firmware), number in sorted(counts.items()):
        table.add_row(escape(family), escape(model), escape(firmware), str(number))
    out = Console()
    if findings:
        out.print(table)
    else:
        out.print("nothing answered: are these the right ranges, and is this machine on that network?")
    for finding in found.left_out[:SHOWN]:
        out.print(f"left out: {finding.host}: {finding.note or 'no family'}", markup=False)
    if len(found.left_out) > SHOWN:
        out.print(f"left out: {len(found.left_out) - SHOWN} more; --json lists them all")
    without_mac = sum(1 for row in found.rows if not row.mac)
    if without_mac:
        out.print(f"{without_mac} machines gave no MAC address: a new lease would lose them; fill it in by hand")
    for row in found.displaced:
        out.print(
            f"taken out: {row.mac or 'no MAC'} does not answer, and {row.endpoint.host} is another's now", markup=False
        )
    for name in sorted(found.measured):
        out.print(f"class {name}: {_note(found, name)}", markup=False)
    if output is not None:
        changes = f"{found.added} new, {found.moved} moved, {found.swapped} swapped"
        out.print(f"{output}: {len(found.rows)} machines ({changes})", markup=False)


def _shape(count: int, findings: list[Finding], found: Catalogue) -> DiscoveryShape:
    return DiscoveryShape(
        addresses=count,
        added=found.added,
        moved=found.moved,
        swapped=found.swapped,
        left_out=len(found.left_out),
        devices=[
            DiscoveredShape(
                host=f.host,
                family=f.family,
                model=f.model,
                firmware=f.firmware,
                mac_address=f.mac,
                serial=f.serial,
                power_w=f.power_w,
                hashrate_hs=f.hashrate_hs,
                note=f.note,
            )
            for f in findings
        ],
    )
