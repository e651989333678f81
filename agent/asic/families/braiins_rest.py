"""Braiins OS from 25.07: REST under /api/v1 on the web port, behind a token. Pure.

Paths and field names from recordings of 25.11; numbers of `status` are MINER_STATUS of the public API. Every path but
the login is taken to want the token, bare in `Authorization`: the vendor says so of "the vast majority".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from agent.asic.families.braiins_graphql import at, rows
from agent.asic.family import Auth, HttpRequest, Login, Token
from agent.asic.figures import ABSURD_C, bounded, count, scaled, text_or_none

STATS, DETAILS, COOLING = "miner/stats", "miner/details", "cooling/state"
TUNER, CONFIG, POOLS, ERRORS, BOARDS = (
    "performance/tuner-state",
    "configuration/miner",
    "pools",
    "miner/errors",
    "miner/hw/hashboards",
)
ALL = (STATS, DETAILS, COOLING, TUNER, CONFIG, POOLS, ERRORS, BOARDS)
# A key that only this reply has -> its path.
_MARKS = {
    "miner_stats": STATS,
    "bosminer_uptime_s": DETAILS,
    "highest_temperature": COOLING,
    "overall_tuner_state": TUNER,
    "pool_groups": CONFIG,
    "hashboards": BOARDS,
}


def _request(name: str, method: str, token: Token | None, body: Any = None, *, optional: bool = False) -> HttpRequest:
    headers = () if token is None else (("Authorization", token.key),)
    raw = b"" if body is None else orjson.dumps(body)
    # Answers to PUT may be a bare `true`: the status code is what counts, so they are not read as JSON.
    return HttpRequest(
        name, method, f"/api/v1/{name}", raw, Auth.TOKEN, headers, plain_text=method == "PUT", optional=optional
    )


PROBE = _request("version", "GET", None)


def login_request(login: Login) -> HttpRequest:
    """Login; the reply carries `token` and `timeout_s`."""
    return _request("auth/login", "POST", None, {"username": login.username, "password": login.password})


def fast(token: Token | None) -> tuple[HttpRequest, ...]:
    """Power, hashrate and shares; state and uptime; temperature and fans."""
    return (
        _request(STATS, "GET", token),
        _request(DETAILS, "GET", token),
        _request(COOLING, "GET", token, optional=True),
    )


def slow(token: Token | None) -> tuple[HttpRequest, ...]:
    """Targets, pools, faults, boards."""
    return tuple(_request(path, "GET", token, optional=True) for path in (TUNER, CONFIG, POOLS, ERRORS, BOARDS))


def pause(token: Token) -> HttpRequest:
    """Pause mining."""
    return _request("actions/pause", "PUT", token)


def resume(token: Token) -> HttpRequest:
    """Resume mining."""
    return _request("actions/resume", "PUT", token)


def set_power_target(token: Token, watts: int) -> HttpRequest:
    """Set the tuner's power target [W]."""
    return _request("performance/power-target", "PUT", token, {"watt": watts})


def name_reply(value: Any) -> str | None:
    """Path that a recorded reply came from, None when it cannot be told."""
    if isinstance(value, Mapping):
        if marked := next((path for key, path in _MARKS.items() if key in value), None):
            return marked
        if any("error_codes" in row for row in rows(value.get("errors")) if isinstance(row, Mapping)):
            return ERRORS
        return None
    if any(isinstance(row, Mapping) and "pools" in row and "strategy" in row for row in rows(value)):
        return POOLS
    return None


def figures(replies: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a Reading. The tuner's current target is the power limit in force; without it the configured one."""
    stats, details, cooling = replies.get(STATS), replies.get(DETAILS), replies.get(COOLING)
    current_w = scaled(at(replies.get(TUNER), "mode_state", "powertargetmodestate", "current_target", "watt"))
    configured_w = scaled(at(replies.get(CONFIG), "tuner", "power_target", "watt"))
    status = count(at(details, "status"))
    return {
        "power_w": scaled(at(stats, "power_stats", "approximated_consumption", "watt")),
        "hashrate_hs": scaled(at(stats, "miner_stats", "real_hashrate", "last_5s", "gigahash_per_second"), 1e9),
        "temp_c": bounded(at(cooling, "highest_temperature", "temperature", "degree_c"), -40, ABSURD_C),
        "uptime_s": scaled(at(details, "bosminer_uptime_s")),
        "fan_rpm": max(
            (rpm for fan in rows(at(cooling, "fans")) if (rpm := scaled(at(fan, "rpm"))) is not None), default=None
        ),
        "power_limit_w": current_w if current_w is not None else configured_w,
        "configured_w": configured_w,
        "accepted_shares": count(at(stats, "pool_stats", "accepted_shares")),
        "pool_url": _pool(replies.get(POOLS)),
        "model": text_or_none(at(details, "miner_identity", "miner_model"))
        or text_or_none(at(details, "miner_identity", "name")),
        "firmware": text_or_none(at(details, "bos_version", "current")),
        "mac": text_or_none(at(details, "mac_address")),
        "serial": text_or_none(at(details, "serial_number")),
        "board_serials": tuple(
            serial
            for board in rows(at(replies.get(BOARDS), "hashboards"))
            if (serial := text_or_none(at(board, "serial_number"))) is not None
        ),
        "fault_codes": _codes(replies.get(ERRORS)),
        "status": status,
    }


def _pool(groups: Any) -> str | None:
    pools = [pool for group in rows(groups) for pool in rows(at(group, "pools"))]
    return next((text_or_none(at(pool, "url")) for pool in pools if at(pool, "active")), None)


def _codes(reply: Any) -> tuple[str, ...]:
    """Codes only. The list is a log that goes back months and says of no entry whether it still holds."""
    codes = [
        code
        for error in rows(at(reply, "errors"))
        for entry in rows(at(error, "error_codes"))
        if (code := text_or_none(at(entry, "code"))) is not None
    ]
    return tuple(dict.fromkeys(codes))[:16]
