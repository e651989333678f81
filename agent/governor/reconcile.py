"""Desired against reported: in flight, proven, short, drifted. Level-triggered, pure, by column.

A reading counts only if its poll started after the command. Evidence by power where the family reports any; else by
state, with hashrate at zero after the family's settling time. OFF is a level: a miner that comes back is shed again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.backends import RowArray
from agent.governor.state import NORMAL, SLEEP, BoolArray, GovernorState, Policy, Sensed
from gridpivot.vocabulary import DeviceState, Mode, Reason

_HASHING, _SLEEPING = DeviceState.HASHING.code, DeviceState.SLEEPING.code
_UNREACHABLE, _UNKNOWN_STATE = DeviceState.UNREACHABLE.code, DeviceState.UNKNOWN.code
_STALE_S = 60.0  # a reading older than this is silence


@dataclass(frozen=True, slots=True)
class Standing:
    """Who is who at this tick; all masks over rows."""

    silent: BoolArray  # no usable reading: charged at the last believed power, counted as nothing
    locked: BoolArray  # hands inside: no command, ever
    obeys: BoolArray  # may be commanded and counted
    proven: tuple[tuple[float, float], ...]  # moves proven at this tick: (sent at, watts), either way
    drifted: RowArray  # to be commanded again


def reconcile(state: GovernorState, sensed: Sensed, policy: Policy, now_s: float) -> Standing:
    """Take new readings into memory: believe, confirm, give up, notice drift."""
    table = sensed.table
    power = table["power_w"].astype(np.float64)
    device_state, reason = table["state"], table["reason"]
    age_s = now_s - sensed.polled_at_s
    silent = ~(age_s <= _STALE_S) | (device_state == _UNREACHABLE) | (device_state == _UNKNOWN_STATE)
    locked = (reason == Reason.MAINTENANCE.code) | (reason == Reason.LOCKED.code)
    _adopt(state, table["mode"], silent)
    _believe(state, power, device_state, silent)
    proven = _settle(state, sensed, power, silent, policy, now_s)
    given_up = state.retries > policy.most_retries
    obeys = ~silent & ~locked & ~given_up & (device_state != DeviceState.FAULT.code)
    fresh = sensed.polled_at_s > state.sent_at_s
    wants_sleep = state.desired == SLEEP
    off_course = np.where(wants_sleep, device_state == _HASHING, device_state == _SLEEPING)
    due = now_s - state.sent_at_s > 10.0 * 2.0 ** np.minimum(state.retries, 6)
    drifted = np.flatnonzero(obeys & (state.pending == 0) & fresh & due & off_course & (state.desired != 0))
    return Standing(silent, locked, obeys, proven, drifted)


def _adopt(state: GovernorState, reported: np.ndarray, silent: BoolArray) -> None:
    """A device seen for the first time is wanted as it stands: the agent's start moves nothing."""
    new = (state.desired == 0) & ~silent
    if new.any():
        known = np.where(reported == 0, NORMAL, reported)
        state.desired[new] = known[new].astype(np.uint8)


def _believe(state: GovernorState, power: np.ndarray, device_state: np.ndarray, silent: BoolArray) -> None:
    """Last believed power per device: read, else modelled from its state, else kept as it was; boot default if never seen."""
    classes = state.classes
    read = ~silent & ~np.isnan(power)
    state.believed_w[read] = power[read]
    modelled = ~silent & np.isnan(power)
    if modelled.any():
        rows = np.flatnonzero(modelled)
        mode = np.where(
            device_state[rows] == _SLEEPING, SLEEP, np.where(state.desired[rows] == SLEEP, NORMAL, state.desired[rows])
        )
        state.believed_w[rows] = classes.mode_w[classes.of_row[rows], mode]
    never = np.isnan(state.believed_w)
    if never.any():
        rows = np.flatnonzero(never)
        state.believed_w[rows] = classes.mode_w[classes.of_row[rows], NORMAL]


