"""What a meter can do wrong, and power that is gone and comes back: in virtual time, minutes in a second.

A complete agent over simulated physics, ticked by hand; AI demand steps up and down, and doubles, meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.backends import Grouping
from agent.energy import Counter
from agent.governor.state import ContainerFans
from agent.hardware import Beats, Hardware
from agent.site import SiteAgent
from gridpivot.clock import Instant
from gridpivot.curves import gpu_pool
from gridpivot.plan import sign
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.vocabulary import AiPriority, Mode
from sim.chaos.outcome import Outcome
from sim.chaos.rig import until
from sim.fleet import SiteSpec, inventory_of, policy_of
from sim.physics import Truth
from sim.referee import Referee
from sim.virtual import MeterFault, VirtualSite

DEVICES = 300
STEP_S = 0.5
UNIX_S = 1_800_000_000.0
FULL_REGISTER_J = 2**32
KEY = Ed25519PrivateKey.generate()
PLANNER = {"chaos": KEY.public_key()}


class Fans:
    """Fans of containers by hand."""

    def __init__(self) -> None:
        self.shown: dict[str, bool] = {"C1": True, "C2": True}
        self.asked: list[tuple[str, bool]] = []

    def state(self) -> Mapping[str, bool]:
        """What is proven."""
        return self.shown

    def ask(self, name: str, on: bool, *, once: bool = False) -> None:
        """Noted."""
        self.asked.append((name, on))


class VirtualRig:
    """One site whose only clock is `now_s`."""

    def __init__(self, place: Path, *, counter: Counter | None = None, fans: bool = False, gpus: int = 0) -> None:
        """`gpus`: more than the site of the demo has, so that AI alone can carry it over its limits."""
        self.now_s = 1_000.0
        spec = SiteSpec("site-0", "ercot", 0, DEVICES, 3_600.0 * DEVICES, False, 11)
        inventory = inventory_of(spec)
        if gpus:
            inventory = dataclasses.replace(inventory, pools=(gpu_pool("inference", AiPriority.GUARANTEED, gpus),))
        rows = np.arange(DEVICES)
        macs = b"".join((row + 1).to_bytes(6, "big") for row in range(DEVICES))
        groups = (Grouping("container", ("C1", "C2"), (rows // (DEVICES // 2)).astype(np.int32)),)
        self.world = VirtualSite(
            dataclasses.replace(inventory, groupings=groups, mac_addresses=macs),
            Truth(11, 1.5, 1.06, 0.045, 90.0, 5_000.0, silent_ratio=0.0),
            self.now_s,
        )
        self.demand(0.4)
        for pool in self.world.pools:
            pool.power_w = pool.demand_w
            pool.limit_w = min(pool.max_w, 1.05 * pool.demand_w)
        modes = np.full(DEVICES, Mode.NORMAL.code, dtype=np.uint8)
        modes[: DEVICES // 6] = Mode.SLEEP.code
        self.world.physics.start(modes)
        self.world.settle()
        ceiling_w = 1.01 * self.world.true_power_w
        self.spec = dataclasses.replace(spec, ceiling_w=ceiling_w)
        self.fans = Fans()
        policy = policy_of(self.spec)
        if fans:
            policy = dataclasses.replace(policy, fans=(ContainerFans("C1"), ContainerFans("C2")))
        hardware = Hardware(self.world, self.world, self.world, fans=self.fans if fans else None, counter=counter)
        self.agent = SiteAgent(
            "site-0", policy, self.world.inventory, hardware, None, PLANNER, place / "agent", self, Beats()
        )
        self.referee = Referee("site-0", ceiling_w, self.spec.protection_w, stock_only=False)
        self.said: list[str] = []
        self.agent.say = lambda kind, *_, **__: self.said.append(kind.value)  # type: ignore[method-assign]
        self.first_j: int | None = None

    def now(self) -> Instant:
        """Both clocks agree."""
        return Instant(self.now_s, UNIX_S + self.now_s)

    def demand(self, share: float) -> None:
        """AI demand as a share of what the pools could draw."""
        for pool in self.world.pools:
            pool.demand_w = max(pool.baseline_w, share * pool.max_w)

    def run(self, seconds: float, each: Callable[[], None] = lambda: None, *, agent: bool = True) -> None:
        """Physics every half second, the governor every second."""
        for step in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            self.world.advance(self.now_s)
            self.referee.see(self.now_s, self.world.true_power_w, self.world.true_ai_w)
            each()
            if agent and step % 2:
                self.agent.tick(self.now())
                if self.first_j is None and self.agent.energy.ledger.base is not None:
                    self.first_j = self.world.sampled_j

    async def want_all_mining(self) -> None:
        """A plan that wakes every machine that there is room for."""
        counts = np.bincount(self.world.inventory.class_index)
        named = zip(self.world.inventory.classes, counts, strict=True)
        plan = pb.Plan(
            site="site-0",
            epoch=1,
            version=1,
            ceiling_w=self.spec.ceiling_w,
            valid_for_ms=10**8,
            classes=[pb.ClassTarget(name=c.name, normal_machines=n, value_usd_per_mwh=50.0) for c, n in named],
            pools=[pb.PoolTarget(name=pool.name, max_w=pool.max_w) for pool in self.world.inventory.pools],
            fallback=pb.Fallback(posture="hold", ceiling_w=self.spec.ceiling_w),
        )
        self.agent._on_plan(sign(plan, KEY, "chaos"))
        await until(lambda: self.agent.book.orders(self.now()).may_raise, 10.0, "plan on the disk")

    def busy(self, minutes: int) -> None:
        """AI demand goes up and down, and doubles."""
        for minute in range(minutes):
            self.demand((0.4, 0.55, 0.3, 0.8)[minute % 4])
            self.run(60.0)

    def outcome(self, name: str, saw: str, note: str = "", *, ledger: bool = False) -> Outcome:
        """The accounts."""
        findings = self.referee.findings
        gap = None
        if ledger and self.first_j is not None:
            gap = self.world.sampled_j - self.first_j - self.agent.energy.ledger.totals.import_j
        return Outcome(
            name,
            ok=not note and not findings.protection_limit_reached,
            saw=saw,
            how="virtual time",
            ledger_gap_j=gap,
            ceiling_excess_pct=100.0 * findings.excess_max_ratio,
            protection_reached=findings.protection_limit_reached,
            note=note,
        )


async def _faulty(fault: MeterFault, place: Path, short: bool) -> Outcome:
    """A meter that is good for some minutes, then has this fault while demand goes on, then is good again."""
    rig = VirtualRig(place)
    rig.busy(4)
    before = len(rig.said)
    rig.world.meter_fault = fault
    rig.busy(4 if short else 60)
    told = [word for word in rig.said[before:] if word.startswith("meter_")]
    rig.world.meter_fault = MeterFault.NONE
    rig.busy(3)
    trust = rig.agent.actions.picture.meter_trust.value if rig.agent.actions is not None else ""
    seen = "meter_fault" in told
    note = "" if trust == "trusted" else f"the meter is {trust} after it was mended"
    if not seen and fault is not MeterFault.FROZEN:
        note = note or "nothing was said"
    return rig.outcome(f"meter_{fault.value}", f"meter_fault {'said' if seen else 'not said'}; then {trust}", note)


async def phase_lost_early(place: Path, short: bool) -> Outcome:
    """A phase is lost soon after the start, before much was learned, while the plan wants all mining and AI doubles."""
    rig = VirtualRig(place, gpus=DEVICES * 3 // 4)
    await rig.want_all_mining()
    rig.run(45.0)
    before = len(rig.said)
    rig.world.meter_fault = MeterFault.PHASE_MISSING
    rig.busy(4 if short else 60)
    seen = "meter_fault" in rig.said[before:]
    note = "" if seen else "nothing was said"
    return rig.outcome("phase_lost_early", f"meter_fault {'said' if seen else 'not said'}", note)


async def counter_rolls_over(place: Path, short: bool) -> Outcome:
    """A 32-bit counter of joules turns over several times."""
    modulus_j = FULL_REGISTER_J // 64
    rig = VirtualRig(place, counter=Counter(modulus_j=modulus_j, most_w=2e6))
    rig.world.counter_modulus_j = modulus_j
    rig.busy(6 if short else 60)
    turns = rig.world.sampled_j // modulus_j
    return rig.outcome("counter_rolls_over", f"ledger goes on over {turns} turns", ledger=True)


async def meter_exchanged(place: Path, short: bool) -> Outcome:
    """Another meter with another counter hangs there from one second to the next; what cannot be known is not invented."""
    rig = VirtualRig(place, counter=Counter(most_w=2e6))
    rig.busy(3)
    rig.world.counter_offset_j = 987_654_321_000
    base_j, total_j = rig.world.sampled_j, rig.agent.energy.ledger.totals.import_j
    rig.busy(3)
    totals = rig.agent.energy.ledger.totals
    gained = totals.import_j - total_j
    true_j = rig.world.sampled_j - base_j
    said = "meter_counter" in rig.said
    # While the new counter is not believed yet (three readings) its energy is estimated and shown as unmetered.
    note = (
        "" if said and 0.97 * true_j <= gained + totals.unmetered_j <= 1.03 * true_j and gained <= true_j else "ledger"
    )
    saw = f"meter_counter; {totals.unmetered_j / 1e6:.2f} MJ shown as unmetered, {gained / 1e6:.1f} counted"
    return rig.outcome("meter_exchanged", saw, note)


async def blackout(place: Path, short: bool) -> Outcome:
    """The grid goes, and comes back with every miner booting into hashing; the agent's box needs a minute."""
    rig = VirtualRig(place)
    rig.busy(3)
    rig.demand(0.8)
    rig.run(90.0)
    (place / "agent").mkdir(parents=True, exist_ok=True)
    rig.agent._recall.save(rig.agent.state.desired, rig.now().unix_s)
    ordered = rig.agent.state.desired.copy()
    rig.world.physics.black_out()
    rig.run(60.0, agent=False)
    keeps = np.zeros(len(rig.world.inventory.classes), dtype=bool)
    rig.world.physics.power_back(rig.now_s, keeps)
    fresh = VirtualRig.__new__(VirtualRig)
    fresh.__dict__.update(rig.__dict__)
    fresh.agent = SiteAgent(
        "site-0",
        rig.agent.policy,
        rig.world.inventory,
        rig.agent.hardware,
        None,
        {},
        place / "agent",
        fresh,
        Beats(),
    )
    fresh.agent.say = rig.agent.say  # type: ignore[method-assign]
    fresh.run(240.0)
    asleep = int((rig.world.physics.mode == Mode.SLEEP.code).sum())
    before = int((ordered == Mode.SLEEP.code).sum())
    note = "" if asleep >= before > 0 else f"{before} were asleep by order, {asleep} are"
    return fresh.outcome("blackout", f"{asleep} machines asleep again as ordered before", note)


async def cooling_fault(place: Path, short: bool) -> Outcome:
    """A container's fans are seen standing: its machines go to sleep, the other container goes on."""
    rig = VirtualRig(place, fans=True)
    rig.busy(2)
    rig.fans.shown["C1"] = False
    rig.run(150.0)
    asleep = rig.world.physics.mode == Mode.SLEEP.code
    half = DEVICES // 2
    ok = bool(asleep[:half].all()) and not bool(asleep[half:].all())
    note = "" if ok else f"{int(asleep[:half].sum())} of {half} asleep behind standing fans"
    return rig.outcome("cooling_fault", "no_airflow in devices left alone; the container asleep", note)


FAULTS = (
    MeterFault.DEAD,
    MeterFault.FROZEN,
    MeterFault.REVERSED,
    MeterFault.WORD_SWAPPED,
    MeterFault.HALF,
    MeterFault.DOUBLE,
    MeterFault.PHASE_MISSING,
)
SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {
    **{f"meter_{fault.value}": partial(_faulty, fault) for fault in FAULTS},
    "phase_lost_early": phase_lost_early,
    "counter_rolls_over": counter_rolls_over,
    "meter_exchanged": meter_exchanged,
    "blackout": blackout,
    "cooling_fault": cooling_fault,
}
