"""Local control of a real agent: shed, hold, release over the socket; who may; what survives kill -9 and a second agent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.local_control import ask
from gridpivot.errors import Refused, Unreachable

pytestmark = pytest.mark.system

BIN = Path(sys.executable).parent
ENV = {name: value for name, value in os.environ.items() if not name.startswith("GRIDPIVOT_")}
SETTINGS = 'site = "falcon-1"\nstate_dir = "{}"\n[circuit]\nceiling_mw = 10\n[http]\nport = 0\n'


class Agent:
    """A bare agent with a circuit; started, killed, started again on the same state."""

    def __init__(self, place: Path) -> None:
        self.place, self.state = place, place / "state"
        self.config = place / "agent.toml"
        self.config.write_text(SETTINGS.format(self.state))
        self.started: list[subprocess.Popen[str]] = []

    def start(self, until: str = "agent up", *words: str) -> subprocess.Popen[str]:
        command = [str(BIN / "gridpivot-agent"), "run", "-c", str(self.config), *words]
        process = subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if until in line:
                break
        if until == "agent up":
            self.wait_for_socket()
        return process

    def wait_for_socket(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                if ask(self.state, {"op": "orders"})["power_w"] is not None:
                    return
            except Unreachable:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def run(self, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "gridpivot-agent"), *words, "-c", str(self.config)]
        return subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=40, **more)

    def orders(self) -> list[dict[str, object]]:
        done = self.run("orders", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["orders"]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    tmp_path.chmod(0o755)
    made = Agent(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def test_orders_by_hand_stand_over_a_kill_and_end_with_a_release(agent: Agent) -> None:
    first = agent.start()
    done = agent.run("shed", "--to", "5MW", "--for", "30m", "--reason", "hot transformer")
    assert done.returncode == 0, done.stderr
    assert "ceiling 5.000 MW" in done.stdout
    assert agent.run("hold").returncode == 0
    assert [order["kind"] for order in agent.orders()] == ["shed", "hold"]
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert agent.run("orders").returncode == 3  # nobody is there, and it says so in one line
    agent.start()
    assert next((o["kind"], o["ceiling_w"]) for o in agent.orders()) == ("shed", 5e6)
    status = json.loads(agent.run("status", "--json").stdout)
    assert status["site"] == "falcon-1"
    assert agent.run("release").returncode == 0
    assert agent.orders() == []
    assert agent.run("release").returncode == 4


def test_faulty_requests_are_one_line_and_change_nothing(agent: Agent) -> None:
    agent.start()
    for words, code in (
        (("shed",), 2),
        (("shed", "2"), 2),
        (("shed", "2MW", "--to", "1MW"), 2),
        (("shed", "2MW", "--for", "soon"), 2),
        (("release", "nothing"), 4),
        (("release", "--event", "nothing"), 4),
    ):
        done = agent.run(*words)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), (words, done.stderr)
    for request in (
        {"op": "shed", "shed_w": "all"},
        {"op": "shed", "to_w": -5},
        {"op": "format"},
        {"to_w": True, "op": "shed"},
    ):
        with pytest.raises(Refused):
            ask(agent.state, request)
    assert agent.orders() == []


@pytest.mark.skipif(os.getuid() != 0, reason="SKIPPED: only root can become somebody else")
def test_only_whom_the_file_lets_in_may_order(agent: Agent) -> None:
    agent.start()
    agent.state.chmod(0o755)
    assert (agent.state / "control.sock").stat().st_mode & 0o777 == 0o660
    # Before the interpreter starts, so that it need not be able to read our home directory.
    snippet = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: s.connect(sys.argv[1])\nexcept PermissionError: print('denied')\n"
    )
    command = [sys.executable, "-c", snippet, str(agent.state / "control.sock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.stdout == "denied\n", done.stderr


def test_second_agent_by_hand_waits_for_the_first_and_then_takes_over(agent: Agent) -> None:
    first = agent.start()
    second = agent.start("waiting for another agent")
    assert ask(agent.state, {"op": "orders"})["orders"] == []  # the first one still serves
    assert agent.run("run", "--no-wait").returncode == 4
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=20) == 0
    assert second.stderr is not None
    assert any("agent up" in line for line in second.stderr)
    agent.wait_for_socket()
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=20) == 0
