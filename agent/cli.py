"""`gridpivot-agent`: what a site technician types. Every command that prints a table also prints JSON."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import agent.cli_node_off  # noqa: F401 - adds to `node`
from agent.cli_ai import ai
from agent.cli_commission import commission
from agent.cli_discover import discover
from agent.cli_enroll import enroll
from agent.cli_gpu_guard import gpu_guard
from agent.cli_locks import lock, locks, unlock
from agent.cli_nodes import node, node_token
from agent.cli_options import Config, Json, StateDir, load_settings
from agent.cli_orders import hold, orders, release, shed
from agent.cli_support import support_bundle
from gridpivot import __version__, console
from gridpivot.errors import BadReply, GridpivotError, SettingsError

if TYPE_CHECKING:
    from agent.settings import AgentSettings

app = typer.Typer(
    name="gridpivot-agent",
    help="Reads a site's miners, GPUs, host and meter; holds it to its plan; reports to the controller.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    config: Config = None,
    state_dir: StateDir = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="While another agent runs here: wait for its end, or refuse.")
    ] = True,
) -> None:
    """Run the agent until SIGTERM or Ctrl-C. SIGHUP: read the settings again; bad ones are said, and change nothing."""
    from agent.checked import checked
    from agent.service import serve
    from gridpivot.observability import configure

    def reload() -> AgentSettings:
        fresh = load_settings(config, state_dir)
        checked(fresh)
        configure(fresh.log.style, fresh.log.level)
        return fresh

    settings = load_settings(config, state_dir)
    configure(settings.log.style, settings.log.level)
    if settings.role == "node":
        from agent.node.service import serve_node

        asyncio.run(serve_node(settings, wait=wait, reload=reload))
        return
    asyncio.run(serve(settings, wait=wait, reload=reload))


app.command()(discover)
app.command()(enroll)


@app.command("check-config")
def check_config(config: Config = None, state_dir: StateDir = None, json: Json = False) -> None:
    """Check settings, inventory and credentials without touching a device."""
    from agent.checked import checked
    from gridpivot.shapes import CheckConfigShape

    problems: list[str] = []
    notes: list[str] = []
    try:
        notes = checked(load_settings(config, state_dir))
    except SettingsError as error:
        problems = str(error).splitlines()
    shape = CheckConfigShape(path=str(config) if config else None, ok=not problems, problems=problems, notes=notes)
    if json:
        console.print_json(shape)
    elif problems:
        console.complain("\n".join(problems))
    else:
        typer.echo("settings are good: " + ", ".join(notes))
    raise typer.Exit(2 if problems else 0)


@app.command()
def status(config: Config = None, state_dir: StateDir = None, json: Json = False) -> None:
    """How the site stands; works while the agent is down, from what it left on disk."""
    from agent.frame import is_running, read_status
    from gridpivot.shapes import AgentStatusShape

    settings = load_settings(config, state_dir)
    left = read_status(settings.state_dir)
    running = is_running(settings.state_dir)
    if left is None:
        shape = AgentStatusShape(site=settings.site, agent_version=__version__, running=running)
        shape.notes.append("the agent has not left a status here yet")
    else:
        shape = AgentStatusShape.model_validate({**left, "running": running})
    if json:
        console.print_json(shape)
        return
    table = Table(show_header=False, box=None)
    for name, value in shape.model_dump(exclude={"schema_version", "spool", "notes"}).items():
        table.add_row(name, "unknown" if value is None else escape(str(value)))
    for lane in shape.spool:
        table.add_row(f"spool {lane.lane}", f"{lane.records} records, {lane.bytes} bytes")
    for note in shape.notes:
        table.add_row("note", escape(note))
    Console().print(table)


@app.command()
def decode(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Recorded replies of one device, or a directory of them.")
    ],
    family: Annotated[str, typer.Option(help="Firmware family; auto = by what the replies say.")] = "auto",
) -> None:
    """Recorded miner replies in, one normalised reading as JSON out."""
    from agent.asic.decode import decode as decode_reply
    from agent.asic.decode import normalised
    from gridpivot.shapes import DecodeShape

    where = ", ".join(map(str, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    replies: dict[str, bytes] = {}
    for file in files:
        try:
            for path in sorted(file.glob("*.json")) if file.is_dir() else [file]:
                replies[path.stem if path.stem not in replies else str(path)] = path.read_bytes()
        except OSError as error:
            raise GridpivotError(
                f"{file}: cannot be read: {error.strerror}; give files with recorded replies"
            ) from error
    if not replies:
        raise GridpivotError(f"{where}: no *.json replies in it; give files with recorded replies")
    try:
        decoded = decode_reply(replies, None if family == "auto" else family)
    except BadReply as error:
        raise GridpivotError(f"{where}: {error}") from error
    plain = normalised(decoded)
    known = {name: plain[name] for name in DecodeShape.model_fields if name in plain}
    known |= {"mac_address": plain["mac"], "provenance": plain["power_provenance"]}
    console.print_json(DecodeShape(**known, outcome="ok"))


@app.command()
def doctor(config: Config = None, state_dir: StateDir = None, json: Json = False) -> None:
    """Look for what would keep this agent from working, and say what to do."""
    from agent.doctor import examine
    from gridpivot.shapes import DoctorShape

    shape: DoctorShape = examine(load_settings(config, state_dir))
    if json:
        console.print_json(shape)
    else:
        table = Table(box=None)
        for column in ("check", "outcome", "detail", "what to do"):
            table.add_column(column)
        for check in shape.checks:
            table.add_row(check.name, check.outcome, escape(check.detail), escape(check.remedy))
        Console(width=max(100, shutil.get_terminal_size().columns)).print(table)
    raise typer.Exit(0 if shape.ok else 1)


for _command in (lock, unlock, locks, shed, hold, release, orders):
    app.command()(_command)
app.command()(commission)
app.command("gpu-guard")(gpu_guard)
app.add_typer(ai, name="ai")
app.add_typer(node_token, name="node-token")
app.add_typer(node, name="node")
app.command("support-bundle")(support_bundle)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    """Entry."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Console entry point."""
    console.run(app)


if __name__ == "__main__":
    main()
