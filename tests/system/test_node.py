"""A site's agent and GPU hosts as real processes over the stand-in NVML: enrolled by token, limited, killed at any moment."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.local_control import ask
from gridpivot.errors import GridpivotError
from sim.gpus import SimGpus
from sim.meter import POWER_ADDRESS, SimMeter
from sim.nvml.state import STATE_VARIABLE
from tests.conftest import missing

pytestmark = pytest.mark.system

BIN = Path(sys.executable).parent
ENV = {name: value for name, value in os.environ.items() if not name.startswith("GRIDPIVOT_")}
LEASE_S = 4.0
HOST_W = 100.0
GPUS = 4
NODES = ("gpu-1", "gpu-2")
# Two nodes of four boards of 200-700 W; hosts draw 800 W beside them.
MOST_W = len(NODES) * GPUS * (700.0 + HOST_W)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Place:
    """Settings, stand-ins and processes of one test; everything started is ended by its pid."""

    def __init__(self, place: Path, guarded: bool) -> None:
        """`guarded`: gpu-1 has a GPU guard."""
        self.place = place
        self.started: list[subprocess.Popen[bytes]] = []
        self.gpus: dict[str, SimGpus] = {}
        self.meter_port = 0
        self.ports = [free_port() for _ in range(2)]
        self.site_dir = place / "site"
        guard = f'guard_socket = "{place / "guard.sock"}"\nguard_lease_s = 5\n' if guarded else ""
        for name in NODES:
            (place / name).mkdir()
            found = SimGpus.open(place / name, GPUS)
            if found is None:
                missing("a C compiler (cc or the package ziglang)")
            assert found is not None
            self.gpus[name] = found
            (place / f"{name}.toml").write_text(
                f'site = "falcon-1"\nrole = "node"\nnode = "{name}"\nstate_dir = "{place / name / "state"}"\n'
                f"[gpu]\nbeat_s = 0.5\n{guard if name == 'gpu-1' else ''}[http]\nport = 0\n"
            )

    def site_settings(self, ceiling_w: float, meter: int, stage: str = "full") -> None:
        (self.place / "site.toml").write_text(
            f'site = "falcon-1"\nstate_dir = "{self.site_dir}"\n'
            f'[circuit]\nceiling_w = {ceiling_w}\n[governor]\nstage = "{stage}"\nai_release_after_s = 2\n'
            f'[meter]\nhost = "127.0.0.1"\nport = {meter}\npower_address = {POWER_ADDRESS}\npower_type = "int32"\n'
            f'[nodes]\nlisten = "127.0.0.1:{self.ports[0]}"\nenrol_listen = "127.0.0.1:{self.ports[1]}"\n'
            f'host = "localhost"\nbeat_s = 0.5\nlease_s = {LEASE_S}\n'
            f'[[gpu.pools]]\nname = "train"\nnodes = {json.dumps(list(NODES))}\ngpus_per_node = {GPUS}\n'
            f"host_w_per_gpu = {HOST_W}\n[http]\nport = 0\n"
        )

    def call(self, name: str, *words: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
        arguments = [BIN / "gridpivot-agent", *words, "--config", self.place / f"{name}.toml"]
        done = subprocess.run(
            list(map(str, arguments)), env=self.environ(name), input=text, capture_output=True, text=True, timeout=50
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def environ(self, name: str) -> dict[str, str]:
        gpus = self.gpus.get(name)
        if gpus is None:
            return ENV
        return {**ENV, "LD_LIBRARY_PATH": str(gpus.library_dir), STATE_VARIABLE: str(gpus.state_path)}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        with (self.place / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [BIN / "gridpivot-agent", "run", "--config", self.place / f"{name}.toml"],
                env=self.environ(name), stdout=log, stderr=log,
            )  # fmt: skip
        self.started.append(process)
        return process

    def start_guard(self) -> None:
        """The GPU guard of gpu-1."""
        with (self.place / "guard.log").open("ab") as log:
            words = ["gpu-guard", "--socket", self.place / "guard.sock", "--state-dir", self.place / "guard"]
            process = subprocess.Popen(
                [BIN / "gridpivot-agent", *words], env=self.environ("gpu-1"), stdout=log, stderr=log
            )
        self.started.append(process)

    def enrol(self) -> None:
        for name in NODES:
            made = self.call("site", "node-token", "create", name, "--valid", "48h")
            assert made.returncode == 0, made.stderr
            done = self.call(name, "enroll", "--token-file", "-", text=made.stdout)
            assert done.returncode == 0, done.stderr
            assert f"node {name} of site falcon-1 is enrolled" in done.stdout

    def limits_w(self, name: str) -> list[float]:
        with self.gpus[name].state.settled() as devices:
            return [float(watts) / 1000.0 for watts in devices["limit_mw"]]

    def nodes(self) -> dict[str, dict[str, object]]:
        done = self.call("site", "node", "list", "--json")
        assert done.returncode == 0, done.stderr
        return {one["node"]: one for one in json.loads(done.stdout)["nodes"]}

    def live(self) -> dict[str, dict[str, object]]:
        """As the running agent tells it; nothing while none runs."""
        try:
            return ask(self.site_dir, {"op": "nodes"})["nodes"]
        except GridpivotError:
            return {key: {"link": "unknown", "limit_w": 0.0, "power_w": 0.0} for key in NODES}

    def told(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text(errors="replace")[-6000:]

    def boards_w(self) -> float:
        """Sum of the limits on every board of every node."""
        return sum(sum(self.limits_w(name)) for name in NODES)

    def hosts_w(self) -> float:
        return len(NODES) * GPUS * HOST_W

    def power_w(self) -> float:
        return sum(gpus.state.power_w() + GPUS * HOST_W for gpus in self.gpus.values())


@pytest.fixture
async def place(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    made = Place(tmp_path, guarded=getattr(request, "param", False))
    meter = SimMeter(lambda: (made.power_w(), 0.0))
    await meter.start()
    made.meter_port = meter.port
    yield made
    for process in made.started:
        process.kill()
        process.wait()
    await meter.stop()
    for gpus in made.gpus.values():
        gpus.close()


async def until(true: Callable[[], bool], seconds: float, what: Callable[[], object]) -> float:
    """Wait for something; how long it took [s]."""
    began_s = time.monotonic()
    while not await asyncio.to_thread(true):
        assert time.monotonic() - began_s < seconds, what()
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


async def running(place: Place, ceiling_w: float) -> dict[str, subprocess.Popen[bytes]]:
    """Site and nodes, enrolled, connected, and every GPU at work."""
    place.site_settings(ceiling_w, place.meter_port)
    for gpus in place.gpus.values():
        gpus.state.set_load(1.0)
    processes = {"site": place.start("site")}
    await until(lambda: "nodes served" in place.told("site"), 30, lambda: place.told("site"))
    await asyncio.to_thread(place.enrol)
    processes |= {name: place.start(name) for name in NODES}
    up = lambda: all(one["link"] == "connected" for one in place.live().values())  # noqa: E731
    await until(up, 30, lambda: (place.told("site"), place.told("gpu-1")))
    return processes


async def test_limits_go_down_to_every_node_and_are_read_back(place: Place) -> None:
    await running(place, 9000.0)
    full = lambda: all(min(place.limits_w(name)) > 600 for name in NODES)  # noqa: E731
    await until(full, 30, lambda: (place.boards_w(), place.told("site")))
    order = {"op": "shed", "to_w": 4000.0, "reason": "test"}
    await asyncio.to_thread(ask, place.site_dir, order)
    took_s = await until(lambda: place.boards_w() <= 4000.0 - place.hosts_w(), 10, lambda: place.told("site"))
    print("limits on the boards after", round(took_s, 2), "s")
    read_back = lambda: abs(sum(float(one["limit_w"]) for one in place.live().values()) - place.boards_w()) < 5  # noqa: E731
    await until(read_back, 10, lambda: (place.live(), place.boards_w()))
    drawn = lambda: all(0 < float(one["power_w"]) <= 1600 for one in place.live().values())  # noqa: E731
    await until(drawn, 10, place.live)


async def test_node_that_is_killed_is_charged_at_its_limit_and_nobody_gets_its_share(place: Place) -> None:
    processes = await running(place, 9000.0)
    full = lambda: all(min(place.limits_w(name)) > 600 for name in NODES)  # noqa: E731
    await until(full, 30, lambda: (place.boards_w(), place.told("site")))
    await asyncio.to_thread(ask, place.site_dir, {"op": "shed", "to_w": 5000.0, "reason": "test"})
    await until(lambda: place.boards_w() <= 5000.0 - place.hosts_w(), 10, lambda: place.told("site"))
    processes["gpu-1"].kill()
    down = lambda: place.live()["gpu-1"]["link"] == "down"  # noqa: E731
    await until(down, 10, place.live)
    until_s = time.monotonic() + LEASE_S + 2.0
    while time.monotonic() < until_s:
        told = await asyncio.to_thread(place.live)
        assert float(told["gpu-1"]["limit_w"]) >= sum(place.limits_w("gpu-1")) - 1.0
        assert place.boards_w() <= 5000.0 - place.hosts_w()
    place.start("gpu-1")
    await until(lambda: not down(), 20, lambda: (place.live(), place.told("gpu-1")))
    assert place.boards_w() <= 5000.0 - place.hosts_w()


async def test_site_agent_that_is_killed_leaves_nodes_at_their_fallbacks_and_gets_them_back(place: Place) -> None:
    processes = await running(place, 9000.0)
    fallbacks = lambda: [place.place / name / "state/fallbacks.json" for name in NODES]  # noqa: E731
    await until(lambda: all(path.exists() for path in fallbacks()), 30, lambda: place.told("site"))
    full = lambda: all(min(place.limits_w(name)) > 600 for name in NODES)  # noqa: E731
    await until(full, 30, lambda: (place.boards_w(), place.told("site")))
    processes["site"].kill()
    before = {name: place.limits_w(name) for name in NODES}

    def fallen() -> bool:
        for name in NODES:
            assert all(now <= old for now, old in zip(place.limits_w(name), before[name], strict=True)), "a limit rose"
        return all(max(place.limits_w(name)) <= most[name] + 0.5 for name in NODES)

    most = {
        name: max(json.loads(path.read_text())["fallback_w"].values())
        for name, path in zip(NODES, fallbacks(), strict=True)
    }
    assert all(watts < 600 for watts in most.values()), most
    took_s = await until(fallen, LEASE_S + 5.0, lambda: (most, place.told("gpu-1")))
    assert took_s <= LEASE_S + 1.5, took_s
    # A driver that is loaded anew puts boards at their default: not for long.
    place.gpus["gpu-1"].state.reload_driver()
    await until(lambda: max(place.limits_w("gpu-1")) > 600, 5, lambda: place.limits_w("gpu-1"))
    await until(lambda: max(place.limits_w("gpu-1")) <= most["gpu-1"] + 0.5, 5, lambda: place.limits_w("gpu-1"))
    place.start("site")
    await until(full, 40, lambda: (place.boards_w(), place.told("site"), place.told("gpu-1")))


async def test_node_that_is_revoked_is_thrown_out_and_cannot_come_back(place: Place) -> None:
    await running(place, 9000.0)
    done = await asyncio.to_thread(place.call, "site", "node", "revoke", "gpu-2")
    assert done.returncode == 0, done.stderr
    took_s = await until(lambda: place.live()["gpu-2"]["link"] == "down", 5, place.live)
    print("revoked after", took_s)
    assert place.nodes()["gpu-2"]["state"] == "revoked"
    await until(lambda: "revoked" in place.told("gpu-2"), 5, lambda: place.told("gpu-2"))
    again = await asyncio.to_thread(place.call, "site", "node", "revoke", "nobody")
    assert (again.returncode, len(again.stderr.splitlines())) == (4, 1)


async def test_commands_say_how_a_node_stands(place: Place) -> None:
    await running(place, 9000.0)
    checked = await asyncio.to_thread(place.call, "gpu-1", "check-config", "--json")
    assert json.loads(checked.stdout)["notes"] == ["node gpu-1 of site falcon-1"], checked.stdout
    examined = await asyncio.to_thread(place.call, "gpu-1", "doctor", "--json")
    outcomes = {one["name"]: one["outcome"] for one in json.loads(examined.stdout)["checks"]}
    assert (outcomes["GPUs"], outcomes["identity"], outcomes["site agent"]) == ("ok", "ok", "ok"), outcomes
    assert examined.returncode == 0, examined.stdout

    def connected() -> bool:
        done = place.call("gpu-1", "status", "--json")
        shape = json.loads(done.stdout)
        return shape["running"] and shape["link"] == "connected" and shape["device_count"] == GPUS

    await until(connected, 15, lambda: place.call("gpu-1", "status").stdout)
    wrong = await asyncio.to_thread(place.call, "gpu-1", "node-token", "create", "gpu-2")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1), wrong.stderr
    unknown = await asyncio.to_thread(place.call, "site", "node-token", "create", "gpu-9")
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (4, 1), unknown.stderr


@pytest.mark.parametrize("place", [True], indirect=True)
async def test_guard_of_a_killed_node_brings_its_fallbacks_and_the_site_counts_them_then(place: Place) -> None:
    place.start_guard()
    processes = await running(place, 9000.0)
    full = lambda: all(min(place.limits_w(name)) > 600 for name in NODES)  # noqa: E731
    await until(full, 30, lambda: (place.boards_w(), place.told("site"), place.told("gpu-1")))
    # Boards start at their default: only once the node has told its fallbacks does the site count on them.
    holds = lambda: (place.live()["gpu-1"].get("fallback_w") or 9e9) < 4 * 500  # noqa: E731
    await until(holds, 30, lambda: (place.live(), place.told("site"), place.told("gpu-1")))
    before = place.limits_w("gpu-1")
    processes["gpu-1"].kill()
    charged = lambda: float(place.live()["gpu-1"]["limit_w"])  # noqa: E731
    fallen = lambda: max(place.limits_w("gpu-1")) < 500  # noqa: E731

    def counted() -> bool:
        assert all(now <= old for now, old in zip(place.limits_w("gpu-1"), before, strict=True)), "a limit rose"
        watts, really_w = charged(), sum(place.limits_w("gpu-1"))
        assert watts == 0.0 or watts >= really_w - 1.0, "charged less than its boards may draw"
        return 0.0 < watts < 4 * 500

    await until(counted, 30, lambda: (place.live(), place.told("guard")))
    assert fallen()
