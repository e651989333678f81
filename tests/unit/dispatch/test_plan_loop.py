"""The planning loop when the solver or the telemetry fails it: a plan goes out, and the solver's hang is bounded.

The loop, its store and its board are the real ones; a planner is replaced only where it must hang.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.board import PlanBoard
from controller.dispatch.inputs import FleetState, Window
from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner
from controller.dispatch.trigger import Thresholds
from controller.planner import MOST_ABANDONED, PlanLoop, Signer
from controller.replay import record_of, replay
from controller.store.ledger import pack, unpack
from controller.store.store import Store
from gridpivot import observability
from gridpivot.clock import Instant, SystemClock
from gridpivot.errors import Refused
from gridpivot.vocabulary import Rung

pytestmark = pytest.mark.unit

DEADLINE_S = 0.05


class Hanging(Planner):
    """A planner that answers nothing until it is let go."""

    let_go = threading.Event()

    def solve(self, fleet: FleetState):
        """Hang, then answer what nobody waits for any more."""
        assert Hanging.let_go.wait(30)
        return super().solve(fleet)


class Bench:
    """A loop over a fleet that the test changes."""

    def __init__(self, store: Store, fleet: FleetState) -> None:
        self.store, self.fleet, self.board = store, fleet, PlanBoard()

    def loop(self, planner: Planner, spare=None, deadline_s: float = 30.0) -> PlanLoop:
        return PlanLoop(
            planner,
            self.board,
            self.store.ledger,
            Signer(Ed25519PrivateKey.generate(), "test"),
            SystemClock(),
            lambda _now: self.fleet,
            epoch=1,
            lease_s=60.0,
            thresholds=Thresholds(hold_off_s=0.0),
            look_s=0.0,
            deadline_s=deadline_s,
            spare=spare,
        )

    def lower(self, ceiling_w: float) -> None:
        """Lower every site's ceiling: a reason to plan at once."""
        self.fleet = replace(self.fleet, sites=tuple(replace(s, ceiling_w=ceiling_w) for s in self.fleet.sites))


@pytest.fixture
async def bench(tmp_path: Path, make) -> AsyncIterator[Bench]:
    observability.configure("json", stream=io.StringIO())
    store = await Store.open(tmp_path / "controller.db", SystemClock(), group_s=0.0)
    yield Bench(store, make.fleet(make.site("a", price=20.0), make.site("b", price=20.0)))
    await store.close()


@pytest.fixture
def hanging() -> Iterator[type[Hanging]]:
    Hanging.let_go.clear()
    yield Hanging
    Hanging.let_go.set()


async def test_solver_that_hangs_is_left_behind_and_its_late_answer_is_never_published(
    bench: Bench, hanging: type[Hanging]
) -> None:
    loop = bench.loop(hanging(), spare=Planner, deadline_s=DEADLINE_S)
    await loop.turn()
    assert loop.last.decision.rung is Rung.MERIT_ORDER
    assert "no answer in 0.05 s" in loop.last.decision.rung_reason
    (late,) = loop._abandoned
    loop._deadline_s = 30.0
    bench.lower(1e6)
    await loop.turn()
    assert loop.last.decision.rung is Rung.PLAN
    posted = bench.board.posted("a")
    hanging.let_go.set()
    await late
    assert bench.board.posted("a") == posted
    assert (loop.counts.late, loop.counts.abandoned) == (1, 1)


async def test_no_more_solvers_are_left_behind_than_allowed_and_plans_still_go_out(
    bench: Bench, hanging: type[Hanging]
) -> None:
    before = {t.ident for t in threading.enumerate()}
    loop = bench.loop(hanging(), spare=hanging, deadline_s=DEADLINE_S)
    for turn in range(MOST_ABANDONED + 3):
        bench.lower(3e6 - turn * 4e5)
        await loop.turn()
        assert bench.board.posted("a").plan.ceiling_w == 3e6 - turn * 4e5
        assert bench.board.posted("a").plan.expected_power_w <= (3e6 - turn * 4e5) * (1 + 1e-9)
    assert loop.counts.abandoned == MOST_ABANDONED
    hung = [t for t in threading.enumerate() if t.ident not in before and t.name.startswith("dispatch")]
    assert len(hung) <= MOST_ABANDONED + 1  # and the one that packs records
    assert "solvers have been silent" in loop.last.decision.rung_reason
    abandoned = list(loop._abandoned)
    hanging.let_go.set()
    await asyncio.gather(*abandoned)
    loop._deadline_s = 30.0
    bench.lower(5e5)
    await loop.turn()
    assert loop.last.decision.rung is Rung.PLAN


