"""Clock locks: for work that never reaches its power limit, memory-bound decode above all.

A lock has no read-back and no end of its own: its evidence is the clock under load, and it stays in the driver whatever
becomes of us. It only ever lowers power, so nothing is safer for taking it off; a live desk does, newest pull first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.ai.lever import PoolPower, Promise, Report
from agent.ai.work import PoolWork
from agent.ai.workload import Order, Step
from agent.backends import ClockState
from gridpivot.vocabulary import LeverName, LeverOutcome

SECONDS = 8.0  # a scan, the driver, the board, and a mean of the meter over 4 s
SETTLED_S = 6.0  # after a lock: power is the lock's
# Board power kept under a lock, until this pool has shown its own: on an H200 locked clocks saved up to 32 % of decode's
# energy at little loss of throughput (arXiv 2605.11999); how much depends on clock and model, so the prior is wide.
PRIOR_MEAN, PRIOR_SD = 0.82, 0.10
SEEN_SD = 0.03  # of one look: work moves meanwhile
HELD_RATIO = 1.03  # a clock so little above the lock is at it: clocks move in steps of 7-15 MHz

_WORDS = {
    "no_permission": LeverOutcome.NO_PERMISSION,
    "unsupported": LeverOutcome.UNSUPPORTED,
    "lost": LeverOutcome.GONE,
}


@dataclass(slots=True)
class LockedShare:
    """What boards keep of their power under a lock: learned from each lock that was seen to hold."""

    mean: float = PRIOR_MEAN
    variance: float = PRIOR_SD**2
    samples: int = 0

    def learn(self, share: float) -> None:
        """One lock: power after it over power before it."""
        if not 0.3 <= share <= 1.05:
            return  # other work, not the lock
        gain = self.variance / (self.variance + SEEN_SD**2)
        self.mean += gain * (min(1.0, share) - self.mean)
        self.variance = max(0.01**2, self.variance * (1.0 - gain) + 1e-5)
        self.samples += 1


@dataclass(slots=True)
class ClockLock:
    """One pool's lock at `mhz`. `lock` asks for it (None = let go), `state` says how it stands."""

    pool: str
    mhz: int
    lock: Callable[[int | None], None]
    state: Callable[[], ClockState]
    host_w: float
    share: LockedShare = field(default_factory=LockedShare)
    name: LeverName = LeverName.CLOCK_LOCK
    _order: str = ""
    _boards_w: float | None = None  # newest
    _read_at_s: float = float("-inf")
    _before: tuple[float, float] | None = None  # (read at, boards [W]) when it was locked; None once it has taught

    @property
    def locked(self) -> bool:
        """Whether this pool's work is slowed by us: what it gets done then is no measure of it without."""
        return bool(self._order)

    def observe(self, work: PoolWork | None, power: PoolPower) -> None:
        """Learn what a lock that holds leaves."""
        if power.power_w is None:
            return
        self._boards_w, self._read_at_s = max(0.0, power.power_w - self.host_w), power.read_at_s
        if self._before is None or power.read_at_s - self._before[0] < SETTLED_S:
            return
        if self._holds(self.state()) and self._before[1] > 0.0:
            self.share.learn(self._boards_w / self._before[1])
            self._before = None

    def promise(self, work: PoolWork | None, power: PoolPower, asked_w: float) -> Promise:
        """Board power now, less what locked boards keep of it. All of the pool or nothing: work of one pool runs together."""
        if power.power_w is None:
            return Promise(self.name, asked_w, 0.0, SECONDS, why_not="the pool's power is unknown")
        now = self.state()
        if self._order:
            return Promise(self.name, asked_w, 0.0, SECONDS, why_not="its clocks are locked already")
        if now.highest_hz is None or now.highest_hz <= HELD_RATIO * 1e6 * self.mhz:
            why_not = "no GPU works" if now.highest_hz is None else "its clocks are as low already"
            return Promise(self.name, asked_w, 0.0, SECONDS, why_not=why_not)
        boards_w = max(0.0, power.power_w - self.host_w)
        promised_w = max(0.0, boards_w * (1.0 - self.share.mean))
        return Promise(self.name, asked_w, promised_w, SECONDS, subjects=(f"{self.mhz} MHz",))

    async def act(self, order: Order, promise: Promise) -> Report:
        """Lock, from the next scan on."""
        if self._order != order.order_id and self._boards_w is not None and not self._holds(self.state()):
            self._before = self._read_at_s, self._boards_w
        self._order = order.order_id
        self.lock(self.mhz)
        return Report(self.name, (Step(self.pool, LeverOutcome.UNDER_WAY),))

    async def verify(self, order: Order, promise: Promise) -> Report:
        """Done when no GPU that works runs faster."""
        now = self.state()
        if self._order != order.order_id:
            return Report(self.name, (Step(self.pool, LeverOutcome.GONE, "the lock was given back"),))
        if now.refused:
            word = _WORDS.get(now.refused, LeverOutcome.FAILED)
            return Report(self.name, (Step(self.pool, word, now.detail),))
        if now.highest_hz is None:
            return Report(self.name, (Step(self.pool, LeverOutcome.DONE, "no GPU works"),))
        said = f"fastest clock {now.highest_hz / 1e6:.0f} MHz"
        outcome = LeverOutcome.DONE if self._holds(now) else LeverOutcome.UNDER_WAY
        return Report(self.name, (Step(self.pool, outcome, said),))

    async def restore(self, order: Order) -> Report:
        """Let clocks go; a lock of another order stays."""
        if self._order not in ("", order.order_id):
            return Report(self.name, ())
        self._order, self._before = "", None
        self.lock(None)
        return Report(self.name, (Step(self.pool, LeverOutcome.DONE),))

    def _holds(self, now: ClockState) -> bool:
        return now.highest_hz is not None and now.highest_hz <= HELD_RATIO * 1e6 * self.mhz
