"""Orders that a person at the site gives by hand: shed so much, hold, let go. Pure.

They lie under locks, protection, heat and grid events, and over everything from afar: the effective ceiling is the lowest
of all, so an order from afar that would raise power changes nothing. `release` ends local orders only. An order with an
end ends when both clocks agree; after a restart the rest of its time is counted again from then, and on a clock that was
never set it holds until somebody releases it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent.governor.state import Orders
from agent.governor.windows import FIRST_PLAUSIBLE_UNIX_S
from gridpivot.clock import Instant
from gridpivot.errors import Refused
from gridpivot.vocabulary import Rung

LONGEST_S = 7 * 86_400.0
MOST_ORDERS = 20
MOST_TEXT = 200


@dataclass(frozen=True, slots=True)
class LocalOrder:
    """A ceiling given by hand. `kind` is shed or hold; a hold also forbids every raise below its ceiling."""

    order_id: str
    kind: str
    ceiling_w: float
    by: str
    reason: str
    set_at_unix_s: float
    ends_unix_s: float | None = None
    ends_monotonic_s: float | None = None  # of this run

    def over(self, now: Instant) -> bool:
        """Both clocks say that its time is up."""
        if self.ends_unix_s is None or self.ends_monotonic_s is None:
            return False
        return now.unix_s >= self.ends_unix_s and now.monotonic_s >= self.ends_monotonic_s


class LocalOrders:
    """Those in force at one site."""

    def __init__(self) -> None:
        self.orders: dict[str, LocalOrder] = {}

    def give(
        self, order_id: str, kind: str, ceiling_w: float, for_s: float | None, by: str, reason: str, now: Instant
    ) -> LocalOrder:
        """A new order; raises Refused for figures that make no sense."""
        if not 0.0 <= ceiling_w <= 1e12:
            raise Refused(f"a ceiling of {ceiling_w / 1e6:g} MW makes no sense; nothing was ordered")
        if for_s is not None and not 1.0 <= for_s <= LONGEST_S:
            raise Refused("an order lasts from a second to seven days, or until it is released")
        if len(self.orders) >= MOST_ORDERS:
            raise Refused(f"{MOST_ORDERS} local orders are in force; release some first")
        ends_s, ends_monotonic_s = None, None
        if for_s is not None:
            ends_s, ends_monotonic_s = now.unix_s + for_s, now.monotonic_s + for_s
        text = reason[:MOST_TEXT]
        order = LocalOrder(order_id, kind, ceiling_w, by[:MOST_TEXT], text, now.unix_s, ends_s, ends_monotonic_s)
        self.orders[order_id] = order
        return order

    def release(self, order_id: str | None) -> list[LocalOrder]:
        """End one, or all; raises Refused when there is none."""
        if order_id is None:
            gone = list(self.orders.values())
        else:
            gone = [order for order in self.orders.values() if order.order_id == order_id]
        if not gone:
            raise Refused("no such local order is in force" if order_id else "no local order is in force")
        for order in gone:
            del self.orders[order.order_id]
        return gone

    def ended(self, now: Instant) -> list[LocalOrder]:
        """Take away those whose time is up."""
        gone = [order for order in self.orders.values() if order.over(now)]
        for order in gone:
            del self.orders[order.order_id]
        return gone

    @property
    def ceiling_w(self) -> float | None:
        """The lowest ceiling given by hand [W]; None without any."""
        return min((order.ceiling_w for order in self.orders.values()), default=None)

    @property
    def holds(self) -> bool:
        """Whether somebody wants nothing raised."""
        return any(order.kind == "hold" for order in self.orders.values())

    def limit(self, orders: Orders) -> Orders:
        """The governor's orders under what was ordered by hand: lower, never higher."""
        ceiling_w = self.ceiling_w
        if ceiling_w is None:
            return orders
        rung = Rung.CLIPPED_PLAN if orders.rung is Rung.PLAN and ceiling_w < orders.ceiling_w else orders.rung
        return replace(
            orders,
            ceiling_w=min(orders.ceiling_w, ceiling_w),
            rung=rung,
            may_raise=orders.may_raise and not self.holds,
        )

    def to_json(self) -> list[dict[str, Any]]:
        """For the disk; the monotonic clock of this run means nothing to the next."""
        return [asdict(replace(order, ends_monotonic_s=None)) for order in self.orders.values()]

    def restore(self, entries: Iterable[Mapping[str, Any]], kept_at_unix_s: float, now: Instant) -> None:
        """What the last run left; raises ValueError or TypeError for what is no order."""
        believed = now.unix_s >= max(kept_at_unix_s - 1.0, FIRST_PLAUSIBLE_UNIX_S)
        for entry in entries:
            order = LocalOrder(**{**entry, "ends_monotonic_s": None})
            if order.ends_unix_s is not None and believed:
                left_s = max(0.0, order.ends_unix_s - now.unix_s)
                order = replace(order, ends_monotonic_s=now.monotonic_s + left_s)
            self.orders[order.order_id] = order
