"""ePIC's UMC OS (PowerPlay): HTTP on port 4028, reads without a login, every write with its password in the body. Pure.

`/summary` has every fast figure in one request. `POST /miner {"param": "Stop" | "Autostart"}` sleeps and wakes; answers
are `{"result": bool, "error": ...}` under HTTP 200, also for a wrong password. Watts are set through the perpetual
tuner: in watts where its algorithm PowerTune is offered, else as the hashrate of the tune preset at or below.
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
    Port,
    Reading,
    Request,
)
from agent.asic.figures import ABSURD_C, bounded, count, number, require_mapping, scaled, text_or_none
from gridpivot.errors import BadReply
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

SUMMARY, CAPABILITIES, NETWORK, TEMPS = "summary", "capabilities", "network", "temps"
POWER_TUNE = "PowerTune"
WAKE_S = 300.0
_STATES = {"mining": DeviceState.HASHING, "idling": DeviceState.SLEEPING}


class Epic(Family):
    """ePIC PowerPlay."""

    name = "epic"
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
        cost="an autostart boots the boards; a new target is tuned for minutes",
        source="assumed: no sourced figure",
    )
    factory_login = Login("root", "letmein")  # public knowledge; only the password is sent
    probes = (HttpRequest(CAPABILITIES, "GET", "/capabilities", auth=Auth.NONE, port=Port.API),)

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """`summary`."""
        return (_get(SUMMARY),)

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """Model, serials and presets; the MAC address."""
        return (_get(CAPABILITIES), _get(NETWORK, optional=True))

    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """Keys that no other firmware has, in any reply."""
        return any(self.name_reply("", reply) for reply in replies.values())

    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """By the keys of each path."""
        if isinstance(value, list):
            is_temps = bool(value) and all(
                isinstance(r, Mapping) and {"Data", "Index", "Total"} <= set(r) for r in value
            )
            return {TEMPS: value} if is_temps and stem in ("", TEMPS) else {}
        if not isinstance(value, Mapping):
            return {}
        if "HBs" in value and "Session" in value:
            return {SUMMARY: value}
        if "Performance Estimator" in value or ("Model" in value and "Coins" in value):
            return {CAPABILITIES: value}
        if any("mac_address" in _mapping(value.get(way)) for way in ("dhcp", "static")):
            return {NETWORK: value}
        return {}

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """Hashrates are MH/s by board. Input power without an input current is an estimate: `modelled`."""
        slow = {**memory.slow_replies, **replies}
        summary, abilities, network = (_mapping(slow.get(name)) for name in (SUMMARY, CAPABILITIES, NETWORK))
        if not summary and not abilities and not network and TEMPS not in replies:
            raise BadReply("summary: no object of ePIC's")
        session, supply = _mapping(summary.get("Session")), _mapping(summary.get("Power Supply Stats"))
        operating = text_or_none(_mapping(summary.get("Status")).get("Operating State"))
        hashrate_hs = _hashrate(summary.get("HBs"), operating)
        uptime_s = scaled(session.get("Uptime"))
        state = _state(operating, hashrate_hs, uptime_s)
        power_w = scaled(supply.get("Input Power"))
        if power_w == 0 and hashrate_hs:
            power_w = None
        measured = Provenance.DEVICE if number(supply.get("Input Current")) else Provenance.MODELLED
        target_w = _target_w(summary, abilities)
        error = text_or_none(_mapping(summary.get("Status")).get("Last Error"))
        asleep = state in (DeviceState.SLEEPING, DeviceState.STOPPING)
        return Reading(
            power_w=power_w,
            hashrate_hs=hashrate_hs,
            temp_c=_hottest(summary.get("HBs"), replies.get(TEMPS)),
            state=state,
            mode=Mode.SLEEP if asleep else mode_of_watts(target_w, memory.mode_power_w),
            reason=Reason.WAKING if state is DeviceState.WAKING else Reason.NONE,
            provenance=Provenance.UNKNOWN if power_w is None else measured,
            accepted_shares=count(session.get("Accepted")),
            uptime_s=uptime_s,
            fan_rpm=max((n for raw in _mapping(summary.get("Fans Rpm")).values() if (n := scaled(raw))), default=None),
            power_limit_w=target_w,
            model=text_or_none(abilities.get("Model")),
            firmware=text_or_none(summary.get("Software")),
            mac=next(
                (
                    mac
                    for way in ("dhcp", "static")
                    if (mac := text_or_none(_mapping(network.get(way)).get("mac_address")))
                ),
                None,
            ),
            serial=text_or_none(_mapping(abilities.get("Control Board Version")).get("cpuSerial")),
            pool_url=text_or_none(_mapping(summary.get("Stratum")).get("Current Pool")),
            board_serials=tuple(s for raw in _rows(abilities.get("Board Serial Numbers")) if (s := text_or_none(raw))),
            fault_codes=() if error is None else (error,),
        )

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Sleep is Stop. The others set the tuner to the class's watts, then Autostart what idles."""
        if mode is Mode.UNKNOWN:
            return Outcome(Reason.UNSUPPORTED, "unknown is no mode to command")
        watts = memory.mode_power_w.get(mode)
        if watts is None and mode in (Mode.LOW, Mode.TURBO):
            return Outcome(Reason.UNSUPPORTED, f"the class has no watts for {mode}; set its power in the inventory")
        if login is None:
            return _NO_LOGIN
        if mode is Mode.SLEEP:
            return (yield from _write("miner", "Stop", login))
        summary = require_mapping((yield _get(SUMMARY)), SUMMARY)
        if watts is not None:
            outcome = yield from _set_watts(watts, summary, login)
            # A machine without a preset for normal still wakes; low and turbo are nothing but their watts.
            if not outcome.accepted and not (mode is Mode.NORMAL and outcome.reason is Reason.UNSUPPORTED):
                return outcome
        if _mapping(summary.get("Status")).get("Operating State") == "Idling":
            return (yield from _write("miner", "Autostart", login))
        return ACCEPTED

    def limit_power(self, limit_w: float, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that sets the tuner to a power target, or to the preset at or below [W]."""
        if login is None:
            return _NO_LOGIN
        summary = require_mapping((yield _get(SUMMARY)), SUMMARY)
        return (yield from _set_watts(limit_w, summary, login))


_NO_LOGIN = Outcome(Reason.NO_CREDENTIALS, "no epic password is set; add it to the agent's settings")


def _get(path: str, *, optional: bool = False) -> HttpRequest:
    return HttpRequest(path, "GET", f"/{path}", auth=Auth.NONE, port=Port.API, optional=optional)


def _write(path: str, parameter: Any, login: Login) -> Generator[Request, Any, Outcome]:
    body = orjson.dumps({"param": parameter, "password": login.password})
    reply = yield HttpRequest(path, "POST", f"/{path}", body, Auth.TOKEN, port=Port.API)
    if _mapping(reply).get("result") is True:
        return ACCEPTED
    said = str(_mapping(reply).get("error") or "refused")[:80]
    if "password" in said.lower():
        return Outcome(Reason.UNAUTHORISED, f"{path}: the password was not accepted; check the epic password")
    return Outcome(Reason.FAILED, f"{path}: {said}", retry=True)


def _set_watts(limit_w: float, summary: Mapping[str, Any], login: Login) -> Generator[Request, Any, Outcome]:
    """Set the perpetual tuner's target, keeping its throttle settings, and read it back."""
    abilities = require_mapping((yield _get(CAPABILITIES)), CAPABILITIES)
    current, settings = _algorithm(summary)
    offered = {str(_mapping(row).get("algorithm")) for row in _rows(abilities.get("PerpetualTune"))}
    if POWER_TUNE in offered:
        algorithm, target = POWER_TUNE, int(limit_w)
    else:
        presets = _presets(abilities)
        name = at_or_below({str(watts): watts for watts in presets}, limit_w)
        if name is None or (current or "") not in offered:
            return Outcome(Reason.UNSUPPORTED, f"no PowerTune, and no tune preset at or below {limit_w:g} W")
        algorithm, target = current or "", int(presets[float(name)])
    if algorithm == current and number(settings.get("Target")) == target:
        return ACCEPTED
    order: dict[str, Any] = {"algo": algorithm, "target": target}
    floor, step = number(settings.get("Min Throttle Target")), number(settings.get("Throttle Step"))
    # A floor in the other unit, or above the new target, would keep the tuner from reaching it.
    order["min_throttle"] = int(floor) if floor is not None and algorithm == current and floor <= target else target
    order["throttle_step"] = 1 if step is None else int(step)
    written = yield from _write("perpetualtune/algo", order, login)
    if not written.accepted:
        return written
    taken, after = _algorithm(require_mapping((yield _get(SUMMARY)), SUMMARY))
    if taken != algorithm or number(after.get("Target")) != target:
        return Outcome(Reason.FAILED, f"target {target} of {algorithm} was not taken", retry=True)
    return ACCEPTED


def _algorithm(summary: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """Name and settings of the perpetual tuner's algorithm; None when it does not run."""
    tuner = _mapping(summary.get("PerpetualTune"))
    for name, settings in _mapping(tuner.get("Algorithm")).items():
        return str(name), _mapping(settings)
    return None, {}


def _presets(abilities: Mapping[str, Any]) -> dict[float, float]:
    """Hashrate [TH/s] by watts of the tune presets."""
    rows = (
        (number(_mapping(r).get("power")), number(_mapping(r).get("hashrate")))
        for r in _rows(abilities.get("Tune Presets"))
    )
    return {watts: terahash for watts, terahash in rows if watts is not None and terahash is not None}


def _target_w(summary: Mapping[str, Any], abilities: Mapping[str, Any]) -> float | None:
    """Watts the tuner aims at: its own where it aims at watts, else those of the least preset that covers its hashrate."""
    name, settings = _algorithm(summary)
    target = number(settings.get("Target"))
    if name is None or target is None:
        return None
    if name == POWER_TUNE or str(settings.get("Unit", "")).upper() == "W":
        return target
    covering = [watts for watts, terahash in _presets(abilities).items() if terahash >= int(target)]
    return min(covering, default=None)


def _hashrate(boards: Any, operating: str | None) -> float | None:
    """Sum over boards [H/s]. A machine that says it idles and lists no boards hashes nothing."""
    if not isinstance(boards, list) or not boards:
        return 0.0 if operating == "Idling" else None
    known = [n for board in boards for n in [_first_hashrate(board)] if n is not None]
    return sum(known) if known else None


def _first_hashrate(board: Any) -> float | None:
    rates = _rows(_mapping(board).get("Hashrate"))
    return scaled(rates[0], 1e6) if rates else None


def _hottest(boards: Any, temps: Any) -> float | None:
    raw = [_mapping(board).get("Temperature") for board in _rows(boards)]
    if not raw:
        raw = [value for row in _rows(temps) for value in _rows(_mapping(row).get("Data"))]
    return max((value for one in raw if (value := bounded(one, -40, ABSURD_C)) is not None), default=None)


def _state(operating: str | None, hashrate_hs: float | None, uptime_s: float | None) -> DeviceState:
    """Words other than Mining and Idling are not documented: such a machine is judged by its hashrate."""
    named = _STATES.get((operating or "").lower())
    if named is DeviceState.SLEEPING:
        return DeviceState.STOPPING if hashrate_hs else DeviceState.SLEEPING
    if hashrate_hs is None or (operating is None and not hashrate_hs):
        return DeviceState.UNKNOWN
    if hashrate_hs > 0:
        return DeviceState.HASHING
    return DeviceState.WAKING if uptime_s is not None and uptime_s < WAKE_S else DeviceState.IDLE


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _rows(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
