"""The words of the system: the same in logs, metrics, API, JSON and docs.

Vocabularies that live in device tables have a fixed number per word (`code`), since columns carry bytes; the
number is the position in the class and is part of the wire contract: append, never reorder.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Self


class Coded(StrEnum):
    """A vocabulary whose words also travel as small numbers (uint8)."""

    @property
    def code(self) -> int:
        """Position of the word, the uint8 stored in device tables."""
        return _codes(type(self))[self]

    @classmethod
    def of(cls, code: int) -> Self:
        """Word of a code; raises IndexError for a number that is not in the vocabulary."""
        if code < 0:
            raise IndexError(code)
        return tuple(cls)[code]


@cache
def _codes(vocabulary: type[Coded]) -> dict[Coded, int]:
    return {word: number for number, word in enumerate(vocabulary)}


class DeviceState(Coded):
    """What a device is doing, as far as it is known."""

    UNKNOWN = "unknown"
    HASHING = "hashing"
    IDLE = "idle"
    SLEEPING = "sleeping"
    WAKING = "waking"
    STOPPING = "stopping"
    FAULT = "fault"
    UNREACHABLE = "unreachable"


class Mode(Coded):
    """Power mode of a miner. `unknown` is a reading, never a command."""

    UNKNOWN = "unknown"
    SLEEP = "sleep"
    LOW = "low"
    NORMAL = "normal"
    TURBO = "turbo"


COMMANDABLE_MODES: tuple[Mode, ...] = (Mode.SLEEP, Mode.LOW, Mode.NORMAL, Mode.TURBO)


class Provenance(Coded):
    """Where a watt comes from, best first; `bmc` came later and stands between metered and device."""

    UNKNOWN = "unknown"
    METERED = "metered"
    DEVICE = "device"
    MODELLED = "modelled"
    NAMEPLATE = "nameplate"
    BMC = "bmc"


class Reason(Coded):
    """Why a device is as it is, or was left alone. Closed."""

    NONE = "none"
    STALE_TELEMETRY = "stale_telemetry"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    UNAUTHORISED = "unauthorised"
    GARBLED = "garbled"
    SLOW = "slow"
    MAINTENANCE = "maintenance"
    COOLDOWN = "cooldown"
    UNSUPPORTED = "unsupported"
    NO_CREDENTIALS = "no_credentials"
    WAKING = "waking"
    LOCKED = "locked"
    NO_POOL = "no_pool"
    IN_FLIGHT = "in_flight"
    FAILED = "failed"
    FAULT = "fault"
    WRONG_DEVICE = "wrong_device"
    IMPLAUSIBLE = "implausible"
    CIRCUIT_LIMIT = "circuit_limit"
    NO_AIRFLOW = "no_airflow"
    WEAR = "wear"


class Load(StrEnum):
    """What power is used for."""

    MINING = "mining"
    AI = "ai"
    OVERHEAD = "overhead"


class AiPriority(StrEnum):
    """guaranteed: never shed by economics; standard: deferrable within its SLA; spot: pre-emptible."""

    GUARANTEED = "guaranteed"
    STANDARD = "standard"
    SPOT = "spot"


class LeverName(StrEnum):
    """Ways in which AI gives up power, gentle to hard."""

    PARK_IDLE = "park_idle"
    POWER_LIMIT = "power_limit"
    CLOCK_LOCK = "clock_lock"
    ADMISSION = "admission"
    REQUEUE = "requeue"
    NODE_OFF = "node_off"  # on request only


class LeverOutcome(StrEnum):
    """What became of a lever, by reading back; best first. Closed."""

    DONE = "done"
    UNDER_WAY = "under_way"
    NOT_OURS = "not_ours"  # another owner holds it: left as it is
    BLOCKED = "blocked"  # a disruption budget or a rule of the manager says: not now
    IGNORED = "ignored"  # it was asked and nothing moved
    GONE = "gone"  # the node or job is no longer there
    UNSUPPORTED = "unsupported"
    NO_PERMISSION = "no_permission"
    SLOW = "slow"  # no answer within the deadline
    FAILED = "failed"


class MeterTrust(StrEnum):
    """Whether the site meter is believed, and if not, why."""

    TRUSTED = "trusted"
    STALE = "stale"
    FROZEN = "frozen"
    REVERSED = "reversed"
    OUTSIDE_ENVELOPE = "outside_envelope"
    ABSENT = "absent"


class Rung(StrEnum):
    """Where a site stands on the ladder down, best first."""

    PLAN = "plan"
    CLIPPED_PLAN = "clipped_plan"
    MERIT_ORDER = "merit_order"
    HOLD = "hold"
    SAFE_POSTURE = "safe_posture"


class ConstraintKind(StrEnum):
    """What kind of limit holds a plan back, or holds load up. Closed: metrics have these and no names of events."""

    CEILING = "ceiling"
    EVENT = "event"
    FEEDER = "feeder"
    RAMP = "ramp"
    FLOOR = "floor"
    SOLD = "sold"
    ACHIEVABLE = "achievable"
    DEMAND_CHARGE = "demand_charge"
    BACKLOG = "backlog"


class Stage(StrEnum):
    """How far a site has been commissioned. Only shed_only and full ever command."""

    OBSERVE = "observe"
    SHADOW = "shadow"
    SHED_ONLY = "shed_only"
    FULL = "full"


class Posture(StrEnum):
    """What a site does when its plan's lease has ended."""

    HOLD = "hold"
    MINING_OFF = "mining_off"
    GUARANTEED_ONLY = "guaranteed_only"


