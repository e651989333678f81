"""A meter that suddenly reads low is found before anything was learned; devices without power are not held against it."""

from __future__ import annotations

import numpy as np
import pytest

from gridpivot.vocabulary import MeterTrust
from sim.virtual import MeterFault
from tests.unit.governor.conftest import Rig

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("bias", [0.88, 1.0, 1.17])
@pytest.mark.parametrize("fault", [MeterFault.PHASE_MISSING, MeterFault.HALF])
@pytest.mark.parametrize("settled_s", [20, 90])
def test_meter_that_reads_low_from_one_second_to_the_next_is_not_believed(
    make_rig: type[Rig], bias: float, fault: MeterFault, settled_s: int
) -> None:
    rig = make_rig(bias=bias)
    rig.run(settled_s)
    assert rig.tick().picture.meter_trust is MeterTrust.TRUSTED
    rig.world.meter_fault = fault
    rig.run(10)
    assert rig.tick().picture.meter_trust is MeterTrust.OUTSIDE_ENVELOPE
    rig.demand(1.0)
    rig.run(120)
    assert rig.excess_ratio() <= 0.02
    rig.world.meter_fault = MeterFault.NONE
    rig.run(60)
    assert rig.tick().picture.meter_trust is MeterTrust.TRUSTED


def test_meter_is_believed_while_a_tripped_feeder_is_dark(make_rig: type[Rig]) -> None:
    rig = make_rig()
    rig.run(120)
    tripped = np.arange(rig.devices) % 4 == 0
    rig.world.physics.unit[tripped] = 0.0
    rig.world.physics._old_w[tripped] = rig.world.physics._mid_w[tripped] = rig.world.physics._new_w[tripped] = 0.0
    rig.world.physics.silent |= tripped
    rig.run(90)
    assert rig.tick().picture.meter_trust is MeterTrust.TRUSTED
