"""The physics of a virtual site, by column: what really happens behind the readings. The governor is told none of it.

A mode change is piecewise: old power until `begins_s`, an intermediate power until `ends_s`, then the new power. Down:
latency, a ramp's middle, rest. Up: boot delay at rest, boot overshoot, target. Overhead lags load by minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gridpivot.curves import MinerClass
from gridpivot.vocabulary import DeviceState, Mode

F64 = npt.NDArray[np.float64]
MODES = tuple(Mode)
SLEEP = Mode.SLEEP.code
OVERSHOOT = 1.07
IDLE_SHARE = 0.35  # of its level: boards stay powered for a while when there is no work
BOOT_SHARE = 0.05  # control board and fans


@dataclass(frozen=True, slots=True)
class Truth:
    """Parameters of one site that nobody tells the governor."""

    seed: int
    meter_delay_s: float  # 0-5
    site_bias: float  # reported over true mining power, 0.85-1.2
    overhead_ratio: float
    overhead_lag_s: float
    fixed_w: float
    time_scale: float = 1.0  # wake times are divided by it
    dead_time_factor: float = 1.0  # 0.5-2: how far families stray from their table
    silent_ratio: float = 0.002  # devices that never answer


class Miners:
    """True power of every miner at a site."""

    def __init__(self, classes: tuple[MinerClass, ...], class_index: npt.NDArray[np.uint8], truth: Truth) -> None:
        self._random = np.random.default_rng(truth.seed)
        n = len(class_index)
        self.of_row = class_index.astype(np.int64)
        self.truth = truth
        self._mode_w = np.array([c.power_by_code() for c in classes]).reshape(len(classes), len(MODES))
        hash_by_mode = [[c.modes[m].hashrate_hs if m in c.modes else 0.0 for m in MODES] for c in classes]
        self._mode_hs = np.array(hash_by_mode).reshape(len(classes), len(MODES))
        self._shed_s = np.array([c.shed_s for c in classes])
        self._wake_s = np.array([c.wake_s for c in classes])
        self.unit = self._random.normal(1.0, 0.02, n).clip(0.9, 1.1)  # no two machines alike
        self.bias = truth.site_bias * self._random.normal(1.0, 0.03, n).clip(0.9, 1.1)
        self.silent = self._random.random(n) < truth.silent_ratio
        self.mode = np.full(n, Mode.NORMAL.code, dtype=np.uint8)
        self._old_w = self.target_w(np.arange(n), self.mode)
        self._mid_w = self._old_w.copy()
        self._new_w = self._old_w.copy()
        self._begins_s = np.full(n, -np.inf)
        self._ends_s = np.full(n, -np.inf)
        self._idle_from_s = np.full(n, np.inf)
        self._idle_to_s = np.full(n, np.inf)
        self.dark = False  # no power at the site

    def lose_pools(self, now_s: float, over_s: float = 20.0) -> None:
        """Every pool is gone: machines run out of work one after the other and idle."""
        n = len(self.of_row)
        self._idle_from_s = now_s + self._random.uniform(0.0, over_s, n)
        self._idle_to_s = np.full(n, np.inf)

    def find_pools(self, now_s: float, within_s: float = 4.0) -> None:
        """The pools are back: everybody reconnects at once and hashes again."""
        self._idle_to_s = now_s + self._random.uniform(0.0, within_s, len(self.of_row))

    def black_out(self) -> None:
        """The grid is gone."""
        self.dark = True

    def power_back(self, now_s: float, keeps_sleep: npt.NDArray[np.bool_]) -> None:
        """The grid is back: machines boot hashing, but for those asleep whose firmware kept that (by class)."""
        n = len(self.of_row)
        self.dark = False
        kept = keeps_sleep[self.of_row] & (self.mode == SLEEP)
        self.mode[~kept] = Mode.NORMAL.code
        after = self.target_w(np.arange(n), self.mode)
        self._begins_s = now_s + self._random.uniform(20.0, 60.0, n)
        self._ends_s = self._begins_s + self._random.uniform(5.0, 30.0, n)
        self._old_w = np.where(kept, after, BOOT_SHARE * after)
        self._mid_w = np.where(kept, after, OVERSHOOT * after)
        self._new_w = after

    def _idle(self, now_s: float) -> npt.NDArray[np.bool_]:
        idle: npt.NDArray[np.bool_] = (self._idle_from_s <= now_s) & (now_s < self._idle_to_s) & (self.mode != SLEEP)
        return idle

    def target_w(self, rows: npt.NDArray[np.int64], mode: npt.NDArray[np.uint8] | int) -> F64:
        """Settled true power of rows in a mode [W]."""
        watts: F64 = self._mode_w[self.of_row[rows], mode] * self.unit[rows]
        return watts

    def start(self, mode_codes: npt.NDArray[np.uint8]) -> None:
        """Put every miner into a mode at once: the state of the world before the story begins."""
        rows = np.arange(len(mode_codes))
        self.mode[:] = mode_codes
        settled = self.target_w(rows, mode_codes)
        self._old_w[:] = self._mid_w[:] = self._new_w[:] = settled

    def command(self, rows: npt.NDArray[np.int64], mode: Mode, now_s: float) -> None:
        """A command has reached these miners; silent ones do not hear it."""
        rows = rows[~self.silent[rows]]
        if not len(rows):
            return
        n, of_class = len(rows), self.of_row[rows]
        before, after = self.power_w(now_s)[rows], self.target_w(rows, mode.code)
        asleep = (self.mode[rows] == SLEEP) & (mode is not Mode.SLEEP)
        shed_s = self._shed_s[of_class] * self.truth.dead_time_factor
        wake_s = self._wake_s[of_class] / self.truth.time_scale * self.truth.dead_time_factor
        # Down: everything has happened by 90 % of the family's time. Up: half of it booting, the rest in overshoot.
        begin_share, end_share = self._random.uniform(0.25, 0.6, n), self._random.uniform(0.65, 0.9, n)
        self._begins_s[rows] = now_s + np.where(asleep, 0.5 * wake_s, begin_share * shed_s)
        self._ends_s[rows] = now_s + np.where(asleep, end_share * wake_s, end_share * shed_s)
        self._old_w[rows] = before
        self._mid_w[rows] = np.where(asleep, OVERSHOOT * after, 0.5 * (before + after))
        self._new_w[rows] = after
        self.mode[rows] = mode.code

    def power_w(self, now_s: float) -> F64:
        """True power of each miner [W]."""
        if self.dark:
            return np.zeros(len(self.of_row))
        watts = np.where(now_s < self._begins_s, self._old_w, np.where(now_s < self._ends_s, self._mid_w, self._new_w))
        return np.where(self._idle(now_s), IDLE_SHARE * watts, watts)

    def states(self, now_s: float) -> npt.NDArray[np.uint8]:
        """DeviceState codes as an honest miner would report them."""
        moving = now_s < self._ends_s
        asleep = self.mode == SLEEP
        booting = moving & ~asleep & (self._old_w < 0.3 * self._new_w) & (now_s < self._begins_s)
        state = np.where(asleep, DeviceState.SLEEPING.code, DeviceState.HASHING.code)
        state = np.where(moving & asleep, DeviceState.STOPPING.code, state)
        state = np.where(self._idle(now_s) & ~moving, DeviceState.IDLE.code, state)
        return np.where(booting, DeviceState.WAKING.code, state).astype(np.uint8)

    def hashrate_hs(self, now_s: float) -> F64:
        """True hashrate of each miner [H/s]; none while booting or stopping."""
        full = self._mode_hs[self.of_row, self.mode] * self.unit
        return np.where((now_s < self._ends_s) | self._idle(now_s), 0.0, full)


class Pool:
    """One AI pool: draws the lower of demand and enforced limit, within a second."""

    def __init__(self, baseline_w: float, max_w: float, demand_w: float, limit_w: float) -> None:
        self.baseline_w, self.max_w = baseline_w, max_w
        self.demand_w, self.limit_w = demand_w, limit_w
        self._next_limit: tuple[float, float] | None = None
        self.power_w = min(demand_w, limit_w)

    def set_limit(self, limit_w: float, now_s: float) -> None:
        """Ask for a limit; the driver takes 0.3 s."""
        self._next_limit = (now_s + 0.3, limit_w)

    def advance(self, now_s: float, elapsed_s: float) -> None:
        """Follow demand and limit with a time constant of 0.4 s; a falling limit bites at once."""
        if self._next_limit is not None and now_s >= self._next_limit[0]:
            self.limit_w, self._next_limit = self._next_limit[1], None
        goal_w = max(self.baseline_w, min(self.demand_w, self.limit_w))
        self.power_w += (goal_w - self.power_w) * (1.0 - float(np.exp(-elapsed_s / 0.4)))
        self.power_w = min(self.power_w, max(self.baseline_w, self.limit_w))
