"""The agent, or the GPU guard beside it, is killed in the middle of a shed wave while AI demand doubles.

A wire site: miners on sockets, a Modbus meter, GPUs behind the stand-in NVML; real `gridpivot-agent run`, real
`gridpivot-agent gpu-guard`, a real controller whose signed plan carries the fallback. Power is the referee's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sim import staging
from sim.chaos.outcome import Outcome
from sim.chaos.rig import STEP_S, Rig, until
from sim.children import Child, wait_for_log
from sim.fleet import SiteSpec
from sim.gpus import SimGpus
from sim.meter import ENERGY_ADDRESS, POWER_ADDRESS
from sim.miners.fleet import WireMiners
from sim.nvml.state import STATE_VARIABLE
from sim.referee import Referee
from sim.scenario import SiteStory
from sim.staging import secret
from sim.wire_site import WireSite, WireSpec

MINERS, GPUS = 24, 24
LOW, HIGH = 0.45, 0.9  # of the pool's highest power: demand doubles
LEASE_S = 8.0
TOLERANCE_W = 1.0  # of one board


@dataclass(slots=True)
class Killed:
    """A site whose agent and guard can be killed."""

    rig: Rig
    gpus: SimGpus
    site: WireSite
    miners: WireMiners
    config: Path
    guard_config: list[str]
    environ: dict[str, str]
    referee: Referee
    starts: int = 0
    agent: Child | None = None
    guard: Child | None = None
    most_w: float = 0.0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def physics(self) -> None:
        """True power, four times a second."""
        while True:
            now_s = time.monotonic()
            self.site.advance(now_s)
            self.referee.see(now_s, self.site.power_w, self.site.ai_w)
            self.most_w = max(self.most_w, self.site.power_w)
            await asyncio.sleep(STEP_S)

    async def start(self, victim: str) -> None:
        """Start the agent or the guard; its log is a new one."""
        self.starts += 1
        child = Child(victim, self.rig.place / f"{victim}-{self.starts}.log")
        command = self.guard_config
        if victim == "agent":
            command = staging.entry("agent.cli", "run", "--config", str(self.config))
        await child.start(command, self.environ)
        setattr(self, victim, child)
        await wait_for_log(child, "agent up" if victim == "agent" else "gpu guard up", 30.0)

    async def kill(self, victim: str) -> None:
        """kill -9, and wait until it is gone."""
        child: Child | None = getattr(self, victim)
        assert child is not None and child.process is not None
        os.kill(psutil.Process(child.process.pid).pid, signal.SIGKILL)
        await child.process.wait()

    def said(self, text: str) -> int:
        """How often the running agent's log has this."""
        assert self.agent is not None
        return self.agent.log.read_text(encoding="utf-8", errors="replace").count(text)

    def fallbacks_w(self) -> dict[str, float]:
        """What the guard keeps on its disk, by GPU [W]."""
        path = self.rig.place / "guard" / "fallbacks.json"
        with contextlib.suppress(OSError, ValueError):
            return {k: float(v) for k, v in json.loads(path.read_bytes())["fallback_w"].items()}
        return {}

    def above_fallback(self) -> int:
        """GPUs whose limit stands above its fallback now."""
        fallback_w = self.fallbacks_w()
        with self.gpus.state.settled() as devices:
            limits = {d["uuid"].decode(): d["limit_mw"] / 1000.0 for d in devices}
        return sum(watts > fallback_w.get(uuid, 0.0) + TOLERANCE_W for uuid, watts in limits.items())


@contextlib.asynccontextmanager
async def wired(place: Path) -> AsyncIterator[Killed]:
    """Controller, hardware, guard and agent, and a plan in force."""
    rig = Rig(place)
    spec = rig.specs[0]
    own = place / "sites" / spec.name
    gpus = SimGpus.open(own, GPUS)
    if gpus is None:
        raise RuntimeError("no C compiler and no ziglang here: GPUs cannot be simulated")
    async with WireMiners(MINERS, {"m60-whatsminer": 1.0}, seed=spec.seed) as miners:
        wire = WireSpec(place, os.getpid(), spec, SiteStory(()), MINERS, GPUS, 1.0)
        gpus.set_demand(LOW)
        gpus.set_limits(LOW + 0.03)
        site = WireSite(wire, miners, gpus)
        site.advance(time.monotonic())
        ceiling_w = round(site.power_w * 1.01)
        await site.meter.start()
        referee = Referee(spec.name, ceiling_w, 1.08 * ceiling_w, stock_only=False)
        standing = Killed(rig, gpus, site, miners, _settings(rig, spec, miners, gpus, site, ceiling_w), [], {}, referee)
        standing.environ = {"LD_LIBRARY_PATH": str(gpus.library_dir), STATE_VARIABLE: str(gpus.state_path)}
        guard = ("gpu-guard", "--socket", str(place / "guard.sock"), "--state-dir", str(place / "guard"))
        standing.guard_config = staging.entry("agent.cli", *guard)
        standing.tasks.append(asyncio.create_task(standing.physics()))
        try:
            await rig.start_controller()
            await standing.start("guard")
            await standing.start("agent")
            await until(lambda: standing.said(" applied"), 90.0, "a plan is applied")
            await until(standing.fallbacks_w, 20.0, "fallbacks are kept")
            yield standing
        finally:
            for task in standing.tasks:
                task.cancel()
            await asyncio.gather(*standing.tasks, return_exceptions=True)
            for child in (standing.agent, standing.guard):
                if child is not None:
                    await child.stop()
            await site.meter.stop()
            gpus.close()
            await rig.stop()


