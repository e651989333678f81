"""A complete agent on a simulated site, tick by tick, with a clock that the test moves."""

from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.governor.state import Policy
from agent.hardware import Hardware
from agent.site import SiteAgent
from agent.uplink.reports import rollup
from gridpivot.clock import Instant
from gridpivot.plan import sign
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.vocabulary import DeviceState, EventKind, MeterTrust, PlanState, Stage
from sim.fleet import SiteSpec, inventory_of
from sim.physics import Truth
from sim.virtual import VirtualSite

pytestmark = pytest.mark.unit

KEY = Ed25519PrivateKey.generate()
DEVICES, CEILING_W = 300, 1.4e6
START_S, EPOCH_S = 1_000.0, 1_760_000_000.0


class World:
    """A virtual site, its agent, and the only clock of both."""

    def __init__(self, directory: Path, stage: Stage, silent_ratio: float = 0.0) -> None:
        inventory = inventory_of(SiteSpec("falcon-1", "ercot", 0, DEVICES, CEILING_W, stock_only=False, seed=7))
        truth = Truth(7, 2.0, 1.05, 0.04, 100.0, 0.004 * CEILING_W, silent_ratio=silent_ratio)
        self.now_s = START_S
        self.site = VirtualSite(inventory, truth, self.now_s)
        for pool in self.site.pools:
            pool.demand_w = pool.power_w = 0.3 * pool.max_w
            pool.limit_w = 0.35 * pool.max_w
        self.site.settle()
        self.limits_set = 0
        set_limit = self.site.set_limit

        def counted(pool: int, limit_w: float, now: Instant) -> None:
            self.limits_set += 1
            set_limit(pool, limit_w, now)

        self.site.set_limit = counted
        policy = Policy(ceiling_w=CEILING_W, protection_w=1.08 * CEILING_W, stage=stage, min_on_s=5.0)
        hardware = Hardware(self.site, self.site, self.site)
        self.agent = SiteAgent("falcon-1", policy, inventory, hardware, None, {"k1": KEY.public_key()}, directory, self)
        self.said: list[tuple[EventKind, str, float]] = []
        self.agent.say = self._heard

    def _heard(self, kind, message, figures=None, plan_status=None) -> None:
        word = "" if plan_status is None else plan_status.status
        self.said.append((kind, word, self.site.true_power_w))

    def now(self) -> Instant:
        return Instant(self.now_s, EPOCH_S + self.now_s)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1.0
            self.site.advance(self.now_s)
            self.agent.tick(self.now())

    def offer(self, version: int, ceiling_w: float, **changes) -> None:
        made = {"valid_for_ms": 3_600_000, "fallback": pb.Fallback(posture="hold", ceiling_w=ceiling_w)}
        plan = pb.Plan(site="falcon-1", epoch=1, version=version, ceiling_w=ceiling_w, **(made | changes))
        self.agent._on_plan(sign(plan, KEY, "k1"))
        wait([self.agent.book._writing[1]])  # virtual seconds are shorter than a disk's

    def statuses(self) -> list[str]:
        return [word for kind, word, _ in self.said if kind is EventKind.PLAN_STATUS]


@pytest.mark.parametrize("stage", [Stage.OBSERVE, Stage.SHADOW])
def test_site_that_only_watches_sends_no_command_whatever_happens(tmp_path: Path, stage: Stage) -> None:
    world = World(tmp_path, stage)
    world.run(20)
    world.offer(1, 0.3 * CEILING_W)
    world.run(30)
    for pool in world.site.pools:
        pool.demand_w = pool.max_w
    world.run(30)
    event = pb.EventWindow(event_id="e", ceiling_w=1e5, starts_at_unix_ms=0)
    world.offer(2, 0.3 * CEILING_W, events=[event], valid_for_ms=5_000, fallback=pb.Fallback(posture="mining_off"))
    world.run(60)
    assert (world.site.commands_heard, world.limits_set) == (0, 0)
    assert world.agent.state.commands_total == 0
    assert PlanState.APPLIED not in world.statuses()  # nothing moved, so nothing was applied


