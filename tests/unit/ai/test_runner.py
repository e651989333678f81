"""The desk's hands over a real script: pulled, told, kept on disk, given back, also by the next process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agent.ai import runner
from agent.ai.commands import CommandWorkload
from agent.ai.lever import PoolPower, Promise, Report
from agent.ai.levers.hold import Admission
from agent.ai.levers.requeue import Requeue
from agent.ai.runner import AiDesk, PoolSide
from agent.ai.workload import Order
from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority, EventKind, LeverName
from tests.unit.ai.test_commands import settings, state

pytestmark = pytest.mark.unit

IDLE_W, BUSY_W = 100.0, 400.0


class FastClock:
    """Sixty times as fast, the wall clock as it is."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def now(self) -> Instant:
        return Instant(60.0 * (time.monotonic() - self._began_s), time.time())


class Site:
    """A pool whose power follows the scheduler's file."""

    def __init__(self, file: Path, state_dir: Path, acts: bool = True) -> None:
        self.file, self.clock = file, FastClock()
        workload = CommandWorkload(settings(file), self.clock)
        levers = {
            LeverName.ADMISSION: Admission(workload, self.clock),
            LeverName.REQUEUE: Requeue(workload, self.clock, 30.0),
        }
        self.side = PoolSide("training", AiPriority.SPOT, levers, workload)
        self.desk = AiDesk([self.side], state_dir, self.clock, acts)
        self.said: list[tuple[EventKind, str]] = []
        self.target_w: float | None = None

    def power_w(self) -> float:
        with contextlib.suppress(OSError, ValueError):
            nodes = json.loads(self.file.read_text())["nodes"]
            return sum(n["busy_gpus"] * BUSY_W + (n["gpus"] - n["busy_gpus"]) * IDLE_W for n in nodes)
        return 0.0

    def say(self, kind: EventKind, message: str, figures: Mapping[str, float] | None = None) -> None:
        self.said.append((kind, message))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the governor tick until something is so."""
        async with asyncio.timeout(40.0):
            while not condition():
                power = PoolPower(self.clock.now().monotonic_s, self.power_w(), 12_800.0, 3_200.0, 3_200.0, 32)
                self.desk.see("training", power, self.target_w, False)
                await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.desk.run(self.say))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def jobs(self) -> set[str]:
        return {job["id"] for job in json.loads(self.file.read_text())["jobs"]}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runner, "BEAT_S", 0.1)
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps(state()))
    return path


def test_job_is_taken_off_told_and_given_back(file: Path, tmp_path: Path) -> None:
    async def story() -> Site:
        async with Site(file, tmp_path).running() as site:
            await site.until(lambda: site.side.work is not None)
            site.target_w = 6_000.0
            await site.until(lambda: "41" not in site.jobs())
            await site.until(lambda: any("requeue brought 2.4 of 2.4 kW" in m for _, m in site.said))
            assert site.jobs() == {"42"}
            site.target_w = None
            await site.until(lambda: not site.desk.desks["training"].pulls)
        return site

    site = asyncio.run(story())
    assert site.jobs() == {"41", "42"}
    loaded = json.loads(file.read_text())
    assert loaded["nodes"][3]["held_by"] == "alice: bad fan"
    assert not loaded["admission_held_by"] and not loaded["paused"]


def test_what_a_killed_agent_took_is_given_back_by_the_next_one(file: Path, tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(file, tmp_path).running() as site:
            await site.until(lambda: site.side.work is not None)
            site.target_w = 6_000.0
            await site.until(lambda: "41" not in site.jobs())
            await site.until(lambda: "requeue" in (tmp_path / "ai-pulls.json").read_text())
        async with Site(file, tmp_path).running() as after:
            await after.until(lambda: not after.desk.desks["training"].pulls)
            assert after.jobs() == {"41", "42"}

    asyncio.run(story())


def test_desk_that_only_watches_pulls_nothing(file: Path, tmp_path: Path) -> None:
    async def story() -> Site:
        async with Site(file, tmp_path, acts=False).running() as site:
            await site.until(lambda: site.side.work is not None)
            site.target_w = 1_000.0
            began_s = site.clock.now().monotonic_s
            await site.until(lambda: site.clock.now().monotonic_s > began_s + 60.0)
        return site

    before = file.read_text()
    site = asyncio.run(story())
    assert json.loads(file.read_text()) == json.loads(before) and not site.said


def test_scheduler_that_does_not_answer_is_said_and_promises_nothing(file: Path, tmp_path: Path) -> None:
    async def story() -> Site:
        async with Site(file, tmp_path).running() as site:
            file.write_text("no json")
            await site.until(lambda: bool(site.side.trouble))
            assert "status" in site.side.trouble
            file.write_text(json.dumps(state()))
            await site.until(lambda: not site.side.trouble)
        return site

    assert not asyncio.run(story()).said


def test_damaged_file_of_pulls_is_set_aside(file: Path, tmp_path: Path) -> None:
    (tmp_path / "ai-pulls.json").write_text('{"format": 1, "pools": {"training": [{}]}}')
    site = Site(file, tmp_path)
    assert not site.desk.desks["training"].pulls
    assert (tmp_path / "ai-pulls.json.damaged").exists()


def test_stage_that_only_watches_sends_nothing_for_what_an_earlier_process_held(file: Path, tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(file, tmp_path).running() as site:
            await site.until(lambda: site.side.work is not None)
            site.target_w = 6_000.0
            await site.until(lambda: "requeue" in (tmp_path / "ai-pulls.json").read_text())
            await site.until(
                lambda: "41" not in site.jobs() or "42" not in site.jobs()
            )  # the script has ended, and writes no more
            await site.until(lambda: site.side.busy is None or site.side.busy.done())
        held = json.loads(file.read_text())
        async with Site(file, tmp_path, acts=False).running() as after:
            began_s = after.clock.now().monotonic_s
            await after.until(lambda: after.clock.now().monotonic_s > began_s + 120.0)
        assert json.loads(file.read_text()) == held

    asyncio.run(story())


class Broken(Admission):
    """A lever with a defect."""

    async def act(self, order: Order, promise: Promise) -> Report:
        raise ZeroDivisionError


def test_defect_of_a_lever_ends_neither_the_desk_nor_the_pool(file: Path, tmp_path: Path) -> None:
    async def story() -> Site:
        site = Site(file, tmp_path)
        workload = CommandWorkload(settings(file), site.clock)
        site.side.levers = {**site.side.levers, LeverName.ADMISSION: Broken(workload, site.clock)}
        async with site.running():
            await site.until(lambda: site.side.work is not None)
            site.target_w = 6_000.0
            await site.until(lambda: "41" not in site.jobs())
        return site

    assert "42" in asyncio.run(story()).jobs()


class Slow(Requeue):
    """A lever whose act takes longer than it promised."""

    async def act(self, order: Order, promise: Promise) -> Report:
        await asyncio.sleep(30.0)
        return await super().act(order, promise)


def test_shortfall_is_told_in_its_time_while_the_act_still_runs(file: Path, tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(file, tmp_path)
        workload = CommandWorkload(settings(file), site.clock)
        site.side.levers = {LeverName.REQUEUE: Slow(workload, site.clock, 30.0)}
        async with site.running():
            await site.until(lambda: site.side.work is not None)
            site.target_w = 6_000.0
            await site.until(lambda: bool(site.desk.desks["training"].pulls))
            pull = site.desk.desks["training"].pulls[0]
            await site.until(lambda: any(kind is EventKind.AI_SHORT for kind, _ in site.said))
            assert pull.ended_s is not None and pull.ended_s <= pull.due_s + 60.0 * 0.5  # half a second of ours
            assert site.side.busy is not None and not site.side.busy.done()

    asyncio.run(story())


def test_what_carries_our_mark_and_nobody_knows_of_is_given_back(file: Path, tmp_path: Path) -> None:
    loaded = state()
    loaded["admission_held_by"] = loaded["nodes"][2]["held_by"] = "gridpivot:lost-1"
    loaded["until"] = {"gridpivot:lost-1": 4e9}
    file.write_text(json.dumps(loaded))

    async def story() -> None:
        async with Site(file, tmp_path).running() as site:
            await site.until(lambda: not json.loads(file.read_text())["admission_held_by"])

    asyncio.run(story())
    after = json.loads(file.read_text())
    assert after["nodes"][2]["held_by"] == "" and after["nodes"][3]["held_by"] == "alice: bad fan"
