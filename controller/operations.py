"""What operators may do and see, as plain calls: the API puts it on the wire, tests call it directly.

Every change is refused or recorded: who, what, why, and under which idempotency key, in the same transaction as its
effect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controller.board import PlanBoard
from controller.connection import BacklogSettings
from controller.dispatch.inputs import FleetState, Window
from controller.dispatch.preview import NOTICE_S, Imagined
from controller.events.calls import ceiling_w as called_ceiling_w
from controller.events.calls import least_end_ms, sold_of
from controller.events.windows import Order, OrderKind, Orders, grid_event, override
from controller.fleet.state import Memory, SiteTerms, fleet_state, own_ceiling_w
from controller.fleet.tables import Fleet
from controller.identity.caller import Caller
from controller.markets.book import MarketBook
from controller.store.ledger import Audited, AuditEntry, Ledger, OrderRow, new_id
from controller.store.pending import PendingRecords
from gridpivot.clock import Clock, Instant
from gridpivot.errors import GridpivotError, Refused

RECORD_DEADLINE_S = 3.0  # a store that takes longer refuses: a lowered ceiling must not wait for a locked database


@dataclass(frozen=True, slots=True)
class OverrideDone:
    """Effective ceiling afterwards [W] and the audit record."""

    ceiling_w: float
    audit_id: str
    repeated: bool


@dataclass(frozen=True, slots=True)
class EventDone:
    """The event, the sites it reaches, the audit record."""

    event_id: str
    sites: tuple[str, ...]
    audit_id: str
    repeated: bool


@dataclass(slots=True)
class Operations:
    """Live state, markets, orders and plans of one controller."""

    terms: Mapping[str, SiteTerms]
    fleet: Fleet
    book: MarketBook
    board: PlanBoard
    ledger: Ledger
    clock: Clock
    fresh_s: float
    fleet_floor_hs: float = 0.0
    speed: float = 1.0
    backlogs: Sequence[BacklogSettings] = ()
    memory: Memory | None = None
    records_committed: Callable[[], int] = lambda: 0
    orders: Orders = field(default_factory=Orders)
    pending: PendingRecords = field(default_factory=PendingRecords)

    async def restore(self) -> None:
        """Orders, plans and statuses as the last run left them."""
        now = self.clock.now()
        rows = await self.ledger.open_orders(now.unix_ms - 86_400_000)
        self.orders = Orders.of(Order.from_json(row.payload) for row in rows)
        plans = await self.ledger.last_plans()
        self.board.restore({site: plan for site, plan in plans.items() if site in self.terms}, now)
        for site in self.terms:
            self.board.remember(site, await self.ledger.statuses(site))

    def see(self, now: Instant) -> FleetState:
        """The fleet as dispatch sees it."""
        self.orders = self.orders.forgetting_ended(now)
        return self._seen(self.orders, now)

    def _seen(self, orders: Orders, now: Instant) -> FleetState:
        sites = [(terms, self.fleet[name]) for name, terms in self.terms.items()]
        return fleet_state(
            sites,
            self.book,
            orders,
            now,
            fleet_floor_hs=self.fleet_floor_hs,
            speed=self.speed,
            backlogs=self.backlogs,
            fresh_s=self.fresh_s,
            memory=self.memory,
        )

    def ceiling_w(self, site: str, now: Instant) -> float:
        """Effective ceiling of a site now [W]: contract, overrides, grid events."""
        return self.orders.effective_ceiling_w(site, self._own_w(site), now)

    def known(self, site: str) -> str:
        """The name, if the controller has such a site; raises Refused with the nearest ones otherwise."""
        if site not in self.terms:
            raise Refused(
                f"no site {site!r}; known: {', '.join(list(self.terms)[:10])}{' ...' * (len(self.terms) > 10)}"
            )
        return site

    async def set_override(
        self, site: str, ceiling_w: float | None, for_s: float | None, reason: str, key: str, caller: Caller
    ) -> OverrideDone:
        """Lower a site's ceiling, or (None) release what operators lowered; raises Refused."""
        now = self.clock.now()
        name = self.known(site)
        standing = self.orders.at(name, now, OrderKind.OVERRIDE)
        after = self.orders.releasing((o.order_id for o in standing), now)
        new: Order | None = None
        if ceiling_w is not None:
            new = override(new_id("override", now), name, self._own_w(name), ceiling_w, for_s, reason, now)
            after = after.adding(new)
        elif not reason.strip():
            raise Refused("a reason is needed; it goes into the audit record (--reason)")
        effective = after.effective_ceiling_w(name, self._own_w(name), now)
        entry = _entry(
            caller,
            "override" if new is not None else "override-release",
            reason,
            json.dumps({"site": name, "ceiling_w": ceiling_w, "for_s": for_s}),
            json.dumps({"ceiling_w": effective}),
            key,
        )
        changed = [after.by_id[o.order_id] for o in standing] + ([new] if new is not None else [])
        done = await self._record(entry, changed, now)
        return OverrideDone(json.loads(done.response)["ceiling_w"], done.audit_id, done.repeated)

    async def create_event(
        self,
        sites: tuple[str, ...],
        *,
        ceiling_w: float | None,
        ceiling_ratio: float | None,
        starts_at_unix_ms: int | None,
        ends_at_unix_ms: int | None,
        reason: str,
        key: str,
        caller: Caller,
        product: str = "",
    ) -> EventDone:
        """A grid event; "*" means all sites. A call of a sold `product` may come without a ceiling. Raises Refused."""
        now = self.clock.now()
        event = self._grid_event(
            new_id("event", now),
            sites,
            ceiling_w,
            ceiling_ratio,
            starts_at_unix_ms,
            ends_at_unix_ms,
            reason,
            product,
            now,
        )
        entry = _entry(
            caller,
            "event",
            reason,
            event.to_json(),
            json.dumps({"event_id": event.order_id, "sites": event.sites}),
            key,
        )
        done = await self._record(entry, [event], now)
        answer = json.loads(done.response)
        return EventDone(answer["event_id"], tuple(answer["sites"]), done.audit_id, done.repeated)

    async def release_event(self, event_id: str, reason: str, key: str, caller: Caller) -> EventDone:
        """End a grid event before its time, or one without an end; raises Refused for one that is not to be ended."""
        now = self.clock.now()
        event = self.orders.by_id.get(event_id)
        earlier = await self.ledger.audited(f"{caller.name}:{key}") if key else None
        if earlier is not None:  # a retry; the event may have been forgotten meanwhile
            answer = json.loads(earlier.response)
            return EventDone(answer["event_id"], tuple(answer["sites"]), earlier.audit_id, repeated=True)
        if event is None or event.kind is not OrderKind.EVENT:
            raise Refused(f"no grid event {event_id!r}; see gridpivot event list")
        if event.over(now) and event.released_at_unix_ms is None:
            raise Refused(f"grid event {event_id} has ended already")
        if not reason.strip():
            raise Refused("a reason is needed; it goes into the audit record (--reason)")
        after = self.orders.releasing((event_id,), now)
        request = json.dumps({"event_id": event_id})
        told = json.dumps({"event_id": event_id, "sites": event.sites})
        done = await self._record(
            _entry(caller, "event-release", reason, request, told, key), [after.by_id[event_id]], now
        )
        return EventDone(event_id, event.sites, done.audit_id, done.repeated)

    def events(self, now: Instant, *, ended: bool = False) -> list[tuple[Order, str, float]]:
        """Orders with their state (to_come, active, ended) and their lowest ceiling [W], by start."""
        lines = []
        for order in sorted(self.orders.by_id.values(), key=lambda o: o.starts_at_unix_ms):
            state = "ended" if order.over(now) else "active" if order.active(now) else "to_come"
            sites = [site for site in order.sites if site in self.terms]
            if sites and (ended or state != "ended"):
                lines.append((order, state, min(order.ceiling_for(site, self._own_w(site)) for site in sites)))
        return lines

    def imagined(
        self,
        sites: tuple[str, ...],
        *,
        ceiling_w: float | None,
        ceiling_ratio: float | None,
        starts_at_unix_ms: int | None,
        ends_at_unix_ms: int | None,
        product: str = "",
    ) -> Imagined:
        """The fleet with and without such an event; nothing is recorded. Raises Refused as `create_event` does."""
        now = self.clock.now()
        event = self._grid_event(
            "preview",
            sites,
            ceiling_w,
            ceiling_ratio,
            starts_at_unix_ms,
            ends_at_unix_ms,
            "preview",
            product,
            now,
        )
        later_ms, ends_ms = round(NOTICE_S / self.speed * 1000), event.ends_at_unix_ms
        later = replace(
            event,
            starts_at_unix_ms=max(event.starts_at_unix_ms, now.unix_ms) + later_ms,
            ends_at_unix_ms=None if ends_ms is None else ends_ms + later_ms,
        )
        starts_s, ends_s = event.starts_in_s(now), event.ends_in_s(now)
        windows = {
            site: Window(event.order_id, event.ceiling_for(site, self._own_w(site)), starts_s, ends_s)
            for site in event.sites
        }
        before = self.see(now)
        called, deferred = (self._seen(self.orders.adding(order), now) for order in (event, later))
        return Imagined(before, called, deferred, windows)

    def _grid_event(
        self,
        order_id: str,
        sites: tuple[str, ...],
        ceiling_w: float | None,
        ceiling_ratio: float | None,
        starts_at_unix_ms: int | None,
        ends_at_unix_ms: int | None,
        reason: str,
        product: str,
        now: Instant,
    ) -> Order:
        """An event as asked for, a call of a sold product under its terms at each site; raises Refused."""
        names = self._named(sites)
        sold = [sold_of(name, self.terms[name].connection, product) for name in names] if product else []
        starts_ms = now.unix_ms if starts_at_unix_ms is None else starts_at_unix_ms
        for terms in sold:
            ends_at_unix_ms = least_end_ms(terms, starts_ms, ends_at_unix_ms)
        computed = product and ceiling_w is None and ceiling_ratio is None
        return grid_event(
            order_id,
            names,
            ceiling_w=ceiling_w,
            ceiling_ratio=ceiling_ratio,
            starts_at_unix_ms=starts_at_unix_ms,
            ends_at_unix_ms=ends_at_unix_ms,
            reason=reason,
            now=now,
            product=product,
            ceilings_w={name: self._called_w(name, product) for name in names} if computed else None,
        )

    def _called_w(self, site: str, product: str) -> float:
        """Ceiling that a call of a product means at a site [W]; raises Refused."""
        rollup = self.fleet[site].rollup
        metered = rollup is not None and rollup.HasField("metered_power_w")
        standing_w = rollup.metered_power_w if rollup is not None and metered else None
        return called_ceiling_w(site, self.terms[site].connection, product, standing_w)

    def _named(self, sites: tuple[str, ...]) -> tuple[str, ...]:
        """Sites without repetition, "*" meaning all; raises Refused for an unknown one."""
        return tuple(self.terms) if sites == ("*",) else tuple(dict.fromkeys(self.known(s) for s in sites))

    async def _record(self, entry: AuditEntry, changed: list[Order], now: Instant) -> Audited:
        """Record what was ordered, then let it count. With a store that refuses, what only lowers counts at once and its
        record waits in memory; what raises is refused."""
        rows = [
            OrderRow(o.order_id, o.kind.value, o.created_at_unix_ms, o.released_at_unix_ms, o.to_json())
            for o in changed
        ]
        try:
            async with asyncio.timeout(RECORD_DEADLINE_S):
                done = await self.ledger.record_order(entry, rows, now)
        except Refused:
            raise
        except (GridpivotError, TimeoutError) as error:
            why = str(error) or f"the store gave no answer in {RECORD_DEADLINE_S:g} s"
            if self._raises(changed, now):
                raise GridpivotError(
                    f"{why}; nothing was changed: while the store refuses, orders may only lower"
                ) from None
            done = Audited(new_id("audit", now), entry.response, repeated=False)
            self.pending.keep(
                f"{entry.action} by {entry.actor}: {entry.request}",
                why,
                lambda: self.ledger.record_order(entry, rows, now),
            )
        if not done.repeated:
            # Not `after`: another order may have been recorded while this one was on its way to the disk.
            for order in changed:
                self.orders = self.orders.adding(order)
        return done

    def _raises(self, changed: list[Order], now: Instant) -> bool:
        """Whether any site's ceiling, now or later, would be higher with these changes."""
        after = self.orders
        for order in changed:
            after = after.adding(order)
        gone = any(o.released_at_unix_ms is not None for o in changed)
        sites = {site for order in changed for site in order.sites if site in self.terms}
        higher = any(
            after.effective_ceiling_w(s, self._own_w(s), now)
            > self.orders.effective_ceiling_w(s, self._own_w(s), now) + 1.0
            for s in sites
        )
        return higher or (gone and len(changed) == 1)

    def _own_w(self, site: str) -> float:
        return own_ceiling_w(self.terms[site], self.fleet[site].rollup)


def _entry(caller: Caller, action: str, reason: str, request: str, response: str, key: str) -> AuditEntry:
    """What is recorded of a call. A key belongs to its caller: two who take the same one do not meet."""
    if len(key) > 100:
        raise Refused("idempotency key longer than 100 characters")
    own_key = f"{caller.name}:{key}" if key else ""
    return AuditEntry(
        caller.name, action, reason, request, response, own_key, role=caller.role.value, origin=caller.origin
    )
