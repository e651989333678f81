"""cgminer's dialect, shared by the firmwares that grew out of it: joined commands, named sections. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from agent.asic.family import ApiRequest
from agent.asic.figures import text_or_none

# Section of a reply -> the command that asks for it.
SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "SUMMARY": "summary",
        "STATS": "stats",
        "POWER": "power",
        "TEMPS": "temps",
        "CONFIG": "config",
        "VERSION": "version",
        "DEVDETAILS": "devdetails",
        "DEVS": "devs",
        "POOLS": "pools",
        "FANS": "fans",
        "PROFILES": "profiles",
        "EVENTS": "events",
    }
)


def plain(command: str, parameter: str | None = None, *, optional: bool = False) -> ApiRequest:
    """A request for one command."""
    body = {"command": command} if parameter is None else {"command": command, "parameter": parameter}
    return ApiRequest(command, orjson.dumps(body), optional=optional)


def split_joined(name: str, reply: Any) -> dict[str, Any]:
    """Named parts of a joined reply (`{"summary":[{...}],...}`); empty when it was refused."""
    if not isinstance(reply, Mapping):
        return {}
    parts: dict[str, Any] = {}
    for command in name.split("+"):
        rows = reply.get(command)
        if isinstance(rows, list) and rows:
            parts[command] = rows[0]
    return parts


def name_sections(value: Any) -> dict[str, Any]:
    """Replies by command: of one reply with a section, or of a joined one; empty when it is neither."""
    if not isinstance(value, Mapping):
        return {}
    joined = {
        key: rows[0]
        for key, rows in value.items()
        if key in SECTIONS.values() and isinstance(rows, list) and rows and isinstance(rows[0], Mapping)
    }
    return joined or {command: value for section, command in SECTIONS.items() if section in value}


def pool_in_use(reply: Any, section: str = "POOLS") -> str | None:
    """URL of the pool with an active stratum connection, else the first alive one; None when no pool is either."""
    rows = reply.get(section) if isinstance(reply, Mapping) else None
    pools = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    active = (pool for pool in pools if pool.get("Stratum Active") is True)
    alive = (pool for pool in pools if str(pool.get("Status", "")).lower() == "alive")
    return text_or_none(next(active, next(alive, {})).get("URL"))
