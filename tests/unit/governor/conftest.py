"""A governor on a virtual site with a clock that tests move: real decisions, simulated physics, no waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from agent.backends import SiteInventory
from agent.governor.decide import decide
from agent.governor.meter_watch import MeterWatch
from agent.governor.state import Actions, GovernorState, Orders, Policy, Sensed, instant
from gridpivot.columns import DeviceTable
from gridpivot.curves import AiPool, MinerClass, gpu_pool, miner_class
from gridpivot.vocabulary import AiPriority, Mode, Rung, Stage
from sim.physics import Truth
from sim.virtual import VirtualSite

STEP_S = 0.25


def mixed_classes() -> tuple[MinerClass, ...]:
    """Two fast families and one that takes a minute."""
    return (
        miner_class("s19", "luxos", "Antminer S19", shed_s=5.0, wake_s=20.0),
        miner_class("m50", "whatsminer", "Whatsminer M50", shed_s=5.0, wake_s=60.0, modes=(Mode.SLEEP, Mode.NORMAL)),
        miner_class(
            "stock", "antminer", "Antminer S19j Pro", shed_s=60.0, wake_s=90.0, modes=(Mode.SLEEP, Mode.NORMAL)
        ),
    )


@dataclass
class Rig:
    """One site: `run(seconds)` lets governor and physics go on; everything that happened is kept."""

    devices: int = 600
    classes: tuple[MinerClass, ...] = field(default_factory=mixed_classes)
    meter_delay_s: float = 2.0
    bias: float = 1.0
    dead_time_factor: float = 1.0
    silent_ratio: float = 0.0
    asleep_ratio: float = 0.12
    ceiling_ratio: float = 1.0
    ai_ratio: float = 0.5
    stage: Stage = Stage.FULL
    pools: tuple[AiPool, ...] = (gpu_pool("inference", AiPriority.GUARANTEED, 300),)
    seed: int = 1

    def __post_init__(self) -> None:
        class_index = (np.arange(self.devices) % len(self.classes)).astype(np.uint8)
        feeder = np.zeros(self.devices, np.uint16)
        self.inventory = SiteInventory(self.classes, class_index, ("f1",), feeder, b"", self.pools)
        truth = Truth(
            seed=self.seed,
            meter_delay_s=self.meter_delay_s,
            site_bias=self.bias,
            overhead_ratio=0.045,
            overhead_lag_s=90.0,
            fixed_w=5_000.0,
            dead_time_factor=self.dead_time_factor,
            silent_ratio=self.silent_ratio,
        )
        self.world = VirtualSite(self.inventory, truth, 0.0)
        for pool in self.world.pools:
            pool.demand_w = pool.power_w = self.ai_ratio * pool.max_w
            pool.limit_w = (self.ai_ratio + 0.03) * pool.max_w
        modes = np.full(self.devices, Mode.NORMAL.code, dtype=np.uint8)
        modes[: int(self.devices * self.asleep_ratio)] = Mode.SLEEP.code
        self.world.physics.start(modes)
        self.world.settle()
        self.ceiling_w = self.ceiling_ratio * self.world.true_power_w * 1.01
        self.policy = Policy(
            ceiling_w=self.ceiling_w,
            protection_w=1.08 * self.ceiling_w,
            stage=self.stage,
            ai_release_after_s=20.0,
            wake_after_s=10.0,
        )
        self.state = GovernorState(self.inventory)
        self.watch = MeterWatch(self.policy.meter_fresh_s, self.policy.meter_dead_s, 0.02 * self.ceiling_w)
        self.table = DeviceTable(self.devices)
        self.polled_at_s = np.full(self.devices, np.nan)
        self.orders = Orders(self.ceiling_w, Rung.MERIT_ORDER, None, [None] * len(self.pools))
        self.now_s = 0.0
        self.actions: list[tuple[float, Actions]] = []
        self.power_w: list[tuple[float, float]] = []
        self.deaf = False  # commands are decided and get lost on the way

    def tick(self) -> Actions:
        """One decision on what the world shows now."""
        now = instant(self.now_s)
        self.world.refresh(self.table, self.polled_at_s, now)
        sensed = Sensed(self.table, self.polled_at_s, self.world.newest(), self.world.read(now))
        actions = decide(self.state, self.watch, sensed, self.orders, self.policy, self.now_s)
        self.actions.append((self.now_s, actions))
        if not self.deaf:
            for command in actions.modes:
                self.world.command(command.rows, command.mode, now)
        for limit in actions.limits:
            self.world.set_limit(limit.pool, limit.limit_w, now)
        return actions

    def run(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """Physics every quarter second, a decision every second."""
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            self.power_w.append((self.now_s, self.world.advance(self.now_s)))
            each()
            if abs(self.now_s - round(self.now_s)) < 1e-9:
                self.tick()

    def demand(self, ratio: float, pool: int = 0) -> None:
        """AI demand as a share of the pool's maximum."""
        self.world.pools[pool].demand_w = ratio * self.world.pools[pool].max_w

    def since(self, from_s: float) -> list[Actions]:
        """Decisions after a moment."""
        return [actions for at_s, actions in self.actions if at_s > from_s]

    def excess_ratio(self, from_s: float = 0.0) -> float:
        """Highest true power over the ceiling, minus one."""
        return max(w for at_s, w in self.power_w if at_s > from_s) / self.ceiling_w - 1.0

    def longest_excess_s(self, from_s: float = 0.0) -> float:
        """Longest time that true power stood above the ceiling."""
        longest = run = 0.0
        for at_s, watts in self.power_w:
            run = run + STEP_S if at_s > from_s and watts > self.ceiling_w else 0.0
            longest = max(longest, run)
        return longest

    def reversals(self, from_s: float, least_ratio: float = 0.004) -> int:
        """How often mining's commanded direction turned, moves under 0.4 % of the ceiling left out."""
        signs: list[int] = []
        for actions in self.since(from_s):
            for command in actions.modes:
                if command.expected_w < least_ratio * self.ceiling_w:
                    continue
                sign = -1 if command.mode in (Mode.SLEEP, Mode.LOW) else 1
                if not signs or signs[-1] != sign:
                    signs.append(sign)
        return max(0, len(signs) - 1)


@pytest.fixture
def rig() -> Rig:
    """A site near its ceiling, meter two seconds behind."""
    return Rig()


@pytest.fixture
def make_rig() -> type[Rig]:
    """For tests that choose the physics."""
    return Rig
