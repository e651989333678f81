"""Clock locks of GPUs on other hosts: told to every node, also to who comes later, let go once and then no more."""

import pytest

from agent.gpu.outcomes import LimitOutcome
from agent.gpu.reading import ClockAttempt
from agent.node.lease import NodeLease
from agent.node.report import with_clocks
from gridpivot.errors import BadReport
from gridpivot.v1 import node_pb2 as pb
from tests.unit.node.site_of_nodes import Site

pytestmark = pytest.mark.unit

UUIDS = ["GPU-a", "GPU-b"]
RANGES = dict.fromkeys(UUIDS, (200.0, 700.0))


def test_lock_reaches_every_node_and_shows_in_their_clocks() -> None:
    site = Site(("a", "b"))
    a, b = site.node("a"), site.node("b")
    site.pools.lock_clocks(0, 1200, site.clock.now())
    a.take()
    assert site.pools.clocks(0).highest_hz == 1980e6  # b has not taken it yet
    b.take()
    assert site.pools.clocks(0).highest_hz == 1200e6
    b.go()
    b.lock_mhz.clear()  # it was started anew: its driver knows of no lock
    b.come()
    b.take()
    assert site.pools.clocks(0).highest_hz == 1200e6


def test_clock_that_is_let_go_is_told_once() -> None:
    site = Site(("a",))
    a = site.node("a")
    site.pools.lock_clocks(0, 1200, site.clock.now())
    a.take()
    site.pools.lock_clocks(0, None, site.clock.now())
    told = site.pools.limits_of(a.node)
    assert [gpu.clock_max_mhz for gpu in told.gpus] == [0] * 4
    a.take()
    assert site.pools.clocks(0).highest_hz == 1980e6
    assert not any(gpu.HasField("clock_max_mhz") for gpu in site.pools.limits_of(a.node).gpus)


def test_node_that_refuses_says_so_by_its_word_and_a_silent_one_tells_nothing() -> None:
    site = Site(("a", "b"))
    a, b = site.node("a"), site.node("b")
    b.obeys = False
    site.pools.lock_clocks(0, 1200, site.clock.now())
    a.take()
    b.take()
    state = site.pools.clocks(0)
    assert (state.refused, state.highest_hz) == ("no_permission", 1980e6) and "b GPU 0" in state.detail
    b.go()
    assert site.pools.clocks(0).highest_hz == 1200e6


def lock(sequence: int, mhz: int) -> pb.NodeLimits:
    return pb.NodeLimits(sequence=sequence, gpus=[pb.GpuLimit(row=0, limit_w=600.0, clock_max_mhz=mhz)])


def test_lock_outlives_the_lease_and_only_a_word_lets_it_go() -> None:
    lease = NodeLease()
    lease.begin(15.0)
    assert lease.take(lock(1, 1200), UUIDS, RANGES) and lease.clock_mhz == {"GPU-a": 1200}
    silent = pb.NodeLimits(sequence=2, gpus=[pb.GpuLimit(row=0, limit_w=600.0)])
    assert not lease.take(silent, UUIDS, RANGES) and lease.clock_mhz == {"GPU-a": 1200}
    assert lease.take(lock(3, 0), UUIDS, RANGES) and lease.clock_mhz == {"GPU-a": 0}


def test_absurd_clock_changes_nothing() -> None:
    lease = NodeLease()
    lease.begin(15.0)
    with pytest.raises(BadReport, match="MHz"):
        lease.take(lock(1, 2**31), UUIDS, RANGES)
    assert (lease.clock_mhz, lease.limit_w, lease.sequence) == ({}, {}, 0)


def test_lock_that_was_not_taken_stands_beside_the_limits_word() -> None:
    limits = [pb.GpuOutcome(row=0, outcome="ok")]
    locks = {
        "GPU-a": ClockAttempt(1200, LimitOutcome.UNSUPPORTED, "no range"),
        "GPU-b": ClockAttempt(1200, LimitOutcome.LOST),
    }
    told = with_clocks(limits, UUIDS, locks)
    assert [(one.row, one.outcome, one.clock_outcome) for one in told] == [
        (0, "ok", "unsupported"),
        (1, "unchanged", "lost"),
    ]
