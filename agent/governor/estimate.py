"""How much power the site draws, and how much it could: the figures that every decision rests on. Pure.

Two sums, since nobody tells the governor how far the meter lags: `worst_w` assumes that the meter has seen none of the
recent rises and is what raising is measured against; `likely_w` assumes that it has seen what devices and GPUs report
and is what shedding is measured against. Counting a rise twice must never shed; missing one must never raise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agent.governor.meter_watch import Envelope, MeterWatch
from agent.governor.reconcile import Standing
from agent.governor.state import NORMAL, SLEEP, GovernorState, Policy, Sensed, tail_w
from gridpivot.vocabulary import DeviceState, MeterTrust

KNOWN_AFTER = 10  # steady samples in a row that agree before the ratio of meter to devices counts as known
AGREES_WITHIN = 0.04
_MAY_RETURN = (DeviceState.IDLE.code, DeviceState.WAKING.code)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Powers at this tick [W]."""

    trust: MeterTrust
    metered_w: float | None
    base_w: float  # the meter, or its worst case
    mining_w: float
    ai_w: float
    ai_limit_w: float
    overhead_w: float
    likely_w: float
    worst_w: float
    shed_credit_w: float  # commanded or proven, maybe not on the meter yet
    soon_credit_w: float  # in flight or made for AI, showing within seconds
    other_tail_w: float  # proven sheds for other ends, maybe not on the meter yet
    wake_w: float
    silent: int
    fast_w: float  # mining that hashes, obeys and sheds within seconds


def effective_limits(state: GovernorState, sensed: Sensed, now_s: float) -> list[float]:
    """Per pool: what enforced limits allow, or a request of the last 5 s that may be about to [W]."""
    limits = []
    for memory, reading in zip(state.pools, sensed.pools, strict=True):
        recent = memory.requested_w is not None and now_s - memory.requested_at_s < 5.0
        limits.append(max(reading.limit_w, memory.requested_w or 0.0) if recent else reading.limit_w)
    return limits


def draws(sensed: Sensed, limits: list[float]) -> list[float]:
    """Per pool: measured draw; a silent pool is charged its whole limit [W]."""
    return [limit if r.power_w is None else r.power_w for r, limit in zip(sensed.pools, limits, strict=True)]


def _draw_range(
    state: GovernorState, now_draws: list[float], window_s: float, now_s: float
) -> list[tuple[float, float]]:
    """Per pool: least and most draw inside the window that the meter may still be showing [W]."""
    ranges = []
    for memory, draw in zip(state.pools, now_draws, strict=True):
        memory.draws.append((now_s, draw))
        while memory.draws and memory.draws[0][0] < now_s - window_s:
            memory.draws.popleft()
        watts = [w for _, w in memory.draws]
        ranges.append((min(watts), max(watts)))
    return ranges


