"""Real slurmctld and slurmd: nodes are held and given back, jobs saved and requeued, and each step is proven by reading."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.ai.slurm.pool import SlurmPool
from agent.ai.slurm.settings import SlurmSettings
from agent.ai.workload import Order, Step, WorkloadRefused
from gridpivot.vocabulary import AiPriority, LeverOutcome
from tests.conftest import ROOT, missing
from tests.system.slurm_cluster import NODES, SlurmCluster, absent

pytestmark = pytest.mark.system

DONE = LeverOutcome.DONE
PRIORITIES = {"train": AiPriority.STANDARD, "spot": AiPriority.SPOT}  # urgent is not named: guaranteed
WORK = "while true; do sleep 0.1; done"


@pytest.fixture(scope="session")
def cluster_of_this_run() -> Iterator[SlurmCluster]:
    if lacking := absent():
        missing(f"Slurm ({', '.join(lacking)}; deploy/ci_packages.sh names the packages)")
    cluster = SlurmCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster(cluster_of_this_run: SlurmCluster) -> SlurmCluster:
    cluster_of_this_run.clear()
    return cluster_of_this_run


def pool(cluster: SlurmCluster, partition: str = "train", **given: Any) -> SlurmPool:
    settings = {
        "conf": cluster.conf,
        "priorities": PRIORITIES,
        "reservation_user": cluster.user,
        "checkpoint_evidence": f"{cluster.root}/saved-%j",
        "checkpoint_wait_s": 5,
        "requeue_wait_s": 15,
    }
    return SlurmPool(SlurmSettings.model_validate({"partition": partition, **settings, **given}))


def order(order_id: str = "o-1", seconds: float = 600) -> Order:
    return Order(order_id, "test", time.time() + seconds)


def outcomes(steps: tuple[Step, ...]) -> dict[str, LeverOutcome]:
    return {step.subject: step.outcome for step in steps}


def saves(cluster: SlurmCluster) -> str:
    return f"trap 'date > {cluster.root}/saved-$SLURM_JOB_ID' USR1\n{WORK}"


def running(cluster: SlurmCluster, script: str, *options: str) -> str:
    job_id = cluster.submit(script, *options)
    cluster.until(lambda: cluster.state(job_id) == "RUNNING")
    return job_id


async def test_four_nodes_are_drained_saved_requeued_and_come_back(cluster: SlurmCluster) -> None:
    train, now = pool(cluster), order()
    jobs = [running(cluster, saves(cluster), "-N1", "--gpus-per-node=8", "--comment=checkpoint") for _ in NODES]
    work = await train.observe(7.0)
    assert work.read_at_s == 7.0
    assert [(node.name, node.gpus, node.busy_gpus) for node in work.nodes] == [(name, 8, 8) for name in NODES]
    assert {job.job_id for job in work.jobs} == set(jobs)
    assert all(job.gpus == 8 and job.checkpoints and job.requeueable for job in work.jobs)
    (waiting,) = work.waiting
    assert waiting.running_gpu_h == pytest.approx(4 * 8 * 0.5, rel=0.05)

    took: dict[str, float] = {}

    async def timed(name: str, steps: Any) -> tuple[Step, ...]:
        began = time.monotonic()
        result: tuple[Step, ...] = await steps
        took[name] = time.monotonic() - began
        return result

    assert outcomes(await timed("hold", train.hold(NODES, now))) == dict.fromkeys(NODES, DONE)
    held = await train.observe(8.0)
    assert all(node.ours and node.busy_gpus == 8 for node in held.nodes) and not held.admitting
    assert outcomes(await timed("checkpoint", train.checkpoint(jobs, now))) == dict.fromkeys(jobs, DONE)
    assert all((cluster.root / f"saved-{job}").stat().st_size for job in jobs)
    assert outcomes(await timed("requeue", train.requeue(jobs, now))) == dict.fromkeys(jobs, DONE)
    empty = await train.observe(9.0)
    assert all(node.idle and node.ours for node in empty.nodes)
    assert empty.jobs == () and set(empty.suspended) == set(jobs)
    assert all(cluster.state(job) == "PENDING" for job in jobs)

    assert outcomes(await timed("release", train.release(now.order_id))) == dict.fromkeys([*NODES, *jobs], DONE)
    began = time.monotonic()
    cluster.until(lambda: all(cluster.state(job) == "RUNNING" for job in jobs))
    took["running again"] = time.monotonic() - began
    back = await train.observe(10.0)
    assert not any(node.held for node in back.nodes) and back.suspended == () and back.admitting

    began = time.monotonic()  # the same by hand: what Slurm itself needs
    cluster.tool("scontrol", "update", f"nodename={','.join(NODES)}", "state=drain", "reason=by hand")
    for job in jobs:
        cluster.tool("scancel", "--signal=USR1", "--full", job)
    cluster.tool("scontrol", "requeuehold", *jobs)
    cluster.until(lambda: all(cluster.state(job) == "PENDING" for job in jobs))
    took["off by hand"] = time.monotonic() - began
    print("seconds:", ", ".join(f"{name} {seconds:.2f}" for name, seconds in took.items()))


async def test_two_calls_do_what_one_does(cluster: SlurmCluster) -> None:
    train, now = pool(cluster), order()
    job = running(cluster, saves(cluster), "-N1", "--gpus-per-node=8", "--comment=checkpoint", "-w", "gpu3")
    for saved in (DONE, LeverOutcome.GONE):  # the second time it does not run any more
        assert outcomes(await train.hold(["gpu3"], now)) == {"gpu3": DONE}
        assert outcomes(await train.checkpoint([job], now)) == {job: saved}
        assert outcomes(await train.requeue([job], now)) == {job: DONE}
    assert outcomes(await train.release(None)) == {"gpu3": DONE, job: DONE}
    assert await train.release(None) == ()
    assert await train.release(now.order_id) == ()


async def test_another_admins_drain_and_reservation_are_left(cluster: SlurmCluster) -> None:
    train = pool(cluster)
    cluster.tool("scontrol", "update", "nodename=gpu1", "state=drain", "reason=gridpivot is broken")
    cluster.tool(
        "scontrol", "create", "reservation", "reservationname=class", "starttime=now", "duration=5",
        f"users={cluster.user}", "nodes=gpu2", "flags=ignore_jobs",
    )  # fmt: skip
    found = outcomes(await train.hold(["gpu1", "gpu2", "gpu3", "gpu9"], order()))
    assert found == {
        "gpu1": LeverOutcome.NOT_OURS,
        "gpu2": LeverOutcome.NOT_OURS,
        "gpu3": DONE,
        "gpu9": LeverOutcome.GONE,
    }
    by_name = {node.name: node for node in (await train.observe(1.0)).nodes}
    assert by_name["gpu1"].held and not by_name["gpu1"].ours and by_name["gpu2"].held and not by_name["gpu2"].ours
    cluster.tool("scontrol", "update", "nodename=gpu3", "state=drain", "reason=fan")  # over ours, while we hold it
    assert outcomes(await train.hold(["gpu3"], order())) == {"gpu3": LeverOutcome.NOT_OURS}
    assert outcomes(await train.release(None)) == {"gpu3": LeverOutcome.NOT_OURS}
    assert cluster.node("gpu1").endswith("gridpivot is broken") and cluster.node("gpu3").endswith("fan")
    assert "class" in cluster.tool("scontrol", "show", "reservation", "-o")


async def test_guaranteed_jobs_on_the_same_node_survive_whatever_is_asked(cluster: SlurmCluster) -> None:
    train, now = pool(cluster), order()
    urgent = running(cluster, WORK, "-p", "urgent", "-n1", "--gpus=2", "-w", "gpu1", "--comment=checkpoint")
    spare = running(cluster, saves(cluster), "-n1", "--gpus=4", "-w", "gpu1", "--comment=checkpoint")
    priorities = {job.job_id: job.priority for job in (await train.observe(1.0)).jobs}
    assert priorities == {urgent: AiPriority.GUARANTEED, spare: AiPriority.STANDARD}
    assert outcomes(await train.hold(["gpu1"], now)) == {"gpu1": DONE}
    assert outcomes(await train.checkpoint([urgent, spare], now)) == {urgent: LeverOutcome.BLOCKED, spare: DONE}
    assert outcomes(await train.requeue([urgent, spare], now)) == {urgent: LeverOutcome.BLOCKED, spare: DONE}
    work = await train.observe(2.0)
    assert [job.job_id for job in work.jobs] == [urgent] and work.nodes[0].busy_gpus == 2
    assert cluster.state(urgent) == "RUNNING"


async def test_job_that_ignores_the_signal_or_was_never_made_for_it(cluster: SlurmCluster) -> None:
    train = pool(cluster, checkpoint_wait_s=0.8)
    deaf = running(cluster, f"trap '' USR1\n{WORK}", "-n1", "--gpus=1", "--comment=checkpoint")
    fragile = running(cluster, WORK, "-n1", "--gpus=1")
    fixed = running(cluster, WORK, "-n1", "--gpus=1", "--no-requeue")
    steps = await train.checkpoint([deaf, fragile, "987654"], order())
    assert outcomes(steps) == {
        deaf: LeverOutcome.IGNORED,
        fragile: LeverOutcome.UNSUPPORTED,
        "987654": LeverOutcome.GONE,
    }
    assert outcomes(await train.requeue([fixed, "987654"], order())) == {
        fixed: LeverOutcome.BLOCKED,
        "987654": LeverOutcome.GONE,
    }
    assert [cluster.state(job) for job in (deaf, fragile, fixed)] == ["RUNNING"] * 3


async def test_comment_that_changes_is_evidence(cluster: SlurmCluster) -> None:
    train = pool(cluster, checkpoint_evidence="comment")
    tells = f"trap 'scontrol update jobid=$SLURM_JOB_ID comment=\"checkpoint 1\"' USR1\n{WORK}"
    job = running(cluster, tells, "-n1", "--gpus=1", "--comment=checkpoint")
    assert outcomes(await train.checkpoint([job], order())) == {job: DONE}


async def test_node_that_vanishes_mid_drain(cluster: SlurmCluster) -> None:
    train, now = pool(cluster, requeue_wait_s=1), order()
    job = running(cluster, WORK, "-n1", "--gpus=8", "-w", "gpu4")
    assert outcomes(await train.hold(["gpu3", "gpu4"], now)) == {"gpu3": DONE, "gpu4": DONE}
    cluster.kill_node("gpu4")
    try:
        lost_s = cluster.until(lambda: "NOT_RESPONDING" in cluster.node("gpu4"), 30)
        work = await train.observe(1.0)
        lost = next(node for node in work.nodes if node.name == "gpu4")
        assert not lost.answers and lost.held and not lost.idle
        assert outcomes(await train.hold(["gpu3", "gpu4"], now)) == {"gpu3": DONE, "gpu4": LeverOutcome.GONE}
        steps = outcomes(await train.requeue([job], now))  # whether it ended there, nobody can tell yet
        assert steps == {job: LeverOutcome.UNDER_WAY}
        released = outcomes(await train.release(now.order_id))
        assert released["gpu3"] is DONE and released["gpu4"] is DONE
    finally:
        cluster.start_node("gpu4")
    back_s = cluster.until(lambda: "DOWN" not in cluster.node("gpu4").upper() and "NOT_" not in cluster.node("gpu4"))
    print(f"seconds: node known lost after {lost_s:.1f}, back after {back_s:.1f}")


async def test_hung_slurmctld_is_slow_within_the_deadline(cluster: SlurmCluster) -> None:
    train = pool(cluster, deadline_s=0.5)
    cluster.hang()
    try:
        for call in (
            train.observe(1.0),
            train.hold(["gpu1"], order()),
            train.release(None),
            train.requeue(["1"], order()),
        ):
            with pytest.raises(WorkloadRefused) as refused:
                async with asyncio.timeout(5):
                    await call
            assert refused.value.outcome is LeverOutcome.SLOW and "\n" not in str(refused.value)
    finally:
        cluster.resume()
    assert len((await pool(cluster).observe(2.0)).nodes) == 4


async def test_what_a_dead_agent_held_ends_by_itself(cluster: SlurmCluster) -> None:
    now = order(seconds=9)
    job = running(cluster, WORK, "-n1", "--gpus=8", "-w", "gpu4")
    dead = pool(cluster, drain=False)
    assert outcomes(await dead.hold(["gpu4"], now)) == {"gpu4": DONE}
    assert outcomes(await dead.requeue([job], now)) == {job: DONE}
    await dead.close()
    assert cluster.state(job) == "PENDING"
    cluster.until(lambda: cluster.state(job) == "RUNNING", 25)
    late_s = time.time() - now.until_unix_s
    assert late_s >= -1
    node = (await pool(cluster).observe(1.0)).nodes[3]
    assert not node.held and node.busy_gpus == 8
    print(f"seconds: running again {late_s:.1f} after the order's end, without us")


async def test_a_new_agent_gives_back_what_a_dead_one_drained(cluster: SlurmCluster) -> None:
    assert outcomes(await pool(cluster).hold(["gpu2"], order("old"))) == {"gpu2": DONE}
    after = pool(cluster)
    assert (await after.observe(1.0)).nodes[1].ours
    assert outcomes(await after.release("another")) == {}
    assert outcomes(await after.release(None)) == {"gpu2": DONE}
    assert not (await after.observe(2.0)).nodes[1].held


async def test_later_end_extends_and_a_second_order_keeps_the_node(cluster: SlurmCluster) -> None:
    train = pool(cluster)
    first, longer, second = order("a", 60), order("a", 120), order("b", 90)
    await train.hold(["gpu3"], first)
    assert outcomes(await train.hold(["gpu3", "gpu4"], longer)) == {"gpu3": DONE, "gpu4": DONE}
    assert f"gridpivot:a:{math.ceil(longer.until_unix_s)}:train" in cluster.node("gpu3")
    assert outcomes(await train.hold(["gpu3"], second)) == {"gpu3": DONE}
    assert outcomes(await train.release("a")) == {"gpu3": DONE, "gpu4": DONE}
    assert "gridpivot:b:" in cluster.node("gpu3") and cluster.node("gpu4").startswith("idle")
    assert outcomes(await train.release("b")) == {"gpu3": DONE}


async def test_admission_closes_only_nodes_that_guaranteed_work_cannot_use(cluster: SlurmCluster) -> None:
    train, spot = pool(cluster), pool(cluster, "spot")
    assert outcomes(await spot.close_admission(order("s"))) == {"spot": DONE}
    closed = await spot.observe(1.0)
    assert closed.admission_ours and not closed.admitting
    waiting = cluster.submit(WORK, "-p", "spot", "-n1", "--gpus=1")
    assert outcomes(await train.close_admission(order("t"))) == {
        "train": LeverOutcome.BLOCKED,
        "gpu1": LeverOutcome.BLOCKED,
        "gpu2": LeverOutcome.BLOCKED,
    }
    urgent = running(cluster, WORK, "-p", "urgent", "-n1", "--gpus=8")
    assert cluster.state(waiting) == "PENDING" and cluster.state(urgent) == "RUNNING"
    assert outcomes(await train.release("t")) == {"train": DONE}
    assert cluster.state(waiting) == "PENDING"
    assert outcomes(await spot.release(None)) == {"spot": DONE}
    cluster.until(lambda: cluster.state(waiting) == "RUNNING")
    assert outcomes(await pool(cluster, "urgent").close_admission(order())) == {"urgent": LeverOutcome.BLOCKED}


def test_the_pages_example_runs(cluster: SlurmCluster) -> None:
    job = running(cluster, WORK, "-n1", "--gpus=2", "-w", "gpu2")
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "slurm.md").read_text(), re.DOTALL)
    environment = {**os.environ, "SLURM_CONF": str(cluster.conf)}
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "gpu2 2/8 GPUs busy in service" in done.stdout and f"{job} standard 2 GPUs on gpu2" in done.stdout
