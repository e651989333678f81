"""/metrics of the controller: aggregates over the fleet tables, never a series per device.

A custom collector reads live state when a scraper asks. Labels are site, load, class, state and closed vocabularies;
no address and no serial ever. What is unknown has no sample: absent and zero are different things.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from google.protobuf.message import Message
from prometheus_client import CollectorRegistry, Metric, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from controller.dispatch_metrics import dispatch_families
from controller.fleet.state import margin_usd_per_h
from controller.fleet.tables import SiteLive
from controller.operations import Operations
from controller.planner import PlanLoop
from controller.store.store import Store
from gridpivot import __version__
from gridpivot.clock import Instant
from gridpivot.httpd import Reply, Route
from gridpivot.vocabulary import DeviceState, LinkState, Load, MeterTrust, PlanState, PriceRung, Rung

CHUNK_BYTES = 64 * 1024
STATES = tuple(DeviceState)
COUNTED_LINKS = tuple(LinkState)


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """What the session service counts."""

    sessions: int = 0
    refused: int = 0
    bad_records: int = 0
    received_bytes: int = 0


class _Site:
    """The families that have one or more samples per site."""

    def __init__(self) -> None:
        gauge = GaugeMetricFamily
        one = ("site",)
        self.info = InfoMetricFamily("gridpivot_site", "Where a site is and what its agent runs.", labels=one)
        self.power = gauge("gridpivot_site_power_watts", "Power by load, as reported.", labels=("site", "load"))
        self.metered = gauge("gridpivot_site_metered_power_watts", "Metered import; absent without trust.", labels=one)
        self.assumed = gauge("gridpivot_site_assumed_power_watts", "Power that the governor acts on.", labels=one)
        self.ceiling = gauge("gridpivot_site_ceiling_watts", "Lowest ceiling in force.", labels=one)
        self.contract = gauge("gridpivot_site_contract_ceiling_watts", "Contractual ceiling.", labels=one)
        self.hashrate = gauge("gridpivot_site_hashrate_hashes_per_second", "Hashrate.", labels=one)
        self.energy = CounterMetricFamily("gridpivot_site_import_energy_joules", "The meter's counter.", labels=one)
        self.load_energy = CounterMetricFamily(
            "gridpivot_site_energy_joules", "Import by the site's ledger, by load.", labels=("site", "load")
        )
        self.ledger_import = CounterMetricFamily(
            "gridpivot_site_ledger_import_joules", "Import by the site's ledger.", labels=one
        )
        self.unattributed = gauge(
            "gridpivot_site_unattributed_energy_joules", "Import by the ledger less the loads.", labels=one
        )
        self.unmetered = CounterMetricFamily(
            "gridpivot_site_unmetered_energy_joules", "Estimated by the ledger, not in the import.", labels=one
        )
        self.counter_changes = CounterMetricFamily(
            "gridpivot_site_meter_counter_changes", "Roll-overs, resets, exchanges of the meter.", labels=one
        )
        self.devices = gauge("gridpivot_site_devices", "Devices by class and state.", labels=("site", "class", "state"))
        self.class_power = gauge(
            "gridpivot_site_class_power_watts", "Power read from devices, by class.", labels=("site", "class")
        )
        self.pool_power = gauge("gridpivot_site_pool_power_watts", "Wall power by AI pool.", labels=("site", "pool"))
        self.pool_limit = gauge(
            "gridpivot_site_pool_limit_watts", "Enforced limit by AI pool.", labels=("site", "pool")
        )
        self.rollup_age = gauge("gridpivot_site_rollup_age_seconds", "Age of the newest roll-up.", labels=one)
        self.report_age = gauge("gridpivot_site_report_age_seconds", "Age of the newest device report.", labels=one)
        self.plan_age = gauge("gridpivot_site_plan_age_seconds", "Age of the plan in force.", labels=one)
        self.plan_state = gauge("gridpivot_site_plan_state", "1 for the state of the plan.", labels=("site", "state"))
        self.plan_version = gauge("gridpivot_site_plan_version", "Version of the plan in force.", labels=one)
        self.price = gauge("gridpivot_site_price_usd_per_megawatt_hour", "Power price in force.", labels=one)
        self.price_age = gauge("gridpivot_site_price_age_seconds", "Age of that price.", labels=one)
        self.price_rung = gauge(
            "gridpivot_site_price_rung", "1 for where the price in force comes from.", labels=("site", "rung")
        )
        self.margin = gauge(
            "gridpivot_site_margin_usd_per_hour",
            "AI and mining income less power; absent while a part is unknown.",
            labels=one,
        )
        self.spool = gauge("gridpivot_site_spool_records", "Records waiting at the site.", labels=one)
        self.link = gauge("gridpivot_site_link_state", "1 for the state of the link.", labels=("site", "state"))
        self.rung = gauge("gridpivot_site_rung", "1 for the rung a site stands on.", labels=("site", "rung"))
        self.trust = gauge("gridpivot_site_meter_trust", "1 for the trust in its meter.", labels=("site", "trust"))
        self.commands = CounterMetricFamily(
            "gridpivot_site_commands", "Commands since the agent started.", labels=("site", "outcome")
        )
        self.received = CounterMetricFamily("gridpivot_site_reports_received", "Device reports taken.", labels=one)
        self.refused = CounterMetricFamily("gridpivot_site_reports_refused", "Reports refused whole.", labels=one)

    def families(self) -> Iterator[Metric]:
        """All of them."""
        yield from vars(self).values()


class FleetCollector(Collector):
    """Turns live state into metric families at every scrape."""

    def __init__(
        self, operations: Operations, loop: PlanLoop, store: Store, link: Callable[[], LinkFigures] = LinkFigures
    ) -> None:
        self._operations, self._loop, self._store, self._link = operations, loop, store, link

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: the registry need not collect to know the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything, at one moment."""
        now = self._operations.clock.now()
        sites = _Site()
        states = {state.name: state for state in self._operations.see(now).sites}
        hashprice = self._operations.book.hashprice(now)[0]
        for live in self._operations.fleet:
            self._site(sites, live, now)
            if live.rollup is not None and live.name in states:
                margin = margin_usd_per_h(states[live.name], live.rollup, hashprice)
                _known(sites.margin, [live.name], margin)
        yield from sites.families()
        yield from self._fleet(now)
        yield from dispatch_families(self._loop)

    def _site(self, out: _Site, live: SiteLive, now: Instant) -> None:
        operations, site = self._operations, [live.name]
        out.info.add_metric(site, {"region": live.region, "agent_version": live.agent_version})
        out.ceiling.add_metric(site, operations.ceiling_w(live.name, now))
        out.contract.add_metric(site, operations.terms[live.name].ceiling_w)
        _one_of(out.link, live.name, COUNTED_LINKS, live.link)
        out.received.add_metric(site, live.reports_received)
        out.refused.add_metric(site, live.reports_refused)
        price, price_age_s = operations.book.usd_per_mwh(live.region, now)
        _known(out.price, site, price)
        _known(out.price_age, site, price_age_s)
        _one_of(out.price_rung, live.name, tuple(PriceRung), operations.book.price_rung(live.region, now))
        _known(out.rollup_age, site, live.rollup_age_s(now))
        _known(out.report_age, site, live.report_age_s(now))
        posted = operations.board.posted(live.name)
        if posted is not None:
            out.plan_age.add_metric(site, now.monotonic_s - posted.at.monotonic_s)
            out.plan_version.add_metric(site, posted.plan.version)
            _one_of(out.plan_state, live.name, tuple(PlanState), posted.state)
        for totals in live.class_totals():
            out.class_power.add_metric([live.name, totals.name], totals.power_w)
            for state, count in zip(STATES, totals.state_counts, strict=True):
                out.devices.add_metric([live.name, totals.name, state], count)
        self._rollup(out, live)
        energy = self._store.lanes.energy.of_site(live.name)
        if energy is not None:
            for load, energy_j in (("mining", energy.mining_j), ("ai", energy.ai_j), ("overhead", energy.overhead_j)):
                out.load_energy.add_metric([live.name, load], energy_j)
            out.ledger_import.add_metric(site, energy.import_j)
            out.unattributed.add_metric(site, energy.unattributed_j)
            out.unmetered.add_metric(site, energy.unmetered_j)
            out.counter_changes.add_metric(site, energy.counter_changes)

    def _rollup(self, out: _Site, live: SiteLive) -> None:
        rollup, site = live.rollup, [live.name]
        if rollup is None:
            return
        for load, power_w in (
            (Load.MINING, _field(rollup, "mining_power_w")),
            (Load.AI, _field(rollup, "ai_power_w")),
            (Load.OVERHEAD, _field(rollup, "overhead_power_w")),
        ):
            _known(out.power, [live.name, load], power_w)
        _known(out.metered, site, _field(rollup, "metered_power_w"))
        _known(out.hashrate, site, _field(rollup, "hashrate_hs"))
        _known(out.energy, site, _field(rollup, "import_energy_j"))
        out.assumed.add_metric(site, rollup.assumed_power_w)
        out.spool.add_metric(site, rollup.spool_records)
        _one_of(out.rung, live.name, tuple(Rung), rollup.rung)
        _one_of(out.trust, live.name, tuple(MeterTrust), rollup.meter_trust)
        for outcome, count in (
            ("sent", rollup.commands_total),
            ("confirmed", rollup.commands_confirmed_total),
            ("short", rollup.commands_short_total),
        ):
            out.commands.add_metric([live.name, outcome], count)
        for pool in rollup.pools:
            if pool.HasField("power_w"):
                out.pool_power.add_metric([live.name, pool.name], pool.power_w)
            out.pool_limit.add_metric([live.name, pool.name], pool.limit_w)

    def _fleet(self, now: Instant) -> Iterator[Metric]:
        operations, store, link = self._operations, self._store, self._link()
        info = InfoMetricFamily("gridpivot_controller", "This controller.")
        info.add_metric((), {"version": __version__})
        yield info
        hashprice, hashprice_age_s = operations.book.hashprice(now)
        for name, text, value in (
            ("sites", "Sites in the settings.", len(operations.fleet)),
            ("sites_connected", "Sites with a live session.", operations.fleet.sites_connected()),
            ("devices_reporting", "Devices in fresh reports.", self._devices(now)),
            ("hashprice_usd_per_petahash_per_second_day", "Hashprice in force.", hashprice),
            ("hashprice_age_seconds", "Age of the hashprice.", hashprice_age_s),
        ):
            yield GaugeMetricFamily(f"gridpivot_{name}", text, value=value)
        for name, text, total in (
            ("reports_received", "Device reports received.", operations.fleet.reports_received()),
            ("reports_lost", "Records that sites let go before they came.", store.lanes.records_lost),
            ("records_committed", "Records made durable.", store.lanes.records_committed),
            ("records_repeated", "Records that came twice.", store.lanes.records_repeated),
            ("records_bad", "Records that could not be read.", link.bad_records),
            ("link_received_bytes", "Payload received from sites.", link.received_bytes),
            ("sessions", "Sessions begun.", link.sessions),
            ("sessions_refused", "Sessions refused.", link.refused),
            ("store_commits", "Group commits.", store.writer.commits),
        ):
            yield CounterMetricFamily(f"gridpivot_{name}", text, value=total)
        purged = CounterMetricFamily("gridpivot_store_rows_purged", "Rows past their age.", labels=("table",))
        for table, rows in store.purged.items():
            purged.add_metric([table], rows)
        yield purged
        refused = CounterMetricFamily("gridpivot_prices_refused", "Prices out of bounds.", labels=("region",))
        for region, number in operations.book.refusals().items():
            refused.add_metric([region], number)
        yield refused
        yield GaugeMetricFamily(
            "gridpivot_store_records_pending",
            "Records that the store would not take yet.",
            len(self._operations.pending),
        )

    def _devices(self, now: Instant) -> int:
        return self._operations.fleet.devices_reporting(now, self._operations.fresh_s)


