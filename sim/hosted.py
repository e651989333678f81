"""One virtual site inside a host process: a complete agent on simulated physics, its story, its referee."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from agent.hardware import Beats, Hardware
from agent.identity.trust import load_planner_keys
from agent.site import SiteAgent
from agent.uplink.session import UplinkTarget
from gridpivot.clock import SystemClock
from gridpivot.link.credentials import KeyPair, client_credentials, read_public, read_secret
from gridpivot.segments import class_segments, machines_by_mode, merit_order
from gridpivot.vocabulary import Mode
from sim.bad_link import BadLink
from sim.fleet import EVENT_LEAD_S, SiteSpec, inventory_of, policy_of, truth_of
from sim.hostspec import HostSpec
from sim.referee import Referee
from sim.scenario import LOW, SiteStory
from sim.virtual import MeterFault, VirtualSite

FILL = 0.985  # of the ceiling, when the story begins
HASHPRICE_USD_PER_PH_DAY = 50.0  # only for the world's first moment


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def site_credentials(directory: Path, site: str) -> grpc.ChannelCredentials:
    """Identity of a demo site, made by the parent."""
    own = KeyPair(
        read_secret(directory / "sites" / site / "site.key"), read_public(directory / "sites" / site / "site.crt")
    )
    return client_credentials(read_public(directory / "ca.crt"), own)


class HostedSite:
    """A virtual site and everything that watches it."""

    def __init__(self, host: HostSpec, raw: dict[str, Any]) -> None:
        self.spec = SiteSpec(**raw["spec"])
        self.story = SiteStory.from_json(raw["story"])
        self.name = self.spec.name
        inventory = inventory_of(self.spec)
        truth = truth_of(self.spec, host.speed)
        self.world = VirtualSite(inventory, truth, time.monotonic())
        self._begin(truth.overhead_ratio, truth.fixed_w)
        self._host, self._bad_link = host, None if self.story.link_lost is None else BadLink(*_parts(host.address))
        self.agent: SiteAgent
        self.referee = Referee(self.name, self.spec.ceiling_w, self.spec.protection_w, stock_only=self.spec.stock_only)
        self._go_s: float | None = None
        self._repeat_s: float | None = None
        self._next_step = 0
        self._steps_told = 0

    async def open(self) -> None:
        """Make the agent; a site whose link will be lost dials through a link that can go dark."""
        host, address = self._host, self._host.address
        if self._bad_link is not None:
            address = f"127.0.0.1:{await self._bad_link.start()}"
        self.agent = SiteAgent(
            self.name,
            policy_of(self.spec),
            self.world.inventory,
            Hardware(self.world, self.world, self.world),
            UplinkTarget(address, site_credentials(host.directory, self.name), self.name),
            load_planner_keys(host.directory / "planner"),
            host.directory / "sites" / self.name,
            SystemClock(),
            Beats(governor_s=1.0, rollup_s=2.0, devices_s=15.0),
            EVENT_LEAD_S,
        )

    async def close(self) -> None:
        """Let go of the link."""
        if self._bad_link is not None:
            await self._bad_link.stop()

    def _begin(self, overhead_ratio: float, fixed_w: float) -> None:
        """The world before the story: AI low, its limits close above, mining fills the rest of the ceiling."""
        for pool in self.world.pools:
            pool.demand_w = pool.power_w = LOW * pool.max_w
            pool.limit_w = (LOW + 0.03) * pool.max_w
        ai_w = sum(pool.power_w for pool in self.world.pools)
        kinds, rng = self.world.inventory.classes, np.random.default_rng(self.spec.seed)
        counts = np.bincount(self.world.inventory.class_index, minlength=len(kinds))
        segments = [
            segment
            for kind, count in zip(kinds, counts, strict=True)
            for segment in class_segments(kind, float(count), HASHPRICE_USD_PER_PH_DAY, 0.01, overhead_ratio)
        ]
        import_w = fixed_w + (1.0 + overhead_ratio) * ai_w
        order = merit_order(segments, FILL * self.spec.ceiling_w, import_w, overhead_ratio, 0.0)
        modes = np.full(self.spec.devices, Mode.SLEEP.code, dtype=np.uint8)
        for index, kind in enumerate(kinds):
            rows = rng.permutation(np.flatnonzero(self.world.inventory.class_index == index))
            taken = 0
            for mode, machines in machines_by_mode(kind, float(counts[index]), order).items():
                share = rows[taken : taken + int(machines)]
                modes[share] = mode.code
                taken += len(share)
        self.world.physics.start(modes)
        self.world.settle()

    def go(self, at_s: float, repeat_s: float | None = None) -> None:
        """The story begins at this monotonic second, and again every `repeat_s`."""
        self._go_s, self._repeat_s = at_s, repeat_s

    def order(self, ceiling_w: float) -> None:
        """The grid lowers the ceiling now."""
        self.referee.order(time.monotonic(), ceiling_w)

    def announce(self) -> None:
        """The site goes down ahead of an order."""
        self.referee.announce()

    def release(self) -> None:
        """The grid lets go."""
        self.referee.release()

    def step(self, now_s: float) -> None:
        """Advance the story and physics; let the referee look."""
        if self._go_s is not None:
            self._advance_story(now_s, now_s - self._go_s)
        power_w = self.world.advance(now_s)
        if self._go_s is not None and now_s >= self._go_s:
            self.referee.see(now_s, power_w, self.world.true_ai_w)

    def _advance_story(self, now_s: float, at_s: float) -> None:
        if self._repeat_s is not None and self._go_s is not None and at_s >= self._repeat_s:
            self._go_s += self._repeat_s
            self._next_step, at_s = 0, at_s - self._repeat_s
        steps = self.story.steps
        while self._next_step < len(steps) and steps[self._next_step].at_s <= at_s:
            step = steps[self._next_step]
            self._next_step += 1
            self._steps_told += 1
            pool, before_w = self.world.pools[step.pool], self.world.true_ai_w
            pool.demand_w = step.demand_ratio * pool.max_w
            self.referee.step(now_s, sum(p.demand_w for p in self.world.pools), before_w)
        meter, link = self.story.meter_dead, self.story.link_lost
        if meter is not None:
            dead = meter.from_s <= at_s < meter.to_s
            self.world.meter_fault = MeterFault.DEAD if dead else MeterFault.NONE
        if link is not None and self._bad_link is not None:
            if link.from_s <= at_s < link.to_s:
                self._bad_link.dark()
            else:
                self._bad_link.light()

    def connected(self) -> bool:
        """Whether a session is up."""
        return self.agent.uplink is not None and self.agent.uplink.state.connected

    def waiting(self) -> int:
        """Records not yet acknowledged."""
        return 0 if self.agent.uplink is None else self.agent.uplink.waiting()

    def summary(self) -> dict[str, Any]:
        """What the referee found and what the agent counted."""
        state, uplink = self.agent.state, self.agent.uplink
        return {
            **self.referee.findings.to_json(),
            "ai_steps": self._steps_told,
            "commands": state.commands_total,
            "commands_confirmed": state.confirmed_total,
            "commands_short": state.short_total,
            "commands_open": int((state.pending != 0).sum()),
            "last_seq": {} if uplink is None else {int(lane): seq for lane, seq in uplink.spool.last_seq.items()},
            "boot_id": "" if uplink is None else uplink.spool.opened.boot_id.hex(),
            "dropped": 0 if uplink is None else sum(uplink.spool.dropped_total.values()),
            "waiting": self.waiting(),
            "tick_max_s": self.agent.counters.tick_s_max,
            "late_ticks": self.agent.counters.late_ticks_total,
        }
