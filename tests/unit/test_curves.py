"""Classes and pools: what the wire may say, and what it may not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpivot.curves import AiPool, MinerClass, concave_hull, gpu_pool, miner_class
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority, Mode

pytestmark = pytest.mark.unit


def test_a_class_and_a_pool_survive_the_wire() -> None:
    kind = miner_class("s19", "luxos", "Antminer S19", shed_s=5, wake_s=60)
    pool = gpu_pool("inference", AiPriority.GUARANTEED, 8)
    assert MinerClass.from_proto(kind.to_proto()) == kind
    assert AiPool.from_proto(pool.to_proto()) == pool


def test_a_pool_whose_powers_do_not_ascend_is_refused() -> None:
    wire = gpu_pool("inference", AiPriority.GUARANTEED, 8).to_proto()
    wire.min_w = wire.max_w + 1
    with pytest.raises(ValueError, match="do not ascend"):
        AiPool.from_proto(wire)


def test_a_pool_whose_curve_turns_back_is_refused() -> None:
    wire = gpu_pool("inference", AiPriority.GUARANTEED, 8).to_proto()
    wire.curve.append(pb.PoolPoint(power_w=1.0, throughput_ratio=0.1))
    with pytest.raises(ValueError, match="does not ascend"):
        AiPool.from_proto(wire)


def test_a_board_without_a_range_still_makes_a_pool() -> None:
    assert gpu_pool("fixed", AiPriority.SPOT, 8, gpu_min_w=700.0, gpu_max_w=700.0).curve == ((8800.0, 1.0),)


def test_a_class_without_sleep_is_refused() -> None:
    wire = miner_class("s19", "luxos", "Antminer S19", shed_s=5, wake_s=60).to_proto()
    del wire.modes[0]
    with pytest.raises(ValueError, match="sleep and normal"):
        MinerClass.from_proto(wire)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e15)), min_size=1, max_size=12))
def test_the_hull_is_concave_and_under_no_point(points: list[tuple[float, float]]) -> None:
    hull = concave_hull(points)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(hull)]
    assert all(later <= earlier * (1 + 1e-9) + 1e-3 for earlier, later in itertools.pairwise(slopes))
    assert {hull[0][0], hull[-1][0]} == {min(p[0] for p in points), max(p[0] for p in points)}


def test_low_mode_is_worth_more_per_watt_than_normal() -> None:
    modes = miner_class("s19", "luxos", "Antminer S19", shed_s=5, wake_s=60).modes
    low, normal = modes[Mode.LOW], modes[Mode.NORMAL]
    assert low.hashrate_hs / low.power_w > normal.hashrate_hs / normal.power_w
