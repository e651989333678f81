"""Whatsminer API V3 (TCP 4433, firmware dated 2024-11-01 or later): length-prefixed JSON, signed writes. Pure.

Reads: `get.miner.status` with a part (`summary`, `pools`) for figures in TH/s and W, `get.device.info` for whether the
miner works and what it complains of. Writes carry `ts`, the account `super` and a token: the first 8 characters of
base64(sha256(command + password + salt + ts)), salt from get.device.info. `ts` is the device's own clock (`when` of
that same reply), so that neither clock needs to be right. Replies: `code` 0 is yes, everything else no.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Generator, Mapping
from typing import Any

import orjson

from agent.asic.family import (
    ACCEPTED,
    ApiRequest,
    Capabilities,
    Dialogue,
    Family,
    Login,
    Memory,
    Outcome,
    Ports,
    Reading,
    Request,
)
from agent.asic.figures import ABSURD_C, bounded, count, number, require_mapping, scaled, text_or_none
from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

ACCOUNT = "super"
LOW_PERCENT = 60
WAKE_S = 600.0  # full hashrate returns after 6-10 min (community figure for V2, assumed for V3)
MAX_CODES = 16
_POWER_MODES = {"0": Mode.LOW, "1": Mode.NORMAL, "2": Mode.TURBO}


def ask(name: str, command: str, part: str | None = None) -> ApiRequest:
    """One read; `part` is what V3 calls `param`."""
    body = {"cmd": command} if part is None else {"cmd": command, "param": part}
    return ApiRequest(name, orjson.dumps(body), length_prefixed=True)


_SUMMARY = ask("status_summary", "get.miner.status", "summary")
_POOLS = ask("status_pools", "get.miner.status", "pools")
_DEVICE = ask("device_info", "get.device.info")


class WhatsminerV3(Family):
    """Whatsminer, API V3."""

    name = "whatsminer_v3"
    capabilities = Capabilities(
        sleep=True,
        low=True,
        turbo=False,
        watt_limit=True,
        percent=True,
        has_power=True,
        shed_s=10.0,
        wake_s=600.0,
        persists=None,
        cost="stopping the service cools the boards; full hashrate again takes 6-10 min, a power limit restarts mining",
        source="assumed from community figures for V2; nobody has published figures for V3",
        connections=2,
    )
    ports = Ports(api=4433)
    factory_login = Login(ACCOUNT, "super")  # public knowledge
    probes = (_DEVICE,)

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """Figures, and whether the miner works; one connection each, since V3 joins nothing."""
        return (_SUMMARY, _DEVICE)

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """The pools."""
        return (_POOLS,)

    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """Any reply whose `desc` names a V3 command with its parts in place."""
        return any(name in replies for name in (_SUMMARY.name, _DEVICE.name, _POOLS.name, "status_edevs"))

    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """By `desc` and the part it carries."""
        message = _message(value)
        said = value.get("desc") if isinstance(value, Mapping) else None
        if said == "get.device.info" and ("miner" in message or "system" in message):
            return {_DEVICE.name: value}
        if said == "get.miner.status":
            return {f"status_{part}": value for part in ("summary", "pools", "edevs") if part in message}
        return {}

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """Hashrates are TH/s. Shares are in no V3 reply, so they stay unknown."""
        summary = _part(replies.get(_SUMMARY.name), "summary")
        device = _message(replies.get(_DEVICE.name))
        boards = _message(replies.get("status_edevs")).get("edevs")
        if not summary and not device and not isinstance(boards, list):
            raise BadReply(f"neither status nor device info can be read ({_said(replies.get(_SUMMARY.name))})")
        miner, power, network, system = (_map(device.get(key)) for key in ("miner", "power", "network", "system"))
        hashrate_hs = _first_known(
            *(scaled(summary.get(key), 1e12) for key in ("hash-realtime", "hash-1min", "hash-average"))
        )
        if not summary and isinstance(boards, list):
            hashrate_hs = _sum_boards(boards)
        power_w = _first_known(*(scaled(summary.get(key)) for key in ("power-realtime", "power-5min")))
        if power_w == 0 and hashrate_hs:
            power_w = None  # nothing hashes on zero watts: the sensor is not connected
        uptime_s = scaled(summary.get("elapsed"))
        codes = fault_codes(device.get("error-code"))
        working = {"true": True, "false": False}.get(str(miner.get("working", "")).lower())
        state = _state(working, hashrate_hs, uptime_s, codes)
        return Reading(
            power_w=power_w,
            hashrate_hs=hashrate_hs,
            temp_c=_first_known(
                *(bounded(summary.get(key), -40, ABSURD_C) for key in ("chip-temp-max", "chip-temp-avg"))
            ),
            state=state,
            mode=_mode(working, state, miner, power),
            reason={DeviceState.WAKING: Reason.WAKING, DeviceState.FAULT: Reason.FAULT}.get(state, Reason.NONE),
            provenance=Provenance.UNKNOWN if power_w is None else Provenance.DEVICE,
            uptime_s=uptime_s,
            fan_rpm=_highest(scaled(summary.get(key)) for key in ("fan-speed-in", "fan-speed-out")),
            power_limit_w=scaled(summary.get("power-limit")),
            model=_model(miner.get("type")),
            firmware=text_or_none(system.get("fwversion")),
            mac=text_or_none(network.get("mac")),
            serial=text_or_none(miner.get("miner-sn")),
            pool_url=_pool(memory.slow_replies.get(_POOLS.name)),
            board_serials=tuple(s for n in range(8) if (s := text_or_none(miner.get(f"pcbsn{n}"))) is not None),
            fault_codes=codes,
        )

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Sleep stops the mining service, low is a percentage of the limit, normal starts it or goes back to 100 %."""
        if mode not in (Mode.SLEEP, Mode.LOW, Mode.NORMAL):
            return Outcome(Reason.UNSUPPORTED, f"whatsminer V3 is not commanded into mode {mode}")
        if login is None:
            return Outcome(Reason.NO_CREDENTIALS, "no whatsminer_v3 password is set; add it to the agent's settings")
        if mode is Mode.SLEEP:
            return (yield from _write("set.miner.service", "stop", login))
        device = _message((yield _DEVICE))
        if str(_map(device.get("miner")).get("working", "")).lower() == "false":
            woken = yield from _write("set.miner.service", "start", login)
            if not woken.accepted or (mode is Mode.NORMAL and not _reduced(device)):
                return woken
        percent = LOW_PERCENT if mode is Mode.LOW else 100
        # The percentage goes as a string: firmware reads it so, whatever its documentation says.
        return (yield from _write("set.miner.power_percent", {"percent": str(percent), "mode": "fast"}, login))

    def limit_power(self, limit_w: float, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that sets the firmware's own power limit [W]; mining restarts behind it, so it is no fast lever."""
        if login is None:
            return Outcome(Reason.NO_CREDENTIALS, "no whatsminer_v3 password is set; add it to the agent's settings")
        return (yield from _write("set.miner.power_limit", int(limit_w), login))


def sign(command: str, password: str, salt: str, at_s: int) -> str:
    """Token of one write at device time `at_s` [unix s]."""
    digest = hashlib.sha256(f"{command}{password}{salt}{at_s}".encode()).digest()
    return base64.b64encode(digest).decode("ascii")[:8]


def _write(command: str, parameter: Any, login: Login) -> Generator[Request, Any, Outcome]:
    asked = require_mapping((yield _DEVICE), "get.device.info")
    salt, at_s = text_or_none(_message(asked).get("salt")), count(asked.get("when"))
    if salt is None or at_s is None:
        return Outcome(Reason.FAILED, f"{command}: device info gives no salt or no time to sign with", retry=True)
    token = sign(command, login.password, salt, at_s)
    order = {"cmd": command, "param": parameter, "ts": at_s, "account": ACCOUNT, "token": token}
    reply = require_mapping((yield ApiRequest(command, orjson.dumps(order), length_prefixed=True)), command)
    code = number(reply.get("code"))
    if code == 0:
        return ACCEPTED
    told = f"{command}: {_said(reply)}"
    lower = told.lower()
    # The numbers of refusals are not published in a form that can be cited; the words are what there is.
    if any(word in lower for word in ("token", "permission", "auth", "password", "account", "access")):
        return Outcome(Reason.UNAUTHORISED, f"{told}; check the password, and that writing is enabled on the device")
    if any(word in lower for word in ("unknown", "not support", "unsupported", "invalid cmd", "invalid command")):
        return Outcome(Reason.UNSUPPORTED, told)
    return Outcome(Reason.FAILED, told, retry=True)


def fault_codes(raw: Any) -> tuple[str, ...]:
    """Codes with their reason: `error-code` lists `{"264": "<time>", "reason": "<words>"}`; at most 16."""
    codes: list[str] = []
    for item in raw if isinstance(raw, list) else []:
        pairs = item if isinstance(item, Mapping) else {str(item): ""}
        words = text_or_none(pairs.get("reason"))
        codes += [key if words is None else f"{key} {words}" for key in pairs if str(key).lstrip("-").isdecimal()]
    return tuple(codes[:MAX_CODES])


def _state(
    working: bool | None, hashrate_hs: float | None, uptime_s: float | None, codes: tuple[str, ...]
) -> DeviceState:
    if hashrate_hs is None:
        return DeviceState.UNKNOWN
    if working is False:
        return DeviceState.STOPPING if hashrate_hs > 0 else DeviceState.SLEEPING
    if hashrate_hs > 0:
        return DeviceState.HASHING
    if working and uptime_s is not None and uptime_s < WAKE_S:
        return DeviceState.WAKING
    return DeviceState.FAULT if codes else DeviceState.IDLE


def _mode(working: bool | None, state: DeviceState, miner: Mapping[str, Any], power: Mapping[str, Any]) -> Mode:
    """Low by percentage when `hash-percent` says so (0 = not set), else the power mode's number."""
    if not working:
        return Mode.UNKNOWN if working is None else Mode.SLEEP
    if _reduced({"miner": miner}):
        return Mode.LOW
    return Mode.UNKNOWN if state is DeviceState.UNKNOWN else _POWER_MODES.get(str(power.get("mode", "")), Mode.UNKNOWN)


def _reduced(device: Mapping[str, Any]) -> bool:
    percent = number(_map(device.get("miner")).get("hash-percent"))
    return percent is not None and 0 < percent <= 80


def _model(raw: Any) -> str | None:
    """`M60S_VK40` is Whatsminer M60S, version VK40."""
    said = text_or_none(raw)
    return None if said is None else f"Whatsminer {said.replace('_', ' ')}"


def _pool(reply: Any) -> str | None:
    pools = _message(reply).get("pools")
    rows = [row for row in pools if isinstance(row, Mapping)] if isinstance(pools, list) else []
    active = next((row for row in rows if row.get("stratum-active") is True), None)
    alive = next((row for row in rows if row.get("status") == "alive"), None)
    return text_or_none(_map(active or alive).get("url"))


def _sum_boards(boards: list[Any]) -> float | None:
    known = [h for row in boards if (h := scaled(_map(row).get("hash-realtime"), 1e12)) is not None]
    return sum(known) if known else None


def _message(reply: Any) -> Mapping[str, Any]:
    return _map(reply.get("msg")) if isinstance(reply, Mapping) else {}


def _part(reply: Any, part: str) -> Mapping[str, Any]:
    return _map(_message(reply).get(part))


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _said(reply: Any) -> str:
    """Code and words of a refusal, short."""
    if not isinstance(reply, Mapping):
        return "no reply"
    words = reply.get("msg")
    return f"code {reply.get('code')} {words[:80] if isinstance(words, str) else ''}".rstrip()


def _first_known(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _highest(values: Any) -> float | None:
    return max((value for value in values if value is not None), default=None)
