"""A recorded reply in, the normalised reading out: what `gridpivot-agent decode FILE` shows.

Takes one reply or a mapping of replies by command, guesses the firmware family when it is not told, and mends what
the poller would mend; for a person's eyes it also closes a reply that was cut off, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.asic.antminer import READ_CONF
from agent.asic.family import Memory, Reading
from agent.asic.registry import FAMILIES
from agent.asic.repair import parse_reply
from gridpivot.errors import BadReply

# Section of a cgminer-style reply -> the command that asks for it.
_SECTIONS = {
    "SUMMARY": "summary",
    "STATS": "stats",
    "POWER": "power",
    "TEMPS": "temps",
    "CONFIG": "config",
    "VERSION": "version",
    "DEVDETAILS": "devdetails",
    "DEVS": "devs",
    "POOLS": "pools",
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A reading, the family it was read as, and the repairs its replies needed."""

    family: str
    reading: Reading
    repairs: tuple[str, ...]


def decode(replies: bytes | Mapping[str, bytes], family: str | None = None) -> Decoded:
    """Reading of recorded replies; raises BadReply, also for an unknown or unrecognisable family."""
    texts = list(replies.values()) if isinstance(replies, Mapping) else [replies]
    repairs: list[str] = []
    named: dict[str, Any] = {}
    for text in texts:
        mended = parse_reply(text, salvage_truncated=True)
        repairs += [name for name in mended.repairs if name not in repairs]
        named.update(_named(mended.value))
    chosen = family or guess_family(named)
    known = FAMILIES.get(chosen)
    if known is None:
        raise BadReply(f"unknown family {chosen!r}; known: {', '.join(FAMILIES)}")
    memory = Memory(slow_replies=dict(named))
    return Decoded(chosen, known.parse(named, memory), tuple(repairs))


def normalised(decoded: Decoded) -> dict[str, Any]:
    """JSON-able form: snake_case keys with units, null = unknown."""
    reading = decoded.reading
    return {
        "schema_version": 1,
        "family": decoded.family,
        "model": reading.model,
        "firmware": reading.firmware,
        "mac": reading.mac,
        "state": reading.state.value,
        "mode": reading.mode.value,
        "reason": reading.reason.value,
        "power_w": reading.power_w,
        "power_provenance": reading.provenance.value,
        "hashrate_hs": reading.hashrate_hs,
        "temp_c": reading.temp_c,
        "accepted_shares": reading.accepted_shares,
        "uptime_s": reading.uptime_s,
        "repairs": list(decoded.repairs),
    }


def _named(value: Any) -> dict[str, Any]:
    """Replies by command: of one reply, or of a joined one (`{"summary":[{...}],"power":[{...}]}`)."""
    if not isinstance(value, Mapping):
        raise BadReply("a list of values is not a miner's reply")
    joined = {
        key: rows[0]
        for key, rows in value.items()
        if key in _SECTIONS.values() and isinstance(rows, list) and rows and isinstance(rows[0], Mapping)
    }
    if joined:
        return joined
    if "pools" in value and any(key in value for key in ("miner-mode", "bitmain-work-mode")):
        return {READ_CONF.name: value}
    message = value.get("Msg")
    if isinstance(message, Mapping):
        return {"get_version" if "fw_ver" in message else "status": value}
    return {command: value for section, command in _SECTIONS.items() if section in value}


def guess_family(named: Mapping[str, Any]) -> str:
    """Family by what only its firmware says; raises BadReply when nothing tells."""
    flat = repr(named)
    if "LUXminer" in flat or "LuxOS" in flat:
        return "luxos"
    if "BMMiner" in flat or READ_CONF.name in named:
        return "antminer"
    summary = (named.get("summary") or {}).get("SUMMARY") or [{}]
    keys = summary[0] if isinstance(summary, list) and isinstance(summary[0], Mapping) else {}
    if any(key in keys for key in ("HS RT", "Power_RT", "Power Mode", "Factory GHS")):
        return "whatsminer"
    if "GHS 5s" in keys or "stats" in named:
        return "antminer"
    raise BadReply("cannot tell the firmware family from this reply; give --family")
