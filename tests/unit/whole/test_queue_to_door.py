"""From a workload manager's queue to a closed door: roll-up, backlog, program, signed plan, book, desk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.ai.desk import PoolNeed, decide
from agent.ai.lever import PoolPower
from agent.ai.levers.hold import Admission
from agent.ai.reports import add_levers
from agent.ai.runner import AiDesk, PoolSide
from agent.ai.work import PoolWork, Waiting, WorkNode
from agent.backends import PoolReading, SiteInventory
from agent.governor.journal import PlanJournal
from agent.governor.lease import PlanBook, SitePolicy
from agent.uplink.reports import inventory_message, pool_rollups
from controller.dispatch.inputs import PriceStep
from controller.dispatch.plan import Terms, build_plan
from controller.dispatch.solve import Planner
from controller.events.windows import Orders
from controller.fleet.state import SiteTerms, fleet_state
from controller.fleet.tables import SiteLive
from controller.markets.book import MarketBook
from controller.markets.settings import MarketSettings
from gridpivot.clock import Instant, SystemClock
from gridpivot.curves import PoolNode, gpu_pool
from gridpivot.plan import sign
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority, LeverName, PlanState, Posture
from sim.ai_cluster import SimCluster

pytestmark = pytest.mark.unit

NOW = Instant(1_000.0, 1_760_000_000.0)
POOL = replace(gpu_pool("training", AiPriority.STANDARD, 8), nodes=(PoolNode("gpu-1", 8, 4.8e3, 8.8e3),))
INVENTORY = SiteInventory((), np.zeros(0, np.uint8), (), np.zeros(0, np.uint16), b"", (POOL,))
DRAWN_W = 6.6e3
KEY = Ed25519PrivateKey.generate()
DEAR, CHEAP = 900.0, 20.0


@pytest.fixture
def desk(tmp_path: Path) -> AiDesk:
    """Six of eight GPUs at work, and 400 GPU-hours that need not run today."""
    clock = SystemClock()
    levers = {LeverName.ADMISSION: Admission(SimCluster(AiPriority.STANDARD, [], []), clock)}
    side = PoolSide("training", AiPriority.STANDARD, levers, defer_s=86_400.0)
    nodes = (WorkNode("gpu-1", 8, 6),)
    side.work = PoolWork(NOW.monotonic_s, nodes, (), (Waiting(AiPriority.STANDARD, 60.0, 40.0, 40.0),))
    return AiDesk([side], tmp_path, clock)


def told(desk: AiDesk) -> SiteLive:
    (rollup,) = pool_rollups([POOL], [PoolReading(DRAWN_W, POOL.max_w, DRAWN_W, 8, NOW.monotonic_s)])
    add_levers(rollup, desk)
    live = SiteLive("falcon-1", "ercot")
    live.take_inventory(pb.Inventory.FromString(inventory_message(INVENTORY).SerializeToString()))
    live.take_rollup(pb.SiteRollup(observed_at_unix_ms=NOW.unix_ms, assumed_power_w=9e3, pools=[rollup]), NOW)
    return live


def wish(live: SiteLive, now_usd: float, tmp_path: Path) -> tuple[bool | None, dict[str, dict[str, float]]]:
    """What the site's book makes of the plan at a price that is low in six hours."""
    book = MarketBook(MarketSettings(), {"ercot"}, NOW)
    fleet = fleet_state([(SiteTerms("falcon-1", 40e3), live)], book, Orders(), NOW)
    prices = (PriceStep(0.0, now_usd), PriceStep(6 * 3600.0, CHEAP))
    fleet = replace(fleet, sites=(replace(fleet.sites[0], prices=prices),))
    (decision,) = Planner().solve(fleet).sites
    plan = build_plan(decision, fleet.sites[0], Terms(1, 1, 20_000, Posture.HOLD), NOW, "test")
    plans = PlanBook(
        SitePolicy("falcon-1", 40e3, Posture.HOLD, 0.0),
        INVENTORY,
        {"k": KEY.public_key()},
        PlanJournal(tmp_path / "p.pb"),
    )
    assert plans.offer(sign(plan, KEY, "k"), NOW).status == PlanState.ACCEPTED
    return plans.orders(NOW).pool_admits[0], plans.node_fallbacks_w()


def test_deferrable_work_at_a_dear_hour_closes_the_door_of_the_pool(desk: AiDesk, tmp_path: Path) -> None:
    admits, nodes_w = wish(told(desk), DEAR, tmp_path)
    assert admits is False
    assert nodes_w["training"]["gpu-1"] == pytest.approx(8.8e3)  # alone under its ceiling, it falls back to its most
    side = desk.sides["training"]
    side.target_w = POOL.max_w
    side.power = power = PoolPower(NOW.monotonic_s, DRAWN_W, POOL.max_w, POOL.min_w, POOL.baseline_w, 8)
    promises = desk.promises(side, NOW.monotonic_s)
    need = PoolNeed("training", AiPriority.STANDARD, side.target_w, power, promises=promises, admits=admits)
    assert [act.lever for act in decide(desk.desks, [need], NOW.monotonic_s, "x")] == [LeverName.ADMISSION]


def test_at_a_cheap_hour_it_is_let_in(desk: AiDesk, tmp_path: Path) -> None:
    assert wish(told(desk), CHEAP - 10.0, tmp_path)[0] is True


def test_a_manager_that_does_not_answer_leaves_the_door_to_the_site(desk: AiDesk, tmp_path: Path) -> None:
    desk.sides["training"].trouble = "slurmctld hangs"
    assert wish(told(desk), DEAR, tmp_path)[0] is None
