"""The steps of an order, whatever happens: a node is never switched on without room, nor called off without proof."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ai.work import PoolWork, WorkNode
from agent.bmc.reader import BmcSample
from agent.off.empty import boards_against, work_against
from agent.off.order import EMPTY_S, Do, OffOrder, OffState, Seen, decide, empty_enough
from gridpivot.clock import Instant

pytestmark = pytest.mark.unit


def order(state: OffState, **changed: object) -> OffOrder:
    made = OffOrder("off-1", "a", "train", "ana", "", 0.0)
    made.state, made.promised_s, made.on_within_s, made.before_w = state, 600.0, 900.0, 2000.0
    for name, value in changed.items():
        setattr(made, name, value)
    return made


@st.composite
def sights(draw: st.DrawFn, at_s: float) -> Seen:
    connected, told = draw(st.booleans()), draw(st.booleans())
    on = draw(st.sampled_from([True, False, None]))
    watts = draw(st.sampled_from([0.0, 50.0, 2500.0]))
    sample = BmcSample(watts, on, at_s - draw(st.floats(0.0, 30.0))) if told else None
    off = sample is not None and on is False and watts < 200.0 and not connected
    back = connected and draw(st.booleans())
    return Seen(sample, off, connected, back, draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))


@given(st.data())
def test_whatever_is_seen_nothing_is_off_without_proof_and_nothing_comes_on_without_room(data: st.DataObject) -> None:
    made = order(data.draw(st.sampled_from(list(OffState))), on_wanted=data.draw(st.booleans()))
    made.commanded_s = 1000.0
    now_s, charged = 1000.0, made.state is OffState.WAKING
    for _ in range(data.draw(st.integers(1, 40))):
        now_s += data.draw(st.floats(0.1, 200.0))
        seen, before = data.draw(sights(now_s)), made.state
        step = decide(made, seen, Instant(now_s, now_s))
        if step is Do.TELL_OFF:
            assert seen.off and seen.sample is not None and seen.sample.read_at_s > made.commanded_s
        if step is Do.SWITCH_ON:
            assert charged and seen.off and seen.may_raise and seen.within
        if step is Do.CHARGE:
            assert seen.may_raise and seen.room and seen.off
        if made.state is OffState.OFF and before is not OffState.OFF:
            assert seen.off
        if before in (OffState.OFF, OffState.WANTS_ROOM, OffState.WAKING) and seen.running:
            assert made.state is OffState.STARTING, "what runs is known to run at the first look"
        charged = made.state is OffState.WAKING
        if step in (Do.FINISH, Do.GIVE_UP):
            break


def test_an_order_ends_only_when_both_clocks_say_so() -> None:
    made = order(OffState.OFF, ends_unix_s=5000.0, ends_s=2000.0)
    assert not made.over(Instant(2500.0, 4000.0)), "the wall clock was set back"
    assert not made.over(Instant(1500.0, 9000.0)), "the wall clock was set forward"
    assert made.over(Instant(2000.0, 5000.0))
    made.ends_s = None
    assert not made.over(Instant(9e9, 9e9)), "on a clock that was never set nobody knows: a person says so"
    made.on_wanted = True
    assert made.over(Instant(0.0, 0.0))


def test_one_empty_look_is_not_enough_and_a_busy_one_begins_anew() -> None:
    made = order(OffState.CHECKING)
    assert not empty_enough(made, True, 100.0)
    assert not empty_enough(made, True, 100.0 + EMPTY_S - 0.1)
    assert not empty_enough(made, False, 109.95)
    assert not empty_enough(made, True, 111.0)
    assert empty_enough(made, True, 111.0 + EMPTY_S)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (WorkNode("a", 4, 0), ""),
        (WorkNode("a", 4, 1), "counts 1 of its GPUs as busy"),
        (WorkNode("a", 4, 0, others=2), "2 pods without GPUs"),
        (WorkNode("a", 4, 0, answers=False), "does not hear it"),
        (WorkNode("b", 4, 0), "does not list it"),
    ],
)
def test_a_node_is_empty_only_by_all_that_its_manager_knows(node: WorkNode, said: str) -> None:
    found = work_against(PoolWork(0.0, (node,), ()), "a")
    assert said in found and bool(found) is bool(said)


@pytest.mark.parametrize(
    ("power_w", "said"),
    [([75.0, 70.0], ""), ([75.0, None], "tells no power"), ([75.0, 400.0], "GPU 1 draws 400 W")],
)
def test_gpus_rest_only_by_what_they_draw(power_w: list[float | None], said: str) -> None:
    found = boards_against(power_w, [700.0, 700.0])
    assert said in found and bool(found) is bool(said)
