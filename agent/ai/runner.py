"""The desk's hands: looks at workload managers, pulls levers, reads back, renews, gives back; says what came of it.

The governor's tick tells what each pool should draw and what it draws (`see`) and takes the caps (`caps_w`); neither
waits. Everything slow happens in `run`, each call with a deadline, one conversation a pool at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from agent.ai.desk import Act, PoolDesk, PoolNeed, Pull, PullState, decide, note
from agent.ai.learner import Learner
from agent.ai.lever import LADDER, Lever, PoolPower, Promise, Report
from agent.ai.levers.clocks import ClockLock
from agent.ai.record import load_pulls, pulls_bytes
from agent.ai.work import PoolWork
from agent.ai.workload import Order, Step, Workload, WorkloadRefused
from agent.durable import replace_file
from gridpivot.clock import Clock
from gridpivot.vocabulary import AiPriority, EventKind, LeverName, LeverOutcome

log = structlog.get_logger("agent.ai")

BEAT_S = 1.0
LOOK_S = 10.0  # between looks at a workload manager
VERIFY_S = 3.0
CLOSE_S = 2.0
CALL_DEADLINE_S = 300.0  # a whole act: hold, checkpoint, requeue; each call inside has its own
ORDER_S = 900.0  # what is held ends by itself after this; renewed while wanted
STALE_WORK_S = 60.0  # an older look says nothing about now

Work = Coroutine[None, None, None]
Say = Callable[[EventKind, str, Mapping[str, float] | None], None]


@dataclass(slots=True)
class PoolSide:
    """One pool: its levers, its manager, what was last known of its work."""

    name: str
    priority: AiPriority
    levers: Mapping[LeverName, Lever]
    workload: Workload | None = None
    learner: Learner | None = None
    clocks: ClockLock | None = None
    defer_s: float | None = None  # so long may deferrable work wait; None = not said
    work: PoolWork | None = None
    trouble: str = ""
    looked_s: float = float("-inf")
    cap_w: float | None = None
    target_w: float | None = None
    forced: bool = False
    may_raise: bool = True
    cover_w: float | None = None
    admits: bool | None = None  # the plan's wish for the pool's door
    power: PoolPower | None = None
    renewed_s: dict[str, float] = field(default_factory=dict)
    verified_s: float = float("-inf")
    busy: asyncio.Task[None] | None = None
    apart: Callable[[], Sequence[Pull]] = tuple  # pulls that no ladder made: nodes that a person switched off


class AiDesk:
    """All pools of a site."""

    def __init__(self, sides: Sequence[PoolSide], state_dir: Path, clock: Clock, acts: bool = True) -> None:
        """`acts` False: looks and reckons, pulls nothing (observe, shadow)."""
        self.sides, self._clock, self.acts = {s.name: s for s in sides}, clock, acts
        self._path = state_dir / "ai-pulls.json"
        self.desks: dict[str, PoolDesk] = {s.name: PoolDesk() for s in sides}
        for name, pulls in load_pulls(self._path).items():
            if name in self.desks:
                self.desks[name].pulls = pulls
        self._prefix = f"ai-{int(clock.now().unix_s):x}"
        self._kept = b""
        self.outcomes: dict[tuple[str, str], int] = {}  # (lever, outcome) -> count

    # ---- the governor's side ----------------------------------------------------------------------------------------

    def caps_w(self) -> dict[str, float]:
        """Most that the governor may give a pool now [W at the wall], where a lever asks for that."""
        return {name: side.cap_w for name, side in self.sides.items() if side.cap_w is not None}

    def see(
        self,
        pool: str,
        power: PoolPower,
        target_w: float | None,
        forced: bool,
        may_raise: bool = True,
        cover_w: float | None = None,
        admits: bool | None = None,
    ) -> None:
        """What a pool draws and should draw at most, whether anything may be given back, and what could cover it [W]."""
        side = self.sides.get(pool)
        if side is not None:
            side.power, side.target_w, side.forced = power, target_w, forced
            side.may_raise, side.cover_w, side.admits = may_raise, cover_w, admits
            if side.learner is not None:
                locked = side.clocks is not None and side.clocks.locked
                side.learner.see(power, power.held, side.work, locked)

    # ---- the slow side ----------------------------------------------------------------------------------------------

    async def run(self, say: Say) -> None:
        """Until cancelled. What is held when we end stays held until its time runs out."""
        learners = [side.learner for side in self.sides.values() if side.learner is not None]
        tasks: set[asyncio.Task[None]] = {asyncio.create_task(learner.run()) for learner in learners}
        try:
            while True:
                begun = [(side, work) for side in self.sides.values() if (work := self._next(side, say)) is not None]
                await self._keep()  # before anything is asked of anybody: who comes after us has to know
                for side, work in begun:
                    side.busy = asyncio.create_task(work)
                    tasks.add(side.busy)
                    side.busy.add_done_callback(tasks.discard)
                    side.busy.add_done_callback(partial(_say_defect, side.name))
                self._tell(say)
                await asyncio.sleep(BEAT_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for workload in (side.workload for side in self.sides.values() if side.workload is not None):
                with contextlib.suppress(WorkloadRefused, TimeoutError, OSError):
                    async with asyncio.timeout(CLOSE_S):
                        await workload.close()

    def _next(self, side: PoolSide, say: Say) -> Work | None:
        """What there is to do at a pool now, as one conversation; a pool that is busy is measured all the same."""
        desk, now_s = self.desks[side.name], self._clock.now().monotonic_s
        busy = side.busy is not None and not side.busy.done()
        acts = self._decide(side, now_s, busy) if self.acts and side.power is not None else []
        if busy:
            return None
        if acts:
            return self._do(side, acts[0], say)
        pull = desk.open if self.acts else None
        if pull is not None and now_s - side.verified_s >= VERIFY_S:
            side.verified_s = now_s
            return self._verify(side, pull)
        for pull in desk.pulls if self.acts else ():
            if now_s - side.renewed_s.get(pull.order_id, pull.began_s) >= ORDER_S / 2:
                side.renewed_s[pull.order_id] = now_s
                again = Act(side.name, pull.order_id, pull.lever, pull.promise)
                return self._do(side, again, say)
        if side.workload is not None and now_s - side.looked_s >= LOOK_S:
            side.looked_s = now_s
            return self._look(side)
        return None

    def _decide(self, side: PoolSide, now_s: float, busy: bool) -> list[Act]:
        assert side.power is not None
        need = PoolNeed(
            side.name,
            side.priority,
            side.target_w,
            side.power,
            side.forced,
            {} if busy else self.promises(side, now_s),
            side.may_raise,
            side.admits,
            side.cover_w,
        )
        return decide(self.desks, [need], now_s, self._prefix, (side.name,) if busy else ())

    def promises(self, side: PoolSide, now_s: float) -> dict[LeverName, Promise]:
        """What each lever would bring now, for what is asked."""
        if side.power is None or side.power.power_w is None or side.target_w is None:
            return {}
        asked_w = max(0.0, side.power.power_w - side.target_w)
        work = side.work if side.work is not None and now_s - side.work.read_at_s < STALE_WORK_S else None
        for lever in side.levers.values():
            lever.observe(work, side.power)
        named = (lever for lever in LADDER[side.priority] if lever in side.levers)
        return {lever: side.levers[lever].promise(work, side.power, asked_w) for lever in named}

    async def _look(self, side: PoolSide) -> None:
        assert side.workload is not None
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                side.work = await side.workload.observe(self._clock.now().monotonic_s)
            if side.trouble:
                log.info("workload manager answers again", pool=side.name)
            side.trouble = ""
            await self._give_back_orphans(side, side.work)
        except (WorkloadRefused, TimeoutError) as error:
            said = str(error) or "no answer"
            if said != side.trouble:
                log.warning("workload manager", pool=side.name, why=said)
            side.trouble = said

    async def _give_back_orphans(self, side: PoolSide, work: PoolWork) -> None:
        """What carries our mark and no pull knows of, such as after a crash on a full disk: nothing would give it back."""
        ours = any(node.ours for node in work.nodes) or work.admission_ours or bool(work.suspended)
        known = [*self.desks[side.name].pulls, *side.apart()]
        if not ours or known or not self.acts or side.power is None or not side.may_raise or side.workload is None:
            return
        async with asyncio.timeout(CALL_DEADLINE_S):
            steps = await side.workload.release(None)
        log.warning("held by nobody, given back", pool=side.name, subjects=[step.subject for step in steps][:20])

    async def _do(self, side: PoolSide, act: Act, say: Say) -> None:
        lever, desk = side.levers.get(act.lever), self.desks[side.name]
        if lever is None:  # the settings no longer name it: what it held ends by itself
            desk.pulls = [p for p in desk.pulls if p.order_id != act.order_id]
            return
        order = Order(act.order_id, f"gridpivot sheds {act.pool}", self._clock.now().unix_s + ORDER_S)
        if not act.restore and act.order_id not in side.renewed_s:
            side.renewed_s[act.order_id] = self._clock.now().monotonic_s
            promised = f"{act.promise.promised_w / 1e3:.1f} kW in {act.promise.seconds:.0f} s"
            say(EventKind.AI_LEVER, f"{act.pool}: {act.lever} promises {promised}", figures_of(act.promise))
        report = await self._ask(lever.restore(order) if act.restore else lever.act(order, act.promise), act.lever, act)
        outcome = report.outcome
        self.outcomes[(act.lever, outcome)] = self.outcomes.get((act.lever, outcome), 0) + 1
        note(desk, act.order_id, report, self._clock.now().monotonic_s)
        side.looked_s = float("-inf")

    async def _ask(
        self, asking: Coroutine[None, None, Report], lever: LeverName, act: Act, looking: bool = False
    ) -> Report:
        """One conversation with a lever; what it refuses is an outcome. A look that finds nothing bad is not worth a line."""
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                report = await asking
        except WorkloadRefused as error:
            report = Report(lever, (Step(act.pool, error.outcome, str(error)),))
        except TimeoutError:
            report = Report(lever, (Step(act.pool, LeverOutcome.SLOW, f"no answer in {CALL_DEADLINE_S:.0f} s"),))
        bad = [f"{s.subject} {s.outcome} {s.detail}".strip() for s in report.steps if s.outcome not in _FINE]
        if looking and not bad:
            return report
        (log.warning if bad else log.info)(
            "lever",
            pool=act.pool,
            lever=lever.value,
            order=act.order_id,
            restore=act.restore,
            outcome=report.outcome.value,
            bad=bad[:10],
        )
        return report

    async def _verify(self, side: PoolSide, pull: Pull) -> None:
        lever, desk = side.levers.get(pull.lever), self.desks[side.name]
        if lever is None:
            return
        order = Order(pull.order_id, "", self._clock.now().unix_s + ORDER_S)
        act = Act(side.name, pull.order_id, pull.lever, pull.promise, pull.state is PullState.RESTORING)
        asking = lever.restore(order) if act.restore else lever.verify(order, pull.promise)
        note(desk, pull.order_id, await self._ask(asking, pull.lever, act, looking=True), self._clock.now().monotonic_s)

    # ---- telling and keeping ----------------------------------------------------------------------------------------

    def _tell(self, say: Say) -> None:
        for name, desk in self.desks.items():
            ended, desk.ended = desk.ended, []
            for pull in ended:
                figures = figures_of(pull.promise) | {"delivered_w": pull.delivered_w, "short_w": pull.short_w}
                delivered = f"{pull.delivered_w / 1e3:.1f} of {pull.promise.promised_w / 1e3:.1f} kW"
                if pull.state is PullState.SHORT:
                    why = f" ({pull.detail})" if pull.detail else ""
                    say(EventKind.AI_SHORT, f"{name}: {pull.lever} brought {delivered}{why}", figures)
                else:
                    say(EventKind.AI_LEVER, f"{name}: {pull.lever} brought {delivered}", figures)

    async def _keep(self) -> None:
        """What is held, on disk: an agent that comes back gives back what it took, and nothing else."""
        content = pulls_bytes({name: desk.pulls for name, desk in self.desks.items()})
        if content != self._kept:
            self._kept = content
            with contextlib.suppress(OSError):  # a full disk is said elsewhere; holds end by themselves
                await asyncio.to_thread(replace_file, self._path, content)


def _say_defect(pool: str, task: asyncio.Task[None]) -> None:
    """A defect in one conversation ends neither the desk nor the site's agent; it is said, and the lever counts as short."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("ai desk", pool=pool, defect=repr(error))


_FINE = (LeverOutcome.DONE, LeverOutcome.UNDER_WAY, LeverOutcome.GONE)


def figures_of(promise: Promise) -> dict[str, float]:
    """A promise's figures for an event."""
    return {
        "asked_w": promise.asked_w,
        "promised_w": promise.promised_w,
        "promised_s": promise.seconds,
        "work_lost_gpu_h": promise.work_lost_gpu_h,
    }
