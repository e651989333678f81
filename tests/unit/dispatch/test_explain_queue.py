"""A person is told what queues have to do with a plan: what runs and waits, what is expected, who is let in; on the wire too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from controller.api.telling import explained
from controller.dispatch.explain import explain
from controller.dispatch.solve import Planner
from controller.dispatch.terms import Backlog, Queue, WattStep, WorkDue
from ctl.shaping import explain_shape, plan_shape
from ctl.tables import explain_table, plan_table
from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import plan_pb2 as pb

pytestmark = pytest.mark.unit

HOUR_S = 3600.0


@pytest.fixture
def told(make):
    """A pool with 3,000 deferrable GPU-hours at a dear hour, beside one whose queue nobody reads."""
    steps = (WattStep(0.0, 600e3), WattStep(HOUR_S, 550e3), WattStep(4 * HOUR_S, 500e3))
    pool = replace(
        make.pool("batch", demand_w=600e3),
        demand=steps,
        queue=Queue(800.0, 3_000.0, 3_000.0, 512.0),
        backlog="alpha/batch",
    )
    due = (WorkDue(12 * HOUR_S, 3_000.0),)
    backlog = Backlog("alpha/batch", "alpha", 3_000.0, (), 24 * HOUR_S, 12 * HOUR_S, 2.0, 24.0, due, True)
    prices = [replace(make.site().prices[0], usd_per_mwh=900.0), replace(make.site().prices[0], starts_in_s=7_200.0)]
    fleet = make.fleet(make.site(pools=[pool, make.pool("other")], prices=prices), backlogs=(backlog,))
    return explain(Planner().solve(fleet), fleet, "alpha", "interval")


def rendered(table: object) -> str:
    console = Console(width=400)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_queue_has_its_sentence(told):
    assert (
        "batch: 800 GPU-h run and 3,000 wait, 3,000 of them deferrable, the oldest of them due in 12.0 h; "
        "it is expected to want 0.55 MW in an hour and 0.50 MW in four. The plan lets no new work in."
    ) in told.sentences
    assert not any("other: " in s and "GPU-h" in s for s in told.sentences)


def test_a_pool_whose_own_backlog_waits_is_not_said_to_lack_what_it_asks_for(told):
    why = next(m.why for m in told.merit if m.name == "batch")
    assert "gets all it asks for" in why


def test_the_queue_travels_and_is_shown(told):
    wire = op.ExplainResponse.FromString(explained(told, 0).SerializeToString())
    shape = explain_shape(wire)
    (queue,) = shape.queues
    assert (queue.running_gpu_h, queue.busy_gpus, queue.backlog, queue.admits) == (800.0, 512.0, "alpha/batch", False)
    assert (queue.demand_in_1_h_w, queue.demand_in_4_h_w, queue.due_in_s) == (550e3, 500e3, 12 * HOUR_S)
    text = rendered(explain_table(shape))
    assert "queue, GPU-h" in text and "alpha/batch" in text


def test_what_is_not_known_of_a_queue_is_null_and_a_dash():
    shape = explain_shape(op.ExplainResponse(queues=[op.QueueEntry(pool="batch", admitting=True)]))
    (queue,) = shape.queues
    assert (queue.busy_gpus, queue.due_in_s, queue.demand_w, queue.admits) == (None, None, None, None)


def test_the_plan_shows_doors_and_nodes():
    plan = pb.Plan(site="alpha", epoch=1, version=1)
    shut = plan.pools.add(name="batch", max_w=6e5, fallback_w=5e5, admits=False)
    shut.nodes.add(name="gpu-001", fallback_w=5e5)
    plan.pools.add(name="older", max_w=6e5)
    shape = plan_shape("alpha", op.GetPlanResponse(plan=plan))
    assert [p.admits for p in shape.pools] == [False, None]
    assert [(n.name, n.fallback_w) for n in shape.pools[0].nodes] == [("gpu-001", 5e5)]
    batch, older = (line for line in rendered(plan_table(shape)).splitlines() if "batch" in line or "older" in line)
    assert " no " in batch and " - " in older
