"""`gridpivot-controller`: run, check-config, init. Heavy imports wait until a command needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from controller.cli_identity import agent_token, operator
from controller.cli_options import Config, Json, StateDir, load_settings
from gridpivot import __version__, console
from gridpivot.errors import SettingsError
from gridpivot.shapes import CheckConfigShape

app = typer.Typer(
    help="The process in the middle: sees all sites, prices every megawatt, sends plans.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(agent_token, name="agent-token")
app.add_typer(operator, name="operator")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def controller(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Version.")] = False,
) -> None:
    """The process in the middle: sees all sites, prices every megawatt, sends plans."""


@app.command()
def run(config: Config = None, state_dir: StateDir = None) -> None:
    """Run until SIGTERM or Ctrl-C."""
    import asyncio

    from controller import service
    from gridpivot import observability

    settings = load_settings(config, state_dir)
    observability.configure(settings.log.style, settings.log.level)
    if not settings.sites:
        raise SettingsError("no sites in the settings; add a [[sites]] table with name, region and ceiling_mw")
    asyncio.run(service.run(settings))


@app.command("check-config")
def check_config(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Read the settings as `run` would, and say what is wrong with them."""
    path = str(config) if config is not None else None
    try:
        settings = load_settings(config, state_dir)
        problems: list[str] = []
        notes = [f"{len(settings.sites)} sites in {len({s.region for s in settings.sites})} regions"]
        if not settings.sites:
            notes.append("no sites: run would refuse to start")
    except SettingsError as error:
        problems, notes = str(error).splitlines(), []
    if as_json:
        console.print_json(CheckConfigShape(path=path, ok=not problems, problems=problems, notes=notes))
    elif problems:
        console.complain("\n".join(problems))
    else:
        for note in notes:
            typer.echo(note)
        typer.echo("settings are good")
    if problems:
        raise typer.Exit(SettingsError.exit_code)


@app.command()
def init(
    config: Config = None,
    state_dir: StateDir = None,
    fleet: Annotated[str, typer.Option(help="Fleet name; stands in every certificate.")] = "gridpivot",
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address that sites dial; may be given more than once.")
    ] = None,
    ca_cert: Annotated[Path | None, typer.Option(help="A CA made elsewhere (PEM); with --ca-key.")] = None,
    ca_key: Annotated[Path | None, typer.Option(help="Its key (PEM, 0600).")] = None,
) -> None:
    """Make the state directory with CA, server certificate, planner key and operator token. Overwrites nothing."""
    import datetime as dt
    import socket

    from controller.identity.files import make_identity, outside_authority

    if (ca_cert is None) != (ca_key is None):
        raise SettingsError("--ca-cert and --ca-key go together; give both, or neither to make a CA here")
    authority = outside_authority(ca_cert, ca_key) if ca_cert is not None and ca_key is not None else None
    settings = load_settings(config, state_dir)
    hosts = host or [socket.getfqdn(), "localhost", "127.0.0.1"]
    made = make_identity(settings, fleet, hosts, dt.datetime.now(dt.UTC), authority)
    out = Console(highlight=False)
    for path in made.public:
        out.print(f"  {path}", soft_wrap=True)
    for path in made.secret:
        out.print(f"  {path}  [dim](secret, 0600)[/dim]", soft_wrap=True)
    out.print(f"The certificate is good for {', '.join(hosts)}. Next: gridpivot-controller run", soft_wrap=True)


@app.command("support-bundle")
def support_bundle(
    config: Config = None,
    state_dir: StateDir = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to.  [default: a name with the time, here]")
    ] = None,
) -> None:
    """Pack settings, counts, log and metrics into one file, without secrets."""
    from controller.settings import DEFAULT_CONFIG, DEFAULT_STATE
    from controller.support import collect
    from gridpivot.support import finish

    trouble, settings = "", None
    try:
        settings = load_settings(config, state_dir)
    except SettingsError as error:
        trouble = str(error)
    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    place = settings.state_dir if settings is not None else state_dir or DEFAULT_STATE
    typer.echo(finish(collect(settings, path, place, trouble), output, "gridpivot-controller"))


def main() -> NoReturn:
    """Entry point."""
    console.run(app)
