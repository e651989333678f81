"""One tick of the governor: from readings and orders to commands. Pure: no I/O, no clock of its own.

The story: take evidence; estimate power; lower limits nobody uses; shed for a breach or to make room for AI; raise AI
into room that the meter shows; otherwise follow the plan, downward by the drop curve, upward in batches.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from agent.backends import RowArray
from agent.governor.ai import Wish, cut, lower, note_swings, raise_limits, wishes
from agent.governor.airflow import breathe, overheating
from agent.governor.estimate import Estimate, effective_limits, estimate, note_moves
from agent.governor.gates import admit_wakes
from agent.governor.last_resort import open_switches
from agent.governor.meter_watch import MeterWatch
from agent.governor.mining import choose_shed, restart_order, toward_plan, wake_batch, within_drop_ramp, worn_out
from agent.governor.reconcile import Standing, issue, reconcile
from agent.governor.state import (
    SLEEP,
    Actions,
    FanCommand,
    GovernorState,
    ModeCommand,
    Orders,
    Picture,
    Policy,
    PoolCommand,
    Sensed,
)
from gridpivot.vocabulary import MeterTrust, Mode, Reason, Stage

_ACTING = (Stage.SHED_ONLY, Stage.FULL)


class _Tick:
    """One tick's working set: opens in-flight entries as it commands."""

    def __init__(self, state: GovernorState, policy: Policy, now_s: float) -> None:
        self.state, self.policy, self.now_s = state, policy, now_s
        self.modes: list[ModeCommand] = []
        self.limits: list[PoolCommand] = []
        self.shed_now_w = 0.0
        self.moves_open = 0
        self.fans: tuple[FanCommand, ...] = ()
        self.opened: tuple[str, ...] = ()
        self.refused: Counter[Reason] = Counter()  # wakes left alone, by why
        self.raised_now_w = 0.0  # room that AI has just been given at this tick

    def command(self, rows: RowArray, mode: Mode, why: str) -> None:
        before = self.state.believed_w[rows].sum()
        moved_w = issue(self.state, rows, mode, self.now_s, for_ai=why == "room_for_ai")
        down = self.state.row_mode_w(rows, mode.code).sum() < before
        note_moves(self.state, self.policy, 0.0 if down else moved_w, moved_w if down else 0.0)
        if down:
            self.shed_now_w += moved_w
        self.modes.append(ModeCommand(rows, mode, why, moved_w))

    def limit(self, command: PoolCommand, old_limit_w: float) -> None:
        memory = self.state.pools[command.pool]
        memory.requested_w, memory.requested_at_s = command.limit_w, self.now_s
        rise_w = command.limit_w - old_limit_w
        note_moves(self.state, self.policy, max(0.0, rise_w), max(0.0, -rise_w))
        self.limits = [c for c in self.limits if c.pool != command.pool] + [command]


def decide(
    state: GovernorState, watch: MeterWatch, sensed: Sensed, orders: Orders, policy: Policy, now_s: float
) -> Actions:
    """Commands of this tick; `state` and `watch` remember. Sends nothing in the stages observe and shadow."""
    standing = reconcile(state, sensed, policy, now_s)
    for sent_at_s, watts in standing.proven:
        watch.proven_change(watts, sent_at_s)
    now = estimate(state, watch, sensed, standing, policy, now_s)
    note_swings(state, sensed, policy, now_s)
    target_w = orders.ceiling_w * (1.0 - policy.margin_ratio)
    if now.trust is not MeterTrust.TRUSTED:
        target_w -= policy.meter_derate_ratio * policy.ceiling_w
    tick = _Tick(state, policy, now_s)
    short_w = 0.0
    if state.first_tick_s is None:
        state.first_tick_s = now_s
    # At the start nothing moves until the meter has spoken: a guess must not shed a whole site.
    waiting = state.trusted_w is None and now_s - state.first_tick_s < policy.meter_wait_s
    if policy.stage in _ACTING and not waiting:
        short_w = _act(tick, sensed, standing, now, orders, target_w)
    _wear_off(state, policy, now_s)
    state.last_tick_s = now_s
    picture = Picture(
        meter_trust=now.trust,
        metered_w=now.metered_w,
        assumed_w=now.base_w,
        mining_w=now.mining_w,
        ai_w=now.ai_w,
        ai_limit_w=now.ai_limit_w,
        overhead_w=now.overhead_w,
        target_w=target_w,
        room_w=target_w - now.worst_w,
        shed_short_w=short_w,
        shed_in_flight_w=now.shed_credit_w + tick.shed_now_w,
        wake_in_flight_w=now.wake_w,
        silent=now.silent,
    )
    alone = _left_alone(state, standing, policy) | dict(tick.refused)
    return Actions(tuple(tick.modes), tuple(tick.limits), picture, alone, tick.fans, tick.opened, tick.moves_open)


def _wear_off(state: GovernorState, policy: Policy, now_s: float) -> None:
    """A day wears off a day's budget of cycles; without a budget one cycle a day."""
    if state.last_tick_s is not None:
        rate = max(policy.cycles_per_day, 1.0) / 86_400.0
        np.maximum(0.0, state.cycles_spent - rate * (now_s - state.last_tick_s), out=state.cycles_spent)


