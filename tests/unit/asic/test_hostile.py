"""Whatever JSON a device sends, a parser gives a sane reading or a BadReply, and nothing else."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.asic.belief import MAX_HASHRATE_HS, MAX_POWER_W, Expected, believe
from agent.asic.decode import decode
from agent.asic.family import Memory, Reading
from agent.asic.registry import FAMILIES
from gridpivot.errors import BadReply

pytestmark = pytest.mark.unit

KEYS = [
    "SUMMARY",
    "STATS",
    "POWER",
    "TEMPS",
    "CONFIG",
    "VERSION",
    "STATUS",
    "Msg",
    "Code",
    "mineroff",
    "btmineroff",
    "hash_percent",
    "Power",
    "Power_RT",
    "Elapsed",
    "Accepted",
    "chain",
    "chain_power",
    "temp_chip",
    "temp_chip1",
    "Watts",
    "PSU",
    "CurtailMode",
    "Profile",
    "miner-mode",
    "pools",
    "Type",
    "MAC",
    "MHS 5s",
    "HS RT",
    "GHS 5s",
    "GHS av",
    "Power Mode",
    "Chip Temp Max",
    "summary",
    "stats",
    "config",
]
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.sampled_from(["inf", "nan", "-1", "3250", "3250 W", "1e999", "true", "Sleep", "1-2--3", "\x00"])
    | st.text(max_size=6)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)
objects = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)


def sane(said: Reading) -> bool:
    reading, _ = believe(said, Expected())
    figures = (reading.power_w, reading.hashrate_hs, reading.temp_c, reading.uptime_s, reading.accepted_shares)
    return (
        all(figure is None or (math.isfinite(figure) and figure > -41) for figure in figures)
        and (reading.power_w or 0) <= MAX_POWER_W
        and (reading.hashrate_hs or 0) <= MAX_HASHRATE_HS
    )


@pytest.mark.parametrize("family", list(FAMILIES))
@given(summary=objects, rows=st.lists(objects, max_size=3), other=objects, slow=objects)
def test_any_reply_gives_a_sane_reading_or_a_bad_reply(
    family: str, summary: dict[str, Any], rows: list[Any], other: dict[str, Any], slow: dict[str, Any]
) -> None:
    memory = Memory(slow_replies={"get_miner_conf": slow, "version": slow, "devdetails": slow, "get_version": slow})
    replies = {
        "summary": {"SUMMARY": [summary]},
        "stats": {"STATS": rows},
        "status": {"Msg": other},
        "power": {"POWER": [other]},
        "temps": {"TEMPS": rows},
        "config": {"CONFIG": [other]},
    }
    for given_replies in (replies, dict.fromkeys(replies, summary), {"summary": rows}):
        try:
            assert sane(FAMILIES[family].parse(given_replies, memory))
        except BadReply:
            continue


@pytest.mark.parametrize("family", list(FAMILIES))
@given(reply=values)
def test_absorbing_any_reply_never_raises(family: str, reply: Any) -> None:
    known = FAMILIES[family]
    memory = Memory()
    for request in (*known.requests(memory), *known.slow_requests(memory)):
        known.absorb(request, reply, memory)


@given(objects)
def test_decode_of_any_object_is_a_reading_or_a_bad_reply(reply: dict[str, Any]) -> None:
    try:
        data = orjson.dumps(reply)
    except orjson.JSONEncodeError:
        return
    try:
        assert sane(decode(data).reading)
    except BadReply:
        return
