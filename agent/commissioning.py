"""The step test of one feeder: shed a little, and see that the right meter falls as much as it should. Pure.

In: what a tick shows. Out: commands for the rows of the test, and in the end a verdict with its figures. The AI's own
power is taken off the meter's, so that only miners count. Whatever happens, what was put to sleep is woken again: with a
believed meter and room under the ceiling; where that cannot be had in time, the result says how many still sleep.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from agent.backends import RowArray
from agent.governor.state import SLEEP, GovernorState
from gridpivot.columns import DeviceTable
from gridpivot.vocabulary import DeviceState, Mode, Reason

LEAST_PERCENT, MOST_PERCENT = 2.0, 5.0
TOLERANCE = 0.15
WINDOW_S, LEAST_SAMPLES = 10.0, 6
STEADY_RATIO = 0.2  # most that the meter may move by itself, of the step
STEADY_WAIT_S, ROOM_WAIT_S, BLIND_S = 180.0, 600.0, 10.0
LAG_S = 6.0  # most that the meter lags behind the truth
FRESH_S = 60.0
_HANDS_OFF = (Reason.LOCKED.code, Reason.MAINTENANCE.code)


class Phase(StrEnum):
    """Where a step test stands."""

    STEADY = "steady"  # waiting for a meter that stands still
    SHED = "shed"
    WAKE = "wake"
    DONE = "done"


class Verdict(StrEnum):
    """What a step test found."""

    PASSED = "passed"
    TOO_FEW = "too_few"  # no machines that make such a step
    UNSTEADY = "unsteady"  # the meter never stood still enough
    NOT_OBEYED = "not_obeyed"  # machines did not go to sleep
    WRONG_METER = "wrong_meter"  # they did, and the meter did not fall
    WRONG_SIGN = "wrong_sign"
    WRONG_SIZE = "wrong_size"
    METER_LOST = "meter_lost"
    LOCKED = "locked"
    OVER_CEILING = "over_ceiling"
    STOPPED = "stopped"


MEANING = {
    Verdict.PASSED: "the meter fell as it should",
    Verdict.TOO_FEW: "too few machines hash here with a reading and without a lock; wait, or raise --percent",
    Verdict.UNSTEADY: "the meter does not stand still; try at a quieter time, or raise --percent",
    Verdict.NOT_OBEYED: "machines did not go to sleep; check their logins (gridpivot-agent doctor)",
    Verdict.WRONG_METER: "machines sleep and the meter did not fall: it measures another circuit, or the feeder map is wrong",
    Verdict.WRONG_SIGN: "the meter rose: a CT is the wrong way round (power_scale_w)",
    Verdict.WRONG_SIZE: "the meter fell by another amount: check CT ratio, scale and register, and the feeder map",
    Verdict.METER_LOST: "the meter was lost on the way",
    Verdict.LOCKED: "somebody set a lock on a machine of the test",
    Verdict.OVER_CEILING: "the site stood above its ceiling",
    Verdict.STOPPED: "stopped by hand",
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Machines of one step test: their rows, the modes that they had, and what their sleep should save [W]."""

    feeder: str
    rows: RowArray
    modes: tuple[Mode, ...]
    expected_w: float
    feeder_w: float
    shed_s: float
    wake_s: float
    wake_peak_w: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What one tick shows. `level_w` is the meter less AI, None while the meter is not believed; room is under the ceiling."""

    now_s: float
    read_at_s: float
    level_w: float | None
    room_w: float
    asleep: int
    hashing: int
    locked: bool


@dataclass(frozen=True, slots=True)
class FeederResult:
    """What the test of a feeder found. Times from the command until the meter had moved half [s]; None = it did not."""

    feeder: str
    verdict: Verdict
    machines: int = 0
    feeder_w: float = 0.0
    expected_w: float = 0.0
    fell_w: float | None = None
    fell_after_s: float | None = None
    rose_w: float | None = None
    rose_after_s: float | None = None
    woke: bool = False
    left_asleep: int = 0


def choose(
    state: GovernorState, table: DeviceTable, feeder: int, percent: float, correction: float
) -> Chosen | FeederResult:
    """Machines that make a step of `percent` of what the feeder draws, the fastest families first, never over 5 %."""
    name, inventory = state.inventory.feeders[feeder], state.inventory
    mine = inventory.feeder_index == feeder
    feeder_w = correction * float(state.believed_w[mine].sum())
    sound = mine & (table["state"] == DeviceState.HASHING.code) & ~np.isin(table["reason"], _HANDS_OFF)
    sound &= (table["age_s"] <= FRESH_S) & ~np.isnan(table["power_w"]) & (table["mode"] > SLEEP)
    rows = np.flatnonzero(sound)
    rows = rows[np.argsort(state.classes.row_shed_s[rows], kind="stable")]
    saves_w = correction * state.believed_w[rows] - state.row_mode_w(rows, SLEEP)
    total_w = np.cumsum(saves_w)
    wanted_w = percent / 100.0 * feeder_w
    count = int(np.searchsorted(total_w, wanted_w)) + 1
    if count > len(rows) or total_w[count - 1] > MOST_PERCENT / 100.0 * feeder_w:
        count -= 1
    if count < 1 or total_w[count - 1] < LEAST_PERCENT / 100.0 * feeder_w:
        return FeederResult(name, Verdict.TOO_FEW, feeder_w=feeder_w)
    rows = rows[:count]
    modes = tuple(Mode.of(int(code)) for code in table["mode"][rows])
    of_class = state.classes.of_row[rows]
    peak_w = np.maximum(state.classes.boot_w[of_class], state.classes.mode_w[of_class, table["mode"][rows]])
    return Chosen(
        name, rows, modes, float(total_w[count - 1]), feeder_w, float(state.classes.shed_s[of_class].max()),
        float(state.classes.wake_s[of_class].max()), float(peak_w.sum()),
    )  # fmt: skip


class StepTest:
    """One feeder's test. `tick` says what to command: `SHED` or `WAKE` exactly once each, else nothing."""

    def __init__(self, chosen: Chosen, now_s: float) -> None:
        self.chosen = chosen
        self.phase = Phase.STEADY
        self.result = FeederResult(chosen.feeder, Verdict.STOPPED, len(chosen.rows), chosen.feeder_w, chosen.expected_w)
        self._since_s = now_s
        self._samples: deque[tuple[float, float]] = deque()
        self._base_w = self._low_w = 0.0
        self._still_at_s: float | None = None
        self._asked_s: float | None = None  # when the wake was commanded
        self._blind_since_s: float | None = None

    @classmethod
    def to_wake(cls, chosen: Chosen, now_s: float) -> StepTest:
        """Nothing but the end of a test that was cut off: its machines are woken."""
        test = cls(chosen, now_s)
        test.phase = Phase.WAKE
        return test

    def stop(self, verdict: Verdict = Verdict.STOPPED) -> None:
        """End early: what sleeps is woken first."""
        if self.phase is Phase.STEADY:
            self._finish(verdict)
        elif self.phase is Phase.SHED:
            self._turn(verdict)

    def tick(self, seen: Seen) -> Phase | None:
        """The command that is due now, if any."""
        self._take(seen)
        trouble = self._trouble(seen)
        if trouble is not None:
            self.stop(trouble)
        match self.phase:
            case Phase.STEADY:
                return self._steady(seen)
            case Phase.SHED:
                self._shed(seen)
            case Phase.WAKE:
                return self._wake(seen)
        return None

    # ---- phases -----------------------------------------------------------------------------------------------

    def _steady(self, seen: Seen) -> Phase | None:
        window = self._window(seen.now_s - WINDOW_S)
        if window is not None and float(np.ptp(window)) <= STEADY_RATIO * self.chosen.expected_w:
            self._base_w = float(np.mean(window))
            self.phase, self._since_s = Phase.SHED, seen.now_s
            return Phase.SHED
        if seen.now_s - self._since_s > STEADY_WAIT_S:
            self._finish(Verdict.UNSTEADY)
        return None

    def _shed(self, seen: Seen) -> None:
        chosen = self.chosen
        late = seen.now_s - self._since_s > 2.0 * chosen.shed_s + 30.0
        if self._still_at_s is None and (seen.asleep == len(chosen.rows) or late):
            self._still_at_s = seen.now_s + LAG_S
        self._note_half(seen, down=True)
        window = None if self._still_at_s is None else self._window(self._still_at_s)
        if window is None or seen.now_s - (self._still_at_s or 0.0) < WINDOW_S:
            return
        self._low_w = float(np.mean(window))
        fell_w = self._base_w - self._low_w
        self.result = replace(self.result, fell_w=fell_w)
        self._turn(judge(fell_w, chosen.expected_w, seen.asleep / len(chosen.rows)))

    def _wake(self, seen: Seen) -> Phase | None:
        chosen, waited_s = self.chosen, seen.now_s - self._since_s
        if self._asked_s is None:
            if seen.level_w is not None and not seen.locked and seen.room_w >= chosen.wake_peak_w:
                self._asked_s = self._since_s = seen.now_s
                return Phase.WAKE
            if waited_s > ROOM_WAIT_S:
                self.result = replace(self.result, left_asleep=len(chosen.rows))
                self._finish(self.result.verdict)
            return None
        self._note_half(seen, down=False)
        window = self._window(seen.now_s - WINDOW_S) if seen.now_s - self._asked_s > WINDOW_S + LAG_S else None
        fell_w = self.result.fell_w
        if window is not None and fell_w is not None and fell_w > 0:
            rose_w = float(np.mean(window)) - self._low_w
            self.result = replace(self.result, rose_w=rose_w)
            if seen.hashing == len(chosen.rows) and abs(rose_w / fell_w - 1.0) <= TOLERANCE:
                self.result = replace(self.result, woke=True)
                self._finish(self.result.verdict)
        if self.phase is Phase.DONE:
            return None
        if fell_w is None and seen.hashing == len(chosen.rows):
            self._finish(self.result.verdict)
        elif waited_s > 2.0 * chosen.wake_s + 60.0:
            self.result = replace(self.result, left_asleep=seen.asleep)
            self._finish(self.result.verdict)
        return None

    # ---- readings ---------------------------------------------------------------------------------------------

    def _take(self, seen: Seen) -> None:
        if seen.level_w is None:
            self._blind_since_s = seen.now_s if self._blind_since_s is None else self._blind_since_s
            self._samples.clear()
            return
        self._blind_since_s = None
        if not self._samples or seen.read_at_s > self._samples[-1][0]:
            self._samples.append((seen.read_at_s, seen.level_w))
        while self._samples[0][0] < seen.now_s - 3.0 * WINDOW_S:
            self._samples.popleft()

    def _window(self, from_s: float) -> list[float] | None:
        watts = [level_w for read_at_s, level_w in self._samples if read_at_s >= from_s]
        return watts if len(watts) >= LEAST_SAMPLES else None

    def _trouble(self, seen: Seen) -> Verdict | None:
        if seen.locked:
            return Verdict.LOCKED
        if self._blind_since_s is not None and seen.now_s - self._blind_since_s > BLIND_S:
            return Verdict.METER_LOST
        return Verdict.OVER_CEILING if seen.level_w is not None and seen.room_w < 0.0 else None

    def _note_half(self, seen: Seen, *, down: bool) -> None:
        if seen.level_w is None:
            return
        half_w, after_s = 0.5 * self.chosen.expected_w, seen.now_s - self._since_s
        if down and self.result.fell_after_s is None and seen.level_w <= self._base_w - half_w:
            self.result = replace(self.result, fell_after_s=after_s)
        if not down and self.result.rose_after_s is None and seen.level_w >= self._low_w + half_w:
            self.result = replace(self.result, rose_after_s=after_s)

    def _turn(self, verdict: Verdict) -> None:
        self.result = replace(self.result, verdict=verdict)
        self.phase, self._since_s = Phase.WAKE, self._samples[-1][0] if self._samples else self._since_s

    def _finish(self, verdict: Verdict) -> None:
        self.result, self.phase = replace(self.result, verdict=verdict), Phase.DONE


def judge(fell_w: float, expected_w: float, asleep_ratio: float) -> Verdict:
    """The right meter, the right sign, the right size within 15 %."""
    ratio = fell_w / expected_w
    if abs(ratio - 1.0) <= TOLERANCE and asleep_ratio >= 0.9:
        return Verdict.PASSED
    if asleep_ratio < 0.9:
        return Verdict.NOT_OBEYED
    if ratio <= -0.5:
        return Verdict.WRONG_SIGN
    return Verdict.WRONG_METER if abs(ratio) < 0.5 else Verdict.WRONG_SIZE