class PlanState(StrEnum):
    """What became of a plan. `sent` is the controller's word until the site answers."""

    SENT = "sent"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CLIPPED = "clipped"
    APPLIED = "applied"
    EXPIRED = "expired"


class PlanRefusal(StrEnum):
    """Why a plan was rejected. Closed."""

    IDENTITY = "identity"
    SIGNATURE = "signature"
    EPOCH = "epoch"
    VERSION = "version"
    UNIT = "unit"
    UNKNOWN_CLASS = "unknown_class"
    UNKNOWN_POOL = "unknown_pool"
    MALFORMED = "malformed"


class EventKind(StrEnum):
    """Kinds of site events."""

    AGENT_STARTED = "agent_started"
    PLAN_STATUS = "plan_status"
    METER_FAULT = "meter_fault"
    METER_TRUSTED = "meter_trusted"
    LEASE_EXPIRED = "lease_expired"
    LINK_LOST = "link_lost"
    LINK_RESTORED = "link_restored"
    CEILING_EXCEEDED = "ceiling_exceeded"
    GRID_EVENT_STARTED = "grid_event_started"
    GRID_EVENT_ENDED = "grid_event_ended"
    AI_RAISED = "ai_raised"
    AI_REFUSED = "ai_refused"
    SPOOL_DEGRADED = "spool_degraded"
    DEVICES_SILENT = "devices_silent"
    DEVICE_FOUND = "device_found"
    DEVICE_MOVED = "device_moved"
    DEVICE_LOST = "device_lost"
    DEVICE_SWAPPED = "device_swapped"
    LOCK_SET = "lock_set"
    LOCK_CLEARED = "lock_cleared"
    POOLS_LOST = "pools_lost"
    FEEDER_OPENED = "feeder_opened"
    LOCAL_ORDER = "local_order"
    LOCAL_RELEASE = "local_release"
    PLAN_DEGRADED = "plan_degraded"
    REPORTS_THINNED = "reports_thinned"
    METER_COUNTER = "meter_counter"
    STAGE_CHANGED = "stage_changed"
    COMMISSIONED = "commissioned"
    CERTIFICATE_RENEWED = "certificate_renewed"
    CERTIFICATE_EXPIRED = "certificate_expired"
    AI_LEVER = "ai_lever"
    AI_SHORT = "ai_short"


class LinkState(StrEnum):
    """What the controller knows of the session with a site."""

    CONNECTED = "connected"
    SILENT = "silent"
    NEVER_SEEN = "never_seen"


class GoawayCode(StrEnum):
    """Why the controller, or a site's agent towards a node, ended a session."""

    DUPLICATE_SITE = "duplicate_site"
    NOT_ENROLLED = "not_enrolled"
    WRONG_SITE = "wrong_site"
    PROTOCOL_ERROR = "protocol_error"
    SHUTTING_DOWN = "shutting_down"
    OVERLOADED = "overloaded"
    REVOKED = "revoked"
    EXPIRED = "expired"
    DUPLICATE_NODE = "duplicate_node"
    WRONG_NODE = "wrong_node"


class Role(StrEnum):
    """What an operator may do: look; order; decide about identities too."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class PriceRung(StrEnum):
    """Which price stands in force for a region, best first."""

    FRESH = "fresh"
    LAST_GOOD = "last_good"
    DAY_AHEAD = "day_ahead"
    SEASONAL = "seasonal"
    ASSUMED = "assumed"
