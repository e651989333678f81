"""Composition root of the agent's process: settings in, one site running, clean end on SIGTERM and SIGINT.

What a machine does not have (miners, GPUs, a meter, a controller) is said once and left out; the host always reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from agent.ai.assembly import make_desk
from agent.ai.runner import AiDesk
from agent.backends import Coils, Fallbacks, Meter, MeterSample, Miners, PoolReading, Pools, RowArray, SiteInventory
from agent.commissioner import Commissioner
from agent.exporter import AgentExporter
from agent.hardware import Beats, Hardware
from agent.identity.files import Addresses, read_addresses
from agent.identity.upkeep import Upkeep
from agent.local_control import Handler
from agent.settings import AgentSettings
from agent.site import MOST_RATIO, SiteAgent
from agent.stage_record import meter_mark
from agent.status import status_of
from agent.uplink.session import UplinkTarget
from gridpivot.clock import Clock, Instant, SystemClock
from gridpivot.columns import DeviceTable
from gridpivot.curves import AiPool
from gridpivot.errors import GridpivotError, Refused, SettingsError
from gridpivot.httpd import HttpServer, answer
from gridpivot.limits import raise_file_limit
from gridpivot.link.credentials import KeyPair, client_credentials, read_public, read_secret
from gridpivot.vocabulary import EventKind, Mode, Stage

log = structlog.get_logger("agent.service")
STATUS_BEAT_S = 5.0
SETTLED_AFTER_S = 90.0  # a first sweep with its slow facts, and a moment
LOCK_TRIES = 5
LOCK_LOOK_S = 0.5  # how often a waiting agent looks

Say = Callable[[EventKind, str], None]


class NoMiners:
    """A machine without miners."""

    def refresh(self, table: DeviceTable, polled_at_s: np.ndarray, now: Instant) -> None:
        """Nothing to read."""

    def command(self, rows: RowArray, mode: Mode, now: Instant) -> None:
        """Nothing to command."""


class NoPools:
    """A machine without GPUs."""

    def read(self, now: Instant) -> Sequence[PoolReading]:
        """No pools."""
        return ()

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        """Nothing to limit."""


class NoMeter:
    """A site without a meter: every figure stays an estimate."""

    def newest(self) -> MeterSample | None:
        """Never a sample."""
        return None


@dataclass(slots=True)
class Equipment:
    """What was found on this machine: faces, background work, and what is missing."""

    miners: Miners = field(default_factory=NoMiners)
    pools: Pools = field(default_factory=NoPools)
    meter: Meter = field(default_factory=NoMeter)
    fans: Coils | None = None
    switches: Coils | None = None
    fallbacks: Fallbacks | None = None
    ai: AiDesk | None = None
    inventory: SiteInventory = field(
        default_factory=lambda: SiteInventory((), np.zeros(0, np.uint8), (), np.zeros(0, np.uint16), b"", ())
    )
    work: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    telling: list[Callable[[Say], Coroutine[Any, Any, None]]] = field(default_factory=list)  # work that says events
    handlers: dict[str, Handler] = field(default_factory=dict)  # of the local control
    missing: list[str] = field(default_factory=list)

    def hardware(self, settings: AgentSettings) -> Hardware:
        """The faces, with what the settings say of the meter's counter."""
        most_w = MOST_RATIO * settings.policy().protection_w
        counter = None if settings.meter is None else settings.meter.counter(most_w)
        return Hardware(self.miners, self.pools, self.meter, self.fans, self.switches, counter, self.fallbacks, self.ai)


