"""What settings name on this machine, opened: miners, GPU pools, meters, fans and switches, and what is missing.

Imports of device libraries happen here, one kind a function, so that a bare machine pays for none.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.ai.assembly import make_desk
from agent.ai.runner import AiDesk
from agent.backends import Coils, Fallbacks, Meter, MeterSample, Miners, PoolReading, Pools, RowArray, SiteInventory
from agent.hardware import Hardware
from agent.identity.trust import addresses_of
from agent.local_control import Handler
from agent.saying import Say
from agent.settings import AgentSettings
from agent.site import MOST_RATIO
from gridpivot.clock import Clock, Instant
from gridpivot.columns import DeviceTable
from gridpivot.curves import AiPool
from gridpivot.vocabulary import Mode, Stage

if TYPE_CHECKING:
    from agent.bmc.reader import BmcReader  # brings httpx
    from agent.nodes.pools import NodePools


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
    nodes: NodePools | None = None
    bmcs: list[BmcReader] = field(default_factory=list)
    inventory: SiteInventory = field(
        default_factory=lambda: SiteInventory((), np.zeros(0, np.uint8), (), np.zeros(0, np.uint16), b"", ())
    )
    work: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    telling: list[Callable[[Say], Coroutine[Any, Any, None]]] = field(default_factory=list)  # work that says events
    changes: list[Callable[[], Coroutine[Any, Any, str]]] = field(
        default_factory=list
    )  # each ends with what is new here
    handlers: dict[str, Handler] = field(default_factory=dict)  # of the local control
    missing: list[str] = field(default_factory=list)

    def hardware(self, settings: AgentSettings) -> Hardware:
        """The faces, with what the settings say of the meter's counter."""
        most_w = MOST_RATIO * settings.policy().protection_w
        counter = None if settings.meter is None else settings.meter.counter(most_w)
        return Hardware(self.miners, self.pools, self.meter, self.fans, self.switches, counter, self.fallbacks, self.ai)


@dataclass(frozen=True, slots=True)
class _PoolsPart:
    """Pools of one kind of source, with who sets their fallbacks."""

    pools: Pools
    declared: tuple[AiPool, ...]
    fallbacks: Fallbacks | None


def find_equipment(settings: AgentSettings, clock: Clock) -> Equipment:
    """Open what settings name; what is not there is left out and said in `missing`."""
    found = Equipment()
    parts = [
        *_local_pools(settings, clock, found),
        *_node_pools(settings, clock, found),
        *_scraped_pools(settings, clock, found),
    ]
    declared = _join_pools(settings, parts, found)
    if declared:
        found.ai = make_desk(settings.gpu.pools, declared, found.pools, settings.state_dir, clock, _acts(settings))
    _nodes_off(settings, clock, found)
    _miners(settings, declared, clock, found)
    _site_meter(settings, found)
    _coils(settings, found)
    if addresses_of(settings) is None:
        found.missing.append("no controller in settings (uplink.address), and not enrolled: this site works alone")
    return found


def _acts(settings: AgentSettings) -> bool:
    return settings.governor.stage in (Stage.SHED_ONLY, Stage.FULL)


def _local_pools(settings: AgentSettings, clock: Clock, found: Equipment) -> list[_PoolsPart]:
    """GPUs of this machine, through NVML."""
    local = tuple(pool for pool in settings.gpu.pools if pool.dcgm is None and not pool.nodes)
    if not local:
        if not settings.gpu.pools:
            found.missing.append("no GPU pools in settings ([[gpu.pools]])")
        return []
    from agent.gpu.late import more_gpus
    from agent.gpu.opening import open_pools

    own = settings.gpu.model_copy(update={"pools": local})
    side = open_pools(own, clock)
    found.missing += side.missing
    found.changes.append(lambda: more_gpus(own, side.pools, clock))
    if side.pools is None:
        return []
    found.work.append(side.pools.run)
    return [_PoolsPart(side.pools, side.declared, side.pools if settings.gpu.guard_socket is not None else None)]


def _node_pools(settings: AgentSettings, clock: Clock, found: Equipment) -> list[_PoolsPart]:
    """GPUs of hosts that report here (docs/nodes.md)."""
    if not any(pool.nodes for pool in settings.gpu.pools):
        return []
    from agent.nodes.assembly import open_nodes

    nodes = open_nodes(settings, clock)
    found.missing += nodes.pools.missing
    found.work.append(nodes.run)
    found.nodes = nodes.pools
    found.bmcs += nodes.pools.wall.readers
    found.changes.append(nodes.more_gpus)
    found.handlers |= nodes.handlers
    return [_PoolsPart(nodes.pools, nodes.pools.declared, nodes.pools)]


