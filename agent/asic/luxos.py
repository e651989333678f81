"""LuxOS (TCP 4028): joined reads, writes inside a session. Pure.

Reads: `summary+power+temps+config` in one connection. Writes: `logon` gives a SessionID (one session at a time; code
402 when another is active), then `curtail "sid,sleep"` or `"sid,wakeup"` (code 335), or `profileset` after
`atmset enabled=false`, and always `logoff`, or the device stays locked to everybody until the session times out.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from agent.asic.cgminer import name_sections, plain, split_joined
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
from agent.asic.figures import bounded, count, first, scaled, status_of, text_or_none
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

READS = ("summary", "power", "temps", "config")
DEFAULT_PROFILE = "default"
WAKE_S = 60.0


class LuxOs(Family):
    """LuxOS by Luxor, API 3.x."""

    name = "luxos"
    capabilities = Capabilities(
        sleep=True,
        low=True,
        turbo=True,
        watt_limit=False,
        percent=False,
        has_power=True,
        shed_s=5.0,
        wake_s=60.0,
        cost="seconds of lost hashing; boards may tune for a minute after a profile change",
        source="vendor: sleep in under 5 s, full power in under 10 s in fast mode; 60 s is charged for tuning",
    )
    slow_after_command = False
    probes = (plain("version"),)

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """All reads in one connection; one each where a device once refused the joined form."""
        if memory.refuses_joined:
            return tuple(plain(command) for command in READS)
        return (plain("+".join(READS)),)

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """Firmware version."""
        return (plain("version"),)

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
        version = first(memory.slow_replies.get("version"), "VERSION") or {}
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
            mode=_mode(asleep, text_or_none(config.get("Profile")), memory),
            reason=Reason.WAKING if state is DeviceState.WAKING else Reason.NONE,
            provenance=Provenance.UNKNOWN if power_w is None else provenance,
            accepted_shares=count(summary.get("Accepted")),
            uptime_s=uptime_s,
            model=text_or_none(config.get("Model")) or text_or_none(version.get("Type")),
            firmware=text_or_none(version.get("LUXminer")) or _described(replies.get("summary")),
            mac=text_or_none(config.get("MACAddr")),
        )

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Sleep and normal by curtail; low and turbo by the profile named for them in the class."""
        if mode is Mode.UNKNOWN:
            return Outcome(Reason.UNSUPPORTED, "unknown is no mode to command")
        wanted = memory.profiles.of(mode)
        if mode in (Mode.LOW, Mode.TURBO) and wanted is None:
            return Outcome(
                Reason.UNSUPPORTED, f"no LuxOS profile is named for {mode}; set it in the class of the inventory"
            )
        if mode is Mode.SLEEP:
            return (yield from _in_session((("curtail", "sleep"),)))
        config = first((yield plain("config")), "CONFIG") or {}
        orders: list[tuple[str, str]] = []
        if _asleep(config):
            orders.append(("curtail", "wakeup"))
        current = text_or_none(config.get("Profile"))
        if mode is Mode.NORMAL and wanted is None and _mode(False, current, memory) is not Mode.NORMAL:
            wanted = DEFAULT_PROFILE
        if wanted is not None and wanted != current:
            orders += [("atmset", "enabled=false"), ("profileset", wanted)]
        if not orders:
            return ACCEPTED
        return (yield from _in_session(tuple(orders)))


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


def _mode(asleep: bool | None, profile: str | None, memory: Memory) -> Mode:
    if asleep is None:
        return Mode.UNKNOWN
    if asleep:
        return Mode.SLEEP
    named = {memory.profiles.low: Mode.LOW, memory.profiles.turbo: Mode.TURBO}
    return Mode.NORMAL if profile is None else named.get(profile, Mode.NORMAL)


def _hottest(temps: Any) -> float | None:
    """Hottest corner of any board; 0 is how LuxOS writes a sensor that is not there."""
    rows = temps.get("TEMPS") if isinstance(temps, Mapping) else None
    known = [
        value
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, Mapping)
        for key, raw in row.items()
        if key not in ("ID", "TEMP") and (value := bounded(raw, -40, 200))
    ]
    return max(known, default=None)


def _described(reply: Any) -> str | None:
    row = first(reply, "STATUS")
    described = None if row is None else text_or_none(row.get("Description"))
    return None if described is None else described.removeprefix("LUXminer ")


def _in_session(orders: tuple[tuple[str, str], ...]) -> Generator[Request, Any, Outcome]:
    """Log on, give the orders until one is refused, log off whatever happened."""
    reply = yield plain("logon")
    letter, code, said = status_of(reply)
    session = text_or_none((first(reply, "SESSION") or {}).get("SessionID"))
    if code == 402:
        return Outcome(Reason.REFUSED, "code 402: another session is active on the device", retry=True)
    if letter == "E" or session is None:
        return Outcome(Reason.FAILED, f"logon: code {code} {said[:80]}", retry=True)
    outcome = ACCEPTED
    try:
        for command, argument in orders:
            answer = yield plain(command, f"{session},{argument}")
            outcome = _outcome(command, answer)
            if not outcome.accepted:
                break
    except (DeviceUnreachable, BadReply) as error:
        reason = Reason(error.reason) if isinstance(error, DeviceUnreachable) else Reason.GARBLED
        outcome = Outcome(reason, str(error), retry=True)
    try:
        yield plain("logoff", session)
    except (DeviceUnreachable, BadReply) as error:
        if outcome.accepted:
            outcome = Outcome(Reason.NONE, f"accepted, but logoff failed: {error}")
    return outcome


def _outcome(command: str, reply: Any) -> Outcome:
    letter, code, said = status_of(reply)
    if letter in ("S", "I"):
        return ACCEPTED
    told = f"{command}: code {code} {said[:80]}".rstrip()
    if code == 14:
        return Outcome(Reason.UNSUPPORTED, told)
    return Outcome(Reason.FAILED, told, retry=True)
