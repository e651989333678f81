"""Maintenance locks: somebody may have hands in the machine, so nothing is sent to it, not even a wake.

Set and cleared by a person on site (`gridpivot-agent lock` / `unlock`), kept in locks.json of the state directory,
synced to disk before the command says so, and followed by a running agent within two seconds. A file that cannot be
read changes nothing: the locks last read stay, and before any could be read every device is locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.asic.inventory_file import DeviceRow
from agent.durable import replace_file
from gridpivot.errors import GridpivotError, SettingsError

FILE = "locks.json"
LOOK_S = 1.0  # a change is seen within two of these
MAX_TEXT = 200
_MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")


class LockKind(StrEnum):
    """What a lock names: one device, or everything on one level of the house."""

    DEVICE = "device"
    RACK = "rack"
    PDU = "pdu"
    CONTAINER = "container"
    FEEDER = "feeder"


@dataclass(frozen=True, slots=True)
class Target:
    """What is locked. A device has a MAC where the inventory knew one, so that a new address does not free it."""

    kind: LockKind
    name: str  # of the rack, PDU, container or feeder; the device's host, or its MAC
    mac: str = ""  # lower case, devices only

    def __str__(self) -> str:
        return self.name if self.kind is LockKind.DEVICE else f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock: who set it, when [Unix s], and why."""

    target: Target
    by: str
    set_at_s: float
    reason: str = ""


def parse_target(text: str, rows: Sequence[DeviceRow] = ()) -> Target:
    """Target of `MAC`, `HOST`, `rack:NAME`, `pdu:NAME`, `container:NAME` or `feeder:NAME`; raises SettingsError.

    A host that `rows` know by its MAC is locked by that MAC.
    """
    clean = text.strip()
    word, colon, name = clean.partition(":")
    if colon and word in tuple(LockKind)[1:]:
        if not name or len(name) > MAX_TEXT:
            raise SettingsError(f"{text!r}: no name behind {word}:; write {word}:NAME as in the inventory")
        return Target(LockKind(word), name)
    if _MAC.match(clean.lower().replace("-", ":")):
        mac = clean.lower().replace("-", ":")
        return Target(LockKind.DEVICE, mac, mac)
    if not clean or len(clean) > MAX_TEXT or not re.match(r"^[A-Za-z0-9][A-Za-z0-9.\-:]*$", clean):
        raise SettingsError(f"{text!r}: neither MAC, host, nor rack:, pdu:, container: or feeder: with a name")
    mac = next((row.mac.lower() for row in rows if row.endpoint.host == clean), "")
    return Target(LockKind.DEVICE, clean, mac)


def covers(target: Target, rows: Sequence[DeviceRow]) -> npt.NDArray[np.bool_]:
    """Which rows a target means. A device whose MAC is in no row any more is held by its host."""
    if target.kind is not LockKind.DEVICE:
        return np.array([getattr(row, target.kind.value) == target.name for row in rows], dtype=np.bool_)
    if target.mac:
        by_mac = np.array([row.mac.lower() == target.mac for row in rows], dtype=np.bool_)
        if by_mac.any():
            return by_mac
    return np.array([row.endpoint.host == target.name for row in rows], dtype=np.bool_)


def locked_rows(locks: Sequence[Lock], rows: Sequence[DeviceRow]) -> npt.NDArray[np.bool_]:
    """Which rows any lock means."""
    mask = np.zeros(len(rows), dtype=np.bool_)
    for lock in locks:
        mask |= covers(lock.target, rows)
    return mask


# -- the file ------------------------------------------------------------------------------------------------------


