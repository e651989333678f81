"""`gridpivot-agent discover`: who is on these addresses, and an inventory of them that a person can read and edit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent.asic.family import Login


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
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Settings whose credentials may be offered; none = no password is."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Look at more addresses than a /15 has.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print findings as JSON and nothing else.")] = False,
) -> None:
    """Look for miners. Reads only: nothing is changed on any device."""
    from agent.discovery import Wanted, run

    run(
        Wanted(
            ranges=tuple(ranges),
            output=output,
            concurrency=concurrency,
            deadline_s=deadline,
            per_s=rate,
            api_port=api_port,
            web_port=web_port,
            many=yes,
            as_json=json,
            logins={} if config is None else _logins(config),
        )
    )


def _logins(config: Path) -> Mapping[str, Login]:
    """The first login of every family that the settings name."""
    from agent.asic.registry import FAMILIES
    from agent.settings import ENV_PREFIX, AgentSettings
    from gridpivot.settings import load

    logins = load(AgentSettings, config, ENV_PREFIX).asic.logins()
    candidates = {name: (*logins.family.get(name, ()), *logins.site) for name in FAMILIES}
    return {name: found[0] for name, found in candidates.items() if found}
