"""Whatsminer API V2 (TCP 4028): plain reads, token-signed and AES-encrypted writes. Pure.

Reads: `summary` and `status`, one connection each, since V2 does not join commands. Writes: `get_token` gives time,
salt and newsalt; key = md5crypt(password, salt); sign = md5crypt(key + time, newsalt); the command goes out as
AES-256-ECB under sha256(key), NUL-padded, base64. Answers carry codes: 131 accepted, 132 failed, 14 no such command,
135 token expired or wrong, 136 too many addresses hold a token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Generator, Mapping
from typing import Any

import orjson
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from agent.asic.families.cgminer import name_sections, pool_in_use
from agent.asic.families.md5crypt import md5crypt_digest
from agent.asic.family import (
    ACCEPTED,
    ApiRequest,
    Capabilities,
    Dialogue,
    Family,
    Login,
    Memory,
    Outcome,
    Reading,
    Request,
    Token,
)
from agent.asic.figures import (
    ABSURD_C,
    bounded,
    count,
    first,
    number,
    require_mapping,
    scaled,
    status_of,
    text_or_none,
)
from agent.asic.repair import parse_reply
from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

TOKEN_LIFE_S = 1500.0  # tokens are said to live 30 min; renewed before, and at once on code 135
RENEW_BEFORE_S = 300.0
LOW_PERCENT = 60
WAKE_S = 600.0  # full hashrate returns after 6-10 min (community figure)
_MAX_CODES = 16
# Key of a `Msg` object -> the command that was asked.
_MESSAGES = {
    "fw_ver": "get_version",
    "btmineroff": "status",
    "mineroff": "status",
    "error_code": "get_error_code",
    "ledstat": "get_miner_info",
}
_POWER_MODES = {"low": Mode.LOW, "normal": Mode.NORMAL, "high": Mode.TURBO}


class Whatsminer(Family):
    """Whatsminer, API V2."""

    name = "whatsminer"
    capabilities = Capabilities(
        sleep=True,
        low=True,
        turbo=False,
        watt_limit=True,
        percent=True,
        has_power=True,
        shed_s=5.0,
        wake_s=600.0,
        cost="the percentage moves power in about 1 s; after sleep full hashrate takes 6-10 min",
        source="community figures, none measured here",
        connections=2,
    )
    factory_login = Login("super", "admin")  # public knowledge

    outdated_by_command = frozenset()
    probes = (ApiRequest("get_version", b'{"cmd":"get_version"}'),)

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """`summary` for figures, `status` for whether mining is off."""
        return (_plain("summary"), _plain("status"))

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """Model, firmware, complaints, pools and the address; what a firmware does not know costs only itself."""
        return (
            _plain("devdetails"),
            _plain("get_version"),
            *(_plain(command, optional=True) for command in ("get_error_code", "pools", "get_miner_info")),
        )

    def absorb(self, request: Request, reply: Any, memory: Memory) -> tuple[dict[str, Any], bool]:
        """One reply per request."""
        return {request.name: reply}, False

    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """A version with `fw_ver` beside `api_ver`, as no other firmware has it, or figures that only its summary has."""
        if {"fw_ver", "api_ver"} <= _message(replies.get("get_version")).keys():
            return True
        keys = first(replies.get("summary"), "SUMMARY") or {}
        return any(key in keys for key in ("HS RT", "Power_RT", "Power Mode", "Factory GHS"))

    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """By section; replies with a `Msg` object by what it says."""
        message = value.get("Msg") if isinstance(value, Mapping) else None
        if isinstance(message, Mapping):
            for key, name in _MESSAGES.items():
                if key in message:
                    return {name: value}
            return {stem: value}
        return name_sections(value)

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """Hashrates are MH/s. `MHS 5s` is preferred: on real firmware `HS RT` equals the 5 min mean."""
        summary = first(replies.get("summary"), "SUMMARY")
        status = _message(replies.get("status"))
        if summary is None:
            _, code, said = status_of(replies.get("summary"))
            raise BadReply(f"summary: no SUMMARY section (code {code}, {said[:60]!r})")
        hashrate_hs = _first_known(*(scaled(summary.get(key), 1e6) for key in ("MHS 5s", "HS RT", "MHS 1m", "MHS av")))
        power_w = _first_known(*(scaled(summary.get(key)) for key in ("Power_RT", "Power")))
        off = _is_off(status)
        if power_w == 0 and hashrate_hs:
            power_w = None  # nothing hashes on zero watts: the sensor is not connected
        uptime_s = scaled(summary.get("Elapsed"))
        codes = fault_codes(memory.slow_replies.get("get_error_code"), summary)
        state = _state(off, hashrate_hs, uptime_s, codes)
        info = _message(memory.slow_replies.get("get_miner_info"))
        details = first(memory.slow_replies.get("devdetails"), "DEVDETAILS") or {}
        version = _message(memory.slow_replies.get("get_version"))
        model = text_or_none(details.get("Model"))
        return Reading(
            power_w=power_w,
            hashrate_hs=hashrate_hs,
            temp_c=_first_known(
                *(bounded(summary.get(key), -40, ABSURD_C) for key in ("Chip Temp Max", "Chip Temp Avg", "Temperature"))
            ),
            state=state,
            mode=_mode(off, status, summary, state),
            reason={DeviceState.WAKING: Reason.WAKING, DeviceState.FAULT: Reason.FAULT}.get(state, Reason.NONE),
            provenance=Provenance.UNKNOWN if power_w is None else Provenance.DEVICE,
            accepted_shares=count(summary.get("Accepted")),
            uptime_s=uptime_s,
            model=None if model is None else f"Whatsminer {model}",
            firmware=text_or_none(summary.get("Firmware Version")) or text_or_none(version.get("fw_ver")),
            mac=text_or_none(summary.get("MAC")) or text_or_none(info.get("mac")),
            fan_rpm=max(
                (rpm for key in ("Fan Speed In", "Fan Speed Out") if (rpm := scaled(summary.get(key))) is not None),
                default=None,
            ),
            power_limit_w=scaled(summary.get("Power Limit")),
            pool_url=pool_in_use(memory.slow_replies.get("pools")),
            fault_codes=codes,
        )

    def prepare(self, memory: Memory, login: Login | None, now_s: float) -> Dialogue | None:
        """A write token, before the one in hand runs out."""
        if login is None or (memory.token is not None and memory.token.expires_s > now_s + RENEW_BEFORE_S):
            return None
        return _token(memory, login, now_s + RENEW_BEFORE_S, now_s)

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Sleep is power_off, low a percentage of the power limit, normal power_on or 100 %; turbo is not offered."""
        if mode not in (Mode.SLEEP, Mode.LOW, Mode.NORMAL):
            return Outcome(Reason.UNSUPPORTED, f"whatsminer V2 has no command for mode {mode}")
        if login is None:
            return Outcome(Reason.NO_CREDENTIALS, "no whatsminer password is set; add it to the agent's settings")
        if mode is Mode.SLEEP:
            return (yield from _write({"cmd": "power_off", "respbefore": "true"}, memory, login, now_s))
        status = yield _plain("status")
        if _is_off(_message(status)):
            woken = yield from _write({"cmd": "power_on"}, memory, login, now_s)
            if mode is Mode.NORMAL or not woken.accepted:
                return woken
        percent = LOW_PERCENT if mode is Mode.LOW else 100
        return (yield from _write({"cmd": "set_power_pct", "percent": str(percent)}, memory, login, now_s))

    def limit_power(self, limit_w: float, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that sets the firmware's own power limit [W]; it restarts mining, so it is no fast lever."""
        if login is None:
            return Outcome(Reason.NO_CREDENTIALS, "no whatsminer password is set; add it to the agent's settings")
        return (
            yield from _write({"cmd": "adjust_power_limit", "power_limit": str(int(limit_w))}, memory, login, now_s)
        )


def _plain(command: str, *, optional: bool = False) -> ApiRequest:
    return ApiRequest(command, orjson.dumps({"cmd": command}), optional=optional)


def fault_codes(reply: Any, summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Codes of get_error_code (`[{"218": "<time>"}, ...]`, or one object), else `Error Code 0..` of an older summary."""
    listed = _message(reply).get("error_code")
    rows = listed if isinstance(listed, list) else [listed]
    codes = [str(key) for row in rows if isinstance(row, Mapping) for key in row]
    if not codes:
        said = (number(summary.get(f"Error Code {index}")) for index in range(_MAX_CODES))
        codes = [str(int(code)) for code in said if code]
    return tuple(dict.fromkeys(codes))[:_MAX_CODES]


def _message(reply: Any) -> Mapping[str, Any]:
    message = reply.get("Msg") if isinstance(reply, Mapping) else None
    return message if isinstance(message, Mapping) else {}


def _first_known(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _is_off(status: Mapping[str, Any]) -> bool | None:
    """`mineroff` (V2) or `btmineroff` (its predecessor); None when status says neither."""
    said = str(status.get("mineroff", status.get("btmineroff", ""))).lower()
    return {"true": True, "false": False}.get(said)


def _state(off: bool | None, hashrate_hs: float | None, uptime_s: float | None, codes: tuple[str, ...]) -> DeviceState:
    if hashrate_hs is None:
        return DeviceState.UNKNOWN
    if off:
        return DeviceState.STOPPING if hashrate_hs > 0 else DeviceState.SLEEPING
    if hashrate_hs > 0:
        return DeviceState.HASHING
    if off is False and uptime_s is not None and uptime_s < WAKE_S:
        return DeviceState.WAKING
    return DeviceState.FAULT if codes else DeviceState.IDLE


def _mode(off: bool | None, status: Mapping[str, Any], summary: Mapping[str, Any], state: DeviceState) -> Mode:
    """Low by percentage when `hash_percent` says so (0 = not set), else what the power mode is called."""
    if off or off is None:
        return Mode.SLEEP if off else Mode.UNKNOWN
    percent = number(status.get("hash_percent"))
    if percent is not None and 0 < percent <= 80:
        return Mode.LOW
    if state is DeviceState.UNKNOWN:
        return Mode.UNKNOWN
    named = str(summary.get("Power Mode", status.get("power_mode", ""))).lower()
    return _POWER_MODES.get(named, Mode.UNKNOWN)


def derive_token(message: Mapping[str, Any], password: str, now_s: float) -> Token:
    """Token from the `Msg` of get_token; raises BadReply when a part is missing."""
    salt, newsalt, time = (text_or_none(message.get(key)) for key in ("salt", "newsalt", "time"))
    if salt is None or newsalt is None or time is None:
        raise BadReply("get_token: salt, newsalt or time is missing")
    key = md5crypt_digest(password, salt)
    return Token(key, md5crypt_digest(key + time, newsalt), now_s + TOKEN_LIFE_S)


def _cipher(key: str) -> Cipher[modes.ECB]:
    return Cipher(algorithms.AES256(hashlib.sha256(key.encode()).digest()), modes.ECB())  # noqa: S305 the device's scheme


def encrypt(order: Mapping[str, str], token: Token) -> bytes:
    """The encrypted envelope of one write."""
    plain = orjson.dumps({"token": token.sign, **order})
    plain += b"\x00" * (-len(plain) % 16)
    worker = _cipher(token.key).encryptor()
    return orjson.dumps({"enc": 1, "data": base64.b64encode(worker.update(plain) + worker.finalize()).decode()})


def decrypt(data: str, key: str) -> Any:
    """The parsed content of an encrypted answer; raises BadReply when it does not open under the key."""
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadReply("encrypted answer is not base64") from error
    if not raw or len(raw) % 16:
        raise BadReply(f"encrypted answer of {len(raw)} bytes, not a multiple of 16")
    worker = _cipher(key).decryptor()
    return parse_reply(worker.update(raw) + worker.finalize()).value


def _token(
    memory: Memory, login: Login, valid_at_s: float, now_s: float | None = None
) -> Generator[Request, Any, Outcome]:
    if memory.token is not None and memory.token.expires_s > valid_at_s:
        return ACCEPTED
    now_s = valid_at_s if now_s is None else now_s
    reply = require_mapping((yield _plain("get_token")), "get_token")
    _, code, said = status_of(reply)
    if code == 136 or (isinstance(reply.get("Msg"), str) and "over max" in said):
        return Outcome(Reason.REFUSED, "code 136: too many addresses hold a token; close other tools", retry=True)
    memory.token = derive_token(_message(reply), login.password, now_s)
    return ACCEPTED


def _write(order: Mapping[str, str], memory: Memory, login: Login, now_s: float) -> Generator[Request, Any, Outcome]:
    """Send one write; a token that ran out (135) is renewed once."""
    name = order["cmd"]
    for _ in range(2):
        granted = yield from _token(memory, login, now_s)
        if not granted.accepted or memory.token is None:
            return granted
        token = memory.token
        reply = require_mapping((yield ApiRequest(name, encrypt(order, token))), name)
        if isinstance(reply.get("enc"), str):
            reply = require_mapping(decrypt(reply["enc"], token.key), name)
        _, code, said = status_of(reply)
        if code != 135:
            return _outcome(name, code, said)
        memory.token = None
    return Outcome(Reason.UNAUTHORISED, f"{name}: code 135 with a fresh token; check the whatsminer password")


def _outcome(name: str, code: int | None, said: str) -> Outcome:
    told = f"{name}: code {code} {said[:80]}".rstrip()
    match code:
        case 131:
            return ACCEPTED
        case 14:
            return Outcome(Reason.UNSUPPORTED, told)
        case 136:
            return Outcome(Reason.REFUSED, told, retry=True)
        case 23:  # the device could not open the envelope: it derived another key
            return Outcome(Reason.UNAUTHORISED, f"{told}; check the whatsminer password")
        case 45:  # permission denied: the write API is closed on the device
            return Outcome(Reason.UNAUTHORISED, f"{told}; enable API writes on the device")
        case _:
            return Outcome(Reason.FAILED, told, retry=code == 132)
