"""The wire site's hardware: miners on real sockets, a Modbus meter, GPUs behind a stand-in NVML; and its referee.

The agent beside it is the real `gridpivot-agent run`, which knows only addresses. `python -m sim.wire_site SPEC`
speaks the same JSON lines with its parent as a host process does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.fleet import SiteSpec
from sim.lines import hear, own_use, say
from sim.meter import ENERGY_ADDRESS, POWER_ADDRESS, MeterFault, SimMeter
from sim.miners.fleet import EVERY_FAMILY, WireMiners
from sim.referee import Referee
from sim.scenario import LOW, SiteStory
from sim.staging import secret

if TYPE_CHECKING:
    from sim.gpus import SimGpus

STEP_S = 0.25
OVERHEAD_RATIO, OVERHEAD_LAG_S = 0.04, 90.0


@dataclass(frozen=True, slots=True)
class WireSpec:
    """What the parent asks for."""

    directory: Path
    parent_pid: int
    spec: SiteSpec
    story: SiteStory
    miners: int
    gpus: int
    speed: float

    @classmethod
    def read(cls, path: Path) -> WireSpec:
        """From the parent."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            Path(raw["directory"]),
            raw["parent_pid"],
            SiteSpec(**raw["spec"]),
            SiteStory.from_json(raw["story"]),
            raw["miners"],
            raw["gpus"],
            raw["speed"],
        )


class WireSite:
    """Miners, GPUs, overhead and meter of the wire site, with true figures for the referee."""

    def __init__(self, wire: WireSpec, miners: WireMiners, gpus: SimGpus | None) -> None:
        self.wire, self.miners, self.gpus = wire, miners, gpus
        self._energy_j = 0.0
        self._overhead_w = 0.0
        self._at_s = time.monotonic()
        self.power_w = self.ai_w = 0.0
        self._settled = False
        self.meter = SimMeter(lambda: (self.power_w, self._energy_j), delay_s=1.5)

    def advance(self, now_s: float) -> None:
        """True power at this moment."""
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s = now_s
        self.ai_w = self.gpus.wall_power_w(now_s) if self.gpus is not None else 0.0
        load_w = self.miners.true_power_w(now_s) + self.ai_w
        goal_w = OVERHEAD_RATIO * load_w
        weight = min(1.0, elapsed_s / OVERHEAD_LAG_S) if self._settled else 1.0
        self._settled = True
        self._overhead_w += weight * (goal_w - self._overhead_w)
        self.power_w = load_w + self._overhead_w
        self._energy_j += self.power_w * elapsed_s


async def play(wire: WireSpec) -> None:
    """Serve the hardware until told to stop."""
    place = wire.directory / "sites" / wire.spec.name
    gpus = None
    if wire.gpus:
        from sim.gpus import SimGpus

        gpus = SimGpus.open(place, wire.gpus)
    async with WireMiners(
        wire.miners, EVERY_FAMILY, seed=wire.spec.seed, speed=wire.speed, shared_ports=True
    ) as miners:
        site = WireSite(wire, miners, gpus)
        if gpus is not None:
            gpus.set_demand(LOW)
            gpus.set_limits(LOW + 0.03)
        site.advance(time.monotonic())
        ceiling_w = round(site.power_w * 1.01)
        await site.meter.start()
        inventory = miners.write_inventory(place)
        passwords = {}
        for family, login in miners.logins().items():
            passwords[family] = str(place / f"{family}.password")
            secret(Path(passwords[family]), login.password.encode() + b"\n")
        say(
            "up",
            ceiling_w=ceiling_w,
            inventory=str(inventory),
            miners=wire.miners,
            passwords=passwords,
            meter_port=site.meter.port,
            power_address=POWER_ADDRESS,
            energy_address=ENERGY_ADDRESS,
            gpus=0 if gpus is None else wire.gpus,
            library_dir="" if gpus is None else str(gpus.library_dir),
            gpu_state="" if gpus is None else str(gpus.state_path),
        )
        try:
            await _run(wire, site, Referee(wire.spec.name, ceiling_w, 1.08 * ceiling_w, stock_only=False))
        finally:
            await site.meter.stop()
            if gpus is not None:
                gpus.close()


async def _run(wire: WireSpec, site: WireSite, referee: Referee) -> None:
    stop = asyncio.Event()
    began: list[float] = []
    repeat: list[float] = []

    def on_line(line: dict[str, Any]) -> None:
        match line.get("op"):
            case "go":
                began.append(line["at_s"])
                repeat.extend([line["repeat_s"]] if line.get("repeat_s") else [])
            case "ceiling":
                referee.order(time.monotonic(), line["ceiling_w"])
            case "release":
                referee.release()
            case "stop":
                stop.set()

    hearing = asyncio.create_task(hear(on_line))
    hearing.add_done_callback(lambda _: stop.set())
    steps, done_steps = list(wire.story.steps), 0
    while not stop.is_set():
        now_s = time.monotonic()
        if began:
            at_s = now_s - began[0]
            if repeat and at_s >= repeat[0]:
                began[0] += repeat[0]
                at_s, steps = at_s - repeat[0], list(wire.story.steps)
            while steps and steps[0].at_s <= at_s:
                step = steps.pop(0)
                done_steps += 1
                if site.gpus is not None:
                    before_w = site.ai_w
                    site.gpus.set_demand(step.demand_ratio)
                    referee.step(now_s, step.demand_ratio * site.gpus.pool.max_w, before_w)
            meter = wire.story.meter_dead
            dead = meter is not None and meter.from_s <= at_s < meter.to_s
            site.meter.fault = MeterFault.DEAD if dead else MeterFault.NONE
        site.advance(now_s)
        if began:
            referee.see(now_s, site.power_w, site.ai_w)
        with suppress(TimeoutError):
            async with asyncio.timeout(STEP_S):
                await stop.wait()
    say("summary", sites=[{**referee.findings.to_json(), "ai_steps": done_steps}], **own_use())
    hearing.cancel()


def main() -> None:
    """Started by the demo, not by people."""
    from gridpivot.observability import configure
    from sim.tether import tether

    wire = WireSpec.read(Path(sys.argv[1]))
    tether(wire.parent_pid)
    configure("json", "warning")
    with suppress(KeyboardInterrupt):
        asyncio.run(play(wire))


if __name__ == "__main__":
    main()
