"""A window that keeps the queue in front of us short, whatever the link."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpivot.link.pace import LEAST_WINDOW_BYTES, PART_BYTES, Allowance, Pace

pytestmark = pytest.mark.unit


class Wire:
    """Serial link in virtual time: what is written arrives in order at its rate, and is told of half a round trip later."""

    def __init__(self, bytes_per_s: float, round_trip_s: float) -> None:
        self.rate, self.round_trip_s = bytes_per_s, round_trip_s
        self.free_s = self.now_s = 0.0
        self.total = 0
        self.told: list[tuple[float, int]] = []
        self.longest_queue_s = 0.0

    def write(self, size: int) -> None:
        self.free_s = max(self.free_s, self.now_s) + size / self.rate
        self.longest_queue_s = max(self.longest_queue_s, self.free_s - self.now_s)
        self.total += size
        self.told.append((self.free_s + self.round_trip_s, self.total))


def run(pace: Pace, wire: Wire, seconds: float) -> None:
    """Always something to send."""
    while wire.now_s < seconds:
        while pace.may_send(PART_BYTES):
            wire.write(PART_BYTES)
            pace.sent(PART_BYTES, wire.now_s)
        wire.now_s, total = wire.told.pop(0)
        pace.received(total, wire.now_s)


@pytest.mark.parametrize(("rate", "round_trip_s"), [(8_000.0, 0.8), (32_000.0, 0.6), (125_000.0, 0.1)])
def test_queue_stays_short_and_the_link_busy(rate: float, round_trip_s: float) -> None:
    pace, wire = Pace(), Wire(rate, round_trip_s)
    run(pace, wire, 60.0)
    wire.longest_queue_s = 0.0
    before = wire.total
    began_s = wire.now_s
    run(pace, wire, 160.0)
    assert wire.longest_queue_s < 3.5
    assert (wire.total - before) / (wire.now_s - began_s) > 0.6 * rate


def test_fast_link_opens_the_window_within_a_second() -> None:
    pace, wire = Pace(), Wire(12.5e6, 0.02)
    run(pace, wire, 1.0)
    assert not pace.slow
    assert wire.total > 5e6


def test_first_burst_is_small_enough_for_a_satellite() -> None:
    pace = Pace()
    while pace.may_send(PART_BYTES):
        pace.sent(PART_BYTES, 0.0)
    assert pace.on_the_way_bytes / 8_000.0 <= 5.0


@given(st.lists(st.tuples(st.integers(0, 10**7), st.floats(0, 1e6)), max_size=50))
def test_figures_from_nowhere_change_nothing_that_matters(figures) -> None:
    pace = Pace()
    pace.sent(1000, 0.0)
    for total, at_s in figures:
        pace.received(total, at_s)
    assert 0 <= pace.on_the_way_bytes <= 1000
    assert LEAST_WINDOW_BYTES <= pace.window_bytes <= pace.most_bytes


def test_allowance_lets_one_large_record_out_and_then_makes_it_pay() -> None:
    bucket = Allowance(1_000.0, 1_000.0)
    assert bucket.has(0.0)
    bucket.took(5_000)
    assert not bucket.has(1.0)
    assert not bucket.has(3.9)
    assert bucket.has(4.2)
