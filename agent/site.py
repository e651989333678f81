"""One site as an object: backends, governor, plan book and uplink on one event loop.

A real agent process holds one; a host process of the simulator holds ten. The beat: read, decide, command, and every
few beats report. Policy lives in governor/; what is here only carries values to and fro.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.ai.local import ai_handlers
from agent.ai.reports import add_levers
from agent.ai.site_side import AiSide
from agent.ai.targets import capped
from agent.backends import NodeFallbacks, PoolReading, RowArray, SiteInventory
from agent.by_hand import ByHand
from agent.commissioner import Commissioner
from agent.energy import Counter
from agent.energy_book import EnergyBook
from agent.governor.decide import decide
from agent.governor.fallback import SlowRise, fallbacks_w
from agent.governor.gates import pools_dead
from agent.governor.journal import PlanJournal
from agent.governor.lease import PlanBook, SitePolicy
from agent.governor.meter_watch import MeterWatch
from agent.governor.recall import Recall
from agent.governor.state import Actions, GovernorState, ModeCommand, Orders, Policy, Sensed
from agent.hardware import USUAL_BEATS, Beats, Hardware, SiteCounters
from agent.identity.upkeep import CertificateState
from agent.keeping import keep_desired, keep_energy
from agent.local_control import Handler, LocalControl
from agent.notices import Notices
from agent.uplink.beat import DeviceBeat
from agent.uplink.reports import event, inventory_message, loads_w, rollup
from agent.uplink.session import Uplink, UplinkTarget
from gridpivot.clock import Clock, Instant
from gridpivot.columns import DeviceTable, encode_report
from gridpivot.link.codec import KIND_OF, encode_payload
from gridpivot.link.lanes import Lane
from gridpivot.v1 import plan_pb2, telemetry_pb2
from gridpivot.v1 import session_pb2 as wire
from gridpivot.vocabulary import EventKind, Mode, PlanState, Reason, Rung, Stage

log = structlog.get_logger("agent.site")

FIRST_TABLE_S = 3.0  # a first sweep needs a moment
MOST_RATIO = 1.25  # more than this times the protection limit does not pass the meter
STEADY_BEATS = 3  # quiet ticks before a plan counts as applied


class SiteAgent:
    """One site's agent."""

    def __init__(
        self,
        site: str,
        policy: Policy,
        inventory: SiteInventory,
        hardware: Hardware,
        target: UplinkTarget | None,
        planner_keys: Mapping[str, Ed25519PublicKey],
        state_dir: Path,
        clock: Clock,
        beats: Beats = USUAL_BEATS,
        event_lead_s: float = 0.0,
        commissioner: Commissioner | None = None,
    ) -> None:
        self.commissioner = commissioner or Commissioner(inventory, state_dir, policy.stage)
        policy = replace(policy, stage=self.commissioner.stage()[0])
        self.site, self.policy, self.inventory = site, policy, inventory
        self.hardware, self.beats, self._clock = hardware, beats, clock
        self.table = DeviceTable(inventory.device_count)
        self.polled_at_s = np.full(inventory.device_count, np.nan)
        self.state = GovernorState(inventory)
        self._recall = Recall(state_dir / "desired", inventory)
        if policy.stage in (Stage.SHED_ONLY, Stage.FULL):
            self.state.desired[:] = self._recall.load(clock.now().unix_ms / 1000.0)
        self._recalled = self.state.desired.copy()
        self.watch = MeterWatch(policy.meter_fresh_s, policy.meter_dead_s, 0.02 * policy.ceiling_w)
        self.journal = PlanJournal(state_dir / "plan.pb", background=True)
        self.book = PlanBook(
            SitePolicy(site, policy.ceiling_w, policy.posture, event_lead_s),
            inventory,
            planner_keys,
            self.journal,
            clock.now(),
        )
        self.by_hand = ByHand(state_dir, self.book, clock, self._power_w, self._tell)
        counter = hardware.counter or Counter(most_w=min(1e9, MOST_RATIO * policy.protection_w))
        self.energy = EnergyBook(state_dir / "energy.json", counter, clock.now())
        self.inventory_message = inventory_message(inventory)
        self.counters = SiteCounters()
        self.orders: Orders | None = None
        self.actions: Actions | None = None
        self.pool_readings: list[PoolReading] = []
        self.uplink: Uplink | None = None
        self.certificate: CertificateState | None = None  # None = nobody here looks after it
        self.more_handlers: Mapping[str, Handler] = {}  # of the local control, beside its own
        self._target, self._state_dir = target, state_dir
        self._applied: tuple[int, int] = (0, 0)
        self._steady = 0
        self._fallback_rise = [SlowRise() for _ in inventory.pools]
        self._notices = Notices(lambda kind, message, figures=None: self.say(kind, message, figures))
        self._quiet = False
        self._ai = AiSide(inventory.pools)
        self._next_devices_s = float("inf")
        self.device_beat = DeviceBeat(beats.devices_s)

    async def run(self) -> None:
        """Govern and report until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._target is not None:
                self.uplink = Uplink(
                    self._target,
                    self._state_dir / "spool.sqlite",
                    self._clock,
                    on_plan=self._on_plan,
                    on_heartbeat=self._on_heartbeat,
                    hello=self._hello,
                    on_link=self._on_link,
                    inventory_wanted=self._send_inventory,
                )
                self.uplink.on_controller_clock = lambda unix_s: self.book.note_controller_clock(
                    unix_s, self._clock.now()
                )
                set_aside = self.uplink.spool.opened.set_aside
                if set_aside is not None:
                    self.say(EventKind.SPOOL_DEGRADED, f"spool file was not readable; set aside as {set_aside.name}")
                self.say(EventKind.AGENT_STARTED, f"agent of site {self.site} started")
                tasks.create_task(self.uplink.run(), name=f"uplink {self.site}")
            ai = ai_handlers(self.state.inventory.pools, lambda: self.pool_readings, self.hardware.ai)
            handlers = {**self.by_hand.handlers, **self.commissioner.handlers, **ai, **self.more_handlers}
            tasks.create_task(LocalControl(self._state_dir, handlers).run(), name=f"control {self.site}")
            tasks.create_task(self._govern(), name=f"governor {self.site}")
            desired = keep_desired(self._recall, lambda: self.state.desired.copy(), self._recalled, self._clock)
            tasks.create_task(desired, name=f"recall {self.site}")
            tasks.create_task(keep_energy(self.energy, self._clock), name=f"energy {self.site}")
            if self.hardware.ai is not None:
                tasks.create_task(self.hardware.ai.run(self.say), name=f"ai {self.site}")

    def quiesce(self) -> None:
        """Stop deciding and reporting; the uplink goes on sending what waits."""
        self._quiet = True

    async def _govern(self) -> None:
        """The beat; a late tick is counted, never made up for."""
        due_s = self._clock.now().monotonic_s
        next_rollup_s = due_s
        self._next_devices_s = due_s + FIRST_TABLE_S
        while not self._quiet:
            now = self._clock.now()
            self.tick(now)
            if now.monotonic_s >= next_rollup_s and self._seen_anything(now):
                next_rollup_s = now.monotonic_s + self.beats.rollup_s - 0.05
                self._send_rollup(now)
            if now.monotonic_s >= self._next_devices_s and self._devices_may_go():
                self._next_devices_s = now.monotonic_s + self.device_beat.beat_s - 0.05
                self._send_devices(now)
            due_s += self.beats.governor_s
            pause_s = due_s - self._clock.now().monotonic_s
            if pause_s < -self.beats.governor_s:
                self.counters.late_ticks_total += 1
                due_s -= pause_s
            await asyncio.sleep(max(0.0, pause_s))

    def _devices_may_go(self) -> bool:
        """On a thin link the tables come slower, and never two at once; it is said when that begins and ends."""
        if self.uplink is None or not self.uplink.state.connected:
            return True
        if self.uplink.tables_under_way():
            return False
        changed = self.device_beat.after(self.uplink.state.device_ack_s)
        if changed is not None:
            beat_s = self.device_beat.beat_s
            told = (
                f"the link is thin: device tables every {beat_s:.0f} s"
                if changed
                else "device tables at their own beat"
            )
            self.say(EventKind.REPORTS_THINNED, told, {"devices_beat_s": beat_s})
        return True

    def _seen_anything(self, now: Instant) -> bool:
        """No roll-up before the first sweep: a plan made from it would count every miner as silent."""
        if self.state.first_tick_s is None:
            return False
        waited = now.monotonic_s - self.state.first_tick_s >= self.policy.meter_wait_s
        if waited or not self.table.device_count:
            return True
        return self.state.trusted_w is not None and bool((~np.isnan(self.polled_at_s)).mean() > 0.5)

    def tick(self, now: Instant) -> Actions:
        """One turn: read, decide, command."""
        began_s = time.perf_counter()
        self.hardware.miners.refresh(self.table, self.polled_at_s, now)
        self.pool_readings = list(self.hardware.pools.read(now))
        air = None if self.hardware.fans is None else self.hardware.fans.state()
        sensed = Sensed(self.table, self.polled_at_s, self.hardware.meter.newest(), self.pool_readings, air)
        self.by_hand.tick(now)
        orders = self.by_hand.orders.limit(self.book.orders(now))
        wanted = orders
        if self.hardware.ai is not None:
            orders = capped(orders, self.inventory.pools, self.hardware.ai.caps_w())
        if self.orders is None or orders.class_value is not self.orders.class_value:
            self.state.classes.set_value(orders.class_value)
        self.orders = orders
        actions = decide(self.state, self.watch, sensed, orders, self.policy, now.monotonic_s)
        self.actions = actions
        self.table["desired_mode"][:] = self.state.desired
        for command in actions.modes:
            self._order(command, now)
        for limit in actions.limits:
            log.info("limit", site=self.site, pool=limit.pool, limit_w=round(limit.limit_w), why=limit.why)
            self.hardware.pools.set_limit(limit.pool, limit.limit_w, now)
        self._switch(actions)
        self._hold_fallbacks(actions, orders, now)
        if self.hardware.ai is not None:
            self._ai.tell(self.hardware.ai, self.pool_readings, wanted, actions.picture, self.policy.stage, now)
        self._commission(sensed, actions, orders, now)
        self.energy.tick(sensed.meter, loads_w(actions.picture, self.policy), now, self._say_counter)
        self._notice(actions, now)
        self.counters.ticks_total += 1
        self.counters.tick_s_last = time.perf_counter() - began_s
        self.counters.tick_s_max = max(self.counters.tick_s_max, self.counters.tick_s_last)
        self.counters.left_alone = {reason.value: count for reason, count in actions.left_alone.items()}
        return actions

    def _commission(self, sensed: Sensed, actions: Actions, orders: Orders, now: Instant) -> None:
        """A step test that a person asked for, and the stage that it earns."""

        def command(rows: RowArray, mode: Mode, watts: float) -> None:
            moved = ModeCommand(rows, mode, "step_test", watts)
            self._order(moved, now)

        self.commissioner.tick(self.state, sensed, actions, orders.ceiling_w, now, command, self.say)
        stage = self.commissioner.stage()[0]
        if stage is not self.policy.stage and not self.commissioner.running:
            self.policy = replace(self.policy, stage=stage)

    def _power_w(self) -> float | None:
        """What decisions rest on now: the meter, or its worst case [W]."""
        return None if self.actions is None else self.actions.picture.assumed_w

    def _order(self, command: ModeCommand, now: Instant) -> None:
        log.info(
            "command",
            site=self.site,
            mode=command.mode.value,
            devices=len(command.rows),
            expected_w=round(command.expected_w),
            why=command.why,
            plan=self.book.highest,
        )
        self.hardware.miners.command(command.rows, command.mode, now)

    def _hold_fallbacks(self, actions: Actions, orders: Orders, now: Instant) -> None:
        """A sign of life for whoever holds the GPUs' fallbacks; a site that only watches gives none."""
        fallbacks = self.hardware.fallbacks
        if fallbacks is None or self.policy.stage not in (Stage.SHED_ONLY, Stage.FULL):
            return
        pools = self.inventory.pools
        watts = fallbacks_w(pools, self.book.fallback_w(), actions.picture, self.policy, orders.ceiling_w)
        slow = [rise.take(w, now.monotonic_s) for rise, w in zip(self._fallback_rise, watts, strict=True)]
        nodes = getattr(self.hardware.pools, "node_pools", None)
        if isinstance(nodes, NodeFallbacks):
            nodes.cap_fallbacks(self.book.node_fallbacks_w(), now)
        fallbacks.hold(slow, now)

    def _switch(self, actions: Actions) -> None:
        """Fans as wanted; circuits opened, once, and never closed."""
        if self.hardware.fans is not None:
            for fan in actions.fans:
                log.info("fans", site=self.site, container=fan.container, on=fan.on)
                self.hardware.fans.ask(fan.container, fan.on)
        for name in actions.opened:
            told = f"{name} is opened: the firmware behind it did not shed; close it by hand when the cause is found"
            if self.hardware.switches is not None:
                self.hardware.switches.ask(name, False, once=True)
            self.say(EventKind.FEEDER_OPENED, told)

    # ---- what is worth saying ---------------------------------------------------------------------------------

    def say(
        self,
        kind: EventKind,
        message: str,
        figures: Mapping[str, float] | None = None,
        plan_status: telemetry_pb2.PlanStatus | None = None,
        *,
        actor: str = "",
        order_id: str = "",
    ) -> None:
        """An event: never dropped."""
        log.info("event", site=self.site, kind=kind.value, message=message)
        self.counters.events_total += 1
        if self._quiet:
            return
        now = self._clock.now()
        self._send(wire.LANE_EVENTS, event(kind, message, now, figures, plan_status, actor=actor, order_id=order_id))

    def _tell(
        self, kind: EventKind, message: str, figures: Mapping[str, float] | None, *, actor: str, order_id: str
    ) -> None:
        self.say(kind, message, figures, actor=actor, order_id=order_id)

    def _say_counter(self, message: str, figures: Mapping[str, float]) -> None:
        self.say(EventKind.METER_COUNTER, message, figures)

    def _notice(self, actions: Actions, now: Instant) -> None:
        picture, notices = actions.picture, self._notices
        notices.meter(picture.meter_trust, self.state.trusted_w is not None, picture.assumed_w)
        if self.orders is not None and notices.lease(self.book.leased(now), self.orders.rung.value):
            self._report_status(PlanState.EXPIRED, None)
        notices.events(self.book.active_events(now))
        if self.uplink is not None:
            notices.disk(self.uplink.spool.degraded)
        notices.plan_disk(self.book.degraded)
        notices.pools(pools_dead(self.table, self.policy), int((self.table["reason"] == Reason.NO_POOL.code).sum()))
        self._notice_applied(actions)

    def _notice_applied(self, actions: Actions) -> None:
        picture = actions.picture
        quiet = not actions.modes and not actions.limits and actions.moves_open == 0
        quiet = quiet and picture.shed_in_flight_w + picture.wake_in_flight_w < 0.002 * self.policy.ceiling_w
        self._steady = self._steady + 1 if quiet and picture.metered_w is not None else 0
        orders = self.orders
        # A site that commands nothing applies nothing; and power above the ceiling is not the plan's.
        on_plan = self.policy.stage in (Stage.SHED_ONLY, Stage.FULL)
        on_plan = on_plan and orders is not None and orders.rung in (Rung.PLAN, Rung.CLIPPED_PLAN)
        if on_plan and orders is not None and picture.metered_w is not None:
            on_plan = picture.metered_w <= 1.02 * orders.ceiling_w
        if on_plan and self._steady >= STEADY_BEATS and self._applied != self.book.highest:
            self._applied = self.book.highest
            self._report_status(PlanState.APPLIED, picture.metered_w)

    def _report_status(self, status: PlanState, metered_w: float | None) -> None:
        epoch, version = self.book.highest
        message = telemetry_pb2.PlanStatus(epoch=epoch, version=version, status=status.value, metered_power_w=metered_w)
        self.say(EventKind.PLAN_STATUS, f"plan {epoch}.{version} {status.value}", plan_status=message)

    # ---- uplink -----------------------------------------------------------------------------------------------

    def _hello(self) -> wire.Hello:
        epoch, version = self.book.highest
        return wire.Hello(
            site=self.site,
            inventory_hash=self.inventory_message.inventory_hash,
            plan_epoch=epoch,
            plan_version=version,
        )

    def _on_plan(self, signed: plan_pb2.SignedPlan) -> None:
        now = self._clock.now()
        before = self.book.highest
        status = self.book.offer(signed, now)
        if status.status == PlanState.REJECTED or self.book.highest != before:
            self._steady = 0
            text = f"plan {status.epoch}.{status.version} {status.status} {status.reason}".rstrip()
            self.say(EventKind.PLAN_STATUS, text, plan_status=status)

    def _on_heartbeat(self, beat: wire.Heartbeat) -> None:
        self.book.renew(beat.plan_epoch, beat.plan_version, self._clock.now())

    def _on_link(self, up: bool, reason: str) -> None:
        if up:
            self.say(EventKind.LINK_RESTORED, "session with the controller is up")
        else:
            self.say(EventKind.LINK_LOST, f"session with the controller ended: {reason}")

    def _send(
        self,
        lane: Lane,
        message: telemetry_pb2.SiteEvent
        | telemetry_pb2.SiteRollup
        | telemetry_pb2.Inventory
        | telemetry_pb2.DeviceReport,
    ) -> None:
        if self.uplink is not None:
            self.uplink.send(lane, KIND_OF[type(message)], encode_payload(message))

    def _send_inventory(self) -> None:
        """The controller lacks our inventory: send it, and a table soon after, so that rows mean something at once."""
        self._send(wire.LANE_EVENTS, self.inventory_message)
        self._next_devices_s = self._clock.now().monotonic_s + 1.0

    def _send_rollup(self, now: Instant) -> None:
        assert self.actions is not None and self.orders is not None
        sample = self.hardware.meter.newest()
        message = rollup(
            self.state,
            self.actions,
            self.orders,
            self.policy,
            self.table,
            self.pool_readings,
            self.book.highest,
            None if sample is None else sample.import_energy_j,
            self.energy.message(),
            0 if self.uplink is None else self.uplink.waiting(),
            now,
        )
        message.devices_beat_s = self.device_beat.beat_s
        if self.hardware.ai is not None:
            for pool in message.pools:
                add_levers(pool, self.hardware.ai)
        message.degraded = self.book.degraded is not None or bool(
            self.uplink is not None and self.uplink.spool.degraded
        )
        if self.by_hand.orders.ceiling_w is not None:
            message.local_ceiling_w = self.by_hand.orders.ceiling_w
        self.counters.rollups_total += 1
        self._send(wire.LANE_SITE, message)

    def _send_devices(self, now: Instant) -> None:
        self.counters.reports_total += 1
        report = encode_report(self.table, self.inventory_message.inventory_hash, now.unix_ms)
        self._send(wire.LANE_DEVICES, report)