def _field(message: Message, name: str) -> float | None:
    """A field's value; None when the site did not give it."""
    return float(getattr(message, name)) if message.HasField(name) else None


def _known(family: GaugeMetricFamily | CounterMetricFamily, labels: list[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)


def _one_of(family: GaugeMetricFamily, site: str, words: Iterable[StrEnum], now: str) -> None:
    """One sample per word, 1 for the present one: what alert rules can match on."""
    if now:
        for word in words:
            family.add_metric([site, word.value], 1.0 if word == now else 0.0)


def registry(*collectors: Collector) -> CollectorRegistry:
    """The collectors beside the process's own figures."""
    held = CollectorRegistry()
    for collector in collectors:
        held.register(collector)
    ProcessCollector(registry=held)
    PlatformCollector(registry=held)
    return held


class _Collected:
    """Families as they were, for the renderer."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(held: CollectorRegistry) -> bytes:
    """The whole exposition."""
    return generate_latest(held)


def metrics_route(held: CollectorRegistry) -> Route:
    """The /metrics route: collected on the loop, where the state lives, and turned into text beside it."""

    async def route() -> Reply:
        collected = cast(CollectorRegistry, _Collected(list(held.collect())))
        return 200, CONTENT_TYPE_LATEST, _chunks(await asyncio.to_thread(render, collected))

    return route


async def _chunks(text: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(text), CHUNK_BYTES):
        yield text[start : start + CHUNK_BYTES]