def find_equipment(settings: AgentSettings, clock: Clock) -> Equipment:
    """Open what settings name; imports of device libraries happen here, so that a bare machine pays for none."""
    found = Equipment()
    declared: tuple[AiPool, ...] = ()
    scraped = [pool for pool in settings.gpu.pools if pool.dcgm is not None]
    local = [pool for pool in settings.gpu.pools if pool.dcgm is None and not pool.nodes]
    noded = [pool for pool in settings.gpu.pools if pool.nodes]
    if local:
        from agent.gpu.pools import open_pools

        side = open_pools(settings.gpu.model_copy(update={"pools": tuple(local)}))
        found.missing += side.missing
        if side.pools is not None:
            found.pools, declared = side.pools, side.declared
            found.work.append(side.pools.run)
            if settings.gpu.guard_socket is not None:
                found.fallbacks = side.pools
    elif not scraped and not noded:
        found.missing.append("no GPU pools in settings ([[gpu.pools]])")
    parts: list[tuple[Pools, int]] = [(found.pools, len(declared))] if declared else []
    holders = [found.fallbacks] if declared else []
    if noded:
        from agent.nodes.assembly import open_nodes

        nodes = open_nodes(settings, clock)
        parts.append((nodes.pools, len(nodes.pools.declared)))
        holders.append(nodes.pools)
        declared = (*declared, *nodes.pools.declared)
        found.missing += nodes.pools.missing
        found.work.append(nodes.run)
        found.handlers |= nodes.handlers
    if scraped:
        from agent.gpu.scraped import ScrapedPools

        exporters = ScrapedPools(scraped, clock)
        parts.append((exporters, len(exporters.declared)))
        holders.append(None)
        declared = (*declared, *exporters.declared)
        found.work.append(exporters.run)
    if len(parts) == 1:
        found.pools, found.fallbacks = parts[0][0], holders[0]
    elif parts:
        from agent.gpu.many import ManyPools

        many = ManyPools(parts, holders)
        found.pools, found.fallbacks = many, many if any(holder is not None for holder in holders) else None
    pool_meters = {p.name: p.meter for p in settings.gpu.pools if p.meter is not None}
    if declared and pool_meters:
        from agent.gpu.metered import MeteredPools
        from agent.meter import ModbusMeter

        meters = {n: ModbusMeter(pool_meters[p.name]) for n, p in enumerate(declared) if p.name in pool_meters}
        found.pools = MeteredPools(found.pools, meters)
        found.work += [one.run for one in meters.values()]
    if declared:
        acting = settings.governor.stage in (Stage.SHED_ONLY, Stage.FULL)
        found.ai = make_desk(settings.gpu.pools, declared, found.pools, settings.state_dir, clock, acting)
    if settings.asic.inventory is not None:
        from agent.asic.inventory import load_inventory
        from agent.asic.patrol import LockKeeper, Patrol, follow_credentials
        from agent.asic.poller import AsicPoller

        asic = load_inventory(settings.asic.inventory, declared)
        acts = settings.governor.stage in (Stage.SHED_ONLY, Stage.FULL)
        poller = AsicPoller(asic, settings.asic, settings.asic.keyring(), prepares=acts)
        found.miners, found.inventory = poller, asic.site
        keeper = LockKeeper(settings.state_dir, poller)  # reads the locks now, before anything can be commanded
        found.work.append(poller.run)
        found.telling.append(keeper.run)
        if settings.asic.discovery.ranges:
            found.telling.append(Patrol(settings.asic, poller, clock).run)
        if settings.asic.credentials_file is not None:
            found.work.append(lambda: follow_credentials(settings.asic, poller))
    else:
        empty = np.zeros(0, np.uint8)
        found.inventory = SiteInventory((), empty, (), np.zeros(0, np.uint16), b"", declared)
        found.missing.append("no miners in settings (asic.inventory)")
    if settings.meter is not None:
        from agent.meter import ModbusMeter

        meter = ModbusMeter(settings.meter)
        found.meter = meter
        found.work.append(meter.run)
    else:
        found.missing.append("no site meter in settings ([meter])")
    if settings.fans or settings.switches:
        from agent.coils import ModbusCoils

        if settings.fans:
            fans = ModbusCoils({fan.container: fan for fan in settings.fans})
            found.fans = fans
            found.work.append(fans.run)
        if settings.switches:
            switches = ModbusCoils({f"{switch.level}:{switch.name}": switch for switch in settings.switches})
            found.switches = switches
            found.work.append(switches.run)
    if addresses_of(settings) is None:
        found.missing.append("no controller in settings (uplink.address), and not enrolled: this site works alone")
    return found


