"""Per-GPU series: base units, `uuid` plus one info series to join; what a board does not tell is left out, never 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

if TYPE_CHECKING:
    from agent.backends import Pools
    from agent.gpu.nvml import GpuReading

# (field of GpuReading, metric, help)
_GAUGES = (
    ("power_w", "gridpivot_gpu_power_watts", "Board power, a mean over 1 s; not the wall"),
    ("limit_requested_w", "gridpivot_gpu_power_limit_requested_watts", "Power limit as set"),
    ("limit_enforced_w", "gridpivot_gpu_power_limit_enforced_watts", "Power limit that the driver enforces"),
    ("limit_default_w", "gridpivot_gpu_power_limit_default_watts", "Power limit after a driver reload"),
    ("util_ratio", "gridpivot_gpu_utilisation_ratio", "Share of time with a kernel running"),
    ("temp_c", "gridpivot_gpu_temperature_celsius", "GPU temperature"),
    ("memory_used_bytes", "gridpivot_gpu_memory_used_bytes", "Memory in use"),
    ("memory_total_bytes", "gridpivot_gpu_memory_total_bytes", "Memory of the board"),
    ("throttled_by_power", "gridpivot_gpu_throttled_by_power", "1 while the power limit holds the clocks down"),
    ("lost", "gridpivot_gpu_lost", "1 when the driver has lost the board"),
)


def gpu_metrics(pools: Pools) -> Iterator[Metric]:
    """Families of every GPU that `pools` has read; without NVML they have no samples."""
    readings: list[GpuReading] = getattr(pools, "readings", [])
    info = InfoMetricFamily("gridpivot_gpu", "Which board a uuid is", labels=["uuid"])
    energy = CounterMetricFamily("gridpivot_gpu_energy_joules", "Since the driver was loaded", labels=["uuid"])
    for reading in readings:
        info.add_metric([reading.uuid], {"name": reading.name})
        if reading.energy_j is not None:
            energy.add_metric([reading.uuid], reading.energy_j)
    yield info
    yield energy
    for field, metric, help_text in _GAUGES:
        family = GaugeMetricFamily(metric, help_text, labels=["uuid"])
        for reading in readings:
            value = getattr(reading, field)
            if value is not None:
                family.add_metric([reading.uuid], float(value))
        yield family
    counters: dict[str, dict[str, int]] = getattr(pools, "counters", {})
    for name in ("scans", "calls", "limits"):
        counter = CounterMetricFamily(f"gridpivot_gpu_{name}", f"NVML {name} by outcome", labels=["outcome"])
        for outcome, count in counters.get(name, {}).items():
            counter.add_metric([str(outcome)], count)
        yield counter
