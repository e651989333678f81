"""A desk over a simulated cluster in virtual time: the product's decisions and levers, the clock and the meter ours.

`agent/ai/runner.py` does the same with real time and real managers; here a second passes when it is told to.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from agent.ai.curve import HeldFactor
from agent.ai.desk import Act, PoolDesk, PoolNeed, Pull, PullState, decide, note
from agent.ai.lever import LADDER, Lever, PoolPower
from agent.ai.levers.clocks import ClockLock
from agent.ai.levers.hold import Admission, ParkIdle
from agent.ai.levers.limit import PowerLimit
from agent.ai.levers.requeue import Requeue
from agent.ai.work import PoolWork
from agent.ai.workload import Order
from gridpivot.clock import Instant
from gridpivot.vocabulary import LeverName
from sim.ai_cluster import SimCluster

VERIFY_S = 3.0
LOOK_S = 10.0
METER_S = 2.0  # mean of the pool's meter


@dataclass
class VirtualClock:
    """Time as the story has it."""

    instant: Instant

    def now(self) -> Instant:
        """Now."""
        return self.instant


@dataclass
class VirtualDesk:
    """One pool."""

    name: str
    cluster: SimCluster
    meter_noise: float = 0.001
    seed: int = 7
    decode_clock_mhz: int | None = None  # of a pool that decodes, memory-bound
    desk: PoolDesk = field(default_factory=PoolDesk)
    log: list[tuple[float, Act]] = field(default_factory=list)
    ended: list[Pull] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = VirtualClock(self.cluster.now)
        self.held = HeldFactor()
        self.cap_w: float | None = None
        self._random = np.random.default_rng(self.seed)
        self._readings: deque[tuple[float, float]] = deque()
        self._work: PoolWork | None = None
        self._looked_s = self._verified_s = float("-inf")
        self.target_w: float | None = None
        self.forced = False
        self.admits: bool | None = None  # the plan's wish
        kill_s = self.cluster.kill_wait_s + 10.0
        self.levers: dict[LeverName, Lever] = {
            LeverName.PARK_IDLE: ParkIdle(self.cluster, self.clock),
            LeverName.POWER_LIMIT: PowerLimit(self.name, self._cap, self._limit_w, self.held, self._host_w),
            LeverName.ADMISSION: Admission(self.cluster, self.clock),
            LeverName.REQUEUE: Requeue(self.cluster, self.clock, kill_s),
        }
        if self.decode_clock_mhz is not None:
            mhz, clocks = self.decode_clock_mhz, self.cluster.clocks
            self.levers[LeverName.CLOCK_LOCK] = ClockLock(self.name, mhz, self._lock, clocks, self._host_w)

    @property
    def _host_w(self) -> float:
        return self.cluster.host_w * self.cluster.gpus

    def _cap(self, cap_w: float | None) -> None:
        self.cap_w = cap_w

    def _lock(self, mhz: int | None) -> None:
        self.cluster.lock_mhz = mhz

    def _limit_w(self) -> float:
        return self._host_w + self.cluster.limit_w * self.cluster.gpus

    def power(self) -> PoolPower:
        """What the pool's meter shows: a mean of the last seconds."""
        shown = [watts for _, watts in self._readings]
        gpus, host_w = self.cluster.gpus, self._host_w
        return PoolPower(
            self.clock.now().monotonic_s,
            sum(shown) / len(shown) if shown else None,
            self._limit_w(),
            host_w + self.cluster.min_w * gpus,
            host_w + self.cluster.idle_w * gpus,
            gpus,
        )

    async def step(self, now: Instant) -> float:
        """One second; returns the pool's true power [W]."""
        self.clock.instant = now
        true_w = self.cluster.advance(now)
        self._readings.append((now.monotonic_s, true_w * (1.0 + float(self._random.normal(0.0, self.meter_noise)))))
        while self._readings[0][0] <= now.monotonic_s - METER_S:
            self._readings.popleft()
        self._govern()
        if now.monotonic_s - self._looked_s >= LOOK_S:
            self._looked_s = now.monotonic_s
            self._work = await self.cluster.observe(now.monotonic_s)
        power, target_w = self.power(), self.target_w
        promises = {}
        if target_w is not None and power.power_w is not None:
            asked_w = max(0.0, power.power_w - target_w)
            for lever in self.levers.values():
                lever.observe(self._work, power)
            names = [n for n in LADDER[self.cluster.priority] if n in self.levers]
            promises = {n: self.levers[n].promise(self._work, power, asked_w) for n in names}
        need = PoolNeed(self.name, self.cluster.priority, target_w, power, self.forced, promises, admits=self.admits)
        for act in decide({self.name: self.desk}, [need], now.monotonic_s, "sim"):
            self.log.append((now.monotonic_s, act))
            await self._do(act)
        pull = self.desk.open
        if pull is not None and now.monotonic_s - self._verified_s >= VERIFY_S:
            self._verified_s = now.monotonic_s
            await self._verify(pull)
        self.ended += [replace(pull) for pull in self.desk.ended]  # as they stood: a restore changes them
        self.desk.ended = []
        return true_w

    def _order(self, order_id: str) -> Order:
        return Order(order_id, "simulated", self.clock.now().unix_s + 900.0)

    async def _do(self, act: Act) -> None:
        lever, order = self.levers[act.lever], self._order(act.order_id)
        report = await (lever.restore(order) if act.restore else lever.act(order, act.promise))
        note(self.desk, act.order_id, report, self.clock.now().monotonic_s)
        self._looked_s = float("-inf")

    async def _verify(self, pull: Pull) -> None:
        lever, order = self.levers[pull.lever], self._order(pull.order_id)
        restoring = pull.state is PullState.RESTORING
        report = await (lever.restore(order) if restoring else lever.verify(order, pull.promise))
        note(self.desk, pull.order_id, report, self.clock.now().monotonic_s)

    def _govern(self) -> None:
        """What the governor does with a cap: limits down within its tick, up by a tenth of their range a second."""
        cluster = self.cluster
        gpus = cluster.gpus
        wanted_w = cluster.max_w if self.cap_w is None else max(cluster.min_w, (self.cap_w - self._host_w) / gpus)
        cluster.limit_w = min(wanted_w, cluster.limit_w + 0.1 * (cluster.max_w - cluster.min_w))
