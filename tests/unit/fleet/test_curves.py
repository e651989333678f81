"""What of a learned curve is planned on: the mean where money is at stake, less where a promise is, nothing where little is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.curves import WIDE_SD, learned
from gridpivot.curves import AiPool, gpu_pool
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit

CURVE = ((600e3, 0.60), (825e3, 0.90), (1100e3, 1.0))


def pool(priority: AiPriority, name: str = "p") -> AiPool:
    return gpu_pool(name, priority, 1000)


def told(sd: float | None, curve: tuple[tuple[float, float], ...] = CURVE) -> pb.PoolRollup:
    return pb.PoolRollup(curve=[pb.PoolPoint(power_w=w, throughput_ratio=r, throughput_sd=sd) for w, r in curve])


@pytest.mark.parametrize("priority", [AiPriority.STANDARD, AiPriority.SPOT])
def test_income_is_expected_on_the_mean(priority: AiPriority) -> None:
    assert learned(pool(priority), told(0.1)).curve == CURVE
    assert learned(pool(priority), told(None)).curve == CURVE  # an agent that tells no spread


def test_a_promise_is_planned_on_what_is_nearly_sure_and_its_top_is_no_guess() -> None:
    assert learned(pool(AiPriority.GUARANTEED), told(0.05)).curve == ((600e3, 0.54), (825e3, 0.84), (1100e3, 1.0))
    assert learned(pool(AiPriority.GUARANTEED), told(0.0)).curve == CURVE


@pytest.mark.parametrize("sd", [0.2, float("nan"), -0.1, float("inf")])
def test_a_curve_that_is_hardly_known_is_none(sd: float) -> None:
    for priority in AiPriority:
        assert learned(pool(priority), told(sd)) == pool(priority)


def test_a_promise_needs_a_spread() -> None:
    assert learned(pool(AiPriority.GUARANTEED), told(None)) == pool(AiPriority.GUARANTEED)


@given(
    st.lists(st.tuples(st.floats(480e3, 1100e3), st.floats(0.0, 1.0), st.floats(0.0, WIDE_SD)), min_size=1, max_size=8)
)
def test_what_is_promised_is_never_more_than_the_mean(points: list[tuple[float, float, float]]) -> None:
    powers, ratios = sorted({p[0] for p in points}), sorted(p[1] for p in points)
    wire = [
        pb.PoolPoint(power_w=w, throughput_ratio=r, throughput_sd=sd)
        for w, r, (_, _, sd) in zip(powers, ratios, points, strict=False)
    ]
    declared = pool(AiPriority.GUARANTEED)
    found = learned(declared, pb.PoolRollup(curve=wire))
    if found != declared:
        assert all(r <= p.throughput_ratio + 0.0051 for (_, r), p in zip(found.curve, wire, strict=True))
        assert found.curve[-1][1] == wire[-1].throughput_ratio
