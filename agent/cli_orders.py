"""`gridpivot-agent shed`, `hold`, `release`, `orders`: what a technician orders by hand, with or without a link."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.cli_options import Config, Json, StateDir, load_settings
from agent.local_control import ask
from gridpivot import console
from gridpivot.durations import seconds
from gridpivot.errors import SettingsError
from gridpivot.shapes_local import LocalEventFigures, LocalOrderFigures, LocalOrdersShape

_POWER = re.compile(r"^(\d+(?:\.\d+)?)\s*(W|kW|MW)$", re.IGNORECASE)
For = Annotated[str | None, typer.Option("--for", help="How long: 90s, 30m, 2h; without it until released.")]
Why = Annotated[str, typer.Option("--reason", help="Why; goes to the controller's audit.")]


def watts(text: str) -> float:
    """Watts of "2MW", "500 kW"; raises SettingsError."""
    found = _POWER.match(text.strip())
    if found is None:
        raise SettingsError(f"{text}: a power with its unit is wanted, such as 2MW or 500kW")
    return float(found.group(1)) * {"w": 1.0, "kw": 1e3, "mw": 1e6}[found.group(2).lower()]


def _for_s(text: str | None) -> float | None:
    return None if text is None else seconds(text, "--for", least_s=1.0)


def shed(
    power: Annotated[str | None, typer.Argument(help="So much less than now: 2MW, 500kW.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Down to this power instead.")] = None,
    duration: For = None,
    reason: Why = "",
    config: Config = None,
    state_dir: StateDir = None,
) -> None:
    """Lower this site by hand, at once; nothing from afar raises it above until the order ends or is released."""
    if (power is None) == (to is None):
        raise SettingsError("give either a power to shed, such as 2MW, or --to with what should be left")
    request = {"op": "shed", "for_s": _for_s(duration), "reason": reason}
    request |= {"shed_w": watts(power)} if power is not None else {"to_w": watts(to or "")}
    _given(ask(load_settings(config, state_dir).state_dir, request))


def hold(duration: For = None, reason: Why = "", config: Config = None, state_dir: StateDir = None) -> None:
    """Nothing rises above what the site draws now, until the order ends or is released."""
    request = {"op": "hold", "for_s": _for_s(duration), "reason": reason}
    _given(ask(load_settings(config, state_dir).state_dir, request))


def release(
    order_id: Annotated[str | None, typer.Argument(help="One local order; all of them without it.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="End this grid event here instead.")] = None,
    reason: Why = "",
    config: Config = None,
    state_dir: StateDir = None,
) -> None:
    """End local orders, or a grid event; whatever else limits the site stays."""
    if event is not None and order_id is not None:
        raise SettingsError("give either an order or --event")
    request = {"op": "release", "order_id": order_id, "event_id": event, "reason": reason}
    answer = ask(load_settings(config, state_dir).state_dir, request)
    typer.echo(f"released: {', '.join(answer['released'])}")
    _durable(answer)


def orders(config: Config = None, state_dir: StateDir = None, json: Json = False) -> None:
    """Local orders and grid events in force here."""
    settings = load_settings(config, state_dir)
    answer = ask(settings.state_dir, {"op": "orders"})
    shape = LocalOrdersShape(
        site=settings.site,
        power_w=answer["power_w"],
        orders=[
            LocalOrderFigures(
                order_id=order["order_id"],
                kind=order["kind"],
                ceiling_w=order["ceiling_w"],
                by=order["by"],
                reason=order["reason"],
                set_at=_at(order["set_at_unix_s"]),
                ends_at=None if order["ends_unix_s"] is None else _at(order["ends_unix_s"]),
            )
            for order in answer["orders"]
        ],
        events=[LocalEventFigures(**event) for event in answer["events"]],
    )
    if json:
        console.print_json(shape)
        return
    if not shape.orders and not shape.events:
        typer.echo("no local order and no grid event is in force")
        return
    table = Table(box=None)
    for column in ("order or event", "kind", "ceiling", "by", "ends", "reason"):
        table.add_column(column)
    for line in shape.orders:
        ends = "until released" if line.ends_at is None else f"{line.ends_at:%Y-%m-%d %H:%MZ}"
        table.add_row(
            line.order_id, line.kind, f"{line.ceiling_w / 1e6:.3f} MW", escape(line.by), ends, escape(line.reason)
        )
    for entry in shape.events:
        table.add_row(escape(entry.event_id), "grid event", f"{entry.ceiling_w / 1e6:.3f} MW", "controller", "", "")
    Console().print(table)


def _at(unix_s: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_s, dt.UTC)


def _given(answer: dict[str, object]) -> None:
    order = answer["order"]
    assert isinstance(order, dict)
    ends = "until released" if order["ends_unix_s"] is None else f"until {_at(order['ends_unix_s']):%H:%M:%SZ}"
    typer.echo(f"{order['order_id']}: {order['kind']}, ceiling {order['ceiling_w'] / 1e6:.3f} MW {ends}")
    _durable(answer)


def _durable(answer: dict[str, object]) -> None:
    if not answer["durable"]:
        typer.echo("note: the disk refused it; it is in force, but a restart of the agent forgets it", err=True)
