"""A site's agent and GPU hosts as real processes over the stand-in NVML: enrolled by token, limited, killed at any moment."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.system.meters import free_port

from sim.gpus import SimGpus
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


class Place:
    """Settings, stand-ins and processes of one test; everything started is ended by its pid."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.started: list[subprocess.Popen[bytes]] = []
        self.gpus: dict[str, SimGpus] = {}
        self.ports = [free_port() for _ in range(2)]
        self.site_dir = place / "site"
        for name in NODES:
            (place / name).mkdir()
            found = SimGpus.open(place / name, GPUS)
            if found is None:
                missing("a C compiler (cc or the package ziglang)")
            assert found is not None
            self.gpus[name] = found
            (place / f"{name}.toml").write_text(
                f'site = "falcon-1"\nrole = "node"\nnode = "{name}"\nstate_dir = "{place / name / "state"}"\n'
                "[gpu]\nbeat_s = 0.5\n[http]\nport = 0\n"
            )

    def site_settings(self, ceiling_w: float, meter: int, stage: str = "full") -> None:
        (self.place / "site.toml").write_text(
            f'site = "falcon-1"\nstate_dir = "{self.site_dir}"\n'
            f'[circuit]\nceiling_w = {ceiling_w}\n[governor]\nstage = "{stage}"\nai_release_after_s = 2\n'
            f'[meter]\nhost = "127.0.0.1"\nport = {meter}\npower_address = 0\npower_type = "float32"\n'
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

    def told(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text(errors="replace")[-6000:]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.wait()
    for gpus in made.gpus.values():
        gpus.close()


def until(true: Callable[[], bool], seconds: float, what: Callable[[], object]) -> float:
    """Wait for something; how long it took [s]."""
    began_s = time.monotonic()
    while not true():
        assert time.monotonic() - began_s < seconds, what()
        time.sleep(0.05)
    return time.monotonic() - began_s
