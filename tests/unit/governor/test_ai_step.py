"""A site that is mostly AI: a step of its power, up or down, that a slow meter shows seconds later is no fault of the meter."""

from __future__ import annotations

import pytest

from gridpivot.curves import gpu_pool
from gridpivot.vocabulary import AiPriority, MeterTrust
from tests.unit.governor.conftest import Rig

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("delay_s", [0.0, 2.0, 5.0])
def test_meter_that_lags_behind_a_step_of_ai_is_believed_throughout(make_rig: type[Rig], delay_s: float) -> None:
    pools = (gpu_pool("inference", AiPriority.GUARANTEED, 600),)
    rig = make_rig(devices=60, pools=pools, ai_ratio=0.3, ceiling_ratio=2.0, meter_delay_s=delay_s)
    rig.run(30)
    for ratio in (0.9, 0.2, 0.9):
        began_s = rig.now_s
        rig.demand(ratio)
        rig.run(45)
        trusts = {actions.picture.meter_trust for actions in rig.since(began_s)}
        assert trusts == {MeterTrust.TRUSTED}, ratio
    assert rig.world.true_ai_w > 0.85 * pools[0].max_w
