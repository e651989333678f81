"""A switched circuit is opened when the firmware has failed to shed, where nothing but miners hangs on it, and once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.backends import Grouping
from agent.governor.meter_watch import MeterWatch
from agent.governor.state import CircuitSwitch, GovernorState, Orders
from gridpivot.vocabulary import Mode, Rung, Stage
from sim.virtual import MeterFault
from tests.unit.governor.conftest import Rig

pytestmark = pytest.mark.unit


def overloaded(*, switches: tuple[str, ...] = ("P1", "P2"), stage: Stage = Stage.FULL) -> Rig:
    """A site of fast families whose ceiling fell far below what it draws, with miners that do not listen."""
    rig = Rig(devices=400, classes=Rig().classes[:2], stage=stage, pools=())
    pdu = Grouping("pdu", ("P1", "P2", "P3", "P4"), (np.arange(400) // 100).astype(np.int32))
    rig.inventory = replace(rig.inventory, groupings=(pdu,))
    ceiling_w = 0.8 * rig.ceiling_w
    rig.policy = replace(
        rig.policy,
        ceiling_w=ceiling_w,
        protection_w=1.08 * ceiling_w,
        switches=tuple(CircuitSwitch("pdu", name) for name in switches),
    )
    rig.state = GovernorState(rig.inventory)
    rig.watch = MeterWatch(rig.policy.meter_fresh_s, rig.policy.meter_dead_s, 0.02 * ceiling_w)
    rig.orders = Orders(ceiling_w, Rung.MERIT_ORDER, None, [])
    rig.deaf = True
    return rig


def opened(rig: Rig) -> list[tuple[float, str]]:
    return [(at_s, name) for at_s, actions in rig.actions for name in actions.opened]


def test_it_is_opened_only_after_everybody_was_told_and_had_their_time() -> None:
    rig = overloaded()
    rig.run(60)
    told = [t for t, a in rig.actions for c in a.modes if c.mode is Mode.SLEEP]
    assert opened(rig)
    first_s, name = opened(rig)[0]
    assert name in ("pdu:P1", "pdu:P2")
    assert first_s >= min(told) + 5.0
    commanded = {row for t, a in rig.actions if t < first_s for c in a.modes for row in c.rows.tolist()}
    asleep_from_the_start = set(range(int(400 * rig.asleep_ratio)))
    assert commanded | asleep_from_the_start == set(range(400))


def test_miners_that_listen_are_shed_by_their_firmware_and_nothing_is_opened() -> None:
    rig = overloaded()
    rig.deaf = False
    rig.run(120)
    assert opened(rig) == []
    assert rig.world.true_power_w < rig.policy.ceiling_w


def test_each_switch_is_opened_once_and_no_other_than_declared() -> None:
    rig = overloaded()
    rig.run(300)
    names = [name for _, name in opened(rig)]
    assert sorted(names) == ["pdu:P1", "pdu:P2"]


def test_without_declared_switches_nothing_is_opened() -> None:
    rig = overloaded(switches=())
    rig.run(60)
    assert opened(rig) == []


@pytest.mark.parametrize("stage", [Stage.OBSERVE, Stage.SHADOW])
def test_a_site_that_only_watches_opens_nothing(stage: Stage) -> None:
    rig = overloaded(stage=stage)
    rig.run(60)
    assert opened(rig) == []


def test_a_meter_that_is_not_believed_opens_nothing() -> None:
    rig = overloaded()
    rig.world.meter_fault = MeterFault.DEAD
    rig.run(90)
    assert opened(rig) == []
