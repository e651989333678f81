"""What every firmware family offers: pure requests, a pure parser, pure command dialogues, and a truthful capability table.

A family never touches a socket. Polling is `requests()` out, parsed replies in, a `Reading` out. A command is a
generator that yields requests, is sent their parsed replies and returns an `Outcome`; the poller drives it. What a
family cannot do is an answer (`Outcome(Reason.UNSUPPORTED, ...)`), never an exception.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

MAX_POWER_W = 20_000.0  # no single machine behind one control board draws more
MAX_HASHRATE_HS = 5e15  # an order of magnitude above the largest machine sold


@dataclass(frozen=True, slots=True)
class Reading:
    """One device as it described itself. None is unknown; zero is a measurement.

    `hashrate_hs` in hashes per second, `power_w` at the wall by the device's own account, `temp_c` of the hottest
    chip or board, `uptime_s` of the mining software.
    """

    power_w: float | None = None
    hashrate_hs: float | None = None
    temp_c: float | None = None
    state: DeviceState = DeviceState.UNKNOWN
    mode: Mode = Mode.UNKNOWN
    reason: Reason = Reason.NONE
    provenance: Provenance = Provenance.UNKNOWN
    accepted_shares: int | None = None
    uptime_s: float | None = None
    model: str | None = None
    firmware: str | None = None
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a family can really do. `shed_s` and `wake_s`: command to settled power at worst [s]."""

    sleep: bool
    low: bool
    turbo: bool
    watt_limit: bool
    percent: bool
    has_power: bool
    shed_s: float
    wake_s: float

    def modes(self) -> tuple[Mode, ...]:
        """Modes that can be commanded, in vocabulary order."""
        offered = {Mode.SLEEP: self.sleep, Mode.LOW: self.low, Mode.NORMAL: True, Mode.TURBO: self.turbo}
        return tuple(mode for mode, able in offered.items() if able)


# Vendor or community claims, none measured here: LuxOS curtails in under 5 s and is back in about 10 s in fast mode
# (boards may take a minute to tune, so 60 s is charged); Whatsminer's percentage moves power in about 1 s and full
# hashrate returns in 6-10 min; stock Antminer has no sourced figure and restarts its daemon, so minutes are assumed.
# LuxOS low and turbo need profiles named in the class; watt limits of V2 are encoded but not used for modes.
CAPABILITIES: Mapping[str, Capabilities] = MappingProxyType(
    {
        "whatsminer": Capabilities(
            sleep=True, low=True, turbo=False, watt_limit=True, percent=True, has_power=True, shed_s=5.0, wake_s=600.0
        ),
        "luxos": Capabilities(
            sleep=True, low=True, turbo=True, watt_limit=False, percent=False, has_power=True, shed_s=5.0, wake_s=60.0
        ),
        "antminer": Capabilities(
            sleep=True,
            low=True,
            turbo=True,
            watt_limit=False,
            percent=False,
            has_power=False,
            shed_s=60.0,
            wake_s=300.0,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One JSON request on TCP port 4028; `name` is the key under which the parsed reply is handed back."""

    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request to the device's web server, with digest authentication."""

    name: str
    method: str
    path: str
    body: bytes = b""


Request = ApiRequest | HttpRequest


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials of a family. The password stays out of repr, logs and errors."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A write token of a device (Whatsminer V2): AES key material and signature, valid until a monotonic time [s]."""

    key: str = field(repr=False)
    sign: str = field(repr=False)
    expires_s: float


@dataclass(frozen=True, slots=True)
class Profiles:
    """Names of the tuning profiles that stand for modes (LuxOS); None = the mode is not offered."""

    normal: str | None = None
    low: str | None = None
    turbo: str | None = None

    def of(self, mode: Mode) -> str | None:
        """Profile of a mode."""
        return {Mode.NORMAL: self.normal, Mode.LOW: self.low, Mode.TURBO: self.turbo}.get(mode)


@dataclass(slots=True)
class Memory:
    """What has been learned about one device and outlives a poll: quirks, a token, slow facts. Owned by the poller."""

    profiles: Profiles = Profiles()
    refuses_joined: bool = False
    needs_new_api: bool = False
    token: Token | None = None
    slow_replies: dict[str, Any] = field(default_factory=dict)
    slow_missed: Reason = Reason.NONE  # why slow facts could not be had, when it is a matter of credentials


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: `reason` is `none` when the device accepted it, and `detail` a sentence for a person.

    Acceptance is no proof: whether power moved shows in later readings. `retry` says that another try may help.
    """

    reason: Reason
    detail: str = ""
    retry: bool = False

    @property
    def accepted(self) -> bool:
        """The device said yes."""
        return self.reason is Reason.NONE


ACCEPTED = Outcome(Reason.NONE)

# A dialogue yields requests, is sent the parsed reply of each (or has DeviceUnreachable / BadReply thrown in), and
# returns its outcome.
Dialogue = Generator[Request, Any, Outcome]


class Family(Protocol):
    """One firmware family."""

    @property
    def name(self) -> str:
        """Name used in inventories and metrics."""
        ...

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """What to ask at every poll."""
        ...

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """What to ask at the first poll, after a command, and once a minute; replies land in `memory.slow_replies`."""
        ...

    def absorb(self, request: Request, reply: Any, memory: Memory) -> tuple[dict[str, Any], bool]:
        """Split a reply into named replies; True when the device refused the form and `requests()` must be asked again."""
        ...

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """Reading from named replies; raises BadReply when nothing in them can be used."""
        ...

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that changes the mode. `now_s` is monotonic and dates the token."""
        ...


def number(value: Any) -> float | None:
    """A finite number from what firmware sends (int, float, "12.5", "1,234"), else None."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        result = float(value.replace(",", "")) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def bounded(value: Any, low: float, high: float, scale: float = 1.0) -> float | None:
    """A number times `scale`, inside [low, high]; outside it is unknown rather than believed."""
    result = number(value)
    if result is None:
        return None
    result *= scale
    return result if low <= result <= high else None


def count(value: Any) -> int | None:
    """A non-negative whole number below 2**53, else None."""
    result = bounded(value, 0, 2**53)
    return None if result is None else int(result)


def first(reply: Any, section: str, index: int = 0) -> Mapping[str, Any] | None:
    """Object `index` of a section (`SUMMARY`, `STATS`, ...), None when it is not there."""
    if not isinstance(reply, Mapping):
        return None
    rows = reply.get(section)
    if isinstance(rows, list) and len(rows) > index and isinstance(rows[index], Mapping):
        row: Mapping[str, Any] = rows[index]
        return row
    return None


def status_of(reply: Any) -> tuple[str, int | None, str]:
    """(`S`, `E`, ..., code, message) of a cgminer-style reply; empty when it carries none."""
    if not isinstance(reply, Mapping):
        return "", None, ""
    row = first(reply, "STATUS")
    if row is None:
        row = reply
    code = number(row.get("Code"))
    message = row.get("Msg")
    return str(row.get("STATUS", "")), None if code is None else int(code), message if isinstance(message, str) else ""


def text_or_none(value: Any) -> str | None:
    """A non-empty string of sane length, control characters removed."""
    if not isinstance(value, str):
        return None
    clean = "".join(character for character in value.strip("' \t") if character.isprintable())[:64]
    return clean or None


def require_mapping(reply: Any, what: str) -> Mapping[str, Any]:
    """The reply as a mapping; raises BadReply naming `what` otherwise."""
    if not isinstance(reply, Mapping):
        raise BadReply(f"{what}: expected an object, got {type(reply).__name__}")
    return reply