def estimate(
    state: GovernorState, watch: MeterWatch, sensed: Sensed, standing: Standing, policy: Policy, now_s: float
) -> Estimate:
    """Powers at this tick; updates what is learned slowly: correction, overhead still to come, last trusted meter."""
    _age_overhead(state, policy, now_s)
    limits = effective_limits(state, sensed, now_s)
    ai_now = draws(sensed, limits)
    ai_w, ai_limit_w = sum(ai_now), sum(limits)
    reported_w = float(state.believed_w.sum())
    age_s = now_s - sensed.meter.read_at_s if sensed.meter is not None else 0.0
    ranges = _draw_range(state, ai_now, policy.meter_dead_s + max(0.0, age_s), now_s)
    # What GPUs have taken within its lag the meter need not have seen yet: a step of AI is no fault of the meter.
    ai_seen_w = sum(least for least, _ in ranges)
    envelope = _envelope(state, standing, reported_w, ai_seen_w, ai_limit_w, policy)
    trust = watch.judge(sensed.meter, envelope, now_s)
    falling = state.pending < 0
    credit_w = float(state.moved_w[falling].sum())
    # A minute-long shed under way must not be what AI waits for while others could make room in seconds.
    soon = falling & (state.classes.row_shed_s <= max(policy.fast_shed_s, state.classes.fastest_s))
    soon_w = float(state.moved_w[soon].sum())
    shed_tail_w, wake_tail_w = tail_w(state.shed_tails, now_s), tail_w(state.wake_tails, now_s)
    mining_w = state.correction * reported_w
    other_tail_w = 0.0
    if trust is MeterTrust.TRUSTED and sensed.meter is not None:
        base_w = sensed.meter.power_w
        state.trusted_w, state.trusted_ai_w, state.trusted_reported_w = base_w, ai_w, reported_w
        state.trusted_ai_most_w = sum(most for _, most in ranges)
        state.raised_since_w = state.shed_since_w = 0.0
        credit_w += shed_tail_w
        # Sheds for other ends only fill a breach: counted as room for AI they would leave it short.
        ai_tail_w = tail_w(state.ai_tails, now_s)
        soon_w += ai_tail_w
        other_tail_w = max(0.0, shed_tail_w - ai_tail_w)
        _learn(state, base_w, reported_w, ai_w, policy, now_s)
    else:
        base_w = _blind_w(state, mining_w, ai_w, policy)
    up = state.pending > 0
    wake_full_w = float(state.moved_w[up].sum())
    wake_left_w = 0.0
    if wake_full_w:
        rows = np.flatnonzero(up)
        final_w = state.row_mode_w(rows, NORMAL)
        wake_left_w = float(np.maximum(0.0, final_w - state.believed_w[rows]).sum())
    debt_w = max(0.0, state.overhead_debt_w)
    gap_w = sum(max(0.0, limit - most) for limit, (_, most) in zip(limits, ranges, strict=True))
    gap_worst_w = sum(max(0.0, limit - least) for limit, (least, _) in zip(limits, ranges, strict=True))
    reserve_w = _comeback_reserve_w(state, sensed, standing)
    return Estimate(
        trust=trust,
        metered_w=sensed.meter.power_w if trust is MeterTrust.TRUSTED and sensed.meter is not None else None,
        base_w=base_w,
        mining_w=mining_w,
        ai_w=ai_w,
        ai_limit_w=ai_limit_w,
        overhead_w=max(0.0, base_w - mining_w - ai_w),
        likely_w=base_w + gap_w + wake_left_w + debt_w,
        worst_w=base_w + gap_worst_w + wake_full_w + wake_tail_w + debt_w + reserve_w,
        shed_credit_w=credit_w,
        soon_credit_w=soon_w,
        other_tail_w=other_tail_w,
        wake_w=wake_full_w,
        silent=int(standing.silent.sum()),
        fast_w=_fast_w(state, standing, policy),
    )


def _fast_w(state: GovernorState, standing: Standing, policy: Policy) -> float:
    """What could be shed within seconds [W]."""
    fast = standing.obeys & (state.desired != SLEEP) & (state.classes.row_shed_s <= policy.fast_shed_s)
    return float(state.believed_w[fast].sum()) * state.relief_factor


def note_moves(state: GovernorState, policy: Policy, up_w: float, down_w: float) -> None:
    """Overhead follows load by minutes, both ways; increases also count against a meter that is not believed."""
    state.overhead_debt_w += policy.overhead_ratio * (up_w - down_w)
    state.raised_since_w += up_w


def _age_overhead(state: GovernorState, policy: Policy, now_s: float) -> None:
    if state.last_tick_s is not None:
        state.overhead_debt_w *= math.exp(-max(0.0, now_s - state.last_tick_s) / policy.overhead_lag_s)


