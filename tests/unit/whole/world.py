"""One site, its link and its controller in virtual time, for random stories: real governor, lease, journal rules, local
orders, outbox and cursors; simulated physics, disk, clocks and link.

`true_s` is the time that nobody sees; the wall clock can be stepped, the monotonic one starts anew with the host.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.backends import SiteInventory
from agent.governor.decide import decide
from agent.governor.journal import PlanJournal
from agent.governor.lease import PlanBook, SitePolicy
from agent.governor.local_orders import LocalOrders
from agent.governor.meter_watch import MeterWatch
from agent.governor.state import Actions, GovernorState, Orders, Policy, Sensed
from gridpivot.clock import Instant
from gridpivot.columns import DeviceTable
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.link.cursors import LaneCursor
from gridpivot.link.lanes import Outbox, Pending
from gridpivot.plan import sign
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.v1 import session_pb2 as wire
from gridpivot.vocabulary import AiPriority, Mode, Posture, Stage
from sim.physics import Truth
from sim.virtual import VirtualSite

KEY = Ed25519PrivateKey.generate()
STRANGER = Ed25519PrivateKey.generate()
UNIX_S = 1_800_000_000.0
LEASE_S = 60.0
STEP_S = 0.5
DEVICES = 80
CLASSES = (
    miner_class("s21", "luxos", "Antminer S21", shed_s=4.0, wake_s=12.0),
    miner_class("m50", "whatsminer", "Whatsminer M50", shed_s=2.0, wake_s=30.0),
)
POOLS = (gpu_pool("inference", AiPriority.GUARANTEED, 64), gpu_pool("batch", AiPriority.SPOT, 32))


class Disk(PlanJournal):
    """The plan's disk, which may be full; what it holds survives the agent."""

    def __init__(self, kept: dict[str, object]) -> None:
        super().__init__(Path("nowhere"))
        self.kept = kept

    def load(self) -> pb.SignedPlan | None:
        self.fence = self.kept.get("fence", (0, 0))
        self.begun = self.kept.get("begun", frozenset())
        self.kept_at_unix_s = self.kept.get("at_unix_s", float("-inf"))
        return self.kept.get("plan")

    def _write_begun(self, event_ids: frozenset[str]) -> None:
        if not self.kept.get("full"):
            self.kept["begun"] = event_ids

    def begin(self, signed: pb.SignedPlan, identity: tuple[int, int]) -> Future[str | None]:
        done: Future[str | None] = Future()
        if self.kept.get("full"):
            done.set_result("no space left on device")
        else:
            self.kept |= {"plan": signed, "fence": identity, "at_unix_s": self.kept["now_unix_s"]}
            self.fence = identity
            done.set_result(None)
        return done


@dataclass
class Issued:
    """A grid event as the controller means it, in true time."""

    event_id: str
    ceiling_w: float
    starts_s: float
    ends_s: float | None


@dataclass
class Controller:
    """What the controller has said and stored. Plans grow; what is stored is never forgotten."""

    epoch: int = 1
    version: int = 0
    ceiling_w: float = 0.0
    events: dict[str, Issued] = field(default_factory=dict)
    issued: dict[tuple[int, int], pb.SignedPlan] = field(default_factory=dict)
    cursors: dict[int, LaneCursor] = field(default_factory=dict)
    stored: set[tuple[int, int]] = field(default_factory=set)
    newest: pb.SignedPlan | None = None


