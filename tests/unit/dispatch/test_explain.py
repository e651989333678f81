"""Explanations: what a person reads about a site's plan is what the plan does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.api import telling
from controller.dispatch.explain import explain
from controller.dispatch.inputs import Binding, PriceStep, Window
from controller.dispatch.ladder import complete
from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner
from controller.dispatch.terms import FeederState
from gridpivot.vocabulary import AiPriority, Rung

pytestmark = pytest.mark.unit

TRIGGER = "AI demand at alpha rose by 2.1 MW."


def explained(make, **site):
    return explained_fleet(make.fleet(make.site(**site)))


def explained_fleet(state):
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


def test_class_that_runs_at_a_loss_says_what_it_runs_for(make):
    told = explained_fleet(make.fleet(make.site(price=300.0), fleet_floor_hs=0.1999e18))
    assert any(
        s.startswith("The fleet hashrate floor of 0.20 EH/s binds and keeps load running") for s in told.sentences
    )
    awake = make.site(price=300.0)
    state = make.fleet(awake)
    decision = Planner().solve(make.fleet(make.site(price=20.0)))
    floor = Binding("fleet hashrate floor", 2e17, 30.0)
    forced = replace(decision, sites=(replace(decision.sites[0], binding=(floor,)),))
    assert (
        "less than power, and runs for the fleet hashrate floor." in explain(forced, state, "alpha", "x").merit[0].why
    )


def test_feeder_and_achievable_maximum_are_blamed_only_on_their_own_loads(make):
    classes = [
        replace(make.machines(make.s21), feeder="north"),
        replace(make.machines(make.s19), feeder="south", achievable_w=1e6),
    ]
    feeders = (FeederState("north", 1e6), FeederState("south", 9e6))
    told = explained(make, price=5.0, classes=classes, feeders=feeders)
    why = {m.name: m.why for m in told.merit}
    assert why["s21"].endswith("gives way under the feeder north.")
    assert why["s19"].endswith("gives way under the achievable s19.")
    assert {b.name for b in told.binding} == {"feeder north", "achievable s19"}


def test_worth_of_changes_and_the_dearest_period_ahead_are_said(make):
    prices = [PriceStep(h * 3600.0, 60.0 if h < 5 else 5.0) for h in range(48)]
    pools = [make.pool("inference", AiPriority.GUARANTEED)]
    told = explained(make, ceiling_w=2e6, prices=prices, pools=pools)
    text = " ".join(told.sentences)
    assert "One more MW of interconnect over the next 48 h would be worth" in text
    assert "One promised GPU less in inference over the next 48 h would lose" in text
    assert "Ahead, the site ceiling binds most, " in text
    assert len(told.ahead) == 80 and told.worth.interconnect_usd_per_mw > 0


def test_promise_that_earns_less_than_what_it_displaces_is_said_to_be_worth_breaking_off(make):
    told = explained(make, ceiling_w=2e6, price=5.0, pools=[make.pool("cheap", AiPriority.GUARANTEED, income=0.01)])
    assert any(s.startswith("One promised GPU less in cheap over the next 48 h would be worth") for s in told.sentences)


def test_rung_below_the_plan_says_why_and_claims_neither_freedom_nor_worth(make):
    state = make.fleet(make.site(ceiling_w=2e6))
    decision = complete(None, "the solver gave no answer in 30 s", None, state, Parameters())
    told = explain(decision, state, "alpha", TRIGGER)
    assert (told.rung, told.worth, told.ahead) == (Rung.MERIT_ORDER, None, ())
    assert told.sentences[1].startswith("Not solved, on rung merit_order: the solver gave no answer in 30 s.")
    assert not any("Nothing binds" in s or "worth" in s for s in told.sentences)
