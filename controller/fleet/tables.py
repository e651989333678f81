"""Live state of the fleet: one table of columns per site, and the newest roll-up.

In: inventories, roll-ups and columnar reports as they arrive from sessions. Out: aggregates for metrics, dispatch and
operators. There is no object per device: 450,000 devices are about 20 MB of numpy columns. Everything stays on the
event loop; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gridpivot.clock import Instant
from gridpivot.columns import DeviceTable, decode_report
from gridpivot.curves import AiPool, MinerClass
from gridpivot.errors import BadReport
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import Coded, DeviceState, LinkState, Mode, Provenance, Reason

STATES = len(DeviceState)
DEVICES_MAX = 1_000_000  # per site; an inventory beyond this is a mistake, and would be a way to eat memory
BYTES_A_DEVICE = 9  # class, feeder, MAC address
MOST_NAMES_BYTES = 2**20  # of classes, feeders, pools of a site, curves included
CODED: Mapping[str, type[Coded]] = {
    "state": DeviceState,
    "mode": Mode,
    "desired_mode": Mode,
    "reason": Reason,
    "provenance": Provenance,
}


class Took(StrEnum):
    """What became of a message that a site sent."""

    TAKEN = "taken"
    OLDER = "older"  # newer data is already held; nothing changed
    UNKNOWN_INVENTORY = "unknown_inventory"  # rows of an inventory that is not here: ask for it


@dataclass(frozen=True, slots=True)
class ClassTotals:
    """Sums over the devices of one class: state_counts in vocabulary order [count], read power [W], hashrate [H/s]."""

    name: str
    state_counts: tuple[int, ...]
    power_w: float
    hashrate_hs: float


class SiteLive:
    """What is known of one site now. Ages are counted on the controller's monotonic clock."""

    def __init__(self, name: str, region: str) -> None:
        self.name = name
        self.region = region
        self.inventory_hash = b""
        self.classes: tuple[MinerClass, ...] = ()
        self.pools: tuple[AiPool, ...] = ()
        self.feeders: tuple[str, ...] = ()
        self.table = DeviceTable(0)
        self.class_indexes: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.feeder_indexes: npt.NDArray[np.uint16] = np.zeros(0, np.uint16)
        self.rollup: pb.SiteRollup | None = None
        self.rollup_at: Instant | None = None
        self.report_at: Instant | None = None
        self.reports_received = 0
        self.reports_refused = 0
        self.agent_version = ""
        self.link = LinkState.NEVER_SEEN
        self.link_changed_at: Instant | None = None
        self.heard_at: Instant | None = None
        self._report_unix_ms = 0
        self._clock_offset_s = 0.0
        self._totals: tuple[ClassTotals, ...] | None = None

    @property
    def device_count(self) -> int:
        """Devices in the inventory [count]."""
        return self.table.device_count

    def note_connected(self, agent_version: str, agent_unix_ms: int, now: Instant) -> None:
        """A session begins. The agent's wall clock tells how to read its timestamps."""
        self.agent_version = agent_version
        self.note_clock(agent_unix_ms, now)
        self.heard_at = now
        if self.link is not LinkState.CONNECTED:
            self.link, self.link_changed_at = LinkState.CONNECTED, now

    def note_clock(self, agent_unix_ms: int, now: Instant) -> None:
        """Learn how far the agent's wall clock stands from ours; a wrong clock must not make a live site look dead."""
        self._clock_offset_s = now.unix_s - agent_unix_ms / 1000.0

    def note_heard(self, now: Instant) -> None:
        """Anything at all arrived from the site."""
        self.heard_at = now

    def note_disconnected(self, now: Instant) -> None:
        """The session ended, however it did."""
        if self.link is LinkState.CONNECTED:
            self.link, self.link_changed_at = LinkState.SILENT, now

    def take_inventory(self, inventory: pb.Inventory) -> Took:
        """Adopt an inventory; a new one empties the table. Raises BadReport when it contradicts itself."""
        if inventory.inventory_hash == self.inventory_hash and self.inventory_hash:
            return Took.TAKEN
        count = inventory.device_count
        if not inventory.inventory_hash:
            raise BadReport(f"site {self.name}: inventory without a hash")
        if count > DEVICES_MAX:
            raise BadReport(f"site {self.name}: inventory of {count} devices, at most {DEVICES_MAX} are taken")
        most = BYTES_A_DEVICE * count + MOST_NAMES_BYTES
        if inventory.ByteSize() > most:
            text = f"inventory of {inventory.ByteSize()} bytes for {count} devices, at most {most} are taken"
            raise BadReport(f"site {self.name}: {text}")
        try:
            classes = tuple(MinerClass.from_proto(c) for c in inventory.classes)
            pools = tuple(AiPool.from_proto(p) for p in inventory.pools)
        except ValueError as error:
            raise BadReport(f"site {self.name}: inventory: {error}") from error
        class_indexes = _indexes(
            inventory.class_indexes, np.dtype(np.uint8), count, len(classes), f"{self.name}: class"
        )
        feeder_indexes = _indexes(
            inventory.feeder_indexes or bytes(2 * count),
            np.dtype(np.uint16).newbyteorder("<"),
            count,
            max(1, len(inventory.feeders)),
            f"{self.name}: feeder",
        )
        self.classes, self.pools, self.feeders = classes, pools, tuple(inventory.feeders)
        self.class_indexes, self.feeder_indexes = class_indexes, feeder_indexes
        self.table = DeviceTable(count)
        self.inventory_hash = inventory.inventory_hash
        self.report_at, self._report_unix_ms, self._totals = None, 0, None
        return Took.TAKEN

    def take_rollup(self, rollup: pb.SiteRollup, now: Instant) -> Took:
        """Keep the newest roll-up; backlog that arrives later than newer data changes nothing."""
        self.heard_at = now
        observed = self._observed(rollup.observed_at_unix_ms, now)
        if self.rollup_at is not None and observed.monotonic_s < self.rollup_at.monotonic_s:
            return Took.OLDER
        self.rollup, self.rollup_at = rollup, observed
        return Took.TAKEN

    def take_report(self, report: pb.DeviceReport, now: Instant) -> Took:
        """Merge a columnar report into the table. Raises BadReport on a contradiction; then nothing has changed."""
        self.heard_at = now
        if report.inventory_hash != self.inventory_hash or not self.inventory_hash:
            return Took.UNKNOWN_INVENTORY
        try:
            decoded = decode_report(report, self.table.device_count)
        except BadReport as error:
            self.reports_refused += 1
            raise BadReport(f"site {self.name}: {error}") from error
        observed = self._observed(report.observed_at_unix_ms, now)
        self.reports_received += 1
        if self.report_at is not None and observed.monotonic_s < self.report_at.monotonic_s:
            return Took.OLDER
        for name, values in decoded.items():
            vocabulary = CODED.get(name)
            if vocabulary is None:
                np.copyto(self.table[name], values)
            else:
                # A word that only a newer agent knows is "unknown" here, not an index error later.
                np.multiply(values, values < len(vocabulary), out=self.table[name])
        self.report_at, self._report_unix_ms, self._totals = observed, report.observed_at_unix_ms, None
        return Took.TAKEN

    def class_totals(self) -> tuple[ClassTotals, ...]:
        """Per class, sums over the table; computed once per report."""
        if self._totals is None:
            self._totals = self._sum()
        return self._totals

    def rollup_age_s(self, now: Instant) -> float | None:
        """Seconds since the newest roll-up was taken; None before the first."""
        return None if self.rollup_at is None else max(0.0, now.monotonic_s - self.rollup_at.monotonic_s)

    def report_age_s(self, now: Instant) -> float | None:
        """Seconds since the newest device report was taken; None before the first."""
        return None if self.report_at is None else max(0.0, now.monotonic_s - self.report_at.monotonic_s)

    def _sum(self) -> tuple[ClassTotals, ...]:
        width = len(self.classes)
        if width == 0:
            return ()
        rows = self.class_indexes.astype(np.intp)
        counts = np.bincount(rows * STATES + self.table["state"], minlength=width * STATES).reshape(width, STATES)
        power = np.bincount(rows, weights=np.nan_to_num(self.table["power_w"]), minlength=width)
        hashrate = np.bincount(rows, weights=np.nan_to_num(self.table["hashrate_hs"]), minlength=width)
        return tuple(
            ClassTotals(c.name, tuple(counts[i].tolist()), float(power[i]), float(hashrate[i]))
            for i, c in enumerate(self.classes)
        )

    def _observed(self, unix_ms: int, now: Instant) -> Instant:
        """When something was taken, on our clocks: never in the future, and old for backlog."""
        age_s = max(0.0, now.unix_s - (unix_ms / 1000.0 + self._clock_offset_s))
        return Instant(now.monotonic_s - age_s, now.unix_s - age_s)


