"""Air before heat, and heat gone before the fans: what a container's fans are told. Pure.

A container is managed when its fans are declared; others are taken to breathe by themselves. Fans start before the
first wake and stop only when every machine inside has been seen asleep for a while: a silent machine may be hashing.
Fans that stand while machines hash put them to sleep, whatever the plan wants: the thermal interlock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.backends import RowArray
from agent.governor.state import SLEEP, BoolArray, FanCommand, GovernorState, Policy, Sensed
from gridpivot.vocabulary import DeviceState, Mode

_SLEEPING = DeviceState.SLEEPING.code


@dataclass(frozen=True, slots=True)
class Air:
    """`still`: rows whose container's fans are not proven to run. `fans`: what to tell them. `rise_w`: what that adds."""

    still: BoolArray
    fans: tuple[FanCommand, ...]
    rise_w: float


def breathe(
    state: GovernorState,
    sensed: Sensed,
    silent: BoolArray,
    wanted: tuple[tuple[RowArray, Mode], ...],
    room_w: float,
    policy: Policy,
    now_s: float,
) -> Air:
    """Fans for what runs and for what is wanted awake, as far as `room_w` carries them; off behind the last heat."""
    still = np.zeros(len(state.desired), dtype=bool)
    if not policy.fans:
        return Air(still, (), 0.0)
    place = next((g for g in state.inventory.groupings if g.level == "container"), None)
    if place is None:
        return Air(still, (), 0.0)
    wants = np.zeros(len(state.desired), dtype=bool)
    for rows, _ in wanted:
        wants[rows] = True
    asleep = (state.desired == SLEEP) & (sensed.table["state"] == _SLEEPING) & ~silent & (state.pending == 0)
    commands: list[FanCommand] = []
    rise_w = 0.0
    for fan in policy.fans:
        if fan.container not in place.names:
            continue
        inside = place.index == place.names.index(fan.container)
        runs = sensed.airflow.get(fan.container) if sensed.airflow is not None else None
        if runs is not True:
            still |= inside
        hot = bool((inside & ~asleep).any())
        if hot or bool((inside & wants).any()):
            state.cold_since_s.pop(fan.container, None)
            if runs is not True and (hot or fan.power_w <= room_w - rise_w):
                commands.append(FanCommand(fan.container, True))
                rise_w += fan.power_w
            continue
        since_s = state.cold_since_s.setdefault(fan.container, now_s)
        if runs is not False and now_s - since_s >= policy.fans_off_after_s:
            commands.append(FanCommand(fan.container, False))
    return Air(still, tuple(commands), rise_w)


def overheating(state: GovernorState, sensed: Sensed, policy: Policy, now_s: float) -> BoolArray:
    """Rows to put to sleep: their container's fans have been seen standing for `still_shed_after_s`.

    Only what is proven still counts: a fan controller that does not answer refuses wakes, it sheds nobody.
    """
    hot = np.zeros(len(state.desired), dtype=bool)
    place = next((g for g in state.inventory.groupings if g.level == "container"), None)
    if place is None or sensed.airflow is None or not policy.still_shed_after_s:
        return hot
    for fan in policy.fans:
        if fan.container not in place.names:
            continue
        inside = place.index == place.names.index(fan.container)
        awake = inside & (state.desired != SLEEP)
        if sensed.airflow.get(fan.container) is not False or not awake.any():
            state.still_since_s.pop(fan.container, None)
            continue
        since_s = state.still_since_s.setdefault(fan.container, now_s)
        if now_s - since_s >= policy.still_shed_after_s:
            hot |= awake
    return hot
