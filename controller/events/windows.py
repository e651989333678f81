"""Grid events and operators' overrides: what ceiling holds at a site, now and later.

Pure and immutable: `Orders` in, `Orders` out. An order may only lower a ceiling, whatever it says. An event starts
when either clock says so (UTC, or monotonic since it was accepted) and ends only when both agree; after a restart the
monotonic half is gone and UTC decides here, while agents hold their own copy. A release ends it at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from controller.dispatch.inputs import Window
from controller.events.calls import Called
from gridpivot.clock import Instant
from gridpivot.errors import Refused

KEEP_ENDED_S = 86_400.0


class OrderKind(StrEnum):
    """Who lowered the ceiling: the grid for several sites, or an operator at one."""

    EVENT = "event"
    OVERRIDE = "override"


@dataclass(frozen=True, slots=True)
class Order:
    """A ceiling for a time: `ceiling_w` [W] or `ceiling_ratio` of each site's own; end None = until released."""

    order_id: str
    kind: OrderKind
    sites: tuple[str, ...]
    ceiling_w: float | None
    ceiling_ratio: float | None
    starts_at_unix_ms: int
    ends_at_unix_ms: int | None
    reason: str
    created_at_unix_ms: int
    accepted_monotonic_s: float | None = None  # None after a restart
    released_at_unix_ms: int | None = None
    product: str = ""  # sold capacity that this event calls
    ceilings_w: Mapping[str, float] = field(default_factory=dict)  # by site, over `ceiling_w`

    def ceiling_for(self, site: str, own_ceiling_w: float) -> float:
        """Ceiling at a site whose own is `own_ceiling_w` [W]; never above it."""
        asked = self.ceiling_w if self.ceiling_w is not None else own_ceiling_w * (self.ceiling_ratio or 0.0)
        return min(own_ceiling_w, self.ceilings_w.get(site, asked))

    def starts_in_s(self, now: Instant) -> float:
        """Seconds until it starts by the earlier clock; negative once it has."""
        by_utc = self.starts_at_unix_ms / 1000 - now.unix_s
        return min(by_utc, self._by_monotonic(self.starts_at_unix_ms, now, by_utc))

    def ends_in_s(self, now: Instant) -> float | None:
        """Seconds until it ends by the later clock; None = until released."""
        if self.ends_at_unix_ms is None:
            return None
        by_utc = self.ends_at_unix_ms / 1000 - now.unix_s
        return max(by_utc, self._by_monotonic(self.ends_at_unix_ms, now, by_utc))

    def over(self, now: Instant) -> bool:
        """Released, or ended by both clocks."""
        ends_in_s = self.ends_in_s(now)
        return self.released_at_unix_ms is not None or (ends_in_s is not None and ends_in_s <= 0)

    def active(self, now: Instant) -> bool:
        """In force now."""
        return not self.over(now) and self.starts_in_s(now) <= 0

    def to_json(self) -> str:
        """For the store; the monotonic clock of this process means nothing to the next one."""
        return json.dumps(asdict(replace(self, accepted_monotonic_s=None)))

    @classmethod
    def from_json(cls, text: str) -> Order:
        """From the store."""
        fields = json.loads(text)
        return cls(**fields | {"kind": OrderKind(fields["kind"]), "sites": tuple(fields["sites"])})

    def _by_monotonic(self, unix_ms: int, now: Instant, otherwise: float) -> float:
        if self.accepted_monotonic_s is None:
            return otherwise
        return (unix_ms - self.created_at_unix_ms) / 1000 - (now.monotonic_s - self.accepted_monotonic_s)


@dataclass(frozen=True, slots=True)
class Orders:
    """All orders by id. Changing one gives a new `Orders`; the old one stays what it was."""

    by_id: Mapping[str, Order] = field(default_factory=dict)

    @classmethod
    def of(cls, orders: Iterable[Order]) -> Orders:
        """From the store's rows."""
        return cls({order.order_id: order for order in orders})

    def adding(self, order: Order) -> Orders:
        """With one more order."""
        return Orders({**self.by_id, order.order_id: order})

    def releasing(self, order_ids: Iterable[str], now: Instant) -> Orders:
        """With these orders ended now."""
        changed = {i: replace(self.by_id[i], released_at_unix_ms=now.unix_ms) for i in order_ids}
        return Orders({**self.by_id, **changed})

    def forgetting_ended(self, now: Instant) -> Orders:
        """Without orders that ended more than a day ago; the store keeps them."""
        horizon = replace_seconds(now, -KEEP_ENDED_S)
        return Orders({i: o for i, o in self.by_id.items() if not (o.over(now) and o.over(horizon))})

    def at(self, site: str, now: Instant, kind: OrderKind | None = None) -> tuple[Order, ...]:
        """Orders for a site that are not over, in force or to come; oldest first."""
        return tuple(
            o for o in self.by_id.values() if site in o.sites and not o.over(now) and (kind is None or o.kind is kind)
        )

    def effective_ceiling_w(self, site: str, own_ceiling_w: float, now: Instant) -> float:
        """The lowest ceiling in force at a site [W]."""
        return min(
            (o.ceiling_for(site, own_ceiling_w) for o in self.at(site, now) if o.active(now)), default=own_ceiling_w
        )

    def overridden_ceiling_w(self, site: str, own_ceiling_w: float, now: Instant) -> float:
        """The site's own ceiling, or lower by an operator's override in force [W]."""
        overrides = self.at(site, now, OrderKind.OVERRIDE)
        return min((o.ceiling_for(site, own_ceiling_w) for o in overrides if o.active(now)), default=own_ceiling_w)

    def windows(self, site: str, own_ceiling_w: float, now: Instant) -> tuple[Window, ...]:
        """Grid events at a site as dispatch and plans want them: seconds from now; one in force starts at or before 0."""
        return tuple(
            Window(o.order_id, o.ceiling_for(site, own_ceiling_w), o.starts_in_s(now), o.ends_in_s(now))
            for o in self.at(site, now, OrderKind.EVENT)
        )

    def calls(self, site: str, now: Instant) -> tuple[Called, ...]:
        """Calls of sold capacity at a site: to come, in force, or ended within the last day (they may have a rest)."""
        return tuple(
            Called(o.product, o.starts_in_s(now), _ended_s(o, now))
            for o in self.by_id.values()
            if o.product and site in o.sites
        )

    def reasons(self) -> dict[str, str]:
        """Why, by order id, for plans."""
        return {i: o.reason for i, o in self.by_id.items()}