Index = TypeVar("Index", np.uint8, np.uint16)


def _indexes(raw: bytes, dtype: np.dtype[Index], count: int, below: int, what: str) -> npt.NDArray[Index]:
    if len(raw) != count * dtype.itemsize:
        raise BadReport(f"site {what} indexes: {len(raw)} bytes for {count} devices")
    values = np.frombuffer(raw, dtype=dtype)
    if count and int(values.max()) >= below:
        raise BadReport(f"site {what} index {values.max()} points past the {below} named")
    return values


@dataclass(frozen=True, slots=True)
class FleetTotals:
    """Sums over sites whose roll-up is fresh. Watts and hashes per second."""

    sites_fresh: int
    power_w: float
    mining_power_w: float
    ai_power_w: float
    overhead_power_w: float
    hashrate_hs: float


class Fleet:
    """All sites by name, in the order of the settings. The set of sites is fixed when the controller starts."""

    def __init__(self, sites: Iterable[tuple[str, str]]) -> None:
        self._sites = {name: SiteLive(name, region) for name, region in sites}

    def __getitem__(self, name: str) -> SiteLive:
        return self._sites[name]

    def __contains__(self, name: object) -> bool:
        return name in self._sites

    def __iter__(self) -> Iterator[SiteLive]:
        return iter(self._sites.values())

    def __len__(self) -> int:
        return len(self._sites)

    def names(self) -> tuple[str, ...]:
        """Site names in order."""
        return tuple(self._sites)

    def sites_connected(self) -> int:
        """Sites with a live session [count]."""
        return sum(site.link is LinkState.CONNECTED for site in self)

    def reports_received(self) -> int:
        """Device reports taken or found older than what is held, since start [count]."""
        return sum(site.reports_received for site in self)

    def devices_reporting(self, now: Instant, fresh_s: float) -> int:
        """Devices whose row is in a report no older than `fresh_s` [count]."""
        ages = ((site.device_count, site.report_age_s(now)) for site in self)
        return sum(count for count, age_s in ages if age_s is not None and age_s <= fresh_s)

    def totals(self, now: Instant, fresh_s: float) -> FleetTotals:
        """Sums over sites with a roll-up no older than `fresh_s`; a site without one is not counted as zero load."""
        fresh = [s.rollup for s in self if (age := s.rollup_age_s(now)) is not None and age <= fresh_s and s.rollup]
        return FleetTotals(
            sites_fresh=len(fresh),
            power_w=sum(r.metered_power_w if r.HasField("metered_power_w") else r.assumed_power_w for r in fresh),
            mining_power_w=sum(r.mining_power_w for r in fresh),
            ai_power_w=sum(r.ai_power_w for r in fresh),
            overhead_power_w=sum(r.overhead_power_w for r in fresh),
            hashrate_hs=sum(r.hashrate_hs for r in fresh),
        )
