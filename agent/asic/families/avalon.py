"""Canaan Avalon: cgminer with its figures packed into one string of `KEY[value ...]` (TCP 4028). Pure.

`estats` (`stats` where a firmware does not know it, `litestats` in recordings) holds `MM ID0` or `MM ID0:Summary`:
GHSspd is the hashrate now [GH/s], TMax the hottest chip [C], MPO the power limit [W]. Watts are WALLPOWER where firmware
has it, else the fifth figure of PS: what the supply delivers behind its own losses, 5-10 % below the wall. Sleep is
`ascset 0,softoff,1:<unix>`, a few seconds ahead by the device's own clock (`When` of a reply). Firmware may answer `softon`
by closing the connection.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any

from agent.asic.families.cgminer import name_sections, plain, pool_in_use, split_joined
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
)
from agent.asic.figures import ABSURD_C, bounded, count, first, number, scaled, status_of, text_or_none
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

AHEAD_S = 5  # pyasic and asic-rs both date the switch this far ahead
WAKE_S = 300.0
# Three work modes in this order on the small machines; on the A series 0 and 1 mean something else, so it has none here.
LEVELS: Mapping[Mode, int] = {Mode.LOW: 0, Mode.NORMAL: 1, Mode.TURBO: 2}
_LEVELLED = re.compile(r"avalon\s*(?:home\s*)?(?:q|nano|mini)", re.IGNORECASE)
_PAIR = re.compile(r"(\w+)\[([^\]]*)\]")
_MM = re.compile(r"MM ID\d+")
_FIGURES = ("estats", "stats", "litestats")
PS_WATTS = 4


class Avalon(Family):
    """Canaan Avalon, stock firmware."""

    name = "avalon"
    capabilities = Capabilities(
        sleep=True,
        low=False,
        turbo=False,
        watt_limit=False,
        percent=False,
        has_power=True,
        shed_s=30.0,
        wake_s=300.0,
        persists=None,
        cost="boards cool down and start again; the Q, Nano and Mini also take low and turbo, which the A series has not",
        source="assumed: no sourced figure for speed; the switch is dated 5 s ahead",
        connections=1,
    )
    probes = (plain("version"),)

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """`summary` and the packed figures in one connection; one each where the device refused the join."""
        figures = "stats" if memory.needs_new_api else "estats"
        if not memory.refuses_joined:
            return (plain(f"summary+{figures}"),)
        return (plain("summary"), plain(figures))

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """Model, MAC address and firmware; pools."""
        return (plain("version"), plain("pools", optional=True))

    def absorb(self, request: Request, reply: Any, memory: Memory) -> tuple[dict[str, Any], bool]:
        """Remember a refused join, and an `estats` without packed figures."""
        joined = "+" in request.name
        parts = split_joined(request.name, reply) if joined else {request.name: reply}
        if not parts:
            memory.refuses_joined = True
            return parts, True
        if "estats" in parts and not packed(parts["estats"]) and not memory.needs_new_api:
            memory.needs_new_api = True
            return {}, True
        return parts, False

    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """Packed figures, or a version, device or configuration that says Avalon."""
        return any(
            packed(reply) or any(str(value).upper().startswith("AVA") for value in _short_texts(reply))
            for reply in replies.values()
        )

    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """By section."""
        return name_sections(value)

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """Hashrate and power of this moment; 0 C is a sensor that is not there."""
        summary = first(replies.get("summary"), "SUMMARY") or _devs_row(replies)
        answer = next((replies[name] for name in _FIGURES if name in replies), None)
        row, figures = first(answer, "STATS"), packed(answer)
        if summary is None and row is None:
            _, code, said = status_of(replies.get("summary") or answer)
            raise BadReply(f"neither summary nor packed figures can be read (code {code}, {said[:60]!r})")
        version = first(memory.slow_replies.get("version"), "VERSION") or {}
        cgminer = summary or {}
        hashrate_hs = _first_known(
            scaled(figures.get("GHSspd"), 1e9), *(scaled(cgminer.get(key), 1e6) for key in ("MHS 5s", "MHS 1m"))
        )
        power_w = _first_known(scaled(figures.get("WALLPOWER")), _field(figures.get("PS"), PS_WATTS))
        if power_w == 0 and hashrate_hs:
            power_w = None  # nothing hashes on zero watts: the supply is not asked
        uptime_s = _first_known(
            scaled(figures.get("Elapsed")), scaled((row or {}).get("Elapsed")), scaled(cgminer.get("Elapsed"))
        )
        off = None if "SoftOFF" not in figures else number(figures["SoftOFF"]) not in (0, None)
        codes = _codes(figures)
        state = _state(off, hashrate_hs, _waking(figures, answer, uptime_s), codes)
        model = _model(version, figures)
        return Reading(
            power_w=power_w,
            hashrate_hs=hashrate_hs,
            temp_c=_hottest(figures),
            state=state,
            mode=_mode(off, state, model, figures),
            reason={DeviceState.WAKING: Reason.WAKING, DeviceState.FAULT: Reason.FAULT}.get(state, Reason.NONE),
            provenance=Provenance.UNKNOWN if power_w is None else Provenance.DEVICE,
            accepted_shares=count(cgminer.get("Accepted")),
            uptime_s=uptime_s,
            fan_rpm=max((f for n in range(1, 9) if (f := scaled(figures.get(f"Fan{n}"))) is not None), default=None),
            power_limit_w=scaled(figures.get("MPO")),
            model=model,
            firmware=text_or_none(version.get("LVERSION")) or text_or_none(figures.get("Ver")),
            mac=_mac(version.get("MAC")),
            serial=_serial(version.get("DNA")) or _serial(figures.get("DNA")),
            pool_url=pool_in_use(memory.slow_replies.get("pools")),
            fault_codes=codes,
        )

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Sleep and normal everywhere; the three levels on the machines that have them. No login: the port is open."""
        if mode is Mode.UNKNOWN:
            return Outcome(Reason.UNSUPPORTED, "unknown is no mode to command")
        version = yield plain("version")
        levelled = bool(_LEVELLED.search(_model(first(version, "VERSION") or {}, {}) or ""))
        if mode in (Mode.LOW, Mode.TURBO) and not levelled:
            return Outcome(Reason.UNSUPPORTED, f"this Avalon has no work mode that is known to mean {mode}")
        when = _when(version)
        if when is None:
            return Outcome(Reason.FAILED, "the device does not say its time, by which the switch is dated", retry=True)
        if mode is Mode.SLEEP:
            return (yield from _switch("softoff", when))
        woken = yield from _switch("softon", when)
        if not woken.accepted or not levelled:
            return woken
        reply = yield plain("ascset", f"0,workmode,set,{LEVELS[mode]}")
        letter, code, said = status_of(reply)
        if letter == "S":
            return ACCEPTED
        return Outcome(Reason.FAILED, f"workmode: code {code} {said[:80]}", retry=True)