class World:
    """Everything of one story."""

    def __init__(self, seed: int, stage: Stage, posture: Posture, delay_s: float, bias: float) -> None:
        self.random = np.random.default_rng(seed)
        self.stage = stage
        index = (np.arange(DEVICES) % len(CLASSES)).astype(np.uint8)
        self.inventory = SiteInventory(CLASSES, index, ("f1",), np.zeros(DEVICES, np.uint16), b"", POOLS)
        truth = Truth(seed, delay_s, bias, 0.045, 90.0, 2_000.0, dead_time_factor=0.9, silent_ratio=0.0)
        self.site = VirtualSite(self.inventory, truth, 0.0)
        for pool in self.site.pools:
            pool.demand_w = pool.power_w = max(pool.baseline_w, 0.5 * pool.max_w)
            pool.limit_w = min(pool.max_w, pool.power_w + 0.03 * pool.max_w)
        modes = np.full(DEVICES, Mode.NORMAL.code, dtype=np.uint8)
        modes[: DEVICES // 5] = Mode.SLEEP.code  # to be woken, and not room for all of them
        self.site.physics.start(modes)
        self.site.settle()
        self.own_w = 1.01 * self.site.true_power_w
        self.policy = Policy(
            ceiling_w=self.own_w,
            protection_w=1.08 * self.own_w,
            stage=stage,
            posture=posture,
            ai_release_after_s=20.0,
            wake_after_s=5.0,
            min_on_s=10.0,
            min_off_s=5.0,
        )
        self.true_s = 0.0
        self.wall_offset_s = 0.0
        self.booted_s = -1_000.0  # of the host: the monotonic clock's zero
        self.disk: dict[str, object] = {}
        self.local_kept: list[dict[str, object]] = []
        self.local_at_unix_s = 0.0
        self.released_kept: dict[str, float] = {}
        self.controller = Controller(ceiling_w=self.own_w)
        self.linked = True
        self.alive = True
        self.ahead_noted = False
        self.spool: dict[int, dict[int, int]] = {lane: {} for lane in (1, 2)}  # durable: lane -> seq -> size
        self.last_seq = {1: 0, 2: 0}
        self.acked: set[tuple[int, int]] = set()
        self.actions: list[Actions] = []
        self.power: list[tuple[float, float, float]] = []  # true time, true power, effective ceiling
        self.lowered_at_s = float("-inf")
        self.last_effective_w = self.own_w
        self.heard_before = 0
        self.highest_seen = (0, 0)
        self.raised_while_forbidden = self.guaranteed_cut_early = ""
        self.start_agent()

    # ---- clocks and the agent -----------------------------------------------------------------------------------

    def now(self) -> Instant:
        return Instant(self.true_s - self.booted_s, UNIX_S + self.true_s + self.wall_offset_s)

    def start_agent(self) -> None:
        self.alive = True
        self.disk["now_unix_s"] = self.now().unix_s
        self.state = GovernorState(self.inventory)
        self.watch = MeterWatch(self.policy.meter_fresh_s, self.policy.meter_dead_s, 0.02 * self.own_w)
        self.table = DeviceTable(DEVICES)
        self.polled_at_s = np.full(DEVICES, np.nan)
        site_policy = SitePolicy("falcon-1", self.own_w, self.policy.posture, 0.0)
        self.book = PlanBook(site_policy, self.inventory, {"k": KEY.public_key()}, Disk(self.disk), self.now())
        self.book.remember_released(self.released_kept)
        self.local = LocalOrders()
        self.local.restore(self.local_kept, self.local_at_unix_s, self.now())
        self.outbox = Outbox(64 * 1024)
        for lane, records in self.spool.items():
            for seq, size in records.items():
                self.outbox.add(Pending(lane, seq, size))
        self.orders: Orders | None = None
        self.dial()

    def stop_agent(self) -> None:
        self.alive = False

    def keep_local(self) -> None:
        self.local_kept, self.local_at_unix_s = self.local.to_json(), self.now().unix_s
        self.released_kept = dict(self.book.released)

    # ---- the link -------------------------------------------------------------------------------------------------

    def dial(self) -> None:
        """A session begins, if the link stands: resume, the newest plan, the controller's clock."""
        if not (self.alive and self.linked):
            return
        self.outbox.restart()
        for lane, cursor in self.controller.cursors.items():
            self._take_ack(wire.LaneAck(lane=lane, through_seq=cursor.through_seq, also_seqs=cursor.also_seqs))
        self.book.note_controller_clock(UNIX_S + self.true_s, self.now())
        if self.controller.newest is not None:
            self.book.offer(self.controller.newest, self.now())

    def say(self, lane: int) -> None:
        self.last_seq[lane] += 1
        self.spool[lane][self.last_seq[lane]] = 100
        self.outbox.add(Pending(lane, self.last_seq[lane], 100))

    def talk(self, loss: float) -> None:
        """Records out, acks back; each message may be lost, doubled or late (and then never acknowledged)."""
        if not (self.alive and self.linked):
            return
        arrived: dict[int, list[int]] = {1: [], 2: []}
        while (record := self.outbox.take()) is not None:
            if self.random.random() >= loss:
                arrived[record.lane] += [record.seq] * (1 + (self.random.random() < loss))
        for lane, seqs in arrived.items():
            self.random.shuffle(seqs)
            cursor = self.controller.cursors.get(lane, LaneCursor()).after(seqs)
            self.controller.cursors[lane] = cursor
            self.controller.stored |= {(lane, seq) for seq in seqs}
            if seqs and self.random.random() >= loss:
                also = [seq for seq in seqs if seq > cursor.through_seq]
                self._take_ack(wire.LaneAck(lane=lane, through_seq=cursor.through_seq, also_seqs=also))
        if self.controller.newest is not None and self.random.random() >= loss:
            self.book.renew(*self._identity(self.controller.newest), self.now())

    def _take_ack(self, ack: wire.LaneAck) -> None:
        for seq in self.outbox.acked(ack):
            self.acked.add((ack.lane, seq))
            self.spool[ack.lane].pop(seq, None)

    @staticmethod
    def _identity(signed: pb.SignedPlan) -> tuple[int, int]:
        plan = pb.Plan.FromString(signed.plan)
        return plan.epoch, plan.version

    # ---- the controller -------------------------------------------------------------------------------------------

    def make_plan(self, share_asleep: float, pool_share: float) -> pb.SignedPlan:
        """The next plan under the controller's ceiling, naming every event that stands."""
        self.controller.version += 1
        counts = np.bincount(self.inventory.class_index, minlength=len(CLASSES))
        plan = pb.Plan(
            site="falcon-1",
            epoch=self.controller.epoch,
            version=self.controller.version,
            issued_at_unix_ms=round((UNIX_S + self.true_s) * 1000),
            valid_for_ms=round(LEASE_S * 1000),
            ceiling_w=self.controller.ceiling_w,
            classes=[
                pb.ClassTarget(
                    name=c.name,
                    sleep_machines=share_asleep * n,
                    normal_machines=(1 - share_asleep) * n,
                    value_usd_per_mwh=50.0,
                )
                for c, n in zip(CLASSES, counts, strict=True)
            ],
            pools=[pb.PoolTarget(name=p.name, max_w=max(p.min_w, pool_share * p.max_w)) for p in POOLS],
            fallback=pb.Fallback(posture=self.policy.posture.value, ceiling_w=self.controller.ceiling_w),
            events=[
                pb.EventWindow(
                    event_id=e.event_id,
                    ceiling_w=e.ceiling_w,
                    starts_at_unix_ms=round((UNIX_S + e.starts_s) * 1000),
                    ends_at_unix_ms=None if e.ends_s is None else round((UNIX_S + e.ends_s) * 1000),
                )
                for e in self.controller.events.values()
            ],
        )
        signed = sign(plan, KEY, "k")
        self.controller.issued[plan.epoch, plan.version] = signed
        self.controller.newest = signed
        if self.alive and self.linked:
            self.book.offer(signed, self.now())
        return signed

    # ---- time ---------------------------------------------------------------------------------------------------

    def run(self, seconds: int, loss: float = 0.0) -> None:
        """Physics every half second, the governor every second, talk every two."""
        for step in range(round(seconds / STEP_S)):
            self.true_s += STEP_S
            power_w = self.site.advance(self.true_s)
            self.disk["now_unix_s"] = self.now().unix_s
            if self.alive and step % 2 == 1:
                self.tick()
            if step % 4 == 3:
                if self.alive:
                    self.say(2)
                self.talk(loss)
            self.power.append((self.true_s, power_w, self.last_effective_w))

    def tick(self) -> Actions:
        now = self.now()
        # The world's own clock is the true one; the agent's monotonic clock began with its host.
        self.site.refresh(self.table, self.polled_at_s, Instant(self.true_s, 0.0))
        polled_at_s = self.polled_at_s - self.booted_s
        meter = self.site.newest()
        if meter is not None:
            meter = type(meter)(meter.power_w, meter.read_at_s - self.booted_s, meter.import_energy_j)
        sensed = Sensed(self.table, polled_at_s, meter, self.site.read(now))
        if self.local.ended(now):
            self.keep_local()
        orders = self.local.limit(self.book.orders(now))
        if self.orders is None or orders.class_value is not self.orders.class_value:
            self.state.classes.set_value(orders.class_value)
        self.orders = orders
        before = self.state.desired.copy()
        actions = decide(self.state, self.watch, sensed, orders, self.policy, now.monotonic_s)
        self._judge(actions, orders, before, sensed)
        if orders.ceiling_w < self.last_effective_w - 1.0:
            self.lowered_at_s = self.true_s
        self.last_effective_w = orders.ceiling_w
        at = Instant(self.true_s, 0.0)
        for command in actions.modes:
            self.site.command(command.rows, command.mode, at)
        for limit in actions.limits:
            self.site.set_limit(limit.pool, limit.limit_w, at)
        self.actions.append(actions)
        self.highest_seen = max(self.highest_seen, self.book.highest)
        return actions

    def _judge(self, actions: Actions, orders: Orders, before: np.ndarray, sensed: Sensed) -> None:
        """What only this tick shows: raises without a durable plan; caps on guaranteed AI while mining could be shed."""
        mode_w = self.state.classes.mode_w[self.state.classes.of_row]
        for command in actions.modes:
            rows = command.rows
            up = mode_w[rows, command.mode.code] > mode_w[rows, before[rows]] + 1.0
            if not orders.may_raise and (up & (before[rows] != 0)).any():
                self.raised_while_forbidden = f"{command.why}: {int(up.sum())} machines to {command.mode}"
        for limit in actions.limits:
            reading = sensed.pools[limit.pool]
            if not orders.may_raise and limit.limit_w > reading.limit_w + 1.0:
                self.raised_while_forbidden = f"pool {limit.pool}: {limit.why}"
            cut = reading.power_w is not None and limit.limit_w < reading.power_w - 0.01 * POOLS[limit.pool].max_w
            if limit.pool == 0 and cut and limit.why != "plan":
                awake = (self.state.desired > Mode.SLEEP.code) & (self.state.pending == 0)
                usable = awake & ~np.isnan(sensed.polled_at_s) & (sensed.table["power_w"] > 100.0)
                if usable.any():
                    self.guaranteed_cut_early = f"{limit.why} with {int(usable.sum())} machines still awake"
