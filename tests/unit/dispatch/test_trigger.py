"""When dispatch runs again, and the sentence that says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.dispatch.inputs import PriceStep, Window
from controller.dispatch.terms import Queue
from controller.dispatch.trigger import Planned, due

pytestmark = pytest.mark.unit


@pytest.fixture
def state(make):
    return make.fleet(
        make.site("permian-03", ceiling_w=60e6, pools=[make.pool(gpus=9000, demand_w=5e6)]), make.site("nile-01")
    )


def at(state, index, **fields):
    sites = list(state.sites)
    sites[index] = replace(sites[index], **fields)
    return replace(state, sites=tuple(sites))


def demand(state, watts):
    pool = state.sites[0].pools[0]
    return at(state, 0, pools=(replace(pool, demand_w=watts),))


def test_first_plan_is_due_at_once(state):
    assert due(None, state, 5.0).urgent


def test_nothing_new_waits_for_the_period(state):
    last = Planned(state, 100.0)
    assert due(last, state, 399.9) is None
    trigger = due(last, state, 400.0)
    assert not trigger.material and trigger.sentence == "300 s have passed since the last planning."


def test_compressed_time_shortens_the_period(state):
    fast = replace(state, speed=60.0)
    assert due(Planned(fast, 100.0), fast, 104.9) is None
    assert due(Planned(fast, 100.0), fast, 105.0) is not None


def test_risen_ai_demand_is_said_in_megawatts(state):
    trigger = due(Planned(state, 100.0), demand(state, 7.1e6), 101.0)
    assert trigger.sentence == "AI demand at permian-03 rose by 2.1 MW."
    assert trigger.material and not trigger.urgent


def test_small_steps_add_up_until_they_matter(state):
    last = Planned(state, 100.0)
    assert due(last, demand(state, 5.9e6), 101.0) is None
    assert due(last, demand(state, 6.3e6), 102.0) is not None


def test_second_change_waits_for_ten_seconds_and_a_lowered_ceiling_does_not(state):
    changed = demand(state, 9e6)
    last = Planned(state, 0.0).after(due(Planned(state, 0.0), changed, 100.0), changed, 100.0)
    again = demand(state, 5e6)
    assert due(last, again, 109.9) is None
    assert due(last, again, 110.0) is not None
    lowered = due(last, at(again, 1, ceiling_w=10e6), 100.1)
    assert lowered.urgent and lowered.sentence == "Ceiling at nile-01 was lowered to 10.00 MW."


def test_periodic_planning_does_not_delay_the_first_change(state):
    periodic = due(Planned(state, 0.0), state, 300.0)
    last = Planned(state, 0.0).after(periodic, state, 300.0)
    assert due(last, demand(state, 9e6), 301.0) is not None


def test_new_event_is_urgent_and_the_same_event_later_is_not(state):
    with_event = at(state, 0, windows=(Window("dr-1", 20e6, 600.0, 4200.0),))
    trigger = due(Planned(state, 0.0), with_event, 1.0)
    assert trigger.urgent and trigger.sentence == "Event dr-1 lowers permian-03 to 20.00 MW in 600 s."
    later = at(state, 0, windows=(Window("dr-1", 20e6, 550.0, 4150.0),))
    assert due(Planned(with_event, 0.0), later, 50.0) is None
    started = at(state, 0, windows=(Window("dr-1", 20e6, -10.0, 3590.0),))
    assert due(Planned(at(state, 0, windows=(Window("dr-1", 20e6, -1.0, 3599.0),)), 0.0), started, 9.0) is None


def test_event_moved_forward_or_drawn_out_is_urgent(state):
    known = Planned(at(state, 0, windows=(Window("dr-1", 20e6, 600.0, 4200.0),)), 0.0)
    sooner = at(state, 0, windows=(Window("dr-1", 20e6, 60.0, 4190.0),))
    longer = at(state, 0, windows=(Window("dr-1", 20e6, 590.0, 5000.0),))
    open_ended = at(state, 0, windows=(Window("dr-1", 20e6, 590.0, None),))
    for changed in (sooner, longer, open_ended):
        assert due(known, changed, 10.0).urgent


def test_ended_event_gives_the_room_back(state):
    during = at(state, 0, windows=(Window("dr-1", 20e6, -10.0, 5.0),))
    trigger = due(Planned(during, 0.0), state, 6.0)
    assert trigger.sentence == "Ceiling at permian-03 rose to 60.00 MW."


def test_price_spike_names_both_prices(state):
    spike = at(state, 1, prices=(PriceStep(0.0, 2387.01),))
    sentence = due(Planned(state, 0.0), spike, 1.0).sentence
    assert sentence == "Power price at nile-01 went from 40.00 to 2387.01 USD/MWh."


def test_reports_that_stop_or_come_again_are_a_reason_to_plan(state):
    silent = at(state, 1, stale=True)
    assert due(Planned(state, 100.0), silent, 101.0).sentence == "Reports of nile-01 are too old to plan on."
    assert due(Planned(silent, 100.0), state, 101.0).sentence == "Reports of nile-01 come again."


def test_machines_that_went_missing_are_counted(state):
    lost = replace(state.sites[0].classes[0], available=700)
    assert "300 machines of s21" in due(Planned(state, 0.0), at(state, 0, classes=(lost,)), 1.0).sentence


def test_largest_of_several_changes_is_named_and_the_rest_counted(state):
    both = at(demand(state, 7e6), 1, prices=(PriceStep(0.0, 900.0),))
    sentence = due(Planned(state, 0.0), both, 1.0).sentence
    assert sentence.startswith("Power price at nile-01") and sentence.endswith("(1 more such changes).")


def test_joined_site_is_planned(state, make):
    joined = replace(state, sites=(*state.sites, make.site("zambezi-02")))
    assert due(Planned(state, 0.0), joined, 1.0).sentence == "Site zambezi-02 joined."


def queued(state, pending_gpu_h):
    pool = state.sites[0].pools[0]
    queue = None if pending_gpu_h is None else Queue(9000.0, pending_gpu_h)
    return at(state, 0, pools=(replace(pool, queue=queue),))


def test_work_that_comes_for_half_an_hour_of_the_pool_plans_anew(state):
    last = Planned(queued(state, 1_000.0), 100.0)
    assert due(last, queued(state, 5_400.0), 101.0) is None
    trigger = due(last, queued(state, 6_000.0), 101.0)
    assert trigger.sentence == "5,000 GPU-h more wait for training at permian-03."
    assert trigger.material and not trigger.urgent


def test_work_that_is_done_or_a_queue_that_nobody_knew_or_knows_is_no_reason(state):
    assert due(Planned(queued(state, 9_000.0), 100.0), queued(state, 0.0), 101.0) is None
    assert due(Planned(queued(state, None), 100.0), queued(state, 9_000.0), 101.0) is None
    assert due(Planned(queued(state, 0.0), 100.0), queued(state, None), 101.0) is None
