"""A recorded reply in, the normalised reading out: what `gridpivot-agent decode FILE` shows.

Takes one reply or a mapping of replies by command, guesses the firmware family when it is not told, and mends what
the poller would mend; for a person's eyes it also closes a reply that was cut off, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.asic.family import Memory, Reading
from agent.asic.registry import FAMILIES
from agent.asic.repair import parse_reply
from gridpivot.errors import BadReply


@dataclass(frozen=True, slots=True)
class Decoded:
    """A reading, the family it was read as, and the repairs its replies needed."""

    family: str
    reading: Reading
    repairs: tuple[str, ...]


def decode(replies: bytes | Mapping[str, bytes], family: str | None = None) -> Decoded:
    """Reading of recorded replies; raises BadReply, also for an unknown or unrecognisable family."""
    texts = dict(replies) if isinstance(replies, Mapping) else {"": replies}
    repairs: list[str] = []
    by_family = _named(texts, repairs)
    chosen = family or recognise(by_family)
    known = FAMILIES.get(chosen)
    if known is None:
        raise BadReply(f"unknown family {chosen!r}; known: {', '.join(FAMILIES)}")
    named = by_family[chosen]
    return Decoded(chosen, known.parse(named, Memory(slow_replies=dict(named))), tuple(repairs))


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


def _named(texts: Mapping[str, bytes], repairs: list[str]) -> dict[str, dict[str, Any]]:
    """Replies by family, then by name; a file that no family can name is an error of its own."""
    by_family: dict[str, dict[str, Any]] = {name: {} for name in FAMILIES}
    for stem, text in texts.items():
        mended = parse_reply(text, salvage_truncated=True)
        repairs += [name for name in mended.repairs if name not in repairs]
        for name, family in FAMILIES.items():
            by_family[name].update(family.name_reply(stem, mended.value))
    return by_family


def recognise(by_family: Mapping[str, Mapping[str, Any]]) -> str:
    """Family by what only its firmware says; raises BadReply when nothing tells."""
    for name, replies in by_family.items():
        if replies and FAMILIES[name].recognise(replies):
            return name
    raise BadReply("cannot tell the firmware family from this; give --family, or more replies of the same device")
