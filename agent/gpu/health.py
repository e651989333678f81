"""What of a GPU moves slowly or tells of its health: clocks, ECC, remapped rows, MIG, and XIDs as they come.

Blocking, on the reader's thread. Asked every quarter of a minute, since each is a call into the driver; XIDs at every
scan, from an event set. A board that does not have a figure leaves it out.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from agent.gpu.outcomes import NvmlRefused

EVERY_S = 15.0
CLOCK_MEM = 2  # nvmlClockType_t
CORRECTED, UNCORRECTED, AGGREGATE = 0, 1, 1  # nvmlMemoryErrorType_t, nvmlEccCounterType_t
XID_CRITICAL = 0x8  # nvmlEventTypeXidCriticalError
MOST_EVENTS = 256  # of one scan

Try = Callable[..., Any]


def _hertz(mhz: int) -> float:
    return mhz * 1e6


# Figure -> (binding, its further arguments, what it means).
_SLOW: dict[str, tuple[str, tuple[int, ...], Callable[[Any], Any]]] = {
    "memory_clock_hz": ("nvmlDeviceGetClockInfo", (CLOCK_MEM,), _hertz),
    "ecc_corrected": ("nvmlDeviceGetTotalEccErrors", (CORRECTED, AGGREGATE), int),
    "ecc_uncorrected": ("nvmlDeviceGetTotalEccErrors", (UNCORRECTED, AGGREGATE), int),
    "mig": ("nvmlDeviceGetMigMode", (), lambda modes: bool(modes[0])),
}


class Health:
    """Slow figures of every GPU, and a count of XIDs."""

    def __init__(self) -> None:
        self._figures: dict[str, dict[str, Any]] = {}
        self._read_at_s: dict[str, float] = {}
        self._events: Any | None = None
        self._watched: dict[int, str] = {}
        self._deaf: set[str] = set()  # boards that tell no events
        self.xids: dict[str, Counter[int]] = {}

    def figures(self, uuid: str, handle: Any, attempt: Try, now_s: float) -> dict[str, Any]:
        """Of one GPU, read anew when they are old. `attempt` gives None for what cannot be had; raises NvmlRefused."""
        if now_s - self._read_at_s.get(uuid, float("-inf")) >= EVERY_S:
            found: dict[str, Any] = {}
            for figure, (name, arguments, meaning) in _SLOW.items():
                value = attempt((name,), handle, *arguments)
                if value is not None:
                    found[figure] = meaning(value)
            rows = attempt(("nvmlDeviceGetRemappedRows",), handle)
            if rows is not None:
                found["remapped_corrected"], found["remapped_uncorrected"] = int(rows[0]), int(rows[1])
                found["remap_pending"], found["remap_failed"] = bool(rows[2]), bool(rows[3])
            self._figures[uuid], self._read_at_s[uuid] = found, now_s
        seen = self.xids.get(uuid)
        return {**self._figures[uuid], "xids": None if seen is None or uuid in self._deaf else dict(seen)}

    def watch(self, handles: Mapping[str, Any], call: Try) -> None:
        """Listen for XIDs of these boards; what is listened to already goes on, and counts outlive a driver reload."""
        if self._events is not None and {_address(h): u for u, h in handles.items()} == self._watched:
            return
        if self._events is not None:
            call("nvmlEventSetFree", self._events)
        self._events = None
        self._watched.clear()
        try:
            self._events = call("nvmlEventSetCreate")
        except NvmlRefused:
            self._deaf |= set(handles)
            return
        for uuid, handle in handles.items():
            try:
                call("nvmlDeviceRegisterEvents", handle, XID_CRITICAL, self._events)
            except NvmlRefused:
                self._deaf.add(uuid)
                continue
            self._deaf.discard(uuid)
            self._watched[_address(handle)] = uuid
            self.xids.setdefault(uuid, Counter())

    def hear(self, bindings: Any) -> None:
        """Count what has come; never waits. A driver that cannot say is asked again when boards are found anew."""
        for _ in range(MOST_EVENTS):
            if self._events is None:
                return
            try:
                event = bindings.nvmlEventSetWait_v2(self._events, 0)
            except bindings.NVMLError as error:
                if int(error.value) != 10:  # NVML_ERROR_TIMEOUT: nothing has come
                    self._events = None
                return
            uuid = self._watched.get(_address(event.device))
            if uuid is not None and event.eventType & XID_CRITICAL:
                self.xids[uuid][int(event.eventData)] += 1

    def forget(self) -> None:
        """The driver is gone: handles mean nothing any more."""
        self._events = None
        self._watched.clear()
        self._read_at_s.clear()


def _address(handle: Any) -> int:
    """What tells one board's handle from another's: the bindings make a new object of it each time."""
    return int(ctypes.cast(handle, ctypes.c_void_p).value or 0)
