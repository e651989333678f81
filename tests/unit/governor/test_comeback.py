"""What comes back uncommanded: a reconnect storm of the whole site, machines that boot hashing after a blackout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.backends import SiteInventory
from agent.governor.meter_watch import MeterWatch
from agent.governor.recall import KEEP_S, Recall
from agent.governor.state import GovernorState
from gridpivot.curves import miner_class
from gridpivot.vocabulary import Mode
from tests.unit.governor.conftest import Rig

pytestmark = pytest.mark.unit
SLEEP, NORMAL = Mode.SLEEP.code, Mode.NORMAL.code


def test_the_power_that_idle_machines_gave_up_is_not_given_to_ai(rig: Rig) -> None:
    rig.run(30)
    rig.world.physics.lose_pools(rig.now_s)
    rig.run(60)
    assert rig.world.true_power_w < 0.75 * rig.ceiling_w  # the meter shows room
    from_s = rig.now_s
    rig.demand(1.0)
    rig.run(60)
    rig.world.physics.find_pools(rig.now_s)
    rig.run(60)
    assert rig.excess_ratio(from_s) <= 0.02
    assert rig.longest_excess_s(from_s) <= 5.0
    assert rig.world.true_ai_w >= 0.9 * rig.world.pools[0].max_w  # and AI has been served all the same


def test_a_reconnect_storm_alone_stays_under_the_ceiling_and_moves_nothing(rig: Rig) -> None:
    rig.run(30)
    rig.world.physics.lose_pools(rig.now_s)
    rig.run(60)
    from_s = rig.now_s
    rig.world.physics.find_pools(rig.now_s)
    rig.run(60)
    assert rig.excess_ratio(from_s) <= 0.0
    assert sum(len(c.rows) for a in rig.since(from_s) for c in a.modes if c.mode is Mode.SLEEP) == 0


def restart(rig: Rig, recalled: np.ndarray) -> None:
    """A new agent, with what the old one left on disk."""
    rig.state = GovernorState(rig.inventory)
    rig.state.desired[:] = recalled
    rig.watch = MeterWatch(rig.policy.meter_fresh_s, rig.policy.meter_dead_s, 0.02 * rig.ceiling_w)


def test_after_a_blackout_those_who_were_curtailed_are_curtailed_again_within_seconds(make_rig: type[Rig]) -> None:
    rig = make_rig(asleep_ratio=0.3)
    rig.run(30)
    recalled = np.where(rig.state.desired == SLEEP, SLEEP, 0).astype(np.uint8)
    asleep_before = int((recalled == SLEEP).sum())
    assert asleep_before > 100
    rig.world.physics.black_out()
    for pool in rig.world.pools:
        pool.demand_w = pool.power_w = pool.baseline_w
    rig.run(30)
    rig.world.physics.power_back(rig.now_s, np.array([False, False, False]))
    for _ in range(round(60 / 0.25)):  # the agent's own machine needs a minute
        rig.now_s += 0.25
        rig.power_w.append((rig.now_s, rig.world.advance(rig.now_s)))
    restart(rig, recalled)
    from_s = rig.now_s
    rig.run(120)
    assert int((rig.state.desired == SLEEP).sum()) >= asleep_before
    again = [t for t, a in rig.actions if t > from_s for c in a.modes if c.mode is Mode.SLEEP]
    assert min(again) - from_s <= 15.0
    assert rig.excess_ratio(from_s + 75.0) <= 0.0
    rig.demand(0.9)
    rig.run(90)
    assert rig.world.true_ai_w >= 0.85 * rig.world.pools[0].max_w
    assert rig.excess_ratio(from_s + 75.0) <= 0.02


def test_firmware_that_keeps_its_sleep_never_draws_after_a_blackout(make_rig: type[Rig]) -> None:
    rig = make_rig(asleep_ratio=0.3)
    rig.run(30)
    asleep = rig.world.physics.mode == SLEEP
    rig.world.physics.black_out()
    rig.run(10)
    rig.world.physics.power_back(rig.now_s, np.array([True, True, True]))
    for _ in range(400):
        rig.now_s += 0.25
        rig.world.advance(rig.now_s)
    assert (rig.world.physics.power_w(rig.now_s)[asleep] < 100.0).all()


class TestRecall:
    def inventory(self, *macs: int) -> SiteInventory:
        kind = miner_class("s21", "luxos", "Antminer S21", shed_s=5, wake_s=10)
        n = len(macs)
        raw = b"".join(mac.to_bytes(6, "big") for mac in macs)
        return SiteInventory((kind,), np.zeros(n, np.uint8), ("A",), np.zeros(n, np.uint16), raw, ())

    def test_sleep_is_recalled_by_mac_though_the_rows_have_moved(self, tmp_path: Path) -> None:
        path = tmp_path / "desired"
        Recall(path, self.inventory(1, 2, 3)).save(np.array([SLEEP, NORMAL, SLEEP], dtype=np.uint8), 1000.0)
        assert Recall(path, self.inventory(3, 9, 2, 1)).load(1010.0).tolist() == [SLEEP, 0, 0, SLEEP]

    def test_a_device_without_a_mac_recalls_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "desired"
        Recall(path, self.inventory(0, 0, 5)).save(np.full(3, SLEEP, dtype=np.uint8), 1000.0)
        assert Recall(path, self.inventory(0, 5)).load(1000.0).tolist() == [0, SLEEP]

    @pytest.mark.parametrize("age_s", [KEEP_S + 1, -120.0])
    def test_what_is_too_old_or_from_the_future_is_not_recalled(self, tmp_path: Path, age_s: float) -> None:
        path = tmp_path / "desired"
        Recall(path, self.inventory(1)).save(np.array([SLEEP], dtype=np.uint8), 1e6)
        assert Recall(path, self.inventory(1)).load(1e6 + age_s).tolist() == [0]

    @pytest.mark.parametrize("damage", [b"", b"gridpivot-desired-1\n", b"other\n" + b"x" * 15, b"\x00" * 100])
    def test_a_damaged_file_is_as_good_as_none(self, tmp_path: Path, damage: bytes) -> None:
        path = tmp_path / "desired"
        path.write_bytes(damage)
        assert Recall(path, self.inventory(1)).load(1e6).tolist() == [0]