def _act(tick: _Tick, sensed: Sensed, standing: Standing, now: Estimate, orders: Orders, target_w: float) -> float:
    """Everything that commands; returns the watts asked for that nobody could deliver."""
    state, policy, now_s = tick.state, tick.policy, tick.now_s
    limits = effective_limits(state, sensed, now_s)
    wish_list = wishes(state, sensed, limits, orders, policy)
    _restart(tick, sensed, standing, now, target_w if orders.may_raise else float("-inf"))
    hot = np.flatnonzero(overheating(state, sensed, policy, now_s) & ~standing.locked)
    if len(hot):
        tick.command(hot, Mode.SLEEP, "no_airflow")
    trusted, full = now.trust is MeterTrust.TRUSTED, policy.stage is Stage.FULL and orders.may_raise
    gap_w = max(0.0, now.likely_w - now.base_w)
    # A small part of an AI step may be covered by fast mining after the fact.
    allow_w = min(policy.fast_reserve_ratio * policy.ceiling_w, gap_w) if trusted else 0.0
    over_w = now.likely_w - target_w - allow_w
    for command in lower(state, wish_list, over_w > 0.0, policy, now_s):
        over_w -= max(0.0, limits[command.pool] - command.limit_w)
        tick.limit(command, limits[command.pool])
    lowered = {c.pool for c in tick.limits}
    open_wishes = [w for w in wish_list if w.pool not in lowered]
    rise_w = sum(w.rise_w for w in open_wishes) if trusted and full else 0.0
    # What only refills the slack over demand may use free room, but sheds nobody.
    pressing = any(w.rise_w > w.slack_w for w in open_wishes)
    room_w = target_w + allow_w - now.worst_w - tick.raised_now_w
    if rise_w and room_w > 0.0:
        for command in raise_limits(state, open_wishes, room_w, now.soon_credit_w > 0.002 * policy.ceiling_w):
            given_w = command.limit_w - limits[command.pool]
            tick.raised_now_w += given_w
            tick.limit(command, limits[command.pool])
            room_w -= given_w
            rise_w -= given_w
            over_w += given_w
    need_w = over_w - now.shed_credit_w
    comes_w = sum(reading.comes_w for reading in sensed.pools)  # hosts wait for it: mining is shed, and nothing else
    if rise_w > 0.0 and pressing:
        # For room the cautious sum counts: too little would cost AI a second round through the meter's delay.
        room_soon_w = room_w + min(now.other_tail_w, max(0.0, -room_w))
        need_w = max(need_w, rise_w - room_soon_w - now.soon_credit_w - (comes_w if over_w > 0.0 else 0.0))
    short_w = 0.0
    if need_w > 0.0005 * policy.ceiling_w:
        short_w = _shed(tick, sensed, standing, limits, need_w, breach=over_w > 0.0)
        short_w = max(0.0, short_w - comes_w) if over_w <= 0.0 else short_w
    short_w = max(short_w, _guard(tick, sensed, standing, now, limits))
    _economics(tick, sensed, standing, orders, now, open_wishes, target_w, over_w, rise_w)
    return short_w


def _restart(tick: _Tick, sensed: Sensed, standing: Standing, now: Estimate, target_w: float) -> None:
    """Drifted machines are told again: down at once, up through the same gates as any other wake."""
    state, policy = tick.state, tick.policy
    again = restart_order(state, standing.drifted)
    for rows, mode in again:
        if mode is Mode.SLEEP:
            tick.command(rows, mode, "drift")
    up = tuple(move for move in again if move[1] is not Mode.SLEEP)
    if not up:
        return
    still = breathe(state, sensed, standing.silent, (), 0.0, policy, tick.now_s).still
    admitted, why = admit_wakes(state, sensed, still, up, policy)
    tick.refused += why
    for rows, mode in admitted:
        if target_w - now.worst_w > _rise_of(state, rows, mode):
            tick.raised_now_w += _rise_of(state, rows, mode)
            tick.command(rows, mode, "drift")


def _rise_of(state: GovernorState, rows: RowArray, mode: Mode) -> float:
    """What a command would add at most [W]."""
    return max(0.0, float((state.row_mode_w(rows, mode.code) - state.believed_w[rows]).sum()))


def _shed(
    tick: _Tick, sensed: Sensed, standing: Standing, limits: list[float], need_w: float, *, breach: bool
) -> float:
    """Shed mining for `need_w`; caps on AI only for what mining cannot deliver in a breach."""
    state = tick.state
    shed = choose_shed(state, sensed, standing, need_w * (1.0 + tick.policy.uncertainty_ratio))
    for rows, mode in shed.moves:
        tick.command(rows, mode, "breach" if breach else "room_for_ai")
    short_w = max(0.0, need_w - shed.deliverable_w)
    if short_w > 0.0 and breach:
        commands, short_w = cut(state, sensed, limits, short_w)
        for command in commands:
            tick.limit(command, limits[command.pool])
    return short_w


