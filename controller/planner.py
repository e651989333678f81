"""The loop that plans: look at the fleet, ask the trigger, solve in its own thread, sign, store, publish.

A plan leaves only after it and the decision it came from are durable. An infeasible or unpublishable answer leaves
every last good plan in force. Leases are not renewed here: heartbeats do that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.board import PlanBoard
from controller.dispatch.explain import Explanation, explain
from controller.dispatch.inputs import Decision, FleetState
from controller.dispatch.plan import Terms, build_plan, materially_different
from controller.dispatch.solve import Planner
from controller.dispatch.trigger import Planned, Thresholds, Trigger, due
from controller.store.ledger import DecisionRecord, Ledger, new_id, pack
from gridpivot.clock import Clock, Instant
from gridpivot.errors import Infeasible
from gridpivot.observability import get_logger
from gridpivot.plan import sign
from gridpivot.v1 import plan_pb2
from gridpivot.vocabulary import Posture

SOLVE_DEADLINE_S = 60.0
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Signer:
    """The planner's key and its name."""

    key: Ed25519PrivateKey
    key_id: str


@dataclass(frozen=True, slots=True)
class LastDispatch:
    """The newest decision: what it was taken on, what it said, why it ran."""

    decision: Decision
    fleet: FleetState
    at: Instant
    trigger: str


@dataclass(slots=True)
class PlannerCounts:
    """Counters for metrics."""

    dispatches: int = 0
    infeasible: int = 0
    failed: int = 0
    plans: int = 0
    reallocations: int = 0  # dispatches that changed at least one site's plan
    solve_s_total: float = 0.0
    solve_s_last: float = 0.0


def stored_outcome(decision: Decision) -> Decision:
    """What is kept of a decision: replaying it brings back the rest, which is large."""
    return replace(decision, start=None, sites=tuple(replace(s, outlook=()) for s in decision.sites))


class PlanLoop:
    """Plans until cancelled. `see(now)` gives the fleet's state; `reasons()` why each event stands, by event id."""

    def __init__(
        self,
        planner: Planner,
        board: PlanBoard,
        ledger: Ledger,
        signer: Signer,
        clock: Clock,
        see: Callable[[Instant], FleetState],
        *,
        epoch: int,
        lease_s: float,
        thresholds: Thresholds,
        look_s: float = 1.0,
        postures: Callable[[str], Posture] = lambda _site: Posture.HOLD,
        reasons: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self._planner, self._board, self._ledger = planner, board, ledger
        self._signer, self._clock, self._see = signer, clock, see
        self._epoch, self._lease_s, self._thresholds, self._look_s = epoch, lease_s, thresholds, look_s
        self._postures, self._reasons = postures, reasons
        self._versions: dict[str, int] = {}
        self._planned: Planned | None = None
        self._retry_at_s: float | None = None
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dispatch")
        self.counts = PlannerCounts()
        self.last: LastDispatch | None = None
        self.last_change: tuple[Instant, str] | None = None

    def wake(self) -> None:
        """Look at once: an order was given."""
        self._wake.set()

    async def run(self) -> None:
        """Look, plan, wait; for ever."""
        try:
            while True:
                try:
                    await self.turn()
                except Infeasible as error:
                    self.counts.infeasible += 1
                    log.warning("no publishable plan; the last good ones stay", why=str(error))
                except Exception:  # planning must go on: sites fall back to their leases if it does not
                    self.counts.failed += 1
                    log.exception("dispatch failed; the last good plans stay")
                await self._rest()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def turn(self) -> Trigger | None:
        """One look at the fleet, and a dispatch if there is a reason; the reason. Raises Infeasible."""
        now = self._clock.now()
        fleet = self._see(now)
        if not fleet.sites:
            return None
        trigger = due(self._planned, fleet, now.monotonic_s, self._thresholds)
        if trigger is None and (new := self._newcomers(fleet)):
            trigger = Trigger(f"{new} reported for the first time.", urgent=True)
        if trigger is None and self._retry_at_s is not None and now.monotonic_s >= self._retry_at_s:
            trigger = Trigger("The last dispatch gave no publishable answer.", material=False)
        if trigger is None:
            return None
        before = self._planned if self._planned is not None else Planned(fleet, now.monotonic_s)
        # Before solving: a state that fails would fail again at once; it is tried again after the hold-off.
        self._planned = before.after(trigger, fleet, now.monotonic_s)
        self._retry_at_s = now.monotonic_s + max(self._thresholds.hold_off_s, self._look_s)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SOLVE_DEADLINE_S):
            decision = await loop.run_in_executor(self._thread, self._planner.solve, fleet)
        self.counts.dispatches += 1
        self.counts.solve_s_total += decision.solve_s
        self.counts.solve_s_last = decision.solve_s
        await self._publish(decision, fleet, now, trigger.sentence)
        self._retry_at_s = None
        return trigger

    def explanation(self, site: str) -> tuple[Explanation, Instant] | None:
        """Why a site's plan is what it is, and when that was decided; None before the first decision on it."""
        last = self.last
        if last is None or all(state.name != site for state in last.fleet.sites):
            return None
        return explain(last.decision, last.fleet, site, last.trigger), last.at

    async def _publish(self, decision: Decision, fleet: FleetState, now: Instant, trigger: str) -> None:
        states = {state.name: state for state in fleet.sites}
        reasons = self._reasons()
        signed: list[plan_pb2.SignedPlan] = []
        why: list[str] = []
        for chosen in decision.sites:
            posted = self._board.posted(chosen.site)
            terms = Terms(
                epoch=self._epoch,
                version=self._versions.get(chosen.site, 0) + 1,
                valid_for_ms=round(self._lease_s * 1000),
                posture=self._postures(chosen.site),
                event_reasons=reasons,
            )
            plan = build_plan(chosen, states[chosen.site], terms, now, trigger)
            different = materially_different(posted.plan if posted is not None else None, plan)
            if different is not None:
                signed.append(sign(plan, self._signer.key, self._signer.key_id))
                why.append(f"{chosen.site}: {different}")
        # Turning forty sites into JSON takes milliseconds that the event loop does not have.
        inputs, outcome = await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: (pack(asdict(fleet)), pack(asdict(stored_outcome(decision))))
        )
        record = DecisionRecord(new_id("decision", now), now, trigger, decision.objective_usd, inputs, outcome)
        await self._ledger.record_decision(record, signed)
        for one in signed:
            plan = plan_pb2.Plan.FromString(one.plan)
            self._versions[plan.site] = plan.version
            self._board.publish(one, now)
        self.last = LastDispatch(decision, fleet, now, trigger)
        self.counts.plans += len(signed)
        if signed:
            self.counts.reallocations += 1
            self.last_change = (now, trigger)
            log.info("plans published", plans=len(signed), trigger=trigger, solve_s=round(decision.solve_s, 3))

    def _newcomers(self, fleet: FleetState) -> str:
        known = {s.name for s in self._planned.fleet.sites} if self._planned is not None else set()
        return ", ".join(s.name for s in fleet.sites if s.name not in known)

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._look_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
