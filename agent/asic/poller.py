"""Reads every miner of a site at a beat and carries commands to them; the `Miners` of a site with real ASICs.

Columns flow out through `refresh`, commands in through `command`; both return at once. Whatever a device does ends as
its own state and reason, never as the end of the sweep. A silent device is `unreachable` with its power unknown: never
zero, never shed. A poll's start is what dates a reading, since only a poll begun after a command can be evidence.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.asic.belief import Expected, believe
from agent.asic.conversation import Line
from agent.asic.family import Login, Memory, Reading
from agent.asic.inventory import AsicInventory
from agent.asic.keyring import Keyring
from agent.asic.orders import LastCommand, Orders
from agent.asic.registry import FAMILIES
from agent.asic.settings import AsicSettings
from agent.asic.transport import Endpoint
from agent.backends import RowArray
from gridpivot.clock import Clock, Instant, SystemClock
from gridpivot.columns import DeviceTable
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

# What a poll decides; desired_mode is the governor's and age_s follows from the poll's start.
_OWN_COLUMNS = (
    "power_w",
    "hashrate_hs",
    "temp_c",
    "state",
    "mode",
    "reason",
    "provenance",
    "accepted_shares",
    "uptime_s",
)
_UNREACHABLE = (Reason.UNREACHABLE, Reason.REFUSED, Reason.SLOW)
_URGENT, _USUAL = 0, 1
_MISSES_BEFORE_BACKOFF = 3


@dataclass(slots=True)
class _Watch:
    """What the sweep remembers of one device beside its family's memory."""

    misses: int = 0
    slow_due_s: float = 0.0
    shares: int | None = None
    shares_grew_s: float = 0.0


