"""The processes of bench_asic: the emulated site, and each reader that is measured against it.

Each role is a process of its own, so that CPU and memory are that reader's alone; it prints one JSON line and ends.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from agent.asic.family import Login
from agent.asic.inventory import AsicInventory, build_inventory
from agent.asic.inventory_file import ClassEntry, DeviceRow, InventoryFile, write_devices
from agent.asic.poller import AsicPoller
from agent.asic.settings import AsicSettings
from agent.asic.transport import Endpoint
from gridpivot.clock import SystemClock
from gridpivot.columns import DeviceTable
from gridpivot.vocabulary import DeviceState, Mode
from sim.miners.swarm import address

MODELS = {"luxos": "Antminer S21", "whatsminer": "Whatsminer M60", "antminer": "Antminer S19 Pro"}
LOGINS = {"whatsminer": Login("super", "admin"), "antminer": Login("root", "root"), "luxos": None}
EMULATED_SHED_S = 2.0


def family_of(number: int, mix: list[str]) -> str:
    """Families take turns."""
    return mix[number % len(mix)]


async def emulate(asked: dict[str, Any]) -> None:
    """Serve `count` miners until the parent closes stdin."""
    from gridpivot.curves import miner_class
    from sim.miners.antminer import SimAntminer
    from sim.miners.fault import WireFault
    from sim.miners.luxos import SimLuxOs
    from sim.miners.machine import Machine
    from sim.miners.swarm import Swarm
    from sim.miners.whatsminer import SimWhatsminer

    makers = {"luxos": SimLuxOs, "whatsminer": SimWhatsminer, "antminer": SimAntminer}
    count, mix = asked["count"], asked["mix"]
    kinds = {f: miner_class(f, f, MODELS[f], shed_s=EMULATED_SHED_S, wake_s=10.0) for f in mix}
    miners = []
    for number in range(count):
        family = family_of(number, mix)
        mac = ":".join(f"{octet:02X}" for octet in (2, 0, *number.to_bytes(4, "big")))
        miners.append(makers[family](Machine(kinds[family], number, now_s=time.monotonic()), mac))
    every = round(1 / asked["odd"]) if asked["odd"] else 0
    holes = list(range(7, count, every)) if every else []
    for number in range(57, count, every) if every else ():
        miners[number].fault = WireFault.GARBAGE
    async with asyncio.timeout(600):
        swarm = Swarm(miners, holes=holes, exact=asked.get("exact", False))
        await swarm.start(asked.get("api_port", 0), asked.get("http_port", 0))
        gc.freeze()  # eleven thousand machines are not garbage to be looked through again and again
        print(json.dumps({"api_port": miners[0].api_port, "http_port": miners[-1].http_port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await swarm.stop()


def inventory_of(asked: dict[str, Any]) -> AsicInventory:
    """The emulated site as the agent would find it written down."""
    mix = asked["mix"]
    header = InventoryFile.model_validate(
        {"devices": "x.csv", "class": {f: ClassEntry(family=f, model=MODELS[f]) for f in mix}}
    )
    rows = [
        DeviceRow(Endpoint(address(n), asked["api_port"], asked["http_port"], 1), family_of(n, mix))
        for n in range(asked["count"])
    ]
    return build_inventory(header, rows)


class Watch:
    """A poller at work, and what it has cost."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.inventory = inventory_of(asked)
        self.count = asked["count"]
        settings = AsicSettings(
            beat_s=asked["beat_s"],
            slow_beat_s=asked["slow_beat_s"],
            deadline_s=3.0,
            prepare_per_s=asked.get("prepare_per_s", 20.0),
        )
        self.clock = SystemClock()
        self.poller = AsicPoller(self.inventory, settings, LOGINS, self.clock)
        self.table = DeviceTable(self.count)
        self.polled_at_s = np.full(self.count, np.nan)

    def look(self) -> float:
        """Refresh; returns now [monotonic s]."""
        now = self.clock.now()
        self.poller.refresh(self.table, self.polled_at_s, now)
        return now.monotonic_s

    async def until(self, condition: Any, limit_s: float) -> float:
        """Seconds until the condition holds, or the limit."""
        began_s = time.monotonic()
        while time.monotonic() - began_s < limit_s:
            self.look()
            if condition():
                break
            await asyncio.sleep(0.05)
        return time.monotonic() - began_s


