"""When a miner is asked next: the beat, slower for the silent, in time behind a command, held back while a shed queues."""

from __future__ import annotations

import numpy as np
import pytest

from agent.asic.pace import Pace
from agent.asic.registry import CAPABILITIES
from agent.asic.settings import AsicSettings
from gridpivot.vocabulary import Mode

pytestmark = pytest.mark.unit
FAST, SLOW = 0, 1
SETTINGS = AsicSettings(beat_s=10.0, slow_beat_s=60.0, silent_backoff_s=40.0)


def pace(*of_row: int) -> Pace:
    made = Pace([CAPABILITIES["luxos"], CAPABILITIES["antminer"]], np.array(of_row, dtype=np.uint8), SETTINGS)
    made.start(0.0)
    return made


def due(made: Pace, now_s: float, hold_usual: bool = False) -> list[list[int]]:
    return [rows.tolist() for rows in made.take_due(now_s, hold_usual)]


def test_the_first_sweep_is_spread_and_nobody_is_asked_twice_at_once() -> None:
    made = pace(*[FAST] * 10)
    assert due(made, 0.0) == [[], [0]]
    assert due(made, 1.0) == [[], [1, 2, 3, 4, 5]]
    assert due(made, 1.0) == [[], []]


def test_a_device_that_answers_is_asked_every_beat_and_its_slow_facts_every_slow_beat() -> None:
    made = pace(FAST)
    due(made, 0.0)
    assert made.is_slow_due(0, 0.0)
    made.answered(0, 0.0, Mode.NORMAL.code, slow=True)
    made.ended(0, 0.0, 0.2)
    assert due(made, 9.9) == [[], []]
    assert due(made, 10.0) == [[], [0]]
    assert not made.is_slow_due(0, 59.9) and made.is_slow_due(0, 60.0)


def test_a_silent_device_is_asked_less_and_less_often_up_to_a_bound() -> None:
    made = pace(FAST)
    waits = []
    for _ in range(8):
        made.take_due(1e9, False)
        made.missed(0)
        made.ended(0, 0.0, 3.0)
        waits.append(float(made._due_s[0]))
    assert waits == [10.0, 10.0, 10.0, 20.0, 40.0, 40.0, 40.0, 40.0]


def test_a_commanded_device_is_looked_at_once_it_has_settled_and_until_it_stands_still() -> None:
    made = pace(FAST)
    due(made, 0.0)
    made.ended(0, 0.0, 0.1)
    made.commanded(0, Mode.SLEEP, 1.0, slow=False)
    settle_s = CAPABILITIES["luxos"].shed_s / 3
    assert due(made, 1.0 + settle_s - 0.01) == [[], []]
    assert due(made, 1.0 + settle_s) == [[0], []]
    made.answered(0, 2.7, Mode.UNKNOWN.code, slow=False)  # still stopping
    made.ended(0, 2.7, 2.8)
    assert due(made, 2.8 + settle_s) == [[0], []]
    made.answered(0, 4.5, Mode.SLEEP.code, slow=False)
    made.ended(0, 4.5, 4.6)
    assert due(made, 14.4) == [[], []] and due(made, 14.5) == [[], [0]]


def test_a_slow_family_is_given_seconds_before_the_first_look_and_is_asked_for_its_slow_facts() -> None:
    made = pace(SLOW)
    due(made, 0.0)
    made.ended(0, 0.0, 0.1)
    made.commanded(0, Mode.SLEEP, 1.0, slow=True)
    assert due(made, 5.9) == [[], []] and due(made, 6.0) == [[0], []]
    assert made.is_slow_due(0, 6.0)


def test_a_poll_under_way_when_the_command_went_out_is_followed_by_another() -> None:
    made = pace(FAST)
    due(made, 0.0)
    made.commanded(0, Mode.SLEEP, 0.5, slow=False)
    made.answered(0, 0.0, Mode.NORMAL.code, slow=False)
    made.ended(0, 0.0, 0.6)
    assert due(made, 0.6 + CAPABILITIES["luxos"].shed_s / 3) == [[0], []]


def test_usual_polls_stand_back_while_a_shed_queues_but_not_for_ever() -> None:
    made = pace(FAST, FAST)
    made.take_due(5.0, False)
    for row in (0, 1):
        made.ended(row, 5.0, 5.0)
    made.commanded(1, Mode.SLEEP, 6.0, slow=False)
    assert due(made, 20.0, hold_usual=True) == [[], []]  # the look at 1 is no longer urgent, and 0 can wait
    assert due(made, 35.1, hold_usual=True) == [[], [0, 1]]


def test_a_device_believed_back_is_asked_at_the_next_turn() -> None:
    made = pace(FAST)
    due(made, 0.0)
    for _ in range(9):
        made.missed(0)
    made.ended(0, 0.0, 3.0)
    made.look_now(0)
    assert due(made, 3.1) == [[], [0]]
    assert made.misses[0] == 0