def test_plan_is_applied_only_when_power_stands(tmp_path: Path) -> None:
    world = World(tmp_path, Stage.FULL)
    world.run(40)
    before_w = world.site.true_power_w
    world.offer(1, 0.6 * CEILING_W)
    assert world.statuses() == [PlanState.ACCEPTED]
    world.run(2)
    assert world.statuses() == [PlanState.ACCEPTED]
    world.run(150)
    applied = [power_w for _, word, power_w in world.said if word == PlanState.APPLIED]
    assert len(applied) == 1
    assert applied[0] <= 0.6 * CEILING_W < before_w
    assert world.site.true_power_w <= 0.6 * CEILING_W


def test_lease_that_ends_is_said_once_with_the_fate_of_the_plan(tmp_path: Path) -> None:
    world = World(tmp_path, Stage.FULL)
    world.run(10)
    world.offer(1, CEILING_W, valid_for_ms=5_000)
    world.run(20)
    kinds = [kind for kind, _, _ in world.said]
    assert kinds.count(EventKind.LEASE_EXPIRED) == 1
    assert world.statuses().count(PlanState.EXPIRED) == 1


def test_event_is_said_when_it_begins_and_when_a_newer_plan_ends_it(tmp_path: Path) -> None:
    world = World(tmp_path, Stage.FULL)
    world.run(10)
    world.offer(1, CEILING_W, events=[pb.EventWindow(event_id="e", ceiling_w=5e5, starts_at_unix_ms=0)])
    world.run(60)
    assert world.site.true_power_w <= 5e5
    world.offer(2, CEILING_W)
    world.run(2)
    kinds = [kind for kind, _, _ in world.said]
    assert kinds.count(EventKind.GRID_EVENT_STARTED) == kinds.count(EventKind.GRID_EVENT_ENDED) == 1


def summed(world: World):
    agent = world.agent
    return rollup(
        agent.state,
        agent.actions,
        agent.orders,
        agent.policy,
        agent.table,
        agent.pool_readings,
        (1, 1),
        5,
        None,
        0,
        world.now(),
    )


@pytest.mark.parametrize("silent_ratio", [0.0, 0.2])
def test_loads_of_a_roll_up_add_up_to_the_meter(tmp_path: Path, silent_ratio: float) -> None:
    world = World(tmp_path, Stage.OBSERVE, silent_ratio)
    for _ in range(6):
        world.run(10)
        message = summed(world)
        parts_w = message.mining_power_w + message.ai_power_w + message.overhead_power_w + message.unattributed_power_w
        assert message.HasField("metered_power_w")
        assert parts_w == pytest.approx(message.metered_power_w, abs=1.0)
        assert message.overhead_power_w >= 0
        assert message.meter_trust == MeterTrust.TRUSTED


def test_silent_devices_are_counted_as_silent_still_charged_and_earn_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, Stage.OBSERVE)
    world.run(20)
    before = summed(world)
    world.site.physics.silent[:100] = True
    world.run(40)
    after = summed(world)
    assert (sum(c.silent for c in before.classes), sum(c.silent for c in after.classes)) == (0, 100)
    assert sum(c.available for c in after.classes) == DEVICES - 100
    assert sum(c.power_w for c in after.classes) >= 0.99 * sum(c.power_w for c in before.classes)
    assert after.hashrate_hs < 0.8 * before.hashrate_hs
    assert after.hashrate_hs == pytest.approx(sum(c.hashrate_hs for c in after.classes))
    for kind in after.classes:
        assert kind.state_counts[DeviceState.UNREACHABLE.code] == kind.silent


def test_device_that_stopped_answering_mid_sweep_is_silent_before_its_state_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, Stage.OBSERVE)
    world.run(20)
    refresh = world.site.refresh

    def stale(table, polled_at_s: np.ndarray, now: Instant) -> None:
        refresh(table, polled_at_s, now)
        table["age_s"][:50] = 600.0  # its last row still says hashing
        polled_at_s[:50] = world.now_s - 600.0

    world.site.refresh = stale
    world.run(5)
    message = summed(world)
    assert sum(c.silent for c in message.classes) == 50
    assert sum(c.available for c in message.classes) == DEVICES - 50
    working = world.agent.table["hashrate_hs"][50:].astype(np.float64).sum()
    assert message.hashrate_hs == pytest.approx(working)
