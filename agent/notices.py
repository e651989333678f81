"""What of a site's state is worth an event, said when it changes and not again while it lasts. Values in, words out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gridpivot.vocabulary import EventKind, MeterTrust


class Say(Protocol):
    """Takes an event."""

    def __call__(self, kind: EventKind, message: str, figures: Mapping[str, float] | None = None) -> None:
        """Say it."""


class Notices:
    """Remembers what was said last."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._trust: MeterTrust | None = None
        self._leased: bool | None = None
        self._events: Mapping[str, float] = {}
        self._disk: str | None = None
        self._plan_disk: str | None = None
        self._pools = False

    def meter(self, trust: MeterTrust, ever_trusted: bool, assumed_w: float) -> None:
        """The verdict on the meter; one that never spoke is not yet a fault."""
        if trust is self._trust:
            return
        if trust is MeterTrust.TRUSTED:
            self._say(EventKind.METER_TRUSTED, "site meter is believed")
        elif ever_trusted or trust is not MeterTrust.ABSENT:
            self._say(EventKind.METER_FAULT, f"site meter is {trust.value}; assuming {assumed_w / 1e6:.2f} MW")
        self._trust = trust

    def lease(self, leased: bool, rung: str) -> bool:
        """Whether the plan's lease has just ended."""
        ended = bool(self._leased) and not leased
        if ended:
            self._say(EventKind.LEASE_EXPIRED, f"plan lease ended; standing on {rung}")
        self._leased = leased
        return ended

    def events(self, active: Mapping[str, float]) -> None:
        """Grid events in force: ceiling [W] by id."""
        for event_id in active.keys() - self._events.keys():
            self._say(EventKind.GRID_EVENT_STARTED, f"grid event {event_id}", {"ceiling_w": active[event_id]})
        for event_id in self._events.keys() - active.keys():
            self._say(EventKind.GRID_EVENT_ENDED, f"grid event {event_id} is over")
        self._events = active

    def disk(self, degraded: str | None) -> None:
        """Why the spool's disk refuses; None = it takes records."""
        if (degraded is None) != (self._disk is None):
            self._say(EventKind.SPOOL_DEGRADED, degraded or "the disk takes records again")
            self._disk = degraded

    def plan_disk(self, degraded: str | None) -> None:
        """Why the plan cannot be made durable, so that nothing is raised; None = it can."""
        if (degraded is None) != (self._plan_disk is None):
            told = "the disk takes plans again" if degraded is None else f"nothing is raised: {degraded}"
            self._say(EventKind.PLAN_DEGRADED, told)
            self._plan_disk = degraded

    def pools(self, dead: bool, unpaid: int) -> None:
        """Whether most of what hashes is not paid any more."""
        if dead and not self._pools:
            self._say(EventKind.POOLS_LOST, f"{unpaid} machines hash without accepted shares; nobody is woken")
        self._pools = dead
