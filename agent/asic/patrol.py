"""The quiet rounds beside the poller: locks and credentials that changed on disk, devices that changed on the network.

I/O around three decisions that are made elsewhere (`locks`, `keyring`, `rediscovery`). Sends no password and no
command. A look is due once per interval, and early when a device falls silent or answers as another one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import structlog

from agent.asic.locks import LOOK_S, Lock, LockWatch
from agent.asic.poller import AsicPoller
from agent.asic.probing import Probing, search
from agent.asic.ranges import addresses, parse_ranges
from agent.asic.rediscovery import Known, Placed, compare
from agent.asic.settings import AsicSettings
from gridpivot.clock import Clock
from gridpivot.columns import DeviceTable
from gridpivot.errors import SettingsError
from gridpivot.vocabulary import DeviceState, EventKind, Reason

log = structlog.get_logger("agent.asic.patrol")

CREDENTIALS_LOOK_S = 5.0
WATCH_S = 10.0  # between glances at the table for devices that want an early look
EARLY_AFTER_GLANCES = 3  # a restart is over by then
EARLY_GAP_S = 300.0  # between an early look and the look before it
MANY = 5  # more events of a kind in one look become one


Say = Callable[[EventKind, str], None]  # how an event leaves: SiteAgent.say


class LockKeeper:
    """Holds the poller to the locks on file. The first look is made at once, before anything can be commanded."""

    def __init__(self, state_dir: Path, poller: AsicPoller) -> None:
        self.watch = LockWatch(state_dir)
        self._poller = poller
        self._first = self.watch.look()
        poller.set_locked(self.watch.mask(poller.inventory.rows))

    async def run(self, say: Say) -> None:
        """Follow the file until cancelled."""
        change = self._first
        if change.trouble:
            log.error("locks cannot be read, so every miner is locked", why=change.trouble)
        held = len(self.watch.locks)
        if held:
            log.warning("locks in force", count=held)
        while True:
            await asyncio.sleep(LOOK_S)
            change = await asyncio.to_thread(self.watch.look)
            if not change:
                continue
            self._poller.set_locked(self.watch.mask(self._poller.inventory.rows))
            if change.trouble:
                log.error("locks cannot be read; those last read stay in force", why=change.trouble)
            if change.mended:
                log.info("locks can be read again")
            for lock in change.set:
                say(EventKind.LOCK_SET, _told("locked", lock))
            for lock in change.cleared:
                say(EventKind.LOCK_CLEARED, _told("unlocked", lock))


def _told(verb: str, lock: Lock) -> str:
    who = f" (set by {lock.by})" if lock.by else ""
    return f"{verb}: {lock.target}{who}" + (f": {lock.reason}" if lock.reason else "")


async def follow_credentials(settings: AsicSettings, poller: AsicPoller) -> None:
    """Take a changed credentials file into use until cancelled; one that cannot be read changes nothing."""
    path = settings.credentials_file
    assert path is not None  # the service follows no file that settings do not name
    stamp = _stamp(path)  # before anything else: a change from here on is noticed
    while True:
        await asyncio.sleep(CREDENTIALS_LOOK_S)
        now = await asyncio.to_thread(_stamp, path)
        if now == stamp:
            continue
        stamp = now
        try:
            poller.keyring.replace(await asyncio.to_thread(settings.logins))
        except SettingsError as error:
            log.error("credentials file is left aside; the former ones stay", why=str(error))
        else:
            log.info("credentials file was read again")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_mode


class Patrol:
    """Re-discovery in the background, over the ranges in settings."""

    def __init__(self, settings: AsicSettings, poller: AsicPoller, clock: Clock) -> None:
        self.looks = 0
        self._settings, self._poller, self._clock = settings.discovery, poller, clock
        self._probing = Probing(  # no logins: a look in the background offers no password to anybody
            settings.deadline_s,
            concurrency=settings.discovery.concurrency,
            per_s=settings.discovery.rate_per_s,
            library=False,  # heavy, and what it would name belongs into a discover that a person asked for
        )
        self._known = Known()
        count = poller.inventory.site.device_count
        self._table, self._polled_at_s = DeviceTable(count), np.full(count, np.nan)
        self._glances = np.zeros(count, dtype=np.int64)  # in a row at which a device was silent or somebody else
        self._looked_for = np.zeros(count, dtype=np.bool_)  # had its early look

    async def run(self, say: Say) -> None:
        """Look, wait, look until cancelled."""
        watch_s = min(WATCH_S, self._settings.interval_s / 10)
        due_s = self._clock.now().monotonic_s + watch_s  # after a first sweep
        looked_s = float("-inf")
        while True:
            await asyncio.sleep(watch_s)
            now_s = self._clock.now().monotonic_s
            early = self._wants_look() and now_s - looked_s >= min(EARLY_GAP_S, self._settings.interval_s / 10)
            if now_s < due_s and not early:
                continue
            self._looked_for |= self._glances >= EARLY_AFTER_GLANCES
            await self.look(say)
            looked_s = self._clock.now().monotonic_s
            due_s = looked_s + self._settings.interval_s

    async def look(self, say: Say) -> None:
        """One look, its moves and its events."""
        ranges = frozenset(addresses(parse_ranges(self._settings.ranges)))
        self._glance()
        answering = self._answering()
        hosts = [self._poller.endpoint(row).host for row in range(len(answering))]
        healthy = {host for host, answers in zip(hosts, answering.tolist(), strict=True) if answers}
        found = await search(sorted(ranges - healthy), self._probing, lambda _: None)
        rows = [
            Placed(row.mac.lower(), self._poller.endpoint(number), bool(answers), host in ranges)
            for number, (row, answers, host) in enumerate(
                zip(self._poller.inventory.rows, answering.tolist(), hosts, strict=True)
            )
        ]
        changes = compare(rows, found, self._known)
        for number, endpoint in changes.moves:
            self._poller.move(number, endpoint)
        counts = Counter(event.kind for event in changes.events)
        for event in changes.events:
            if counts[event.kind] <= MANY:
                say(event.kind, event.message)
        for kind, count in counts.items():
            if count > MANY:  # a re-addressed container is one thing that happened, not four hundred
                examples = [event.message for event in changes.events if event.kind is kind][:3]
                say(kind, f"{count} devices: {'; '.join(examples)}; ...")
        self.looks += 1
        log.info("looked for devices", answered=len(found), moved=len(changes.moves))

    def _glance(self) -> None:
        self._poller.refresh(self._table, self._polled_at_s, self._clock.now())

    def _answering(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Rows with a reading of their own now. A lock or a maintenance flag hides the reason, not the state."""
        state = self._table["state"]
        silent = (state == DeviceState.UNREACHABLE.code) | (state == DeviceState.UNKNOWN.code)
        answering: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = ~silent & ~np.isnan(self._polled_at_s)
        return answering

    def _wants_look(self) -> bool:
        """Whether a device has been silent, or somebody else, for a while and was not looked for yet."""
        self._glance()
        strange = self._table["reason"] == Reason.WRONG_DEVICE.code
        absent = strange | (self._table["state"] == DeviceState.UNREACHABLE.code)
        self._glances = np.where(absent, self._glances + 1, 0)
        self._looked_for &= absent
        return bool(((self._glances >= EARLY_AFTER_GLANCES) & ~self._looked_for).any())
