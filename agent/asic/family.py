"""What every firmware family offers: pure requests, a pure parser, pure command dialogues, and a truthful capability table.

A family never touches a socket. Polling is `requests()` out, parsed replies in, a `Reading` out. A command is a
generator that yields requests, is sent their parsed replies and returns an `Outcome`; the conversation drives it. What a
family cannot do is an answer (`Outcome(Reason.UNSUPPORTED, ...)`), never an exception.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar

from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

_NO_WATTS: Mapping[Mode, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Reading:
    """One device as it described itself. None is unknown; zero is a measurement.

    `hashrate_hs` in hashes per second, `power_w` at the wall by the device's own account, `temp_c` of the hottest
    chip or board, `uptime_s` of the mining software. The first part is fast, the second known since the last slow beat.
    A parser gives what firmware says; whether a figure is plausible is judged in `belief`, where it is counted.
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
    fan_rpm: float | None = None  # the fastest
    power_limit_w: float | None = None  # the firmware's own limit or preset, where it has one
    model: str | None = None
    firmware: str | None = None
    mac: str | None = None
    serial: str | None = None
    pool_url: str | None = None  # the pool in use; never with its worker's password
    board_serials: tuple[str, ...] = ()
    fault_codes: tuple[str, ...] = ()  # in the firmware's own words, at most 16


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a family can really do, and where that is known from.

    `shed_s` and `wake_s`: command to settled power at worst [s]. `persists`: whether a sleep survives a reboot or a
    power cut (None = unknown, treated as no). `cost`: what a mode change costs, in a sentence. `connections`: TCP
    connections of one fast poll once the device's quirks are known.
    """

    sleep: bool
    low: bool
    turbo: bool
    watt_limit: bool
    percent: bool
    has_power: bool
    shed_s: float
    wake_s: float
    persists: bool | None = None
    cost: str = ""
    source: str = ""
    connections: int = 1

    def modes(self) -> tuple[Mode, ...]:
        """Modes that can be commanded, in vocabulary order."""
        offered = {Mode.SLEEP: self.sleep, Mode.LOW: self.low, Mode.NORMAL: True, Mode.TURBO: self.turbo}
        return tuple(mode for mode, able in offered.items() if able)


class Port(StrEnum):
    """Which of a device's ports a request goes to; numbers are the family's unless the inventory says otherwise."""

    API = "api"
    WEB = "web"
    AUX = "aux"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a family listens unless told otherwise. `aux` is its third door: a power page, gRPC."""

    api: int = 4028
    web: int = 80
    aux: int = 0


class Auth(StrEnum):
    """How the web server wants its login. `token` and `none` add nothing: a token travels in `headers`."""

    NONE = "none"
    DIGEST = "digest"
    BASIC = "basic"
    TOKEN = "token"  # noqa: S105 a word


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One JSON request over TCP; `name` is the key under which the parsed reply is handed back.

    The reply ends with a NUL or with the connection; with `length_prefixed` both ways carry a little-endian uint32
    length instead (Whatsminer V3). `optional`: a refusal costs only these facts and is remembered per device.
    """

    name: str
    payload: bytes = field(repr=False)  # may carry a password or a token
    port: Port = Port.API
    length_prefixed: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request to the device's web server. An empty 2xx body parses as {}; `plain_text` is handed back as str.

    With `header` (lower case) that header of a 2xx answer is handed back in place of the body, empty when absent.
    """

    name: str
    method: str
    path: str
    body: bytes = field(default=b"", repr=False)
    auth: Auth = Auth.DIGEST
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    port: Port = Port.WEB
    plain_text: bool = False
    optional: bool = False
    header: str = ""


@dataclass(frozen=True, slots=True)
class GrpcRequest:
    """One unary gRPC call without TLS: `method` is the full path, `body` a serialised message; the reply is bytes.

    With `header` the reply is that entry of the server's initial metadata, empty when absent.
    """

    name: str
    method: str
    body: bytes = field(default=b"", repr=False)
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    port: Port = Port.AUX
    optional: bool = False
    header: str = ""


@dataclass(frozen=True, slots=True)
class LibraryRequest:
    """Something asked of pyasic-rs on the device's behalf: `action` is its word, the reply a plain mapping."""

    name: str
    action: str
    argument: float | None = None
    optional: bool = False


Request = ApiRequest | HttpRequest | GrpcRequest | LibraryRequest


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials of a device. The password stays out of repr, logs and errors."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """What a device handed out to write with (key material, bearer), valid until a monotonic time [s]."""

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
    """What has been learned about one device and outlives a poll: quirks, a token, slow facts. Owned by the poller.

    `mode_power_w` is the class's curve [W by mode]: families with watt targets or presets aim at it, nearest at or
    below. `refused` holds names of optional requests that the device does not know. `dialect` is which of its family's
    APIs the device speaks (Braiins), believed until the monotonic time `dialect_until_s`.
    """

    profiles: Profiles = Profiles()
    mode_power_w: Mapping[Mode, float] = field(default_factory=lambda: _NO_WATTS)
    refuses_joined: bool = False
    needs_new_api: bool = False
    token: Token | None = None
    dialect: str = ""
    dialect_until_s: float = 0.0
    refused: set[str] = field(default_factory=set)
    recheck: set[str] = field(default_factory=set)  # slow facts that a command has outdated
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


def answered(outcome: Outcome) -> Dialogue:
    """A dialogue that asks the device nothing."""
    yield from ()
    return outcome


class Family(ABC):
    """One firmware family: subclass in a module of its own, add one line to the registry."""

    name: ClassVar[str]  # in inventories and metrics
    capabilities: ClassVar[Capabilities]
    ports: ClassVar[Ports] = Ports()
    factory_login: ClassVar[Login | None] = None  # public knowledge, tried only where settings allow it
    outdated_by_command: ClassVar[frozenset[str] | None] = None  # slow facts to read anew behind a command; None = all
    probes: ClassVar[tuple[Request, ...]] = ()  # what discovery asks an unknown address for, without a login

    @abstractmethod
    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """What to ask at every poll."""

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """What to ask at the first poll, after a command, and once a minute; replies land in `memory.slow_replies`."""
        return ()

    def absorb(self, request: Request, reply: Any, memory: Memory) -> tuple[dict[str, Any], bool]:
        """Split a reply into named replies; True when the device refused the form and `requests()` must be asked again."""
        return {request.name: reply}, False

    def sign_in(self, memory: Memory, login: Login | None, now_s: float) -> Dialogue | None:
        """Dialogue that fetches a token into `memory.token` where reading needs one; None when none is needed now.

        Run before a poll, and again once when the poll was answered with `unauthorised` (the token is dropped first).
        """
        return None

    def prepare(self, memory: Memory, login: Login | None, now_s: float) -> Dialogue | None:
        """Dialogue that fetches beforehand what a command will need (a token), so that a shed is one request.

        Run at leisure behind a poll, a few a second over the site; None when nothing is needed now.
        """
        return None

    @abstractmethod
    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """Reading from named replies, slow ones in `memory.slow_replies`; raises BadReply when nothing can be used."""

    @abstractmethod
    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that changes the mode. `now_s` is monotonic and dates the token."""

    def limit_power(self, limit_w: float, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that sets the firmware's own power limit, by the nearest preset at or below [W]."""
        return answered(Outcome(Reason.UNSUPPORTED, f"{self.name} has no power limit"))

    @abstractmethod
    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """Whether these named replies (of probes, or of a recording) are this firmware's. Asked in registry order."""

    @abstractmethod
    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """Named replies held by one recorded value; `stem` is its file's name without ending. Empty = not ours."""