def _ended_s(order: Order, now: Instant) -> float | None:
    """When it ends, or ended [s from now]; a release counts from its moment."""
    if order.released_at_unix_ms is not None:
        return order.released_at_unix_ms / 1000 - now.unix_s
    return order.ends_in_s(now)


def replace_seconds(now: Instant, seconds: float) -> Instant:
    """A moment `seconds` later (or earlier) on both clocks."""
    return Instant(now.monotonic_s + seconds, now.unix_s + seconds)


def override(
    order_id: str, site: str, own_ceiling_w: float, ceiling_w: float, for_s: float | None, reason: str, now: Instant
) -> Order:
    """An operator's override from now on; raises Refused for one that would raise the ceiling or makes no sense."""
    _watts(ceiling_w)
    if ceiling_w > own_ceiling_w:
        raise Refused(
            f"override of {ceiling_w / 1e6:.3f} MW is above {site}'s own ceiling of {own_ceiling_w / 1e6:.3f} MW; "
            "an override may only lower (use --release to let go)"
        )
    if for_s is not None and not (math.isfinite(for_s) and 0 < for_s <= 366 * 86_400):
        raise Refused(f"override for {for_s!r} s: give a time between a second and a year, or none")
    _reason(reason)
    ends = None if for_s is None else now.unix_ms + round(for_s * 1000)
    return Order(
        order_id,
        OrderKind.OVERRIDE,
        (site,),
        ceiling_w,
        None,
        now.unix_ms,
        ends,
        reason,
        now.unix_ms,
        accepted_monotonic_s=now.monotonic_s,
    )


def grid_event(
    order_id: str,
    sites: tuple[str, ...],
    *,
    ceiling_w: float | None,
    ceiling_ratio: float | None,
    starts_at_unix_ms: int | None,
    ends_at_unix_ms: int | None,
    reason: str,
    now: Instant,
    product: str = "",
    ceilings_w: Mapping[str, float] | None = None,
) -> Order:
    """A grid event over sites; raises Refused when it names none, no ceiling or two, or ends before it starts.

    `ceilings_w` are ceilings by site, in the place of the one for all.
    """
    if not sites:
        raise Refused("event names no site; give --sites a,b or --sites '*'")
    if (ceiling_w is not None) + (ceiling_ratio is not None) + (ceilings_w is not None) != 1:
        raise Refused("event needs exactly one of a ceiling in watts, a ceiling in per cent, and a sold product")
    if ceiling_w is not None:
        _watts(ceiling_w)
    if ceiling_ratio is not None and not (math.isfinite(ceiling_ratio) and 0 <= ceiling_ratio <= 1):
        raise Refused(f"event ceiling ratio {ceiling_ratio!r}: expected 0 to 1 of the site's own ceiling")
    starts = now.unix_ms if starts_at_unix_ms is None else starts_at_unix_ms
    if ends_at_unix_ms is not None and ends_at_unix_ms <= max(starts, now.unix_ms):
        raise Refused("event ends before it starts, or has ended already; check --start and --end (UTC)")
    _reason(reason)
    return Order(
        order_id,
        OrderKind.EVENT,
        sites,
        ceiling_w,
        ceiling_ratio,
        starts,
        ends_at_unix_ms,
        reason,
        now.unix_ms,
        accepted_monotonic_s=now.monotonic_s,
        product=product,
        ceilings_w=dict(ceilings_w or {}),
    )


def _watts(ceiling_w: float) -> None:
    if not math.isfinite(ceiling_w) or not 0 <= ceiling_w <= 2e9:
        raise Refused(f"ceiling {ceiling_w!r}: expected watts between 0 and 2e9")


def _reason(reason: str) -> None:
    if not reason.strip():
        raise Refused("a reason is needed; it goes into the audit record (--reason)")
