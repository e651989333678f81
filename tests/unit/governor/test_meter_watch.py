"""A meter without noise: what it has shown since a command is not held against it, what it has not is."""

from __future__ import annotations

import pytest

from agent.backends import MeterSample
from agent.governor.meter_watch import Envelope, MeterWatch
from gridpivot.vocabulary import MeterTrust

pytestmark = pytest.mark.unit

FRESH_S, DEAD_S, STEP_W = 5.0, 6.0, 2e4
ANY = Envelope(0.0, 1e9)


def judged(power_w: dict[int, float], proofs: dict[int, tuple[float, float]], until_s: int) -> MeterTrust:
    """Verdict after a reading a second: power from each moment on, proofs (sent at, watts) at their moments."""
    watch, watts, verdict = MeterWatch(FRESH_S, DEAD_S, STEP_W), 0.0, MeterTrust.ABSENT
    for now in range(until_s + 1):
        watts = power_w.get(now, watts)
        if now in proofs:
            sent_at_s, moved_w = proofs[now]
            watch.proven_change(moved_w, sent_at_s)
        verdict = watch.judge(MeterSample(watts, float(now)), ANY, float(now))
    return verdict


def test_proofs_that_come_after_the_meter_has_fallen_are_not_held_against_it() -> None:
    assert judged({0: 1e6, 13: 4e5}, {25: (10.0, 6e5)}, 90) is MeterTrust.TRUSTED


def test_each_wave_of_proofs_is_measured_from_its_own_command() -> None:
    assert judged({0: 1e6, 13: 7e5, 23: 4e5}, {25: (10.0, 3e5), 31: (20.0, 3e5)}, 90) is MeterTrust.TRUSTED


def test_meter_that_stands_still_through_a_proven_step_is_frozen() -> None:
    assert judged({0: 1e6}, {25: (10.0, 6e5)}, 60) is MeterTrust.FROZEN


def test_meter_that_froze_after_an_earlier_fall_is_found_by_the_next_step() -> None:
    proofs = {25: (10.0, 6e5), 55: (40.0, 2e5)}
    assert judged({0: 1e6, 13: 4e5}, proofs, 90) is MeterTrust.FROZEN


def test_meter_that_shows_a_trifle_of_the_step_is_frozen() -> None:
    assert judged({0: 1e6, 13: 9.9e5}, {25: (10.0, 6e5)}, 60) is MeterTrust.FROZEN
