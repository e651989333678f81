"""What deploy/ ships works: units are tight, alerts fire when they should, every panel shows something true."""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agent.exporter import AgentExporter
from gridpivot.clock import SystemClock
from gridpivot.httpd import HttpServer
from sim.children import Child, wait_for_log
from sim.fleet import SiteSpec
from sim.host import HostSpec
from sim.hosted import HostedSite
from sim.scenario import SiteStory
from tests.conftest import missing

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "gridpivot.yml"
ALERTS = {
    "SiteSilent",
    "CeilingNear",
    "PlanStale",
    "PriceStale",
    "SpoolFilling",
    "MinersFailing",
    "DispatchDegraded",
    "CertificateEnding",
}
EXPOSURE_MAX = 2.0
SITES = ("falcon-1", "oryx-1")
DEVICES = 200
STEP_S = 0.25


def tool(name: str) -> str:
    """Path of a program; skips (fails on CI) without it."""
    found = shutil.which(name)
    if found is None:
        missing(name)
    assert found is not None
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30, check=False)


# ---- systemd --------------------------------------------------------------------------------------------------


def exposure(unit: Path) -> float:
    """Overall exposure level that systemd-analyze gives a unit and its drop-ins."""
    done = run(tool("systemd-analyze"), "security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return float(found.group(1))


@pytest.mark.parametrize(
    ("service", "drop_ins"),
    [
        ("controller", ()),
        ("agent", ()),
        ("agent", ("gpu",)),
        ("agent", ("gpu", "gpu-guard")),
        ("agent", ("gpu", "gpu-limits")),
        ("gpu-guard", ()),
    ],
)
def test_service_is_hardened_with_every_drop_in_that_we_ship(
    tmp_path: Path, service: str, drop_ins: tuple[str, ...]
) -> None:
    unit = shutil.copy(DEPLOY / "systemd" / f"gridpivot-{service}.service", tmp_path)
    for name in drop_ins:
        place = tmp_path / f"gridpivot-{service}.service.d"
        place.mkdir(exist_ok=True)
        shutil.copy(DEPLOY / "systemd" / place.name / f"{name}.conf.example", place / f"{name}.conf")
    assert exposure(Path(unit)) <= EXPOSURE_MAX


@pytest.mark.parametrize("service", ["agent", "controller", "gpu-guard"])
def test_unit_has_no_word_that_systemd_does_not_know(tmp_path: Path, service: str) -> None:
    text = (DEPLOY / "systemd" / f"gridpivot-{service}.service").read_text()
    # verify wants the program to exist: ours is not installed here, /bin/true is.
    unit = tmp_path / f"gridpivot-{service}.service"
    unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    done = run(tool("systemd-analyze"), "verify", unit)
    assert unit.name not in done.stderr, done.stderr


# ---- Prometheus: static ---------------------------------------------------------------------------------------


def test_promtool_accepts_the_scrape_configuration_and_the_rules() -> None:
    promtool = tool("promtool")
    for command in (("config", DEPLOY / "prometheus" / "prometheus.yml"), ("rules", RULES)):
        done = run(promtool, "check", *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"- alert: (\w+)", RULES.read_text())) == ALERTS


