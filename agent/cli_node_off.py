"""`gridpivot-agent node off` and `node on`: a GPU host off for a while, when a person asks for it, and back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from agent.cli_nodes import node, site_settings
from agent.cli_options import Config, StateDir
from gridpivot.durations import seconds
from gridpivot.errors import Refused

if TYPE_CHECKING:
    from pathlib import Path

LOOK_S = 1.0
Name = Annotated[str, typer.Argument(metavar="NAME", help="Node, as node list shows it.")]
Why = Annotated[str, typer.Option("--why", help="Why; goes to the controller's audit.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it is proven, and say how it goes.")]
_SPOKEN = {
    "checking": "held, and looked at twice: does anything run there?",
    "stopping": "asked to shut down; its wall power has to fall",
    "off": "off, by its wall power",
    "wants_room": "waits until the site has made room for the most it may draw",
    "waking": "charged; waits until the other nodes have read back their limits",
    "starting": "on; waits until its limits are read back",
}


@node.command("off")
def off(
    name: Name,
    duration: Annotated[str | None, typer.Option("--for", help="30m, 4h, 2d; without it until node on.")] = None,
    why: Why = "",
    wait: Wait = True,
    config: Config = None,
    state_dir: StateDir = None,
) -> None:
    """Shut an empty node down. Refused while any work runs on it; never forced."""
    for_s = None if duration is None else seconds(duration, "--for", least_s=60.0, most_s=7 * 86_400.0)
    _order({"op": "node_off", "node": name, "for_s": for_s, "reason": why}, name, "off", wait, config, state_dir)


@node.command("on")
def on(name: Name, why: Why = "", wait: Wait = True, config: Config = None, state_dir: StateDir = None) -> None:
    """Bring a node back before its time, once the site has room for it."""
    _order({"op": "node_on", "node": name, "reason": why}, name, "", wait, config, state_dir)


def _order(
    request: dict[str, Any], name: str, until: str, wait: bool, config: Path | None, state_dir: Path | None
) -> None:
    from agent.local_control import ask

    place = site_settings(config, state_dir).state_dir
    answer = ask(place, request)
    typer.echo(f"{answer['order']['order_id']}: {name} {answer['order']['state']}")
    if not answer["durable"]:
        typer.echo("note: the disk refused it; it is in force, but a restart of the agent forgets it", err=True)
    if not wait:
        return
    with Console(stderr=True).status("") as status:
        while True:
            found = ask(place, {"op": "node_orders"})
            order = next((one for one in found["orders"] if one["node"] == name), None)
            if order is None:
                break
            if order["state"] == until:
                typer.echo(f"{name} is off: {order['delivered_w'] / 1e3:.2f} of {order['promised_w'] / 1e3:.2f} kW")
                return
            if order["short"] and until:
                raise Refused(f"{name} did not shut down in time; it stays held until node on, or until it is off")
            status.update(f"{name}: {_SPOKEN.get(order['state'], order['state'])} {order['detail']}".rstrip())
            time.sleep(LOOK_S)
    ending = str(found["endings"].get(name, "its order has ended"))
    if until:
        raise Refused(f"{name} {ending}")
    typer.echo(f"{name}: {ending}")
