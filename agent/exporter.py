"""The agent's /metrics: prometheus-client for the site, our own text renderer for per-device series.

prometheus-client needs 1.1 s for 90,000 series; `exposition.DeviceSeries` renders columns with cached label prefixes in
chunks that give the event loop its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from agent.ai.exporter import ai_metrics
from agent.backends import Miners
from agent.bmc.exporter import bmc_metrics
from agent.energy_metrics import energy_families
from agent.exposition import DeviceSeries
from agent.gpu.exporter import gpu_metrics
from agent.host import HostReading, read_host
from agent.nodes.exporter import node_metrics
from agent.site import SiteAgent
from agent.status import LANE_NAMES, NO_CIRCUIT_W
from gridpivot import __version__
from gridpivot.clock import Clock
from gridpivot.httpd import Reply
from gridpivot.link.lanes import LANES
from gridpivot.vocabulary import MeterTrust, Rung

if TYPE_CHECKING:
    from agent.bmc.reader import BmcReader

OPENMETRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class AgentExporter:
    """Renders one site's metrics."""

    def __init__(
        self, agent: SiteAgent, miners: Miners, clock: Clock, *, per_device: bool, bmcs: Sequence[BmcReader] = ()
    ) -> None:
        self._agent, self._miners, self._clock, self._bmcs = agent, miners, clock, bmcs
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._devices = DeviceSeries(agent.inventory) if per_device and agent.inventory.device_count else None

    async def metrics(self) -> Reply:
        """The whole exposition, devices last and in chunks."""
        host = await asyncio.to_thread(read_host)
        self._host = host
        head = generate_latest(self._registry)
        return HTTPStatus.OK, OPENMETRICS_TEXT, self._stream(head)

    async def _stream(self, head: bytes) -> AsyncIterator[bytes]:
        yield head
        if self._devices is not None:
            for chunk in self._devices.render(self._agent.table):
                yield chunk
                await asyncio.sleep(0)

    async def ready(self) -> Reply:
        """Ready once the governor has looked at the site."""
        if self._agent.actions is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"no tick yet\n"
        return HTTPStatus.OK, "text/plain", b"ok\n"

    def collect(self) -> Iterator[Metric]:
        """prometheus-client's face: one family after the other."""
        agent = self._agent
        yield InfoMetricFamily("gridpivot_agent", "Build", value={"version": __version__, "site": agent.site})
        yield from self._power()
        yield from self._governor()
        yield from self._uplink()
        yield from self._counters()
        yield from host_families(self._host)
        yield from gpu_metrics(agent.hardware.pools)
        yield from node_metrics(agent.hardware.pools)
        yield from bmc_metrics(self._bmcs, self._clock.now().monotonic_s)
        if agent.hardware.ai is not None:
            yield from ai_metrics(agent.hardware.ai)

    def _power(self) -> Iterator[Metric]:
        actions, orders = self._agent.actions, self._agent.orders
        if actions is None or orders is None:
            return
        picture = actions.picture
        power = GaugeMetricFamily("gridpivot_site_power_watts", "Power by load", labels=["load"])
        power.add_metric(["mining"], picture.mining_w)
        power.add_metric(["ai"], picture.ai_w)
        power.add_metric(["overhead"], picture.overhead_w)
        yield power
        if picture.metered_w is not None:
            yield GaugeMetricFamily("gridpivot_site_metered_power_watts", "Import as metered", picture.metered_w)
        yield GaugeMetricFamily("gridpivot_site_assumed_power_watts", "What decisions rest on", picture.assumed_w)
        if orders.ceiling_w < NO_CIRCUIT_W:
            yield GaugeMetricFamily("gridpivot_site_ceiling_watts", "Lowest limit in force", orders.ceiling_w)
        sample = self._agent.hardware.meter.newest()
        if sample is not None and sample.import_energy_j is not None:
            yield CounterMetricFamily("gridpivot_site_import_energy_joules", "Meter's counter", sample.import_energy_j)
        yield from energy_families(self._agent.energy)
        pools = GaugeMetricFamily("gridpivot_ai_pool_power_watts", "AI pool at the wall", labels=["pool"])
        limits = GaugeMetricFamily("gridpivot_ai_pool_limit_watts", "What enforced limits allow", labels=["pool"])
        present = GaugeMetricFamily("gridpivot_ai_pool_gpus_present", "GPUs that answer", labels=["pool"])
        expected = GaugeMetricFamily("gridpivot_ai_pool_gpus_expected", "GPUs declared", labels=["pool"])
        for declared, reading in zip(self._agent.inventory.pools, self._agent.pool_readings, strict=False):
            if reading.power_w is not None:
                pools.add_metric([declared.name], reading.power_w)
            limits.add_metric([declared.name], reading.limit_w)
            present.add_metric([declared.name], reading.gpus_present)
            expected.add_metric([declared.name], declared.gpu_count)
        yield from (pools, limits, present, expected)

    def _governor(self) -> Iterator[Metric]:
        agent = self._agent
        if agent.actions is None or agent.orders is None:
            return
        picture = agent.actions.picture
        trust = GaugeMetricFamily("gridpivot_meter_trust", "1 at the verdict on the site meter", labels=["verdict"])
        for verdict in MeterTrust:
            trust.add_metric([verdict.value], float(verdict is picture.meter_trust))
        rung = GaugeMetricFamily("gridpivot_governor_rung", "1 at the rung the site stands on", labels=["rung"])
        for step in Rung:
            rung.add_metric([step.value], float(step is agent.orders.rung))
        yield from (trust, rung)
        yield GaugeMetricFamily("gridpivot_governor_room_watts", "Free for raising", picture.room_w)
        yield GaugeMetricFamily("gridpivot_governor_shed_short_watts", "Asked, not deliverable", picture.shed_short_w)
        yield GaugeMetricFamily("gridpivot_governor_shed_in_flight_watts", "Shed, not proven", picture.shed_in_flight_w)
        yield GaugeMetricFamily(
            "gridpivot_governor_correction_ratio", "Metered over reported mining", agent.state.correction
        )
        yield GaugeMetricFamily("gridpivot_governor_tick_seconds", "Last tick", agent.counters.tick_s_last)
        alone = GaugeMetricFamily(
            "gridpivot_devices_left_alone", "Devices by why they were left alone", labels=["reason"]
        )
        for reason, count in agent.counters.left_alone.items():
            alone.add_metric([reason], count)
        yield alone
        epoch, version = agent.book.highest
        yield GaugeMetricFamily("gridpivot_plan_epoch", "Epoch of the newest accepted plan", epoch)
        yield GaugeMetricFamily("gridpivot_plan_version", "Version of the newest accepted plan", version)

    def _uplink(self) -> Iterator[Metric]:
        uplink = self._agent.uplink
        if uplink is None:
            return
        yield GaugeMetricFamily("gridpivot_uplink_connected", "1 while a session is up", float(uplink.state.connected))
        certificate = self._agent.certificate
        if certificate is not None and certificate.not_after_unix_s is not None:
            yield GaugeMetricFamily(
                "gridpivot_certificate_end_timestamp_seconds",
                "End of the site's certificate (Unix time)",
                certificate.not_after_unix_s,
            )
        waiting = GaugeMetricFamily("gridpivot_spool_records", "Not acknowledged", labels=["lane"])
        dropped = CounterMetricFamily("gridpivot_spool_dropped", "Let go on purpose", labels=["lane"])
        for lane in LANES:
            waiting.add_metric([LANE_NAMES[lane]], uplink.outbox.waiting(lane))
            dropped.add_metric([LANE_NAMES[lane]], uplink.spool.dropped_total[lane])
        yield from (waiting, dropped)
        yield GaugeMetricFamily(
            "gridpivot_spool_degraded", "1 while the disk refuses", float(bool(uplink.spool.degraded))
        )

    def _counters(self) -> Iterator[Metric]:
        state = self._agent.state
        yield CounterMetricFamily("gridpivot_commands", "Device commands", state.commands_total)
        yield CounterMetricFamily("gridpivot_commands_confirmed", "Proven by fresh readings", state.confirmed_total)
        yield CounterMetricFamily("gridpivot_commands_short", "Not delivered by their deadline", state.short_total)
        yield CounterMetricFamily("gridpivot_governor_ticks", "Turns of the governor", self._agent.counters.ticks_total)
        yield CounterMetricFamily(
            "gridpivot_governor_late_ticks", "Missed beats", self._agent.counters.late_ticks_total
        )
        counters = getattr(self._miners, "counters", None)
        if isinstance(counters, dict):
            for name, by_word in counters.items():
                family = CounterMetricFamily(f"gridpivot_asic_{name}", f"ASIC {name} by word", labels=["word"])
                for word, count in by_word.items():
                    family.add_metric([str(word)], count)
                yield family


def host_families(host: HostReading) -> Iterator[Metric]:
    """The machine itself; what it does not tell is left out."""
    figures = {
        "gridpivot_host_cpu_ratio": ("CPU in use", host.cpu_ratio),
        "gridpivot_host_memory_used_bytes": ("Memory in use", host.memory_used_bytes),
        "gridpivot_host_memory_total_bytes": ("Memory", host.memory_total_bytes),
        "gridpivot_host_disk_used_bytes": ("Disk in use", host.disk_used_bytes),
        "gridpivot_host_disk_total_bytes": ("Disk", host.disk_total_bytes),
    }
    for name, (help_text, value) in figures.items():
        if value is not None:
            yield GaugeMetricFamily(name, help_text, float(value))
