"""Replies of every family, recorded from its simulated machine and then spoiled: a sane reading or a BadReply, no more."""

from __future__ import annotations

import asyncio
import copy
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.asic import conversation
from agent.asic.belief import MAX_HASHRATE_HS, MAX_POWER_W, TEMP_C, Expected, believe
from agent.asic.conversation import Line
from agent.asic.family import HttpRequest, Memory, Reading
from agent.asic.registry import FAMILIES
from agent.asic.repair import parse_reply
from gridpivot.errors import BadReply
from sim.miners.fleet import EVERY_FAMILY, WireMiners

pytestmark = pytest.mark.unit
Recorded = dict[str, tuple[Memory, dict[str, bytes]]]
RECORDED: Recorded = {}


async def record() -> Recorded:
    """One real poll of one machine of every family; bytes by request, and what was learned of the device."""
    made: Recorded = {}
    heard: dict[str, bytes] = {}
    ask, fetch = conversation.ask, conversation.fetch

    async def hear_ask(endpoint: Any, request: Any, deadline_s: float) -> bytes:
        heard[request.name] = data = await ask(endpoint, request, deadline_s)
        return data

    async def hear_fetch(endpoint: Any, request: Any, login: Any, deadline_s: float) -> bytes:
        heard[request.name] = data = await fetch(endpoint, request, login, deadline_s)
        return data

    conversation.ask, conversation.fetch = hear_ask, hear_fetch
    try:
        async with WireMiners(len(EVERY_FAMILY), dict.fromkeys(EVERY_FAMILY, 1.0), shared_ports=True) as fleet:
            logins = fleet.logins()
            for miner, endpoint in zip(fleet.miners, fleet.inventory().endpoints, strict=True):
                heard.clear()
                family = FAMILIES[miner.family]
                line = Line(family, endpoint, logins.get(miner.family), Memory(mode_power_w={}), 3.0, Counter())
                await line.read(slow=True, now_s=1.0)
                made[miner.family] = (copy.deepcopy(line.memory), dict(heard))
    finally:
        conversation.ask, conversation.fetch = ask, fetch
    return made


@pytest.fixture(scope="module", autouse=True)
def recorded() -> Recorded:
    if not RECORDED:
        RECORDED.update(asyncio.run(record()))
    return RECORDED


NONSENSE = st.sampled_from(
    [b"", b"\x00", b"null", b"[]", b"{}", b'""', b"-1", b"1e999", b"-1e308", b"99999999999999999999999", b"NaN", b"inf",
     b"{" * 200, b"[" * 3000, b'{"a":' * 500, b"true", b"\xff\xfe\xfd", b'"\\ud800"', b",", b"}{", b"\n\x01\x02"]
)  # fmt: skip
edits = st.lists(
    st.tuples(st.sampled_from(["cut", "insert", "replace", "flip", "splice", "number"]), st.floats(0, 1), st.floats(0, 1), NONSENSE),
    min_size=1,
    max_size=4,
)  # fmt: skip


def spoil(data: bytes, others: list[bytes], changes: list[tuple[str, float, float, bytes]]) -> bytes:
    """A few edits at places given as shares of the length."""
    for how, place, much, nonsense in changes:
        at = int(place * len(data))
        end = min(len(data), at + 1 + int(much * 40))
        if how == "cut":
            data = data[:at]
        elif how == "insert":
            data = data[:at] + nonsense + data[at:]
        elif how == "replace":
            data = data[:at] + nonsense + data[end:]
        elif how == "flip" and data:
            data = data[: at - 1] + bytes((data[at - 1] ^ (1 << int(much * 7)),)) + data[at:]
        elif how == "splice" and others:
            other = others[int(much * (len(others) - 1))]
            data = data[:at] + other[int(place * len(other)) :]
        elif how == "number":
            digits = [i for i, letter in enumerate(data) if 48 <= letter <= 57]
            if digits:
                i = digits[int(place * (len(digits) - 1))]
                data = data[:i] + nonsense + data[i + 1 :]
    return data


def read(family_name: str, name: str, spoiled: bytes) -> Reading:
    """As `Line.read` does it, without the sockets; raises BadReply."""
    family = FAMILIES[family_name]
    memory, replies = copy.deepcopy(RECORDED[family_name][0]), RECORDED[family_name][1]
    fast: dict[str, Any] = {}
    for request in (*family.requests(memory), *family.slow_requests(memory)):
        data = spoiled if request.name == name else replies.get(request.name)
        if data is None:
            continue
        plain = isinstance(request, HttpRequest) and request.plain_text
        try:
            value = data.decode("utf-8", "replace") if plain else parse_reply(data).value
        except BadReply:
            if request.optional or request in family.slow_requests(memory):
                memory.slow_replies.pop(request.name, None)
                continue
            raise
        if request in family.requests(memory):
            parts, _ = family.absorb(request, value, memory)
            fast.update(parts)
        else:
            memory.slow_replies[request.name] = value
    return family.parse(fast, memory)


def sane(said: Reading) -> None:
    """What belief lets through."""
    reading, _ = believe(said, Expected())
    for value, low, high in (
        (reading.power_w, 0.0, MAX_POWER_W),
        (reading.hashrate_hs, 0.0, MAX_HASHRATE_HS),
        (reading.temp_c, *TEMP_C),
        (reading.uptime_s, 0.0, 1e10),
    ):
        assert value is None or (math.isfinite(value) and low <= value <= high)
    assert all(isinstance(word, str) and len(word) <= 200 for word in reading.fault_codes)
    assert len(reading.fault_codes) <= 16 and len(reading.board_serials) <= 64
    for text in (reading.model, reading.firmware, reading.mac, reading.serial, reading.pool_url):
        assert text is None or (isinstance(text, str) and len(text) <= 512)


def test_the_recordings_themselves_are_read() -> None:
    assert set(RECORDED) == set(FAMILIES) - {"other"}
    for family, (_, replies) in RECORDED.items():
        assert replies, family
        name, data = next(iter(replies.items()))
        assert read(family, name, data).hashrate_hs


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"other"}))
@settings(max_examples=250)
@given(changes=edits, which=st.floats(0, 1))
def test_a_spoiled_reply_is_a_sane_reading_or_a_bad_reply(
    family: str, changes: list[tuple[str, float, float, bytes]], which: float
) -> None:
    replies = RECORDED[family][1]
    name = sorted(replies)[int(which * (len(replies) - 1))]
    spoiled = spoil(replies[name], list(replies.values()), changes)
    try:
        sane(read(family, name, spoiled))
    except BadReply:
        return


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"other"}))
@given(changes=edits, which=st.floats(0, 1))
def test_recognising_and_naming_a_spoiled_reply_never_raises(
    family: str, changes: list[tuple[str, float, float, bytes]], which: float
) -> None:
    replies = RECORDED[family][1]
    name = sorted(replies)[int(which * (len(replies) - 1))]
    try:
        value = parse_reply(spoil(replies[name], list(replies.values()), changes)).value
    except BadReply:
        return
    for known in FAMILIES.values():
        known.recognise(known.name_reply(name, value))
