"""What the uncertainty of a learned curve decides in the program."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.dispatch.solve import Planner
from controller.fleet.curves import learned
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit


def told(sd: float) -> pb.PoolRollup:
    curve = ((600e3, 0.60), (825e3, 0.90), (1100e3, 1.0))
    return pb.PoolRollup(curve=[pb.PoolPoint(power_w=w, throughput_ratio=r, throughput_sd=sd) for w, r in curve])


def test_of_two_guaranteed_pools_the_less_known_is_capped_last(make):
    known = make.pool("known", AiPriority.GUARANTEED, 1000)
    unknown = make.pool("unknown", AiPriority.GUARANTEED, 1000)
    known = replace(known, pool=learned(known.pool, told(0.01)))
    unknown = replace(unknown, pool=learned(unknown.pool, told(0.1)))
    short = make.site(ceiling_w=2.1e6, fixed_w=0.0, classes=(), pools=[known, unknown], overhead_ratio=0.0)
    a, b = Planner().solve(make.fleet(short)).sites[0].pools
    assert (a.expected_w, b.expected_w) == (pytest.approx(1.0e6), pytest.approx(1.1e6))
