"""Feeds a pool's curve: asks for throughput at its beat and sets it beside the power of the boards."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from agent.ai.curve import LearnedCurve, Sample
from agent.ai.lever import PoolPower
from agent.ai.throughput import Throughput, ThroughputOutcome
from agent.ai.work import PoolWork
from gridpivot.clock import Clock
from gridpivot.curves import AiPool
from gridpivot.v1 import telemetry_pb2 as pb

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger("agent.ai.curve")
STEP_RATIO = 0.02  # limits or power that move more have not settled


@dataclass(slots=True)
class Learner:
    """One pool's. `see` takes what the governor's tick knows; `run` asks, learns, and never raises."""

    pool: AiPool
    host_w: float
    throughput: Throughput
    clock: Clock
    curve: LearnedCurve = field(default_factory=LearnedCurve)
    outcome: ThroughputOutcome | None = None
    _power: PoolPower | None = None
    _held: bool = False
    _work: str = ""
    _changed_at_s: float = 0.0
    _level: tuple[float, str, bool] = (0.0, "", False)

    def see(self, power: PoolPower, held: bool, work: PoolWork | None, locked: bool = False) -> None:
        """Power, whether limits hold it, which jobs run, and whether their clocks are locked: that is another curve."""
        jobs = "" if work is None else ",".join(sorted(job.job_id for job in work.jobs))
        if (
            abs(power.limit_w - self._level[0]) > STEP_RATIO * max(1.0, self._level[0])
            or (jobs, locked) != self._level[1:]
        ):
            self._level, self._changed_at_s = (power.limit_w, jobs, locked), power.read_at_s
        self._power, self._held, self._work = power, held, jobs or "unknown work"

    async def run(self) -> None:
        """Until cancelled."""
        import httpx

        async with httpx.AsyncClient(follow_redirects=False, trust_env=False) as client:
            while True:
                await self.once(client)
                await asyncio.sleep(self.throughput.settings.every_s)

    async def once(self, client: httpx.AsyncClient) -> None:
        """One question, and what it teaches."""
        before = self._power
        outcome, figure = await self.throughput.read(client, self._work)
        if outcome is not self.outcome:
            (log.info if figure is not None else log.warning)("throughput", pool=self.pool.name, outcome=outcome.value)
        self.outcome = outcome
        if figure is None or before is None or before.power_w is None or self._level[2]:
            return
        boards_w = before.power_w - self.host_w
        self.curve.learn(
            Sample(self.clock.now().monotonic_s, self._work, boards_w, figure, self._held, self._changed_at_s)
        )

    def points(self) -> list[pb.PoolPoint]:
        """The curve for dispatch, to two digits; empty until it has learned anything."""
        if not self.curve.samples:
            return []
        sds = {p.power_ratio: p.sd for p in self.curve.points()}
        span_w = self.pool.max_w - self.host_w
        corners = self.curve.wall_corners(self.host_w, self.pool.min_w, self.pool.max_w)
        return [
            pb.PoolPoint(
                power_w=round(watts),
                throughput_ratio=round(ratio, 2),
                throughput_sd=round(min(sds.items(), key=lambda e: abs(e[0] - (watts - self.host_w) / span_w))[1], 3),
            )
            for watts, ratio in corners
        ]
