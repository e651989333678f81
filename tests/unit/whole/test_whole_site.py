"""Random stories over governor, lease, spool and link with simulated physics: invariants 1 to 9 of the design at every step.

In CI 20,000 steps over eight shards; HYPOTHESIS_PROFILE=soak runs ten times as many. A failure prints its story; run it
again with the same shard, it is reproducible.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agent.governor.state import SLEEP
from gridpivot.plan import sign
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.vocabulary import PlanState, Posture, Stage
from sim.virtual import MeterFault
from tests.unit.whole.world import KEY, STRANGER, Issued, World

pytestmark = [pytest.mark.unit, pytest.mark.slow]

SHARDS = 8
# A meter that is wrong by a constant from the agent's very start is what the step test is for; chaos has it after the start.
FAULTS = [MeterFault.NONE] * 3 + [MeterFault.DEAD, MeterFault.FROZEN, MeterFault.REVERSED, MeterFault.WORD_SWAPPED]
STEPS = 2_500 * (10 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 1)
RATIO = st.floats(0.0, 1.0)
WINDOW_S = 60.0
SETTLED_S = 90.0  # after a ceiling was lowered: shed time, meter delay, one repetition


class Story(RuleBasedStateMachine):
    """One site's life."""

    steps = 0

    @initialize(
        number=st.integers(0, 2**16),
        stage=st.sampled_from([Stage.FULL] * 5 + [Stage.SHED_ONLY, Stage.SHADOW, Stage.OBSERVE]),
        posture=st.sampled_from(list(Posture)),
        delay_s=st.floats(0.0, 4.0),
        bias=st.floats(0.9, 1.15),
    )
    def begin(self, number: int, stage: Stage, posture: Posture, delay_s: float, bias: float) -> None:
        self.world = World(number, stage, posture, delay_s, bias)
        self.fault_until_s = float("-inf")
        self.events = 0
        self.dialled_since_boot = True
        self.world.run(40)

    # ---- what happens ---------------------------------------------------------------------------------------------

    @rule(seconds=st.integers(1, 8) | st.integers(20, 60), loss=st.sampled_from([0.0, 0.0, 0.3]))
    def time_passes(self, seconds: int, loss: float) -> None:
        self.world.run(seconds, loss)

    @rule(pool=st.integers(0, 1), share=RATIO)
    def ai_demand(self, pool: int, share: float) -> None:
        target = self.world.site.pools[pool]
        target.demand_w = max(target.baseline_w, share * target.max_w)
        self.world.run(2)

    @rule(asleep=st.sampled_from([0.0, 0.0, 0.0, 0.2, 0.6]), share=st.sampled_from([0.0, 0.5, 1.0, 1.0]))
    def plan(self, asleep: float, share: float) -> None:
        self.world.make_plan(asleep, share)
        self.world.run(2)

    @rule(share=st.floats(0.5, 1.0))
    def ceiling(self, share: float) -> None:
        self.world.controller.ceiling_w = share * self.world.own_w
        self.world.make_plan(0.0, 1.0)
        self.world.run(1)

    @rule(share=st.floats(0.5, 1.0), notice_s=st.floats(-5.0, 20.0), lasts_s=st.none() | st.floats(5.0, 60.0))
    def event(self, share: float, notice_s: float, lasts_s: float | None) -> None:
        self.events += 1
        starts_s = self.world.true_s + notice_s
        made = Issued(
            f"e{self.events}", share * self.world.own_w, starts_s, None if lasts_s is None else starts_s + lasts_s
        )
        self.world.controller.events[made.event_id] = made
        self.world.make_plan(0.0, 1.0)
        self.world.run(1)

    @rule()
    def events_released(self) -> None:
        self.world.controller.events.clear()
        self.world.make_plan(0.0, 1.0)

    @rule(linked=st.booleans())
    def link(self, linked: bool) -> None:
        self.world.linked = linked
        self._dial()
        self.world.run(1)

    @rule(seconds=st.integers(1, 30))
    def agent_killed_and_started(self, seconds: int) -> None:
        self.world.stop_agent()
        self.world.run(seconds)
        self._start()

    @rule(seconds=st.integers(1, 10))
    def host_rebooted(self, seconds: int) -> None:
        self.world.stop_agent()
        self.world.run(seconds)
        self.world.booted_s = self.world.true_s - 3.0
        self.dialled_since_boot = False
        self._start()

    @rule(step_s=st.sampled_from([3_600.0, -3_600.0, 3.6e8, 0.0]))
    def clock_stepped(self, step_s: float) -> None:
        self.world.wall_offset_s = step_s
        self.dialled_since_boot = self.dialled_since_boot and self.world.alive
        self.world.run(2)

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        self.world.disk["full"] = full
        self.world.run(1)

    @rule(fault=st.sampled_from(FAULTS))
    def meter(self, fault: MeterFault) -> None:
        self.world.site.meter_fault = fault
        self.world.run(2)

    @rule(share=st.floats(0.0, 0.2))
    def devices_fall_silent(self, share: float) -> None:
        physics = self.world.site.physics
        physics.silent[:] = self.world.random.random(len(physics.silent)) < share
        self.world.run(2)

    @rule(share=st.floats(0.4, 1.1), for_s=st.none() | st.floats(5.0, 60.0), kind=st.sampled_from(["shed", "hold"]))
    def local_order(self, share: float, for_s: float | None, kind: str) -> None:
        world = self.world
        if world.alive and len(world.local.orders) < 5:
            world.local.give(f"l{world.true_s}", kind, share * world.own_w, for_s, "ann", "", world.now())
            world.keep_local()
        world.run(1)

    @rule()
    def local_release(self) -> None:
        if self.world.alive and self.world.local.orders:
            self.world.local.release(None)
            self.world.keep_local()

    @rule()
    def controller_restarted(self) -> None:
        controller = self.world.controller
        controller.epoch, controller.version = controller.epoch + 1, 0
        self.world.make_plan(0.0, 1.0)
        self._dial()

    @rule(number=st.integers(0, 10**6), what=st.sampled_from(["old", "foreign", "elsewhere", "garbage", "absurd"]))
    def bad_plan(self, number: int, what: str) -> None:
        """7: refused, and nothing changes."""
        world = self.world
        if not world.alive or world.controller.newest is None:
            return
        issued = [v for k, v in sorted(world.controller.issued.items()) if k < world.book.highest]
        plan = pb.Plan.FromString(world.controller.newest.plan)
        plan.version = world.book.highest[1] + 1
        plan.epoch = max(1, world.book.highest[0])
        match what:
            case "old":
                if not issued:
                    return
                offered = issued[number % len(issued)]
            case "foreign":
                offered = sign(plan, STRANGER, "k")
            case "elsewhere":
                plan.site = "oryx-1"
                offered = sign(plan, KEY, "k")
            case "garbage":
                offered = pb.SignedPlan(plan=np.random.default_rng(number).bytes(80), signature=b"x" * 64, key_id="k")
            case _:
                plan.ceiling_w = [float("nan"), float("inf"), -1.0, 1e30][number % 4]
                offered = sign(plan, KEY, "k")
        before = world.book.highest, world.book.plan, world.book.orders(world.now()).ceiling_w
        status = world.book.offer(offered, world.now())
        assert status.status == PlanState.REJECTED, what
        assert before == (world.book.highest, world.book.plan, world.book.orders(world.now()).ceiling_w)

    def _start(self) -> None:
        fence = self.world.disk.get("fence", (0, 0))
        self.world.start_agent()
        assert self.world.book.highest >= fence  # 3: the highest durable one survives
        self._note_dial()
        self.world.run(2)

    def _dial(self) -> None:
        self.world.dial()
        self._note_dial()

    def _note_dial(self) -> None:
        if self.world.alive and self.world.linked and self.world.controller.newest is not None:
            self.dialled_since_boot = True

    # ---- what must always hold ------------------------------------------------------------------------------------

    @invariant()
    def power(self) -> None:
        """1 and 2."""
        Story.steps += 1
        world = self.world
        if world.site.meter_fault is not MeterFault.NONE:
            self.fault_until_s = world.true_s + 120.0
        recent = [entry for entry in world.power[-200:] if entry[0] > world.true_s - WINDOW_S]
        world.power = world.power[-400:]
        if world.stage in (Stage.OBSERVE, Stage.SHADOW):
            return
        highest_w = max(power_w for _, power_w, _ in recent)
        assert highest_w < world.policy.protection_w, f"protection limit: {highest_w / world.own_w:.4f} of the ceiling"
        mean_w = float(np.mean([power_w for _, power_w, _ in recent]))
        assert mean_w <= 1.005 * world.own_w, f"averaging window: {mean_w / world.own_w:.4f} of the ceiling"
        if world.true_s - world.lowered_at_s < SETTLED_S or (
            not world.alive and world.true_s - world.lowered_at_s < 300.0
        ):
            return
        if not (world.site.physics.mode[~world.site.physics.silent] != SLEEP).any():
            return  # nothing is left to shed
        slack = 1.06 if world.true_s < self.fault_until_s else 1.025
        now_w = world.power[-1][1]
        assert now_w <= slack * world.last_effective_w, f"{now_w / world.last_effective_w:.4f} of the ceiling in force"

    @invariant()
    def commands(self) -> None:
        """3, 4, 6 and 8."""
        world = self.world
        actions, world.actions = world.actions, []
        for taken in actions:
            assert all(command.why for command in (*taken.modes, *taken.limits))
            if world.stage in (Stage.OBSERVE, Stage.SHADOW):
                assert not taken.modes and not taken.limits and not taken.fans and not taken.opened
        assert world.book.highest == (0, 0) or world.book.highest in world.controller.issued
        assert not world.raised_while_forbidden, world.raised_while_forbidden
        assert not world.guaranteed_cut_early, world.guaranteed_cut_early

    @invariant()
    def records(self) -> None:
        """5: what was acknowledged is stored; what is neither is still here."""
        world = self.world
        assert world.acked <= world.controller.stored
        for lane in (1, 2):
            known = {seq for its_lane, seq in world.controller.stored if its_lane == lane} | world.spool[lane].keys()
            assert known >= set(range(1, world.last_seq[lane] + 1))

    @invariant()
    def events_hold(self) -> None:
        """9: while an event lasts in true time no clock lifts its ceiling."""
        world = self.world
        if not world.alive or world.book.plan is None or world.orders is None:
            return
        if not self.dialled_since_boot and world.wall_offset_s:
            return  # a wrong clock and nobody to ask: only what had begun is known to hold
        for named in world.book.plan.events:
            issued = next((e for e in self._ever(named.event_id)), None)
            if issued is None or issued.starts_s + 2.0 > world.true_s:
                continue
            if issued.ends_s is None or world.true_s < issued.ends_s - 2.0:
                assert world.last_effective_w <= issued.ceiling_w + 1.0, named.event_id

    def _ever(self, event_id: str) -> list[Issued]:
        found = self.world.controller.events.get(event_id)
        return [found] if found is not None else []


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.timeout(240 if STEPS <= 2_500 else 6_000)
def test_nothing_that_must_hold_is_ever_broken(shard: int) -> None:
    explain = os.environ.get("GRIDPIVOT_SHRINK") == "1"
    chosen = settings(
        max_examples=max(1, STEPS // 50),
        stateful_step_count=50,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if explain else [Phase.generate],
        print_blob=False,
    )
    Story.steps, rounds = 0, 0
    while Story.steps < STEPS:  # an example may end early
        rounds += 1
        machine = seed(1_000 * shard + rounds)(type("Story", (Story,), {}))
        run_state_machine_as_test(machine, settings=chosen)
    assert Story.steps >= STEPS
