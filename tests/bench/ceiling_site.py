"""The hardware of bench_ceiling: thousands of wire-level miners behind shared ports, a Modbus meter, and a stopwatch.

The stopwatch is the miners' own: each notes the moment at which a command to sleep reached it. Monotonic time is one for
all processes of a machine. Told by JSON lines: `mark` forgets what was noted; every line is answered by `state`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.asic.inventory_file import ClassEntry, DeviceRow, write_devices, write_header
from agent.asic.registry import FAMILIES
from agent.asic.transport import Endpoint
from gridpivot.curves import miner_class
from gridpivot.vocabulary import Mode
from sim.lines import hear, own_use, say
from sim.meter import ENERGY_ADDRESS, POWER_ADDRESS, SimMeter
from sim.miners.epic import SimEpic
from sim.miners.luxos import SimLuxOs
from sim.miners.machine import Machine
from sim.miners.swarm import Swarm
from sim.miners.whatsminer import SimWhatsminer
from sim.miners.wire import WireMiner

MAKERS: dict[str, type[WireMiner]] = {"whatsminer": SimWhatsminer, "epic": SimEpic, "luxos": SimLuxOs}
MODELS = {"whatsminer": "Whatsminer M60", "epic": "Antminer S21 Pro", "luxos": "Antminer S21"}
MODES = (Mode.SLEEP, Mode.LOW, Mode.NORMAL)
SHED_S, WAKE_S = 2.0, 6.0  # of the emulated machines: the rounds are many
OVERHEAD_RATIO = 0.04
NOISE_W = 3_000.0  # pumps and fans come and go: no site's meter stands still to the watt
LOOK_S = 0.5
METER_DELAY_S = 1.0


class WatchedMachine(Machine):
    """Notes when it was told to sleep, the first time counting as the others."""

    noted: list[float]

    def command(self, mode: Mode, now_s: float, *, restart: bool = False) -> None:
        """As any machine, with a note."""
        if mode is Mode.SLEEP:
            self.noted.append(time.monotonic())
        super().command(mode, now_s, restart=restart)


class Site:
    """Miners, meter, notes."""

    def __init__(self, count: int, mix: list[str]) -> None:
        self.noted: list[float] = []
        kinds = {f: miner_class(f, f, MODELS[f], shed_s=SHED_S, wake_s=WAKE_S, modes=MODES) for f in mix}
        self.miners: list[WireMiner] = []
        for number in range(count):
            family = mix[number % len(mix)]
            machine = WatchedMachine(kinds[family], number, now_s=time.monotonic())
            machine.noted = self.noted
            mac = ":".join(f"{octet:02X}" for octet in (2, 0, *number.to_bytes(4, "big")))
            self.miners.append(MAKERS[family](machine, mac))
        self.power_w = self._energy_j = 0.0
        self._at_s = time.monotonic()
        self.meter = SimMeter(lambda: (self.power_w, self._energy_j), delay_s=METER_DELAY_S)
        self.look()

    def look(self) -> None:
        """True power of this moment; energy since the last look at the power that held until now."""
        now_s = time.monotonic()
        self._energy_j += self.power_w * (now_s - self._at_s)
        self._at_s = now_s
        load_w = sum(miner.machine.true_power_w(now_s) for miner in self.miners)
        self.power_w = (1.0 + OVERHEAD_RATIO) * load_w + abs(random.gauss(0.0, NOISE_W))

    async def watch(self) -> None:
        """Keep looking."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def write_inventory(self, place: Path, mix: list[str]) -> Path:
        """For the agent, with the families' own times."""
        path = place / "inventory.toml"
        write_header(path, "miners.csv", ("main",), {f: ClassEntry(family=f, model=MODELS[f]) for f in mix}, {})
        rows = [DeviceRow(Endpoint(m.host, m.api_port, m.http_port, 1), m.family, mac=m.mac) for m in self.miners]
        write_devices(place / "miners.csv", rows)
        return path

    def state(self) -> dict[str, Any]:
        """What stands now, and what was noted since the last mark [monotonic s]."""
        noted = sorted(self.noted)
        asleep = sum(miner.machine.mode is Mode.SLEEP for miner in self.miners)
        return {
            "asleep": asleep,
            "awake": len(self.miners) - asleep,
            "power_w": self.power_w,
            "commands": len(noted),
            "first_at_s": noted[0] if noted else None,
            "most_at_s": noted[int(0.99 * (len(noted) - 1))] if noted else None,
            "last_at_s": noted[-1] if noted else None,
        }


async def serve(asked: dict[str, Any]) -> None:
    """Serve until standard input closes."""
    site = Site(asked["count"], asked["mix"])
    swarm = Swarm(site.miners)
    await swarm.start()
    await site.meter.start()
    gc.freeze()  # eleven thousand machines are not garbage to be looked through again and again
    passwords = {}
    for family in asked["mix"]:
        login = FAMILIES[family].factory_login
        if login is not None:
            known = next(miner for miner in site.miners if miner.family == family)
            passwords[family] = {"username": login.username, "password": known.password}

    def on_line(line: dict[str, Any]) -> None:
        if line["op"] == "mark":
            site.noted.clear()
        say("state", **site.state(), **own_use())

    watching = asyncio.create_task(site.watch())
    inventory = site.write_inventory(Path(asked["place"]), asked["mix"])
    say(
        "up",
        power_w=site.power_w,
        sleep_w=(1.0 + OVERHEAD_RATIO) * sum(m.kind.modes[Mode.SLEEP].power_w for m in site.miners),
        inventory=str(inventory),
        passwords=passwords,
        meter_port=site.meter.port,
        power_address=POWER_ADDRESS,
        energy_address=ENERGY_ADDRESS,
    )
    try:
        await hear(on_line)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await site.meter.stop()
        await swarm.stop()


def main() -> None:
    """`ceiling_site.py JSON`."""
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
