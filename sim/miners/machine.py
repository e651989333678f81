"""The physics of one mining machine: what it truly draws and hashes, and what its own sensor claims.

Sheds over seconds, wakes over minutes (dead boot, then a ramp with overshoot), hashrate follows power. The sensor is
biased by 5 to 20 %, either way, fixed per machine: the governor is not told. Everything follows from the seed and the
commands; `speed` shortens boots and ramps, never sheds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from gridpivot.curves import MinerClass, ModePoint
from gridpivot.vocabulary import Mode

BOOT_SHARE = 0.4  # of the wake time with no hashing
OVERSHOOT, OVERSHOOT_SHARE = 1.08, 0.15  # of normal power, for the last part of the wake time
BOOT_POWER_W = 180.0  # control board, fans and PSU while booting
PEAK_SHARE_AT = BOOT_SHARE + (1 - BOOT_SHARE) * 0.6
POOLS = ("stratum+tcp://pool.example:3333", "stratum+tcp://backup.example:3333")
FAILOVER_S = 30.0  # without a share, before a machine tries its next pool
IDLE_AFTER_S = 60.0  # without any pool, before the boards run out of work
IDLE_SHARE = 0.35  # of the level's power that is still drawn then
SHARE_DIFFICULTY = 2.0**18 * 2.0**32  # hashes behind one accepted share of the simulated pool


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast one machine really is [s]; at most what its family promises."""

    shed_s: float
    wake_s: float
    step_s: float  # between two hashing modes


