"""The desk over a real Slurm: four nodes down to verified power and back, every step promised, evidenced and timed.

Power is the stand-in: a node draws by the GPUs that Slurm says are busy on it. The desk's clock runs ten times as fast, so that
the minutes it waits before it gives back are seconds here; Slurm's own times are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from agent.ai.desk import PullState
from agent.ai.lever import PoolPower
from agent.ai.levers.hold import Admission, ParkIdle
from agent.ai.levers.requeue import Requeue
from agent.ai.runner import AiDesk, PoolSide
from agent.ai.slurm.pool import SlurmPool
from agent.ai.slurm.settings import SlurmSettings
from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority, EventKind, LeverName
from tests.conftest import missing
from tests.system.slurm_cluster import NODES, SlurmCluster, absent
from tests.system.test_slurm import running, saves

pytestmark = pytest.mark.system

IDLE_W, BUSY_W = 475.0, 1100.0  # a GPU with its share of the host
SPEED = 10.0


@pytest.fixture
def cluster() -> Iterator[SlurmCluster]:
    if lacking := absent():
        missing(f"Slurm ({', '.join(lacking)}; deploy/ci_packages.sh names the packages)")
    made = SlurmCluster()
    try:
        made.start()
        yield made
    finally:
        made.stop()


class FastClock:
    """Ten times as fast, the wall clock as it is."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def now(self) -> Instant:
        return Instant(SPEED * (time.monotonic() - self._began_s), time.time())


class Site:
    """One pool whose power follows what Slurm runs."""

    def __init__(self, cluster: SlurmCluster, state_dir: Path) -> None:
        settings = SlurmSettings(
            partition="train",
            conf=cluster.conf,
            priorities={"train": AiPriority.STANDARD, "spot": AiPriority.SPOT},
            reservation_user=cluster.user,
            checkpoint_evidence=f"{cluster.root}/saved-%j",
            checkpoint_wait_s=5.0,
            requeue_wait_s=15.0,
        )
        self.pool, self.clock = SlurmPool(settings), FastClock()
        levers = {
            LeverName.PARK_IDLE: ParkIdle(self.pool, self.clock),
            LeverName.ADMISSION: Admission(self.pool, self.clock),
            LeverName.REQUEUE: Requeue(self.pool, self.clock, 150.0),  # 15 s of Slurm's
        }
        self.side = PoolSide("train", AiPriority.STANDARD, levers, self.pool)
        self.ai = AiDesk([self.side], state_dir, self.clock)
        self.said: list[tuple[EventKind, str]] = []
        self.target_w: float | None = None
        self.power_w = 0.0

    def say(self, kind: EventKind, message: str, figures: Mapping[str, float] | None = None) -> None:
        self.said.append((kind, message))

    async def ticks(self) -> None:
        """What the governor's tick does: power and target."""
        while True:
            with contextlib.suppress(Exception):
                work = await self.pool.observe(0.0)
                busy = sum(node.busy_gpus for node in work.nodes)
                gpus = sum(node.gpus for node in work.nodes)
                self.power_w = busy * BUSY_W + (gpus - busy) * IDLE_W
                power = PoolPower(
                    self.clock.now().monotonic_s, self.power_w, gpus * BUSY_W, gpus * 600.0, gpus * IDLE_W, gpus
                )
                self.ai.see("train", power, self.target_w, False)
            await asyncio.sleep(0.1)

    async def until(self, condition: Callable[[], object], what: str) -> float:
        """Wait; the seconds that it took."""
        began_s = time.monotonic()
        while not condition():
            assert time.monotonic() - began_s < 30.0, f"{what}: {self.said} {self.ai.desks}"
            await asyncio.sleep(0.05)
        return time.monotonic() - began_s


async def test_levers_take_four_nodes_to_verified_power_and_back(cluster: SlurmCluster, tmp_path: Path) -> None:
    jobs = [running(cluster, saves(cluster), "-N1", "--gpus-per-node=8", "--comment=checkpoint") for _ in NODES]
    site = Site(cluster, tmp_path)
    tasks = [asyncio.create_task(site.ticks()), asyncio.create_task(site.ai.run(site.say))]
    try:
        await site.until(lambda: site.side.work is not None and site.power_w == 32 * BUSY_W, "everything seen")
        desk = site.ai.desks["train"]
        site.target_w = 32 * IDLE_W
        took = {"verified power": await site.until(lambda: site.power_w <= 32 * IDLE_W, "power down")}
        await site.until(lambda: desk.pulls and desk.pulls[-1].state is PullState.KEPT, "kept")
        requeue = desk.pulls[-1]
        assert requeue.lever is LeverName.REQUEUE and requeue.delivered_w == requeue.promise.promised_w == 32 * 625.0
        assert requeue.promise.work_lost_gpu_h == 0.0  # they saved themselves
        assert all((cluster.root / f"saved-{job}").stat().st_size for job in jobs)
        assert all(cluster.state(job) == "PENDING" for job in jobs)
        assert not any(kind is EventKind.AI_SHORT for kind, _ in site.said)

        site.target_w = None
        took["back"] = await site.until(lambda: not desk.pulls, "all given back")
        took["running"] = await site.until(
            lambda: all(cluster.state(job) == "RUNNING" for job in jobs), "jobs run again"
        )
        assert all("gridpivot" not in cluster.node(name) for name in NODES)
        assert "ReservationName" not in cluster.tool("scontrol", "show", "reservation", "-o")
        print("seconds:", ", ".join(f"{name} {seconds:.2f}" for name, seconds in took.items()))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await site.pool.close()


async def test_guaranteed_job_beside_them_is_never_touched(cluster: SlurmCluster, tmp_path: Path) -> None:
    urgent = running(cluster, saves(cluster), "-p", "urgent", "-w", "gpu1", "--gpus-per-node=4")
    own = [running(cluster, saves(cluster), "-N1", "--gpus-per-node=4", "--comment=checkpoint") for _ in range(2)]
    site = Site(cluster, tmp_path)
    tasks = [asyncio.create_task(site.ticks()), asyncio.create_task(site.ai.run(site.say))]
    try:
        await site.until(lambda: site.side.work is not None and len(site.side.work.jobs) == 3, "everything seen")
        site.target_w = 1.0
        await site.until(lambda: all(cluster.state(job) == "PENDING" for job in own), "its own jobs are off")
        began_s = site.clock.now().monotonic_s
        await site.until(lambda: site.clock.now().monotonic_s > began_s + 40.0, "the desk has had its time")
        assert cluster.state(urgent) == "RUNNING"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await site.pool.close()