def _envelope(
    state: GovernorState, standing: Standing, reported_w: float, ai_w: float, ai_limit_w: float, policy: Policy
) -> Envelope:
    """What the devices make possible: sensors are at most 20 % off, in flight and lag come on top.

    `ai_w`: the least that AI drew while the meter may still show it.
    """
    moving_w = float(state.moved_w[state.pending != 0].sum()) + sum(w for _, w in state.shed_tails)
    overhead = 1.0 + policy.overhead_ratio
    least_w = 0.6 * reported_w + 0.5 * ai_w - moving_w - 0.05 * policy.ceiling_w
    most_w = (1.45 * reported_w + ai_limit_w + moving_w) * overhead + 0.15 * policy.ceiling_w
    silent_w = float(state.believed_w[standing.silent].sum())  # may be without power: then the meter is right
    if state.trusted_w is not None:
        # Nothing falls from one second to the next that no device has shown: a phase lost before anything was learned.
        moved_w = state.correction * (reported_w - state.trusted_reported_w) + ai_w - state.trusted_ai_most_w
        carried_w = state.trusted_w + moved_w * (1.0 + 0.7 * policy.overhead_ratio)
        slack_w = 0.15 * state.trusted_w + moving_w + abs(state.overhead_debt_w) + 0.04 * policy.ceiling_w
        least_w = max(least_w, carried_w - slack_w - silent_w)
    if state.agreed_samples >= KNOWN_AFTER:
        # How meter and devices go together is known by now: a phase that is lost, a CT ratio that somebody changed.
        expected_w = (state.correction * reported_w + ai_w) * (1.0 + 0.7 * policy.overhead_ratio)
        spread_w = 0.15 * expected_w + moving_w + abs(state.overhead_debt_w) + 0.04 * policy.ceiling_w
        least_w = max(least_w, expected_w - spread_w - silent_w)
        most_w = min(most_w, expected_w + spread_w + (ai_limit_w - ai_w))
    return Envelope(max(0.0, least_w), most_w)


def _blind_w(state: GovernorState, mining_w: float, ai_w: float, policy: Policy) -> float:
    """Power without a meter: the higher of two dead reckonings.

    From the last trusted value: every increase since counts in full, a decrease only as far as devices proved it and
    at 80 %. From the devices: their sum as corrected so far (at its upper bound before anything was learned) plus
    overhead at worst.
    """
    upper = 1.03 if state.correction_samples else 1.2
    from_devices_w = (upper * mining_w + ai_w) * (1.0 + policy.overhead_ratio)
    if state.trusted_w is None:
        return from_devices_w
    ai_rise_w = max(0.0, ai_w - state.trusted_ai_w)
    reckoned_w = state.trusted_w + state.raised_since_w + ai_rise_w - 0.8 * state.shed_since_w
    return max(reckoned_w, from_devices_w)


def _learn(
    state: GovernorState, metered_w: float, reported_w: float, ai_w: float, policy: Policy, now_s: float
) -> None:
    """Correction of reported mining to the meter: steady state only, slow after the first value, clamped."""
    swing_w = sum(max(w for _, w in m.draws) - min(w for _, w in m.draws) for m in state.pools if m.draws)
    moving_w = float(state.moved_w[state.pending != 0].sum()) + sum(
        w for _, w in (*state.shed_tails, *state.wake_tails)
    )
    if moving_w > 0.003 * policy.ceiling_w or swing_w > 0.01 * policy.ceiling_w or reported_w < 0.05 * policy.ceiling_w:
        state.quiet_since_s = None
        return
    if state.quiet_since_s is None:
        state.quiet_since_s = now_s
    if now_s - state.quiet_since_s < policy.meter_dead_s:
        return
    seen = (metered_w / (1.0 + 0.7 * policy.overhead_ratio) - ai_w) / reported_w
    agrees = abs(seen - state.correction) < AGREES_WITHIN * state.correction
    state.agreed_samples = state.agreed_samples + 1 if agrees else 0
    seen = min(1.25, max(0.8, seen))
    state.correction_samples += 1
    first = state.correction_samples <= 5
    elapsed_s = now_s - (state.last_tick_s if state.last_tick_s is not None else now_s)
    weight = 1.0 / state.correction_samples if first else 1.0 - math.exp(-elapsed_s / 600.0)
    state.correction += weight * (seen - state.correction)


def _comeback_reserve_w(state: GovernorState, sensed: Sensed, standing: Standing) -> float:
    """What may come back uncommanded, above what it is charged [W]: silent machines that reboot into hashing, and those
    that idle without a pool and all return within seconds when it does (a reconnect storm)."""
    idle = np.isin(sensed.table["state"], _MAY_RETURN) & (state.desired > SLEEP) & (state.pending == 0)
    rows = np.flatnonzero(standing.silent | idle)
    if not len(rows):
        return 0.0
    returns = np.where(standing.silent[rows], NORMAL, state.desired[rows])
    return float(np.maximum(0.0, state.row_mode_w(rows, returns) - state.believed_w[rows]).sum())