def _settle(
    state: GovernorState, sensed: Sensed, power: np.ndarray, silent: BoolArray, policy: Policy, now_s: float
) -> tuple[tuple[float, float], ...]:
    """Close in-flight entries by evidence or as short; returns the watts proven by when they were asked for."""
    rows = np.flatnonzero(state.pending)
    if not len(rows):
        return ()
    table, of_class = sensed.table, state.classes.of_row[rows]
    watts, has = power[rows], ~np.isnan(power[rows])
    fresh = (sensed.polled_at_s[rows] > state.sent_at_s[rows]) & ~silent[rows]
    hashing = table["state"][rows] == _HASHING
    settled = now_s - state.sent_at_s[rows] >= 0.5 * state.classes.shed_s[of_class]
    down = state.pending[rows] < 0
    quiet = (table["state"][rows] == _SLEEPING) & ~(table["hashrate_hs"][rows] > 0)
    mode_read = table["mode"][rows] == state.desired[rows]
    sleeping_wanted = state.desired[rows] == SLEEP
    down_proven = np.where(has, watts <= state.proof_w[rows], np.where(sleeping_wanted, quiet, mode_read) & settled)
    up_proven = np.where(has, watts >= state.proof_w[rows], hashing & (table["hashrate_hs"][rows] > 0))
    proven = fresh & np.where(down, down_proven, up_proven)
    late = ~proven & (now_s >= state.deadline_s[rows])
    done = rows[proven]
    shed_w = float(state.moved_w[rows[proven & down]].sum())
    woke_w = float(state.moved_w[rows[proven & ~down]].sum())
    until_s = now_s + policy.meter_dead_s
    if shed_w:
        state.shed_tails.append((until_s, shed_w))
        ai_w = float(state.moved_w[rows[proven & down & state.for_ai[rows]]].sum())
        state.ai_tails.append((until_s, ai_w))
        state.shed_since_w += shed_w
    if woke_w:
        state.wake_tails.append((until_s, woke_w))
    state.pending[done], state.retries[done] = 0, 0
    state.pending[rows[late]] = 0
    state.retries[rows[late]] += 1
    state.confirmed_total += len(done)
    state.short_total += int(late.sum())
    sent, which = np.unique(state.sent_at_s[done], return_inverse=True)
    moved = np.bincount(which, weights=state.moved_w[done], minlength=len(sent))
    return tuple(zip(sent.tolist(), moved.tolist(), strict=True))


def issue(state: GovernorState, rows: RowArray, mode: Mode, now_s: float, *, for_ai: bool = False) -> float:
    """Open in-flight entries for a command; returns the watts it should move, positive."""
    code = mode.code
    before, after = state.believed_w[rows], state.row_mode_w(rows, code)
    # A sleep is a way down even where the sensor reads less than the class's sleeping draw: it must not count as a rise.
    down = (after < before) | (code == SLEEP)
    of_class = state.classes.of_row[rows]
    peak = np.where(
        down, after, np.maximum(after, np.where(state.desired[rows] == SLEEP, state.classes.boot_w[of_class], after))
    )
    # A device's sensor is 5-20 % off, but off alike before and after: six tenths of the relative step prove it.
    settled_w = state.row_mode_w(rows, np.where(state.desired[rows] == 0, NORMAL, state.desired[rows]))
    share = np.where(down, after / np.maximum(settled_w, after), 1.0)
    state.proof_w[rows] = np.where(
        down, before * (1.0 - 0.6 * (1.0 - share)) + 20.0, before + 0.6 * (0.85 * after - before)
    )
    changed = state.desired[rows] != code
    state.changed_at_s[rows[changed]] = now_s
    if mode is Mode.SLEEP:
        state.cycles_spent[rows[changed]] += 1.0
    state.desired[rows] = code
    state.sent_at_s[rows] = now_s
    state.for_ai[rows] = for_ai
    state.pending[rows] = np.where(down, -1, 1)
    state.moved_w[rows] = np.where(down, np.maximum(0.0, before - after) * state.relief_factor, np.abs(peak - before))
    wait_s = np.where(down, 2.0 * state.classes.shed_s[of_class] + 10.0, 2.0 * state.classes.wake_s[of_class] + 30.0)
    state.deadline_s[rows] = now_s + wait_s
    state.commands_total += len(rows)
    return float(state.moved_w[rows].sum())
