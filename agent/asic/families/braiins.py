"""Braiins OS, 21.09 to 26.x: which of its three APIs a device speaks is learned per device. Pure.

25.07 and later answer REST under /api/v1; earlier ones GraphQL (one query, one connection), with gRPC for commands
since 23.03 and GraphQL mutations before. An hour after it was learned the choice is tried again, since firmware is
updated in place. All watts are the firmware's own estimate ("approximated consumption"): `modelled`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from enum import StrEnum
from typing import Any

from agent.asic.families import braiins_graphql as graphql
from agent.asic.families import braiins_grpc as grpc
from agent.asic.families import braiins_rest as rest
from agent.asic.families.braiins_grpc import MinerStatus
from agent.asic.families.cgminer import name_sections, plain
from agent.asic.families.watts import mode_of_watts
from agent.asic.family import (
    ACCEPTED,
    Auth,
    Capabilities,
    Dialogue,
    Family,
    HttpRequest,
    Login,
    Memory,
    Outcome,
    Ports,
    Reading,
    Request,
    Token,
)
from agent.asic.figures import first, text_or_none
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

REST, GRAPHQL = "rest", "graphql"
DIALECT_LIFE_S = 3600.0
TOKEN_LIFE_S = 3000.0  # the vendor says 3600 s without use
NO_TOKEN_S = 600.0  # how long a device without usable gRPC is left alone by the status poll
WAKE_S = 300.0
_UNDERSTOOD = (Reason.REFUSED, Reason.UNSUPPORTED, Reason.UNREACHABLE)


class _Via(StrEnum):
    """What a token opens; kept in its `sign`."""

    REST = "rest"
    GRPC = "grpc"
    COOKIE = "cookie"
    NOTHING = ""


# A step of a command: pause, resume, or a power target [W].
_Step = str | int


class Braiins(Family):
    """Braiins OS."""

    name = "braiins"
    capabilities = Capabilities(
        sleep=True,
        low=True,
        turbo=False,  # taken when the class has watts for it; overclocking is not offered to plans unasked
        watt_limit=True,
        percent=False,
        has_power=True,
        shed_s=30.0,
        wake_s=300.0,
        persists=None,
        cost="a resume ramps up and may tune for minutes; a new power target may start tuning",
        source="assumed: no sourced figure; quick ramping (25.07) sets the vendor's own times",
        connections=3,
    )
    ports = Ports(aux=50051)
    factory_login = Login("root", "root")  # public knowledge
    probes = (plain("version"), HttpRequest("web_root", "GET", "/", auth=Auth.NONE, plain_text=True))

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """REST: three paths, three connections. GraphQL: one query."""
        return rest.fast(memory.token) if memory.dialect == REST else (graphql.FAST,)

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """REST: targets, pools, faults, boards. Else the status by gRPC, where there is a token for it."""
        if memory.dialect == REST:
            return rest.slow(memory.token)
        token = memory.token
        return (grpc.details_call(token),) if token is not None and token.sign == _Via.GRPC else ()

    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """BOSer or BOSminer in a version, a web page or data of one of its APIs."""
        if any(name.startswith((graphql.NAME, "rest ")) for name in replies):
            return True
        said = (repr(replies.get(name, "")).lower() for name in ("version", "web_root"))
        return any(mark in text for text in said for mark in ("boser", "bosminer", "braiins os"))

    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """GraphQL by its `data` (one name per file, since several make one reading), REST by its keys."""
        data = value.get("data") if isinstance(value, Mapping) else None
        if isinstance(data, Mapping) and ("bosminer" in data or "bos" in data or "events" in data):
            return {f"{graphql.NAME} {stem}": value}
        path = rest.name_reply(value)
        if path is not None:
            return {f"rest {path}": value}
        version = name_sections(value).get("version")
        return {} if version is None else {"version": version}

    def sign_in(self, memory: Memory, login: Login | None, now_s: float) -> Dialogue | None:
        """Learn the dialect; for REST fetch a token, for GraphQL try one by gRPC and read without where there is none."""
        known = memory.dialect if memory.dialect_until_s > now_s else ""
        token_good = memory.token is not None and memory.token.expires_s > now_s
        if known and (token_good or (known == GRAPHQL and login is None)):
            return None
        return self._sign_in(memory, login, now_s)

    def _sign_in(self, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        if memory.dialect_until_s <= now_s:
            yield from _learn(memory, now_s)
        if memory.token is not None and memory.token.expires_s > now_s:
            return ACCEPTED
        if memory.dialect == REST:
            return (yield from _open(memory, login, now_s))
        if login is not None:
            outcome = yield from _open_grpc(memory, login, now_s)
            if not outcome.accepted:  # reading works without; commands try again, and say what is wrong
                memory.token = Token("", _Via.NOTHING, now_s + NO_TOKEN_S)
        return ACCEPTED

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """GraphQL hashrates are MH/s, REST's GH/s."""
        every = {**memory.slow_replies, **replies}
        version = first(every.get("version"), "VERSION") or {}
        asked = {name: reply for name, reply in every.items() if name.startswith(graphql.NAME)}
        known = {name.removeprefix("rest "): reply for name, reply in every.items()}
        status: int | None
        if asked:
            found = graphql.figures(asked)
            raw = every.get(grpc.DETAILS)
            details = grpc.read_details(raw) if isinstance(raw, bytes) else grpc.Details()
            status = MinerStatus.PAUSED if found.pop("stopped") else details.status
            found |= {"mac": details.mac, "serial": details.serial, "model": found["model"] or details.model}
            if details.uptime_s is not None:
                found["uptime_s"] = details.uptime_s
            target_w = found["power_limit_w"]
        elif any(path in known for path in rest.ALL):
            if rest.STATS in known and not isinstance(known[rest.STATS], Mapping):
                raise BadReply(f"{rest.STATS}: expected an object")
            found = rest.figures(known)
            status, configured_w = found.pop("status"), found.pop("configured_w")
            target_w = configured_w if configured_w is not None else found["power_limit_w"]
        elif boser := text_or_none(version.get("BOSer")) or text_or_none(version.get("BOSminer")):
            return Reading(firmware=boser)
        else:
            raise BadReply("neither GraphQL data nor REST statistics of Braiins OS")
        state = _state(status, found["hashrate_hs"], found["uptime_s"])
        return Reading(
            state=state,
            mode=_mode(status, target_w, memory),
            reason=Reason.WAKING if state is DeviceState.WAKING else Reason.NONE,
            provenance=Provenance.UNKNOWN if found["power_w"] is None else Provenance.MODELLED,
            **found,
        )

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Sleep pauses. The others set the class's watts first and resume after, so that no mode is overshot."""
        if mode is Mode.UNKNOWN:
            return Outcome(Reason.UNSUPPORTED, "unknown is no mode to command")
        if mode is Mode.SLEEP:
            return (yield from _carry_out(("pause",), memory, login, now_s))
        watts = memory.mode_power_w.get(mode)
        if watts is None and mode is not Mode.NORMAL:
            return Outcome(Reason.UNSUPPORTED, f"the class has no watts for {mode}; set its power in the inventory")
        steps: tuple[_Step, ...] = ("resume",) if watts is None else (int(watts), "resume")
        return (yield from _carry_out(steps, memory, login, now_s))

    def limit_power(self, limit_w: float, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that sets the tuner's power target [W]."""
        return (yield from _carry_out((int(limit_w),), memory, login, now_s))

    def set_quick_ramping(self, up_s: int, down_s: int, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that sets how fast pause and resume move power [s] (gRPC, from 25.07)."""
        if login is None:
            return _NO_LOGIN
        opened = yield from _open_grpc(memory, login, now_s)
        token, memory.token = memory.token, None  # a REST device's own token is another: fetched again when needed
        if not opened.accepted or token is None:
            return opened
        taken = grpc.taken_quick_ramping((yield grpc.set_quick_ramping(token, up_s, down_s)))
        if taken != (up_s, down_s):
            return Outcome(Reason.FAILED, f"quick ramping reads {taken[0]} s up, {taken[1]} s down")
        return ACCEPTED


_NO_LOGIN = Outcome(Reason.NO_CREDENTIALS, "no braiins password is set; add it to the agent's settings")


def _state(status: int | None, hashrate_hs: float | None, uptime_s: float | None) -> DeviceState:
    """`suspended` is the firmware's own pause, which it may end by itself: idle, not asleep."""
    if hashrate_hs is None:
        return DeviceState.UNKNOWN
    if status == MinerStatus.PAUSED:
        return DeviceState.STOPPING if hashrate_hs > 0 else DeviceState.SLEEPING
    if hashrate_hs > 0:
        return DeviceState.HASHING
    if status == MinerStatus.NOT_STARTED:
        return DeviceState.WAKING
    young = uptime_s is not None and uptime_s < WAKE_S
    return DeviceState.WAKING if status == MinerStatus.NORMAL and young else DeviceState.IDLE


def _mode(status: int | None, target_w: float | None, memory: Memory) -> Mode:
    if status == MinerStatus.PAUSED:
        return Mode.SLEEP
    if status == MinerStatus.SUSPENDED:
        return Mode.UNKNOWN
    return mode_of_watts(target_w, memory.mode_power_w)


def _learn(memory: Memory, now_s: float) -> Generator[Request, Any, None]:
    """REST exists where its version answers, or refuses for want of a token.

    Old web servers say 404 or send a page; a device once known for REST is believed only in the former.
    """
    dialect = REST
    try:
        yield rest.PROBE
    except BadReply:
        if memory.dialect == REST:
            raise
        dialect = GRAPHQL
    except DeviceUnreachable as error:
        says_no = (Reason.UNSUPPORTED,) if memory.dialect == REST else (Reason.UNSUPPORTED, Reason.GARBLED)
        if error.reason in says_no:
            dialect = GRAPHQL
        elif error.reason != Reason.UNAUTHORISED:
            raise
    if dialect != memory.dialect:
        memory.token = None
        memory.slow_replies.clear()
    memory.dialect, memory.dialect_until_s = dialect, now_s + DIALECT_LIFE_S


def _open(memory: Memory, login: Login | None, now_s: float) -> Generator[Request, Any, Outcome]:
    """A token to command with, by whichever way the device has: REST, else gRPC, else GraphQL's cookie."""
    if login is None:
        return _NO_LOGIN
    if memory.dialect == REST:
        reply = yield rest.login_request(login)
        key = text_or_none(graphql.at(reply, "token"))
        return _keep(memory, key or "", _Via.REST, now_s)
    opened = yield from _open_grpc(memory, login, now_s)
    if opened.reason not in _UNDERSTOOD:
        return opened
    cookie = yield graphql.login_request(login)
    return _keep(memory, graphql.session_of(cookie), _Via.COOKIE, now_s)


def _open_grpc(memory: Memory, login: Login, now_s: float) -> Generator[Request, Any, Outcome]:
    try:
        key = yield grpc.login_call(login)
    except DeviceUnreachable as error:
        return Outcome(Reason(error.reason), str(error), retry=error.reason != Reason.UNAUTHORISED)
    return _keep(memory, key.decode("latin-1"), _Via.GRPC, now_s)


def _keep(memory: Memory, key: str, via: _Via, now_s: float) -> Outcome:
    if not key:
        return Outcome(Reason.UNAUTHORISED, "the login brought no token; check the braiins password")
    memory.token = Token(key, via, now_s + TOKEN_LIFE_S)
    return ACCEPTED


def _carry_out(
    steps: tuple[_Step, ...], memory: Memory, login: Login | None, now_s: float
) -> Generator[Request, Any, Outcome]:
    """Take the steps in order; a token that the device forgot is renewed once, and the steps taken again."""
    if login is None:
        return _NO_LOGIN
    if memory.dialect_until_s <= now_s:
        yield from _learn(memory, now_s)
    while True:
        token = memory.token
        cached = token is not None and token.expires_s > now_s and token.sign != _Via.NOTHING
        if not cached:
            opened = yield from _open(memory, login, now_s)
            token = memory.token
            if not opened.accepted or token is None:
                return opened
        assert token is not None
        try:
            for step in steps:
                outcome = _judge(step, token, (yield _request(step, token)))
                if not outcome.accepted:
                    return outcome
        except DeviceUnreachable as error:
            if error.reason != Reason.UNAUTHORISED or not cached:
                raise
            memory.token = None
        else:
            return ACCEPTED


def _request(step: _Step, token: Token) -> Request:
    via = {_Via.REST: rest, _Via.GRPC: grpc, _Via.COOKIE: graphql}[_Via(token.sign)]
    request: Request
    if isinstance(step, int):
        request = via.set_power_target(token, step)
    else:
        request = via.pause(token) if step == "pause" else via.resume(token)
    return request


def _judge(step: _Step, token: Token, reply: Any) -> Outcome:
    """gRPC answers a new target with the one it took; GraphQL puts its complaint inside a 200."""
    if token.sign == _Via.COOKIE and (said := graphql.complaint(reply)):
        return Outcome(Reason.FAILED, f"{step}: {said}", retry=True)
    if token.sign == _Via.GRPC and isinstance(step, int):
        taken_w = grpc.taken_power_target(reply)
        if taken_w != step:
            return Outcome(Reason.FAILED, f"power target {step} W was asked, {taken_w} W was taken")
    return ACCEPTED
