"""Stock Antminer firmware: cgminer reads on TCP 4028, power modes through the web server's CGI. Pure.

The S19 reports no watts at all; newer models carry `chain_power`, or say `power:<watts>` in plain text on port 6060
(`/miner_power`; S19 XP Hydro, S21 and S21 Pro by a community description, no recording to be had). Work modes are 0 normal, 1 sleep, 2 high, 3 low and
live in the miner's configuration, which can only be written whole: a careless write erases the pools. So: read,
change the mode, write, read back, and put the pools back if they came out different. The daemon restarts behind it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from agent.asic.families.cgminer import name_sections, plain, pool_in_use, split_joined
from agent.asic.family import (
    ACCEPTED,
    ApiRequest,
    Auth,
    Capabilities,
    Dialogue,
    Family,
    HttpRequest,
    Login,
    Memory,
    Outcome,
    Port,
    Ports,
    Reading,
    Request,
)
from agent.asic.figures import ABSURD_C, bounded, count, first, number, scaled, status_of, text_or_none
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import DeviceState, Mode, Provenance, Reason

READ_CONF = HttpRequest("get_miner_conf", "GET", "/cgi-bin/get_miner_conf.cgi")
SYSTEM_INFO = HttpRequest("get_system_info", "GET", "/cgi-bin/get_system_info.cgi", optional=True)
WEB_SUMMARY = HttpRequest("web_summary", "GET", "/cgi-bin/summary.cgi", optional=True)
POWER_PAGE = HttpRequest(
    "miner_power", "GET", "/miner_power", auth=Auth.NONE, port=Port.AUX, plain_text=True, optional=True
)
WORK_MODES: Mapping[Mode, int] = {Mode.NORMAL: 0, Mode.SLEEP: 1, Mode.TURBO: 2, Mode.LOW: 3}
MODE_KEYS = ("miner-mode", "bitmain-work-mode")
WAKE_S = 300.0
_MAX_CODES = 16
_POWER_TEXT = re.compile(r"\s*(?:power\s*[:=])?\s*(\d+(?:\.\d+)?)\s*w?\s*", re.IGNORECASE)


class Antminer(Family):
    """Stock Antminer (S19 and later)."""

    name = "antminer"
    capabilities = Capabilities(
        sleep=True,
        low=True,
        turbo=True,
        watt_limit=False,
        percent=False,
        has_power=False,
        shed_s=60.0,
        wake_s=300.0,
        persists=True,
        cost="the mining daemon restarts with every change of mode",
        source="no sourced figure for speed, minutes are assumed; the mode is in the stored configuration",
        connections=2,
    )
    outdated_by_command = frozenset({READ_CONF.name})  # the mode stands there
    ports = Ports(aux=6060)
    factory_login = Login("root", "root")  # public knowledge
    probes = (plain("version"), HttpRequest("web_root", "GET", "/", auth=Auth.NONE, plain_text=True))

    def requests(self, memory: Memory) -> tuple[Request, ...]:
        """`summary` and `stats`: joined until the device refuses that, then one each; and the power page where it is."""
        stats = {"command": "stats", "new_api": True} if memory.needs_new_api else {"command": "stats"}
        if not memory.refuses_joined:
            return (plain("summary+stats"), POWER_PAGE)
        return (plain("summary"), ApiRequest("stats", orjson.dumps(stats)), POWER_PAGE)

    def slow_requests(self, memory: Memory) -> tuple[Request, ...]:
        """The configuration with the work mode, model, pools, and the pages with the address and the complaints."""
        return (READ_CONF, plain("version"), plain("pools", optional=True), SYSTEM_INFO, WEB_SUMMARY)

    def absorb(self, request: Request, reply: Any, memory: Memory) -> tuple[dict[str, Any], bool]:
        """Remember a refused join, and `stats` that need the newer form."""
        if "+" in request.name:
            parts = split_joined(request.name, reply)
            if not parts:
                memory.refuses_joined = True
            return parts, not parts
        if request.name == "stats" and not memory.needs_new_api and _chains(reply) is None:
            memory.needs_new_api = True
            return {}, True
        return {request.name: reply}, False

    def recognise(self, replies: Mapping[str, Any]) -> bool:
        """BMMiner in a version, the configuration page, or cgminer stats that no other firmware claims."""
        if READ_CONF.name in replies or SYSTEM_INFO.name in replies or "stats" in replies:
            return True
        return "BMMiner" in repr(replies) or "Antminer" in repr(replies.get("version")) or _gigahash(replies)

    def name_reply(self, stem: str, value: Any) -> dict[str, Any]:
        """By section; the configuration page by its work mode."""
        if isinstance(value, Mapping) and "pools" in value and any(key in value for key in MODE_KEYS):
            return {READ_CONF.name: value}
        if isinstance(value, Mapping) and "minertype" in value and "macaddr" in value:
            return {SYSTEM_INFO.name: value}
        return name_sections(value)

    def parse(self, replies: Mapping[str, Any], memory: Memory) -> Reading:
        """Hashrates are GH/s, numbers or strings. Without a sensor watts stay unknown, for the caller to model."""
        summary = first(replies.get("summary"), "SUMMARY")
        stats = _chains(replies.get("stats"))
        if summary is None and stats is None:
            _, code, said = status_of(replies.get("summary"))
            raise BadReply(f"neither summary nor stats can be read (code {code}, {said[:60]!r})")
        figures = {**(stats or {}), **(summary or {})}
        hashrate_hs = next(
            (
                h
                for key in ("GHS 5s", "rate_5s", "GHS av", "rate_avg")
                if (h := scaled(figures.get(key), 1e9)) is not None
            ),
            None,
        )
        uptime_s = scaled(figures.get("Elapsed", figures.get("elapsed")))
        mode = conf_mode(memory.slow_replies.get("get_miner_conf"))
        slow = memory.slow_replies
        codes = fault_codes(stats or {}, slow.get(WEB_SUMMARY.name))
        state = _state(mode, hashrate_hs, uptime_s, codes)
        power_w = _page_power(replies.get(POWER_PAGE.name))
        if power_w is None:
            power_w = _chain_power(figures)
        raw_info = slow.get(SYSTEM_INFO.name)
        info: Mapping[str, Any] = raw_info if isinstance(raw_info, Mapping) else {}
        version = first(memory.slow_replies.get("version"), "VERSION") or first(replies.get("stats"), "STATS") or {}
        return Reading(
            power_w=power_w,
            hashrate_hs=hashrate_hs,
            temp_c=_hottest(stats or {}),
            state=state,
            mode=mode,
            reason={DeviceState.WAKING: Reason.WAKING, DeviceState.FAULT: Reason.FAULT}.get(state, Reason.NONE),
            provenance=Provenance.UNKNOWN if power_w is None else Provenance.DEVICE,
            accepted_shares=count(figures.get("Accepted")),
            uptime_s=uptime_s,
            fan_rpm=_fastest(stats or {}),
            model=text_or_none(version.get("Type")) or text_or_none(info.get("minertype")),
            firmware=text_or_none(version.get("CompileTime")) or text_or_none(info.get("system_filesystem_version")),
            mac=text_or_none(info.get("macaddr")),
            serial=text_or_none(info.get("serinum")),
            pool_url=pool_in_use(slow.get("pools")),
            fault_codes=codes,
        )

    def command(self, mode: Mode, memory: Memory, login: Login | None, now_s: float) -> Dialogue:
        """Read, modify, write, verify. Writes nothing when the mode is already set, to spare a restart."""
        wanted = WORK_MODES.get(mode)
        if wanted is None:
            return Outcome(Reason.UNSUPPORTED, "unknown is no mode to command")
        if login is None:
            return Outcome(Reason.NO_CREDENTIALS, "no antminer password is set; add it to the agent's settings")
        before = yield READ_CONF
        pools = _pools(before)
        if pools is None:
            return Outcome(
                Reason.FAILED, "configuration has no list of pools; left alone, since a write could erase them"
            )
        if not any(key in before for key in MODE_KEYS):
            return Outcome(Reason.UNSUPPORTED, "this firmware's configuration has no work mode")
        if conf_mode(before) is mode:
            return ACCEPTED
        changed = with_mode(before, wanted)
        # Some web servers drop the connection as the daemon restarts: the read-back decides, not this reply.
        with suppress(DeviceUnreachable, BadReply):
            yield _write_conf(changed)
        after = yield READ_CONF
        if _pools(after) != pools:
            yield _write_conf(changed)
            restored = _pools((yield READ_CONF)) == pools
            told = "restored" if restored else "NOT restored: check this device by hand"
            return Outcome(Reason.FAILED, f"the pools changed behind the write and were {told}")
        if conf_mode(after) is not mode:
            return Outcome(Reason.FAILED, f"work mode was not taken (reads {conf_mode(after)})", retry=True)
        return ACCEPTED


def _gigahash(replies: Mapping[str, Any]) -> bool:
    return "GHS 5s" in (first(replies.get("summary"), "SUMMARY") or {})


def conf_mode(conf: Any) -> Mode:
    """Mode in a miner configuration; unknown when absent or of an unknown number."""
    if not isinstance(conf, Mapping):
        return Mode.UNKNOWN
    for key in MODE_KEYS:
        value = number(conf.get(key))
        if value is not None:
            return next((mode for mode, code in WORK_MODES.items() if code == value), Mode.UNKNOWN)
    return Mode.UNKNOWN


def with_mode(conf: Mapping[str, Any], code: int) -> dict[str, Any]:
    """The whole configuration with another work mode.

    The web page reads `bitmain-work-mode` and `bitmain-freq-level` but posts `miner-mode` and `freq-level`, so the
    write carries both spellings.
    """
    changed = {**conf, **dict.fromkeys(MODE_KEYS, code)}
    if "bitmain-freq-level" in conf:
        changed.setdefault("freq-level", conf["bitmain-freq-level"])
    return changed


def _write_conf(conf: Mapping[str, Any]) -> HttpRequest:
    return HttpRequest("set_miner_conf", "POST", "/cgi-bin/set_miner_conf.cgi", orjson.dumps(conf))


def _pools(conf: Any) -> list[Any] | None:
    pools = conf.get("pools") if isinstance(conf, Mapping) else None
    return pools if isinstance(pools, list) and pools else None


def _chains(reply: Any) -> Mapping[str, Any] | None:
    """The row of `stats` with figures: the second of the old shape, the first (with `chain`) of the new one."""
    second, leading = first(reply, "STATS", 1), first(reply, "STATS")
    for row in (second, leading):
        if row is not None and ("chain" in row or "GHS 5s" in row or "GHS av" in row):
            return row
    return None


def fault_codes(stats: Mapping[str, Any], page: Any) -> tuple[str, ...]:
    """What the device itself calls wrong: dead chips (`x` in chain_acs), and items of the web summary not marked `s`."""
    codes: list[str] = []
    for key, raw in stats.items():
        if key.startswith("chain_acs") and isinstance(raw, str) and "x" in raw.lower():
            codes.append(f"chain {key.removeprefix('chain_acs')}: {raw.lower().count('x')} chips dead")
    rows = (first(page, "SUMMARY") or {}).get("status")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and row.get("status") not in ("s", None, ""):
            words = text_or_none(row.get("msg")) or f"code {row.get('code')}"
            codes.append(f"{text_or_none(row.get('type')) or 'status'}: {words}")
    return tuple(codes[:_MAX_CODES])


def _state(mode: Mode, hashrate_hs: float | None, uptime_s: float | None, codes: tuple[str, ...]) -> DeviceState:
    if hashrate_hs is None:
        return DeviceState.UNKNOWN
    if mode is Mode.SLEEP:
        return DeviceState.STOPPING if hashrate_hs > 0 else DeviceState.SLEEPING
    if hashrate_hs > 0:
        return DeviceState.HASHING
    if mode is not Mode.UNKNOWN and uptime_s is not None and uptime_s < WAKE_S:
        return DeviceState.WAKING
    return DeviceState.FAULT if codes else DeviceState.IDLE


def _chain_power(figures: Mapping[str, Any]) -> float | None:
    raw = figures.get("chain_power")
    if isinstance(raw, str):
        raw = raw.upper().rstrip().removesuffix("W").strip()
    return scaled(raw)


def _page_power(text: Any) -> float | None:
    """Watts of the power page, `power:3245`; anything else is no figure."""
    found = _POWER_TEXT.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else scaled(found.group(1))


def _fastest(stats: Mapping[str, Any]) -> float | None:
    """Fastest fan [rpm]: `fan1`.. of the old shape, the list `fan` of the new one."""
    listed = stats.get("fan")
    raw = [stats.get(f"fan{n}") for n in range(1, 9)] + (listed if isinstance(listed, list) else [])
    return max((rpm for value in raw if (rpm := scaled(value)) is not None), default=None)


def _hottest(stats: Mapping[str, Any]) -> float | None:
    """Hottest chip or board: `temp_chip1: "78-50-69-70"` of the old shape, `chain[].temp_chip` of the new; 0 = absent."""
    known: list[float] = []
    for key, raw in stats.items():
        if key.startswith(("temp_chip", "temp_pcb", "temp2_")) and isinstance(raw, (str, int, float)):
            known += _temperatures(str(raw).split("-"))
    chains = stats.get("chain")
    for chain in chains if isinstance(chains, list) else []:
        for key in ("temp_chip", "temp_pcb"):
            values = chain.get(key) if isinstance(chain, Mapping) else None
            known += _temperatures(values if isinstance(values, list) else [])
    return max(known, default=None)


def _temperatures(values: Sequence[Any]) -> list[float]:
    return [value for raw in values if (value := bounded(raw, 1, ABSURD_C)) is not None]
