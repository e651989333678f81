"""The loop that plans: look at the fleet, ask the trigger, solve in its own thread, sign, store, publish.

A plan leaves only after it and the decision it came from are durable. Where nothing can be solved the ladder gives
each site the best plan there is, so that a lowered ceiling always goes out. Leases are not renewed here: heartbeats
do that.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.board import PlanBoard
from controller.dispatch.explain import Explanation, explain
from controller.dispatch.inputs import Decision, FleetState
from controller.dispatch.ladder import complete, split
from controller.dispatch.lowering import lowered
from controller.dispatch.parameters import Parameters
from controller.dispatch.plan import Terms, build_plan, materially_different
from controller.dispatch.solve import Planner
from controller.dispatch.trigger import Planned, Thresholds, Trigger, due
from controller.replay import record_of
from controller.store.ledger import Ledger, new_id
from controller.store.pending import PendingRecords
from gridpivot.clock import Clock, Instant
from gridpivot.errors import GridpivotError, Infeasible
from gridpivot.observability import get_logger
from gridpivot.plan import sign
from gridpivot.v1 import plan_pb2
from gridpivot.vocabulary import Posture, Rung

SOLVE_DEADLINE_S = 30.0
RECORD_DEADLINE_S = 3.0  # a store that takes longer refuses: a lowered ceiling must not wait for a locked database
# Over half a year the merit order lost 0.16 % to foresight, plans that stood for six hours 1.14 % (docs/backtest.md).
CLIPPED_FOR_S = 900.0
MOST_EPOCHS_AHEAD = 1_000_000  # restarts of a controller between a backup and its restoration
MOST_ABANDONED = 2  # solvers that hang at once: each is a thread and a model that nobody can end
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
    late: int = 0  # decisions that came after their deadline, and were not published
    abandoned: int = 0  # solvers that never came back
    plans: int = 0
    reallocations: int = 0  # dispatches that changed at least one site's plan
    solve_s_total: float = 0.0
    solve_s_last: float = 0.0


class PlanLoop:
    """Plans until cancelled. `see(now)` gives the fleet's state; `reasons()` why each event stands, by event id.

    `deadline_s` is the longest that anything waits for the solver; `spare` makes a new one in the place of a planner
    that hangs.
    """

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
        deadline_s: float = SOLVE_DEADLINE_S,
        spare: Callable[[], Planner] | None = None,
        postures: Callable[[str], Posture] = lambda _site: Posture.HOLD,
        reasons: Callable[[], dict[str, str]] = dict,
        pending: PendingRecords | None = None,
    ) -> None:
        self._planner, self._board, self._ledger = planner, board, ledger
        self._signer, self._clock, self._see = signer, clock, see
        self._epoch, self._lease_s, self._thresholds, self._look_s = epoch, lease_s, thresholds, look_s
        self._postures, self._reasons = postures, reasons
        self._deadline_s = deadline_s
        self._pending = pending if pending is not None else PendingRecords()
        self._spare = (
            spare if spare is not None else lambda: Planner(planner.parameters, planner.period_s, planner.time_limit_s)
        )
        self._solved_at_s = -math.inf
        self._abandoned: list[asyncio.Future[Decision]] = []
        self._versions: dict[str, int] = {}
        self._planned: Planned | None = None
        self._retry_at_s: float | None = None
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dispatch")
        self.counts = PlannerCounts()
        self.last: LastDispatch | None = None
        self.last_change: tuple[Instant, str] | None = None

    @property
    def parameters(self) -> Parameters:
        """What dispatch weighs."""
        return self._planner.parameters

    async def outgrow(self, site: str, epoch: int, version: int) -> None:
        """A site has seen a plan above all of ours (our database is an older copy): go above it, or it would never follow
        us again. A figure out of all proportion is left alone; it is the site that is wrong then."""
        if (epoch, version) <= (self._epoch, self._versions.get(site, 0)):
            return
        if epoch - self._epoch > MOST_EPOCHS_AHEAD:
            log.error(
                "a site names an absurd epoch; it will refuse our plans", site=site, epoch=epoch, ours=self._epoch
            )
            return
        ours = await self._ledger.next_epoch(above=epoch)
        log.warning("epoch raised above what a site has seen; is the database an older copy?", site=site, epoch=ours)
        self._epoch = max(self._epoch, ours)
        self._planned = None
        self.wake()

    def wake(self) -> None:
        """Look at once: an order was given."""
        self._wake.set()

    async def run(self) -> None:
        """Look, plan, wait; for ever."""
        try:
            while True:
                try:
                    await self.turn()
                except Exception:  # planning must go on: sites fall back to their leases if it does not
                    self.counts.failed += 1
                    log.exception("dispatch failed; the last good plans stay")
                await self._rest()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def turn(self) -> Trigger | None:
        """One look at the fleet, and a dispatch if there is a reason; the reason."""
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
        solvable, _ = split(fleet)
        solved, why = await self._solve(solvable) if solvable.sites else (None, "no site's state can be planned on")
        if solved is not None:
            self._solved_at_s = now.monotonic_s
        recent = now.monotonic_s - self._solved_at_s <= CLIPPED_FOR_S
        last = self.last.decision if self.last is not None else None
        decision = complete(solved, why, last, fleet, self._planner.parameters, recent)
        if decision.rung is not Rung.PLAN:
            log.warning("nothing was solved", rung=decision.rung.value, why=why)
        self.counts.dispatches += 1
        await self._publish(decision, fleet, now, trigger.sentence)
        if solved is not None:
            self.counts.solve_s_total += solved.solve_s
            self.counts.solve_s_last = solved.solve_s
            self._retry_at_s = None
        return trigger

    async def _solve(self, fleet: FleetState) -> tuple[Decision | None, str]:
        """The optimum, or None and why there is none. A solver that hangs is left behind."""
        if all(not site.prices for site in fleet.sites):
            return None, "no power price is known anywhere"
        self._abandoned = [work for work in self._abandoned if not work.done()]
        if len(self._abandoned) >= MOST_ABANDONED:
            return None, f"{len(self._abandoned)} solvers have been silent for over {self._deadline_s:g} s"
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._planner.solve, fleet)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.shield(work), ""
        except TimeoutError:
            self.counts.late += 1
            await self._leave_behind(work)
            return None, f"the solver gave no answer in {self._deadline_s:g} s"
        except Infeasible as error:
            self.counts.infeasible += 1
            return None, str(error)
        except Exception as error:  # a defect of the solver must not keep a lowered ceiling from its site
            self.counts.failed += 1
            log.exception("the solver broke")
            return None, f"the solver broke: {type(error).__name__}"

    async def _leave_behind(self, work: asyncio.Future[Decision]) -> None:
        """Go on with a new planner in a new thread; what the old one says some day is not published."""
        self.counts.abandoned += 1
        work.add_done_callback(lambda late: late.cancelled() or late.exception())  # fetched, so that nothing warns
        self._abandoned.append(work)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dispatch")
        self._planner = self._spare()

    def explanation(self, site: str) -> tuple[Explanation, LastDispatch] | None:
        """Why a site's plan is what it is, and the decision that made it so; None before the first one on it."""
        last = self.last
        if last is None or all(state.name != site for state in last.fleet.sites):
            return None
        return explain(last.decision, last.fleet, site, last.trigger), last

    async def _publish(self, decision: Decision, fleet: FleetState, now: Instant, trigger: str) -> None:
        states = {state.name: state for state in fleet.sites}
        reasons = self._reasons()
        plans: list[plan_pb2.Plan] = []
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
                plans.append(plan)
        signed = self._signed(plans)
        if signed or decision.start is not None:
            # A rung that repeats what stands is not recorded: without a solver it would be every few seconds.
            signed = await self._record(decision, fleet, now, trigger, signed)
        for plan in plans:  # also those held back: their record may come later
            self._versions[plan.site] = max(self._versions.get(plan.site, 0), plan.version)
        for one in signed:
            self._board.publish(one, now)
        self.last = LastDispatch(decision, fleet, now, trigger)
        self.counts.plans += len(signed)
        if signed:
            self.counts.reallocations += 1
            self.last_change = (now, trigger)
            log.info("plans published", plans=len(signed), trigger=trigger, solve_s=round(decision.solve_s, 3))

    def _signed(self, plans: list[plan_pb2.Plan]) -> list[plan_pb2.SignedPlan]:
        return [sign(plan, self._signer.key, self._signer.key_id) for plan in plans]

    async def _record(
        self, decision: Decision, fleet: FleetState, now: Instant, trigger: str, signed: list[plan_pb2.SignedPlan]
    ) -> list[plan_pb2.SignedPlan]:
        """Make decision and plans durable; returns the plans that may go out. With a store that refuses or does not
        answer in time only what lowers goes out, and its record waits in memory."""
        # Turning forty sites into JSON takes milliseconds that the event loop does not have.
        decision_id, parameters = new_id("decision", now), self.parameters
        record = await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: record_of(decision_id, decision, fleet, now, trigger, parameters)
        )
        if self._pending.degraded is None:
            try:
                async with asyncio.timeout(RECORD_DEADLINE_S):
                    await self._ledger.record_decision(record, signed)
                return signed
            except (GridpivotError, TimeoutError) as error:
                why = str(error) or f"the store gave no answer in {RECORD_DEADLINE_S:g} s"
        else:
            why = self._pending.degraded
        out = self._signed([plan for one in signed if (plan := self._cut(one)) is not None])
        again = replace(record, decision_id=new_id("decision", now))  # the first try may yet be written
        told = ", ".join(plan_pb2.Plan.FromString(one.plan).site for one in out) or "no plan"
        if out:
            self._pending.keep(
                f"decision {again.decision_id}: {trigger} ({told})",
                why,
                lambda: self._ledger.record_decision(again, out),
            )
        log.warning("store refuses; plans that raise are held back", why=why, lowered=told)
        return out

    def _cut(self, signed: plan_pb2.SignedPlan) -> plan_pb2.Plan | None:
        """What of a plan may go out unrecorded; its number is the next one, since the first try may yet be written."""
        new = plan_pb2.Plan.FromString(signed.plan)
        posted = self._board.posted(new.site)
        plan = lowered(posted.plan, new) if posted is not None else None
        if plan is None:
            return None
        plan.version = self._versions[new.site] = max(self._versions.get(new.site, 0), new.version) + 1
        return plan

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