async def sweep(asked: dict[str, Any]) -> dict[str, Any]:
    """First sweep, then steady polling: CPU per poll, how old the oldest healthy reading gets, loop stalls."""
    watch = Watch(asked)
    own = psutil.Process()
    odd = round(1 / asked["odd"]) if asked["odd"] else 0
    number = np.arange(watch.count)
    healthy = (number % odd != 7) & (number % odd != 57) if odd else number >= 0
    running = asyncio.create_task(watch.poller.run())
    first_s = await watch.until(lambda: bool((~np.isnan(watch.polled_at_s[healthy])).all()), 120.0)
    every_s = await watch.until(lambda: bool((watch.table["reason"][~healthy] != 0).all()), 60.0) + first_s
    gc.collect()
    gc.freeze()
    before, cpu = watch.poller.counters["polls"]["all"], own.cpu_times()
    ages, stalls, began_s, looked_s = [], [], time.monotonic(), None
    while time.monotonic() - began_s < asked["seconds"]:
        at_s = time.monotonic()
        await asyncio.sleep(0.05)
        stalls.append(time.monotonic() - at_s - 0.05)
        if at_s - (looked_s or 0.0) >= 1.0:  # the governor's beat
            looked_s = at_s
            ages.append(float(watch.look() - watch.polled_at_s[healthy].min()))
    after, spent = watch.poller.counters["polls"]["all"], own.cpu_times()
    running.cancel()
    cpu_s = spent.user + spent.system - cpu.user - cpu.system
    return {
        "first_sweep_s": round(first_s, 2),
        "every_outcome_s": round(every_s, 2),
        "polls": after - before,
        "cpu_ms_per_poll": round(1000 * cpu_s / max(1, after - before), 4),
        "oldest_healthy_reading_s": round(max(ages), 2),
        "loop_stall_ms_max": round(1000 * max(stalls), 1),
        "rss_mib": round(own.memory_info().rss / 2**20, 1),
        "failures": watch.poller.counters["failures"],
    }


async def shed(asked: dict[str, Any]) -> dict[str, Any]:
    """Everything to sleep at once: seconds to the last command sent, and to evidence of every machine."""
    watch = Watch(asked)
    running = asyncio.create_task(watch.poller.run())
    await watch.until(lambda: bool((watch.table["state"] == DeviceState.HASHING.code).all()), 120.0)
    await asyncio.sleep(asked.get("idle_s", 0.0))
    rows = np.arange(watch.count)
    asked_s = watch.look()
    watch.poller.command(rows, Mode.SLEEP, watch.clock.now())

    def asleep() -> bool:
        fresh = watch.polled_at_s > asked_s
        return bool((fresh & (watch.table["state"] == DeviceState.SLEEPING.code)).all())

    evidence_s = await watch.until(asleep, asked["limit_s"])
    ended = [watch.poller.last_command(row) for row in range(watch.count)]
    sent_s = max((order.ended_s or np.inf) - asked_s for order in ended if order is not None)
    running.cancel()
    state = watch.table["state"]
    return {
        "last_command_s": round(sent_s, 2),
        "evidence_s": round(evidence_s, 2),
        "asleep": int((state == DeviceState.SLEEPING.code).sum()),
        "outcomes": watch.poller.counters["commands"],
    }