def test_each_alert_fires_when_it_should_and_not_when_it_should_not() -> None:
    cases = sorted(RULES.parent.glob("tests/*.yml"))
    text = "".join(path.read_text() for path in cases)
    for alert in ALERTS:
        blocks = re.findall(rf"alertname: {alert}\b[,\s]*exp_alerts:( \[\])?", text)
        assert "" in blocks and " []" in blocks, f"{alert}: needs a case that fires and one that does not"
    done = run(tool("promtool"), "test", "rules", *cases)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the dashboard against a real fleet -----------------------------------------------------------------------


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((DEPLOY / "grafana" / "fleet.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def port_below_32768() -> int:
    """A port that nobody holds now, outside the range that the kernel hands out to clients."""
    for port in random.Random(os.getpid()).sample(range(20_000, 32_000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:
            raise  # not ready yet; its body is plain text
        return json.loads(error.read())


class Prometheus:
    """A running Prometheus, asked over HTTP."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    async def get(self, path: str, **query: Any) -> Any:
        return await asyncio.to_thread(get, f"{self._base}{path}?{urllib.parse.urlencode(query)}")

    async def ready(self) -> bool:
        try:
            return bool((await self.get("/api/v1/status/buildinfo"))["status"] == "success")
        except OSError:
            return False

    async def alerts(self) -> dict[str, tuple[str, str]]:
        """Health and state of each rule by name."""
        groups = (await self.get("/api/v1/rules"))["data"]["groups"]
        return {rule["name"]: (rule["health"], rule["state"]) for group in groups for rule in group["rules"]}

    async def faults(self, target: dict[str, Any]) -> str | None:
        """Why a panel would show nothing, or nonsense; None when it shows figures."""
        query = target["expr"].replace("$site", "|".join(SITES))
        if target["instant"]:
            answer = await self.get("/api/v1/query", query=query)
        else:
            now = time.time()
            answer = await self.get("/api/v1/query_range", query=query, start=now - 3, end=now, step=1)
        if answer["status"] != "success":
            return str(answer["error"])
        series = answer["data"]["result"]
        if not series:
            return "empty"
        values = [value for one in series for _, value in (one.get("values") or [one["value"]])]
        return f"has {values}" if any(value in ("NaN", "+Inf", "-Inf") for value in values) else None


@contextlib.asynccontextmanager
async def controller(place: Path) -> AsyncIterator[dict[str, Any]]:
    """A real controller as its page says: init, then run. Gives its ports."""
    price = place / "prices.csv"
    price.write_text("interval_start_utc,price_usd_per_mwh\n2025-01-01T00:00Z,40\n")
    sites = [
        f'[[sites]]\nname = "{name}"\nregion = "{region}"\nceiling_w = {ceiling_w(DEVICES)}\n'
        for name, region in zip(SITES, ("ercot", "gulf"), strict=True)
    ]
    config = place / "controller.toml"
    config.write_text(
        "\n".join(
            [
                f'state_dir = "{place / "state"}"',
                *("[listen]", 'host = "127.0.0.1"', f"session_port = {free_port()}"),
                *(f"operator_port = {free_port()}", "http_port = 0"),  # tokens carry both addresses
                *sites,
            ]
        )
    )
    command = [str(Path(sys.executable).parent / "gridpivot-controller")]
    done = await asyncio.to_thread(run, *command, "init", "--config", config, "--host", "127.0.0.1")
    assert done.returncode == 0, done.stderr
    child = Child("controller", place / "controller.log")
    await child.start([*command, "run", "--config", str(config)])
    try:
        yield await wait_for_log(child, "controller up", 20.0)
    finally:
        await child.stop()


def ceiling_w(devices: int) -> float:
    return 3_500.0 * devices


def give_identities(place: Path) -> None:
    """Enrolled by token, as a technician would, and laid where a hosted site looks for it."""
    bin_dir = Path(sys.executable).parent
    for name in SITES:
        made = run(
            bin_dir / "gridpivot-controller", "agent-token", "create", name, "--config", place / "controller.toml"
        )
        assert made.returncode == 0, made.stderr
        out = place / "identities" / name
        token = place / f"{name}.token"
        token.write_text(made.stdout)
        done = run(bin_dir / "gridpivot-agent", "enroll", "--token-file", token, "--state-dir", out)
        assert done.returncode == 0, done.stderr
        shutil.copytree(out / "tls", place / "sites" / name)
        shutil.copy(out / "tls" / "ca.crt", place)
        shutil.copytree(out / "planner", place / "planner", dirs_exist_ok=True)


@contextlib.asynccontextmanager
async def sites(place: Path, session_port: int) -> AsyncIterator[list[int]]:
    """Two complete agents on virtual hardware, each with its own /metrics. Gives their HTTP ports."""
    hosted = []
    for index, name in enumerate(SITES):
        spec = SiteSpec(name, "test", index, DEVICES, ceiling_w(DEVICES), False, 7 + index)
        raw = {"spec": asdict(spec), "story": SiteStory(()).to_json()}
        hosted.append(HostedSite(HostSpec(f"127.0.0.1:{session_port}", place, os.getpid(), 1.0), raw))
    servers = []
    for site in hosted:
        await site.open()
        exporter = AgentExporter(site.agent, site.world, SystemClock(), per_device=True)
        servers.append(HttpServer({"/metrics": exporter.metrics}, "127.0.0.1", 0))

    async def step() -> None:
        while True:
            for site in hosted:
                site.step(time.monotonic())
            await asyncio.sleep(STEP_S)

    ports = [await server.start() for server in servers]
    tasks = [asyncio.create_task(step()), *(asyncio.create_task(site.agent.run()) for site in hosted)]
    try:
        yield ports
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            await server.stop()


@contextlib.asynccontextmanager
async def prometheus(place: Path, controller_port: int, agent_ports: list[int]) -> AsyncIterator[Prometheus]:
    """The shipped configuration and rules, faster, on this machine's ports."""
    place.mkdir()
    shutil.copytree(RULES.parent, place / "rules", ignore=shutil.ignore_patterns("tests"))
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    text = re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval): \d+s", r"\1: 1s", text)
    text = text.replace("localhost:9640", f"127.0.0.1:{controller_port}")
    (place / "prometheus.yml").write_text(text)
    rules = place / "rules" / RULES.name
    rules.write_text(rules.read_text().replace("interval: 15s", "interval: 1s"))
    targets = [
        f'- targets: ["127.0.0.1:{port}"]\n  labels: {{site: {name}}}\n'
        for name, port in zip(SITES, agent_ports, strict=True)
    ]
    (place / "agents.yml").write_text("".join(targets))
    port = port_below_32768()
    child = Child("prometheus", place / "prometheus.log")
    options = [
        f"--config.file={place / 'prometheus.yml'}",
        f"--storage.tsdb.path={place / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    await child.start([tool("prometheus"), *options])
    served = Prometheus(port)
    try:
        async with asyncio.timeout(20):
            while not await served.ready():
                child.check()
                await asyncio.sleep(0.1)
        yield served
    finally:
        await child.stop()


@pytest.fixture
def quiet() -> Iterator[None]:
    """The agents in this process log to nowhere."""
    from gridpivot import observability

    with Path(os.devnull).open("w") as nowhere:
        observability.configure("json", "error", nowhere)
        yield
    observability.configure("json", "error")


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("quiet")
async def test_every_panel_shows_figures_of_a_real_fleet_and_no_alert_is_pending(tmp_path: Path) -> None:
    tool("prometheus")
    targets = [(panel["title"], target) for panel in panels() for target in panel["targets"]]
    async with contextlib.AsyncExitStack() as stack:
        ports = await stack.enter_async_context(controller(tmp_path))
        await asyncio.to_thread(give_identities, tmp_path)
        agents = await stack.enter_async_context(sites(tmp_path, ports["session"]))
        served = await stack.enter_async_context(prometheus(tmp_path / "prometheus", ports["http"], agents))
        wanted = dict.fromkeys(ALERTS, ("ok", "inactive"))
        faulty: dict[str, str] = {"not asked yet": ""}
        states: dict[str, tuple[str, str]] = {}
        deadline_s = time.monotonic() + 45.0
        # The first device report may be older than the first sweep; then MinersFailing waits for the second.
        while (faulty or states != wanted) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.5)
            why = {f"{title}: {target['expr']}": await served.faults(target) for title, target in targets}
            faulty = {query: fault for query, fault in why.items() if fault is not None}
            states = await served.alerts()
        assert not faulty, "\n".join(f"{query}\n    {fault}" for query, fault in faulty.items())
        assert states == wanted
        up = await served.get("/api/v1/query", query="min(up)")
        assert up["data"]["result"][0]["value"][1] == "1"
