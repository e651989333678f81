"""Which lever when: from what a pool should draw to pulls and restores, one at a time, each held to its promise. Pure.

Gentle levers first, one pull under way per pool; when it is verified or its time is up, what the meter shows is set
beside what was promised, and what is missing is asked of the next lever. Given back in reverse order, one at a time, and
only into room that the pool's power shows. The desk does nothing by itself: `runner.py` pulls and tells what came of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agent.ai.lever import LADDER, PoolPower, Promise, Report
from gridpivot.vocabulary import AiPriority, LeverName, LeverOutcome

DEADBAND_RATIO = 0.02  # of the pool's present power: less is noise
DELIVERED_RATIO = 0.95  # of a promise: so much on the meter, and it is kept
NOISE_RATIO = 0.005  # of the pool's power: so little missing is the meter's noise and the work's own
BEFORE_S, AFTER_S = 10.0, 4.0  # power before a pull and after it are means over so long
RETRY_S = 300.0  # a lever that brought nothing is tried again after this
COVER_RATIO = 1.2
RESTORE_AFTER_S = 60.0  # room must last before anything is given back
RESTORE_EVERY_S = 30.0  # between two restores of a pool
MARGIN_S = 10.0  # a shortfall is told at most this long after the promise's time is up


class PullState(StrEnum):
    """How far a pull is."""

    ACTING = "acting"
    KEPT = "kept"
    SHORT = "short"
    RESTORING = "restoring"


@dataclass(slots=True)
class Pull:
    """One lever that was pulled, what was promised, and what the pool's meter showed."""

    order_id: str
    lever: LeverName
    promise: Promise
    began_s: float
    power_before_w: float
    state: PullState = PullState.ACTING
    outcome: LeverOutcome = LeverOutcome.UNDER_WAY
    verified: bool = False
    delivered_w: float = 0.0
    ended_s: float | None = None
    detail: str = ""

    @property
    def due_s(self) -> float:
        """When the power should be gone."""
        return self.began_s + self.promise.seconds

    @property
    def short_w(self) -> float:
        """Promised and not seen."""
        return max(0.0, self.promise.promised_w - self.delivered_w)


@dataclass(frozen=True, slots=True)
class PoolNeed:
    """What one pool should draw at most now [W at its circuit], and what is known of it. None = no wish."""

    pool: str
    priority: AiPriority
    target_w: float | None
    power: PoolPower
    forced: bool = False  # mining cannot cover it: guaranteed work may be capped
    promises: Mapping[LeverName, Promise] = field(default_factory=dict)  # what each lever would bring for what is asked
    may_raise: bool = True  # False: nothing is given back (no durable plan, a hold by hand, a stage that only sheds)
    admits: bool | None = None  # the plan's wish for the pool's door; None = the desk decides
    cover_w: float | None = None  # room at the site and mining that could make more; None = not known here


@dataclass(frozen=True, slots=True)
class Act:
    """To be done: pull a lever, or give one back."""

    pool: str
    order_id: str
    lever: LeverName
    promise: Promise
    restore: bool = False


@dataclass(slots=True)
class PoolDesk:
    """One pool's pulls, oldest first, and what is remembered of levers that brought nothing."""

    pulls: list[Pull] = field(default_factory=list)
    useless_until_s: dict[LeverName, float] = field(default_factory=dict)
    room_since_s: float | None = None
    restored_s: float = float("-inf")
    count: int = 0
    promised_total_w: float = 0.0
    delivered_total_w: float = 0.0
    ended: list[Pull] = field(default_factory=list)  # since the last look: for events and records
    readings: deque[tuple[float, float]] = field(default_factory=deque)  # (read at, W), each once

    @property
    def open(self) -> Pull | None:
        """The pull that is under way."""
        return next((p for p in self.pulls if p.state in (PullState.ACTING, PullState.RESTORING)), None)

    def take(self, power: PoolPower) -> None:
        """Remember a reading."""
        if power.power_w is None or (self.readings and power.read_at_s <= self.readings[-1][0]):
            return
        self.readings.append((power.read_at_s, power.power_w))
        while self.readings[0][0] < power.read_at_s - BEFORE_S:
            self.readings.popleft()

    def mean_w(self, since_s: float) -> float | None:
        """Mean power of readings after a moment [W]; None without any."""
        watts = [w for at_s, w in self.readings if at_s > since_s]
        return sum(watts) / len(watts) if watts else None

    @property
    def short_w(self) -> float:
        """What levers in force promised and have not brought [W]."""
        return sum(p.short_w for p in self.pulls if p.state is PullState.SHORT)


def asked_w(need: PoolNeed) -> float:
    """What is to be given up [W]; 0 within the dead band, and where power is unknown."""
    if need.target_w is None or need.power.power_w is None:
        return 0.0
    over_w = need.power.power_w - need.target_w
    return over_w if over_w > DEADBAND_RATIO * need.power.power_w else 0.0


def decide(
    desks: dict[str, PoolDesk],
    needs: Sequence[PoolNeed],
    now_s: float,
    order_prefix: str,
    busy: Collection[str] = (),
) -> list[Act]:
    """Pulls and restores of this tick; `desks` remember. Pools that are `busy` with an act are only measured."""
    acts = []
    for need in needs:
        desk = desks.setdefault(need.pool, PoolDesk())
        desk.take(need.power)
        _measure(desk, need, now_s)
        if need.pool in busy:
            continue
        act = (
            _pull(desk, need, now_s, order_prefix)
            or _close(desk, need, now_s, order_prefix)
            or _restore(desk, need, now_s)
        )
        if act is not None:
            acts.append(act)
    return acts