def _guard(tick: _Tick, sensed: Sensed, standing: Standing, now: Estimate, limits: list[float]) -> float:
    """Near the protection limit only what acts within seconds counts: fast mining first, then caps on AI."""
    policy = tick.policy
    over_w = now.base_w - 0.985 * policy.protection_w
    last_w = over_w if now.trust is MeterTrust.TRUSTED else 0.0
    tick.opened = tuple(o.switch for o in open_switches(tick.state, standing, last_w, policy, tick.now_s))
    if over_w <= 0.0:
        return 0.0
    fast = choose_shed(tick.state, sensed, standing, over_w, within_s=policy.fast_shed_s)
    for rows, mode in fast.moves:
        tick.command(rows, mode, "protection")
    commands, short_w = cut(tick.state, sensed, limits, max(0.0, over_w - fast.deliverable_w - tick.shed_now_w))
    for command in commands:
        tick.limit(command, limits[command.pool])
    return short_w


def _economics(
    tick: _Tick,
    sensed: Sensed,
    standing: Standing,
    orders: Orders,
    now: Estimate,
    wish_list: list[Wish],
    target_w: float,
    over_w: float,
    rise_w: float,
) -> None:
    """Follow the plan: down by the drop curve, up in batches once room has lasted and no shed is in flight."""
    state, policy, now_s = tick.state, tick.policy, tick.now_s
    elapsed_s = 0.0 if state.last_tick_s is None else max(0.0, now_s - state.last_tick_s)
    drop_w = _budget(state.drop_budget_w, orders.drop_ramp_w_per_min, elapsed_s)
    pick_up_w = _budget(state.pick_up_budget_w, orders.pick_up_ramp_w_per_min, elapsed_s)
    moves = toward_plan(state, sensed, standing, orders, policy, now_s)
    tick.moves_open = sum(len(rows) for rows, _ in (*moves.down, *moves.up))
    down, used_w = within_drop_ramp(state, moves.down, drop_w)
    state.drop_budget_w = drop_w - used_w if orders.drop_ramp_w_per_min else 0.0
    for rows, mode in down:
        tick.command(rows, mode, "plan")
    unmet_w = (max(0.0, rise_w) + tick.raised_now_w) * (1.0 + policy.overhead_ratio)
    # What AI may take without asking is covered by mining that sheds within seconds, as far as the policy lets it.
    gap_w = max(0.0, now.ai_limit_w - now.ai_w)
    covered_w = min(policy.fast_reserve_ratio * policy.ceiling_w, gap_w, now.fast_w)
    room_w = target_w + covered_w - now.worst_w - unmet_w - 0.003 * policy.ceiling_w
    shedding = now.shed_credit_w + tick.shed_now_w > 0.002 * policy.ceiling_w
    air = breathe(state, sensed, standing.silent, moves.up, room_w, policy, now_s)
    tick.fans, room_w = air.fans, room_w - air.rise_w
    up, why = admit_wakes(state, sensed, air.still, moves.up, policy)
    tick.refused += why
    blocked = shedding or over_w > 0.0 or now.trust is not MeterTrust.TRUSTED
    blocked = blocked or policy.stage is not Stage.FULL or not orders.may_raise
    if blocked or room_w <= 0.0 or not up:
        if blocked or room_w <= 0.0:
            state.room_since_s = None
        state.pick_up_budget_w = pick_up_w if orders.pick_up_ramp_w_per_min else 0.0
        return
    if state.room_since_s is None:
        state.room_since_s = now_s
    lasted = now_s - state.room_since_s >= policy.wake_after_s
    rested = now_s - state.woke_at_s >= policy.wake_interval_s
    used_w = 0.0
    if lasted and rested:
        batch, used_w = wake_batch(state, up, min(room_w, pick_up_w), policy)
        for rows, mode in batch:
            tick.command(rows, mode, "plan" if orders.class_modes is not None else "room")
        if batch:
            state.woke_at_s = now_s
    state.pick_up_budget_w = pick_up_w - used_w if orders.pick_up_ramp_w_per_min else 0.0


def _budget(saved_w: float, ramp_w_per_min: float, elapsed_s: float) -> float:
    """What a ramp allows now: it fills with time, up to half a minute's worth; no ramp, no limit."""
    if ramp_w_per_min <= 0.0:
        return float("inf")
    return min(saved_w + ramp_w_per_min * elapsed_s / 60.0, ramp_w_per_min / 2.0)


def _left_alone(state: GovernorState, standing: Standing, policy: Policy) -> dict[Reason, int]:
    worn = worn_out(state, policy) & standing.obeys & (state.desired > SLEEP)
    counts = {
        Reason.UNREACHABLE: int(standing.silent.sum()),
        Reason.LOCKED: int(standing.locked.sum()),
        Reason.IN_FLIGHT: int((state.pending != 0).sum()),
        Reason.FAILED: int((state.retries > 0).sum()),
        Reason.WEAR: int(worn.sum()),
    }
    return {reason: count for reason, count in counts.items() if count}
