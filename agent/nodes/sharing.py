"""From a pool's watts to limits of its GPUs, as columns. Pure; the same answer as `agent/gpu/accounting.py`, faster.

Limits of several hosts do not change at once: what is raised on one must wait until what was lowered on the others
has been read back, or the pool draws both for a moment.
"""

from __future__ import annotations

import numpy as np

from gridpivot.link.gpu_columns import Bools, Floats

HAIR_W = 1e-9  # keeps an exact share (8 x 300 W of 2400 W) from falling by a whole watt


def level_limits_w(min_w: Floats, max_w: Floats, budget_w: float) -> Floats:
    """Equal limits inside each GPU's range [W], in whole watts rounded down: their sum never exceeds the budget.

    Below the sum of the least limits there is nothing to choose: each gets its least.
    """
    low_w, high_w = 0.0, float(max_w.max(initial=0.0))
    if float(max_w.sum()) <= budget_w:
        low_w = high_w
    for _ in range(50):
        level_w = (low_w + high_w) / 2
        if float(np.clip(level_w, min_w, max_w).sum()) <= budget_w:
            low_w = level_w
        else:
            high_w = level_w
    given: Floats = np.minimum(max_w, np.maximum(min_w, np.floor(np.clip(low_w, min_w, max_w) + HAIR_W)))
    if float(given.sum()) > max(budget_w, float(min_w.sum())):
        given = np.maximum(min_w, given - 1.0)
    return given


def released_w(target_w: Floats, in_force_w: Floats, budget_w: float) -> Floats:
    """What to ask for now [W] on the way to `target_w`, so that the sum of what may be in force stays in the budget.

    What falls is asked at once and counts as high until it has been read back; what rises shares the room that is left.
    """
    rises = np.maximum(target_w - in_force_w, 0.0)
    wanted_w = float(rises.sum())
    if wanted_w <= 0.0:
        return target_w
    room_w = budget_w - float(in_force_w.sum())
    share = min(1.0, max(0.0, room_w / wanted_w))
    if share >= 1.0:
        return target_w
    return np.where(rises > 0.0, np.floor(in_force_w + share * rises + HAIR_W), target_w)


def steady_w(used_w: float | None, wanted_w: float, step_w: float) -> float:
    """A pool's watts that follow `wanted_w` from below in steps, so that every small move does not reach every host.

    Never above what is wanted, at most 1.5 steps below it.
    """
    if used_w is not None and used_w <= wanted_w <= used_w + 1.5 * step_w:
        return used_w
    return wanted_w - 0.5 * step_w


def capped_w(given_w: Floats, least_w: Floats, caps_w: Floats) -> Floats:
    """Limits by (node, row) [W], lowered until no node's sum is over its cap [W] -> (node,); a cap of NaN is none.

    No limit rises, and none falls below its least.
    """
    lowered: Floats = given_w.copy()
    for place in np.flatnonzero(np.nansum(given_w, axis=1) > caps_w):
        told = ~np.isnan(given_w[place])
        most_w = given_w[place][told]
        fits_w = level_limits_w(np.minimum(least_w[place][told], most_w), most_w, float(caps_w[place]))
        lowered[place, told] = np.minimum(most_w, fits_w)
    return lowered


def shared_out_w(
    gpus_w: float, takes: Bools, used: Bools, refused: Bools, in_force_w: Floats, bounds_w: tuple[Floats, Floats]
) -> Floats:
    """A pool's watts for GPUs as limits by (node, row) [W], NaN where there is none to set.

    `takes`: can be told now; `refused`: did not take their last limit; `in_force_w`: what each may draw now; `bounds_w`:
    least and most limit of each. What GPUs may draw that do not obey is nobody else's.
    """
    given: Floats = np.full(takes.shape, np.nan)
    least_w, most_w = bounds_w
    obeys = takes & ~refused
    budget_w = gpus_w - float(in_force_w[used & ~obeys].sum())
    if obeys.any():
        target_w = level_limits_w(least_w[obeys], most_w[obeys], budget_w)
        given[obeys] = released_w(target_w, in_force_w[obeys], budget_w)
    # A GPU that refuses keeps being asked, for the least: what it would give up is not counted on.
    deaf = takes & ~obeys
    given[deaf] = least_w[deaf]
    return given
