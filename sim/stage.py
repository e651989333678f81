"""The demo on stage: start the processes in order, tell the story, show the wall, end everything, measure.

The one place of the demo that knows the whole; each step is a method that reads as a sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from gridpivot.errors import GridpivotError
from gridpivot.link.credentials import client_credentials
from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import operator_pb2_grpc
from sim import staging
from sim.aftermath import agent_counters, count_lost, spool_figures, use_of
from sim.children import Child, Line, wait_for_log
from sim.fleet import REGIONS, SiteSpec, classes, inventory_of, site_specs
from sim.scenario import SCENARIOS, Scenario
from sim.storyteller import Line as ApiLine
from sim.storyteller import Storyteller
from sim.summary import Measured, build

CONNECT_DEADLINE_S = 90.0
CALL_DEADLINE_S = 5.0
LINE_EVERY_S = 5.0
STORY_S = 120.0  # without a duration the story is told again and again at this length


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for."""

    sites: int
    devices: int
    duration_s: float | None
    scenario: str
    prices: Path | None
    hashprice: Path | None
    start_unix_s: float | None
    speed: float
    seed: int
    wire_miners: int
    wire_gpus: int
    hosts: int
    summary_wanted: bool


class Stage:
    """One performance."""

    def __init__(self, directory: Path, wishes: Wishes, *, quiet: bool) -> None:
        self._directory, self._wishes, self._quiet = directory, wishes, quiet
        self._specs = site_specs(wishes.sites, wishes.devices, wishes.seed, wishes.wire_miners)
        self._wire = wishes.wire_miners > 0
        self._virtual = self._specs[1:] if self._wire else self._specs
        self._story_s = wishes.duration_s or STORY_S
        self._scenario: Scenario = SCENARIOS[wishes.scenario](self._specs, self._story_s, wishes.seed, wishes.speed)
        self._stop = asyncio.Event()
        self._summarised = asyncio.Event()
        self._controller = Child("controller", directory / "controller.log")
        self._agent: Child | None = None
        self._hosts: list[Child] = []
        self._wire_host: Child | None = None
        self._connected: dict[str, int] = {}
        self._summaries: dict[str, Line] = {}
        self._wire_up: asyncio.Future[Line] | None = None
        self._ports: Line = {}
        self._began_unix_s = 0.0
        self._stub: operator_pb2_grpc.OperatorServiceAsyncStub | None = None
        self._token = ""
        self._wire_ceiling_w = 0.0
        self._http: list[str] = []

    async def perform(self) -> dict[str, Any] | None:
        """From an empty directory to the summary; every child is gone when this returns."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        try:
            async with asyncio.timeout(None):
                return await self._perform()
        finally:
            await asyncio.gather(*(child.stop() for child in self._children()))

    def _children(self) -> list[Child]:
        some = [self._agent, self._wire_host, *self._hosts, self._controller]
        return [child for child in some if child is not None]

    async def _perform(self) -> dict[str, Any] | None:
        self._say(f"{self._wishes.sites} sites of {self._wishes.devices} miners; state in {self._directory}")
        staging.make_identities(self._directory, self._specs)
        began_s = time.monotonic()
        await self._start_controller()
        await self._start_sites()
        channel = self._open_channel()
        try:
            connected_s = await self._wait_connected(began_s)
            if connected_s is None:
                return None
            go_s = time.monotonic() + 0.2
            for child in (*self._hosts, *([self._wire_host] if self._wire_host else [])):
                child.tell(op="go", at_s=go_s, repeat_s=self._story_s if self._wishes.duration_s is None else None)
            story = asyncio.create_task(self._storyteller().tell(go_s))
            try:
                reporting = await self._watch(go_s)
            finally:
                story.cancel()
                await asyncio.gather(story, return_exceptions=True)
            if not self._wishes.summary_wanted:
                return None
            return await self._settle(connected_s, reporting, time.monotonic() - go_s)
        finally:
            await channel.close()

    # ---- starting ---------------------------------------------------------------------------------------------

    async def _start_controller(self) -> None:
        wishes, directory = self._wishes, self._directory
        self._began_unix_s = time.time()
        for region, (_, base) in REGIONS.items():
            staging.write_prices(staging.price_file(directory, region), [(self._began_unix_s - 3600.0, base)])
        markets = staging.Markets(wishes.prices, wishes.hashprice, wishes.start_unix_s, wishes.speed)
        specs = list(self._specs)
        config = staging.write_controller_settings(directory, specs, markets)
        await self._controller.start(staging.entry("controller.cli", "run", "--config", str(config)))
        self._ports = await wait_for_log(self._controller, "controller up", 30.0)
        self._http.append(f"http://127.0.0.1:{self._ports['http']}/metrics (controller)")

    async def _start_sites(self) -> None:
        address = f"127.0.0.1:{self._ports['session']}"
        wishes, directory = self._wishes, self._directory
        paths = staging.write_host_specs(directory, address, self._virtual, self._scenario, wishes.hosts, wishes.speed)
        for path in paths:
            name = path.stem
            child = Child(name, directory / f"{name}.log", partial(self._on_line, name))
            await child.start(staging.entry("sim.host", str(path)))
            self._hosts.append(child)
        if self._wire:
            await self._start_wire_site(address)

    async def _start_wire_site(self, address: str) -> None:
        wishes, spec = self._wishes, self._specs[0]
        path = self._directory / "wire.json"
        raw = {
            "directory": str(self._directory),
            "parent_pid": os.getpid(),
            "spec": asdict(spec),
            "story": self._scenario.stories[spec.name].to_json(),
            "miners": wishes.wire_miners,
            "gpus": wishes.wire_gpus,
            "speed": wishes.speed,
        }
        path.write_text(json.dumps(raw), encoding="utf-8")
        self._wire_up = asyncio.get_running_loop().create_future()
        self._wire_host = Child("wire", self._directory / "wire.log", partial(self._on_line, "wire"))
        await self._wire_host.start(staging.entry("sim.wire_site", str(path)))
        while not self._wire_up.done():
            self._wire_host.check()
            await asyncio.wait([self._wire_up], timeout=0.2)
        wire = self._wire_up.result()
        self._wire_ceiling_w = wire["ceiling_w"]
        if wishes.wire_gpus and not wire["gpus"]:
            self._say("no C compiler and no ziglang here: the wire site runs without GPUs")
        config = staging.write_agent_settings(self._directory, spec, address, wire)
        environ = {}
        if wire["gpus"]:
            environ = {"LD_LIBRARY_PATH": wire["library_dir"], "GRIDPIVOT_SIM_NVML_STATE": wire["gpu_state"]}
        self._agent = Child("agent", self._directory / "agent.log")
        await self._agent.start(staging.entry("agent.cli", "run", "--config", str(config)), environ)
        up = await wait_for_log(self._agent, "agent up", 30.0)
        self._http.append(f"{up['http']} (agent of {spec.name})")

    def _on_line(self, name: str, line: Line) -> None:
        match line.get("kind"):
            case "up" if name == "wire" and self._wire_up is not None and not self._wire_up.done():
                self._wire_up.set_result(line)
            case "beat":
                self._connected[name] = line["connected"]
            case "summary":
                self._summaries[name] = line
                self._summarised.set()
                (self._directory / f"summary-{name}.json").write_text(json.dumps(line), encoding="utf-8")

    def _open_channel(self) -> grpc.aio.Channel:
        ca_pem = (self._directory / "ca.crt").read_bytes()
        self._token = (self._directory / "controller" / "operator.token").read_text().strip()
        channel = grpc.aio.secure_channel(
            f"127.0.0.1:{self._ports['operator']}",
            client_credentials(ca_pem, None),
            options=[("grpc.max_receive_message_length", 32 * 2**20)],
        )
        self._stub = operator_pb2_grpc.OperatorServiceStub(channel)
        return channel

    def _storyteller(self) -> Storyteller:
        assert self._stub is not None
        return Storyteller(
            self._scenario,
            ApiLine(self._stub, (("authorization", f"Bearer {self._token}"),)),
            self._directory,
            self._virtual,
            self._hosts,
            story_s=self._story_s,
            repeat=self._wishes.duration_s is None,
            speed=self._wishes.speed,
            began_unix_s=self._began_unix_s,
            may_move_prices=self._wishes.prices is None,
        )

    async def _list_sites(self) -> op.ListSitesResponse:
        assert self._stub is not None
        return await self._stub.ListSites(
            op.ListSitesRequest(),
            timeout=CALL_DEADLINE_S,
            metadata=(("authorization", f"Bearer {self._token}"),),
        )

    async def _wait_connected(self, began_s: float) -> float | None:
        """Seconds from the first process to the last site connected; None when the user ended it first."""
        while not self._stop.is_set():
            for child in self._children():
                child.check()
            answer = await self._list_sites()
            elapsed_s = time.monotonic() - began_s
            if answer.fleet.sites_connected >= self._wishes.sites:
                self._say(f"all {self._wishes.sites} sites connected after {elapsed_s:.1f} s")
                return elapsed_s
            if elapsed_s > CONNECT_DEADLINE_S:
                raise GridpivotError(
                    f"{answer.fleet.sites_connected} of {self._wishes.sites} sites connected in {elapsed_s:.0f} s; "
                    "see the logs (--keep DIR keeps them)"
                )
            await self._sleep(0.5)
        return None

    # ---- watching ---------------------------------------------------------------------------------------------

    async def _watch(self, go_s: float) -> int:
        """Show the wall until the duration is over; returns the most devices that reported at once."""
        reporting = 0
        end_s = None if self._wishes.duration_s is None else go_s + self._wishes.duration_s
        with contextlib.ExitStack() as stack:
            draw = self._wall(stack)
            while not self._stop.is_set() and (end_s is None or time.monotonic() < end_s):
                for child in self._children():
                    child.check()
                answer = await self._list_sites()
                reporting = max(reporting, answer.fleet.devices_reporting)
                draw(answer, time.monotonic() - go_s)
                pause_s = 1.0 if end_s is None else min(1.0, max(0.0, end_s - time.monotonic()))
                await self._sleep(pause_s)
        return reporting

    def _wall(self, stack: contextlib.ExitStack) -> Any:
        """A function that draws: the live table on a terminal, a line every 5 s elsewhere, nothing when quiet."""
        from sim.view import fleet_line, screen

        urls = "  ".join(self._http)
        if self._quiet:
            return lambda answer, elapsed_s: None
        if sys.stdout.isatty():
            from rich.live import Live

            live = stack.enter_context(Live(screen=False, auto_refresh=False, vertical_overflow="crop"))
            return lambda answer, elapsed_s: live.update(
                screen(answer, f"gridpivot demo, {elapsed_s:.0f} s, Ctrl-C ends", urls), refresh=True
            )
        self._say(urls)
        last = [-LINE_EVERY_S]

        def line(answer: op.ListSitesResponse, elapsed_s: float) -> None:
            if elapsed_s - last[0] >= LINE_EVERY_S:
                last[0] = elapsed_s
                self._say(f"{elapsed_s:5.0f} s  {fleet_line(answer)}  {answer.fleet.last_dispatch_reason}")

        return line

    def _say(self, text: str) -> None:
        if not self._quiet:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    async def _sleep(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stop.wait()

    # ---- the end ----------------------------------------------------------------------------------------------

    async def _settle(self, connected_s: float, reporting: int, duration_s: float) -> dict[str, Any]:
        """Stop deciding, let the spools drain, end the processes, read what is on disk, build the summary."""
        answer = await self._list_sites()
        controller, agent = use_of(self._controller), use_of(self._agent)
        counters = await agent_counters(self._http[1].split(" ")[0]) if self._agent else {}
        for child in (*self._hosts, *([self._wire_host] if self._wire_host else [])):
            child.tell(op="stop")
        await self._wait_summaries()
        answer = await self._list_sites()
        await asyncio.gather(*(child.stop() for child in self._children()))
        findings = [site for line in self._summaries.values() for site in line["sites"]]
        if self._agent is not None:
            spool = self._directory / "sites" / self._specs[0].name / "state" / "spool.sqlite"
            wire = next(f for f in findings if f["site"] == self._specs[0].name)
            wire.update(await asyncio.to_thread(spool_figures, spool))
        lost = await asyncio.to_thread(count_lost, self._directory / "controller" / "controller.db", findings)
        measured = Measured(
            sites=self._wishes.sites,
            devices=sum(s.devices for s in self._virtual) + (self._wishes.wire_miners if self._wire else 0),
            sites_connected=self._wishes.sites,  # _wait_connected has seen them all
            sites_connected_s=connected_s,
            devices_reporting=reporting,
            reports_received=answer.fleet.reports_received,
            reports_lost=lost,
            controller_rss_mb=controller.rss_mb,
            controller_cpu_s=controller.cpu_s,
            agent_rss_mb=agent.rss_mb if self._agent else None,
            host_rss_mb_max=max((line["rss_mb"] for line in self._summaries.values()), default=0.0),
            duration_s=duration_s,
            shed_s_max=self._shed_s_max(),
            agent_commands=counters.get("gridpivot_commands_total", 0),
            agent_commands_confirmed=counters.get("gridpivot_commands_confirmed_total", 0),
            agent_commands_open=0,
            full_tour=self._wishes.sites >= 40 and duration_s >= 85.0,
        )
        return build(findings, measured)

    def _shed_s_max(self) -> float:
        """Slowest family among the devices of the sites whose ceiling was lowered [s]."""
        names = {name for call in self._scenario.calls for name in call.sites}
        specs: list[SiteSpec] = [s for s in self._specs if s.name in names]
        return max((c.shed_s for s in specs for c in inventory_of(s).classes), default=max(c.shed_s for c in classes()))

    async def _wait_summaries(self) -> None:
        expected = len(self._hosts) + (self._wire_host is not None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20.0):
                while len(self._summaries) < expected:
                    self._summarised.clear()
                    await self._summarised.wait()
                return
        silent = [c.name for c in (*self._hosts, self._wire_host) if c is not None and c.name not in self._summaries]
        raise GridpivotError(f"no summary from {', '.join(silent)}; see the logs (--keep DIR keeps them)")
