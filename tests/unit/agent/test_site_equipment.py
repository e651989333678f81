"""An agent with fans, switches, dead pools and a past: what reaches the coils, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.backends import Grouping
from agent.governor.recall import Recall
from agent.governor.state import CircuitSwitch, ContainerFans, Policy
from agent.hardware import Hardware
from agent.site import SiteAgent
from gridpivot.clock import Instant
from gridpivot.vocabulary import EventKind, Mode, Reason, Stage
from sim.fleet import SiteSpec, inventory_of
from sim.physics import Truth
from sim.virtual import VirtualSite

pytestmark = pytest.mark.unit
DEVICES, CEILING_W = 300, 1.4e6
SLEEP = Mode.SLEEP.code


class Board:
    """Coils in memory: what was asked, and what is shown."""

    def __init__(self) -> None:
        self.shown: dict[str, bool] = {}
        self.asked: list[tuple[str, bool, bool]] = []

    def state(self) -> dict[str, bool]:
        return self.shown

    def ask(self, name: str, on: bool, *, once: bool = False) -> None:
        self.asked.append((name, on, once))


class World:
    """A virtual site in two containers of three PDUs each, its agent, and the only clock of both."""

    def __init__(self, directory: Path, asleep: int = 0, **policy: object) -> None:
        inventory = inventory_of(SiteSpec("falcon-1", "ercot", 0, DEVICES, CEILING_W, stock_only=False, seed=7))
        rows = np.arange(DEVICES)
        groupings = (
            Grouping("container", ("C1", "C2"), (rows // 150).astype(np.int32)),
            Grouping("pdu", tuple(f"P{n}" for n in range(6)), (rows // 50).astype(np.int32)),
        )
        macs = b"".join((row + 1).to_bytes(6, "big") for row in range(DEVICES))
        self.inventory = replace(inventory, groupings=groupings, mac_addresses=macs)
        self.now_s = 1000.0
        self.site = VirtualSite(
            self.inventory, Truth(7, 2.0, 1.05, 0.04, 100.0, 0.004 * CEILING_W, silent_ratio=0.0), 1000.0
        )
        for pool in self.site.pools:
            pool.demand_w = pool.power_w = 0.3 * pool.max_w
            pool.limit_w = 0.35 * pool.max_w
        modes = np.full(DEVICES, Mode.NORMAL.code, dtype=np.uint8)
        modes[:asleep] = SLEEP
        self.site.physics.start(modes)
        self.site.settle()
        self.fans, self.switches = Board(), Board()
        self.policy = Policy(
            ceiling_w=CEILING_W,
            protection_w=1.08 * CEILING_W,
            stage=Stage.FULL,
            wake_after_s=5.0,
            min_on_s=5.0,
            **policy,  # type: ignore[arg-type]
        )
        hardware = Hardware(self.site, self.site, self.site, self.fans, self.switches)
        self.agent = SiteAgent("falcon-1", self.policy, self.inventory, hardware, None, {}, directory, self)
        self.said: list[EventKind] = []
        self.agent.say = lambda kind, *_, **__: self.said.append(kind)  # type: ignore[method-assign]

    def now(self) -> Instant:
        return Instant(self.now_s, 1_760_000_000.0 + self.now_s)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1.0
            self.site.advance(self.now_s)
            self.agent.tick(self.now())

    def awake(self, rows: slice) -> int:
        return int((self.site.physics.mode[rows] != SLEEP).sum())


def test_a_sleeping_container_is_woken_only_when_its_fans_are_proven(tmp_path: Path) -> None:
    world = World(tmp_path, asleep=150, fans=(ContainerFans("C1", 5_000.0),))
    world.fans.shown = {"C1": False}
    world.run(60)
    assert ("C1", True, False) in world.fans.asked
    assert world.awake(slice(0, 150)) == 0
    assert world.agent.counters.left_alone[Reason.NO_AIRFLOW] == 150
    world.fans.shown = {"C1": True}
    world.run(120)
    assert world.awake(slice(0, 150)) > 50


def test_the_last_resort_opens_a_switch_once_and_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, switches=(CircuitSwitch("pdu", "P0"), CircuitSwitch("pdu", "P1")))
    world.run(15)
    world.agent.policy = replace(world.policy, ceiling_w=0.3 * CEILING_W, protection_w=0.33 * CEILING_W)
    world.agent.hardware = replace(world.agent.hardware, miners=_Deaf(world.site))
    world.run(240)
    names = [name for name, _, _ in world.switches.asked]
    assert sorted(names) == ["pdu:P0", "pdu:P1"]
    assert all(on is False and once for _, on, once in world.switches.asked)
    assert world.said.count(EventKind.FEEDER_OPENED) == 2


class _Deaf:
    """Miners that are read and do not listen."""

    def __init__(self, site: VirtualSite) -> None:
        self.refresh = site.refresh

    def command(self, *_: object) -> None:
        """Lost."""


def test_dead_pools_are_said_once_and_again_after_they_lived(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(10)
    refresh = world.site.refresh
    unpaid = [True]

    def without_shares(table, polled_at_s, now) -> None:  # type: ignore[no-untyped-def]
        refresh(table, polled_at_s, now)
        if unpaid[0]:
            table["reason"][:] = Reason.NO_POOL.code

    world.site.refresh = without_shares  # type: ignore[method-assign]
    world.run(5)
    unpaid[0] = False
    world.run(5)
    unpaid[0] = True
    world.run(5)
    assert world.said.count(EventKind.POOLS_LOST) == 2


async def test_orders_are_kept_on_disk_and_found_by_the_next_agent(tmp_path: Path) -> None:
    world = World(tmp_path, asleep=100)
    world.run(5)
    Recall(tmp_path / "desired", world.inventory).save(world.agent.state.desired, world.now().unix_ms / 1000.0)
    after = World(tmp_path, asleep=0)  # everything booted hashing
    assert int((after.agent.state.desired == SLEEP).sum()) == 100
    after.run(60)
    drifted = [c for c in [after.agent.actions] if c is not None]
    assert drifted and after.awake(slice(0, 100)) < 100


def test_a_site_that_only_watches_recalls_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, asleep=100)
    world.run(5)
    Recall(tmp_path / "desired", world.inventory).save(world.agent.state.desired, world.now().unix_ms / 1000.0)
    watching = SiteAgent(
        "falcon-1",
        replace(world.policy, stage=Stage.OBSERVE),
        world.inventory,
        world.agent.hardware,
        None,
        {},
        tmp_path,
        world,
    )
    assert not watching.state.desired.any()


def test_a_machine_that_drifted_to_sleep_waits_for_air_and_the_wear_of_others_is_counted(tmp_path: Path) -> None:
    world = World(tmp_path, fans=(ContainerFans("C1"),), cycles_per_day=1.0)
    world.fans.shown = {"C1": True}
    world.run(30)
    world.site.physics.command(np.arange(10), Mode.SLEEP, world.now_s)  # somebody's hand, not ours
    world.fans.shown = {"C1": False}
    world.run(50)  # not so long that the thermal interlock puts the others to sleep too
    assert world.awake(slice(0, 10)) == 0
    world.agent.state.cycles_spent[200:205] = 1.0
    world.run(1)
    assert world.agent.counters.left_alone[Reason.WEAR] >= 4
    world.fans.shown = {"C1": True}
    world.run(60)
    assert world.awake(slice(0, 10)) == 10
