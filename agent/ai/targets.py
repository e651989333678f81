"""What each pool should draw at most, from the plan and from what mining cannot cover. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.backends import PoolReading
from agent.governor.state import Orders
from gridpivot.curves import AiPool
from gridpivot.vocabulary import AiPriority

LASTS_S = 5.0
_RANK = {AiPriority.SPOT: 0, AiPriority.STANDARD: 1, AiPriority.GUARANTEED: 2}


@dataclass(frozen=True, slots=True)
class Target:
    """Most that a pool should draw [W at the wall]; None = no wish. `forced`: mining cannot cover it."""

    target_w: float | None
    forced: bool = False


def capped(orders: Orders, pools: Sequence[AiPool], caps_w: Mapping[str, float]) -> Orders:
    """Orders under the caps that levers ask for; a cap only lowers. Guaranteed pools keep what the plan gives them,
    unless a lever was pulled on them, which only physics does."""
    if not caps_w:
        return orders
    most = [_least(wish, caps_w.get(pool.name)) for pool, wish in zip(pools, orders.pool_max_w, strict=True)]
    return replace(orders, pool_max_w=most)


def _least(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else min(a, b)


def targets(
    pools: Sequence[AiPool],
    readings: Sequence[PoolReading],
    orders: Orders,
    uncovered_w: float,
    lockable: Collection[str] = (),
) -> list[Target]:
    """Per pool: the plan's most; and of what is uncovered [W] as much as it draws above nothing, spot first.

    A guaranteed pool is asked for what its lowest limits leave to give, or more where its clocks are `lockable`. A pool
    whose power is unknown is asked for nothing: it could show nothing either.
    """
    found = [
        Target(None if p.priority is AiPriority.GUARANTEED else w)
        for p, w in zip(pools, orders.pool_max_w, strict=True)
    ]
    if uncovered_w <= 0.0:
        return found
    for index in sorted(range(len(pools)), key=lambda k: _RANK[pools[k].priority]):
        power_w = readings[index].power_w
        if power_w is None or uncovered_w <= 0.0:
            continue
        by_limits = pools[index].priority is AiPriority.GUARANTEED and pools[index].name not in lockable
        least_w = pools[index].min_w if by_limits else pools[index].baseline_w
        give_w = min(uncovered_w, max(0.0, power_w - least_w))
        wish = found[index].target_w
        found[index] = Target(min(power_w - give_w, power_w if wish is None else wish), forced=True)
        uncovered_w -= give_w
    return found


@dataclass(slots=True)
class Shortage:
    """What mining could not cover [W], the least of the last seconds: jobs are not taken off for one bad tick."""

    _seen: deque[tuple[float, float]] = field(default_factory=deque)
    _since_s: float | None = None

    def take(self, short_w: float, now_s: float) -> float:
        """The figure to act on now; 0 until a shortage has lasted."""
        if self._since_s is None:
            self._since_s = now_s
        self._seen.append((now_s, short_w))
        while self._seen[0][0] < now_s - LASTS_S:
            self._seen.popleft()
        return min(w for _, w in self._seen) if now_s - self._since_s >= LASTS_S else 0.0
