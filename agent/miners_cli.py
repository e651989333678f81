"""The commands of `gridpivot-agent` that are about miners: discover, lock, unlock, locks."""

from __future__ import annotations

import asyncio
import datetime as dt
import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gridpivot import console
from gridpivot.errors import GridpivotError, SettingsError

if TYPE_CHECKING:
    from agent.asic.discovered import Merged
    from agent.asic.discovery import Finding, Ranges
    from agent.asic.inventory_file import DeviceRow
    from agent.asic.keyring import Keyring
    from agent.asic.locks import Lock
    from agent.asic.probing import Look, Pace
    from agent.settings import AgentSettings
    from gridpivot.shapes import DiscoverShape

SHOWN = 200  # rows of a table before a file serves better

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file.  [default: /etc/gridpivot/agent.toml]")
]
StateDir = Annotated[Path | None, typer.Option("--state-dir", help="Where the agent keeps its state.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def discover(
    ranges: Annotated[list[str], typer.Argument(help="10.0.0.0/18, 10.0.0.1-10.0.3.254, or one address.")],
    config: Config = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Inventory to write or to bring up to date.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=4096, help="Addresses looked at at once.")] = 512,
    deadline: Annotated[float, typer.Option(min=0, help="Stop after this many seconds; 0 = no limit.")] = 0.0,
    rate: Annotated[float, typer.Option(min=0, help="Addresses begun per second; 0 = no limit.")] = 1000.0,
    yes: Annotated[bool, typer.Option("--yes", help="Also look at more than a /15.")] = False,
    json: Json = False,
) -> None:
    """Find miners in address ranges; print them, or write an inventory that a person can edit."""
    from agent.asic.discovered import Inventory, merge, open_inventory, save
    from agent.asic.discovery import MAX_ADDRESSES, parse_ranges
    from agent.asic.probing import Pace

    where = parse_ranges(ranges)
    if where.count > MAX_ADDRESSES and not yes:
        raise SettingsError(f"{where.count} addresses are more than a /15; narrow the ranges, or add --yes")
    keyring = _keyring(config)
    before = open_inventory(output) if output is not None else Inventory()  # a bad one is told before the look
    begun_s = time.monotonic()
    pace = Pace(concurrency=concurrency, rate_per_s=rate, deadline_s=deadline)
    result = _look(where, pace, keyring, quiet=json)
    merged = merge(before, result.findings)
    written = save(output, before, merged) if output is not None and result.findings else []
    shape = _shape(ranges, result, merged if output is not None else None, time.monotonic() - begun_s, written)
    if json:
        console.print_json(shape)
    else:
        _show(result, merged if output is not None else None, written)
    if not result.complete:
        raise GridpivotError(
            f"stopped after {deadline:g} s at {result.looked_at} of {result.addresses} addresses; raise --deadline"
        )


def _keyring(config: Path | None) -> Keyring | None:
    """Logins of the settings; None on a machine that has none, where only what is open to all is read."""
    from agent.cli import load_settings
    from agent.settings import DEFAULT_CONFIG

    if config is None and not DEFAULT_CONFIG.exists():
        return None
    return load_settings(config, None).asic.keyring()