def _nodes_off(settings: AgentSettings, clock: Clock, found: Equipment) -> None:
    """Nodes that a person may switch off and on: those whose BMC this agent asks (docs/redfish.md)."""
    bmcs = {one.node: one for pool in settings.gpu.pools if pool.nodes for one in pool.bmcs}
    if not bmcs or found.nodes is None or found.ai is None:
        return
    from agent.off.by_hand import OffByHand
    from agent.off.desk import OffDesk

    desk = OffDesk(found.nodes, bmcs, found.ai, settings.state_dir, clock)
    found.telling.append(desk.run)
    found.handlers |= OffByHand(desk).handlers


def _scraped_pools(settings: AgentSettings, clock: Clock, found: Equipment) -> list[_PoolsPart]:
    """GPUs behind dcgm-exporters: seen and charged, never limited."""
    scraped = [pool for pool in settings.gpu.pools if pool.dcgm is not None]
    if not scraped:
        return []
    from agent.gpu.scraped import ScrapedPools

    exporters = ScrapedPools(scraped, clock)
    found.work += [exporters.run, *(reader.run for reader in exporters.bmcs)]
    found.bmcs += exporters.bmcs
    return [_PoolsPart(exporters, exporters.declared, None)]


def _join_pools(settings: AgentSettings, parts: Sequence[_PoolsPart], found: Equipment) -> tuple[AiPool, ...]:
    """One face over all pools, metered where settings name a meter; what they are, in the order of the face."""
    declared = tuple(pool for part in parts for pool in part.declared)
    if len(parts) == 1:
        found.pools, found.fallbacks = parts[0].pools, parts[0].fallbacks
    elif parts:
        from agent.gpu.many import ManyPools

        holders = [part.fallbacks for part in parts]
        many = ManyPools([(part.pools, len(part.declared)) for part in parts], holders)
        found.pools, found.fallbacks = many, many if any(holder is not None for holder in holders) else None
    settled = {pool.name: pool.meter for pool in settings.gpu.pools if pool.meter is not None}
    if declared and settled:
        from agent.gpu.metered import MeteredPools
        from agent.meter import ModbusMeter

        meters = {n: ModbusMeter(settled[pool.name]) for n, pool in enumerate(declared) if pool.name in settled}
        found.pools = MeteredPools(found.pools, meters)
        found.work += [meter.run for meter in meters.values()]
    return declared


def _miners(settings: AgentSettings, declared: tuple[AiPool, ...], clock: Clock, found: Equipment) -> None:
    """Miners of the inventory file; an inventory of pools alone where there is none."""
    if settings.asic.inventory is None:
        empty = np.zeros(0, np.uint8)
        found.inventory = SiteInventory((), empty, (), np.zeros(0, np.uint16), b"", declared)
        found.missing.append("no miners in settings (asic.inventory)")
        return
    from agent.asic.inventory import load_inventory
    from agent.asic.patrol import LockKeeper, Patrol, follow_credentials
    from agent.asic.poller import AsicPoller

    asic = load_inventory(settings.asic.inventory, declared)
    poller = AsicPoller(asic, settings.asic, settings.asic.keyring(), prepares=_acts(settings))
    found.miners, found.inventory = poller, asic.site
    keeper = LockKeeper(settings.state_dir, poller)  # reads the locks now, before anything can be commanded
    found.work.append(poller.run)
    found.telling.append(keeper.run)
    if settings.asic.discovery.ranges:
        found.telling.append(Patrol(settings.asic, poller, clock).run)
    if settings.asic.credentials_file is not None:
        found.work.append(lambda: follow_credentials(settings.asic, poller))


def _site_meter(settings: AgentSettings, found: Equipment) -> None:
    """The meter at the grid connection."""
    if settings.meter is None:
        found.missing.append("no site meter in settings ([meter])")
        return
    from agent.meter import ModbusMeter

    meter = ModbusMeter(settings.meter)
    found.meter = meter
    found.work.append(meter.run)


def _coils(settings: AgentSettings, found: Equipment) -> None:
    """Fans by container, switches by level and name."""
    if not settings.fans and not settings.switches:
        return
    from agent.coils import ModbusCoils

    if settings.fans:
        fans = ModbusCoils({fan.container: fan for fan in settings.fans})
        found.fans = fans
        found.work.append(fans.run)
    if settings.switches:
        switches = ModbusCoils({f"{switch.level}:{switch.name}": switch for switch in settings.switches})
        found.switches = switches
        found.work.append(switches.run)
