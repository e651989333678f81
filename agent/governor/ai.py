"""AI limits: room before power. Pure.

Inference on allocated GPUs steps up in under a second without asking, so the sum of enforced limits is what AI could
draw. To give AI more: shed first, see it on the meter, then raise. Limits follow demand down only after it lasted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.governor.state import GovernorState, Orders, Policy, PoolCommand, Sensed
from gridpivot.curves import AiPool
from gridpivot.vocabulary import AiPriority

HELD_FROM = 0.985  # of its limit: a pool that draws so much may want more
_RANK = {AiPriority.GUARANTEED: 0, AiPriority.STANDARD: 1, AiPriority.SPOT: 2}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pool should be allowed, if there were room [W]."""

    pool: int
    limit_w: float
    want_w: float
    slack_w: float  # part of it that demand does not need now
    cap_w: float  # economics' word: most it may be given

    @property
    def rise_w(self) -> float:
        """Limit still to be raised."""
        return max(0.0, self.want_w - self.limit_w)


def wishes(state: GovernorState, sensed: Sensed, limits: Sequence[float], orders: Orders, policy: Policy) -> list[Wish]:
    """Per pool: the limit that its demand deserves. Unknown demand at the limit counts as wanting everything."""
    result = []
    for index, (pool, reading, limit_w) in enumerate(zip(state.inventory.pools, sensed.pools, limits, strict=True)):
        draw_w = limit_w if reading.power_w is None else reading.power_w
        if reading.demand_w is not None:
            demand_w = reading.demand_w
        else:
            demand_w = pool.max_w if draw_w >= 0.97 * limit_w else draw_w
        slack_w = state.pools[index].swings.reserve_w(pool.max_w, policy.gpu_slack_ratio)
        steady_w = state.pools[index].swings.steady_w
        if steady_w is not None and demand_w <= HELD_FROM * limit_w:
            # What limits do not hold back swings inside the reserve: they follow its mean, not its peaks, and never
            # fall below what is drawn now, however fast that rose.
            demand_w = max(steady_w, draw_w - slack_w)
        cap_w = _cap_w(pool, orders.pool_max_w[index])
        want_w = min(pool.max_w, cap_w, max(pool.min_w, demand_w + slack_w) + reading.comes_w)
        result.append(Wish(index, limit_w, want_w, slack_w, cap_w))
    return result


def note_swings(state: GovernorState, sensed: Sensed, policy: Policy, now_s: float) -> None:
    """What each pool draws at this second. Where its limit holds it, it would have gone on: by up to twice its reserve."""
    for pool, memory, reading in zip(state.inventory.pools, state.pools, sensed.pools, strict=True):
        if reading.power_w is None:
            continue
        beyond_w = 0.0 if reading.demand_w is None else max(0.0, reading.demand_w - reading.power_w)
        reserve_w = memory.swings.reserve_w(pool.max_w, policy.gpu_slack_ratio)
        memory.swings.take(reading.power_w + min(beyond_w, 2.0 * reserve_w), now_s)


def _cap_w(pool: AiPool, max_w: float | None) -> float:
    if max_w is None or pool.priority is AiPriority.GUARANTEED:
        return pool.max_w
    return max(pool.min_w, max_w)


def lower(
    state: GovernorState, wish_list: Sequence[Wish], pressed: bool, policy: Policy, now_s: float
) -> list[PoolCommand]:
    """Limits to lower: past economics' cap at once; unused after it lasted, or at once when the site is pressed."""
    commands = []
    for wish in wish_list:
        memory, pool = state.pools[wish.pool], state.inventory.pools[wish.pool]
        deadband_w = 0.02 * pool.max_w
        if wish.limit_w > wish.cap_w + deadband_w:
            commands.append(PoolCommand(wish.pool, wish.want_w, "plan"))
            continue
        if wish.limit_w - wish.want_w <= deadband_w:
            memory.low_since_s = None
            continue
        if memory.low_since_s is None:
            memory.low_since_s = now_s
        if pressed or now_s - memory.low_since_s >= policy.ai_release_after_s:
            memory.low_since_s = None
            commands.append(PoolCommand(wish.pool, wish.want_w, "pressed" if pressed else "demand_fell"))
    return commands


def raise_limits(state: GovernorState, wish_list: Sequence[Wish], room_w: float, shedding: bool) -> list[PoolCommand]:
    """Limits to raise inside `room_w`, guaranteed first.

    A part of a wish is given only when nothing is in flight: a rise that the meter has not shown yet blocks the next
    one for as long as the meter may lag, so one step after the shed beats two.
    """
    commands = []
    ranked = sorted(wish_list, key=lambda w: _RANK[state.inventory.pools[w.pool].priority])
    for wish in ranked:
        deadband_w = 0.01 * state.inventory.pools[wish.pool].max_w
        if wish.rise_w <= deadband_w:
            continue
        give_w = min(wish.rise_w, room_w)
        whole = give_w >= 0.97 * wish.rise_w or give_w >= max(deadband_w, wish.rise_w - wish.slack_w)
        if give_w <= 0.0 or not (whole or (not shedding and give_w >= 0.25 * wish.rise_w)):
            continue
        commands.append(PoolCommand(wish.pool, wish.limit_w + give_w, "demand_rose"))
        room_w -= give_w
    return commands


def cut(
    state: GovernorState, sensed: Sensed, limits: Sequence[float], short_w: float
) -> tuple[list[PoolCommand], float]:
    """Caps when mining cannot cover a breach: spot first, guaranteed last, never below the lowest limit.

    Returns the commands and what stays uncovered [W].
    """
    commands = []
    ranked = sorted(range(len(limits)), key=lambda i: -_RANK[state.inventory.pools[i].priority])
    for index in ranked:
        if short_w <= 0.0:
            break
        pool, reading = state.inventory.pools[index], sensed.pools[index]
        draw_w = limits[index] if reading.power_w is None else reading.power_w
        give_w = min(short_w, max(0.0, min(draw_w, limits[index]) - pool.min_w))
        if give_w > 0.0:
            commands.append(PoolCommand(index, min(draw_w, limits[index]) - give_w, "breach"))
            short_w -= give_w
    return commands, short_w
