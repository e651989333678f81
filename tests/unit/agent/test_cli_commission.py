"""`gridpivot-agent commission` against an agent that answers on its control socket, its site simulated behind it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent import cli_commission
from agent.cli import app
from agent.local_control import Asker, LocalControl
from gridpivot import console
from sim.virtual import MeterFault
from tests.unit.agent.test_commissioning import World

pytestmark = pytest.mark.unit


class Answering:
    """The agent's own control socket on a loop in a thread; every look lets a quarter of a minute pass at the site."""

    def __init__(self, state_dir: Path, world: World) -> None:
        self.world, self.asked = world, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._control = LocalControl(state_dir, {"commission": self._asked})

    async def _asked(self, request: Mapping[str, Any], asker: Asker) -> dict[str, Any]:
        self.asked += 1
        try:
            return await self.world.agent.commissioner.handlers["commission"](request, asker)
        finally:
            if request["do"] == "look":
                self.world.run(15)

    def __enter__(self) -> Answering:
        self._thread.start()
        self._serving = asyncio.run_coroutine_threadsafe(self._control.run(), self._loop)
        while not self._control.path.exists():
            assert not self._serving.done()
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    monkeypatch.setattr(cli_commission, "LOOK_S", 0.0)
    monkeypatch.setenv("GRIDPIVOT_AGENT__SITE", "falcon-1")
    world = World(tmp_path)
    world.run(120)
    with Answering(tmp_path, world) as server:
        yield server


def commission(tmp_path: Path, *words: str) -> int:
    return console.exit_code(lambda: app(args=["commission", "--state-dir", str(tmp_path), *words]))


def test_every_feeder_is_walked_through_and_shown(
    answering: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commission(tmp_path, "--yes", "--json") == 0
    out = capsys.readouterr().out  # the simulated agent logs to the same place
    shape = json.loads(out[out.index('{\n  "schema_version"') :])
    assert [r["feeder"] for r in shape["results"]] == list(answering.world.site.inventory.feeders)
    assert {r["verdict"] for r in shape["results"]} == {"passed"}
    assert answering.world.asleep() == 0


def test_what_was_found_is_a_table_and_an_exit_code(
    answering: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answering.world.site.meter_fault = MeterFault.DEAD
    feeder = answering.world.site.inventory.feeders[0]
    assert commission(tmp_path, "--yes", "--feeder", feeder) == 1
    out = capsys.readouterr().out
    assert "verdict" in out and "meter_lost" in out and "stage observe" in out
    assert answering.world.site.commands_heard == 0


def test_without_a_yes_nothing_is_asked(
    answering: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commission(tmp_path) == 4
    assert answering.asked == 0 and "confirmed" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "told"), [(["--percent", "9"], "between 2 and 5"), (["--feeder", "X"], "no feeder")])
def test_refusal_of_the_agent_is_one_line(
    answering: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert commission(tmp_path, "--yes", *words) == 4
    *_, last = capsys.readouterr().err.splitlines()
    assert told in last and last.startswith("error: ")


def test_agent_that_is_down_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRIDPIVOT_AGENT__SITE", "falcon-1")
    assert commission(tmp_path, "--yes") == 3
    assert "no agent is running here" in capsys.readouterr().err
