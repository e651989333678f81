"""The desk's metrics: promised beside delivered, short by itself, and nothing where nothing is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.ai.desk import Pull, PullState
from agent.ai.exporter import ai_metrics
from agent.ai.lever import Promise
from agent.ai.reports import add_levers
from agent.ai.runner import AiDesk, PoolSide
from agent.ai.work import PoolWork, Waiting, WorkNode
from gridpivot.clock import SystemClock
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority, LeverName, LeverOutcome
from sim.ai_cluster import SimCluster

pytestmark = pytest.mark.unit


@pytest.fixture
def desk(tmp_path: Path) -> AiDesk:
    """Two levers in force, one short; a manager that tells what waits and not what runs."""
    side = PoolSide("training", AiPriority.STANDARD, {}, SimCluster(AiPriority.STANDARD, [], []))
    side.work = PoolWork(0.0, (), (), (Waiting(AiPriority.STANDARD, None, 120.0, 80.0),), admitting=False)
    made = AiDesk([side], tmp_path, SystemClock())
    limit = Promise(LeverName.POWER_LIMIT, 3e4, 2e4, 8.0, subjects=("9e5",))
    requeue = Promise(LeverName.REQUEUE, 1e4, 1e4, 40.0, 3.5, subjects=("41", "42"))
    made.desks["training"].pulls = [
        Pull("a-1", LeverName.POWER_LIMIT, limit, 0.0, 1e6, PullState.KEPT, LeverOutcome.DONE, True, 2.1e4),
        Pull("a-2", LeverName.REQUEUE, requeue, 0.0, 1e6, PullState.SHORT, LeverOutcome.DONE, True, 4e3),
    ]
    made.outcomes[LeverName.REQUEUE, LeverOutcome.DONE] = 1
    return made


def samples(desk: AiDesk) -> dict[tuple[str, ...], float]:
    return {(s.name, *(s.labels[k] for k in sorted(s.labels))): s.value for f in ai_metrics(desk) for s in f.samples}


def test_promised_delivered_and_short_stand_side_by_side(desk: AiDesk) -> None:
    found = samples(desk)
    assert found["gridpivot_ai_promised_watts", "training"] == 3e4
    assert found["gridpivot_ai_delivered_watts", "training"] == 2.4e4  # more than promised is not counted
    assert found["gridpivot_ai_short_watts", "training"] == 6e3
    assert found["gridpivot_ai_lever_outcomes_total", "requeue", "done"] == 1.0


def test_unknown_work_has_no_sample(desk: AiDesk) -> None:
    found = samples(desk)
    assert found["gridpivot_ai_work_gpu_hours", "pending", "training", "standard"] == 120.0
    assert ("gridpivot_ai_work_gpu_hours", "running", "training", "standard") not in found
    desk.sides["training"].trouble = "no answer"
    silent = samples(desk)
    assert not any(name[0] == "gridpivot_ai_work_gpu_hours" for name in silent)
    assert silent["gridpivot_ai_workload_up", "training"] == 0.0


def test_roll_up_carries_levers_and_what_may_wait(desk: AiDesk) -> None:
    rollup = pb.PoolRollup(name="training")
    add_levers(rollup, desk)
    assert [(one.lever, one.state, one.subjects) for one in rollup.levers] == [
        ("power_limit", "kept", 1),
        ("requeue", "short", 2),
    ]
    assert rollup.backlog_gpu_h == 80.0 and rollup.HasField("admitting") and not rollup.admitting
    assert not rollup.work[0].HasField("running_gpu_h") and not rollup.HasField("busy_gpus")
    desk.sides["training"].trouble = "slurmctld hangs"
    silent = pb.PoolRollup(name="training")
    add_levers(silent, desk)
    assert silent.workload_trouble == "slurmctld hangs" and not silent.HasField("backlog_gpu_h")
    other = pb.PoolRollup(name="another")
    add_levers(other, desk)
    assert other == pb.PoolRollup(name="another")


def test_busy_gpus_are_told_only_while_every_node_answers(desk: AiDesk) -> None:
    nodes = (WorkNode("n1", 8, 8), WorkNode("n2", 8, 3))
    desk.sides["training"].work = PoolWork(0.0, nodes, ())
    rollup = pb.PoolRollup(name="training")
    add_levers(rollup, desk)
    assert rollup.busy_gpus == 11
    desk.sides["training"].work = PoolWork(0.0, (*nodes, WorkNode("n3", 8, 0, answers=False)), ())
    silent = pb.PoolRollup(name="training")
    add_levers(silent, desk)
    assert not silent.HasField("busy_gpus")
