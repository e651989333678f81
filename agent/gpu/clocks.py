"""Clock locks of GPUs: the range a board takes, locking, letting go. Nothing tells a lock back.

For work that never reaches its power limit, memory-bound decode above all: on an H200 it draws 137-300 of 700 W, so no cap
ever holds it, while a locked clock saved up to 32 % of its energy (arXiv 2605.11999, 2026). A lock needs root, is kept by
the driver whatever becomes of us, and ends with a driver reload (NVML reference, nvmlDeviceSetGpuLockedClocks). Its
evidence is the clock under load, which stands in every reading. Blocking, on the reader's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.gpu.outcomes import BY_LIMIT, LimitOutcome, NvmlOutcome, NvmlRefused

RELEASED = 0  # as a wish: take the lock off
RETRY_REFUSED_S = 30.0
CLOCK_SM = 1  # nvmlClockType_t

Call = Callable[..., Any]


class Clocks:
    """What this process has locked. Handles are the reader's."""

    def __init__(self) -> None:
        self._set: dict[str, int] = {}  # what was last taken, RELEASED included
        self._tried: dict[str, tuple[int, float]] = {}  # a wish that failed, and when

    def range_mhz(self, handle: Any, attempt: Call) -> tuple[int, int] | None:
        """Lowest and highest clock that the board can be locked to; None when it does not tell."""
        memory = attempt(("nvmlDeviceGetSupportedMemoryClocks",), handle)
        clocks = attempt(("nvmlDeviceGetSupportedGraphicsClocks",), handle, memory[0]) if memory else None
        if not clocks:
            return None
        return int(min(clocks)), int(max(clocks))

    def settle(
        self, uuid: str, handle: Any, mhz: int, span: tuple[int, int] | None, call: Call, now_s: float
    ) -> tuple[LimitOutcome, str] | None:
        """Bring one board to a wish: its highest clock [MHz], or RELEASED. None when it stands so, or was refused lately.

        Raises NvmlRefused for what is wrong with the whole of NVML, or a board that is lost.
        """
        tried = self._tried.get(uuid)
        if self._set.get(uuid) == mhz or (tried is not None and tried[0] == mhz and now_s - tried[1] < RETRY_REFUSED_S):
            return None
        self._tried.pop(uuid, None)
        if mhz != RELEASED and span is None:
            self._tried[uuid] = mhz, now_s
            return LimitOutcome.UNSUPPORTED, "the board tells no range of clocks"
        try:
            if mhz == RELEASED:
                call("nvmlDeviceResetGpuLockedClocks", handle)
            else:
                assert span is not None
                call("nvmlDeviceSetGpuLockedClocks", handle, span[0], min(span[1], max(span[0], mhz)))
        except NvmlRefused as error:
            if error.outcome is NvmlOutcome.LOST or error.outcome not in (*BY_LIMIT, *_OWN):
                raise
            self._tried[uuid] = mhz, now_s
            return BY_LIMIT.get(error.outcome, LimitOutcome.FAILED), str(error)
        self._set[uuid] = mhz
        return LimitOutcome.OK, ""

    def forget(self, uuids: Mapping[str, Any] | None = None) -> None:
        """The driver is gone, or boards are lost: what they were locked to is no longer known."""
        if uuids is None:
            self._set.clear()
            self._tried.clear()
            return
        for uuid in uuids:
            self._set.pop(uuid, None)


_OWN = (NvmlOutcome.OUT_OF_RANGE, NvmlOutcome.FAILED, NvmlOutcome.NOT_READY)
