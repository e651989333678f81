"""What a node holds its GPUs to: limits while the lease lives, fallbacks after it, never up and never a guess."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gpu.nvml import GpuReading
from agent.node.lease import NodeLease
from gridpivot.errors import BadReport
from gridpivot.v1 import node_pb2 as pb

pytestmark = pytest.mark.unit

UUIDS = ["GPU-a", "GPU-b"]
RANGES = dict.fromkeys(UUIDS, (200.0, 700.0))


def limits(*rows: tuple[float | None, float | None], sequence: int = 1) -> pb.NodeLimits:
    message = pb.NodeLimits(sequence=sequence)
    for row, (limit_w, fallback_w) in enumerate(rows):
        message.gpus.add(row=row, limit_w=limit_w, fallback_w=fallback_w)
    return message


def leased(limit_w: float = 500.0, fallback_w: float = 300.0) -> NodeLease:
    lease = NodeLease()
    lease.begin(15.0)
    lease.take(limits((limit_w, fallback_w), (limit_w, fallback_w)), UUIDS, RANGES)
    lease.renew(100.0, 100.0)
    return lease


def boards(limit_w: float | None) -> dict[str, GpuReading]:
    return {u: GpuReading(u, limit_requested_w=limit_w, limit_enforced_w=limit_w) for u in UUIDS}


def test_limits_hold_while_the_lease_lives_and_fallbacks_after_it() -> None:
    lease = leased()
    assert lease.due(boards(500.0), 114.9) == dict.fromkeys(UUIDS, 500.0)
    assert lease.due(boards(500.0), 115.0) == dict.fromkeys(UUIDS, 300.0)


def test_lower_limit_stays_where_it_is_when_the_site_is_gone() -> None:
    assert leased(limit_w=250.0).due(boards(250.0), 200.0) == dict.fromkeys(UUIDS, 250.0)


def test_nothing_is_set_where_nothing_is_known_of_what_stands() -> None:
    lease = NodeLease(fallback_w=dict.fromkeys(UUIDS, 300.0))
    assert lease.due({}, 0.0) == {} and lease.due(boards(None), 0.0) == {}


def test_what_lay_in_a_buffer_renews_nothing() -> None:
    lease = leased()
    lease.renew(101.0, 140.0)  # a moment of ours that came back after 39 s
    assert not lease.live(140.0)
    lease.renew(1e9, 141.0)  # and one that is none of ours
    assert not lease.live(141.0)


@pytest.mark.parametrize(
    "bad",
    [
        limits((800.0, 300.0)),
        limits((100.0, 300.0)),
        limits((float("nan"), 300.0)),
        limits((500.0, float("inf"))),
        limits((500.0, 300.0), (500.0, 300.0), (500.0, 300.0)),
    ],
)
def test_limits_outside_the_range_are_refused_whole(bad: pb.NodeLimits) -> None:
    lease = leased()
    before = dict(lease.limit_w), dict(lease.fallback_w), lease.sequence
    with pytest.raises(BadReport):
        lease.take(bad, UUIDS, RANGES)
    assert (lease.limit_w, lease.fallback_w, lease.sequence) == before


def test_fallback_is_forgotten_only_for_another() -> None:
    lease = leased()
    lease.take(limits((450.0, None), (450.0, 250.0), sequence=2), UUIDS, RANGES)
    assert lease.fallback_w == {"GPU-a": 300.0, "GPU-b": 250.0}


watts = st.floats(200.0, 700.0)


@given(watts, watts, watts, st.floats(0.0, 300.0))
def test_after_the_lease_nothing_ever_rises(limit_w: float, fallback_w: float, stands_w: float, later_s: float) -> None:
    lease = leased(limit_w, fallback_w)
    for limit in lease.due(boards(stands_w), 115.0 + later_s).values():
        assert limit <= min(stands_w, fallback_w, limit_w) + 1e-3  # watts travel as float32
