"""A recorded reply in, the normalised reading out: what `gridpivot-agent decode FILE` shows.

Takes one reply or a mapping of replies by command, guesses the firmware family when it is not told, and mends what
the poller would mend; for a person's eyes it also closes a reply that was cut off, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.asic.family import Memory, Reading
from agent.asic.registry import FAMILIES
from agent.asic.repair import parse_reply
from gridpivot.errors import BadReply


@dataclass(frozen=True, slots=True)
class Decoded:
    """A reading, the family it was read as, the repairs its replies needed, by file, and the files that say nothing here."""

    family: str
    reading: Reading
    repairs: Mapping[str, int]
    unused: tuple[str, ...] = ()


def decode(replies: bytes | Mapping[str, bytes], family: str | None = None) -> Decoded:
    """Reading of recorded replies of one device; raises BadReply, also for an unknown or unrecognisable family.

    Of several files, those that cannot be read or that no request of the family asks for are named in `unused`.
    """
    texts = dict(replies) if isinstance(replies, Mapping) else {"": replies}
    repairs: Counter[str] = Counter()
    values, unread = _read(texts, repairs)
    by_family: dict[str, dict[str, Any]] = {name: {} for name in FAMILIES}
    used: dict[str, set[str]] = {name: set() for name in FAMILIES}
    for stem, value in values.items():
        for name, known in FAMILIES.items():
            parts = known.name_reply(stem, value)
            by_family[name].update(parts)
            if parts:
                used[name].add(stem)
    chosen = family or recognise(by_family)
    if chosen not in FAMILIES:
        raise BadReply(f"unknown family {chosen!r}; known: {', '.join(FAMILIES)}")
    named = by_family[chosen]
    reading = FAMILIES[chosen].parse(named, Memory(slow_replies=dict(named)))
    unused = tuple(sorted([*unread, *(set(values) - used[chosen])]))
    return Decoded(chosen, reading, dict(repairs), unused)


def _read(texts: Mapping[str, bytes], repairs: Counter[str]) -> tuple[dict[str, Any], list[str]]:
    """Parsed values by file, and the files that are no reply; raises BadReply when none can be read."""
    values: dict[str, Any] = {}
    unread: list[str] = []
    said: BadReply | None = None
    for stem, text in texts.items():
        try:
            mended = parse_reply(text, salvage_truncated=True)
        except BadReply as error:
            unread.append(stem)
            said = said or error
            continue
        repairs.update(mended.repairs)
        values[stem] = mended.value
    if not values and said is not None:
        raise said
    return values, unread


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
        "fan_rpm": reading.fan_rpm,
        "power_limit_w": reading.power_limit_w,
        "serial": reading.serial,
        "pool_url": reading.pool_url,
        "board_serials": list(reading.board_serials),
        "fault_codes": list(reading.fault_codes),
        "repairs": dict(decoded.repairs),
        "unused": list(decoded.unused),
    }


def recognise(by_family: Mapping[str, Mapping[str, Any]]) -> str:
    """Family by what only its firmware says; raises BadReply when nothing tells."""
    for name, replies in by_family.items():
        if replies and FAMILIES[name].recognise(replies):
            return name
    raise BadReply("cannot tell the firmware family from this; give --family, or more replies of the same device")