def read_locks(state_dir: Path) -> tuple[Lock, ...]:
    """Locks on file; none when there is no file yet. Raises GridpivotError for one that cannot be read."""
    path = state_dir / FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_lock(entry) for entry in tree["locks"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = error.strerror if isinstance(error, OSError) else "not a lock file"
        raise GridpivotError(
            f"{path}: {told}; correct it, or move it away and set the locks again with gridpivot-agent lock"
        ) from None


def _lock(entry: Any) -> Lock:
    target = Target(LockKind(entry["kind"]), str(entry["name"]), str(entry.get("mac", "")))
    return Lock(target, str(entry["by"]), float(entry["set_at_s"]), str(entry.get("reason", "")))


def _write(state_dir: Path, locks: Sequence[Lock]) -> None:
    """Whole or not at all, on disk before it returns: the file, its new name, and the directory that holds it."""
    entries = [
        {
            "kind": lock.target.kind.value,
            "name": lock.target.name,
            "mac": lock.target.mac,
            "by": lock.by,
            "set_at_s": lock.set_at_s,
            "reason": lock.reason,
        }
        for lock in locks
    ]
    body = json.dumps({"schema_version": 1, "locks": entries}, indent=1)
    # Readable by all: `sudo gridpivot-agent lock` must not hide the locks from the agent.
    replace_file(state_dir / FILE, body.encode(), mode=0o644)


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """One writer at a time: two technicians may type at once."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        with (state_dir / f"{FILE}.guard").open("a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise GridpivotError(
            f"{state_dir}: {error.strerror}; the locks are unchanged: correct the owner, free space, or use sudo"
        ) from None


def set_locks(state_dir: Path, targets: Sequence[Target], by: str, set_at_s: float, reason: str = "") -> list[Lock]:
    """Add locks; one that is already set keeps who set it first. Returns the new ones. Raises GridpivotError."""
    with _alone(state_dir):
        there = read_locks(state_dir)
        known = {lock.target for lock in there}
        fresh = [
            Lock(target, by[:MAX_TEXT], set_at_s, reason[:MAX_TEXT])
            for target in dict.fromkeys(targets)
            if target not in known
        ]
        if fresh:
            _write(state_dir, [*there, *fresh])
    return fresh


def clear_locks(state_dir: Path, targets: Sequence[Target]) -> list[Lock]:
    """Take locks away; a device's is found by its MAC or its host. Returns those that were set. Raises GridpivotError."""
    with _alone(state_dir):
        there = read_locks(state_dir)
        gone = [lock for lock in there if any(_same(lock.target, target) for target in targets)]
        if gone:
            _write(state_dir, [lock for lock in there if lock not in gone])
    return gone


def _same(held: Target, named: Target) -> bool:
    if held.kind is not named.kind:
        return False
    return held.name == named.name or bool(held.mac and held.mac == named.mac)


# -- following it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """What a look at the file brought. `trouble` is said once when it begins, `mended` once when it ends."""

    set: tuple[Lock, ...] = ()
    cleared: tuple[Lock, ...] = ()
    trouble: str = ""
    mended: bool = False

    def __bool__(self) -> bool:
        return bool(self.set or self.cleared or self.trouble or self.mended)


class LockWatch:
    """The locks in force, re-read when the file changes. `everything`: none could be read yet, so all is locked."""

    def __init__(self, state_dir: Path) -> None:
        self.locks: tuple[Lock, ...] = ()
        self.everything = False
        self._state_dir = state_dir
        self._stamp: tuple[int, int, int] | None = None
        self._started = False
        self._trouble = ""

    def look(self) -> Change:
        """Read the file if it changed since the last look. Never raises."""
        stamp, found = self._stamped()
        if self._started and not self._trouble and stamp == self._stamp:
            return Change()
        try:
            if found and stamp is None:
                raise GridpivotError(f"{self._state_dir / FILE}: cannot be looked at; correct its owner")
            if stamp is None and self._stamp is not None:
                # `unlock` leaves an empty list behind: a file that went away was not taken by us.
                raise GridpivotError(f"{self._state_dir / FILE}: is gone; its locks stay until it is back")
            fresh = read_locks(self._state_dir)
        except GridpivotError as error:
            said, self._trouble = self._trouble, str(error)
            self.everything = self.everything or not self._started
            return Change() if said else Change(trouble=self._trouble)
        mended, self._trouble = bool(self._trouble), ""
        before, self.locks = self.locks, fresh
        self._started, self.everything, self._stamp = True, False, stamp
        return Change(
            tuple(lock for lock in fresh if lock not in before),
            tuple(lock for lock in before if lock not in fresh),
            mended=mended,
        )

    def mask(self, rows: Sequence[DeviceRow]) -> npt.NDArray[np.bool_]:
        """Which rows may be sent nothing now."""
        return np.ones(len(rows), dtype=np.bool_) if self.everything else locked_rows(self.locks, rows)

    def _stamped(self) -> tuple[tuple[int, int, int] | None, bool]:
        """What tells one version of the file from another, and whether there seems to be one at all."""
        try:
            stat = (self._state_dir / FILE).stat()
        except FileNotFoundError:
            return None, False
        except OSError:
            return None, True
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino), True