def _settings(rig: Rig, spec: SiteSpec, miners: WireMiners, gpus: SimGpus, site: WireSite, ceiling_w: float) -> Path:
    place = rig.place / "sites" / spec.name
    passwords = {family: str(place / f"{family}.password") for family in miners.logins()}
    for family, login in miners.logins().items():
        secret(Path(passwords[family]), login.password.encode() + b"\n")
    wire = {
        "ceiling_w": ceiling_w,
        "inventory": str(miners.write_inventory(place)),
        "miners": MINERS,
        "gpus": GPUS,
        "passwords": passwords,
        "meter_port": site.meter.port,
        "power_address": POWER_ADDRESS,
        "energy_address": ENERGY_ADDRESS,
    }
    path = staging.write_agent_settings(rig.place, spec, f"localhost:{rig.session_port}", wire)
    guard = f'[gpu]\nguard_socket = "{rig.place / "guard.sock"}"\nguard_lease_s = {LEASE_S}\n[[gpu.pools]]'
    path.write_text(path.read_text(encoding="utf-8").replace("[[gpu.pools]]", guard), encoding="utf-8")
    return path


async def _round(site: Killed, victim: str, moment: Callable[[Killed, int], bool]) -> tuple[str, float]:
    """AI doubles, `victim` is killed at its moment, the lease ends, the victim comes back and AI gets its power.

    Returns what was wrong, and how long the way back took [s].
    """
    before = site.said("room_for_ai")
    site.gpus.set_demand(HIGH)
    await until(lambda: moment(site, before), 40.0, "the moment to kill")
    await site.kill(victim)
    note = ""
    if victim == "agent":
        await until(lambda: not site.above_fallback(), LEASE_S + 4.0, "limits at their fallback")
        began_s = time.monotonic()
        while time.monotonic() - began_s < 6.0:
            await asyncio.sleep(STEP_S)
            note = note or (f"{site.above_fallback()} GPUs above their fallback" if site.above_fallback() else "")
    else:
        await asyncio.sleep(LEASE_S + 4.0)
    await site.start(victim)
    wanted_w = 0.95 * HIGH * site.gpus.pool.max_w
    back_s = await until(lambda: site.site.ai_w >= wanted_w, 120.0, "AI has its power again")
    site.gpus.set_demand(LOW)
    await until(lambda: site.site.ai_w < 0.5 * site.gpus.pool.max_w, 30.0, "AI demand has fallen")
    return note, back_s


MOMENTS: Sequence[tuple[str, str, Callable[[Killed, int], bool]]] = (
    ("agent", "first shed command", lambda s, before: s.said("room_for_ai") > before),
    ("agent", "AI rising", lambda s, before: s.site.ai_w > 1.1 * LOW * s.gpus.pool.max_w),
    ("guard", "first shed command", lambda s, before: s.said("room_for_ai") > before),
)


async def agent_killed(place: Path, short: bool) -> Outcome:
    """kill -9 in mid shed wave while AI demand doubles: never over the ceiling, and after the lease GPUs at the fallback."""
    async with wired(place) as site:
        notes, back_s = [], 0.0
        moments = MOMENTS[:1] if short else MOMENTS
        for victim, when, moment in moments:
            note, took_s = await _round(site, victim, moment)
            back_s = max(back_s, took_s)
            notes += [f"{victim} killed at {when}: {note}"] if note else []
            if moment is not moments[-1][2]:
                await _settled(site)
        findings = site.referee.findings
        excess_pct = 100.0 * findings.excess_max_ratio
        if excess_pct > 0.0:
            notes.append(f"{excess_pct:.2f} % over the ceiling for {findings.excess_max_s:.1f} s")
        fallback_w = sum(site.fallbacks_w().values())
        saw = (
            f"guard log 'lease ended: fallbacks hold' ({fallback_w / 1e3:.1f} kW of boards); {len(moments)} kills; highest "
            f"{100.0 * site.most_w / site.referee.ceiling_w:.1f} % of the ceiling"
        )
        return Outcome(
            "agent_killed",
            not notes,
            saw,
            "processes",
            ceiling_excess_pct=excess_pct,
            protection_reached=findings.protection_limit_reached,
            recovery_s=back_s,
            note="; ".join(notes),
        )


async def _settled(site: Killed) -> None:
    """Until mining has come back into the room that AI left."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: site.site.power_w > 0.9 * site.referee.ceiling_w, 60.0, "mining is back")


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {"agent_killed": agent_killed}
