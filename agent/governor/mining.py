"""Which miners change mode. Pure, by column.

For a breach or for AI the fastest family first; for economics the least value per kWh first. Wakes come in batches,
charged at the higher of boot peak and target, and only while no shed is in flight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.backends import RowArray
from agent.governor.gates import rises_w
from agent.governor.reconcile import Standing
from agent.governor.state import F64, NORMAL, SLEEP, BoolArray, GovernorState, Orders, Policy, Sensed
from gridpivot.vocabulary import COMMANDABLE_MODES, Mode, Reason

_NOTHING: RowArray = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Shed:
    """Power to give up, and how much of it the chosen devices can really deliver [W]."""

    asked_w: float
    deliverable_w: float
    moves: tuple[tuple[RowArray, Mode], ...]

    @property
    def short_w(self) -> float:
        """Asked and not to be had."""
        return max(0.0, self.asked_w - self.deliverable_w)

    @property
    def rows(self) -> RowArray:
        """Every device that is commanded."""
        return np.concatenate([rows for rows, _ in self.moves]) if self.moves else _NOTHING


def choose_shed(
    state: GovernorState, sensed: Sensed, standing: Standing, asked_w: float, *, within_s: float | None = None
) -> Shed:
    """Fastest family first, then the step down that loses least per watt, until `asked_w` is covered.

    `within_s` leaves out families that shed slower. Devices without a usable reading are commanded last and contribute
    nothing: a silent device is never counted as shed load.
    """
    classes = state.classes
    awake = (state.desired != SLEEP) & ~standing.locked
    if within_s is not None:
        awake &= classes.row_shed_s <= within_s
    known = awake & standing.obeys & (state.pending >= 0)
    target, covered_w = state.desired.copy(), 0.0
    charged_w = np.maximum(state.believed_w, np.where(state.pending > 0, state.moved_w, 0.0)) * state.relief_factor
    unpaid = np.flatnonzero(known & (sensed.table["reason"] == Reason.NO_POOL.code))
    if len(unpaid):
        relief_w = np.maximum(0.0, charged_w[unpaid] - state.row_mode_w(unpaid, SLEEP))
        covered_w += _take(target, unpaid, SLEEP, relief_w, asked_w)
    for step in classes.shed_steps:
        if covered_w >= asked_w:
            break
        if within_s is not None and classes.shed_s[step.class_index] > within_s:
            continue
        rows = np.flatnonzero(known & (classes.of_row == step.class_index) & (target == step.from_mode))
        if len(rows):
            rows = rows[np.argsort(state.cycles_spent[rows], kind="stable")]  # wear is shared out
            now_w = (
                state.row_mode_w(rows, NORMAL)
                if step.from_mode == 0
                else classes.mode_w[step.class_index, state.desired[rows]]
            )
            relief_w = charged_w[rows] * step.drop_w / now_w
            covered_w += _take(target, rows, step.to_mode, relief_w, asked_w - covered_w)
    if covered_w < asked_w:
        target[awake & standing.silent & classes.has_mode[classes.of_row, SLEEP]] = SLEEP
    changed = target != state.desired
    moves = tuple(
        (np.flatnonzero(changed & (target == code)), Mode.of(int(code))) for code in np.unique(target[changed])
    )
    return Shed(asked_w, covered_w, moves)


def _take(target: np.ndarray, rows: RowArray, mode: int, relief_w: F64, asked_w: float) -> float:
    """Give as many of `rows` the mode as it takes; returns the watts covered."""
    covered_w = np.cumsum(relief_w)
    count = min(len(rows), int(np.searchsorted(covered_w, asked_w)) + 1)
    target[rows[:count]] = mode
    return float(covered_w[count - 1])


@dataclass(frozen=True, slots=True)
class Moves:
    """Rows to each mode, downward and upward."""

    down: tuple[tuple[RowArray, Mode], ...]
    up: tuple[tuple[RowArray, Mode], ...]


def whole_machines(wished: np.ndarray, have: np.ndarray) -> np.ndarray:
    """Whole machines per mode (sleep, low, normal, turbo) out of a plan's fractions; sums to those available.

    `have` is how the available machines stand now. Fractions fall to the lowest mode that the plan uses, so that
    rounding never raises power and puts nobody to sleep for nothing. Machines that the plan did not know of (it was
    made while they were silent) stay as they stand.
    """
    available = int(have.sum())
    want = np.floor(wished + 1e-6).astype(np.int64)
    planned = min(available, round(float(wished.sum())))
    over = int(want.sum()) - planned
    for mode in (3, 2, 1, 0):
        if over > 0:
            cut = min(over, int(want[mode]))
            want[mode] -= cut
            over -= cut
    used = np.flatnonzero(wished > 1e-6)
    want[used[0] if len(used) else 0] += planned - int(want.sum())
    unknown = available - planned
    for mode in (2, 1, 3, 0):
        stay = min(unknown, max(0, int(have[mode] - want[mode])))
        want[mode] += stay
        unknown -= stay
    want[0] += unknown
    return want


def toward_plan(
    state: GovernorState, sensed: Sensed, standing: Standing, orders: Orders, policy: Policy, now_s: float
) -> Moves:
    """Moves that bring every class to the plan's counts; without a plan only wakes."""
    classes = state.classes
    down: list[tuple[RowArray, Mode]] = []
    up: list[tuple[RowArray, Mode]] = []
    movable = standing.obeys & (state.desired != 0)
    counts = np.bincount(
        classes.of_row[movable] * 5 + state.desired[movable], minlength=5 * len(state.inventory.classes)
    ).reshape(-1, 5)
    rested = now_s - state.changed_at_s
    for index in range(len(state.inventory.classes)):
        have = counts[index, 1:]
        available = int(have.sum())
        if orders.class_modes is None:
            # Nobody has said what is worth it: who sleeps may wake where there is room, the rest stays as it stands.
            want = np.array([0, have[1], have[0] + have[2], have[3]], dtype=np.int64)
        else:
            want = whole_machines(orders.class_modes[index], have)
        # 0.3 % of a class or one machine: a plan's rounding must not stir devices.
        if np.abs(want - have).max(initial=0) <= max(0.003 * available, 0.5):
            continue
        mine = movable & (classes.of_row == index) & (state.pending == 0)
        for source, target, count in _transfers(have, want):
            step_up = target > source
            ready = mine & (state.desired == source + 1)
            ready &= rested >= (policy.min_off_s if source == 0 else policy.min_on_s)
            if target == 0:
                ready &= ~worn_out(state, policy)
            rows = np.flatnonzero(ready)
            if step_up:
                rows = rows[sensed.table["reason"][rows] != Reason.NO_POOL.code]
            rows = rows[:count]
            if len(rows):
                (up if step_up else down).append((rows, COMMANDABLE_MODES[target]))
                mine[rows] = False
    return Moves(tuple(down), tuple(up))


