"""What a node holds its GPUs to: never up by itself, never the default, whatever the link delivers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gpu.reading import GpuReading
from agent.node.gpus import only_lower
from agent.node.lease import NodeLease
from gridpivot.errors import BadReport
from gridpivot.v1 import node_pb2 as pb

pytestmark = pytest.mark.unit

UUIDS = ["GPU-a", "GPU-b"]
RANGES = dict.fromkeys(UUIDS, (200.0, 700.0))


def limits(sequence: int, *rows: tuple[float | None, float | None]) -> pb.NodeLimits:
    gpus = [pb.GpuLimit(row=n, limit_w=limit, fallback_w=fallback) for n, (limit, fallback) in enumerate(rows)]
    return pb.NodeLimits(sequence=sequence, gpus=gpus)


def reading(uuid: str, stands_w: float | None, lost: bool = False) -> dict[str, GpuReading]:
    return {uuid: GpuReading(uuid, limit_requested_w=stands_w, limit_enforced_w=stands_w, lost=lost)}


def leased(limit_w: float = 600.0, fallback_w: float | None = 300.0) -> NodeLease:
    lease = NodeLease()
    lease.begin(15.0)
    lease.take(limits(1, (limit_w, fallback_w)), UUIDS, RANGES)
    lease.renew(100.0, 100.1)
    return lease


def test_limits_hold_while_the_lease_lives_and_fallbacks_after_it() -> None:
    lease = leased()
    assert lease.due(reading("GPU-a", 600.0), 114.9) == {"GPU-a": 600.0}
    assert lease.due(reading("GPU-a", 600.0), 115.0) == {"GPU-a": 300.0}


def test_lease_runs_from_the_moment_that_came_back_not_from_when_it_came() -> None:
    lease = leased()
    lease.renew(101.0, 130.0)  # lay in a buffer for half a minute
    assert not lease.live(130.0)
    lease.renew(500.0, 131.0)  # a moment that has not been yet is none of ours
    assert not lease.live(131.0)


@given(st.floats(1.0, 700.0), st.floats(200.0, 700.0), st.floats(200.0, 700.0))
def test_nothing_rises_when_a_lease_ends(stands_w: float, limit_w: float, fallback_w: float) -> None:
    lease = leased(limit_w, fallback_w)
    due = lease.due(reading("GPU-a", stands_w), 200.0)
    assert due["GPU-a"] <= min(stands_w, limit_w, fallback_w) + 1e-3  # float32 on the wire


def test_board_that_came_back_at_its_default_goes_to_the_fallback() -> None:
    assert leased().due(reading("GPU-a", 700.0), 200.0) == {"GPU-a": 300.0}


def test_gpu_without_a_fallback_stays_where_it_is() -> None:
    assert leased(fallback_w=None).due(reading("GPU-a", 600.0), 200.0) == {}


def test_gpu_of_which_nothing_is_known_is_left_alone() -> None:
    lease = NodeLease({"GPU-a": 300.0})
    assert lease.due(reading("GPU-a", None), 0.0) == {}
    assert lease.due(reading("GPU-a", 250.0, lost=True), 0.0) == {}
    assert lease.due({}, 0.0) == {}


def test_fallback_outlives_limits_that_name_none() -> None:
    lease = leased()
    lease.take(limits(2), UUIDS, RANGES)
    assert lease.fallback_w == {"GPU-a": 300.0} and lease.limit_w == {}


@pytest.mark.parametrize("watts", [math.nan, math.inf, -1.0, 0.0, 100.0, 701.0, 1e9])
@pytest.mark.parametrize("place", ["limit_w", "fallback_w"])
def test_absurd_watts_change_nothing(watts: float, place: str) -> None:
    lease = leased()
    bad = limits(2, (500.0, 300.0), (watts, 300.0) if place == "limit_w" else (500.0, watts))
    with pytest.raises(BadReport, match="outside"):
        lease.take(bad, UUIDS, RANGES)
    assert (lease.limit_w, lease.sequence) == ({"GPU-a": 600.0}, 1)


def test_rows_that_are_not_there_or_come_twice_change_nothing() -> None:
    lease = leased()
    for rows in ([7], [0, 0]):
        with pytest.raises(BadReport, match="row"):
            lease.take(pb.NodeLimits(sequence=2, gpus=[pb.GpuLimit(row=r, limit_w=500.0) for r in rows]), UUIDS, RANGES)
    assert lease.limit_w == {"GPU-a": 600.0}


def test_with_a_disk_that_refuses_nothing_rises() -> None:
    wanted = {"GPU-a": 600.0, "GPU-b": 250.0, "GPU-c": 300.0}
    stands = reading("GPU-a", 400.0) | reading("GPU-b", 400.0) | reading("GPU-c", None)
    assert only_lower(wanted, stands) == {"GPU-a": 400.0, "GPU-b": 250.0}
