"""How long a scrape of the controller takes: forty sites of 11,250 devices, five classes and four pools each.

Collect and render together, as one scrape costs them; device tables are merged anew before each turn, so that sums
are not served from the last one. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from controller.board import PlanBoard
from controller.dispatch.solve import Planner
from controller.exporter import FleetCollector, registry, render
from controller.fleet.state import SiteTerms
from controller.fleet.tables import Fleet
from controller.markets.book import MarketBook
from controller.markets.settings import MarketSettings
from controller.operations import Operations
from controller.planner import PlanLoop
from controller.store.store import Store
from gridpivot.clock import SystemClock
from gridpivot.columns import DeviceTable, encode_report
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.v1 import plan_pb2
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority, DeviceState

HASH = b"h" * 32
MODELS = ("Antminer S19", "Antminer S19j Pro", "Antminer S21", "Whatsminer M50", "Whatsminer M60")


def inventory(devices: int) -> pb.Inventory:
    """Five classes, spread evenly."""
    return pb.Inventory(
        inventory_hash=HASH,
        device_count=devices,
        classes=[miner_class(m.lower().replace(" ", "-"), "luxos", m, shed_s=5, wake_s=10).to_proto() for m in MODELS],
        class_indexes=(np.arange(devices) % len(MODELS)).astype(np.uint8).tobytes(),
        pools=[gpu_pool(f"pool-{i}", AiPriority.STANDARD, 64).to_proto() for i in range(4)],
    )


def report(devices: int, unix_ms: int) -> pb.DeviceReport:
    """Everything known of every device."""
    chance = np.random.default_rng(3)
    table = DeviceTable(devices)
    table["power_w"][:] = chance.normal(3250, 60, devices)
    table["hashrate_hs"][:] = chance.normal(95e12, 3e12, devices)
    table["state"][:] = chance.integers(0, len(DeviceState), devices)
    return encode_report(table, HASH, unix_ms)


def rollup(unix_ms: int) -> pb.SiteRollup:
    """All figures present, so that every series is there."""
    return pb.SiteRollup(
        observed_at_unix_ms=unix_ms,
        metered_power_w=3.6e7,
        assumed_power_w=3.6e7,
        mining_power_w=3.4e7,
        ai_power_w=1e6,
        overhead_power_w=1e6,
        hashrate_hs=1e18,
        import_energy_j=10**15,
        meter_trust="trusted",
        rung="plan",
        pools=[pb.PoolRollup(name=f"pool-{i}", power_w=1e5, limit_w=2e5) for i in range(4)],
    )


async def measure(sites: int, devices: int, repeats: int, state_dir: Path) -> dict[str, Any]:
    clock = SystemClock()
    store = await Store.open(state_dir / "bench.db", clock)
    names = [f"site-{i:02d}" for i in range(sites)]
    fleet = Fleet((name, f"region-{i % 4}") for i, name in enumerate(names))
    board = PlanBoard()
    book = MarketBook(MarketSettings(), {s.region for s in fleet}, clock.now())
    terms = {name: SiteTerms(name, 4e7) for name in names}
    operations = Operations(terms, fleet, book, board, store.ledger, clock, 60.0)
    # The collector reads the loop's counters only; no plan is signed here.
    loop = PlanLoop(
        Planner(),
        board,
        store.ledger,
        cast(Any, None),
        clock,
        operations.see,
        epoch=1,
        lease_s=60,
        thresholds=cast(Any, None),
    )
    held = registry(FleetCollector(operations, loop, store))
    now = clock.now()
    for live in fleet:
        live.take_inventory(inventory(devices))
        live.take_rollup(rollup(now.unix_ms), now)
        plan = plan_pb2.Plan(site=live.name, epoch=1, version=1)
        board.publish(plan_pb2.SignedPlan(plan=plan.SerializeToString()), now)
    walls, cpus, text = [], [], b""
    for turn in range(repeats + 2):
        now = clock.now()
        message = report(devices, now.unix_ms)
        for live in fleet:
            live.take_report(message, now)
        wall, cpu = time.perf_counter(), time.process_time()
        text = render(held)
        if turn >= 2:
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    await store.close()
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    p50 = statistics.median(walls) * 1e3
    return {
        "render_ms_p50": round(p50, 1),
        "render_ms_max": round(max(walls) * 1e3, 1),
        "render_cpu_ms_p50": round(statistics.median(cpus) * 1e3, 1),
        "series": series,
        "bytes": len(text),
        "sites": sites,
        "devices_per_site": devices,
        "rss_mb_max": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "repeats": repeats,
        "ok": p50 <= 250 and series <= 15_000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=40)
    parser.add_argument("--devices", type=int, default=11_250)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(options.sites, options.devices, options.repeats, Path(folder)))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