def _switch(word: str, when: int) -> Generator[Request, Any, Outcome]:
    try:
        reply = yield ApiRequest(word, plain("ascset", f"0,{word},1:{when + AHEAD_S}").payload)
    except DeviceUnreachable:
        if word == "softoff":
            raise
        # Some firmware wakes without a word (asic-rs). If it still talks, the readings decide; if not, this raises.
        yield plain("version")
        return Outcome(Reason.NONE, "softon was not answered; the readings will tell")
    letter, code, said = status_of(reply)
    if letter in ("I", "S") and ("success" in said.lower() or "set ok" in said.lower()):
        return ACCEPTED
    unknown = "invalid" in said.lower() or "unknown" in said.lower()
    reason = Reason.UNSUPPORTED if unknown else Reason.FAILED
    return Outcome(reason, f"{word}: code {code} {said[:80]}", retry=not unknown)


def packed(reply: Any) -> Mapping[str, Any]:
    """Figures of the first module by key, still text; also of a reply that asic-rs' tests hold already unpacked."""
    row = first(reply, "STATS") or {}
    raw = next((value for key, value in row.items() if _MM.match(str(key))), None)
    if isinstance(raw, str):
        return {key: value.strip() for key, value in _PAIR.findall(raw)}
    if isinstance(raw, Mapping):
        inner = raw.get("STATS", raw)
        pairs = inner.items() if isinstance(inner, Mapping) else ()
        return {key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in pairs}
    return {}


