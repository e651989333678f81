"""VNish (AnthillOS) 1.2: a JSON API under /api/v1 on the web port. Pure.

Reads are answered without a login as far as recordings tell; a password opens `unlock`, whose token travels as bearer.
Figures mix units: `hr_*` in what `info.hr_measure` says (GH/s), `average_hashrate` and `instant_hashrate` in TH/s.
Power is set by preset: the name of a preset is its watts. After `mining/stop` a machine stays stopped over a reboot
only where `misc.remain_stopped_on_reboot` is set.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import orjson

from agent.asic.families.watts import at_or_below, mode_of_watts
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
    Reading,
    Request,
    Token,
)
from agent.asic.figures import ABSURD_C, bounded, count, number, require_mapping, scaled, text_or_none
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

SUMMARY, INFO, PERF, SETTINGS, PRESETS = "summary", "info", "perf-summary", "settings", "autotune/presets"
TOKEN_LIFE_S = 3000.0  # assumed; a token that lapsed earlier is renewed on the first 401
NO_TOKEN_S = 600.0
_UNITS = {"MH/s": 1e6, "GH/s": 1e9, "TH/s": 1e12}
_STATES = {
    "mining": DeviceState.HASHING,
    "auto-tuning": DeviceState.HASHING,
    "initializing": DeviceState.WAKING,
    "starting": DeviceState.WAKING,
    "restarting": DeviceState.WAKING,
    "shutting-down": DeviceState.STOPPING,
    "stopped": DeviceState.SLEEPING,
    "failure": DeviceState.FAULT,
}
_ASLEEP = (DeviceState.SLEEPING, DeviceState.STOPPING)


class VNish(Family):
    """VNish."""

    name = "vnish"
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
        cost="a start or a new preset restarts mining; a preset that was never tuned tunes for long",
        source="assumed: no sourced figure; stopped over a reboot only with remain_stopped_on_reboot set",
    )
    factory_login = Login("admin", "admin")  # public knowledge; only the password is sent
    probes = (
        HttpRequest(INFO, "GET", "/api/v1/info", auth=Auth.NONE),
        HttpRequest("web_root", "GET", "/", auth=Auth.NONE, plain_text=True),
    )

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """`summary` has every fast figure."""
        return (_get(SUMMARY, memory.token),)

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """Model, version, MAC and the unit of hashrates; the preset in force."""
        return (_get(INFO, memory.token), _get(PERF, memory.token, optional=True))

    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """Its name in info, in a model or on the web page."""
        said = repr({name: replies.get(name) for name in (SUMMARY, INFO, "stats", "web_root")}).lower()
        return "vnish" in said or "anthillos" in said or PERF in replies or PRESETS in replies or SETTINGS in replies

    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """By the keys of each path; its cgminer replies only where they are signed VNish."""
        if isinstance(value, list):
            is_presets = any(isinstance(row, Mapping) and "modded_psu_required" in row for row in value)
            return {PRESETS: value} if is_presets else {}
        if not isinstance(value, Mapping):
            return {}
        miner = value.get("miner")
        if isinstance(miner, Mapping):
            if "miner_status" in miner:
                return {SUMMARY: value}
            return {SETTINGS: value} if "overclock" in miner else {}
        if "fw_name" in value and "hr_measure" in value:
            return {INFO: value}
        if "current_preset" in value:
            return {PERF: value}
        return {"stats": value} if "STATS" in value and "Vnish" in repr(value) else {}

    def sign_in(self, memory: Memory, login: Login | None, now_s: float) -> Dialogue | None:
        """Fetch a token where there is a password; a device that gives none is read without."""
        if login is None or (memory.token is not None and memory.token.expires_s > now_s):
            return None
        return _sign_in(memory, login, now_s)

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """Power is `modelled`: three boards that hash unequally all claim the same watts."""
        slow = {**memory.slow_replies, **replies}
        info, perf = _mapping(slow.get(INFO)), _mapping(slow.get(PERF))
        miner = _mapping(_mapping(replies.get(SUMMARY)).get("miner"))
        if not miner and "stats" in replies:
            miner = _from_stats(replies["stats"])
        if not miner and not info and not perf:
            raise BadReply("summary: no `miner` object")
        status = _mapping(miner.get("miner_status"))
        unit = _UNITS.get(str(info.get("hr_measure")), 1e9)
        hashrate_hs = scaled(miner.get("hr_realtime"), unit)
        if hashrate_hs is None:
            hashrate_hs = scaled(miner.get("instant_hashrate"), 1e12)
        word = text_or_none(status.get("miner_state"))
        state = _state(word, hashrate_hs)
        power_w = scaled(miner.get("power_consumption"))
        preset_w = number(_mapping(perf.get("current_preset")).get("name"))
        pools = [_mapping(pool) for pool in _rows(miner.get("pools")) if _mapping(pool).get("pool_type") != "DevFee"]
        accepted = [n for pool in pools if (n := count(pool.get("accepted"))) is not None]
        network = _mapping(_mapping(info.get("system")).get("network_status"))
        model = text_or_none(info.get("miner")) or text_or_none(miner.get("miner_type"))
        return Reading(
            power_w=power_w,
            hashrate_hs=hashrate_hs,
            temp_c=_hottest(miner),
            state=state,
            mode=Mode.SLEEP if state in _ASLEEP else mode_of_watts(preset_w, memory.mode_power_w),
            reason=Reason.WAKING if state is DeviceState.WAKING else _reason(state),
            provenance=Provenance.UNKNOWN if power_w is None else Provenance.MODELLED,
            accepted_shares=sum(accepted) if accepted else None,
            uptime_s=scaled(status.get("miner_state_time")),
            fan_rpm=max(_numbers(_mapping(miner.get("cooling")).get("fans"), "rpm"), default=None),
            power_limit_w=preset_w,
            model=None if model is None else model.split(" (")[0],
            firmware=_firmware(info, miner),
            mac=text_or_none(network.get("mac")),
            serial=_serial(info),
            pool_url=next(
                (text_or_none(p.get("url")) for p in pools if p.get("status") in ("active", "working")), None
            ),
            fault_codes=tuple(dict.fromkeys(_faults(miner)))[:16],
        )

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Sleep is mining/stop. The others set the preset of the class's watts, then start what stands still."""
        if mode is Mode.UNKNOWN:
            return Outcome(Reason.UNSUPPORTED, "unknown is no mode to command")
        watts = memory.mode_power_w.get(mode)
        if watts is None and mode in (Mode.LOW, Mode.TURBO):
            return Outcome(Reason.UNSUPPORTED, f"the class has no watts for {mode}; set its power in the inventory")
        if login is None:
            return _NO_LOGIN
        return (yield from _with_token(_orders(mode, watts), memory, login, now_s))

    def limit_power(self, limit_w: float, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that sets the highest preset at or below the limit [W]."""
        if login is None:
            return _NO_LOGIN
        return (yield from _with_token(_orders(Mode.UNKNOWN, limit_w), memory, login, now_s))


_NO_LOGIN = Outcome(Reason.NO_CREDENTIALS, "no vnish password is set; add it to the agent's settings")

# Orders as requests without their token: `_with_token` adds it, so that a lapsed one is renewed behind the scenes.
_Orders = Generator[HttpRequest, Any, Outcome]


def _get(path: str, token: Token | None, *, optional: bool = False) -> HttpRequest:
    return _bear(HttpRequest(path, "GET", f"/api/v1/{path}", auth=Auth.TOKEN, optional=optional), token)


def _post(path: str, body: Any = None) -> HttpRequest:
    raw = b"{}" if body is None else orjson.dumps(body)
    return HttpRequest(path, "POST", f"/api/v1/{path}", raw, Auth.TOKEN)


def _bear(request: HttpRequest, token: Token | None) -> HttpRequest:
    if token is None or not token.key:
        return request
    headers = (("Authorization", f"Bearer {token.key}"),)
    return HttpRequest(
        request.name, request.method, request.path, request.body, request.auth, headers, optional=request.optional
    )


def _unlock(memory: Memory, login: Login, now_s: float) -> Generator[Request, Any, Outcome]:
    reply = yield _post("unlock", {"pw": login.password})
    key = text_or_none(_mapping(reply).get("token"))
    raw = _mapping(reply).get("token")
    if key is None or not isinstance(raw, str):
        return Outcome(Reason.UNAUTHORISED, "unlock brought no token; check the vnish password")
    memory.token = Token(raw, "", now_s + TOKEN_LIFE_S)
    return ACCEPTED


def _sign_in(memory: Memory, login: Login, now_s: float) -> Dialogue:
    try:
        opened = yield from _unlock(memory, login, now_s)
    except DeviceUnreachable as error:
        if error.reason not in (Reason.UNAUTHORISED, Reason.UNSUPPORTED, Reason.GARBLED):
            raise
        opened = Outcome(Reason.UNAUTHORISED)
    if not opened.accepted:  # commands try again, and say what is wrong
        memory.token = Token("", "", now_s + NO_TOKEN_S)
    return ACCEPTED


def _with_token(orders: _Orders, memory: Memory, login: Login, now_s: float) -> Dialogue:
    reply: Any = None
    started = False
    while True:
        try:
            request = orders.send(reply) if started else next(orders)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome
        started = True
        for attempt in (1, 2):
            if memory.token is None or not memory.token.key or memory.token.expires_s <= now_s:
                opened = yield from _unlock(memory, login, now_s)
                if not opened.accepted:
                    return opened
            try:
                reply = yield _bear(request, memory.token)
                break
            except DeviceUnreachable as error:
                if error.reason != Reason.UNAUTHORISED or attempt == 2:
                    raise
                memory.token = None


def _orders(mode: Mode, watts: float | None) -> _Orders:
    """What to ask for a mode; `unknown` with watts sets only the preset."""
    if mode is Mode.SLEEP:
        return _success("mining/stop", (yield _post("mining/stop")))
    restart = False
    if watts is not None:
        chosen = yield from _set_preset(watts)
        if isinstance(chosen, Outcome):
            return chosen
        restart = chosen
    if mode is Mode.UNKNOWN and not restart:
        return ACCEPTED
    status = _mapping(_mapping(_mapping((yield _get(SUMMARY, None))).get("miner")).get("miner_status"))
    standing = _STATES.get(str(status.get("miner_state"))) in (*_ASLEEP, DeviceState.FAULT)
    if standing and mode is not Mode.UNKNOWN:
        return _success("mining/start", (yield _post("mining/start")))
    if restart and not standing:
        return _success("mining/restart", (yield _post("mining/restart")))
    return ACCEPTED


def _set_preset(limit_w: float) -> Generator[HttpRequest, Any, Outcome | bool]:
    """Set the preset at or below; an outcome when it could not be set, else whether mining has to be restarted."""
    presets = yield _get(PRESETS, None)
    settings = require_mapping((yield _get(SETTINGS, None)), SETTINGS)
    overclock = _mapping(_mapping(settings.get("miner")).get("overclock"))
    if not overclock:
        return Outcome(Reason.FAILED, "settings hold no overclock section; left alone")
    known = _preset_watts(presets, modded=overclock.get("modded_psu") is True)
    name = at_or_below(known, limit_w)
    if name is None:
        lowest = min(known.values(), default=None)
        told = "there are none" if lowest is None else f"the lowest is {lowest:g} W"
        return Outcome(Reason.UNSUPPORTED, f"no preset at or below {limit_w:g} W; {told}")
    if str(overclock.get("preset")) == name:
        return False
    answer = yield _post(SETTINGS, {"miner": {"overclock": {**overclock, "preset": name}}})
    after = _mapping(_mapping((yield _get(SETTINGS, None))).get("miner"))
    taken = _mapping(after.get("overclock")).get("preset")  # the answer to the write says the same whatever happened
    if str(taken) != name:
        return Outcome(Reason.FAILED, f"preset {name} was not taken (reads {taken})", retry=True)
    return _mapping(answer).get("restart_required") is True


def _preset_watts(presets: Any, *, modded: bool) -> dict[str, float]:
    """Watts by preset name; those for a modified power supply only where one is declared."""
    rows = presets.get("presets") if isinstance(presets, Mapping) else presets
    known: dict[str, float] = {}
    for row in _rows(rows):
        preset = _mapping(row)
        name, watts = preset.get("name"), number(preset.get("name"))
        if isinstance(name, str) and watts is not None and (modded or preset.get("modded_psu_required") is not True):
            known[name] = watts
    return known


def _success(path: str, reply: Any) -> Outcome:
    said = _mapping(reply)
    if said.get("success") is False or "err" in said:
        return Outcome(Reason.FAILED, f"{path}: {str(said.get('err', 'refused'))[:80]}", retry=True)
    return ACCEPTED


def _state(word: str | None, hashrate_hs: float | None) -> DeviceState:
    state = _STATES.get(word or "", DeviceState.UNKNOWN)
    if state is DeviceState.HASHING and not hashrate_hs:
        return DeviceState.UNKNOWN if hashrate_hs is None else DeviceState.IDLE
    if state is DeviceState.SLEEPING and hashrate_hs:
        return DeviceState.STOPPING
    return state


def _reason(state: DeviceState) -> Reason:
    return Reason.FAULT if state is DeviceState.FAULT else Reason.NONE


def _firmware(info: Mapping[str, Any], miner: Mapping[str, Any]) -> str | None:
    version = text_or_none(info.get("fw_version"))
    if version is not None:
        return version
    named = text_or_none(miner.get("miner_type")) or ""
    return named.partition("(Vnish ")[2].rstrip(")") or None


def _serial(info: Mapping[str, Any]) -> str | None:
    serial = text_or_none(info.get("serial"))
    return None if serial == "N/A" else serial


def _hottest(miner: Mapping[str, Any]) -> float | None:
    known = (bounded(_mapping(miner.get(key)).get("max"), 1, ABSURD_C) for key in ("chip_temp", "pcb_temp"))
    return max((value for value in known if value is not None), default=None)


def _faults(miner: Mapping[str, Any]) -> list[str]:
    """What failed boards say."""
    statuses = [_mapping(_mapping(chain).get("status")) for chain in _rows(miner.get("chains"))]
    told = [text_or_none(status.get("description")) for status in statuses if status.get("state") == "failure"]
    return [text or "failure" for text in told]


def _from_stats(reply: Any) -> Mapping[str, Any]:
    """The same figures out of its cgminer `stats`, which a recording may hold alone; hashrates in GH/s."""
    head, row = ([_mapping(r) for r in _rows(_mapping(reply).get("STATS"))] + [{}, {}])[:2]
    chips = [n for key, raw in row.items() if key.startswith("temp_chip") for n in _split(raw)]
    return {
        "miner_type": head.get("Type"),
        "miner_status": {"miner_state": row.get("state")},
        "hr_realtime": row.get("total_rate", row.get("GHS 5s")),
        "chip_temp": {"max": max(chips, default=None)},
        "power_consumption": _sum(row, "chain_consumption"),
        "cooling": {"fans": [{"rpm": row.get(f"fan{n}")} for n in range(1, 5)]},
    }


def _split(raw: Any) -> list[float]:
    return [n for part in str(raw).split("-") if (n := number(part)) is not None]


def _sum(row: Mapping[str, Any], prefix: str) -> float | None:
    known = [n for key, raw in row.items() if key.startswith(prefix) and (n := number(raw)) is not None]
    return sum(known) if known else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _rows(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _numbers(value: Any, key: str) -> list[float]:
    return [n for row in _rows(value) if (n := scaled(_mapping(row).get(key))) is not None]
