"""A virtual site: the faces of agent/backends.py over simulated physics, so that a complete agent runs on it.

Readings are what a sweep every two seconds would bring: biased, a little old. The meter lags by its own delay, and can
be told to die, freeze or turn round. `true_power_w` is for the referee alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from agent.backends import MeterSample, PoolReading, RowArray, SiteInventory
from gridpivot.clock import Instant
from gridpivot.columns import DeviceTable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason
from sim.physics import Miners, Pool, Truth

SWEEP_S = 2.0
METER_BEAT_S = 1.0


class MeterFault(StrEnum):
    """What is wrong with a meter."""

    NONE = "none"
    DEAD = "dead"
    FROZEN = "frozen"
    REVERSED = "reversed"
    WORD_SWAPPED = "word_swapped"  # high and low half of a 32-bit register exchanged
    HALF = "half"  # CT ratio entered wrong
    DOUBLE = "double"
    PHASE_MISSING = "phase_missing"


_SCALED = {MeterFault.HALF: 0.5, MeterFault.DOUBLE: 2.0, MeterFault.PHASE_MISSING: 2.0 / 3.0}


class VirtualSite:
    """Miners, pools and meter of one site that does not exist."""

    def __init__(self, inventory: SiteInventory, truth: Truth, start_s: float) -> None:
        self.inventory, self.truth = inventory, truth
        self.physics = Miners(inventory.classes, inventory.class_index, truth)
        self.pools = [Pool(p.baseline_w, p.max_w, p.baseline_w, p.max_w) for p in inventory.pools]
        self.meter_fault = MeterFault.NONE
        self.sampled_j = 0  # true energy behind the newest sample
        self.counter_offset_j = 0
        self.counter_modulus_j: int | None = None
        self.commands_heard = 0
        self._random = np.random.default_rng(truth.seed + 1)
        self._now_s = start_s
        self._overhead_w = truth.fixed_w
        self._energy_j = 0.0
        self._swept_s = float("-inf")
        self._sweep: tuple[npt.NDArray[np.float32], ...] | None = None
        self._history: deque[tuple[float, float, float]] = deque()
        self._sample: MeterSample | None = None
        self._metered_s = float("-inf")
        self.true_power_w = 0.0
        self.true_ai_w = 0.0

    def settle(self) -> None:
        """Let overhead catch up with load: the world as it stood before the story."""
        load_w = float(self.physics.power_w(self._now_s).sum()) + sum(p.power_w for p in self.pools)
        self._overhead_w = self.truth.fixed_w + self.truth.overhead_ratio * load_w
        self.true_power_w = load_w + self._overhead_w

    def advance(self, now_s: float) -> float:
        """Move physics to `now_s` (monotonic seconds); returns the true power of the site [W]."""
        elapsed_s = max(0.0, now_s - self._now_s)
        self._now_s = now_s
        for pool in self.pools:
            pool.advance(now_s, elapsed_s)
        self.true_ai_w = sum(p.power_w for p in self.pools)
        load_w = float(self.physics.power_w(now_s).sum()) + self.true_ai_w
        goal_w = self.truth.fixed_w + self.truth.overhead_ratio * load_w
        self._overhead_w += (goal_w - self._overhead_w) * (1.0 - float(np.exp(-elapsed_s / self.truth.overhead_lag_s)))
        self.true_power_w = load_w + self._overhead_w
        self._energy_j += self.true_power_w * elapsed_s
        self._history.append((now_s, self.true_power_w, self._energy_j))
        while len(self._history) > 2 and self._history[1][0] <= now_s - self.truth.meter_delay_s:
            self._history.popleft()
        self._read_meter(now_s)
        if now_s - self._swept_s >= SWEEP_S:
            self._take_sweep(now_s)
        return self.true_power_w

    def _read_meter(self, now_s: float) -> None:
        if now_s - self._metered_s < METER_BEAT_S or self.meter_fault is MeterFault.DEAD:
            return
        self._metered_s = now_s
        _, power_w, energy_j = self._history[0]
        if self.meter_fault is MeterFault.FROZEN and self._sample is not None:
            power_w = self._sample.power_w
        elif self.meter_fault is MeterFault.REVERSED:
            power_w = -power_w
        elif self.meter_fault is MeterFault.WORD_SWAPPED:
            count = round(power_w) & 0xFFFFFFFF
            power_w = float((count >> 16) | ((count & 0xFFFF) << 16))
        elif self.meter_fault in _SCALED:
            power_w *= _SCALED[self.meter_fault]
        else:
            power_w *= 1.0 + float(self._random.normal(0.0, 0.0003))  # class 0.2 meter, short-term noise
        self.sampled_j = round(energy_j)
        self._sample = MeterSample(power_w, now_s, self.counter_j(energy_j))

    def counter_j(self, energy_j: float) -> int:
        """What the meter's register shows: it may turn over, and another meter may hang there now."""
        shown = round(energy_j) + self.counter_offset_j
        return shown if self.counter_modulus_j is None else shown % self.counter_modulus_j

    def _take_sweep(self, now_s: float) -> None:
        self._swept_s = now_s
        reported = (self.physics.power_w(now_s) * self.physics.bias).astype(np.float32)
        silent = self.physics.silent | self.physics.dark
        reported[silent] = np.nan
        hashrate = self.physics.hashrate_hs(now_s).astype(np.float32)
        self._sweep = (reported, hashrate)
        self._states = self.physics.states(now_s)
        self._states[silent] = DeviceState.UNREACHABLE.code
        self._modes = self.physics.mode.copy()
        self._silent = silent

    # ---- agent.backends.Miners --------------------------------------------------------------------------------

    def refresh(self, table: DeviceTable, polled_at_s: npt.NDArray[np.float64], now: Instant) -> None:
        """The newest sweep."""
        if self._sweep is None:
            return
        silent = self._silent
        table["power_w"][:], table["hashrate_hs"][:] = self._sweep
        table["temp_c"][:] = np.where(silent, np.nan, np.where(self._modes == Mode.SLEEP.code, 30.0, 68.0))
        table["state"][:] = self._states
        table["mode"][:] = np.where(silent, 0, self._modes)
        table["reason"][:] = np.where(silent, Reason.UNREACHABLE.code, 0)
        table["provenance"][:] = np.where(silent, 0, Provenance.DEVICE.code)
        table["age_s"][:] = np.where(silent, np.nan, now.monotonic_s - self._swept_s)
        polled_at_s[:] = np.where(silent, np.nan, self._swept_s)

    def command(self, rows: RowArray, mode: Mode, now: Instant) -> None:
        """Commands arrive at once; what follows is physics."""
        self.commands_heard += len(rows)
        self.physics.command(rows, mode, now.monotonic_s)

    # ---- agent.backends.Pools ---------------------------------------------------------------------------------

    def read(self, now: Instant) -> Sequence[PoolReading]:
        """Pools as their workload manager and NVML would tell, within 2 %."""
        return [
            PoolReading(
                power_w=pool.power_w,
                limit_w=pool.limit_w,
                demand_w=max(pool.baseline_w, pool.demand_w),
                gpus_present=declared.gpu_count,
                read_at_s=now.monotonic_s,
            )
            for pool, declared in zip(self.pools, self.inventory.pools, strict=True)
        ]

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        """Enforced within half a second."""
        self.pools[pool].set_limit(limit_w, now.monotonic_s)

    # ---- agent.backends.Meter ---------------------------------------------------------------------------------

    def newest(self) -> MeterSample | None:
        """Newest sample; stays the same when the meter is dead."""
        return self._sample
