"""What the controller remembers of its sites between looks: the month's metered peaks, and each AI pool's habits.

Fed from roll-ups as they come; peaks are made durable, so that a restart does not think a month's peak is still to be
paid. Habits are learned anew after a restart: until then the present demand stands for the future.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from controller.dispatch.terms import DemandCharge, Queue, WattStep
from controller.fleet.tables import Fleet, SiteLive
from controller.markets.ai_backlog import DEFER_S, Piece, waited
from controller.markets.ai_demand import QUARTER_S, DemandSample, forecast_demand, habit_w, remembered
from controller.markets.ai_queue import forecast_from_queue
from controller.markets.billing import Billing, EnergyReading, demand_charge, metered
from controller.markets.book import MarketBook
from controller.store.peaks import PeakRow, Peaks
from gridpivot.clock import Clock, Instant
from gridpivot.curves import AiPool
from gridpivot.errors import GridpivotError
from gridpivot.observability import get_logger

LOOK_S = 5.0
log = get_logger(__name__)


class SiteMemory:
    """Billing and habits by site. `tariffs` names each site's tariff, None = its region's."""

    def __init__(
        self,
        fleet: Fleet,
        book: MarketBook,
        peaks: Peaks,
        clock: Clock,
        tariffs: Mapping[str, str | None],
        speed: float = 1.0,
    ) -> None:
        self._fleet, self._book, self._peaks, self._clock = fleet, book, peaks, clock
        self._tariffs, self._speed = tariffs, speed
        self._billing: dict[str, Billing] = {}
        self._habits: dict[tuple[str, str], tuple[DemandSample, ...]] = {}
        self._waited: dict[tuple[str, str], tuple[Piece, ...] | None] = {}
        self._usual: dict[tuple[str, str], tuple[float, Sequence[float] | None]] = {}  # by quarter hour
        self._seen: dict[str, Instant] = {}
        self._recorded: dict[str, PeakRow] = {}

    async def restore(self) -> None:
        """Peaks as the last run left them."""
        self._recorded = await self._peaks.newest()
        for name, row in self._recorded.items():
            self._billing[name] = Billing(row.period_start_unix_s, row.peak_w)

    async def run(self) -> None:
        """Look at what came, make new peaks durable; for ever."""
        while True:
            try:
                await self.look(self._clock.now())
            except GridpivotError as error:
                log.warning("billing peaks not recorded", why=str(error))
            await asyncio.sleep(LOOK_S)

    async def look(self, now: Instant) -> None:
        """Take over every roll-up that is new since the last look."""
        for live in self._fleet:
            if live.rollup is not None and live.rollup_at is not None and self._seen.get(live.name) != live.rollup_at:
                self._seen[live.name] = live.rollup_at
                self._take(live, self._book.data_unix_s(live.rollup_at))
        for name, billing in self._billing.items():
            row = PeakRow(name, billing.period_start_unix_s, billing.peak_w)
            if billing.peak_w > 0 and row != self._recorded.get(name):
                await self._peaks.record(row, now)
                self._recorded[name] = row

    def _take(self, live: SiteLive, at_unix_s: float) -> None:
        rollup, tariff = live.rollup, self._book.tariff(live.region, self._tariffs.get(live.name))
        assert rollup is not None
        if tariff is not None and rollup.HasField("import_energy_j"):
            reading = EnergyReading(at_unix_s, rollup.import_energy_j)
            self._billing[live.name] = metered(self._billing.get(live.name), reading, tariff)
        for pool in rollup.pools:
            key = (live.name, pool.name)
            wanted = pool.demand_w if pool.HasField("demand_w") else None
            self._habits[key] = remembered(self._habits.get(key, ()), at_unix_s, wanted)
            waits_gpu_h = pool.backlog_gpu_h if pool.HasField("backlog_gpu_h") else None
            defer_s = pool.defer_within_s if pool.HasField("defer_within_s") else DEFER_S
            self._waited[key] = waited(self._waited.get(key), waits_gpu_h, at_unix_s, defer_s)

    def demand_charge(self, site: str, region: str, now: Instant) -> DemandCharge | None:
        """The charge on a new peak as dispatch wants it; None where the tariff has none."""
        tariff = self._book.tariff(region, self._tariffs.get(site))
        if tariff is None:
            return None
        return demand_charge(self._billing.get(site), tariff, self._book.data_unix_s(now), self._speed)

    def demand_ahead(
        self, site: str, pool: AiPool, present_w: float | None, queue: Queue | None, now: Instant
    ) -> tuple[WattStep, ...]:
        """What a pool will probably want [W]; () while nothing is known of it. Without a queue its habits alone tell."""
        if present_w is None:
            return ()  # unknown demand is planned as all that the pool can draw
        key, data_s = (site, pool.name), self._book.data_unix_s(now)
        history, quarter = self._habits.get(key, ()), data_s // QUARTER_S
        if key not in self._usual or self._usual[key][0] != quarter:
            self._usual[key] = quarter, habit_w(history, data_s)
        habit = self._usual[key][1]
        if queue is not None:
            return forecast_from_queue(queue, pool, present_w, data_s, habit, speed=self._speed)
        return forecast_demand((), present_w, data_s, speed=self._speed, habit=habit)

    def waited(self, site: str, pool: str) -> tuple[Piece, ...] | None:
        """Deferrable work of a pool by when it came; None = never told. Learned anew after a restart."""
        return self._waited.get((site, pool))
