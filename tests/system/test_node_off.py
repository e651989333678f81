"""Node off and on as real processes: the site's agent, two GPU hosts over the stand-in NVML, BMCs over TLS, a scheduler script.

A host that is shut down takes its node process with it; one that is switched on starts it, with boards at their default.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from agent.bmc.trust import fingerprint
from agent.local_control import ask
from sim.meter import SimMeter
from sim.redfish.bmc import SimBmc, SimHost
from sim.tls_port import TlsPort
from tests.system.test_node import GPUS, HOST_W, NODES, Place, until

pytestmark = pytest.mark.system

SCHEDULER = Path(__file__).parents[1] / "unit" / "ai" / "scheduler.py"
# A node is half of the load here: the site meter, which shows its step a second late, is believed by a share of the ceiling.
CEILING_W, STANDBY_W = 30_000.0, 40.0
TIGHT_W = 5500.0  # one node at work and the most of another need 6400 W


class Rack(Place):
    """The nodes of `Place` behind BMCs, under a scheduler."""

    def __init__(self, place: Path) -> None:
        super().__init__(place, guarded=False)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.hosts = {name: SimHost(draw_w=lambda name=name: self.node_w(name), standby_w=STANDBY_W) for name in NODES}
        self.bmc_ports = {name: TlsPort(SimBmc(host)) for name, host in self.hosts.items()}
        self.file = place / "scheduler.json"
        nodes = [{"name": name, "gpus": GPUS, "busy_gpus": 0, "held_by": ""} for name in NODES]
        state = {"nodes": nodes, "jobs": [], "paused": [], "admission_held_by": "", "until": {}}
        self.file.write_text(json.dumps(state))

    def node_w(self, name: str) -> float:
        return self.gpus[name].state.power_w() + GPUS * HOST_W

    def power_w(self) -> float:
        return sum(self.node_w(name) if self.hosts[name].on else STANDBY_W for name in NODES)

    async def open(self) -> None:
        certificate = trustme.CA().issue_cert("127.0.0.1")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(tls)
        pin = fingerprint(ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode()))
        password = self.place / "bmc.password"
        os.close(os.open(password, os.O_WRONLY | os.O_CREAT, 0o600))
        password.write_text("watts\n")
        for port in self.bmc_ports.values():
            await port.open(tls)
        self.site_settings(CEILING_W, self.meter_port)
        verbs = {
            v: json.dumps([sys.executable, str(SCHEDULER), str(self.file), v]) for v in ("status", "pause", "resume")
        }
        commands = "[gpu.pools.commands]\n" + "".join(f"{verb} = {words}\n" for verb, words in verbs.items())
        bmcs = "".join(
            f'[[gpu.pools.bmcs]]\nnode = "{name}"\nurl = "https://127.0.0.1:{port.port}"\nusername = "meter"\n'
            f'password_file = "{password}"\npin_sha256 = "{pin}"\nbeat_s = 2\n'
            for name, port in self.bmc_ports.items()
        )
        config = self.place / "site.toml"
        config.write_text(config.read_text().replace("[http]", f"{bmcs}{commands}[http]"))

    async def machines(self) -> None:
        """A host that goes off takes its process with it; one that comes on has its boards at their default."""
        while True:
            for name, host in self.hosts.items():
                process = self.processes.get(name)
                running = process is not None and process.poll() is None
                if not host.on and running:
                    assert process is not None
                    process.kill()
                    process.wait()
                elif host.on and process is not None and not running:
                    with self.gpus[name].state.settled() as devices:
                        devices["limit_mw"][:] = 700_000
                    self.processes[name] = self.start(name)
            await asyncio.sleep(0.1)

    def held_by(self, name: str) -> str:
        return next(n["held_by"] for n in json.loads(self.file.read_text())["nodes"] if n["name"] == name)


@pytest.fixture
async def rack(tmp_path: Path) -> AsyncIterator[Rack]:
    made = Rack(tmp_path)
    meter = SimMeter(lambda: (made.power_w(), 0.0))
    await meter.start()
    made.meter_port = meter.port
    await made.open()
    for gpus in made.gpus.values():
        gpus.state.set_load(0.0)
    made.start("site")
    await until(lambda: "nodes served" in made.told("site"), 30, lambda: made.told("site"))
    await asyncio.to_thread(made.enrol)
    made.processes = {name: made.start(name) for name in NODES}
    machines = asyncio.create_task(made.machines())
    yield made
    machines.cancel()
    await asyncio.gather(machines, return_exceptions=True)
    for process in made.started:
        process.kill()
        process.wait()
    await meter.stop()
    for port in made.bmc_ports.values():
        await port.close()
    for gpus in made.gpus.values():
        gpus.close()


async def test_a_node_goes_off_by_a_persons_word_and_comes_back_with_its_limits(rack: Rack) -> None:
    measured = lambda: all(one["wall_w"] for one in rack.live().values() if one["link"] == "connected")  # noqa: E731
    up = lambda: all(one["link"] == "connected" for one in rack.live().values())  # noqa: E731
    await until(lambda: up() and measured(), 30, lambda: (rack.live(), rack.told("site")))

    def change(busy: int) -> None:
        state = json.loads(rack.file.read_text())
        state["nodes"][0]["busy_gpus"] = busy
        rack.file.write_text(json.dumps(state))

    change(1)
    refused = await asyncio.to_thread(rack.call, "site", "node", "off", "gpu-1", "--for", "1h", "--why", "filters")
    assert refused.returncode == 4, refused
    assert "1 of its GPUs as busy" in refused.stderr and rack.hosts["gpu-1"].resets == []
    change(0)
    began_s = time.monotonic()
    done = await asyncio.to_thread(rack.call, "site", "node", "off", "gpu-1", "--for", "1h", "--why", "filters")
    assert done.returncode == 0, (done.stderr, rack.told("site"))
    assert "gpu-1 is off: " in done.stdout
    print("off, by its wall power, after", round(time.monotonic() - began_s, 1), "s:", done.stdout.strip())
    assert rack.hosts["gpu-1"].resets == ["GracefulShutdown"] and not rack.hosts["gpu-1"].on
    assert rack.held_by("gpu-1").startswith("gridpivot:off-")
    nodes = await asyncio.to_thread(rack.nodes)
    assert (nodes["gpu-1"]["link"], nodes["gpu-1"]["wall_w"]) == ("off", STANDBY_W)
    doctor = await asyncio.to_thread(rack.call, "site", "doctor", "--json")
    checks = {check["name"]: check["outcome"] for check in json.loads(doctor.stdout)["checks"]}
    assert (checks["BMC of gpu-1"], checks["BMC of gpu-2"]) == ("ok", "ok")

    for gpus in rack.gpus.values():
        gpus.state.set_load(1.0)  # whatever comes up works at once
    await asyncio.to_thread(ask, rack.site_dir, {"op": "shed", "to_w": TIGHT_W, "reason": "test"})
    asked = await asyncio.to_thread(rack.call, "site", "node", "on", "gpu-1", "--no-wait")
    assert asked.returncode == 0, asked.stderr
    until_s = time.monotonic() + 8.0
    while time.monotonic() < until_s:
        (order,) = (await asyncio.to_thread(ask, rack.site_dir, {"op": "node_orders"}))["orders"]
        assert order["state"] in ("off", "wants_room") and not rack.hosts["gpu-1"].on, "no room, no power"
        assert rack.power_w() <= TIGHT_W
    assert order["state"] == "wants_room"
    await asyncio.to_thread(ask, rack.site_dir, {"op": "release"})
    began_s = time.monotonic()
    back = await asyncio.to_thread(rack.call, "site", "node", "on", "gpu-1")
    assert back.returncode == 0, (back.stderr, rack.told("site"))
    print("back with its limits, from room onward, after", round(time.monotonic() - began_s, 1), "s")
    assert rack.hosts["gpu-1"].resets == ["GracefulShutdown", "On"]
    assert rack.held_by("gpu-1") == ""
    live = await asyncio.to_thread(rack.live)
    assert live["gpu-1"]["link"] == "connected"


async def test_a_node_that_is_off_stays_off_when_the_sites_agent_is_killed_and_is_known_to_the_next(rack: Rack) -> None:
    up = lambda: all(one["link"] == "connected" and one["wall_w"] for one in rack.live().values())  # noqa: E731
    await until(up, 30, lambda: (rack.live(), rack.told("site")))
    done = await asyncio.to_thread(rack.call, "site", "node", "off", "gpu-2", "--why", "fan")
    assert done.returncode == 0, (done.stderr, rack.told("site"))
    site = rack.started[0]
    site.kill()
    site.wait()
    rack.start("site")
    known = lambda: rack.live()["gpu-2"]["link"] == "off"  # noqa: E731
    await until(known, 30, lambda: (rack.live(), rack.told("site")))
    assert rack.hosts["gpu-2"].resets == ["GracefulShutdown"]
    back = await asyncio.to_thread(rack.call, "site", "node", "on", "gpu-2")
    assert back.returncode == 0, (back.stderr, rack.told("site"))
    assert rack.hosts["gpu-2"].resets == ["GracefulShutdown", "On"] and rack.held_by("gpu-2") == ""
