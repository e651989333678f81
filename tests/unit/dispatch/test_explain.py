"""Explanations: what a person reads about a site's plan is what the plan does."""

from __future__ import annotations

import pytest

from controller.api import telling
from controller.dispatch.explain import explain
from controller.dispatch.inputs import Window
from controller.dispatch.solve import Planner
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit

TRIGGER = "AI demand at alpha rose by 2.1 MW."


def explained(make, **site):
    state = make.fleet(make.site(**site))
    return explain(Planner().solve(state), state, "alpha", TRIGGER)


def test_binding_ceiling_comes_first_with_its_price(make):
    told = explained(make, ceiling_w=2e6)
    assert told.binding[0].name == "site ceiling"
    assert told.sentences[0] == TRIGGER
    assert any(s.startswith("The site ceiling of 2.00 MW binds: one more MWh would be worth ") for s in told.sentences)


def test_merit_order_runs_from_the_cheapest_to_the_dearest(make):
    told = explained(
        make, classes=[make.machines(make.s21), make.machines(make.s19)], pools=[make.pool()], ceiling_w=5e6
    )
    assert [m.name for m in told.merit] == ["s19", "s21", "training"]
    assert [m.load for m in told.merit] == ["mining", "mining", "ai"]


def test_spike_says_that_power_costs_more_than_mining_earns(make):
    told = explained(make, price=2387.01)
    assert "1000 asleep of 1000" in told.merit[0].why and "less than power at 2387.01" in told.merit[0].why


def test_ai_that_lacks_power_is_told_how_much_and_why(make):
    told = explained(make, classes=[], pools=[make.pool("inference", AiPriority.GUARANTEED)], ceiling_w=1e6)
    assert "guaranteed AI lacks 0.20 MW of 1.10 MW under the site ceiling" in told.merit[0].why


def test_nothing_binding_is_said(make):
    assert "Nothing binds: every load here runs as far as it earns." in explained(make).sentences


def test_coming_event_silent_machines_and_lost_site_are_mentioned(make):
    told = explained(
        make,
        windows=[Window("dr-1", 1e6, 7200.0, None)],
        classes=[make.machines(silent=12, silent_power_w=42e3)],
        connected=False,
    )
    text = " ".join(told.sentences)
    assert "Event dr-1 lowers the ceiling to 1.00 MW in 7200 s." in text
    assert "12 silent machines" in text and "not connected" in text


def test_wire_form_carries_everything(make):
    wire = telling.explained(explained(make, ceiling_w=2e6), 1_724_196_600_000)
    assert wire.site == "alpha" and wire.trigger == TRIGGER and wire.decided_at_unix_ms == 1_724_196_600_000
    assert wire.binding[0].shadow_price_usd_per_mwh > 0 and wire.merit[0].load == "mining"
    assert wire.merit[0].planned_w <= wire.merit[0].available_w


def test_unknown_site_is_a_key_error(make):
    state = make.fleet(make.site())
    with pytest.raises(KeyError):
        explain(Planner().solve(state), state, "beta", TRIGGER)