def load_planner_keys(directory: Path) -> dict[str, Ed25519PublicKey]:
    """Planner keys by id from <key_id>.pub files; an empty directory means that no plan is ever believed."""
    keys: dict[str, Ed25519PublicKey] = {}
    for path in sorted(directory.glob("*.pub")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: not a public key: {error}; enrol this site again") from error
        if not isinstance(key, Ed25519PublicKey):
            raise SettingsError(f"{path}: not an Ed25519 key; enrol this site again")
        keys[path.stem] = key
    return keys


def uplink_target(settings: AgentSettings) -> UplinkTarget | None:
    """Where to dial, with this site's certificate; None when the site works alone."""
    uplink, addresses = settings.uplink, addresses_of(settings)
    if addresses is None:
        return None
    own = KeyPair(read_secret(settings.path(uplink.key)), read_public(settings.path(uplink.certificate)))
    credentials = client_credentials(read_public(settings.path(uplink.ca)), own)
    return UplinkTarget(addresses.session, credentials, settings.site)


def addresses_of(settings: AgentSettings) -> Addresses | None:
    """Where the controller is: settings first, then what enrolment wrote down; None = this site works alone."""
    uplink, enrolled = settings.uplink, read_addresses(settings.state_dir)
    session = uplink.address or (enrolled.session if enrolled is not None else None)
    if session is None:
        return None
    operator = uplink.operator_address or (enrolled.operator if enrolled is not None else None)
    return Addresses(session, operator or f"{session.rpartition(':')[0]}:7444")


def upkeep_of(settings: AgentSettings, agent: SiteAgent, clock: Clock) -> Upkeep | None:
    """Who keeps the certificate alive; None where there is no link, or somebody else's files."""
    uplink, addresses = settings.uplink, addresses_of(settings)
    if addresses is None or not uplink.managed:
        return None

    def rotate() -> None:
        target = uplink_target(settings)
        if target is not None and agent.uplink is not None:
            agent.book.trust(load_planner_keys(settings.path(uplink.planner_keys)))
            agent.uplink.rotate(target)

    paths = settings.path(uplink.ca), settings.path(uplink.certificate), settings.path(uplink.key)
    return Upkeep(settings.site, settings.state_dir, addresses, paths, clock, rotate, agent.say)


def take_lock(state_dir: Path) -> TextIO:
    """One agent per state directory; raises Refused while another lives."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / "lock").open("a+")
    except OSError as error:
        raise SettingsError(f"{state_dir}: {error.strerror}; correct its owner, or give --state-dir") from error
    if not _locked(lock):
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise Refused(f"{state_dir}: another agent (pid {holder}) is running here; stop it first")
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _locked(lock: TextIO) -> bool:
    """Take the lock; `status` holds it for a moment when it looks, so one try is not enough."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.05)
    return False


async def wait_for_lock(state_dir: Path, stop: asyncio.Event, *, wait: bool) -> TextIO | None:
    """The lock, once whoever holds it has ended; nothing is touched meanwhile. None when we are to stop.

    Without `wait` it raises Refused while another lives.
    """
    if not wait:
        return take_lock(state_dir)
    said = ""
    while not stop.is_set():
        try:
            return take_lock(state_dir)
        except Refused as error:
            if str(error) != said:
                log.warning("waiting for another agent to end", why=str(error))
            said = str(error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOCK_LOOK_S):
                await stop.wait()
    return None


async def serve(settings: AgentSettings, clock: Clock | None = None, *, wait: bool = False) -> None:
    """Run until SIGTERM or SIGINT. `wait`: for another agent in this state directory to end, instead of Refused."""
    clock = clock or SystemClock()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lock = await wait_for_lock(settings.state_dir, stop, wait=wait)
    if lock is None:
        return
    with contextlib.closing(lock):
        raise_file_limit()
        equipment = find_equipment(settings, clock)
        for line in equipment.missing:
            log.info("not found", what=line)
        agent = SiteAgent(
            settings.site,
            settings.policy(),
            equipment.inventory,
            equipment.hardware(settings),
            uplink_target(settings),
            load_planner_keys(settings.path(settings.uplink.planner_keys)),
            settings.state_dir,
            clock,
            Beats(settings.governor.beat_s, settings.report.rollup_s, settings.report.devices_s),
            settings.governor.event_lead_s,
            Commissioner(
                equipment.inventory,
                settings.state_dir,
                settings.governor.stage,
                meter_mark(settings.meter),
                required=settings.governor.commissioning,
            ),
        )
        agent.more_handlers = equipment.handlers
        exporter = AgentExporter(agent, equipment.miners, clock, per_device=settings.http.per_device_series)
        http = HttpServer(
            {"/metrics": exporter.metrics, "/healthz": answer("ok"), "/readyz": exporter.ready},
            settings.http.host,
            settings.http.port,
        )
        try:
            port = await http.start()
        except OSError as error:
            where = f"{settings.http.host}:{settings.http.port}"
            raise GridpivotError(f"{where}: {error.strerror}; change http.port or stop what listens there") from error
        log.info(
            "agent up",
            site=settings.site,
            http=f"http://{settings.http.host}:{port}/metrics",
            stage=agent.policy.stage.value,
        )
        governor = settings.governor
        if agent.policy.stage is Stage.FULL and not governor.wake_batch_devices and not governor.wake_interval_s:
            told = "no interval and no count: machines wake as fast as power allows; set wake_interval_s or wake_batch_devices"
            log.warning("wakes come at once", why=told)
        tasks = [asyncio.create_task(work()) for work in (*equipment.work, agent.run)]
        tasks += [asyncio.create_task(work(agent.say)) for work in equipment.telling]
        upkeep = upkeep_of(settings, agent, clock)
        if upkeep is not None:
            agent.certificate = upkeep.state
            tasks.append(asyncio.create_task(upkeep.run()))
        tasks.append(asyncio.create_task(_keep_status(agent, settings, clock)))
        tasks.append(asyncio.create_task(_settle_memory()))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # a part that ended on its own has failed: say how
        finally:
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)
            await http.stop()
            log.info("agent down", site=settings.site)


