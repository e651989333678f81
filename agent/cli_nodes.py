"""`gridpivot-agent node-token` and `node`: which GPU hosts may report to this site's agent.

Works on the files beside the CA, with or without a running agent, which looks at them every second.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.cli_options import Config, Json, StateDir, load_settings
from gridpivot import console
from gridpivot.durations import seconds
from gridpivot.errors import GridpivotError, Refused, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from agent.settings import AgentSettings
    from gridpivot.shapes_nodes import NodesShape

LONGEST_VALID_S = 30 * 86_400.0
node_token = typer.Typer(help="Tokens that let a GPU host in: single use.", no_args_is_help=True)
node = typer.Typer(help="GPU hosts of this site: who they are, and who may no longer come.", no_args_is_help=True)


@node_token.command("create")
def create_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Node, as a pool's `nodes` name it.")],
    valid: Annotated[str, typer.Option(help="How long it may be used: 30m, 48h, 7d.")] = "48h",
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Print one token for one node. It is shown once, good once, and names this agent and its CA for nodes."""
    from agent.nodes.authority import open_authority, place_of
    from agent.nodes.enrolment import make_token
    from agent.nodes.registry import Registry
    from gridpivot.shapes_nodes import NodeTokenShape

    settings = site_settings(config, state_dir)
    valid_s = seconds(valid, "--valid", least_s=60.0, most_s=LONGEST_VALID_S)
    if all(name not in pool.nodes for pool in settings.gpu.pools):
        raise Refused(f"no [[gpu.pools]] names node {name!r}; add it to a pool's `nodes`, and restart the agent")
    place, now = place_of(settings), dt.datetime.now(dt.UTC)
    authority, registry = open_authority(place, now), Registry(place.directory)
    ports = _port(settings.nodes.listen), _port(settings.nodes.enrol_listen)
    text, token_id, ends_ms = make_token(
        registry, place, authority, name, valid_s, ports, round(now.timestamp() * 1000)
    )
    _give(place.directory)
    shape = NodeTokenShape(token=text, token_id=token_id, site=settings.site, node=name, expires_at=_moment(ends_ms))
    if as_json:
        console.print_json(shape)
        return
    typer.echo(text)
    told = f"token {token_id} for node {name}, good once until {shape.expires_at:%Y-%m-%d %H:%MZ}; on {name}: gridpivot-agent enroll --token-file -"
    typer.echo(told, err=True)


@node.command("list")
def list_nodes(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Every node of the settings and of the books; what it does now, while the agent runs."""
    settings = site_settings(config, state_dir)
    shape = listed(settings)
    if as_json:
        console.print_json(shape)
        return
    table = Table(box=None)
    for column in ("node", "pool", "certificate", "until", "link", "GPUs", "draw", "wall", "may draw", "cut off"):
        table.add_column(column)
    for one in shape.nodes:
        table.add_row(
            escape(one.node),
            escape(one.pool or "none"),
            one.state,
            "" if one.certificate_ends_at is None else f"{one.certificate_ends_at:%Y-%m-%d}",
            (one.link or "unknown") if one.order is None else f"{one.link}, {one.order}",
            "unknown" if one.gpus is None else str(one.gpus),
            "unknown" if one.power_w is None else f"{one.power_w:.0f} W",
            "unknown" if one.wall_w is None else f"{one.wall_w:.0f} W",
            "unknown" if one.limit_w is None else f"{one.limit_w:.0f} W",
            "unknown" if one.fallback_w is None else f"{one.fallback_w:.0f} W",
        )
    Console().print(table)


@node.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As node list shows it.")],
    config: Config = None,
    state_dir: StateDir = None,
) -> None:
    """A node's certificates and unused tokens are good no more; a running agent closes its stream within seconds."""
    from agent.nodes.authority import place_of
    from agent.nodes.registry import Registry

    settings = site_settings(config, state_dir)
    place = place_of(settings)
    count = Registry(place.directory).revoke(name, round(dt.datetime.now(dt.UTC).timestamp() * 1000))
    _give(place.directory)
    typer.echo(f"node {name} is revoked ({count} certificates); its GPUs stay charged at what they may draw")


def listed(settings: AgentSettings) -> NodesShape:
    """Nodes of the settings and of the books."""
    from agent.local_control import ask
    from agent.nodes.authority import place_of
    from agent.nodes.registry import Registry
    from gridpivot.shapes_nodes import NodeFigures, NodesShape

    book, now_ms = Registry(place_of(settings).directory).read(), round(dt.datetime.now(dt.UTC).timestamp() * 1000)
    pools = {name: pool.name for pool in settings.gpu.pools for name in pool.nodes}
    try:
        live: dict[str, Any] = ask(settings.state_dir, {"op": "nodes"}).get("nodes", {})
    except GridpivotError:
        live = {}  # no agent runs here
    try:
        orders = ask(settings.state_dir, {"op": "node_orders"})["orders"]
    except GridpivotError:
        orders = []  # or none of its nodes can be switched off
    for one in orders:
        ends = one["ends_unix_s"]
        ends_at = None if ends is None else dt.datetime.fromtimestamp(ends, dt.UTC)
        live.setdefault(one["node"], {}).update(order=one["state"], order_ends_at=ends_at)
    figures = []
    for name in sorted({*pools, *(row.node for row in book.certificates), *(row.node for row in book.tokens)}):
        row = book.newest(name)
        waits = any(t.node == name and t.used_at_unix_ms is None and now_ms < t.expires_at_unix_ms for t in book.tokens)
        if row is not None and row.revoked_at_unix_ms is None:
            state = "valid" if now_ms < row.not_after_unix_ms else "expired"
        else:
            state = "invited" if waits else "none" if row is None else "revoked"
        figures.append(
            NodeFigures(
                node=name,
                pool=pools.get(name),
                state=state,
                certificate_ends_at=None if row is None else _moment(row.not_after_unix_ms),
                **live.get(name, {}),
            )
        )
    return NodesShape(site=settings.site, nodes=figures)


def site_settings(config: Path | None, state_dir: Path | None) -> AgentSettings:
    """Settings of a site's agent; raises SettingsError on a node."""
    settings = load_settings(config, state_dir)
    if settings.role != "site":
        raise SettingsError('this is a node (role = "node"); run it where the site\'s agent runs')
    return settings


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _moment(unix_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC)


def _give(directory: Path) -> None:
    """What root writes here belongs to the service."""
    from gridpivot.ownership import give_to_owner

    give_to_owner(directory.parent, [directory])
