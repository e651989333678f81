"""The energy ledger as metrics: totals as they stand on the disk, so that no counter goes back after a crash."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agent.energy_book import EnergyBook


def energy_families(book: EnergyBook) -> Iterator[Metric]:
    """Import, its split by load, and what is only an estimate; nothing before a meter has counted."""
    totals = book.told
    if totals is None or not book.counts:
        return
    yield CounterMetricFamily("gridpivot_site_ledger_import_joules", "Import by the ledger", totals.import_j)
    by_load = CounterMetricFamily("gridpivot_site_energy_joules", "Import by the ledger, by load", labels=["load"])
    for load, energy_j in (("mining", totals.mining_j), ("ai", totals.ai_j), ("overhead", totals.overhead_j)):
        by_load.add_metric([load], energy_j)
    yield by_load
    yield GaugeMetricFamily("gridpivot_site_unattributed_energy_joules", "Import less the loads", totals.unattributed_j)
    yield CounterMetricFamily(
        "gridpivot_site_unmetered_energy_joules", "Estimated, not in the import", totals.unmetered_j
    )
    yield CounterMetricFamily(
        "gridpivot_site_meter_counter_changes", "Roll-overs, resets and exchanges of the meter", totals.counter_changes
    )