def note(desk: PoolDesk, order_id: str, report: Report, now_s: float) -> None:
    """What reading back showed of a pull; a restore that is done takes the pull off the list."""
    pull = next((p for p in desk.pulls if p.order_id == order_id), None)
    if pull is None:
        return
    pull.outcome = report.outcome
    pull.detail = "; ".join(f"{s.subject}: {s.detail}" for s in report.steps if s.detail)[:200]
    if pull.state is PullState.RESTORING:
        if report.outcome in (LeverOutcome.DONE, LeverOutcome.GONE, LeverOutcome.NOT_OURS):
            desk.pulls.remove(pull)
            desk.restored_s = now_s
        return
    pull.verified = report.outcome is LeverOutcome.DONE
    if report.outcome not in (LeverOutcome.DONE, LeverOutcome.UNDER_WAY):
        # Part of it may have worked: what the meter shows counts, from the next look on.
        pull.promise = _sooner(pull.promise, now_s - pull.began_s)


def _sooner(promise: Promise, seconds: float) -> Promise:
    return Promise(
        promise.lever,
        promise.asked_w,
        promise.promised_w,
        max(0.0, min(promise.seconds, seconds)),
        promise.work_lost_gpu_h,
        promise.reserve_w,
        promise.subjects,
        promise.why_not,
    )


def _measure(desk: PoolDesk, need: PoolNeed, now_s: float) -> None:
    """Set what the meter shows beside what was promised; close the pull when it is kept or its time is up."""
    pull = desk.open
    if pull is None or pull.state is PullState.RESTORING:
        return
    after_w = desk.mean_w(max(pull.began_s, now_s - AFTER_S))
    if after_w is not None:
        pull.delivered_w = max(0.0, pull.power_before_w - after_w)
    noise_w = NOISE_RATIO * pull.power_before_w
    kept = pull.delivered_w >= DELIVERED_RATIO * pull.promise.promised_w - noise_w
    late = now_s >= pull.due_s
    if not (kept and (pull.verified or late)) and not late:
        return
    pull.state = PullState.KEPT if kept else PullState.SHORT
    pull.ended_s = now_s
    desk.promised_total_w += pull.promise.promised_w
    desk.delivered_total_w += min(pull.delivered_w, pull.promise.promised_w)
    desk.ended.append(pull)
    if not kept and pull.delivered_w < 0.2 * pull.promise.promised_w:
        desk.useless_until_s[pull.lever] = now_s + RETRY_S


def _pull(desk: PoolDesk, need: PoolNeed, now_s: float, prefix: str) -> Act | None:
    """The gentlest lever that promises something, for what is still asked."""
    wanted_w = asked_w(need)
    if desk.open is not None or wanted_w <= 0.0 or need.power.power_w is None:
        return None
    if need.priority is AiPriority.GUARANTEED and not need.forced:
        return None
    desk.room_since_s = None
    for lever in LADDER[need.priority]:
        promise = need.promises.get(lever)
        if promise is None or not promise.subjects or now_s < desk.useless_until_s.get(lever, float("-inf")):
            continue
        once = lever in (LeverName.PARK_IDLE, LeverName.ADMISSION)  # they bring no watts: holding them once is enough
        if once and any(p.lever is lever for p in desk.pulls):
            continue
        if not once and promise.promised_w < DEADBAND_RATIO * wanted_w:
            continue
        desk.count += 1
        before_w = desk.mean_w(max(now_s - BEFORE_S, _settled_s(desk)))
        pull = Pull(f"{prefix}-{desk.count}", lever, promise, now_s, before_w or need.power.power_w)
        desk.pulls.append(pull)
        return Act(need.pool, pull.order_id, lever, promise)
    return None


def _close(desk: PoolDesk, need: PoolNeed, now_s: float, prefix: str) -> Act | None:
    """Admission, because the plan wants it closed: nothing is to be given up, and guaranteed pools stay open."""
    lever = LeverName.ADMISSION
    promise = need.promises.get(lever)
    if need.admits is not False or need.priority is AiPriority.GUARANTEED or promise is None or not promise.subjects:
        return None
    if desk.open is not None or any(p.lever is lever for p in desk.pulls):
        return None
    if now_s < desk.useless_until_s.get(lever, float("-inf")) or need.power.power_w is None:
        return None
    desk.count += 1
    pull = Pull(f"{prefix}-{desk.count}", lever, promise, now_s, need.power.power_w)
    desk.pulls.append(pull)
    return Act(need.pool, pull.order_id, lever, promise)


def _settled_s(desk: PoolDesk) -> float:
    """When the last pull ended: power before that is another level's."""
    return max((p.ended_s - AFTER_S for p in desk.pulls if p.ended_s is not None), default=float("-inf"))


def _restore(desk: PoolDesk, need: PoolNeed, now_s: float) -> Act | None:
    """The newest pull goes first, once there has been room for all that it took, and the last restore has settled."""
    if desk.open is not None or not desk.pulls:
        return None
    pull = desk.pulls[-1]
    if pull.lever is LeverName.ADMISSION and need.admits is False:
        return None
    comes_back_w = max(pull.delivered_w, 0.0)
    power_w = need.power.power_w
    room = need.target_w is None or (power_w is not None and need.target_w - power_w >= comes_back_w)
    # What mining could not cover when it was taken, it has to be able to cover when it comes back.
    room = room and need.may_raise and (need.cover_w is None or need.cover_w >= COVER_RATIO * comes_back_w)
    if not room:
        desk.room_since_s = None
        return None
    if desk.room_since_s is None:
        desk.room_since_s = now_s
    if now_s - desk.room_since_s < RESTORE_AFTER_S or now_s - desk.restored_s < RESTORE_EVERY_S:
        return None
    pull.state = PullState.RESTORING
    return Act(need.pool, pull.order_id, pull.lever, pull.promise, restore=True)
