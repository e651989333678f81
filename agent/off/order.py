"""A node that is to be off for a while: what stands, what was proven, what comes next. Pure.

Off: held in its workload manager, read back empty twice, shut down gracefully, and off only when its wall power says so.
On: when its time is over or a person says so, and not before the governor has made room for the most it may draw; it is
charged that before it is switched on, and given back to its workload manager when its limits were read back. A node that
comes up by itself is left on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.bmc.reader import BmcSample
from gridpivot.clock import Instant

LOOK_S = 5.0  # between looks at the workload manager while checking
EMPTY_S = 10.0  # a node has to be empty for so long, by looks at both ends
CHECK_FOR_S = 180.0  # a check that has not ended by then is given up
WAKING_S = 60.0  # for the other nodes to read back lower limits; then room is asked for anew
BOOT_S = 90.0  # after a request to switch on, a BMC may still read "off"
RETRY_S = 30.0  # after a BMC refused to switch on
STANDBY_W = 150.0  # assumed of a server that is off (BMC, NICs, supplies): what a promise leaves


class OffState(StrEnum):
    """How far an order is."""

    CHECKING = "checking"
    STOPPING = "stopping"
    OFF = "off"
    WANTS_ROOM = "wants_room"
    WAKING = "waking"
    STARTING = "starting"


class Do(StrEnum):
    """What the desk does next."""

    NOTHING = "nothing"
    CHECK = "check"
    TELL_OFF = "tell_off"
    TELL_SHORT = "tell_short"
    TELL_UP = "tell_up"
    TELL_LATE = "tell_late"
    ASK_ROOM = "ask_room"
    CHARGE = "charge"
    UNCHARGE = "uncharge"
    SWITCH_ON = "switch_on"
    FINISH = "finish"
    GIVE_UP = "give_up"


@dataclass(slots=True)
class OffOrder:
    """One node's order. Moments without `unix` are monotonic [s]."""

    order_id: str
    node: str
    pool: str
    by: str
    why: str
    set_at_unix_s: float
    ends_unix_s: float | None = None  # None = until a person says so
    ends_s: float | None = None  # of this run
    state: OffState = OffState.CHECKING
    began_s: float = 0.0
    promised_w: float = 0.0
    promised_s: float = 0.0
    on_within_s: float = 0.0
    before_w: float = 0.0
    delivered_w: float = 0.0
    commanded_s: float = float("-inf")
    tried_s: float = float("-inf")  # to switch it on, in vain
    looked_s: float = float("-inf")
    empty_since_s: float | None = None
    waking_since_s: float = float("-inf")
    on_wanted: bool = False
    short: bool = False  # not off by its time
    late: bool = False  # not back by its time
    detail: str = ""

    def over(self, now: Instant) -> bool:
        """Whether it is to come back: both clocks say that its time is up, or a person said so."""
        if self.on_wanted:
            return True
        if self.ends_unix_s is None or self.ends_s is None:
            return False
        return now.unix_s >= self.ends_unix_s and now.monotonic_s >= self.ends_s


@dataclass(frozen=True, slots=True)
class Seen:
    """A node as it is now."""

    sample: BmcSample | None  # fresh
    off: bool  # power state and watts of a fresh sample say so, and no session is up
    connected: bool
    limits_back: bool  # its session is up, and the limits asked of it were read back
    may_raise: bool = False
    room: bool = False  # the governor gave the pool room for the most it may draw
    within: bool = False  # with the node charged at its most, the pool's limits are inside what it was given

    @property
    def running(self) -> bool:
        """Whether it is certainly not off."""
        return self.connected or (self.sample is not None and not self.off)


def decide(order: OffOrder, seen: Seen, now: Instant) -> Do:
    """The next step; the order remembers."""
    match order.state:
        case OffState.CHECKING:
            return _checking(order, now.monotonic_s)
        case OffState.STOPPING:
            return _stopping(order, seen, now)
        case OffState.STARTING:
            return _starting(order, seen, now.monotonic_s)
    if seen.running:
        order.state, order.commanded_s = OffState.STARTING, now.monotonic_s
        return Do.TELL_UP
    if not seen.off:
        return Do.NOTHING  # its BMC is silent: nothing is known, and it is charged its most
    match order.state:
        case OffState.OFF if order.over(now):
            order.state = OffState.WANTS_ROOM
            return Do.ASK_ROOM
        case OffState.WANTS_ROOM if seen.may_raise and seen.room and now.monotonic_s - order.tried_s >= RETRY_S:
            order.state, order.waking_since_s = OffState.WAKING, now.monotonic_s
            return Do.CHARGE
        case OffState.WAKING if seen.may_raise and seen.within:
            order.state, order.commanded_s = OffState.STARTING, now.monotonic_s
            return Do.SWITCH_ON
        case OffState.WAKING if now.monotonic_s - order.waking_since_s > WAKING_S:
            order.state = OffState.WANTS_ROOM
            return Do.UNCHARGE
    return Do.NOTHING


def _checking(order: OffOrder, now_s: float) -> Do:
    if order.on_wanted or now_s - order.began_s > CHECK_FOR_S:
        return Do.GIVE_UP
    return Do.CHECK if now_s - order.looked_s >= LOOK_S else Do.NOTHING


def _stopping(order: OffOrder, seen: Seen, now: Instant) -> Do:
    """Only a reading that was begun after the command is proof.

    What did not shut down in time may do so later: it is given no work before somebody says so, or its order is over.
    """
    if seen.off and seen.sample is not None and seen.sample.read_at_s > order.commanded_s:
        order.delivered_w = max(0.0, order.before_w - seen.sample.power_w)
        order.state, order.short = OffState.OFF, False
        return Do.TELL_OFF
    if now.monotonic_s < order.commanded_s + order.promised_s:
        return Do.NOTHING
    if not order.short:
        order.short = True
        return Do.TELL_SHORT
    return Do.GIVE_UP if order.over(now) and seen.running else Do.NOTHING


def _starting(order: OffOrder, seen: Seen, now_s: float) -> Do:
    if seen.limits_back:
        return Do.FINISH
    newer = seen.sample is not None and seen.sample.read_at_s > order.commanded_s + BOOT_S
    if seen.off and newer:
        order.state = OffState.WANTS_ROOM
        return Do.UNCHARGE
    if not order.late and now_s > order.commanded_s + order.on_within_s:
        order.late = True
        return Do.TELL_LATE
    return Do.NOTHING


def empty_enough(order: OffOrder, empty: bool, now_s: float) -> bool:
    """Remember a look; True when looks have shown it empty for long enough."""
    if not empty:
        order.empty_since_s = None
        return False
    if order.empty_since_s is None:
        order.empty_since_s = now_s
    return now_s - order.empty_since_s >= EMPTY_S
