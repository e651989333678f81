"""LuxOS (TCP 4028): joined reads, writes inside a session. Pure.

Reads: `summary+power+temps+config` in one connection. Writes: `logon` gives a SessionID (one session at a time; code
402 when another is active), then `curtail "sid,sleep"` or `"sid,wakeup"` (code 335), or `profileset` between
`atmset enabled=false` and, where it was on, `enabled=true`, and always `logoff`, or the device stays locked to everybody
until the session times out. With ATM on again the firmware may move the profile for heat within ATM's own bounds, which
nothing here changes: the level-triggered loop sees that as drift.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from agent.asic.families.cgminer import name_sections, plain, split_joined
from agent.asic.families.watts import at_or_below, mode_of_watts
from agent.asic.family import (
    ACCEPTED,
    Capabilities,
    Dialogue,
    Family,
    Login,
    Memory,
    Outcome,
    Reading,
    Request,
)
from agent.asic.figures import ABSURD_C, bounded, count, first, number, scaled, status_of, text_or_none
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

READS = ("summary", "power", "temps", "config")
SLOW_READS = ("version", "profiles", "pools", "events", "fans")
DEFAULT_PROFILE = "default"
WAKE_S = 60.0


class LuxOs(Family):
    """LuxOS by Luxor, API 3.x."""

    name = "luxos"
    capabilities = Capabilities(
        sleep=True,
        low=True,
        turbo=True,
        watt_limit=True,
        percent=False,
        has_power=True,
        shed_s=5.0,
        wake_s=60.0,
        cost="seconds of lost hashing; boards may tune for a minute after a profile change",
        source="vendor: sleep in under 5 s, full power in under 10 s in fast mode; 60 s is charged for tuning",
    )
    outdated_by_command = frozenset()
    probes = (plain("version"),)

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """All reads in one connection; one each where a device once refused the joined form."""
        if memory.refuses_joined:
            return tuple(plain(command) for command in READS)
        return (plain("+".join(READS)),)

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """Version, profiles with their watts, pools, events and fans: one connection, or one each."""
        if memory.refuses_joined:
            return tuple(plain(command, optional=True) for command in SLOW_READS)
        return (plain("+".join(SLOW_READS)),)

    def absorb(self, request: Request, reply: Any, memory: Memory) -> tuple[dict[str, Any], bool]:
        """Split a joined reply; a refusal is remembered."""
        if "+" not in request.name:
            return {request.name: reply}, False
        parts = split_joined(request.name, reply)
        if not parts:
            memory.refuses_joined = True
        return parts, not parts

    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """Every reply is signed LUXminer or says LuxOS."""
        return any("LUXminer" in (text := repr(reply)) or "LuxOS" in text for reply in replies.values())

    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """By section, or joined."""
        return name_sections(value)

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """Hashrates are GH/s. Watts without a PSU sensor (`PSU` false) are the firmware's estimate: `modelled`."""
        summary = first(replies.get("summary"), "SUMMARY")
        if summary is None:
            _, code, said = status_of(replies.get("summary"))
            raise BadReply(f"summary: no SUMMARY section (code {code}, {said[:60]!r})")
        config = first(replies.get("config"), "CONFIG") or {}
        power = first(replies.get("power"), "POWER") or {}
        slow = _slow(memory)
        version = first(slow.get("version"), "VERSION") or {}
        profile = text_or_none(config.get("Profile"))
        profile_w = _profile_watts(slow.get("profiles")).get(profile or "")
        hashrate_hs = next(
            (h for key in ("GHS 5s", "GHS 1m", "GHS av") if (h := scaled(summary.get(key), 1e9)) is not None),
            None,
        )
        power_w = scaled(power.get("Watts"))
        if power_w == 0 and hashrate_hs:
            power_w = None
        uptime_s = scaled(summary.get("Elapsed"))
        asleep = _asleep(config)
        state = _state(asleep, hashrate_hs, uptime_s, text_or_none(config.get("SystemStatus")))
        provenance = Provenance.DEVICE if power.get("PSU") is True else Provenance.MODELLED
        return Reading(
            power_w=power_w,
            hashrate_hs=hashrate_hs,
            temp_c=_hottest(replies.get("temps")),
            state=state,
            mode=_mode(asleep, profile, profile_w, memory),
            reason=Reason.WAKING if state is DeviceState.WAKING else Reason.NONE,
            provenance=Provenance.UNKNOWN if power_w is None else provenance,
            accepted_shares=count(summary.get("Accepted")),
            uptime_s=uptime_s,
            model=text_or_none(config.get("Model")) or text_or_none(version.get("Type")),
            firmware=text_or_none(version.get("LUXminer")) or _described(replies.get("summary")),
            mac=text_or_none(config.get("MACAddr")),
            serial=text_or_none(config.get("SerialNumber")),
            fan_rpm=max(
                (rpm for row in _rows(slow.get("fans"), "FANS") if (rpm := scaled(row.get("RPM"))) is not None),
                default=None,
            ),
            power_limit_w=profile_w,
            pool_url=next(
                (
                    text_or_none(row.get("URL"))
                    for row in _rows(slow.get("pools"), "POOLS")
                    if row.get("Stratum Active")
                ),
                None,
            ),
            fault_codes=_fault_codes(slow.get("events")),
        )

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Sleep and normal by curtail; low and turbo by the profile named for them, else by the class's watts."""
        if mode is Mode.UNKNOWN:
            return Outcome(Reason.UNSUPPORTED, "unknown is no mode to command")
        wanted, watts = memory.profiles.of(mode), memory.mode_power_w.get(mode)
        if mode in (Mode.LOW, Mode.TURBO) and wanted is None and watts is None:
            return Outcome(
                Reason.UNSUPPORTED,
                f"no LuxOS profile is named for {mode}, and the class has no watts for it; set one in the inventory",
            )
        if mode is Mode.SLEEP:
            return (yield from _in_session((("curtail", "sleep"),)))
        config = first((yield plain("config")), "CONFIG") or {}
        wake = (("curtail", "wakeup"),) if _asleep(config) else ()
        if wanted is None:
            reply = yield plain("profiles")
            known, current = _profile_watts(reply), text_or_none(config.get("Profile"))
            if _mode(False, current, known.get(current or ""), memory) is mode:
                return (yield from _in_session(wake)) if wake else ACCEPTED
            wanted = None if watts is None else at_or_below(known, watts)
            if wanted is None and mode is not Mode.NORMAL:
                return _none_below(watts, known)
            wanted = wanted or DEFAULT_PROFILE
        return (yield from _set_profile(wanted, config, wake))

    def limit_power(self, limit_w: float, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Dialogue that sets the profile at or below the limit [W]."""
        config = first((yield plain("config")), "CONFIG") or {}
        known = _profile_watts((yield plain("profiles")))
        wanted = at_or_below(known, limit_w)
        if wanted is None:
            return _none_below(limit_w, known)
        return (yield from _set_profile(wanted, config, ()))


def _slow(memory: Memory) -> Mapping[str, Any]:
    joined = "+".join(SLOW_READS)
    return {**memory.slow_replies, **split_joined(joined, memory.slow_replies.get(joined))}


def _rows(reply: Any, section: str) -> list[Mapping[str, Any]]:
    rows = reply.get(section) if isinstance(reply, Mapping) else None
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _profile_watts(reply: Any) -> dict[str, float]:
    """Watts by profile name; a profile without either is left out."""
    pairs = ((row.get("Profile Name"), number(row.get("Watts"))) for row in _rows(reply, "PROFILES"))
    return {name: watts for name, watts in pairs if isinstance(name, str) and watts is not None}


def _fault_codes(reply: Any) -> tuple[str, ...]:
    codes = [code for row in _rows(reply, "EVENTS") if (code := text_or_none(row.get("Code"))) is not None]
    return tuple(dict.fromkeys(codes))[:16]


def _none_below(limit_w: float | None, known: Mapping[str, float]) -> Outcome:
    lowest = min(known.values(), default=None)
    told = "the device lists none" if lowest is None else f"the lowest is {lowest:g} W"
    return Outcome(Reason.UNSUPPORTED, f"no LuxOS profile at or below {limit_w or 0:g} W; {told}")


def _set_profile(
    wanted: str, config: Mapping[str, Any], wake: tuple[tuple[str, str], ...]
) -> Generator[Request, Any, Outcome]:
    """Wake where asked, and set the profile unless it is set; ATM, which would refuse it, is left as it was found."""
    if wanted == text_or_none(config.get("Profile")):
        return (yield from _in_session(wake)) if wake else ACCEPTED
    atm = config.get("IsAtmEnabled")
    before = () if atm is False else (("atmset", "enabled=false"),)
    after = (("atmset", "enabled=true"),) if atm is True else ()
    return (yield from _in_session((*wake, *before, ("profileset", wanted)), after))


def _asleep(config: Mapping[str, Any]) -> bool | None:
    """`CurtailMode`: "None" was recorded on a running machine, "Sleep" follows curtail sleep; None when absent."""
    mode = text_or_none(config.get("CurtailMode"))
    return None if mode is None else mode.lower() == "sleep"


def _state(asleep: bool | None, hashrate_hs: float | None, uptime_s: float | None, status: str | None) -> DeviceState:
    if hashrate_hs is None:
        return DeviceState.UNKNOWN
    if asleep:
        return DeviceState.STOPPING if hashrate_hs > 0 else DeviceState.SLEEPING
    if hashrate_hs > 0:
        return DeviceState.HASHING
    if status is not None and "init" in status.lower():
        return DeviceState.WAKING
    return DeviceState.WAKING if asleep is False and uptime_s is not None and uptime_s < WAKE_S else DeviceState.IDLE


def _mode(asleep: bool | None, profile: str | None, profile_w: float | None, memory: Memory) -> Mode:
    """By the profile's name where the class names it, else by its watts, else normal."""
    if asleep is None:
        return Mode.UNKNOWN
    if asleep:
        return Mode.SLEEP
    for mode in (Mode.LOW, Mode.NORMAL, Mode.TURBO):
        if profile is not None and memory.profiles.of(mode) == profile:
            return mode
    by_watts = mode_of_watts(profile_w, memory.mode_power_w)
    return Mode.NORMAL if by_watts is Mode.UNKNOWN else by_watts


def _hottest(temps: Any) -> float | None:
    """Hottest corner of any board; 0 is how LuxOS writes a sensor that is not there."""
    rows = temps.get("TEMPS") if isinstance(temps, Mapping) else None
    known = [
        value
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, Mapping)
        for key, raw in row.items()
        if key not in ("ID", "TEMP") and (value := bounded(raw, -40, ABSURD_C))
    ]
    return max(known, default=None)


