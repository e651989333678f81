"""Power limits: what the governor sets within its tick, promised from the draw of each board and checked like any lever.

The governor raises and lowers limits itself; this lever only says how low, and what that will bring. It never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.ai.curve import HeldFactor
from agent.ai.lever import PoolPower, Promise, Report
from agent.ai.work import PoolWork
from agent.ai.workload import Order, Step
from gridpivot.vocabulary import LeverName, LeverOutcome

HELD_FROM = 0.9  # boards that draw less of their limit are held by their work
SECONDS = 8.0  # a tick of the governor, the driver, the board, and a mean of the meter over 4 s


@dataclass(slots=True)
class PowerLimit:
    """Limits of one pool. `cap` tells the governor the most it may give [W at the wall], None = no wish."""

    pool: str
    cap: Callable[[float | None], None]
    limit_now_w: Callable[[], float]
    held: HeldFactor
    host_w: float
    name: LeverName = LeverName.POWER_LIMIT
    _order: str = ""
    _cap_w: float | None = None

    def observe(self, work: PoolWork | None, power: PoolPower) -> None:
        """Learn what boards draw over a limit of ours that holds them."""
        if self._cap_w is None or power.power_w is None or power.limit_w > 1.02 * self._cap_w:
            return
        boards_w, limit_w = power.power_w - self.host_w, power.limit_w - self.host_w
        if boards_w >= HELD_FROM * limit_w:
            self.held.learn(boards_w, limit_w)

    def promise(self, work: PoolWork | None, power: PoolPower, asked_w: float) -> Promise:
        """Draw now less what boards draw under the limit that the ask comes to, never below their lowest limit."""
        if power.power_w is None:
            return Promise(self.name, asked_w, 0.0, SECONDS, why_not="the pool's power is unknown")
        boards_w = max(0.0, power.power_w - self.host_w)
        wanted_w = max(power.min_w, self.host_w + (boards_w - asked_w) / self.held.mean)
        limit_w = min(power.limit_w, wanted_w)
        remains_w = self.host_w + self.held.remains_w(boards_w, limit_w - self.host_w)
        promised_w = max(0.0, power.power_w - remains_w)
        reserve_w = max(0.0, (power.limit_w - power.power_w) - (limit_w - remains_w))
        why_not = "" if promised_w else "limits stand at their lowest, or the work draws less than they allow"
        return Promise(self.name, asked_w, promised_w, SECONDS, 0.0, reserve_w, (f"{limit_w:.0f}",), why_not)

    async def act(self, order: Order, promise: Promise) -> Report:
        """Cap the pool from the next tick on."""
        limit_w = float(promise.subjects[0])
        self._cap_w = limit_w if self._cap_w is None or self._order != order.order_id else min(self._cap_w, limit_w)
        self._order = order.order_id
        self.cap(self._cap_w)
        return Report(self.name, (Step(self.pool, LeverOutcome.UNDER_WAY),))

    async def verify(self, order: Order, promise: Promise) -> Report:
        """Done when the enforced limits have come down."""
        limit_w = self.limit_now_w()
        if self._order != order.order_id or self._cap_w is None:
            return Report(self.name, (Step(self.pool, LeverOutcome.GONE, "the cap was given back"),))
        if limit_w <= 1.02 * self._cap_w:
            return Report(self.name, (Step(self.pool, LeverOutcome.DONE, f"limits allow {limit_w / 1e3:.1f} kW"),))
        return Report(self.name, (Step(self.pool, LeverOutcome.UNDER_WAY, f"limits allow {limit_w / 1e3:.1f} kW"),))

    async def restore(self, order: Order) -> Report:
        """Let the governor raise again, which it does into room that the meter shows."""
        if self._order != order.order_id:
            return Report(self.name, ())
        self._order, self._cap_w = "", None
        self.cap(None)
        return Report(self.name, (Step(self.pool, LeverOutcome.DONE),))
