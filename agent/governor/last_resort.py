"""The last resort: open a switched circuit that carries miners alone, once their firmware has failed to shed. Pure.

Opened only, never closed by software. A switch counts only where settings say that nothing but miners hangs on it: never
cooling, network, the agent or GPUs. It is reached when a trusted meter stays over the guard line although everything
that sheds in seconds has been told to and has had its time: a person has to close it again, so the firmware gets every chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.governor.circuits import F64
from agent.governor.reconcile import Standing
from agent.governor.state import SLEEP, GovernorState, Policy

OVER_FOR_S = 3.0  # readings of the meter, not one spike


@dataclass(frozen=True, slots=True)
class Opening:
    """A switch to open, what is believed to hang on it [W], and the rows that go dark."""

    switch: str
    carries_w: float
    rows: np.ndarray


def open_switches(
    state: GovernorState, standing: Standing, over_w: float, policy: Policy, now_s: float
) -> tuple[Opening, ...]:
    """Fewest switches that carry `over_w`, heaviest first; none while any shed still has time, or without need."""
    if not policy.switches or over_w <= 0.0:
        state.over_since_s = None
        return ()
    if state.over_since_s is None:
        state.over_since_s = now_s
    fast = state.classes.row_shed_s <= policy.fast_shed_s
    awake = (state.desired != SLEEP) & standing.obeys & fast
    told = (state.pending < 0) & (now_s < state.sent_at_s + state.classes.row_shed_s) & fast
    if now_s - state.over_since_s < OVER_FOR_S or awake.any() or told.any():
        return ()
    openings: list[Opening] = []
    left_w = over_w
    for name, rows, carries_w in sorted(_carried(state, policy), key=lambda c: -c[2]):
        if left_w <= 0.0:
            break
        if name in state.opened or carries_w <= 0.0:
            continue
        state.opened[name] = now_s
        openings.append(Opening(name, carries_w, rows))
        left_w -= carries_w
    return tuple(openings)


def _carried(state: GovernorState, policy: Policy) -> list[tuple[str, np.ndarray, float]]:
    """Rows and believed watts behind every switch."""
    carried = []
    believed: F64 = np.nan_to_num(state.believed_w)
    for switch in policy.switches:
        for grouping in state.inventory.groupings:
            if grouping.level == switch.level and switch.name in grouping.names:
                rows = np.flatnonzero(grouping.index == grouping.names.index(switch.name))
                carried.append((f"{switch.level}:{switch.name}", rows, float(believed[rows].sum())))
    return carried
