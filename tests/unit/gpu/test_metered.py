"""A meter on a pool's circuit: believed while it can be, never a reason to think that less can be drawn than may be."""

from __future__ import annotations

import pytest

from agent.backends import MeterSample, PoolReading
from agent.gpu.metered import MeteredPools
from gridpivot.clock import Instant

pytestmark = pytest.mark.unit


class Boards:
    """A pool as boards and an assumed host share tell it."""

    def __init__(self) -> None:
        self.power_w: float | None = 8_000.0
        self.limits: list[tuple[int, float]] = []

    def read(self, now: Instant) -> list[PoolReading]:
        demand_w = None if self.power_w is None else self.power_w + 500.0
        return [PoolReading(self.power_w, 8_800.0, demand_w, 8, now.monotonic_s) for _ in range(2)]

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        self.limits.append((pool, limit_w))


class Meter:
    """A meter that is set."""

    sample: MeterSample | None = None

    def newest(self) -> MeterSample | None:
        return self.sample


def at(second: float) -> Instant:
    return Instant(second, 1.8e9 + second)


def settled(metered_w: float = 9_000.0) -> tuple[MeteredPools, Boards, Meter]:
    boards, meter = Boards(), Meter()
    pools = MeteredPools(boards, {0: meter})
    for second in range(12):
        meter.sample = MeterSample(metered_w, float(second))
        pools.read(at(second))
    return pools, boards, meter


def test_pool_that_stands_still_has_the_meters_power_and_its_limits_move_along() -> None:
    pools, _, _ = settled()
    first, second = pools.read(at(12.0))
    assert first.metered and first.power_w == 9_000.0
    assert first.limit_w == pytest.approx(9_800.0) and first.demand_w == pytest.approx(9_500.0)
    assert not second.metered and second.power_w == 8_000.0


def test_step_is_seen_by_the_boards_before_the_meter_has_caught_up() -> None:
    pools, boards, _ = settled()
    boards.power_w = 8_700.0
    (first, _) = pools.read(at(12.0))
    assert first.power_w == pytest.approx(9_700.0) and first.limit_w == pytest.approx(9_800.0)


def test_limit_is_asked_of_boards_less_what_hosts_draw_beyond_the_model() -> None:
    pools, boards, _ = settled()
    pools.set_limit(0, 9_300.0, at(12.0))
    pools.set_limit(1, 8_300.0, at(12.0))
    assert boards.limits == [(0, pytest.approx(8_300.0)), (1, 8_300.0)]


def test_meter_that_is_silent_is_no_meter() -> None:
    pools, _, _ = settled()
    (first, _) = pools.read(at(30.0))
    assert not first.metered and first.power_w == 8_000.0 and first.limit_w == 8_800.0


@pytest.mark.parametrize("wrong_w", [0.0, -9_000.0, 4_000.0, 27_000.0])
def test_meter_of_another_circuit_is_not_believed(wrong_w: float) -> None:
    pools, boards, _ = settled(wrong_w)
    (first, _) = pools.read(at(12.0))
    assert not first.metered and first.power_w == 8_000.0
    pools.set_limit(0, 8_300.0, at(12.0))
    assert boards.limits == [(0, 8_300.0)]


def test_boards_that_are_not_read_leave_the_meter_and_the_limit() -> None:
    pools, boards, meter = settled()
    boards.power_w = None
    meter.sample = MeterSample(9_100.0, 12.0)
    (first, _) = pools.read(at(12.0))
    assert first.metered and first.power_w == 9_100.0 and first.limit_w == 8_800.0