async def _keep_status(agent: SiteAgent, settings: AgentSettings, clock: Clock) -> None:
    """Leave a status behind for `gridpivot-agent status`, which works while the agent is down.

    A disk that refuses is said once and costs the file, never the agent.
    """
    said = False
    while True:
        if agent.actions is not None:
            shape = status_of(agent, clock.now())
            try:
                await asyncio.to_thread(replace_text, settings.state_dir / "status.json", shape.model_dump_json())
                said = False
            except OSError as error:
                if not said:
                    log.warning("status not written", why=str(error))
                said = True
        await asyncio.sleep(STATUS_BEAT_S if agent.actions is not None else 0.1)


async def _settle_memory() -> None:
    """Take what the first sweeps brought out of the garbage collector's sight: eleven thousand devices' memories live as
    long as the process, and looking through them again and again would hold the event loop for a tenth of a second."""
    await asyncio.sleep(SETTLED_AFTER_S)
    gc.collect()
    gc.freeze()
    await asyncio.Event().wait()


def replace_text(path: Path, text: str) -> None:
    """Write whole or not at all; the same neighbour each time, so that a full disk is not littered."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def read_status(state_dir: Path) -> dict[str, Any] | None:
    """What the agent left behind, None when it never ran here."""
    try:
        loaded = json.loads((state_dir / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def is_running(state_dir: Path) -> bool:
    """Whether an agent holds the state directory now."""
    try:
        with (state_dir / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no such file, or none that we may read: nobody is known to run here
    return False