async def test_without_a_price_anywhere_the_last_plan_is_clipped_and_without_one_what_stands_is_held(
    bench: Bench,
) -> None:
    priced = bench.fleet
    bench.fleet = replace(priced, sites=tuple(replace(s, prices=()) for s in priced.sites))
    loop = bench.loop(Planner())
    await loop.turn()
    assert (loop.last.decision.rung, loop.counts.failed) == (Rung.HOLD, 0)
    assert bench.board.posted("a").plan.classes[0].normal_machines == 1000.0
    bench.fleet = replace(priced, sites=tuple(replace(s, ceiling_w=2e6) for s in priced.sites))
    await loop.turn()
    assert loop.last.decision.rung is Rung.PLAN
    planned = bench.board.posted("a").plan
    bench.fleet = replace(bench.fleet, sites=tuple(replace(s, prices=(), ceiling_w=1e6) for s in priced.sites))
    await loop.turn()
    assert loop.last.decision.rung is Rung.CLIPPED_PLAN
    assert loop.last.decision.rung_reason == "no power price is known anywhere"
    cut = bench.board.posted("a").plan
    assert cut.expected_power_w <= 1e6 * (1 + 1e-9) < planned.expected_power_w


async def test_rung_that_only_repeats_what_stands_is_not_recorded_again(bench: Bench) -> None:
    bench.fleet = replace(bench.fleet, sites=tuple(replace(s, prices=()) for s in bench.fleet.sites))
    loop = bench.loop(Planner())
    for _ in range(5):
        await loop.turn()
    assert loop.counts.dispatches == 5
    assert [(line.rung, line.plans) for line in await bench.store.ledger.decision_lines(10)] == [("hold", 2)]


async def test_site_with_an_old_report_is_held_alone_and_its_events_still_lower_it(bench: Bench) -> None:
    loop = bench.loop(Planner())
    await loop.turn()
    a, b = bench.fleet.sites
    called = (Window("dr", 1e6, -1.0, 3600.0), Window("later", 5e5, 900.0, None))
    bench.fleet = replace(bench.fleet, sites=(a, replace(b, stale=True, windows=called)))
    await loop.turn()
    rungs = {d.site: d.rung for d in loop.last.decision.sites}
    assert rungs == {"a": Rung.PLAN, "b": Rung.CLIPPED_PLAN}
    assert loop.last.decision.rung is Rung.PLAN
    plan = bench.board.posted("b").plan
    assert (plan.ceiling_w, [e.event_id for e in plan.events]) == (1e6, ["dr", "later"])
    assert plan.expected_power_w <= 1e6 * (1 + 1e-9)


async def test_half_the_sites_silent_leaves_the_other_half_on_solved_plans(bench: Bench, make) -> None:
    sites = [make.site(name, price=20.0) for name in "abcd"]
    bench.fleet = make.fleet(*(replace(s, stale=s.name in "cd", connected=s.name in "ab") for s in sites))
    loop = bench.loop(Planner())
    await loop.turn()
    assert [d.rung for d in loop.last.decision.sites] == [Rung.PLAN, Rung.PLAN, Rung.HOLD, Rung.HOLD]
    assert all(bench.board.posted(name) is not None for name in "abcd")


async def test_with_every_report_too_old_each_site_still_gets_a_plan(bench: Bench) -> None:
    bench.fleet = replace(bench.fleet, sites=tuple(replace(s, stale=True) for s in bench.fleet.sites))
    loop = bench.loop(Planner())
    await loop.turn()
    assert loop.last.decision.rung is Rung.HOLD
    assert bench.board.posted("a") is not None and bench.board.posted("b") is not None


def test_record_replays_with_the_parameters_of_then(make) -> None:
    then = Parameters(wear_usd_per_wake=3.0)
    fleet = make.fleet(make.site("a", price=20.0, classes=[make.machines(asleep=1000)]))
    decision = Planner(then).solve(fleet)
    assert decision.objective_usd != Planner().solve(fleet).objective_usd
    now = Instant(0.0, 1.7e9)
    assert replay(record_of("d", decision, fleet, now, "why", then), []).same
    of_now = replay(record_of("d", decision, fleet, now, "why", Parameters()), [])
    assert any(difference.startswith("cost is") for difference in of_now.differences)


def test_record_without_parameters_is_refused(make) -> None:
    fleet = make.fleet(make.site("a"))
    record = record_of("d", Planner().solve(fleet), fleet, Instant(0.0, 1.7e9), "why", Parameters())
    start = unpack(record.start)
    del start["parameters"]
    with pytest.raises(Refused, match="not those of this version"):
        replay(replace(record, start=pack(start)), [])
