"""Time as it is passed around: UTC at the edge, monotonic inside, one object a test can move by hand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks: monotonic [s, arbitrary start] and UTC [s since the Unix epoch]."""

    monotonic_s: float
    unix_s: float

    @property
    def unix_ms(self) -> int:
        """UTC in milliseconds since the Unix epoch."""
        return round(self.unix_s * 1000)


class Clock(Protocol):
    """Gives the present moment."""

    def now(self) -> Instant:
        """The present moment."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> Instant:
        """The present moment."""
        return Instant(time.monotonic(), time.time())
