"""Series of BMCs: what they tell, and how asking them went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from agent.bmc.reader import BmcReader  # brings httpx: an agent without BMCs does not pay for it


def bmc_metrics(readers: Sequence[BmcReader], now_s: float) -> Iterator[Metric]:
    """Families by host; a figure that is too old has no sample."""
    power = GaugeMetricFamily("gridpivot_bmc_power_watts", "A host at the wall by its BMC", labels=["host"])
    on = GaugeMetricFamily("gridpivot_bmc_host_on", "1 while a BMC says that its host is on", labels=["host"])
    reads = CounterMetricFamily("gridpivot_bmc_reads", "Looks at BMCs", labels=["host", "outcome"])
    for reader in readers:
        sample = reader.fresh(now_s)
        if sample is not None:
            power.add_metric([reader.name], sample.power_w)
            if sample.on is not None:
                on.add_metric([reader.name], float(sample.on))
        for outcome, count in reader.counts.items():
            reads.add_metric([reader.name, outcome], count)
    yield from (power, on, reads)
