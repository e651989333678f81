"""Every constraint that dispatch names has a kind and a sentence, and an event's ceiling is called by its name."""

from __future__ import annotations

import pytest

from controller.dispatch.constraints import holds_load_up, kind_of, named_shadow, sentence, subject_of
from controller.dispatch.inputs import Binding, Outlook, Window

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("name", "limit", "kind", "says"),
    [
        ("site ceiling", 22e6, "ceiling", "The site ceiling of 22.00 MW binds: one more MWh would be worth 41.00 USD."),
        ("event dr-1", 10e6, "event", "The event dr-1 of 10.00 MW binds"),
        ("feeder north bus", 5e6, "feeder", "The feeder north bus of 5.00 MW binds"),
        ("pick-up ramp", 1e6, "ramp", "The pick-up ramp of 1.00 MW per minute binds"),
        ("drop ramp", 2e6, "ramp", "The drop ramp of 2.00 MW per minute binds"),
        ("fleet hashrate floor", 1.5e18, "floor", "floor of 1.50 EH/s binds and keeps load running"),
        ("sold ecrs+ers", 4e6, "sold", "4.00 MW sold as ecrs+ers must run to be sheddable"),
        ("achievable s21", 3e6, "achievable", "Containers and PDUs let class s21 draw 3.00 MW"),
        ("demand charge", 20e6, "demand_charge", "The billing period's peak of 20.00 MW is not exceeded"),
        ("backlog batch", 500.0, "backlog", "The deadline of backlog batch (500 GPU-h waiting) drives AI on"),
    ],
)
def test_constraint_has_a_kind_and_a_sentence_with_its_own_unit(name, limit, kind, says):
    assert kind_of(name) == kind
    told = sentence(Binding(name, limit, 41.0))
    assert says in told and "41.00 USD" in told


def test_subject_is_what_stands_after_the_kind():
    assert subject_of("feeder north bus") == "north bus"
    assert subject_of("site ceiling") == ""


def test_only_floors_promises_deadlines_and_the_drop_ramp_keep_load_running():
    names = ("site ceiling", "event e", "feeder f", "pick-up ramp", "achievable c", "demand charge")
    assert not any(map(holds_load_up, names))
    assert all(map(holds_load_up, ("drop ramp", "fleet hashrate floor", "sold ecrs", "backlog b")))


def test_name_that_dispatch_never_gives_is_a_key_error():
    with pytest.raises(KeyError):
        kind_of("weather")


def test_ceiling_of_a_later_period_carries_the_name_of_the_event_that_holds_it(make):
    site = make.site(ceiling_w=20e6, windows=[Window("early", 15e6, 0.0, 600.0), Window("late", 10e6, 3600.0, 7200.0)])

    def period(starts_in_s, ceiling_w):
        return Outlook(starts_in_s, 300.0, 40.0, ceiling_w, ceiling_w, 0.0, 0.0, (("event early", 9.0),))

    assert named_shadow(period(0.0, 15e6), site) == (("event early", 9.0),)
    assert named_shadow(period(3600.0, 10e6), site) == (("event late", 9.0),)
    assert named_shadow(period(9000.0, 20e6), site) == (("site ceiling", 9.0),)
