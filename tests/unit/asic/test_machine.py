"""The simulated machine: sheds in seconds, wakes in minutes, lies about its watts, and is the same for the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpivot.curves import miner_class
from gridpivot.vocabulary import Mode
from sim.miners.machine import FAILOVER_S, IDLE_AFTER_S, IDLE_SHARE, OVERSHOOT, POOLS, Machine

pytestmark = pytest.mark.unit
KIND = miner_class("s21", "luxos", "Antminer S21", shed_s=5, wake_s=300)
seeds = st.integers(min_value=0, max_value=2**31)


@given(seeds)
def test_shed_ends_within_the_familys_time(seed: int) -> None:
    machine = Machine(KIND, seed)
    machine.command(Mode.SLEEP, 10.0)
    assert machine.true_power_w(10.1) > 100
    assert machine.true_power_w(10.0 + KIND.shed_s) == pytest.approx(30.0)
    assert machine.hashrate_hs(10.0 + KIND.shed_s) == 0


@given(seeds)
def test_wake_hashes_late_overshoots_and_settles_within_the_familys_time(seed: int) -> None:
    machine = Machine(KIND, seed)
    normal_w = machine.true_power_w(0.0)
    machine.command(Mode.SLEEP, 10.0)
    machine.command(Mode.NORMAL, 100.0)
    wake_s = machine.timing.wake_s
    assert machine.hashrate_hs(100.0 + 0.3 * wake_s) == 0
    assert machine.true_power_w(100.0 + 0.8 * wake_s) == pytest.approx(normal_w * OVERSHOOT)
    assert machine.true_power_w(100.0 + KIND.wake_s) == pytest.approx(normal_w)
    assert normal_w * OVERSHOOT <= KIND.boot_w * 1.04  # within the machine's own spread of what is charged


@given(seeds)
def test_sensor_is_five_to_twenty_percent_off(seed: int) -> None:
    machine = Machine(KIND, seed)
    error = abs(machine.reported_power_w(0.0) / machine.true_power_w(0.0) - 1)
    assert 0.049 <= error <= 0.201


@given(seeds, st.lists(st.tuples(st.sampled_from(list(KIND.modes)), st.floats(0, 500)), max_size=8))
def test_same_seed_and_commands_give_the_same_machine(seed: int, orders: list[tuple[Mode, float]]) -> None:
    one, other = Machine(KIND, seed), Machine(KIND, seed)
    now_s = 0.0
    for mode, wait_s in orders:
        one.command(mode, now_s)
        other.command(mode, now_s)
        now_s += wait_s
        assert one.true_power_w(now_s) == other.true_power_w(now_s)
        assert 0 <= one.true_power_w(now_s) <= KIND.modes[Mode.TURBO].power_w * 1.03 * OVERSHOOT + 1
    assert one.accepted_shares(now_s) == other.accepted_shares(now_s)


def test_speed_shortens_wakes_and_never_sheds() -> None:
    slow, fast = Machine(KIND, 3), Machine(KIND, 3, speed=60)
    assert fast.timing.wake_s == pytest.approx(slow.timing.wake_s / 60)
    assert fast.timing.shed_s == slow.timing.shed_s


def test_shares_stop_growing_when_the_pool_is_dead() -> None:
    machine = Machine(KIND, 3)
    before = machine.accepted_shares(100.0)
    assert machine.accepted_shares(400.0) > before
    machine.pool_alive = False
    stuck = machine.accepted_shares(401.0)
    assert machine.accepted_shares(1000.0) == stuck


def test_a_dead_pool_is_left_for_the_next_one_and_shares_grow_again() -> None:
    machine = Machine(KIND, 3)
    machine.accepted_shares(100.0)
    machine.pools_up[0] = False
    stuck = machine.accepted_shares(101.0)
    assert machine.accepted_shares(101.0 + FAILOVER_S - 1) == stuck
    machine.accepted_shares(101.0 + FAILOVER_S)
    assert machine.pool_url == POOLS[1]
    assert machine.accepted_shares(400.0) > stuck


def test_without_any_pool_the_boards_run_out_of_work_and_all_come_back_at_once() -> None:
    machine = Machine(KIND, 3)
    full_w = machine.true_power_w(100.0)
    machine.pool_alive = False
    machine.accepted_shares(101.0)
    assert machine.true_power_w(150.0) == full_w  # stale work for a while
    assert machine.true_power_w(101.0 + IDLE_AFTER_S) == pytest.approx(IDLE_SHARE * full_w)
    assert machine.hashrate_hs(200.0) == 0.0
    machine.pool_alive = True
    assert machine.true_power_w(201.0) == full_w


def test_a_mode_the_machine_lacks_is_refused() -> None:
    kind = miner_class("m60", "whatsminer", "Whatsminer M60", shed_s=5, wake_s=60, modes=(Mode.SLEEP, Mode.NORMAL))
    with pytest.raises(KeyError):
        Machine(kind, 1).command(Mode.TURBO, 1.0)