def worn_out(state: GovernorState, policy: Policy) -> BoolArray:
    """Machines whose cycles of the day are used up: economics puts none of them to sleep."""
    if not policy.cycles_per_day:
        return np.zeros(len(state.desired), dtype=bool)
    return state.cycles_spent + 1.0 > policy.cycles_per_day


def _transfers(have: np.ndarray, want: np.ndarray) -> list[tuple[int, int, int]]:
    """(from, to, machines) over mode numbers 0..3 that turn `have` into `want`."""
    surplus, moves = (have - want).astype(np.int64), []
    for source in (3, 2, 1, 0):
        for target in range(4):
            count = min(int(surplus[source]), -int(surplus[target]))
            if source != target and count > 0:
                moves.append((source, target, count))
                surplus[source] -= count
                surplus[target] += count
    return moves


def within_drop_ramp(
    state: GovernorState, moves: tuple[tuple[RowArray, Mode], ...], budget_w: float
) -> tuple[list[tuple[RowArray, Mode]], float]:
    """As many downward moves as the drop curve allows now, least valuable first; returns them and the watts used."""
    taken, used_w = [], 0.0
    value_rank = np.argsort(state.classes.value_order, kind="stable")
    for rows, mode in sorted(moves, key=lambda m: int(value_rank[m[0][0]])):
        relief_w = state.correction * np.maximum(0.0, state.believed_w[rows] - state.row_mode_w(rows, mode.code))
        count = int(np.searchsorted(np.cumsum(relief_w), budget_w - used_w, side="right"))
        if count:
            taken.append((rows[:count], mode))
            used_w += float(relief_w[:count].sum())
    return taken, used_w


def wake_batch(
    state: GovernorState, moves: tuple[tuple[RowArray, Mode], ...], room_w: float, policy: Policy
) -> tuple[list[tuple[RowArray, Mode]], float]:
    """One batch of upward moves inside `room_w`, most valuable first; returns it and its power with overhead [W]."""
    batch, used_w, used = [], 0.0, 0
    limit_w = min(room_w, policy.wake_batch_ratio * policy.ceiling_w)
    value_rank = np.argsort(state.classes.value_order, kind="stable")
    for rows, mode in sorted(moves, key=lambda m: -int(value_rank[m[0][0]])):
        rise_w = rises_w(state, rows, mode) * (1.0 + policy.overhead_ratio)
        count = int(np.searchsorted(np.cumsum(rise_w), limit_w - used_w, side="right"))
        if policy.wake_batch_devices:
            count = min(count, policy.wake_batch_devices - used)
        if count > 0:
            batch.append((rows[:count], mode))
            used_w += float(rise_w[:count].sum())
            used += count
    return batch, used_w


def restart_order(state: GovernorState, rows: RowArray) -> list[tuple[RowArray, Mode]]:
    """Drifted rows grouped by the mode they should be in."""
    modes = state.desired[rows]
    return [(rows[modes == code], tuple(Mode)[code]) for code in np.unique(modes) if code]
