"""Who may be woken: circuits above a machine, air before heat, pools that pay, wear shared out."""

from __future__ import annotations

import numpy as np
import pytest

from agent.backends import Grouping, SiteInventory
from agent.governor.airflow import breathe, overheating
from agent.governor.circuits import CircuitLimit
from agent.governor.gates import POOLS_DEAD_FROM, admit, admit_wakes, pools_dead
from agent.governor.mining import choose_shed
from agent.governor.reconcile import Standing, issue
from agent.governor.state import ContainerFans, FanCommand, GovernorState, Policy, Sensed
from gridpivot.columns import DeviceTable
from gridpivot.curves import miner_class
from gridpivot.vocabulary import DeviceState, Mode, Reason

pytestmark = pytest.mark.unit
KIND = miner_class("s21", "luxos", "Antminer S21", shed_s=5.0, wake_s=20.0)
FULL_W = max(KIND.modes[Mode.NORMAL].power_w, KIND.boot_w)


class Site:
    """Twelve machines asleep: three PDUs of four, two containers of six; the last machine's PDU is not known."""

    def __init__(self, **policy: object) -> None:
        n = 12
        pdu = np.repeat(np.arange(3, dtype=np.int32), 4)
        pdu[-1] = -1
        groupings = (
            Grouping("container", ("C1", "C2"), np.repeat(np.arange(2, dtype=np.int32), 6)),
            Grouping("pdu", ("P1", "P2", "P3"), pdu),
        )
        self.inventory = SiteInventory(
            (KIND,), np.zeros(n, np.uint8), ("A",), np.zeros(n, np.uint16), b"", (), groupings
        )
        self.state = GovernorState(self.inventory)
        self.state.desired[:] = Mode.SLEEP.code
        self.state.believed_w[:] = KIND.modes[Mode.SLEEP].power_w
        self.table = DeviceTable(n)
        self.table["state"][:] = DeviceState.SLEEPING.code
        self.policy = Policy(ceiling_w=1e6, protection_w=1.08e6, **policy)  # type: ignore[arg-type]
        self.still = np.zeros(n, dtype=bool)
        self.rows = np.arange(n)

    def sensed(self, air: dict[str, bool] | None = None) -> Sensed:
        return Sensed(self.table, np.zeros(12), None, (), air)

    def wakes(self) -> tuple[list[int], dict[Reason, int]]:
        moves, why = admit_wakes(self.state, self.sensed(), self.still, ((self.rows, Mode.NORMAL),), self.policy)
        return sorted(int(row) for rows, _ in moves for row in rows), dict(why)

    def air(self, air: dict[str, bool] | None, room_w: float = 1e6, now_s: float = 0.0, wanted: bool = True):  # type: ignore[no-untyped-def]
        moves = ((self.rows[:6], Mode.NORMAL),) if wanted else ()
        return breathe(self.state, self.sensed(air), np.zeros(12, dtype=bool), moves, room_w, self.policy, now_s)


def test_without_limits_everybody_may_wake() -> None:
    assert Site().wakes() == (list(range(12)), {})


def test_a_pdu_wakes_as_many_at_once_as_its_count_allows_and_the_unknown_one_is_not_held() -> None:
    site = Site(circuits=(CircuitLimit("pdu", "*", rise_devices=2),))
    assert site.wakes() == ([0, 1, 4, 5, 8, 9, 11], {Reason.CIRCUIT_LIMIT: 5})


def test_what_is_still_rising_counts_against_the_next_batch() -> None:
    site = Site(circuits=(CircuitLimit("pdu", "*", rise_devices=2),))
    issue(site.state, np.array([0, 1, 4]), Mode.NORMAL, 0.0)
    site.rows = np.array([2, 3, 5, 6, 8])
    assert site.wakes()[0] == [5, 8]


def test_a_named_limit_goes_before_the_one_for_all_and_watts_are_charged_at_the_boot_peak() -> None:
    asleep_w = KIND.modes[Mode.SLEEP].power_w
    limits = (
        CircuitLimit("pdu", "*", rise_w=3.5 * (FULL_W - asleep_w)),
        CircuitLimit("pdu", "P2", rise_w=1.01 * (FULL_W - asleep_w)),
    )
    assert Site(circuits=limits).wakes()[0] == [0, 1, 2, 4, 8, 9, 10, 11]


def test_the_whole_load_of_a_circuit_counts_and_sleepers_draw_too() -> None:
    asleep_w = KIND.modes[Mode.SLEEP].power_w
    limit_w = 6 * asleep_w + 2.01 * (FULL_W - asleep_w)
    site = Site(circuits=(CircuitLimit("container", "C1", limit_w=limit_w),))
    assert site.wakes()[0] == [0, 1, 6, 7, 8, 9, 10, 11]


def test_a_circuit_is_charged_for_a_machine_that_idles_what_it_may_draw() -> None:
    site = Site(circuits=(CircuitLimit("pdu", "P1", limit_w=1.5 * KIND.modes[Mode.NORMAL].power_w + FULL_W),))
    assert site.wakes()[0][:2] == [0, 1]
    site.rows = np.array([2, 3])
    site.state.desired[0:2] = Mode.NORMAL.code  # idle for want of a pool, believed low
    assert site.wakes()[0] == []


def test_every_level_holds_and_the_tightest_decides() -> None:
    limits = (CircuitLimit("pdu", "*", rise_devices=3), CircuitLimit("container", "C2", rise_devices=1))
    assert [row for row in Site(circuits=limits).wakes()[0] if row >= 6] == [6]


