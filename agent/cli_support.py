"""`gridpivot-agent support-bundle`: one file to send to whoever helps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli_options import Config, StateDir, load_settings
from gridpivot.errors import SettingsError


def support_bundle(
    config: Config = None,
    state_dir: StateDir = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to.  [default: a name with the time, here]")
    ] = None,
) -> None:
    """Pack settings, status, doctor, locks, plan, log and metrics into one file, without secrets."""
    from agent.settings import DEFAULT_CONFIG, DEFAULT_STATE
    from agent.support import collect
    from gridpivot.support import finish

    trouble, settings = "", None
    try:
        settings = load_settings(config, state_dir)
    except SettingsError as error:
        trouble = str(error)
    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    place = settings.state_dir if settings is not None else state_dir or DEFAULT_STATE
    bundle = collect(settings, path, place, trouble)
    typer.echo(finish(bundle, output, f"gridpivot-agent-{settings.site if settings is not None else 'unknown'}"))
