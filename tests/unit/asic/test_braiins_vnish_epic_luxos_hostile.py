"""Braiins, VNish, ePIC and LuxOS under spoiled replies: a reading, an outcome or a named error, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.asic.families import braiins_graphql
from agent.asic.family import Dialogue, Login, Memory, Outcome, Profiles, Reading, Token
from agent.asic.registry import FAMILIES
from gridpivot.curves import miner_class
from gridpivot.errors import BadReply, DeviceUnreachable
from gridpivot.vocabulary import Mode
from sim.miners import graphql
from sim.miners.braiins import SimBraiins2505, SimBraiins2511
from sim.miners.epic import SimEpic
from sim.miners.luxos import SimLuxOs
from sim.miners.machine import Machine
from sim.miners.vnish import SimVNish
from sim.miners.web import WebRequest
from sim.miners.wire import WireMiner

pytestmark = pytest.mark.unit
KIND = miner_class("s19xp", "any", "Antminer S19 XP", shed_s=5, wake_s=60)
CURVE = {mode: point.power_w for mode, point in KIND.modes.items()}
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("1e999"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def machine(maker: Callable[..., WireMiner]) -> Any:
    return maker(Machine(KIND, 7, now_s=0.0), "02:00:00:00:00:01", clock=lambda: 100.0)


def rest_replies() -> dict[str, Any]:
    miner = machine(SimBraiins2511)
    token = miner.login("root", "root")
    paths = ("miner/stats", "miner/details", "cooling/state", "performance/tuner-state", "configuration/miner")
    paths += ("pools", "miner/errors", "miner/hw/hashboards")
    headers = {"authorization": token}
    return {p: orjson.loads(miner.web(WebRequest("GET", f"/api/v1/{p}", headers, b"")).body) for p in paths}


def graphql_replies() -> dict[str, Any]:
    _, selection = graphql.parse(braiins_graphql.QUERY)
    return {"graphql": {"data": graphql.cut(machine(SimBraiins2505)._tree(), selection)}}


def web_replies(maker: Callable[..., WireMiner], prefix: str, *paths: str) -> dict[str, Any]:
    miner = machine(maker)
    return {p: orjson.loads(miner.web(WebRequest("GET", f"{prefix}{p}", {}, b"")).body) for p in paths}


def luxos_replies() -> dict[str, Any]:
    miner = machine(SimLuxOs)
    names = ("summary", "power", "temps", "config", "version", "profiles", "pools", "events", "fans")
    return {name: orjson.loads(miner.answer({"command": name})) for name in names}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "braiins rest": ("braiins", rest_replies()),
    "braiins graphql": ("braiins", graphql_replies()),
    "vnish": ("vnish", web_replies(SimVNish, "/api/v1/", "summary", "info", "perf-summary")),
    "epic": ("epic", web_replies(SimEpic, "/", "summary", "capabilities", "network")),
    "luxos": ("luxos", luxos_replies()),
}


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(deeper for key, value in inner for deeper in nodes(value, (*path, key)))]


def spoiled(tree: dict[str, Any], path: tuple[Any, ...], junk: Any) -> dict[str, Any]:
    changed: Any = copy.deepcopy(tree)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = junk
    return dict(changed)


@pytest.mark.parametrize("case", list(CASES))
@given(data=st.data())
def test_a_reply_spoiled_anywhere_is_a_reading_or_a_bad_reply(case: str, data: st.DataObject) -> None:
    family, replies = CASES[case]
    path = data.draw(st.sampled_from(nodes(replies)[1:]))
    broken = spoiled(replies, path, data.draw(JUNK))
    memory = Memory(slow_replies=dict(broken), mode_power_w=CURVE)
    with suppress(BadReply):
        assert isinstance(FAMILIES[family].parse(broken, memory), Reading)


@pytest.mark.parametrize("case", list(CASES))
def test_the_unspoiled_reply_has_every_fast_figure(case: str) -> None:
    family, replies = CASES[case]
    reading = FAMILIES[family].parse(replies, Memory(slow_replies=dict(replies), mode_power_w=CURVE))
    figures = (reading.power_w, reading.hashrate_hs, reading.temp_c, reading.uptime_s, reading.accepted_shares)
    assert None not in figures


def driven(dialogue: Dialogue, replies: list[Any], endless: Any) -> Outcome:
    """Drive to the end with the replies, then with `endless`; a dialogue of over 60 requests is a loop."""
    try:
        next(dialogue)
        for number in range(60):
            dialogue.send(replies[number] if number < len(replies) else endless)
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
    raise AssertionError("asks for ever")


@pytest.mark.parametrize("family", ["braiins rest", "braiins cookie", "vnish", "epic", "luxos"])
@given(replies=st.lists(JUNK, max_size=8), mode=st.sampled_from(list(Mode)), endless=JUNK)
def test_a_command_answered_with_junk_ends_in_an_outcome_or_a_named_error(
    family: str, replies: list[Any], mode: Mode, endless: Any
) -> None:
    name, _, via = family.partition(" ")
    memory = Memory(profiles=Profiles(), mode_power_w=CURVE)
    if via:
        memory.dialect, memory.dialect_until_s = ("rest" if via == "rest" else "graphql"), 1e9
        memory.token = Token("t", via, 1e9)
    for dialogue in (
        FAMILIES[name].command(mode, memory, Login("root", "root"), 1.0),
        FAMILIES[name].limit_power(2000.0, memory, Login("root", "root"), 1.0),
    ):
        with suppress(BadReply, DeviceUnreachable):
            assert isinstance(driven(dialogue, replies, endless), Outcome)
