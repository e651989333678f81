"""Settles each day once it is over: reads its decisions, asks `settlement.daily`, keeps and shows the accounts.

Days are UTC. A controller that was down at midnight settles yesterday when it is back; older days stay as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.dispatch.inputs import Decision
from controller.dispatch.parameters import Parameters
from controller.replay import decision_of, fleet_of
from controller.settlement.account import Account, regret_ratio
from controller.settlement.daily import DAY_S, LIVE, QUARTER_S, Taken, fleet_totals, settle_day
from controller.store.ledger import DecisionRecord
from controller.store.store import Store
from gridpivot.clock import Clock
from gridpivot.errors import GridpivotError
from gridpivot.observability import get_logger

LOOK_S = 600.0
GRACE_S = 900.0  # after midnight: the day's last plans are in force until the next ones
BEFORE_S = 3_600.0  # a plan of the hour before midnight still holds at midnight
log = get_logger(__name__)


class Settling(Collector):
    """The newest settled day, and the loop that settles the next."""

    def __init__(self, store: Store, clock: Clock, parameters: Parameters) -> None:
        self._store, self._clock, self._parameters = store, clock, parameters
        self.day_unix_s: float | None = None
        self.accounts: Sequence[Account] = ()

    async def restore(self) -> None:
        """The newest day that the last run settled."""
        newest = await self._store.settlements.newest()
        if newest is not None:
            self.day_unix_s, self.accounts = newest

    async def run(self) -> None:
        """Settle yesterday as soon as it is over; for ever."""
        while True:
            try:
                await self.settle_yesterday()
            except GridpivotError as error:
                log.warning("yesterday was not settled", why=str(error))
            await asyncio.sleep(LOOK_S)

    async def settle_yesterday(self) -> bool:
        """Settle the last whole day unless that was done; whether it was done now."""
        day = ((self._clock.now().unix_s - GRACE_S) // DAY_S - 1) * DAY_S
        if self.day_unix_s is not None and self.day_unix_s >= day:
            return False
        records = await self._decisions(day)
        accounts = await asyncio.to_thread(self._settle, records, day)
        await self._store.settlements.record(day, accounts)
        self.day_unix_s, self.accounts = day, accounts
        totals = fleet_totals(accounts)
        log.info("day settled", sites=len({a.site for a in accounts}), **{k: round(v) for k, v in totals.items()})
        return True

    async def _decisions(self, day: float) -> list[DecisionRecord]:
        """Of each quarter hour the newest decision at its beginning."""
        times = await self._store.ledger.decision_times(round((day - BEFORE_S) * 1000), round((day + DAY_S) * 1000))
        quarters = (day + QUARTER_S * np.arange(round(DAY_S / QUARTER_S))) * 1000.0
        at = np.searchsorted([at_ms for at_ms, _ in times], quarters, side="right") - 1
        wanted = list(dict.fromkeys(times[k][1] for k in at.tolist() if k >= 0))
        found = [await self._store.ledger.decision(decision_id) for decision_id in wanted]
        return [record for record in found if record is not None]

    def _settle(self, records: Sequence[DecisionRecord], day: float) -> list[Account]:
        taken = []
        for record in records:
            decision: Decision = decision_of(record)
            taken.append(Taken(record.decided_at.unix_s, fleet_of(record), {d.site: d for d in decision.sites}))
        return settle_day(taken, day, self._parameters)

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: the registry need not collect to know the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Margins and regrets of the newest settled day."""
        day = GaugeMetricFamily("gridpivot_settled_day_timestamp_seconds", "Beginning of the newest settled day.")
        if self.day_unix_s is not None:
            day.add_metric((), self.day_unix_s)
        yield day
        margin = GaugeMetricFamily(
            "gridpivot_settled_margin_usd", "What a rule earned that day at a site.", labels=("site", "policy")
        )
        regret = GaugeMetricFamily(
            "gridpivot_settled_regret_ratio",
            "Share of what perfect foresight would have earned that the plans missed.",
            labels=("site",),
        )
        by_site: dict[str, dict[str, float]] = {}
        for account in self.accounts:
            margin.add_metric([account.site, account.policy], account.margin_usd)
            by_site.setdefault(account.site, {})[account.policy] = account.margin_usd
        for site, margins in by_site.items():
            missed = regret_ratio(margins["foresight"], margins[LIVE])
            if missed is not None:
                regret.add_metric([site], missed)
        yield margin
        yield regret
