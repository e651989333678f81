"""Auradine Teraflux (FluxOS): gcminer reads on TCP 4028, power, mode and writes on HTTP 8080 behind a token. Pure.

4028 gives hashrate, boards and shares to anybody; watts (`psu`) and whether it sleeps (`mode`) want the `Token` header
of the web server, so without a password these stay unknown and the reading says `no_credentials`. Writes are
`POST /mode` with `sleep` on/off, `mode` eco/normal/turbo, or `tune` power with `power` in watts. Field names are from the
vendor's samples and from pyasic and asic-rs; no recording of a live machine was to be had.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any

import orjson

from agent.asic.families.cgminer import name_sections, plain, pool_in_use
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
from agent.asic.figures import ABSURD_C, bounded, count, first, require_mapping, scaled, status_of, text_or_none
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

TOKEN_LIFE_S = 1500.0  # not documented; renewed before half an hour, and at once when it is refused
WAKE_S = 600.0
MODES: Mapping[str, Mode] = {"eco": Mode.LOW, "normal": Mode.NORMAL, "turbo": Mode.TURBO}
_ORDERS = {mode: word for word, mode in MODES.items()}
# Section of a web reply -> the page it comes from.
_PAGES = {
    "Mode": "mode",
    "PSU": "psu",
    "Temperature": "temperature",
    "Fan": "fan",
    "LED": "led",
    "IPReport": "ipreport",
}
_QUIET_LEDS = (2, 3)  # normal, and "locate this miner"
_WATTS = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*[A-Za-z]*\s*")


class Auradine(Family):
    """Auradine Teraflux, stock FluxOS."""

    name = "auradine"
    capabilities = Capabilities(
        sleep=True,
        low=True,
        turbo=True,
        watt_limit=True,
        percent=False,
        has_power=True,
        shed_s=60.0,
        wake_s=600.0,
        persists=None,
        cost="boards restart and tune again after a change of mode",
        source="assumed: the vendor publishes no times, and none were measured",
        connections=4,
    )
    ports = Ports(api=4028, web=8080)
    factory_login = Login("admin", "admin")  # public knowledge
    probes = (plain("version"),)

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """`summary` and `devs` for anybody; `mode` and `psu` once there is a token."""
        return (plain("summary"), plain("devs"), *(_page(p, memory.token) for p in ("mode", "psu") if memory.token))

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """Who it is, its pools, fans and the lamp that tells of trouble."""
        pages = ("ipreport", "fan", "led") if memory.token else ()
        return (plain("version"), plain("pools", optional=True), *(_page(p, memory.token) for p in pages))

    def sign_in(self, memory: Memory, login: Login | None, now_s: float) -> Dialogue | None:
        """A token, where there is a password and none is held."""
        if login is None or (memory.token is not None and memory.token.expires_s > now_s):
            return None
        return _fetch_token(memory, login, now_s)

    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """GCMiner and FluxOS sign most replies; the web pages have sections nobody else has."""
        if any(word in repr(reply) for reply in replies.values() for word in ("GCMiner", "FluxOS")):
            return True
        return any(first(replies.get(page), section) is not None for section, page in _PAGES.items())

    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """By section."""
        named = {page: value for section, page in _PAGES.items() if first(value, section) is not None}
        return named or name_sections(value)

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """Hashrates are MH/s, watts text such as "58.94W"."""
        slow = memory.slow_replies
        summary = first(replies.get("summary"), "SUMMARY")
        boards = _rows(replies.get("devs"), "DEVS")
        mode_row, psu = first(replies.get("mode"), "Mode"), first(replies.get("psu"), "PSU")
        heat = _hottest(replies.get("temperature"))
        if summary is None and not boards and mode_row is None and psu is None and heat is None:
            _, code, said = status_of(replies.get("summary"))
            raise BadReply(f"no summary, boards, mode or power supply can be read (code {code}, {said[:60]!r})")
        expired = any(_token_refused(replies.get(page)) for page in ("mode", "psu"))
        if expired:
            memory.token = None
        figures = summary or {}
        hashrate_hs = _first_known(*(scaled(figures.get(key), 1e6) for key in ("MHS 5s", "MHS 1m", "MHS av")))
        if summary is None and boards:
            known = [h for row in boards if (h := scaled(row.get("MHS 5s"), 1e6)) is not None]
            hashrate_hs = sum(known) if known else None
        power_w = _first_known(scaled(figures.get("Wattage")), _watts((psu or {}).get("PowerIn")))
        uptime_s = scaled(figures.get("Elapsed"))
        asleep = {"on": True, "off": False}.get(str((mode_row or {}).get("Sleep", "")).lower())
        codes = _codes(boards, first(slow.get("led"), "LED"))
        state = _state(asleep, hashrate_hs, uptime_s, codes)
        report = first(slow.get("ipreport"), "IPReport") or {}
        board_serials = report.get("HBSerialNo")
        model = text_or_none(report.get("model"))
        return Reading(
            power_w=power_w,
            hashrate_hs=hashrate_hs,
            temp_c=max(
                (t for t in (heat, *(bounded(b.get("Temperature"), 1, ABSURD_C) for b in boards)) if t is not None),
                default=None,
            ),
            state=state,
            mode=_mode(asleep, mode_row, memory),
            reason=_reason(state, expired=expired, signed_in=memory.token is not None, knows_mode=mode_row is not None),
            provenance=Provenance.UNKNOWN if power_w is None else Provenance.DEVICE,
            accepted_shares=count(figures.get("Accepted")),
            uptime_s=uptime_s,
            fan_rpm=max(
                (rpm for row in _rows(slow.get("fan"), "Fan") if (rpm := scaled(row.get("Speed"))) is not None),
                default=None,
            ),
            power_limit_w=scaled((mode_row or {}).get("Power")),
            model=None if model is None else f"Auradine {model}",
            firmware=text_or_none(report.get("version"))
            or text_or_none((first(slow.get("version"), "VERSION") or {}).get("GCMiner")),
            mac=_upper(text_or_none(report.get("mac"))),
            serial=text_or_none(report.get("SerialNo")),
            pool_url=pool_in_use(slow.get("pools")),
            board_serials=tuple(
                s for raw in (board_serials if isinstance(board_serials, list) else []) if (s := text_or_none(raw))
            ),
            fault_codes=codes,
        )

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Sleep is a switch of its own; waking into a mode is the switch, then the mode."""
        if mode is not Mode.SLEEP and mode not in _ORDERS:
            return Outcome(Reason.UNSUPPORTED, "unknown is no mode to command")
        if login is None:
            return Outcome(Reason.NO_CREDENTIALS, "no auradine password is set; add it to the agent's settings")
        if mode is Mode.SLEEP:
            return (yield from _write({"sleep": "on"}, memory, login, now_s))
        woken = yield from _write({"sleep": "off"}, memory, login, now_s)
        if not woken.accepted:
            return woken
        return (yield from _write({"mode": _ORDERS[mode]}, memory, login, now_s))

    def limit_power(self, limit_w: float, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that sets the custom mode's power target [W]."""
        if login is None:
            return Outcome(Reason.NO_CREDENTIALS, "no auradine password is set; add it to the agent's settings")
        wanted = {"mode": "custom", "tune": "power", "power": int(limit_w)}
        return (yield from _write(wanted, memory, login, now_s))


def _page(page: str, token: Token | None) -> HttpRequest:
    headers = () if token is None else (("Token", token.key),)
    optional = page not in ("mode", "psu")
    return HttpRequest(page, "GET", f"/{page}", auth=Auth.TOKEN, headers=headers, optional=optional)


def _post(page: str, body: Mapping[str, Any], token: Token | None) -> HttpRequest:
    headers = () if token is None else (("Token", token.key),)
    payload = orjson.dumps({"command": page, **body})
    return HttpRequest(f"post_{page}", "POST", f"/{page}", payload, auth=Auth.TOKEN, headers=headers)


def _fetch_token(memory: Memory, login: Login, now_s: float) -> Generator[Request, Any, Outcome]:
    body = {"user": login.username, "password": login.password}
    reply = require_mapping((yield _post("token", body, None)), "token")
    key = text_or_none((first(reply, "Token") or {}).get("Token"))
    if key is None:
        _, code, said = status_of(reply)
        return Outcome(Reason.UNAUTHORISED, f"no token given (code {code}, {said[:60]!r}); check the auradine password")
    memory.token = Token(key, "", now_s + TOKEN_LIFE_S)
    return ACCEPTED


def _write(body: Mapping[str, Any], memory: Memory, login: Login, now_s: float) -> Generator[Request, Any, Outcome]:
    """One write to /mode; a token that is refused is renewed once."""
    told = ""
    for _ in range(2):
        if memory.token is None or memory.token.expires_s <= now_s:
            granted = yield from _fetch_token(memory, login, now_s)
            if not granted.accepted:
                return granted
        try:
            reply = yield _post("mode", body, memory.token)
        except DeviceUnreachable as error:
            if error.reason != Reason.UNAUTHORISED:
                raise
            memory.token, told = None, str(error)
            continue
        letter, code, said = status_of(reply)
        told = f"mode: code {code} {said[:80]}".rstrip()
        if _token_refused(reply):
            memory.token = None
            continue
        return ACCEPTED if letter == "S" else Outcome(Reason.FAILED, told, retry=True)
    return Outcome(Reason.UNAUTHORISED, f"{told}; refused with a fresh token, check the auradine password")


def _token_refused(reply: Any) -> bool:
    """Firmware may say so in words, with HTTP 200."""
    letter, _, said = status_of(reply)
    return letter in ("E", "F") and any(
        word in said.upper() for word in ("TOKEN", "SESSION", "EXPIRED", "UNAUTHORIZED")
    )


def _reason(state: DeviceState, *, expired: bool, signed_in: bool, knows_mode: bool) -> Reason:
    if expired:
        return Reason.UNAUTHORISED
    if state is DeviceState.WAKING:
        return Reason.WAKING
    if state is DeviceState.FAULT:
        return Reason.FAULT
    return Reason.NONE if signed_in or knows_mode else Reason.NO_CREDENTIALS


def _mode(asleep: bool | None, row: Mapping[str, Any] | None, memory: Memory) -> Mode:
    """A custom power target is the class's mode that lies nearest, if its curve is known."""
    if asleep or row is None:
        return Mode.SLEEP if asleep else Mode.UNKNOWN
    named = MODES.get(str(row.get("Mode", "")).lower())
    target_w = scaled(row.get("Power"))
    curve = {mode: watts for mode, watts in memory.mode_power_w.items() if mode in _ORDERS}
    if named is not None or target_w is None or not curve:
        return named or Mode.UNKNOWN
    wanted_w = target_w
    return min(curve, key=lambda mode: abs(curve[mode] - wanted_w))


def _state(
    asleep: bool | None, hashrate_hs: float | None, uptime_s: float | None, codes: tuple[str, ...]
) -> DeviceState:
    if hashrate_hs is None:
        return DeviceState.UNKNOWN
    if asleep:
        return DeviceState.STOPPING if hashrate_hs > 0 else DeviceState.SLEEPING
    if hashrate_hs > 0:
        return DeviceState.HASHING
    if asleep is False and uptime_s is not None and uptime_s < WAKE_S:
        return DeviceState.WAKING
    return DeviceState.FAULT if codes else DeviceState.IDLE


def _codes(boards: list[Mapping[str, Any]], led: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Boards that are not alive, and the lamp's code with its words."""
    codes = [
        f"board {row.get('ID')} {text_or_none(row.get('Status'))}"
        for row in boards
        if text_or_none(row.get("Status")) not in (None, "Alive")
    ]
    lamp = None if led is None else count(led.get("Code"))
    if led is not None and lamp is not None and lamp not in _QUIET_LEDS:
        codes.append(f"led {lamp} {text_or_none(led.get('Msg')) or ''}".rstrip())
    return tuple(codes[:16])


def _rows(reply: Any, section: str) -> list[Mapping[str, Any]]:
    rows = reply.get(section) if isinstance(reply, Mapping) else None
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _hottest(reply: Any) -> float | None:
    """Hottest chip or board of the temperature page; the control board is neither."""
    known: list[float] = []
    for part in _rows(reply, "Temperature"):
        if part.get("ID") == 0:
            continue
        for row in _rows(part, "ChipTemp") + _rows(part, "BoardTemp"):
            value = bounded(row.get("Temperature"), 1, ABSURD_C)
            known += [] if value is None else [value]
    return max(known, default=None)


def _watts(raw: Any) -> float | None:
    """58.94 of "58.94W"."""
    found = _WATTS.fullmatch(raw) if isinstance(raw, str) else None
    return scaled(raw if found is None else found.group(1))


def _upper(mac: str | None) -> str | None:
    return None if mac is None else mac.upper()


def _first_known(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
