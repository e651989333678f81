"""The fuzzer's corpus, replayed: no input ends as anything but a reading or a BadReply, or a ValueError of the HTTP parser."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.asic import http
from agent.asic.belief import Expected, believe
from agent.asic.family import Memory
from agent.asic.registry import FAMILIES
from agent.asic.repair import parse_reply
from gridpivot.errors import BadReply

pytestmark = pytest.mark.unit
CORPUS = sorted((Path(__file__).parents[2] / "fuzz" / "corpus").iterdir())


def test_there_is_a_corpus() -> None:
    assert len(CORPUS) > 50


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_input_of_the_corpus_is_borne_by_every_family(family: str) -> None:
    known = FAMILIES[family]
    read = refused = 0
    for path in CORPUS:
        try:
            value = parse_reply(path.read_bytes()[1:]).value
            named = known.name_reply(path.name, value)
            known.recognise(named)
            memory = Memory(slow_replies=dict(named))
            for request in (*known.requests(memory), *known.slow_requests(memory)):
                known.absorb(request, value, memory)
            believe(known.parse(named, memory), Expected())
            read += 1
        except BadReply:
            refused += 1
    assert read + refused == len(CORPUS) and refused > 0


def test_every_input_of_the_corpus_is_borne_by_the_http_parser() -> None:
    for path in CORPUS:
        data = path.read_bytes()[1:]
        assert http.is_whole(data) in (True, False)
        try:
            assert len(http.parse(data).body) <= len(data)
        except ValueError:
            continue


@pytest.mark.parametrize("bomb", [b"[" * 200_000, b'{"a":' * 50_000, b'"' + b"\\" * 99_999, b"{,}" * 40_000])
def test_a_bomb_is_a_bad_reply_in_no_time_to_speak_of(bomb: bytes) -> None:
    with pytest.raises(BadReply):
        parse_reply(bomb)
