"""Grid events as a site holds them: a ceiling for a time, on two clocks. Pure.

An event starts when either clock says so and ends only when both agree. The wall clock may step; the monotonic one is
reckoned from acceptance, by the controller's clock where that is known. After a reboot there is no monotonic history:
a window that had begun holds until a newer plan no longer names it, or somebody releases it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gridpivot.clock import Instant
from gridpivot.v1 import plan_pb2 as pb

FIRST_PLAUSIBLE_UNIX_S = 1_704_067_200.0  # 2024: a clock before that was never set


@dataclass(frozen=True, slots=True)
class Window:
    """An accepted event on both clocks. After a reboot the monotonic start is None (unknown), or minus infinity (it had
    begun before); the monotonic end is None, and the window holds until a newer plan no longer names it."""

    event_id: str
    ceiling_w: float
    starts_unix_s: float
    ends_unix_s: float | None
    starts_monotonic_s: float | None
    ends_monotonic_s: float | None

    def active(self, now: Instant, lead_s: float = 0.0) -> bool:
        """Whether it is in force; `lead_s` begins early, so that slow families are down in time."""
        started = now.unix_s >= self.starts_unix_s - lead_s
        if self.starts_monotonic_s is not None:
            started = started or now.monotonic_s >= self.starts_monotonic_s - lead_s
        if self.ends_unix_s is None:
            return started
        over = now.unix_s >= self.ends_unix_s
        over = over and self.ends_monotonic_s is not None and now.monotonic_s >= self.ends_monotonic_s
        return started and not over

    def same_as(self, event: pb.EventWindow) -> bool:
        """Whether the plan still names the same times."""
        return (self.starts_unix_s, self.ends_unix_s) == times_of(event)


def times_of(event: pb.EventWindow) -> tuple[float, float | None]:
    """Start and end [Unix s]; None = until released."""
    ends_s = event.ends_at_unix_ms / 1000.0 if event.HasField("ends_at_unix_ms") else None
    return event.starts_at_unix_ms / 1000.0, ends_s


def accepted(event: pb.EventWindow, now: Instant, controller_offset_s: float | None) -> Window:
    """A window accepted now. `controller_offset_s` is the controller's wall clock less our monotonic one, which no step of
    our own wall clock moves; None = not known, ours has to do."""
    starts_s, ends_s = times_of(event)
    offset_s = now.unix_s - now.monotonic_s if controller_offset_s is None else controller_offset_s
    ends_monotonic_s = None if ends_s is None else ends_s - offset_s
    return Window(event.event_id, event.ceiling_w, starts_s, ends_s, starts_s - offset_s, ends_monotonic_s)


def restored(
    event: pb.EventWindow, kept_at_unix_s: float, now_unix_s: float | None, lead_s: float, *, begun: bool = False
) -> Window:
    """A window from the disk, after a reboot; `begun`: it is known to have begun. A clock that stands before the last
    write, or was never set, is not believed: the event holds from now on."""
    starts_s, ends_s = times_of(event)
    begun = begun or starts_s - lead_s <= kept_at_unix_s
    if now_unix_s is not None:
        begun = begun or now_unix_s < kept_at_unix_s - 1.0 or now_unix_s < FIRST_PLAUSIBLE_UNIX_S
    return Window(event.event_id, event.ceiling_w, starts_s, ends_s, float("-inf") if begun else None, None)
