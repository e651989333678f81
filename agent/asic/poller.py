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

import numpy as np
import numpy.typing as npt

from agent.asic.belief import Expected, believe
from agent.asic.conversation import Line
from agent.asic.family import Login, Memory, Reading
from agent.asic.inventory import AsicInventory
from agent.asic.keyring import Keyring
from agent.asic.orders import LastCommand, Orders
from agent.asic.pace import Pace
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
_TICK_S = 0.1
_Queue = asyncio.PriorityQueue[tuple[int, int, int]]


class AsicPoller:
    """Implements `agent.backends.Miners` over an inventory. `run()` must be awaited by the service.

    `prepares`: whether tokens that a shed will need are fetched beforehand; off where nothing is ever commanded.
    """

    def __init__(
        self,
        inventory: AsicInventory,
        settings: AsicSettings,
        logins: Keyring | Mapping[str, Login | None],
        clock: Clock | None = None,
        *,
        prepares: bool = True,
    ) -> None:
        self.inventory = inventory
        self.settings = settings
        self._clock = clock or SystemClock()
        self._prepares = prepares
        site = inventory.site
        count = site.device_count
        self._table = DeviceTable(count)
        self._polled_at_s = np.full(count, np.nan)
        self._pace = Pace([FAMILIES[c.family].capabilities for c in site.classes], site.class_index, settings)
        self._shares = np.full(count, -1.0)
        self._shares_grew_s = np.zeros(count)
        self._repairs: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._doubts: Counter[str] = Counter()
        self._polls = 0
        self._expected = [
            Expected(row.mac.lower(), site.classes[code].model)
            for row, code in zip(inventory.rows, site.class_index.tolist(), strict=True)
        ]
        self.keyring = logins if isinstance(logins, Keyring) else Keyring.of(logins)
        self._lines = self._make_lines(self.keyring)
        self._orders = Orders(self._lines, settings, self._clock, self._commanded, self._is_silent)
        self._orders.locked = self._locked = np.zeros(count, dtype=np.bool_)
        self._facts: dict[int, Reading] = {}
        self._queue: _Queue = asyncio.PriorityQueue()
        self._silent_queue: _Queue = asyncio.PriorityQueue()
        self._ticket = itertools.count()
        self._prepare_budget = 0.0

    def _make_lines(self, keyring: Keyring) -> list[Line]:
        site = self.inventory.site
        curves = [{mode: point.power_w for mode, point in kind.modes.items()} for kind in site.classes]
        lines: list[Line] = []
        for row, endpoint in enumerate(self.inventory.endpoints):
            code = int(site.class_index[row])
            family = FAMILIES[site.classes[code].family]
            memory = Memory(profiles=self.inventory.profiles[code], mode_power_w=curves[code])
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
        self._pace.look_now(row)

    def endpoint(self, row: int) -> Endpoint:
        """Where a device is asked now."""
        return self._lines[row].endpoint

    # -- what metrics, doctor and tests look at --------------------------------------------------------------------

    def last_command(self, row: int) -> LastCommand | None:
        """The newest command of a device and what became of it."""
        return self._orders.last.get(row)

    def facts(self, row: int) -> Reading | None:
        """The last reading that carried slow facts (model, firmware, MAC, pool); None before the first."""
        return self._facts.get(row)

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Counts since the start: polls, failures by reason, repairs by form, doubts by figure, commands by outcome."""
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
        self._pace.start(self._clock.now().monotonic_s)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._schedule(), name="asic-schedule")
            # Silent machines wait out deadlines in workers of their own, so that they delay nobody who answers.
            for number in range(min(self.settings.concurrency, max(count, 1))):
                group.create_task(self._work(self._queue), name=f"asic-poll-{number}")
            for number in range(max(1, min(self.settings.concurrency, count) // 4)):
                group.create_task(self._work(self._silent_queue), name=f"asic-poll-silent-{number}")
            group.create_task(self._orders.run(), name="asic-orders")

    async def _schedule(self) -> None:
        tick_s = min(_TICK_S, self.settings.beat_s / 10)
        while True:
            now_s = self._clock.now().monotonic_s
            self._prepare_budget = min(self.settings.prepare_per_s, self._prepare_budget + self._prepare_share(tick_s))
            busy = self._orders.backlog > self.settings.command_concurrency
            for urgency, rows in enumerate(self._pace.take_due(now_s, hold_usual=busy)):
                for row in rows.tolist():
                    queue = self._silent_queue if self._pace.misses[row] > 1 else self._queue
                    queue.put_nowait((urgency, next(self._ticket), row))
            await asyncio.sleep(tick_s)

    def _prepare_share(self, tick_s: float) -> float:
        """Preparations of one tick; none while commands wait or where nothing is ever commanded."""
        return self.settings.prepare_per_s * tick_s if self._prepares and not self._orders.backlog else 0.0

    async def _work(self, queue: _Queue) -> None:
        while True:
            _, _, row = await queue.get()
            started_s = self._clock.now().monotonic_s
            await self._poll(row, started_s)
            self._pace.ended(row, started_s, self._clock.now().monotonic_s)

    async def _poll(self, row: int, started_s: float) -> None:
        line = self._lines[row]
        slow = self._pace.is_slow_due(row, started_s)
        self._polls += 1
        try:
            said = await line.read(slow=slow, now_s=started_s)
            reading, doubts = believe(said, self._expected[row])
        except DeviceUnreachable as error:
            self._fail(row, Reason(error.reason))
        except BadReply:
            self._fail(row, Reason.GARBLED)
        except Exception:  # a defect in one family's parser must not blind the site to every other machine
            self._fail(row, Reason.FAILED)
        else:
            if doubts:
                self._doubts.update(doubts)
            self._take(row, reading, started_s, slow=slow)
            moving = reading.state in (DeviceState.STOPPING, DeviceState.WAKING)
            self._pace.answered(row, started_s, 0 if moving else reading.mode.code, slow=slow)
            if self._prepare_budget >= 1.0 and await line.prepare(started_s):
                self._prepare_budget -= 1.0

    def _take(self, row: int, reading: Reading, started_s: float, *, slow: bool) -> None:
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
        if reading.reason is not Reason.WRONG_DEVICE:  # of the device in the inventory nothing was heard
            self._polled_at_s[row] = started_s
        if slow:
            self._facts[row] = reading

    def _reason(self, row: int, reading: Reading, started_s: float) -> Reason:
        """The reading's own reason, or no_pool after five minutes of hashing without an accepted share."""
        shares = _or_nan(reading.accepted_shares)
        if reading.state is not DeviceState.HASHING or shares != self._shares[row]:  # NaN differs from itself
            self._shares[row], self._shares_grew_s[row] = shares, started_s
        elif started_s - self._shares_grew_s[row] >= self.settings.no_pool_after_s:
            return Reason.NO_POOL
        return reading.reason

    def _fail(self, row: int, reason: Reason) -> None:
        """Nothing is known of this device now: unreachable or unknown, every figure missing."""
        self._failures[reason] += 1
        self._pace.missed(row)
        state = DeviceState.UNREACHABLE if reason in _UNREACHABLE else DeviceState.UNKNOWN
        for name in ("power_w", "hashrate_hs", "temp_c", "accepted_shares", "uptime_s"):
            self._table[name][row] = np.nan
        self._table["state"][row] = state.code
        self._table["mode"][row] = Mode.UNKNOWN.code
        self._table["provenance"][row] = Provenance.UNKNOWN.code
        self._table["reason"][row] = reason.code

    # -- after a command -------------------------------------------------------------------------------------------

    def _is_silent(self, row: int) -> bool:
        return bool(self._pace.misses[row] > 0)

    def _commanded(self, row: int, mode: Mode) -> None:
        """Look again once the device has settled, with the slow facts where its mode is one of them."""
        memory, outdated = self._lines[row].memory, self._lines[row].family.outdated_by_command
        slow = outdated is None
        if outdated is None:
            memory.slow_replies.clear()
        else:
            memory.recheck |= outdated
            for name in outdated:
                memory.slow_replies.pop(name, None)
        self._pace.commanded(row, mode, self._clock.now().monotonic_s, slow=slow)


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