def _short_texts(reply: Any) -> list[str]:
    """What a reply says of itself: the short strings of its first rows."""
    if not isinstance(reply, Mapping):
        return []
    rows = [rows[0] for rows in reply.values() if isinstance(rows, list) and rows and isinstance(rows[0], Mapping)]
    return [value for row in rows for value in row.values() if isinstance(value, str) and len(value) <= 64]


def _devs_row(replies: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return first(replies.get("devs"), "DEVS")


def _field(raw: Any, index: int) -> float | None:
    """One figure of several in a packed value."""
    parts = str(raw).split() if raw is not None else []
    return scaled(parts[index]) if len(parts) > index else None


def _hottest(figures: Mapping[str, Any]) -> float | None:
    chips = [bounded(part, 1, ABSURD_C) for key in ("TMax", "MTmax") for part in str(figures.get(key, "")).split()]
    boards = [bounded(figures.get(key), 1, ABSURD_C) for key in ("HBOTemp", "HBITemp")]
    return max((t for t in chips if t is not None), default=max((t for t in boards if t is not None), default=None))


def _codes(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """Error figures that are not zero: supply (first of PS), hash units, module, fans."""
    said = {
        "PS": str(figures.get("PS", "0")).split()[:1],
        **{key: str(figures.get(key, "0")).split() for key in ("ECHU", "ECMM", "FanErr", "PCOMM_E")},
    }
    return tuple(f"{key} {' '.join(parts)}" for key, parts in said.items() if any(part.strip("0") for part in parts))


def _waking(figures: Mapping[str, Any], answer: Any, uptime_s: float | None) -> bool:
    """Started, or was switched on, less than the waking time ago; or says that it is initialising."""
    when, on_s = _when(answer), number(figures.get("SoftOnTime"))
    switched = when is not None and on_s is not None and 0 <= when - on_s < WAKE_S
    return switched or "Init" in str(figures.get("SYSTEMSTATU", "")) or (uptime_s is not None and uptime_s < WAKE_S)


def _state(off: bool | None, hashrate_hs: float | None, waking: bool, codes: tuple[str, ...]) -> DeviceState:
    if hashrate_hs is None:
        return DeviceState.UNKNOWN
    if off:
        return DeviceState.STOPPING if hashrate_hs > 0 else DeviceState.SLEEPING
    if hashrate_hs > 0:
        return DeviceState.HASHING
    if off is False and waking:
        return DeviceState.WAKING
    return DeviceState.FAULT if codes else DeviceState.IDLE


def _mode(off: bool | None, state: DeviceState, model: str | None, figures: Mapping[str, Any]) -> Mode:
    if off or off is None or state is DeviceState.UNKNOWN:
        return Mode.SLEEP if off else Mode.UNKNOWN
    if not _LEVELLED.search(model or ""):
        return Mode.NORMAL
    level = number(figures.get("WORKMODE"))
    return next((mode for mode, code in LEVELS.items() if code == level), Mode.UNKNOWN)


def _model(version: Mapping[str, Any], figures: Mapping[str, Any]) -> str | None:
    """`PROD`, with `MODEL` where that adds something; else the head of the firmware's name (`1246-83-...`)."""
    product, model = text_or_none(version.get("PROD")), text_or_none(version.get("MODEL"))
    if product is not None:
        return product if model is None or model.lower() in product.lower() else f"{product} {model}"
    head = text_or_none(str(figures.get("Ver", "")).split("-")[0])
    return None if head is None else f"Avalon {head}"


def _when(reply: Any) -> int | None:
    """The device's own time [unix s]."""
    row = first(reply, "STATUS")
    return None if row is None else count(row.get("When"))


def _mac(raw: Any) -> str | None:
    said = text_or_none(raw)
    if said is None or len(said) != 12:
        return said
    return ":".join(said[at : at + 2] for at in range(0, 12, 2)).upper()


def _serial(raw: Any) -> str | None:
    said = text_or_none(raw)
    return None if said is None or said.startswith("<") else said


def _first_known(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
