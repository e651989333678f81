"""How long one decision takes over 11,250 devices: quiet ticks, AI steps, a lowered ceiling, a new plan, all mixed.

The site is virtual and its physics run between decisions, outside the measured time. Each repeat is the same story
from the start, after one story to warm up. Last line: one JSON object; the bar is decide_ms_p50 <= 20.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

from agent.governor.decide import decide
from agent.governor.meter_watch import MeterWatch
from agent.governor.state import GovernorState, Orders, Policy, Sensed, instant
from gridpivot.columns import DeviceTable
from gridpivot.vocabulary import Rung, Stage
from sim.fleet import inventory_of, site_specs, truth_of
from sim.virtual import VirtualSite

STORY_S = 120


def story(devices: int, seed: int) -> tuple[list[float], list[float]]:
    """Wall and CPU milliseconds of each decision of one story."""
    spec = site_specs(1, devices, seed)[0]
    inventory = inventory_of(spec)
    world = VirtualSite(inventory, truth_of(spec, 1.0), 0.0)
    for pool in world.pools:
        pool.demand_w = pool.power_w = 0.5 * pool.max_w
        pool.limit_w = 0.55 * pool.max_w
    world.settle()
    policy = Policy(spec.ceiling_w, spec.protection_w, Stage.FULL, ai_release_after_s=20.0, wake_after_s=10.0)
    state, watch = GovernorState(inventory), MeterWatch(5.0, 6.0, 0.02 * spec.ceiling_w)
    table, polled = DeviceTable(devices), np.full(devices, np.nan)
    counts = np.bincount(inventory.class_index, minlength=len(inventory.classes))
    plan = np.zeros((len(counts), 4))
    plan[:, 2] = counts * 0.85
    plan[:, 0] = counts * 0.15
    wall, cpu = [], []
    for second in range(1, STORY_S + 1):
        for quarter in (0.25, 0.5, 0.75, 1.0):
            world.advance(second - 1 + quarter)
        if second in (20, 80):
            world.pools[0].demand_w = 0.95 * world.pools[0].max_w
        if second == 50:
            world.pools[0].demand_w = 0.5 * world.pools[0].max_w
        ceiling_w = 0.85 * spec.ceiling_w if 60 <= second < 90 else spec.ceiling_w
        modes = plan if second >= 35 else None
        orders = Orders(ceiling_w, Rung.PLAN, modes, [None] * len(inventory.pools))
        now = instant(float(second))
        world.refresh(table, polled, now)
        sensed = Sensed(table, polled, world.newest(), world.read(now))
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        actions = decide(state, watch, sensed, orders, policy, now.monotonic_s)
        wall.append(1e3 * (time.perf_counter() - wall_s))
        cpu.append(1e3 * (time.process_time() - cpu_s))
        for command in actions.modes:
            world.command(command.rows, command.mode, now)
        for limit in actions.limits:
            world.set_limit(limit.pool, limit.limit_w, now)
    return wall, cpu


def main() -> None:
    """Repeat the story and print medians over repeats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=11_250)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    story(options.devices, 1)
    runs = [story(options.devices, seed) for seed in range(2, 2 + options.repeats)]
    p50 = [statistics.median(wall) for wall, _ in runs]
    p99 = [float(np.percentile(wall, 99)) for wall, _ in runs]
    print(
        json.dumps(
            {
                "bench": "governor",
                "devices": options.devices,
                "decisions": STORY_S * options.repeats,
                "decide_ms_p50": round(statistics.median(p50), 3),
                "decide_ms_p99": round(statistics.median(p99), 3),
                "decide_cpu_ms_p50": round(statistics.median(statistics.median(cpu) for _, cpu in runs), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
