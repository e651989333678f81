"""Records on the wire: what was packed comes out, and what is hostile comes out as one refusal."""

import contextlib
import os

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gridpivot.errors import BadReport
from gridpivot.link.codec import (
    KIND_OF,
    MAX_EVENT_BYTES,
    MAX_RECORD_BYTES,
    MAX_ROLLUP_BYTES,
    decode_payload,
    encode_payload,
    unpacked_bytes,
)
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import telemetry_pb2 as pb

pytestmark = pytest.mark.unit

EVENT = wire.RECORD_KIND_SITE_EVENT


def messages() -> list:
    return [
        pb.SiteEvent(kind="meter_fault", message="site meter is stale", figures={"assumed_w": 1e6}),
        pb.SiteRollup(metered_power_w=2e7, classes=[pb.ClassRollup(name="s21", power_w=1e6)]),
        pb.DeviceReport(inventory_hash=b"h" * 32, device_count=3),
        pb.Inventory(inventory_hash=b"h" * 32, device_count=3, class_indexes=bytes(3)),
    ]


@pytest.mark.parametrize("message", messages(), ids=lambda m: type(m).__name__)
def test_every_kind_comes_back_as_it_went(message) -> None:
    assert decode_payload(KIND_OF[type(message)], encode_payload(message)) == message


def test_empty_message_is_a_message_too() -> None:
    assert decode_payload(EVENT, encode_payload(pb.SiteEvent())) == pb.SiteEvent()


def test_bomb_is_refused_by_what_it_declares() -> None:
    bomb = zstandard.compress(bytes(MAX_RECORD_BYTES + 1))
    assert len(bomb) < 10_000
    with pytest.raises(BadReport, match="at most"):
        decode_payload(EVENT, bomb)


def test_frame_that_does_not_declare_its_size_is_refused() -> None:
    stream = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    frame = stream.compress(b"x" * 100) + stream.flush()
    with pytest.raises(BadReport):
        decode_payload(EVENT, frame)


@pytest.mark.parametrize("kind", [0, 5, 99])
def test_unknown_kind_is_refused(kind: int) -> None:
    with pytest.raises(BadReport, match="unknown"):
        decode_payload(kind, encode_payload(pb.SiteEvent()))


def test_every_truncation_is_refused() -> None:
    whole = encode_payload(pb.SiteEvent(kind="meter_fault", message=os.urandom(40).hex()))
    for length in range(len(whole)):
        with pytest.raises(BadReport):
            decode_payload(EVENT, whole[:length])


@given(st.binary(max_size=200), st.booleans(), st.sampled_from(sorted(KIND_OF.values())))
def test_garbage_is_a_message_or_one_refusal(raw: bytes, framed: bool, kind: int) -> None:
    with contextlib.suppress(BadReport):
        decode_payload(kind, zstandard.compress(raw) if framed else raw)


@pytest.mark.parametrize(
    "message",
    [pb.SiteEvent(message="a" * MAX_EVENT_BYTES), pb.SiteRollup(rung="a" * MAX_ROLLUP_BYTES)],
    ids=lambda m: type(m).__name__,
)
def test_sentence_of_megabytes_is_refused_before_it_is_unpacked(message) -> None:
    packed = encode_payload(message)
    assert len(packed) < 1_000
    with pytest.raises(BadReport, match="at most"):
        decode_payload(KIND_OF[type(message)], packed)


def test_size_once_unpacked_is_known_before_and_never_more_than_would_be_unpacked() -> None:
    assert unpacked_bytes(zstandard.compress(bytes(5_000))) == 5_000
    assert unpacked_bytes(zstandard.compress(bytes(MAX_RECORD_BYTES + 1))) == MAX_RECORD_BYTES
    assert unpacked_bytes(b"no frame") == 0
