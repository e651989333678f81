"""Braiins OS up to 25.05: readings by GraphQL on the web port, one query for everything fast. Pure.

Field names from recorded replies of 21.09, 24.09 and 25.05. `approxConsumptionW` is what its name says. The mutations
are the way to command releases before 23.03, which have no gRPC; their session travels in the cookie `session_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from agent.asic.family import Auth, HttpRequest, Login, Token
from agent.asic.figures import ABSURD_C, bounded, count, scaled, text_or_none
from gridpivot.errors import BadReply

NAME = "graphql"
QUERY = (
    "{bos{info{version{full}}uptime{durationS}}"
    "bosminer{info{modelName fans{rpm}summary{power{limitW approxConsumptionW}}"
    "workSolver{realHashrate{mhs5S}childSolvers{temperatures{name degreesC}}}"
    "poolGroups{pools{url active shares{acceptedSolutions}}}}}}"
)
_LOGIN = (
    "mutation($username:String!,$password:String!)"
    "{auth{login(username:$username,password:$password){... on VoidResult{void}}}}"
)
_PAUSE = "mutation{bosminer{stop{... on VoidResult{void}}}}"
_RESUME = "mutation{bosminer{start{... on VoidResult{void}}}}"
_TARGET = (
    "mutation($watts:Int!){bosminer{config{updateAutotuning(input:{powerTarget:$watts},apply:true)"
    "{... on AutotuningOut{autotuning{powerTarget}}}}}}"
)


def _ask(
    name: str, query: str, variables: Mapping[str, Any] | None = None, cookie: str = "", header: str = ""
) -> HttpRequest:
    body = {"query": query} if variables is None else {"query": query, "variables": variables}
    headers = (("Cookie", f"session_id={cookie}"),) if cookie else ()
    return HttpRequest(
        name, "POST", "/graphql", orjson.dumps(body), Auth.TOKEN, headers, plain_text=bool(header), header=header
    )


FAST = _ask(NAME, QUERY)


def login_request(login: Login) -> HttpRequest:
    """Login mutation; the reply is the Set-Cookie header."""
    return _ask("login", _LOGIN, {"username": login.username, "password": login.password}, header="set-cookie")


def session_of(set_cookie: str) -> str:
    """Session id of a Set-Cookie header; empty when it carries none."""
    parts = (part.strip().partition("=") for part in set_cookie.split(";"))
    return next((value for name, _, value in parts if name == "session_id"), "")


def pause(token: Token) -> HttpRequest:
    """Stop the mining process."""
    return _ask("pause", _PAUSE, cookie=token.key)


def resume(token: Token) -> HttpRequest:
    """Start the mining process."""
    return _ask("resume", _RESUME, cookie=token.key)


def set_power_target(token: Token, watts: int) -> HttpRequest:
    """Set the tuner's power target [W] and apply it."""
    return _ask("power_target", _TARGET, {"watts": watts}, token.key)


def complaint(reply: Any) -> str | None:
    """First error of an answer, None when it has none."""
    errors = reply.get("errors") if isinstance(reply, Mapping) else None
    if not isinstance(errors, list) or not errors:
        return None
    first = errors[0]
    return str(first.get("message", first) if isinstance(first, Mapping) else first)[:120]


def figures(replies: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a Reading from every reply with `data`; raises BadReply when the device answered with an error."""
    tree: dict[str, Any] = {}
    for reply in replies.values():
        data = reply.get("data") if isinstance(reply, Mapping) else None
        if isinstance(data, Mapping):
            _merge(tree, data)
        elif said := complaint(reply):
            raise BadReply(f"graphql: {said}")
    if not tree:
        raise BadReply("graphql: no data")
    bosminer = tree.get("bosminer")
    info = at(bosminer, "info")
    solver, power = at(info, "workSolver"), at(info, "summary", "power")
    hashrate_hs = scaled(at(solver, "realHashrate", "mhs5S"), 1e6)
    # While the mining process is stopped its whole branch is null.
    stopped = isinstance(bosminer, Mapping) and "info" in bosminer and info is None
    return {
        "power_w": scaled(at(power, "approxConsumptionW")),
        "hashrate_hs": 0.0 if stopped else hashrate_hs,
        "temp_c": max(_temperatures(solver), default=None),
        "uptime_s": scaled(at(tree, "bos", "uptime", "durationS")),
        "fan_rpm": max(
            (rpm for fan in rows(at(info, "fans")) if (rpm := scaled(at(fan, "rpm"))) is not None), default=None
        ),
        "power_limit_w": scaled(at(power, "limitW")),
        "accepted_shares": _shares(info),
        "pool_url": next((text_or_none(at(pool, "url")) for pool in _pools(info) if at(pool, "active")), None),
        "model": text_or_none(at(info, "modelName")),
        "firmware": text_or_none(at(tree, "bos", "info", "version", "full")),
        "stopped": stopped,
    }


def at(tree: Any, *path: str) -> Any:
    """Value at a path of keys, None where the path breaks off."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def rows(value: Any) -> list[Any]:
    """The list, or none."""
    return value if isinstance(value, list) else []


def _merge(into: dict[str, Any], tree: Mapping[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, Mapping):
            into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value


def _pools(info: Any) -> list[Any]:
    return [pool for group in rows(at(info, "poolGroups")) for pool in rows(at(group, "pools"))]


def _shares(info: Any) -> int | None:
    """Sum over all pools, since each counts its own."""
    known = [n for pool in _pools(info) if (n := count(at(pool, "shares", "acceptedSolutions"))) is not None]
    return sum(known) if known else None


def _temperatures(solver: Any) -> list[float]:
    return [
        value
        for board in rows(at(solver, "childSolvers"))
        for sensor in rows(at(board, "temperatures"))
        if (value := bounded(at(sensor, "degreesC"), -40, ABSURD_C)) is not None
    ]
