"""From GPU readings to one pool's wall watts, and from a pool's wall limit to GPU limits. Pure.

NVML sees the boards only: the host's share (CPUs, NICs, fans) is a fixed figure per GPU. What is not known is never
counted as saved: a lost GPU, or one that does not tell its power, is charged what its last limit allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.backends import ClockState, PoolReading
from agent.gpu.outcomes import LimitOutcome
from agent.gpu.reading import ClockAttempt, GpuReading
from gridpivot.curves import AiPool, gpu_pool
from gridpivot.vocabulary import AiPriority

UNKNOWN_MAX_W = 700.0  # a GPU that tells no limits is taken for the largest board of its generation (H100 SXM)
UNKNOWN_MIN_RATIO = 0.3  # 200 of 700 W
IDLE_W = 75.0  # NVML does not tell idle power; H100 and H200 SXM: 70-78 W
# NVML power is a mean over a second and the clock-event flag an instant, so that either may miss a short cap.
HELD_RATIO, HELD_RATIO_UNFLAGGED = 0.98, 0.95


@dataclass(frozen=True, slots=True)
class Members:
    """One pool of the settings and the GPUs that were dealt to it."""

    declared: AiPool
    uuids: tuple[str, ...]
    host_w_per_gpu: float

    @property
    def host_w(self) -> float:
        """The host's share [W]; a GPU that falls off the bus takes no CPU or fan with it."""
        return self.host_w_per_gpu * len(self.uuids)


@dataclass(frozen=True, slots=True)
class Settable:
    """A GPU whose limit can be set, and its range [W]."""

    uuid: str
    min_w: float
    max_w: float


WORKS_FROM = 0.05  # utilisation: below it a GPU idles, and its clock says nothing
TAKEN = (LimitOutcome.OK, LimitOutcome.UNCHANGED, LimitOutcome.CLAMPED)


def clock_state(
    uuids: Sequence[str], readings: Mapping[str, GpuReading], locks: Mapping[str, ClockAttempt]
) -> ClockState:
    """How clock locks of these GPUs stand."""
    mine = [reading for uuid in uuids if (reading := readings.get(uuid)) is not None and not reading.lost]
    works = [
        r.sm_clock_hz for r in mine if r.sm_clock_hz is not None and (r.util_ratio is None or r.util_ratio > WORKS_FROM)
    ]
    bad = [(uuid, lock) for uuid in uuids if (lock := locks.get(uuid)) is not None and lock.outcome not in TAKEN]
    highest_hz = max(works, default=None)
    if not bad:
        return ClockState(highest_hz)
    uuid, first = bad[0]
    return ClockState(highest_hz, first.outcome.value, f"{len(bad)} of {len(uuids)} GPUs: {first.detail or uuid}")


def declare(name: str, priority: AiPriority, readings: Sequence[GpuReading], host_w_per_gpu: float) -> AiPool:
    """The pool as dispatch sees it; GPUs of several kinds count with their mean range."""
    max_w = sum(_max_w(r) for r in readings) / len(readings)
    min_w = sum(UNKNOWN_MIN_RATIO * _max_w(r) if r.limit_min_w is None else r.limit_min_w for r in readings)
    min_w = min(min_w / len(readings), 0.99 * max_w)  # a curve needs two ends
    return gpu_pool(
        name,
        priority,
        len(readings),
        gpu_max_w=max_w,
        gpu_min_w=min_w,
        gpu_idle_w=min(IDLE_W, min_w),
        host_w_per_gpu=host_w_per_gpu,
    )


def _max_w(reading: GpuReading) -> float:
    if reading.limit_max_w is not None:
        return reading.limit_max_w
    return UNKNOWN_MAX_W if reading.limit_default_w is None else reading.limit_default_w


def limit_of(reading: GpuReading | None, last_limit_w: float | None) -> float:
    """What this GPU may draw [W]: enforced, else as last known, else the most that its kind may."""
    if reading is not None and not reading.lost:
        if reading.limit_enforced_w is not None:
            return reading.limit_enforced_w
        if reading.limit_requested_w is not None:
            return reading.limit_requested_w
    if last_limit_w is not None:
        return last_limit_w
    return UNKNOWN_MAX_W if reading is None else _max_w(reading)


def is_held(reading: GpuReading, limit_w: float) -> bool:
    """Whether the power limit holds this GPU back, so that it would draw more without."""
    if reading.throttled_by_power:
        return True
    ratio = HELD_RATIO_UNFLAGGED if reading.throttled_by_power is None else HELD_RATIO
    return reading.power_w is not None and reading.power_w >= ratio * limit_w


def account(
    members: Members,
    readings: Mapping[str, GpuReading],
    last_limits_w: Mapping[str, float],
    read_at_s: float,
) -> PoolReading:
    """One pool at the wall. Power and demand are None when no GPU of the pool tells its power."""
    power_w = demand_w = limit_w = 0.0
    present = telling = 0
    for uuid in members.uuids:
        reading = readings.get(uuid)
        allowed_w = limit_of(reading, last_limits_w.get(uuid))
        limit_w += allowed_w
        if reading is None or reading.lost:
            power_w, demand_w = power_w + allowed_w, demand_w + allowed_w
            continue
        present += 1
        telling += reading.power_w is not None
        draw_w = allowed_w if reading.power_w is None else reading.power_w
        power_w += draw_w
        demand_w += max(draw_w, _max_w(reading)) if is_held(reading, allowed_w) else draw_w
    return PoolReading(
        power_w=members.host_w + power_w if telling else None,
        limit_w=members.host_w + limit_w,
        demand_w=members.host_w + demand_w if telling else None,
        gpus_present=present,
        read_at_s=read_at_s,
    )


def shares(
    members: Members,
    wall_w: float,
    readings: Mapping[str, GpuReading],
    last_limits_w: Mapping[str, float],
) -> dict[str, float]:
    """Limits [W by UUID] so that the pool may draw at most `wall_w`; GPUs that cannot be set keep what they have."""
    settable: list[Settable] = []
    budget_w = wall_w - members.host_w
    for uuid in members.uuids:
        reading = readings.get(uuid)
        if reading is None or reading.lost or reading.limit_min_w is None or reading.limit_max_w is None:
            budget_w -= limit_of(reading, last_limits_w.get(uuid))
        else:
            settable.append(Settable(uuid, reading.limit_min_w, reading.limit_max_w))
    return distribute(settable, budget_w)


def distribute(gpus: Sequence[Settable], budget_w: float) -> dict[str, float]:
    """Equal limits inside each GPU's range, in whole watts rounded down: their sum never exceeds the budget.

    Below the sum of the least limits there is nothing to choose: each gets its least.
    """
    low_w, high_w = 0.0, max((g.max_w for g in gpus), default=0.0)
    if sum(g.max_w for g in gpus) <= budget_w:
        low_w = high_w
    for _ in range(50):  # the level at which the budget is just used; `low_w` never exceeds it
        level_w = (low_w + high_w) / 2
        if sum(min(g.max_w, max(g.min_w, level_w)) for g in gpus) <= budget_w:
            low_w = level_w
        else:
            high_w = level_w
    # The hair above keeps an exact share (8 x 300 W of 2400 W) from falling by a whole watt.
    given = {
        g.uuid: min(g.max_w, max(g.min_w, float(math.floor(min(g.max_w, max(g.min_w, low_w)) + 1e-9)))) for g in gpus
    }
    if sum(given.values()) > max(budget_w, sum(g.min_w for g in gpus)):
        return {g.uuid: max(g.min_w, given[g.uuid] - 1.0) for g in gpus}
    return given
