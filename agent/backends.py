"""What the governor's surroundings must offer: miners, AI pools, a meter. Real ones live in asic/, gpu/ and meter.py.

The simulator offers the same faces, so that a virtual site runs the same governor, uplink and lease as a real one.
Reading never blocks the event loop; a backend refreshes itself and the governor takes the newest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gridpivot.clock import Instant
from gridpivot.columns import DeviceTable
from gridpivot.curves import AiPool, MinerClass
from gridpivot.vocabulary import Mode

RowArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MeterSample:
    """One reading of a site meter. `read_at_s` is monotonic; power is import [W], energy the meter's own counter [J]."""

    power_w: float
    read_at_s: float
    import_energy_j: int | None = None


@dataclass(frozen=True, slots=True)
class PoolReading:
    """One AI pool now: wall power drawn [W], wall power that enforced limits allow [W], wall power wanted [W].

    None is unknown. `demand_w` is what admitted work would draw without a limit.
    """

    power_w: float | None
    limit_w: float
    demand_w: float | None
    gpus_present: int
    read_at_s: float
    metered: bool = (
        False  # by a meter on the pool's circuit; else boards by their own sensors and a modelled host share
    )
    by_hosts: bool = False  # every host by its own BMC or outlet, and none by the model
    comes_w: float = 0.0  # what hosts that are to be switched on may draw: room is wanted for it

    @property
    def held(self) -> bool:
        """Whether limits hold back what it wants."""
        return self.power_w is not None and self.demand_w is not None and self.demand_w > 1.01 * self.power_w


@dataclass(frozen=True, slots=True)
class Grouping:
    """Devices by one level of the house (feeder, container, pdu, rack): index[i] into names, -1 = unknown."""

    level: str
    names: tuple[str, ...]
    index: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SiteInventory:
    """Fixed order of devices: row i has class class_index[i] and hangs on feeder feeder_index[i]."""

    classes: tuple[MinerClass, ...]
    class_index: npt.NDArray[np.uint8]
    feeders: tuple[str, ...]
    feeder_index: npt.NDArray[np.uint16]
    mac_addresses: bytes
    pools: tuple[AiPool, ...]
    groupings: tuple[Grouping, ...] = ()

    @property
    def device_count(self) -> int:
        """Rows in every table."""
        return len(self.class_index)


class Miners(Protocol):
    """ASICs at a site."""

    def refresh(self, table: DeviceTable, polled_at_s: npt.NDArray[np.float64], now: Instant) -> None:
        """Write the newest readings into `table` and the monotonic start of each device's last good poll into
        `polled_at_s` (NaN before the first). Never blocks."""
        ...

    def command(self, rows: RowArray, mode: Mode, now: Instant) -> None:
        """Ask devices to change mode. Returns at once; whether it worked shows in later readings."""
        ...


class Pools(Protocol):
    """AI pools at a site, in inventory order."""

    def read(self, now: Instant) -> Sequence[PoolReading]:
        """Newest reading per pool. Never blocks."""
        ...

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        """Ask for enforced limits that allow at most `limit_w` at the wall. Returns at once."""
        ...


@dataclass(frozen=True, slots=True)
class ClockState:
    """How clock locks of a pool stand: the highest clock of GPUs that work [Hz]; the word of a refusal, and a line.

    `highest_hz` None = nobody works, or none tells; `refused` empty = nobody refused.
    """

    highest_hz: float | None = None
    refused: str = ""
    detail: str = ""


@runtime_checkable
class ClockLocks(Protocol):
    """Pools whose GPUs' clocks can be locked. A lock has no read-back: the clock under load is its evidence."""

    def lock_clocks(self, pool: int, mhz: int | None, now: Instant) -> None:
        """Ask for a highest clock, None to let clocks go. Returns at once; nothing else moves a lock."""
        ...

    def clocks(self, pool: int) -> ClockState:
        """Newest state. Never blocks."""
        ...


class Fallbacks(Protocol):
    """Whoever sets fallback limits of AI pools when the agent is gone."""

    def hold(self, fallback_w: Sequence[float], now: Instant) -> None:
        """The agent lives; without it each pool may draw this much at the wall [W]. Called at every beat, returns at once."""
        ...


@runtime_checkable
class NodeFallbacks(Protocol):
    """Pools over nodes whose fallbacks a plan may lower, node by node."""

    def cap_fallbacks(self, by_pool: Mapping[str, Mapping[str, float]], now: Instant) -> None:
        """No node of these falls back to more than this [W at the wall], by pool and node; returns at once."""
        ...


class Meter(Protocol):
    """The site meter."""

    def newest(self) -> MeterSample | None:
        """Newest sample, None before the first. Never blocks."""
        ...


class Coils(Protocol):
    """Things that are switched by name: fans of containers, circuits."""

    def state(self) -> Mapping[str, bool]:
        """What is proven now: air moves, the circuit is closed. A name that is missing is unknown. Never blocks."""
        ...

    def ask(self, name: str, on: bool, *, once: bool = False) -> None:
        """Want one on or off, for good or until it is seen `once`. Returns at once."""
        ...
