"""`gridpivot-agent commission` against an agent that answers on its control socket, its site simulated behind it."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import cli_commission
from agent.cli import app
from gridpivot import console
from gridpivot.errors import Refused
from sim.virtual import MeterFault
from tests.unit.agent.test_commissioning import World

pytestmark = pytest.mark.unit


class Answering(socketserver.UnixStreamServer):
    """One JSON line in, one out, as the agent's own control socket; every look lets a quarter of a minute pass."""

    def __init__(self, path: Path, world: World) -> None:
        self.world, self.asked = world, []
        super().__init__(str(path), Answer)


class Answer(socketserver.StreamRequestHandler):
    """One exchange."""

    server: Answering

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        world = self.server.world
        self.server.asked.append(request)
        assert request.pop("op") == "commission"
        try:
            shape = world.agent.commissioner.handle(request, world.agent.policy.stage)
            reply = {"answer": shape.model_dump(mode="json")}
        except Refused as error:
            reply = {"error": str(error)}
        if request["do"] == "look":
            world.run(15)
        self.wfile.write(json.dumps(reply).encode() + b"\n")


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    monkeypatch.setattr(cli_commission, "LOOK_S", 0.0)
    monkeypatch.setenv("GRIDPIVOT_AGENT__SITE", "falcon-1")
    world = World(tmp_path)
    world.run(120)
    with Answering(tmp_path / "control.sock", world) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def commission(tmp_path: Path, *words: str) -> int:
    return console.exit_code(lambda: app(args=["commission", "--state-dir", str(tmp_path), *words]))


def test_every_feeder_is_walked_through_and_shown(
    answering: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commission(tmp_path, "--yes", "--json") == 0
    shape = json.loads(capsys.readouterr().out)
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
    assert answering.asked == [] and "confirmed" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "told"), [(["--percent", "9"], "between 2 and 5"), (["--feeder", "X"], "no feeder")])
def test_refusal_of_the_agent_is_one_line(
    answering: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert commission(tmp_path, "--yes", *words) == 4
    err = capsys.readouterr().err
    assert told in err and err.startswith("error: ") and err.count("\n") == 1


def test_agent_that_is_down_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRIDPIVOT_AGENT__SITE", "falcon-1")
    assert commission(tmp_path, "--yes") == 3
    assert "is the agent running here?" in capsys.readouterr().err
