"""Who may be woken now: pools that pay, air that moves, room on every circuit above the device. Pure, by column.

A wake is charged at the higher of boot peak and target on each circuit it hangs on (PDU, container, feeder), beside what
hangs there already and what is still rising; circuits limit watts in all, watts rising, and machines rising at once.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from agent.backends import RowArray
from agent.governor.circuits import Level
from agent.governor.state import F64, SLEEP, BoolArray, GovernorState, Policy, Sensed
from gridpivot.columns import DeviceTable
from gridpivot.vocabulary import DeviceState, Mode, Reason

_HASHING, _SLEEPING = DeviceState.HASHING.code, DeviceState.SLEEPING.code
POOLS_DEAD_FROM = 10  # machines without shares before their pools, not they, are to blame


def admit(levels: tuple[Level, ...], state: GovernorState, rows: RowArray, rise_w: F64) -> BoolArray:
    """Which of `rows`, in order, fit under every circuit together with all that hangs and rises there."""
    fits = np.ones(len(rows), dtype=bool)
    for level in levels:
        left = np.flatnonzero(fits & (level.of_row[rows] >= 0))
        if len(left):
            fits[left] = _fits(level, state, rows[left], rise_w[left])
    return fits


def _fits(level: Level, state: GovernorState, rows: RowArray, rise_w: F64) -> BoolArray:
    count = len(level.limit_w)
    known = level.of_row >= 0
    here = level.of_row[known]
    rising = np.where(state.pending > 0, state.moved_w, 0.0)
    # Believed power may be a sensor's, 20 % off: circuits are charged what the class draws where that is more.
    charged = np.maximum(state.believed_w, state.row_mode_w(np.arange(len(state.desired)), state.desired))
    held_w = np.bincount(here, weights=np.nan_to_num(charged)[known], minlength=count)
    rising_w = np.bincount(here, weights=rising[known], minlength=count)
    rising_devices = np.bincount(here, weights=(state.pending > 0)[known], minlength=count)
    circuit = level.of_row[rows]
    order = np.argsort(circuit, kind="stable")
    sorted_circuit = circuit[order]
    starts = np.flatnonzero(np.r_[True, sorted_circuit[1:] != sorted_circuit[:-1]])
    run = np.cumsum(rise_w[order])
    before = np.repeat(np.r_[0.0, run[starts[1:] - 1]], np.diff(np.r_[starts, len(order)]))
    run_w = run - before
    place = np.arange(1, len(order) + 1) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    ok = held_w[sorted_circuit] + run_w <= level.limit_w[sorted_circuit]
    ok &= rising_w[sorted_circuit] + run_w <= level.rise_w[sorted_circuit]
    ok &= rising_devices[sorted_circuit] + place <= level.rise_devices[sorted_circuit]
    fits = np.zeros(len(rows), dtype=bool)
    fits[order] = ok
    return fits


def pools_dead(table: DeviceTable, policy: Policy) -> bool:
    """Whether most of what hashes has had no share for minutes: the pools are gone, not some machines."""
    hashing = table["state"] == _HASHING
    unpaid = int((hashing & (table["reason"] == Reason.NO_POOL.code)).sum())
    return unpaid >= POOLS_DEAD_FROM and unpaid >= policy.pools_dead_ratio * int(hashing.sum())


def admit_wakes(
    state: GovernorState,
    sensed: Sensed,
    still: BoolArray,
    moves: tuple[tuple[RowArray, Mode], ...],
    policy: Policy,
) -> tuple[tuple[tuple[RowArray, Mode], ...], Counter[Reason]]:
    """Upward moves that nothing forbids, and a count of those left alone by reason.

    `still` marks rows whose air does not move yet. A machine that only changes level, awake already, needs circuits
    alone.
    """
    why: Counter[Reason] = Counter()
    dead = pools_dead(sensed.table, policy)
    allowed: list[tuple[RowArray, Mode]] = []
    for rows, mode in moves:
        # A machine that fell asleep by itself is woken too, whatever is wanted of it.
        asleep = (state.desired[rows] == SLEEP) | (sensed.table["state"][rows] == _SLEEPING)
        if dead:
            why[Reason.NO_POOL] += int(asleep.sum())
            rows, asleep = rows[~asleep], asleep[~asleep]
        airless = asleep & still[rows]
        if airless.any():
            why[Reason.NO_AIRFLOW] += int(airless.sum())
            rows, asleep = rows[~airless], asleep[~airless]
        if policy.circuits and len(rows):
            fits = admit(state.levels(policy.circuits), state, rows, rises_w(state, rows, mode))
            why[Reason.CIRCUIT_LIMIT] += int((~fits).sum())
            rows = rows[fits]
        if len(rows):
            allowed.append((rows, mode))
    return tuple(allowed), +why


def rises_w(state: GovernorState, rows: RowArray, mode: Mode) -> F64:
    """What each row would add at most: from sleep the higher of boot peak and target [W], never below 0."""
    final_w = state.row_mode_w(rows, mode.code)
    boot_w = state.classes.boot_w[state.classes.of_row[rows]]
    peak_w = np.where(state.desired[rows] == SLEEP, np.maximum(final_w, boot_w), final_w)
    rise_w: F64 = np.maximum(0.0, peak_w - state.believed_w[rows])
    return rise_w