def _described(reply: Any) -> str | None:
    row = first(reply, "STATUS")
    described = None if row is None else text_or_none(row.get("Description"))
    return None if described is None else described.removeprefix("LUXminer ")


def _in_session(
    orders: tuple[tuple[str, str], ...], afterwards: tuple[tuple[str, str], ...] = ()
) -> Generator[Request, Any, Outcome]:
    """Log on, give the orders until one is refused, put `afterwards` back and log off whatever happened."""
    reply = yield plain("logon")
    letter, code, said = status_of(reply)
    session = text_or_none((first(reply, "SESSION") or {}).get("SessionID"))
    if code == 402:
        return Outcome(Reason.REFUSED, "code 402: another session is active on the device", retry=True)
    if letter == "E" or session is None:
        return Outcome(Reason.FAILED, f"logon: code {code} {said[:80]}", retry=True)
    outcome = yield from _give(orders, session)
    for order in afterwards:
        restored = yield from _give((order,), session)
        if outcome.accepted and not restored.accepted:
            outcome = Outcome(Reason.NONE, f"accepted, but {' '.join(order)} failed: {restored.detail}")
    try:
        yield plain("logoff", session)
    except (DeviceUnreachable, BadReply) as error:
        if outcome.accepted:
            outcome = Outcome(Reason.NONE, f"accepted, but logoff failed: {error}")
    return outcome


def _give(orders: tuple[tuple[str, str], ...], session: str) -> Generator[Request, Any, Outcome]:
    try:
        for command, argument in orders:
            outcome = _outcome(command, (yield plain(command, f"{session},{argument}")))
            if not outcome.accepted:
                return outcome
    except (DeviceUnreachable, BadReply) as error:
        reason = Reason(error.reason) if isinstance(error, DeviceUnreachable) else Reason.GARBLED
        return Outcome(reason, str(error), retry=True)
    return ACCEPTED


def _outcome(command: str, reply: Any) -> Outcome:
    letter, code, said = status_of(reply)
    if letter in ("S", "I"):
        return ACCEPTED
    told = f"{command}: code {code} {said[:80]}".rstrip()
    if code == 14:
        return Outcome(Reason.UNSUPPORTED, told)
    return Outcome(Reason.FAILED, told, retry=True)