class Machine:
    """One machine. Times are seconds on any steadily growing clock; they must not go back."""

    def __init__(self, kind: MinerClass, seed: int, *, now_s: float = 0.0, speed: float = 1.0) -> None:
        random_ = random.Random(seed)
        self.kind = kind
        self.mode = Mode.NORMAL
        self.pools_up = [True, True]
        self._pool = 0
        self._unpaid_since_s: float | None = None
        spread = random_.uniform(0.97, 1.03)
        self._points = {
            mode: ModePoint(point.power_w * (spread if mode is not Mode.SLEEP else 1.0), point.hashrate_hs)
            for mode, point in kind.modes.items()
        }
        self.bias = 1 + random_.choice((-1, 1)) * random_.uniform(0.05, 0.20)
        self._jitter = random_.uniform(0, 1000)
        self.timing = Timing(
            shed_s=kind.shed_s * random_.uniform(0.4, 0.9),
            wake_s=kind.wake_s * random_.uniform(0.5, 0.9) / speed,
            step_s=min(kind.shed_s, 10.0) * random_.uniform(0.5, 0.9),
        )
        self._changed_s = now_s - 1e6
        self._from = self._points[Mode.NORMAL]
        self._booting = False
        self._started_s = now_s - random_.uniform(1e3, 1e6)
        self._now_s = now_s
        self._shares = random_.uniform(100, 10_000)

    @property
    def modes(self) -> frozenset[Mode]:
        """Modes this machine has."""
        return frozenset(self._points)

    def command(self, mode: Mode, now_s: float, *, restart: bool = False) -> None:
        """Change mode; raises KeyError for a mode the machine lacks. The mode it is in already changes nothing.

        `restart` boots the mining software also between two hashing modes (stock Antminer).
        """
        if mode not in self._points:
            raise KeyError(mode)
        self.advance(now_s)
        if mode is self.mode:
            return
        still_booting = self._booting and now_s - self._changed_s < self.timing.wake_s
        if still_booting and mode is not Mode.SLEEP and not restart:
            self.mode = mode  # the boot goes on, towards another level
            return
        self._from = ModePoint(self.true_power_w(now_s), self.hashrate_hs(now_s))
        self._booting = self.mode is Mode.SLEEP or (restart and mode is not Mode.SLEEP)
        if self._booting:
            self._started_s, self._shares = now_s, 0.0
            if restart:
                self._from = self._points[Mode.SLEEP]
        self._changed_s = now_s
        self.mode = mode

    @property
    def pool_alive(self) -> bool:
        """Whether the pool in use takes shares."""
        return self.pools_up[self._pool]

    @pool_alive.setter
    def pool_alive(self, alive: bool) -> None:
        """Every pool at once."""
        self.pools_up = [alive, alive]

    @property
    def pool_url(self) -> str:
        """The pool in use."""
        return POOLS[self._pool]

    def advance(self, now_s: float) -> None:
        """Let shares accrue up to `now_s`, and change over to a pool that lives."""
        if now_s <= self._now_s:
            return
        if self.pool_alive:
            self._unpaid_since_s = None
            self._shares += self.hashrate_hs(now_s) * (now_s - self._now_s) / SHARE_DIFFICULTY
        elif self._unpaid_since_s is None:
            self._unpaid_since_s = now_s
        elif now_s - self._unpaid_since_s >= FAILOVER_S and any(self.pools_up):
            self._pool, self._unpaid_since_s = self.pools_up.index(True), None
        self._now_s = now_s

    def _idles(self, now_s: float) -> bool:
        """No pool for so long that the boards have no work; they are back the moment that one lives."""
        lost_s = self._unpaid_since_s
        return lost_s is not None and not any(self.pools_up) and now_s - lost_s >= IDLE_AFTER_S

    def true_power_w(self, now_s: float) -> float:
        """Power at the wall [W]."""
        if self._unpaid_since_s is not None or not self.pool_alive:
            self.advance(now_s)
        share = IDLE_SHARE if self.mode is not Mode.SLEEP and self._idles(now_s) else 1.0
        return share * self._worked_power_w(now_s)

    def _worked_power_w(self, now_s: float) -> float:
        target = self._points[self.mode]
        since_s = now_s - self._changed_s
        if not self._booting:
            duration_s = self.timing.shed_s if self.mode is Mode.SLEEP else self.timing.step_s
            return _ramp(self._from.power_w, target.power_w, since_s / duration_s)
        part = since_s / self.timing.wake_s
        peak_w = target.power_w * OVERSHOOT
        if part < BOOT_SHARE:
            return max(self._from.power_w, BOOT_POWER_W)
        if part < PEAK_SHARE_AT:
            return _ramp(BOOT_POWER_W, peak_w, (part - BOOT_SHARE) / (PEAK_SHARE_AT - BOOT_SHARE))
        return peak_w if part < PEAK_SHARE_AT + OVERSHOOT_SHARE else target.power_w

    def hashrate_hs(self, now_s: float) -> float:
        """Hashes per second."""
        if self._idles(now_s):
            return 0.0
        target = self._points[self.mode]
        since_s = now_s - self._changed_s
        if not self._booting:
            duration_s = self.timing.shed_s if self.mode is Mode.SLEEP else self.timing.step_s
            return _ramp(self._from.hashrate_hs, target.hashrate_hs, since_s / duration_s)
        part = since_s / self.timing.wake_s
        return _ramp(0.0, target.hashrate_hs, (part - BOOT_SHARE) / (PEAK_SHARE_AT - BOOT_SHARE))

    def reported_power_w(self, now_s: float) -> float:
        """What the machine's own sensor says [W]: biased, and rounded as firmware rounds."""
        return float(round(self.true_power_w(now_s) * self.bias))

    def temp_c(self, now_s: float) -> float:
        """Hottest chip, following power loosely [C]."""
        normal_w = self._points[Mode.NORMAL].power_w
        return round(30 + 45 * min(1.2, self.true_power_w(now_s) / normal_w) + self._jitter % 5, 1)

    def uptime_s(self, now_s: float) -> int:
        """Since the mining software started [s]."""
        return int(now_s - self._started_s)

    def accepted_shares(self, now_s: float) -> int:
        """Accepted since the mining software started."""
        self.advance(now_s)
        return int(self._shares)


def _ramp(start: float, end: float, part: float) -> float:
    return start + (end - start) * min(1.0, max(0.0, part))