def _look(where: Ranges, pace: Pace, keyring: Keyring | None, *, quiet: bool) -> Look:
    """One look with a progress bar on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from agent.asic.probing import look

    columns = (
        TextColumn("looking"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[found]} answer"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as progress:
        task = progress.add_task("looking", total=where.count, found=0)
        shown_s = 0.0

        def seen(result: Look) -> None:
            nonlocal shown_s
            now_s = time.monotonic()
            if now_s - shown_s > 0.1:  # drawing costs more than looking
                shown_s = now_s
                progress.update(task, completed=result.looked_at, found=len(result.findings))

        return asyncio.run(look(where, pace, keyring, seen))


def _shape(
    ranges: list[str], result: Look, merged: Merged | None, seconds: float, written: list[Path]
) -> DiscoverShape:
    from gridpivot.shapes import DiscoverShape, FoundFigures

    return DiscoverShape(
        ranges=ranges,
        addresses=result.addresses,
        looked_at=result.looked_at,
        complete=result.complete,
        elapsed_s=round(seconds, 3),
        miners=sum(1 for found in result.findings if found.family),
        others=sum(1 for found in result.findings if not found.family),
        written=[str(path) for path in written],
        displaced=[row.mac or row.endpoint.host for row in merged.displaced] if merged is not None else [],
        unfinished_classes=list(merged.unfinished) if merged is not None else [],
        found=[
            FoundFigures(
                host=found.host,
                family=found.family or None,
                model=found.model,
                firmware=found.firmware,
                mac_address=found.mac,
                power_w=found.power_w,
                hashrate_hs=found.hashrate_hs,
                reason=found.reason.value,
                open_ports=list(found.open_ports),
                change=_change(found, merged),
            )
            for found in result.findings
        ],
    )


def _change(found: Finding, merged: Merged | None) -> str | None:
    """What a finding is to the inventory: a word of EventKind, `known`, or None where there is no inventory."""
    if merged is None or not found.family:
        return None
    kind = merged.what.get(found.host)
    return "known" if kind is None else kind.value


def _show(result: Look, merged: Merged | None, written: list[Path]) -> None:
    miners = [found for found in result.findings if found.family]
    table = Table(box=None)
    for column in ("host", "family", "model", "firmware", "mac", "reason", "change"):
        table.add_column(column)
    for found in result.findings[:SHOWN]:
        words = (found.model, found.firmware, found.mac, found.reason.value, _change(found, merged))
        table.add_row(found.host, found.family or "no known miner", *(escape(word or "") for word in words))
    Console().print(table)
    if len(result.findings) > SHOWN:
        typer.echo(f"... and {len(result.findings) - SHOWN} more; --json or --output has them all")
    others = len(result.findings) - len(miners)
    typer.echo(f"{len(miners)} miners and {others} others answer at {result.looked_at} addresses")
    for path in written:
        typer.echo(f"written: {path}")
    if merged is None:
        return
    for row in merged.displaced:
        typer.echo(
            f"displaced: {row.mac or 'device of unknown MAC'} stood at {row.endpoint.host}, another one does now"
        )
    for name in merged.unfinished:
        typer.echo(f"to do: class {name} has no nameplate: give hashrate_th_per_s and power_w in the inventory")


def lock(
    targets: Annotated[list[str], typer.Argument(help="MAC, host, rack:NAME, pdu:NAME, container:NAME, feeder:NAME.")],
    config: Config = None,
    state_dir: StateDir = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for whoever finds it locked.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who.  [default: the user who types]")] = "",
) -> None:
    """Forbid every command to a device, rack, PDU, container or feeder until it is unlocked: hands are in it."""
    from agent.asic.locks import covers, parse_target, set_locks

    settings = _settings(config, state_dir)
    rows = _rows(settings)
    wanted = [parse_target(text, rows) for text in targets]
    for target in wanted:
        if rows and not covers(target, rows).any():
            raise SettingsError(
                f"{target}: nothing in the inventory is called so, nothing was locked; correct the name"
            )
    fresh = set_locks(settings.state_dir, wanted, by or _user(), time.time(), reason)
    for target in wanted:
        word = "locked" if any(lock.target == target for lock in fresh) else "was locked already"
        count = f", {int(covers(target, rows).sum())} devices" if rows else ""
        typer.echo(f"{target} {word}{count}")
    if not rows:
        typer.echo("note: no inventory could be read, so the names were not checked")
    typer.echo("a running agent obeys within 2 s; an exchange that had begun is ended first")


def unlock(
    targets: Annotated[list[str], typer.Argument(help="As they were locked; `gridpivot-agent locks` lists them.")],
    config: Config = None,
    state_dir: StateDir = None,
) -> None:
    """Let commands through again."""
    from agent.asic.locks import clear_locks, parse_target

    settings = _settings(config, state_dir)
    rows = _rows(settings)
    gone = clear_locks(settings.state_dir, [parse_target(text, rows) for text in targets])
    for held in gone:
        typer.echo(f"{held.target} unlocked")
    if not gone:
        raise GridpivotError("nothing of that was locked; see gridpivot-agent locks")


def locks(config: Config = None, state_dir: StateDir = None, json: Json = False) -> None:
    """Locks in force, by whom, and how many devices each holds."""
    from agent.asic.locks import covers, read_locks
    from gridpivot.shapes import LockFigures, LocksShape

    settings = _settings(config, state_dir)
    rows = _rows(settings)
    held: tuple[Lock, ...] = read_locks(settings.state_dir)
    figures = [
        LockFigures(
            target=str(lock.target),
            kind=lock.target.kind.value,
            mac_address=lock.target.mac or None,
            by=lock.by,
            reason=lock.reason,
            set_at=dt.datetime.fromtimestamp(lock.set_at_s, dt.UTC),
            device_count=int(covers(lock.target, rows).sum()) if rows else None,
        )
        for lock in held
    ]
    if json:
        console.print_json(LocksShape(site=settings.site, locks=figures))
        return
    if not figures:
        typer.echo("nothing is locked")
        return
    table = Table(box=None)
    for column in ("target", "devices", "by", "since", "reason"):
        table.add_column(column)
    for entry in figures:
        count = "unknown" if entry.device_count is None else str(entry.device_count)
        since = entry.set_at.strftime("%Y-%m-%d %H:%MZ")
        table.add_row(escape(entry.target), count, escape(entry.by), since, escape(entry.reason))
    Console().print(table)


def _settings(config: Path | None, state_dir: Path | None) -> AgentSettings:
    from agent.cli import load_settings

    return load_settings(config, state_dir)


def _rows(settings: AgentSettings) -> tuple[DeviceRow, ...]:
    """Rows of the inventory; none when it cannot be read, since a lock must be possible even then."""
    from agent.asic.inventory import load_inventory

    if settings.asic.inventory is None:
        return ()
    try:
        return load_inventory(settings.asic.inventory).rows
    except SettingsError as error:
        console.complain(f"{str(error).splitlines()[0]}; locking goes on without it")
        return ()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
