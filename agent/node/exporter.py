"""A node's /metrics: its GPUs by UUID, its host, its link to the site's agent and what is left of the lease."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http import HTTPStatus

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from agent.bmc.exporter import bmc_metrics
from agent.bmc.reader import BmcReader
from agent.exporter import OPENMETRICS_TEXT, host_families
from agent.gpu.exporter import gpu_metrics
from agent.host import HostReading, read_host
from agent.identity.upkeep import CertificateState
from agent.node.gpus import NodeGpus
from agent.node.session import LinkState
from gridpivot import __version__
from gridpivot.clock import Clock
from gridpivot.httpd import Reply


class NodeExporter:
    """Renders one node's metrics. `link` and `certificate` are None where the node is not enrolled, `bmc` without one."""

    def __init__(
        self,
        site: str,
        gpus: NodeGpus,
        link: LinkState | None,
        certificate: CertificateState | None,
        bmc: BmcReader | None,
        clock: Clock,
    ) -> None:
        self._site, self._gpus, self._link, self._certificate, self._clock = site, gpus, link, certificate, clock
        self._bmcs = [] if bmc is None else [bmc]
        self._host: HostReading | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    async def metrics(self) -> Reply:
        """The whole exposition."""
        self._host = await asyncio.to_thread(read_host)
        return HTTPStatus.OK, OPENMETRICS_TEXT, generate_latest(self._registry)

    async def ready(self) -> Reply:
        """Ready once the GPUs were read."""
        if self._gpus.nvml.scan_began_s is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"no GPU was read yet\n"
        return HTTPStatus.OK, "text/plain", b"ok\n"

    def collect(self) -> Iterator[Metric]:
        """prometheus-client's face: one family after the other."""
        yield InfoMetricFamily("gridpivot_agent", "Build", value={"version": __version__, "site": self._site})
        if self._link is not None:
            yield GaugeMetricFamily(
                "gridpivot_uplink_connected", "1 while a session is up", float(self._link.connected)
            )
            yield CounterMetricFamily(
                "gridpivot_uplink_sessions", "Sessions with the site's agent", self._link.sessions_total
            )
        if self._certificate is not None and self._certificate.not_after_unix_s is not None:
            yield GaugeMetricFamily(
                "gridpivot_certificate_end_timestamp_seconds",
                "End of the site's certificate (Unix time)",
                self._certificate.not_after_unix_s,
            )
        left_s = max(0.0, self._gpus.lease.ends_s - self._clock.now().monotonic_s)
        yield GaugeMetricFamily("gridpivot_node_lease_seconds", "Left of the site's lease on limits", left_s)
        yield CounterMetricFamily(
            "gridpivot_node_lease_ends", "Leases that ran out: fallbacks held", self._gpus.fallbacks_total
        )
        if self._host is not None:
            yield from host_families(self._host)
        yield from gpu_metrics(self._gpus.nvml)
        yield from bmc_metrics(self._bmcs, self._clock.now().monotonic_s)
