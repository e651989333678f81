"""When each miner is asked next, by column: the beat, slower for the silent, quicker behind a command. Pure.

All times are monotonic seconds. A silent device waits out its deadlines less and less often; a commanded one is looked
at again once its family has had time to settle, and until its mode is seen, since only a later poll can be evidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agent.asic.family import Capabilities
from agent.asic.settings import AsicSettings
from agent.backends import RowArray
from gridpivot.vocabulary import Mode

F64 = npt.NDArray[np.float64]
FIRST_SPREAD_S = 2.0  # the first sweep is no burst
MISSES_BEFORE_BACKOFF = 3
SETTLE_S = (0.5, 5.0)  # first look behind a command: a third of the family's shed time, within these


class Pace:
    """Due times of a site's devices."""

    def __init__(self, kinds: Sequence[Capabilities], of_row: npt.NDArray[np.uint8], settings: AsicSettings) -> None:
        count = len(of_row)
        self._settings = settings
        shed_s = np.array([kind.shed_s for kind in kinds], dtype=np.float64)[of_row] if count else np.zeros(0)
        self._shed_s: F64 = shed_s
        self._settle_s: F64 = np.clip(shed_s / 3.0, *SETTLE_S)
        self._due_s: F64 = np.zeros(count)  # inf while a poll is under way
        self._slow_due_s: F64 = np.zeros(count)
        self._watched_until_s: F64 = np.full(count, -np.inf)
        self._watched_mode = np.zeros(count, dtype=np.uint8)
        self.misses = np.zeros(count, dtype=np.int32)

    def start(self, now_s: float) -> None:
        """Spread the first sweep."""
        count = len(self._due_s)
        self._due_s[:] = now_s + np.arange(count) * (min(self._settings.beat_s, FIRST_SPREAD_S) / max(count, 1))

    def take_due(self, now_s: float, hold_usual: bool) -> tuple[RowArray, RowArray]:
        """Rows to ask now, (watched, usual); they count as under way until `ended`.

        `hold_usual` keeps the usual ones back for up to two beats: a shed under way needs the machine more.
        """
        late_s = now_s - (2.0 * self._settings.beat_s if hold_usual else 0.0)
        watched = self._watched_until_s > now_s
        urgent = np.flatnonzero((self._due_s <= now_s) & watched)
        usual = np.flatnonzero((self._due_s <= late_s) & ~watched)
        self._due_s[urgent] = np.inf
        self._due_s[usual] = np.inf
        return urgent, usual

    def is_slow_due(self, row: int, started_s: float) -> bool:
        """Whether this poll asks for the slow facts too."""
        return bool(self._slow_due_s[row] <= started_s)

    def answered(self, row: int, started_s: float, settled_mode: int, *, slow: bool) -> None:
        """A poll brought a reading; `settled_mode` is the mode it stands in, 0 while it still moves."""
        self.misses[row] = 0
        if slow and self._slow_due_s[row] <= started_s:  # not when a command has asked for another look meanwhile
            self._slow_due_s[row] = started_s + self._settings.slow_beat_s
        if settled_mode == self._watched_mode[row]:
            self._watched_until_s[row] = -np.inf  # seen

    def missed(self, row: int) -> None:
        """A poll brought nothing."""
        self.misses[row] += 1

    def ended(self, row: int, started_s: float, now_s: float) -> None:
        """A poll is over: when is the next."""
        if self._watched_until_s[row] > now_s:
            self._due_s[row] = now_s + self._settle_s[row]
            return
        wait_s = self._settings.beat_s
        surplus = int(self.misses[row]) - MISSES_BEFORE_BACKOFF
        if surplus > 0:  # dead machines must not eat the workers' time
            wait_s = max(wait_s, min(self._settings.silent_backoff_s, wait_s * 2.0 ** min(surplus, 10)))
        self._due_s[row] = max(now_s, started_s + wait_s)

    def commanded(self, row: int, mode: Mode, now_s: float, *, slow: bool) -> None:
        """A command has reached the device: look once it has settled; `slow` when its mode is a slow fact."""
        if slow:
            self._slow_due_s[row] = now_s
        patience_s = 2.0 * self._shed_s[row] if mode is Mode.SLEEP else 2.0 * self._settle_s[row]
        self._watched_until_s[row] = now_s + max(patience_s, 2.0 * self._settle_s[row])
        self._watched_mode[row] = mode.code
        if np.isfinite(self._due_s[row]):  # else the poll under way plans the next look
            self._due_s[row] = now_s + self._settle_s[row]

    def look_now(self, row: int) -> None:
        """Ask at the next turn: somebody has reason to believe that the device is back, or moved."""
        self.misses[row] = 0
        if np.isfinite(self._due_s[row]):
            self._due_s[row] = 0.0
