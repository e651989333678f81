"""`gridpivot-agent lock`, `unlock` and `locks`: what a technician types before reaching into a machine, and after."""

from __future__ import annotations

import datetime as dt
import getpass
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.cli_options import Config, Json, StateDir, load_settings
from gridpivot import console
from gridpivot.errors import GridpivotError, SettingsError

if TYPE_CHECKING:
    from agent.asic.inventory_file import DeviceRow
    from agent.asic.locks import Lock
    from agent.settings import AgentSettings


def lock(
    targets: Annotated[list[str], typer.Argument(help="MAC, host, rack:NAME, pdu:NAME, container:NAME, feeder:NAME.")],
    config: Config = None,
    state_dir: StateDir = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for whoever finds it locked.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who.  [default: the user who types]")] = "",
) -> None:
    """Forbid every command to a device, rack, PDU, container or feeder until it is unlocked: hands are in it."""
    from agent.asic.locks import covers, parse_target, set_locks

    settings = load_settings(config, state_dir)
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

    settings = load_settings(config, state_dir)
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

    settings = load_settings(config, state_dir)
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
