"""Braiins OS public API over gRPC (port 50051, since 23.03): the few calls that commands and status need. Pure.

Method paths, field numbers and enum values: proto files of the public repository braiins/bos-plus-api (performance,
actions, authentication, miner), checked in tests against classes that somebody else generated from them. A token is
sent bare in the metadata entry `authorization` and lapses after 3600 s without use; before API 1.1.0 (24.04) Login gave
it in the answer's metadata only, and still does, so it is taken from there. SetQuickRamping came with 25.07,
GetMinerEfficiencyProfile with 26.05.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from agent.asic.families.protowire import decode, double, encode, integer, message, messages, text
from agent.asic.family import GrpcRequest, Login, Token

_SERVICE = "/braiins.bos.v1."
SAVE_AND_APPLY = 2  # enum SaveAction
DETAILS = "grpc_details"


class MinerStatus(IntEnum):
    """Enum of the same name; the numbers are also what REST puts in `status`."""

    UNSPECIFIED = 0
    NOT_STARTED = 1
    NORMAL = 2
    PAUSED = 3
    SUSPENDED = 4
    RESTRICTED = 5


@dataclass(frozen=True, slots=True)
class Details:
    """What GetMinerDetails says, as far as it is used; uptime of the mining software in seconds."""

    status: int | None = None
    uptime_s: float | None = None
    model: str | None = None
    firmware: str | None = None
    mac: str | None = None
    serial: str | None = None


@dataclass(frozen=True, slots=True)
class EfficiencyPoint:
    """One point of the firmware's own curve: target and expected draw [W], hashrate [H/s]."""

    target_w: float
    power_w: float
    hashrate_hs: float


def login_call(login: Login) -> GrpcRequest:
    """Login; the reply is the token, empty when the answer carried none."""
    body = encode(((1, login.username), (2, login.password)))
    return GrpcRequest("login", f"{_SERVICE}AuthenticationService/Login", body, header="authorization")


def _call(name: str, path: str, token: Token, body: bytes = b"", *, optional: bool = False) -> GrpcRequest:
    return GrpcRequest(name, _SERVICE + path, body, (("authorization", token.key),), optional=optional)


def pause(token: Token) -> GrpcRequest:
    """PauseMining."""
    return _call("pause", "ActionsService/PauseMining", token)


def resume(token: Token) -> GrpcRequest:
    """ResumeMining."""
    return _call("resume", "ActionsService/ResumeMining", token)


def set_power_target(token: Token, watts: int) -> GrpcRequest:
    """SetPowerTarget [W], saved and applied."""
    body = encode(((1, SAVE_AND_APPLY), (2, encode(((1, watts),)))))
    return _call("power_target", "PerformanceService/SetPowerTarget", token, body)


def taken_power_target(reply: bytes) -> int | None:
    """Target in the answer to SetPowerTarget [W]; raises BadReply."""
    return integer(message(decode(reply), 1), 1)


def set_quick_ramping(token: Token, up_s: int, down_s: int) -> GrpcRequest:
    """SetQuickRamping: how fast a pause takes power off and a resume brings it back [s]; saved and applied."""
    body = encode(((1, SAVE_AND_APPLY), (2, up_s), (3, down_s)))
    return _call("quick_ramping", "PerformanceService/SetQuickRamping", token, body)


def taken_quick_ramping(reply: bytes) -> tuple[int, int]:
    """(up, down) in the answer to SetQuickRamping [s]; raises BadReply."""
    fields = decode(reply)
    return integer(fields, 1) or 0, integer(fields, 2) or 0


def details_call(token: Token) -> GrpcRequest:
    """GetMinerDetails."""
    return _call(DETAILS, "MinerService/GetMinerDetails", token, optional=True)


def read_details(reply: bytes) -> Details:
    """Answer to GetMinerDetails; raises BadReply."""
    fields = decode(reply)
    identity = message(fields, 2)
    uptime_s = integer(fields, 10)
    return Details(
        status=integer(fields, 12),
        uptime_s=None if uptime_s is None else float(uptime_s),
        model=text(identity, 4) or text(identity, 3),
        firmware=text(message(fields, 5), 1),
        mac=text(fields, 7),
        serial=text(fields, 16),
    )


def tuner_state_call(token: Token) -> GrpcRequest:
    """GetTunerState."""
    return _call("tuner_state", "PerformanceService/GetTunerState", token)


def read_power_target(reply: bytes) -> int | None:
    """Current power target in the answer to GetTunerState [W]; None in hashrate mode. Raises BadReply."""
    return integer(message(message(decode(reply), 2), 2), 1)


def efficiency_call(token: Token) -> GrpcRequest:
    """GetMinerEfficiencyProfile."""
    return _call("efficiency", "PerformanceService/GetMinerEfficiencyProfile", token)


def read_efficiency(reply: bytes) -> tuple[EfficiencyPoint, ...]:
    """Curve in the answer to GetMinerEfficiencyProfile, in its order; incomplete points are left out. Raises BadReply."""
    points = []
    for point in messages(decode(reply), 1):
        target_w, power_w = integer(message(point, 2), 1), integer(message(point, 3), 1)
        terahash = double(message(point, 7), 1)
        if target_w is not None and power_w is not None and terahash is not None:
            points.append(EfficiencyPoint(float(target_w), float(power_w), terahash * 1e12))
    return tuple(points)
