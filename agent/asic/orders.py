"""Commands on their way to devices: bounded concurrency, retries with back-off, one last outcome per device.

Devices that answered their last poll come first, and sleep before every other mode: a shed must queue neither behind
wake-ups nor behind the time-outs of dead machines. A newer order for a device replaces the one that waits or is about
to be tried again, and does not wait out its back-off.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.asic.conversation import Line
from agent.asic.family import Outcome
from agent.asic.settings import AsicSettings
from gridpivot.clock import Clock
from gridpivot.vocabulary import Mode, Reason

_MAX_BACKOFF_S = 10.0


@dataclass(frozen=True, slots=True)
class LastCommand:
    """The newest command of a device. `reason` is `in_flight` until it ends, then `none` (accepted) or why not.

    Times are monotonic [s]; `ended_s` is None while in flight. Accepted is not yet confirmed: see later readings.
    """

    mode: Mode
    reason: Reason
    detail: str
    asked_s: float
    ended_s: float | None = None
    attempts: int = 0


class Orders:
    """Queue and outcome book of a site's commands. `commanded(row, mode)` is called after every try that reached a device."""

    def __init__(
        self,
        lines: Sequence[Line],
        settings: AsicSettings,
        clock: Clock,
        commanded: Callable[[int, Mode], None],
        is_silent: Callable[[int], bool],
    ) -> None:
        self.last: dict[int, LastCommand] = {}
        self.outcomes: Counter[str] = Counter()
        self.locked: npt.NDArray[np.bool_] = np.zeros(len(lines), dtype=np.bool_)  # a person's hands are in these
        self._lines = lines
        self._settings = settings
        self._clock = clock
        self._commanded = commanded
        self._is_silent = is_silent
        self._later: dict[int, asyncio.TimerHandle] = {}
        self._queue: asyncio.PriorityQueue[tuple[int, int, int]] = asyncio.PriorityQueue()
        self._ticket = itertools.count()

    @property
    def backlog(self) -> int:
        """Orders that wait for a worker."""
        return self._queue.qsize()

    def give(self, row: int, mode: Mode, asked_s: float) -> None:
        """Queue an order."""
        waiting = self.last.get(row)
        queued = waiting is not None and waiting.ended_s is None
        self.last[row] = LastCommand(mode, Reason.IN_FLIGHT, "", asked_s)
        timer = self._later.pop(row, None)
        if timer is not None:
            timer.cancel()
        if timer is not None or not queued:
            self._enqueue(row, 0)

    def refuse(self, row: int, mode: Mode, asked_s: float, reason: Reason, detail: str) -> None:
        """Book an order that will not be sent."""
        self.last[row] = LastCommand(mode, reason, detail, asked_s, asked_s)
        self.outcomes[reason] += 1

    def _enqueue(self, row: int, attempts: int) -> None:
        self._later.pop(row, None)
        rank = 100 * self._is_silent(row) + 2 * attempts + (self.last[row].mode is not Mode.SLEEP)
        self._queue.put_nowait((rank, next(self._ticket), row))

    async def run(self) -> None:
        """Carry orders out until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._settings.command_concurrency):
                group.create_task(self._work(), name=f"asic-order-{number}")

    async def _work(self) -> None:
        while True:
            _, _, row = await self._queue.get()
            await self._attempt(row)

    async def _attempt(self, row: int) -> None:
        order = self.last[row]
        if self.locked[row]:
            self.refuse(row, order.mode, order.asked_s, Reason.LOCKED, "locked by a person on site")
            return
        try:
            outcome = await self._lines[row].carry_out(order.mode, self._clock.now().monotonic_s)
        except Exception as error:  # a defect in one family's dialogue must not end every other command
            outcome = Outcome(Reason.FAILED, f"{type(error).__name__} in the {self._lines[row].family.name} dialogue")
        self._commanded(row, order.mode)
        newest = self.last[row]
        attempts = order.attempts + 1
        if newest.asked_s != order.asked_s or newest.mode is not order.mode:
            self._enqueue(row, 0)  # overtaken by a newer order
        elif outcome.retry and attempts < self._settings.command_attempts:
            self.last[row] = LastCommand(order.mode, Reason.IN_FLIGHT, outcome.detail, order.asked_s, None, attempts)
            delay_s = min(_MAX_BACKOFF_S, self._settings.command_backoff_s * 2.0**order.attempts)
            self._later[row] = asyncio.get_running_loop().call_later(delay_s, self._enqueue, row, attempts)
        else:
            ended_s = self._clock.now().monotonic_s
            self.last[row] = LastCommand(order.mode, outcome.reason, outcome.detail, order.asked_s, ended_s, attempts)
            self.outcomes[outcome.reason if not outcome.accepted else "accepted"] += 1