async def foreign(asked: dict[str, Any]) -> dict[str, Any]:
    """pyasic-rs reading the same machines, identified beforehand, warm."""
    from pyasic_rs import MinerFactory

    own = psutil.Process()
    found = []
    for number in range(asked["count"]):
        miner = await MinerFactory().get_miner(address(number))
        if miner is not None:
            found.append(miner)
    await asyncio.gather(*(miner.get_data() for miner in found))
    cpu, polls = own.cpu_times(), 0
    for _ in range(asked["rounds"]):
        read = await asyncio.gather(*(miner.get_data() for miner in found))
        polls += sum(data.hashrate is not None for data in read)
    spent = own.cpu_times()
    cpu_s = spent.user + spent.system - cpu.user - cpu.system
    return {
        "miners": len(found),
        "polls": polls,
        "cpu_ms_per_poll": round(1000 * cpu_s / max(1, polls), 4),
        "rss_mib": round(own.memory_info().rss / 2**20, 1),
    }


async def write(asked: dict[str, Any]) -> dict[str, Any]:
    """Inventory and settings of the emulated site, for the real agent."""
    place = Path(asked["directory"])
    classes = [f'[class.{f}]\nfamily = "{f}"\nmodel = "{MODELS[f]}"\n' for f in asked["mix"]]
    (place / "inventory.toml").write_text("\n".join(['devices = "miners.csv"\n', *classes]))
    write_devices(place / "miners.csv", inventory_of(asked).rows)
    (place / "agent.toml").write_text(
        f'site = "bench"\nstate_dir = "{place}/state"\n[http]\nport = 0\n'
        f'[asic]\ninventory = "{place}/inventory.toml"\nbeat_s = {asked["beat_s"]}\n'
    )
    return {"written": asked["count"]}


async def render(asked: dict[str, Any]) -> dict[str, Any]:
    """Per-device series as text: CPU of one rendering, and the longest that a chunk holds the interpreter."""
    from agent.exposition import SERIES, DeviceSeries

    inventory = inventory_of({"mix": ["luxos"], "api_port": 1, "http_port": 1, **asked})
    table, chance = DeviceTable(asked["count"]), np.random.default_rng(1)
    for column, _, _ in SERIES:
        values = chance.normal(3000.0, 100.0, asked["count"]) if table[column].dtype.kind == "f" else 1
        table[column][:] = values
    series, chunks, spent = DeviceSeries(inventory.site), [], []
    for _ in range(5):
        began_s, lines = time.process_time(), series.render(table)
        while True:
            at_s = time.perf_counter()
            if next(lines, None) is None:
                break
            chunks.append(time.perf_counter() - at_s)
        spent.append(time.process_time() - began_s)
    return {
        "series": len(SERIES) * asked["count"],
        "cpu_s": round(sorted(spent)[2], 3),
        "chunk_ms_max": round(1000 * max(chunks), 2),
    }


async def discover(asked: dict[str, Any]) -> dict[str, Any]:
    """A range scanned: how long, how many of the emulated machines were found, and how many by their right family."""
    from agent.asic.probing import Probing, search
    from agent.asic.ranges import addresses, parse_ranges
    from gridpivot.limits import raise_file_limit

    raise_file_limit()
    spans = parse_ranges([asked["range"]])
    began_s, cpu = time.monotonic(), time.process_time()
    found = await search(addresses(spans), Probing(), lambda _: None)
    right = {address(n): family_of(n, asked["mix"]) for n in range(asked["count"])}
    return {
        "seconds": round(time.monotonic() - began_s, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "addresses": sum(map(len, spans)),
        "found": len(found),
        "right_family": sum(right.get(f.host) == f.family for f in found),
        "with_mac": sum(f.mac is not None for f in found),
    }


ROLES = {"sweep": sweep, "shed": shed, "foreign": foreign, "write": write, "render": render, "discover": discover}


def main() -> None:
    """`asic_roles.py ROLE JSON`."""
    role, asked = sys.argv[1], json.loads(sys.argv[2])
    if role == "emulate":
        asyncio.run(emulate(asked))
    else:
        print(json.dumps(asyncio.run(ROLES[role](asked))), flush=True)
        os._exit(0)  # pyasic-rs's threads sometimes abort an interpreter that ends in the usual way


if __name__ == "__main__":
    main()
