"""Whether a pool should let new work in: part of the plan, a wish that the site's desk obeys. Pure.

Closing the door is the gentlest way to make work wait: what runs ends, and nothing takes its place. Guaranteed pools
are never closed, and of a pool whose queue is not known nothing is said: its site decides, as it did before.
"""

from __future__ import annotations

from controller.dispatch.inputs import PoolState
from gridpivot.vocabulary import AiPriority

LESS_RATIO = 0.02  # of what it wants now: so much less, and new work would only slow what runs
URGENT_RATIO = 0.01  # of a GPU-hour for every GPU: less than this that cannot wait is none


def admits(state: PoolState, expected_w: float, held_back: bool) -> bool | None:
    """Whether new work may start under a plan that gives the pool `expected_w` [W at the wall]; None = not said.

    `held_back`: deferrable work waits by the plan's will, although the pool could draw more.
    """
    if state.pool.priority is AiPriority.GUARANTEED:
        return True
    if state.queue is None or state.demand_w is None:
        return None
    wanted_w = min(state.pool.max_w, max(state.pool.baseline_w, state.demand_w))
    if expected_w < (1.0 - LESS_RATIO) * wanted_w:
        return False
    urgent_gpu_h = state.queue.pending_gpu_h - state.queue.deferrable_gpu_h
    waits = held_back and urgent_gpu_h <= URGENT_RATIO * state.pool.gpu_count
    return not (waits and expected_w <= (1.0 + LESS_RATIO) * wanted_w < state.pool.max_w)
