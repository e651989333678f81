"""How often the full device table goes out: as set, or slower while the link is thin. Pure; times in seconds.

A table that took T from spooling to acknowledgement is followed by the next one no sooner than 2 T: tables then use
half of the link at most. None is made while one is still under way.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOWEST_S = 600.0
SAID_ABOVE = 1.5  # of the set beat
SAID_BELOW = 1.2


@dataclass(slots=True)
class DeviceBeat:
    """Beat of one site's device tables."""

    set_s: float
    beat_s: float = 0.0
    thinned: bool = False

    def __post_init__(self) -> None:
        self.beat_s = self.set_s

    def after(self, ack_s: float | None) -> bool | None:
        """Take what the newest acknowledged table took; True when thinning begins, False when it ends, else None."""
        if ack_s is not None:
            self.beat_s = min(SLOWEST_S, max(self.set_s, 2.0 * ack_s))
        if not self.thinned and self.beat_s > SAID_ABOVE * self.set_s:
            self.thinned = True
            return True
        if self.thinned and self.beat_s < SAID_BELOW * self.set_s:
            self.thinned = False
            return False
        return None
