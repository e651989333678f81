"""`gridpivot-agent discover`: who is on these addresses, and an inventory of them that a person can read and edit."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent.asic.catalog import Catalogue, catalogue
from agent.asic.family import Ports
from agent.asic.inventory_file import DeviceRow, InventoryFile, read_header, read_rows, write_devices, write_header
from agent.asic.probing import Finding, Probing, search
from agent.asic.ranges import MANY_ADDRESSES, AddressRange, addresses, parse_ranges
from agent.asic.transport import Endpoint
from agent.limits import raise_file_limit
from gridpivot import console
from gridpivot.errors import SettingsError
from gridpivot.shapes import DiscoveredShape, DiscoveryShape

CHECK_NOTE = "hashrate and power were taken from what these machines read now: check them against the maker's sheet"
SHOWN = 20  # of what was left out


def discover(
    ranges: Annotated[list[str], typer.Argument(metavar="RANGE...", help="10.1.0.0/18, 10.1.0.10-10.1.0.99, 10.1.0.7")],
    output: Annotated[
        Path | None, typer.Option(help="Write the inventory here (and its CSV beside it); one that exists is merged.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=4096, help="Addresses looked at at once.")] = 512,
    deadline: Annotated[float, typer.Option(min=0.1, max=60, help="For one answer [s].")] = 2.0,
    rate: Annotated[float, typer.Option(min=0, help="Addresses a second at most; 0 = as fast as it goes.")] = 0.0,
    api_port: Annotated[int, typer.Option(min=0, max=65_535, help="Odd API port of every miner; 0 = as usual.")] = 0,
    web_port: Annotated[int, typer.Option(min=0, max=65_535, help="Odd web port of every miner; 0 = as usual.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Look at more addresses than a /15 has.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print findings as JSON and nothing else.")] = False,
) -> None:
    """Look for miners. Reads only: nothing is changed on any device."""
    spans = parse_ranges(ranges)
    count = sum(map(len, spans))
    if count > MANY_ADDRESSES and not yes:
        raise SettingsError(f"{count} addresses are more than a /15 has; give smaller ranges, or --yes if it is meant")
    header, rows = _existing(output)
    raise_file_limit(2 * concurrency + 256)
    doors = Ports(api=api_port, web=web_port) if api_port or web_port else None
    probing = Probing(deadline_s=deadline, concurrency=min(concurrency, count), per_s=rate, doors=doors)
    findings = _search(spans, count, probing, quiet=json)
    found = catalogue(findings, {} if header is None else header.classes, rows, Endpoint("", api_port, web_port))
    if output is not None:
        _write(output, header, found)
    if json:
        console.print_json(_shape(count, findings, found))
    else:
        _tell(findings, found, output)


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
        fresh.replace(output.parent / devices)
        if header is None or set(found.classes) != set(header.classes) or feeders != header.feeders:
            notes = dict.fromkeys(found.measured, CHECK_NOTE)
            write_header(output, str(devices), feeders, found.classes, notes)
    except OSError as error:
        raise SettingsError(f"{output}: cannot be written: {error.strerror}; give another --output") from error


def _tell(findings: list[Finding], found: Catalogue, output: Path | None) -> None:
    counts = Counter((f.family or "unknown", f.model or "unknown", f.firmware or "unknown") for f in findings)
    table = Table("family", "model", "firmware", "machines")
    for (family, model, firmware), number in sorted(counts.items()):
        table.add_row(escape(family), escape(model), escape(firmware), str(number))
    out = Console()
    out.print(table)
    for finding in found.left_out[:SHOWN]:
        out.print(f"left out: {finding.host}: {finding.note or 'no family'}", markup=False)
    if len(found.left_out) > SHOWN:
        out.print(f"left out: {len(found.left_out) - SHOWN} more; --json lists them all")
    without_mac = sum(1 for row in found.rows if not row.mac)
    if without_mac:
        out.print(f"{without_mac} machines gave no MAC address: a new lease would lose them; fill it in by hand")
    for name in sorted(found.measured):
        out.print(f"class {name}: {CHECK_NOTE}", markup=False)
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