def test_admission_of_many_rows_equals_one_by_one() -> None:
    site = Site(
        circuits=(CircuitLimit("pdu", "*", rise_w=2.2 * FULL_W), CircuitLimit("container", "*", rise_devices=3))
    )
    chance = np.random.default_rng(5)
    for _ in range(50):
        rows = chance.permutation(12)[: chance.integers(1, 12)]
        rise_w = chance.uniform(100.0, FULL_W, len(rows))
        levels = site.state.levels(site.policy.circuits)
        fits = admit(levels, site.state, rows, rise_w)
        for level in levels:
            for circuit in np.unique(level.of_row[rows]):
                here = fits & (level.of_row[rows] == circuit)
                if circuit >= 0:
                    assert rise_w[here].sum() <= level.rise_w[circuit]
                    assert here.sum() <= level.rise_devices[circuit]


def test_nobody_is_woken_into_a_dead_pool_but_a_level_may_change() -> None:
    site = Site()
    site.state.desired[:] = Mode.LOW.code
    site.state.desired[11] = Mode.SLEEP.code
    site.table["state"][:] = DeviceState.HASHING.code
    site.table["reason"][:11] = Reason.NO_POOL.code
    assert pools_dead(site.table, site.policy)
    assert site.wakes() == (list(range(11)), {Reason.NO_POOL: 1})


def test_a_few_machines_without_shares_are_their_own_trouble() -> None:
    site = Site()
    site.table["state"][:] = DeviceState.HASHING.code
    site.table["reason"][: POOLS_DEAD_FROM - 1] = Reason.NO_POOL.code
    assert not pools_dead(site.table, site.policy)


def test_fans_run_before_the_first_wake_and_the_wake_waits_for_the_proof() -> None:
    site = Site(fans=(ContainerFans("C1", 9_000.0),))
    air = site.air({"C1": False})
    assert air.fans == (FanCommand("C1", True),) and air.rise_w == 9_000.0
    site.still = air.still
    assert site.wakes() == ([6, 7, 8, 9, 10, 11], {Reason.NO_AIRFLOW: 6})
    site.still = site.air({"C1": True}).still
    assert len(site.wakes()[0]) == 12


def test_air_that_is_not_known_to_move_does_not_move() -> None:
    site = Site(fans=(ContainerFans("C1"),))
    for air in (None, {}):
        assert site.air(air).still[:6].all()


def test_fans_are_not_started_without_room_for_them() -> None:
    assert Site(fans=(ContainerFans("C1", 9_000.0),)).air({"C1": False}, room_w=8_000.0).fans == ()


def test_fans_stop_a_while_after_the_last_machine_is_seen_asleep() -> None:
    site = Site(fans=(ContainerFans("C1"),), fans_off_after_s=300.0)
    assert site.air({"C1": True}, now_s=0.0, wanted=False).fans == ()
    assert site.air({"C1": True}, now_s=299.0, wanted=False).fans == ()
    assert site.air({"C1": True}, now_s=300.0, wanted=False).fans == (FanCommand("C1", False),)
    assert site.air({"C1": False}, now_s=301.0, wanted=False).fans == ()


@pytest.mark.parametrize("state", [DeviceState.HASHING, DeviceState.STOPPING, DeviceState.UNREACHABLE])
def test_fans_run_on_while_one_machine_may_be_hot(state: DeviceState) -> None:
    site = Site(fans=(ContainerFans("C1"),), fans_off_after_s=0.0)
    site.table["state"][3] = state.code
    assert site.air({"C1": True}, now_s=900.0, wanted=False).fans == ()


def test_fans_that_stand_while_machines_hash_put_their_container_to_sleep_and_no_other() -> None:
    site = Site(fans=(ContainerFans("C1"), ContainerFans("C2")), still_shed_after_s=60.0)
    site.state.desired[:] = Mode.NORMAL.code

    def hot(air: dict[str, bool] | None, now_s: float) -> list[int]:
        return np.flatnonzero(overheating(site.state, site.sensed(air), site.policy, now_s)).tolist()

    assert hot({"C1": False, "C2": True}, 0.0) == []
    assert hot({"C1": False, "C2": True}, 59.0) == []
    assert hot({"C1": False, "C2": True}, 60.0) == [0, 1, 2, 3, 4, 5]
    assert hot({"C1": True, "C2": True}, 61.0) == []
    assert hot({"C1": False, "C2": True}, 62.0) == []  # counted anew
    for air in (None, {}, {"C2": True}):
        assert hot(air, 500.0) == []  # what cannot be read proves nothing
    site.state.desired[:6] = Mode.SLEEP.code
    assert hot({"C1": False, "C2": True}, 900.0) == []


def test_wear_is_shared_out_among_machines_of_a_class() -> None:
    site = Site()
    site.state.desired[:] = Mode.NORMAL.code
    site.state.believed_w[:] = KIND.modes[Mode.NORMAL].power_w
    site.table["state"][:] = DeviceState.HASHING.code
    site.state.cycles_spent[:8] = 1.0
    nobody = np.zeros(12, dtype=bool)
    standing = Standing(nobody, nobody, ~nobody, 0.0, np.zeros(0, dtype=np.int64))
    shed = choose_shed(site.state, site.sensed(), standing, 3.0 * KIND.modes[Mode.NORMAL].power_w)
    assert set(shed.rows.tolist()) & set(range(8, 12)) == set(range(8, 12))


def test_a_machine_that_fell_asleep_by_itself_is_woken_through_the_same_gates() -> None:
    site = Site()
    site.state.desired[:] = Mode.NORMAL.code  # drifted: told to hash, found asleep
    site.still[:6] = True
    assert site.wakes() == ([6, 7, 8, 9, 10, 11], {Reason.NO_AIRFLOW: 6})
