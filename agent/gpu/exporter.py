"""Per-GPU series: base units, `uuid` plus one info series to join; what a board does not tell is left out, never 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

if TYPE_CHECKING:
    from agent.backends import Pools
    from agent.gpu.reading import GpuReading

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
    ("sm_clock_hz", "gridpivot_gpu_sm_clock_hertz", "Clock of the multiprocessors"),
    ("memory_clock_hz", "gridpivot_gpu_memory_clock_hertz", "Clock of the memory"),
    ("remap_pending", "gridpivot_gpu_remap_pending", "1 when remapped rows wait for a reset"),
    ("remap_failed", "gridpivot_gpu_remap_failed", "1 when no spare rows are left: exchange the board"),
    ("mig", "gridpivot_gpu_mig_enabled", "1 while the board is cut into instances"),
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
    yield from _events(readings)
    counters: dict[str, dict[str, int]] = getattr(pools, "counters", {})
    for name in ("scans", "calls", "limits"):
        counter = CounterMetricFamily(f"gridpivot_gpu_{name}", f"NVML {name} by outcome", labels=["outcome"])
        for outcome, count in counters.get(name, {}).items():
            counter.add_metric([str(outcome)], count)
        yield counter


# Bits of nvmlClocksEventReasons, nvml.h of CUDA 13.
CLOCK_EVENTS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clocks_setting",
}


def _events(readings: Sequence[GpuReading]) -> Iterator[Metric]:
    """XIDs, ECC errors and remapped rows as counters; why clocks stand where they stand."""
    why = GaugeMetricFamily(
        "gridpivot_gpu_clock_event", "1 while this holds the clocks down", labels=["uuid", "reason"]
    )
    xids = CounterMetricFamily("gridpivot_gpu_xid_errors", "Critical errors seen by the agent", labels=["uuid", "xid"])
    ecc = CounterMetricFamily("gridpivot_gpu_ecc_errors", "Over the board's life", labels=["uuid", "kind"])
    rows = CounterMetricFamily("gridpivot_gpu_remapped_rows", "Rows of memory taken out", labels=["uuid", "kind"])
    for reading in readings:
        if reading.clock_event_reasons is not None:
            for bit, reason in CLOCK_EVENTS.items():
                why.add_metric([reading.uuid, reason], float(bool(reading.clock_event_reasons & bit)))
        for xid, count in (reading.xids or {}).items():
            xids.add_metric([reading.uuid, str(xid)], count)
        for family, name in ((ecc, "ecc"), (rows, "remapped")):
            for kind in ("corrected", "uncorrected"):
                value = getattr(reading, f"{name}_{kind}")
                if value is not None:
                    family.add_metric([reading.uuid, kind], value)
    yield from (why, xids, ecc, rows)
