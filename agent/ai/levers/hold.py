"""Levers over the workload manager that take no work away: idle nodes held out, and no new work at all.

Neither brings watts now. Held nodes cannot fill up, so their limits need no room; closed admission keeps what ends from
being replaced. So both promise room or nothing, and say so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.ai.lever import PoolPower, Promise, Report
from agent.ai.work import PoolWork
from agent.ai.workload import Order, Step, Workload
from gridpivot.clock import Clock
from gridpivot.vocabulary import LeverName, LeverOutcome

SECONDS = 15.0  # two looks at the manager


@dataclass(slots=True)
class ParkIdle:
    """Hold idle nodes out."""

    workload: Workload
    clock: Clock
    name: LeverName = LeverName.PARK_IDLE

    def observe(self, work: PoolWork | None, power: PoolPower) -> None:
        """Nothing to learn."""

    def promise(self, work: PoolWork | None, power: PoolPower, asked_w: float) -> Promise:
        """No watts; the room between limits and draw of idle nodes, until the ask is covered."""
        nothing = Promise(self.name, asked_w, 0.0, SECONDS)
        if work is None:
            return replace(nothing, why_not="the workload manager does not answer")
        room_w = max(0.0, power.limit_w - (power.power_w or power.limit_w)) / max(1, power.gpu_count)
        chosen, reserve_w = [], 0.0
        for node in work.nodes:
            if reserve_w >= asked_w:
                break
            if node.idle and not node.held:
                chosen.append(node.name)
                reserve_w += room_w * node.gpus
        why_not = "" if chosen else "no idle node"
        return replace(nothing, reserve_w=reserve_w, subjects=tuple(chosen), why_not=why_not)

    async def act(self, order: Order, promise: Promise) -> Report:
        """Hold them."""
        return Report(self.name, await self.workload.hold(promise.subjects, order))

    async def verify(self, order: Order, promise: Promise) -> Report:
        """Whether they are held, and by us."""
        work = await self.workload.observe(self.clock.now().monotonic_s)
        nodes = {node.name: node for node in work.nodes}
        steps = []
        for name in promise.subjects:
            node = nodes.get(name)
            outcome = LeverOutcome.GONE if node is None else LeverOutcome.DONE if node.held else LeverOutcome.IGNORED
            if node is not None and node.held and not node.ours:
                outcome = LeverOutcome.NOT_OURS
            steps.append(Step(name, outcome, "" if node is None else node.held_by))
        return Report(self.name, tuple(steps))

    async def restore(self, order: Order) -> Report:
        """Give them back."""
        return Report(self.name, await self.workload.release(order.order_id))


@dataclass(slots=True)
class Admission:
    """No new work of the pool."""

    workload: Workload
    clock: Clock
    name: LeverName = LeverName.ADMISSION

    def observe(self, work: PoolWork | None, power: PoolPower) -> None:
        """Nothing to learn."""

    def promise(self, work: PoolWork | None, power: PoolPower, asked_w: float) -> Promise:
        """Nothing now; what ends is not replaced."""
        nothing = Promise(self.name, asked_w, 0.0, SECONDS)
        if work is None:
            return replace(nothing, why_not="the workload manager does not answer")
        if not work.admitting:
            return replace(nothing, why_not="closed already")
        return replace(nothing, subjects=("pool",))

    async def act(self, order: Order, promise: Promise) -> Report:
        """Close it."""
        return Report(self.name, await self.workload.close_admission(order))

    async def verify(self, order: Order, promise: Promise) -> Report:
        """Whether it is closed."""
        work = await self.workload.observe(self.clock.now().monotonic_s)
        outcome = LeverOutcome.IGNORED if work.admitting else LeverOutcome.DONE
        if not work.admitting and not work.admission_ours:
            outcome = LeverOutcome.NOT_OURS
        return Report(self.name, (Step("pool", outcome),))

    async def restore(self, order: Order) -> Report:
        """Open it again."""
        return Report(self.name, await self.workload.release(order.order_id))
