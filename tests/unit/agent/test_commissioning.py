"""Step tests on a simulated site, tick by tick: what passes, what is found out, and what is put back whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.backends import MeterSample
from agent.commissioner import OPEN_FILE, Commissioner
from agent.commissioning import TOLERANCE, Verdict, judge
from agent.governor.state import Policy
from agent.hardware import Hardware
from agent.meter import MeterSettings
from agent.site import SiteAgent
from agent.stage_record import StageRecord, load, meter_mark, save, standing
from gridpivot.clock import Instant
from gridpivot.errors import Refused
from gridpivot.vocabulary import DeviceState, EventKind, Mode, Reason, Stage
from sim.fleet import SiteSpec, inventory_of
from sim.physics import Truth
from sim.virtual import MeterFault, VirtualSite

pytestmark = pytest.mark.unit

DEVICES, CEILING_W = 600, 3.0e6
START_S, EPOCH_S = 1_000.0, 1_760_000_000.0
Meter = Callable[[MeterSample | None], MeterSample | None]


class World:
    """A virtual site that only watches, its agent, and the only clock of both."""

    def __init__(self, directory: Path, highest: Stage = Stage.OBSERVE, meter: Meter = lambda s: s) -> None:
        self.directory, self.highest, self.view = directory, highest, meter
        inventory = inventory_of(SiteSpec("falcon-1", "ercot", 0, DEVICES, CEILING_W, stock_only=False, seed=7))
        truth = Truth(7, 2.0, 1.05, 0.04, 100.0, 0.004 * CEILING_W, silent_ratio=0.0)
        self.now_s = START_S
        self.site = VirtualSite(inventory, truth, self.now_s)
        for pool in self.site.pools:
            pool.demand_w = pool.power_w = 0.2 * pool.max_w
            pool.limit_w = 0.25 * pool.max_w
        self.site.settle()
        self.locked: list[int] = []
        self.open()

    def open(self, meter: str = "m1", required: bool = True) -> None:
        """A fresh agent, as after a restart."""
        policy = Policy(ceiling_w=CEILING_W, protection_w=1.08 * CEILING_W, stage=self.highest)
        commissioner = Commissioner(self.site.inventory, self.directory, self.highest, meter, required=required)
        self.agent = SiteAgent(
            "falcon-1", policy, self.site.inventory, Hardware(self, self.site, self), None, {}, self.directory, self,
            commissioner=commissioner,
        )  # fmt: skip
        self.said: list[tuple[EventKind, str]] = []
        self.agent.say = lambda kind, text, figures=None, plan_status=None: self.said.append((kind, text))

    # ---- faces: the site's own, with what the test changes ----------------------------------------------------

    def now(self) -> Instant:
        return Instant(self.now_s, EPOCH_S + self.now_s)

    def newest(self) -> MeterSample | None:
        return self.view(self.site.newest())

    def refresh(self, table, polled_at_s, now: Instant) -> None:
        self.site.refresh(table, polled_at_s, now)
        table["reason"][self.locked] = Reason.LOCKED.code

    def command(self, rows, mode: Mode, now: Instant) -> None:
        self.site.command(rows, mode, now)

    def run(self, seconds: int, until: Callable[[], bool] = lambda: False) -> None:
        for _ in range(seconds):
            self.now_s += 1.0
            self.site.advance(self.now_s)
            self.agent.tick(self.now())
            writing = self.agent.commissioner._writing
            if writing is not None:
                writing.exception(5.0)
            if until():
                return

    def start(self, **changes: object):
        return self.agent.commissioner.handle({"do": "start", "by": "ana", **changes})

    def finish(self, most_s: int = 8000):
        self.run(most_s, until=lambda: not self.agent.commissioner.running)
        shape = self.agent.commissioner.shape()
        assert not shape.running, shape
        return shape

    def asleep(self) -> int:
        return int((self.site.physics.states(self.now_s) == DeviceState.SLEEPING.code).sum())

    def phase(self) -> str | None:
        return self.agent.commissioner.shape().phase


def ready(tmp_path: Path, **changes) -> World:
    world = World(tmp_path, **changes)
    world.run(120)
    return world


def test_feeder_by_feeder_falls_by_what_it_should_and_everything_hashes_again(tmp_path: Path) -> None:
    world = ready(tmp_path, highest=Stage.FULL)
    assert world.agent.policy.stage is Stage.SHADOW  # nothing was earned yet
    world.start()
    most = 0
    while world.agent.commissioner.running:
        world.run(1)
        most = max(most, world.asleep())
    shape = world.agent.commissioner.shape()
    assert [r.feeder for r in shape.results] == list(world.site.inventory.feeders)
    for result in shape.results:
        assert result.verdict == "passed", result
        assert 0.02 * result.feeder_w <= result.expected_w <= 0.05 * result.feeder_w
        assert result.fell_w == pytest.approx(result.expected_w, rel=TOLERANCE)
        assert result.fell_after_s is not None and result.woke and result.left_asleep == 0
    assert 0 < most <= 0.06 * DEVICES and world.asleep() == 0
    world.run(2)
    assert world.agent.policy.stage is Stage.FULL and shape.stage == "full"
    assert (EventKind.STAGE_CHANGED, "the step test earned full") in world.said
    assert sum(kind is EventKind.COMMISSIONED for kind, _ in world.said) == len(shape.results)
    assert not (tmp_path / OPEN_FILE).exists()


@pytest.mark.parametrize(
    ("view", "verdict"),
    [
        (lambda s: s and replace(s, power_w=2.2e6 + 0.6 * (s.power_w - 2.2e6)), Verdict.WRONG_SIZE),  # a CT ratio
        (lambda s: s and replace(s, power_w=2.19e6), Verdict.WRONG_METER),  # stands still: another circuit
        (lambda s: s and replace(s, power_w=4.37e6 - s.power_w), Verdict.WRONG_SIGN),
    ],
)
def test_meter_that_tells_something_else_is_found_out(tmp_path: Path, view: Meter, verdict: Verdict) -> None:
    world = ready(tmp_path, meter=view)
    assert world.site.true_power_w == pytest.approx(2.19e6, rel=0.02)
    world.start(feeders=[world.site.inventory.feeders[0]])
    shape = world.finish()
    (result,) = shape.results
    assert result.verdict == verdict, result
    assert world.asleep() == 0 and load(tmp_path) is None


def test_machines_that_do_not_obey_are_not_blamed_on_the_meter(tmp_path: Path) -> None:
    world = ready(tmp_path)
    world.site.command = lambda rows, mode, now: None  # type: ignore[method-assign]
    world.start(feeders=[world.site.inventory.feeders[0]])
    (result,) = world.finish().results
    assert result.verdict == "not_obeyed"


def test_meter_that_is_lost_ends_the_test_and_wakes_nobody_before_it_is_back(tmp_path: Path) -> None:
    world = ready(tmp_path)
    world.start(feeders=[world.site.inventory.feeders[0]])
    world.run(300, until=lambda: world.asleep() > 0)
    heard = world.site.commands_heard
    world.site.meter_fault = MeterFault.DEAD
    world.run(60)
    assert world.asleep() == heard > 0 and world.site.commands_heard == heard
    world.site.meter_fault = MeterFault.NONE
    (result,) = world.finish().results
    assert result.verdict == "meter_lost" and result.left_asleep == 0 and world.asleep() == 0


def test_lock_ends_the_test_and_its_machines_are_left_alone(tmp_path: Path) -> None:
    world = ready(tmp_path)
    world.start(feeders=[world.site.inventory.feeders[0]])
    world.run(300, until=lambda: world.asleep() > 0)
    heard = world.site.commands_heard
    world.locked = np.flatnonzero(world.site.physics.states(world.now_s) == DeviceState.SLEEPING.code).tolist()[:1]
    (result,) = world.finish().results
    assert result.verdict == "locked" and result.left_asleep == heard
    assert world.site.commands_heard == heard
    assert "wake them by hand" in world.said[-1][1] and (tmp_path / OPEN_FILE).exists()


def test_locked_machines_are_never_chosen(tmp_path: Path) -> None:
    world = World(tmp_path)
    of_feeder = np.flatnonzero(world.site.inventory.feeder_index == 0)
    world.locked = of_feeder[::2].tolist()
    world.run(120)
    world.start(feeders=[world.site.inventory.feeders[0]])
    world.run(300, until=lambda: world.asleep() > 0)
    rows = np.flatnonzero(world.site.physics.states(world.now_s) == DeviceState.SLEEPING.code)
    assert len(rows) and set(rows.tolist()) <= set(of_feeder[1::2].tolist())


def test_stop_wakes_at_once_and_tests_no_further_feeder(tmp_path: Path) -> None:
    world = ready(tmp_path)
    world.start()
    world.run(300, until=lambda: world.asleep() > 0)
    world.agent.commissioner.handle({"do": "stop"})
    shape = world.finish()
    assert [r.verdict for r in shape.results] == ["stopped"] and world.asleep() == 0


def test_agent_killed_in_the_middle_knows_whom_to_wake(tmp_path: Path) -> None:
    world = ready(tmp_path)
    world.start(feeders=[world.site.inventory.feeders[0]])
    world.run(300, until=lambda: world.asleep() > 0)
    world.run(10)
    slept = world.asleep()
    world.open()
    world.run(30)
    assert world.asleep() == slept > 0  # a start wakes nobody
    assert any(f"{slept} machines may still sleep" in text for _, text in world.said)
    with pytest.raises(Refused, match="--restore"):
        world.start()
    world.agent.commissioner.handle({"do": "restore"})
    world.finish()
    assert world.asleep() == 0 and not (tmp_path / OPEN_FILE).exists()


def test_site_that_acts_is_not_tested(tmp_path: Path) -> None:
    world = World(tmp_path, highest=Stage.FULL)
    world.open(required=False)
    assert world.agent.policy.stage is Stage.FULL
    with pytest.raises(Refused, match="only watches"):
        world.start()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"do": "start", "percent": 6}, "between 2 and 5"),
        ({"do": "start", "percent": float("nan")}, "between 2 and 5"),
        ({"do": "start", "percent": "3"}, "not a number"),
        ({"do": "start", "feeders": ["nowhere"]}, "no feeder 'nowhere'"),
        ({"do": "everything"}, "not one of"),
        ({}, "not one of"),
        ({"do": "restore"}, "no machine is known"),
    ],
)
def test_request_that_makes_no_sense_is_refused_and_changes_nothing(tmp_path: Path, request_: dict, words: str) -> None:
    world = World(tmp_path)
    with pytest.raises(Refused, match=words):
        world.agent.commissioner.handle(request_)
    assert not world.agent.commissioner.running


def test_disk_that_refuses_the_record_commands_nothing(tmp_path: Path) -> None:
    world = ready(tmp_path)
    (tmp_path / (OPEN_FILE + ".new")).mkdir()
    world.start(feeders=[world.site.inventory.feeders[0]])
    shape = world.finish(400)
    assert world.site.commands_heard == 0 and "without a record" in shape.trouble


# ---- the stage ------------------------------------------------------------------------------------------------

RECORD = StageRecord(Stage.FULL, "m1", "f1", "2026-01-01T00:00:00Z", "ana")


@pytest.mark.parametrize(
    ("highest", "record", "meter", "feeders", "stage"),
    [
        (Stage.OBSERVE, RECORD, "m1", "f1", Stage.OBSERVE),
        (Stage.FULL, RECORD, "m1", "f1", Stage.FULL),
        (Stage.SHED_ONLY, RECORD, "m1", "f1", Stage.SHED_ONLY),
        (Stage.FULL, replace(RECORD, stage=Stage.SHED_ONLY), "m1", "f1", Stage.SHED_ONLY),
        (Stage.FULL, RECORD, "m2", "f1", Stage.SHADOW),
        (Stage.FULL, RECORD, "m1", "f2", Stage.SHADOW),
        (Stage.FULL, None, "m1", "f1", Stage.SHADOW),
    ],
)
def test_stage_is_the_lower_of_allowed_and_earned(
    highest: Stage, record: StageRecord | None, meter: str, feeders: str, stage: Stage
) -> None:
    found, why = standing(highest, record, meter, feeders)
    assert found is stage and bool(why) == (found is not highest)


def test_record_outlives_the_agent_and_not_a_change_of_the_meter(tmp_path: Path) -> None:
    world = World(tmp_path, highest=Stage.FULL)
    save(tmp_path, replace(RECORD, feeders=world.agent.commissioner._feeders), [])
    world.open("m1")
    assert world.agent.policy.stage is Stage.FULL
    world.open("m2")
    world.run(2)
    assert world.agent.policy.stage is Stage.SHADOW
    assert any(kind is EventKind.STAGE_CHANGED and "the meter" in text for kind, text in world.said)
    (tmp_path / "commission.json").write_text("{")
    world.open("m1")
    assert world.agent.policy.stage is Stage.SHADOW


def test_ct_ratio_register_and_address_make_another_meter() -> None:
    meter = MeterSettings(host="10.0.0.5", power_address=1)
    others = [{"host": "10.0.0.6"}, {"power_scale_w": 2.0}, {"power_address": 3}, {"power_type": "int64"}, {"port": 5}]
    marks = {meter_mark(meter.model_copy(update=change)) for change in others}
    assert len(marks | {meter_mark(meter)}) == 6
    assert meter_mark(meter.model_copy(update={"beat_s": 3.0})) == meter_mark(meter)


@pytest.mark.parametrize(
    ("fell_w", "asleep", "verdict"),
    [
        (100.0, 1.0, Verdict.PASSED),
        (115.0, 1.0, Verdict.PASSED),
        (84.0, 1.0, Verdict.WRONG_SIZE),
        (300.0, 1.0, Verdict.WRONG_SIZE),
        (10.0, 1.0, Verdict.WRONG_METER),
        (-100.0, 1.0, Verdict.WRONG_SIGN),
        (100.0, 0.5, Verdict.NOT_OBEYED),
    ],
)
def test_verdict(fell_w: float, asleep: float, verdict: Verdict) -> None:
    assert judge(fell_w, 100.0, asleep) is verdict