class AsicPoller:
    """Implements `agent.backends.Miners` over an inventory. `run()` must be awaited by the service."""

    def __init__(
        self,
        inventory: AsicInventory,
        settings: AsicSettings,
        logins: Keyring | Mapping[str, Login | None],
        clock: Clock | None = None,
    ) -> None:
        self.inventory = inventory
        self.settings = settings
        self._clock = clock or SystemClock()
        count = inventory.site.device_count
        self._table = DeviceTable(count)
        self._polled_at_s = np.full(count, np.nan)
        self._due_s: npt.NDArray[np.float64] = np.zeros(count)
        self._urgent: set[int] = set()
        self._again: set[int] = set()  # asked for while their poll was under way
        self._watches = [_Watch() for _ in range(count)]
        self._repairs: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._doubts: Counter[str] = Counter()
        self._expected = [
            Expected(row.mac.lower(), inventory.site.classes[code].model)
            for row, code in zip(inventory.rows, inventory.site.class_index.tolist(), strict=True)
        ]
        self._polls = 0
        self.keyring = logins if isinstance(logins, Keyring) else Keyring.of(logins)
        self._lines = self._make_lines(self.keyring)
        self._orders = Orders(self._lines, settings, self._clock, self._commanded, self._is_silent)
        self._orders.locked = self._locked = np.zeros(count, dtype=np.bool_)
        self._facts: dict[int, tuple[str | None, str | None, str | None]] = {}
        self._queue: asyncio.PriorityQueue[tuple[int, int, int]] = asyncio.PriorityQueue()
        self._silent_queue: asyncio.PriorityQueue[tuple[int, int, int]] = asyncio.PriorityQueue()
        self._ticket = itertools.count()

    def _make_lines(self, keyring: Keyring) -> list[Line]:
        site = self.inventory.site
        lines: list[Line] = []
        for row, endpoint in enumerate(self.inventory.endpoints):
            code = int(site.class_index[row])
            family = FAMILIES[site.classes[code].family]
            modes = {mode: point.power_w for mode, point in site.classes[code].modes.items()}
            memory = Memory(profiles=self.inventory.profiles[code], mode_power_w=modes)
            keys = keyring.device(family.name, self._expected[row].mac)
            lines.append(Line(family, endpoint, None, memory, self.settings.deadline_s, self._repairs, keys))
        return lines

    # -- the Miners face -------------------------------------------------------------------------------------------

    def refresh(self, table: DeviceTable, polled_at_s: npt.NDArray[np.float64], now: Instant) -> None:
        """Copy the newest columns into `table`, and each device's last good poll's start [monotonic s]."""
        for name in _OWN_COLUMNS:
            np.copyto(table[name], self._table[name])
        np.copyto(polled_at_s, self._polled_at_s)
        np.copyto(table["age_s"], now.monotonic_s - self._polled_at_s, casting="same_kind")
        table["reason"][self._locked] = Reason.LOCKED.code
        table["reason"][self.inventory.maintenance] = Reason.MAINTENANCE.code

    def command(self, rows: RowArray, mode: Mode, now: Instant) -> None:
        """Queue a mode change; the newest order of a device replaces one that still waits. Maintenance locks refuse."""
        for row in rows.tolist():
            if self.inventory.maintenance[row]:
                self._orders.refuse(row, mode, now.monotonic_s, Reason.MAINTENANCE, "locked for maintenance on site")
            elif self._locked[row]:
                self._orders.refuse(row, mode, now.monotonic_s, Reason.LOCKED, "locked by a person on site")
            else:
                self._orders.give(row, mode, now.monotonic_s)

    def set_locked(self, locked: npt.NDArray[np.bool_]) -> None:
        """Send no command to these rows from now on, queued or waiting for another try included."""
        self._locked[:] = locked

    def move(self, row: int, endpoint: Endpoint) -> None:
        """Follow a device to its new address and look there at once."""
        self._lines[row].endpoint = endpoint
        self._lines[row].memory.token = None  # bound to the address that asked for it, on some firmware
        self._watches[row].misses = 0
        self._commanded(row)

    def endpoint(self, row: int) -> Endpoint:
        """Where a device is asked now."""
        return self._lines[row].endpoint

    # -- what metrics, doctor and tests look at --------------------------------------------------------------------

    def last_command(self, row: int) -> LastCommand | None:
        """The newest command of a device and what became of it."""
        return self._orders.last.get(row)

    def facts(self, row: int) -> tuple[str | None, str | None, str | None]:
        """Model, firmware and MAC address as the device gives them; None = unknown."""
        return self._facts.get(row, (None, None, None))

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Counts since the start: polls, failures by reason, repairs by form, commands by outcome."""
        return {
            "polls": {"all": self._polls},
            "failures": dict(self._failures),
            "repairs": dict(self._repairs),
            "doubts": dict(self._doubts),
            "commands": dict(self._orders.outcomes),
        }

    # -- the sweep -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Poll and command until cancelled. Polls are spread over the beat, so that a sweep is no burst."""
        count = len(self._lines)
        start_s = self._clock.now().monotonic_s
        self._due_s[:] = start_s + np.arange(count) * (min(self.settings.beat_s, 2.0) / max(count, 1))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._schedule(), name="asic-schedule")
            # Silent machines wait out deadlines in workers of their own, so that they delay nobody who answers.
            for number in range(min(self.settings.concurrency, max(count, 1))):
                group.create_task(self._work(self._queue), name=f"asic-poll-{number}")
            for number in range(max(1, min(self.settings.concurrency, count) // 4)):
                group.create_task(self._work(self._silent_queue), name=f"asic-poll-silent-{number}")
            group.create_task(self._orders.run(), name="asic-orders")

    async def _schedule(self) -> None:
        tick_s = min(0.1, self.settings.beat_s / 10)
        while True:
            now_s = self._clock.now().monotonic_s
            for row in np.flatnonzero(self._due_s <= now_s).tolist():
                self._due_s[row] = np.inf  # until its poll has ended
                urgency = _URGENT if row in self._urgent else _USUAL
                self._urgent.discard(row)
                queue = self._silent_queue if self._watches[row].misses > 1 else self._queue
                queue.put_nowait((urgency, next(self._ticket), row))
            await asyncio.sleep(tick_s)

    async def _work(self, queue: asyncio.PriorityQueue[tuple[int, int, int]]) -> None:
        while True:
            _, _, row = await queue.get()
            started_s = self._clock.now().monotonic_s
            await self._poll(row, started_s)
            self._plan_next(row, started_s)

    async def _poll(self, row: int, started_s: float) -> None:
        watch = self._watches[row]
        slow = watch.slow_due_s <= started_s
        self._polls += 1
        try:
            said = await self._lines[row].read(slow=slow, now_s=started_s)
            reading, doubts = believe(said, self._expected[row])
        except DeviceUnreachable as error:
            self._fail(row, Reason(error.reason))
        except BadReply:
            self._fail(row, Reason.GARBLED)
        except Exception:  # a defect in one family's parser must not blind the site to every other machine
            self._fail(row, Reason.FAILED)
        else:
            self._doubts.update(doubts)
            if slow and watch.slow_due_s <= started_s:  # not when a command has asked for another look meanwhile
                watch.slow_due_s = started_s + self.settings.slow_beat_s
            watch.misses = 0
            self._take(row, reading, started_s)

    def _plan_next(self, row: int, started_s: float) -> None:
        now_s = self._clock.now().monotonic_s
        if row in self._again:
            self._again.discard(row)
            self._urgent.add(row)
            self._due_s[row] = now_s
            return
        wait_s = self.settings.beat_s
        surplus = self._watches[row].misses - _MISSES_BEFORE_BACKOFF
        if surplus > 0:  # dead machines must not eat the workers' time
            wait_s = max(wait_s, min(self.settings.silent_backoff_s, wait_s * 2.0 ** min(surplus, 10)))
        self._due_s[row] = max(now_s, started_s + wait_s)

    def _take(self, row: int, reading: Reading, started_s: float) -> None:
        table = self._table
        table["power_w"][row] = _or_nan(reading.power_w)
        table["hashrate_hs"][row] = _or_nan(reading.hashrate_hs)
        table["temp_c"][row] = _or_nan(reading.temp_c)
        table["state"][row] = reading.state.code
        table["mode"][row] = reading.mode.code
        table["reason"][row] = self._reason(row, reading, started_s).code
        table["provenance"][row] = reading.provenance.code
        table["accepted_shares"][row] = _or_nan(reading.accepted_shares)
        table["uptime_s"][row] = _or_nan(reading.uptime_s)
        self._polled_at_s[row] = started_s
        self._facts[row] = (reading.model, reading.firmware, reading.mac)

    def _reason(self, row: int, reading: Reading, started_s: float) -> Reason:
        """The reading's own reason, or no_pool after five minutes of hashing without an accepted share."""
        watch = self._watches[row]
        if reading.state is not DeviceState.HASHING or reading.accepted_shares != watch.shares:
            watch.shares, watch.shares_grew_s = reading.accepted_shares, started_s
        elif reading.accepted_shares is not None and started_s - watch.shares_grew_s >= self.settings.no_pool_after_s:
            return Reason.NO_POOL
        return reading.reason

    def _fail(self, row: int, reason: Reason) -> None:
        """Nothing is known of this device now: unreachable or unknown, every figure missing."""
        self._failures[reason] += 1
        self._watches[row].misses += 1
        state = DeviceState.UNREACHABLE if reason in _UNREACHABLE else DeviceState.UNKNOWN
        for name in ("power_w", "hashrate_hs", "temp_c", "accepted_shares", "uptime_s"):
            self._table[name][row] = np.nan
        self._table["state"][row] = state.code
        self._table["mode"][row] = Mode.UNKNOWN.code
        self._table["provenance"][row] = Provenance.UNKNOWN.code
        self._table["reason"][row] = reason.code

    # -- after a command -------------------------------------------------------------------------------------------

    def _is_silent(self, row: int) -> bool:
        return self._watches[row].misses > 0

    def _commanded(self, row: int) -> None:
        """Look again at once, with the slow facts: the mode on file is older than the command."""
        self._watches[row].slow_due_s = self._clock.now().monotonic_s
        if np.isinf(self._due_s[row]):
            self._again.add(row)
        else:
            self._urgent.add(row)
            self._due_s[row] = 0.0


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
