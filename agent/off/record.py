"""Orders on disk, so that an agent that comes back knows which nodes it shut down and when they are to return."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent.durable import set_aside
from agent.governor.windows import FIRST_PLAUSIBLE_UNIX_S
from agent.off.order import OffOrder, OffState
from gridpivot.clock import Instant

FILE = "node-off.json"
FORMAT = 1
_FIGURES = ("set_at_unix_s", "promised_w", "promised_s", "on_within_s", "before_w", "delivered_w")


def orders_bytes(orders: Iterable[OffOrder]) -> bytes:
    """The file's content."""
    return json.dumps({"format": FORMAT, "orders": [_written(order) for order in orders]}, indent=1).encode()


def load_orders(path: Path, now: Instant) -> list[OffOrder]:
    """As an earlier process left them; a damaged file is set aside and counts as none."""
    try:
        body: Any = json.loads(path.read_bytes())
        if body["format"] != FORMAT:
            raise ValueError("format")
        kept_at_unix_s = path.stat().st_mtime
        return [_read(entry, kept_at_unix_s, now) for entry in body["orders"]]
    except OSError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError):
        set_aside(path)
        return []


def _written(order: OffOrder) -> dict[str, Any]:
    return {
        "order_id": order.order_id,
        "node": order.node,
        "pool": order.pool,
        "by": order.by,
        "why": order.why,
        "ends_unix_s": order.ends_unix_s,
        "state": order.state.value,
        "on_wanted": order.on_wanted,
        "short": order.short,
        **{name: getattr(order, name) for name in _FIGURES},
    }


def _read(entry: Any, kept_at_unix_s: float, now: Instant) -> OffOrder:
    """What was charged or being switched on asks for room anew; what was being stopped has its whole time again."""
    order_id, node, pool, by, why = (str(entry[name]) for name in ("order_id", "node", "pool", "by", "why"))
    order = OffOrder(order_id, node, pool, by, why, float(entry["set_at_unix_s"]))
    for name in _FIGURES:
        setattr(order, name, float(entry[name]))
    ends = entry["ends_unix_s"]
    order.state, order.on_wanted, order.short = OffState(entry["state"]), bool(entry["on_wanted"]), bool(entry["short"])
    order.began_s = order.commanded_s = now.monotonic_s
    if order.state is OffState.WAKING:
        order.state = OffState.WANTS_ROOM
    if ends is not None:
        order.ends_unix_s = float(ends)
        # On a clock that was never set, or that went back, nobody knows when it ends: a person says so then.
        if now.unix_s >= max(kept_at_unix_s - 1.0, FIRST_PLAUSIBLE_UNIX_S):
            order.ends_s = now.monotonic_s + max(0.0, order.ends_unix_s - now.unix_s)
    return order
