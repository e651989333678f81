"""What whole machines cost: the plan of a fleet against the same plan rounded as the agent rounds it."""

from __future__ import annotations

import math

from controller.dispatch.inputs import ClassState, Decision, FleetState
from gridpivot.vocabulary import COMMANDABLE_MODES, Mode


def rounding_loss(fleet: FleetState, decision: Decision) -> dict[str, float]:
    """Mining income of the first period lost to whole machines: USD per hour, and as a share of all of it.

    A part of a machine in a mode is left in the mode below, so that no ceiling is passed.
    """
    planned = rounded = 0.0
    for site, chosen in zip(fleet.sites, decision.sites, strict=True):
        rate = fleet.hashprice_usd_per_ph_day * (1 - site.pool_fee_ratio) / 24 / 1e15
        for state, decided in zip(site.classes, chosen.classes, strict=True):
            planned += rate * _hashes(state, decided.machines)
            rounded += rate * _hashes(state, whole(decided.machines))
    return {"usd_per_h": round(planned - rounded, 4), "ratio": round((planned - rounded) / planned, 8)}


def whole(machines: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Whole machines by mode (sleep, low, normal, turbo): each fraction goes to the next mode that draws less."""
    left, carried = [0.0] * 4, 0.0
    for mode in (3, 2, 1):
        have = machines[mode] + carried
        left[mode] = float(math.floor(have + 1e-6))
        carried = have - left[mode]
    left[0] = machines[0] + carried
    return left[0], left[1], left[2], left[3]


def _hashes(state: ClassState, machines: tuple[float, float, float, float]) -> float:
    modes = state.miner_class.modes
    points = [modes[m] if m in modes else modes[Mode.NORMAL] for m in COMMANDABLE_MODES[1:]]
    return sum(n * p.hashrate_hs for n, p in zip(machines[1:], points, strict=True))
