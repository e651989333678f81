"""A node's GPUs under its lease: every scan reads them, and holds them to what the lease says now.

The lease decides, `NvmlPools` reads and sets (through the guard, where there is one). Fallbacks are on the disk before
anything that came with them counts, so that a process that was killed knows them when it starts again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from agent.gpu.guard import Lease, keep_fallbacks, load_fallbacks
from agent.gpu.pools import NvmlPools
from agent.gpu.reading import GpuReading
from agent.node.lease import NodeLease
from agent.node.report import outcomes, with_clocks
from gridpivot.clock import Clock
from gridpivot.v1 import node_pb2 as pb

log = structlog.get_logger("agent.node")
LOOK_S = 0.25  # how late the end of a lease may be noticed


def only_lower(limit_w: Mapping[str, float], readings: Mapping[str, GpuReading]) -> dict[str, float]:
    """Limits none of which is above what is set now [W by UUID]; where that is unknown nothing is asked."""
    lower: dict[str, float] = {}
    for uuid, watts in limit_w.items():
        reading = readings.get(uuid)
        if reading is not None and reading.limit_requested_w is not None:
            lower[uuid] = min(watts, reading.limit_requested_w)
    return lower


class NodeGpus:
    """GPUs, lease, and what was read back."""

    def __init__(self, nvml: NvmlPools, state_dir: Path, clock: Clock) -> None:
        self.nvml, self._state_dir, self._clock = nvml, state_dir, clock
        self.lease = NodeLease()
        kept, self.trouble = load_fallbacks(state_dir)
        if self.trouble:
            log.error("fallbacks", trouble=self.trouble)
        self.lease.fallback_w = {uuid: lease.fallback_w for uuid, lease in kept.items()}
        self.applied_sequence = 0
        self._wanted_since_s = float("-inf")
        self._was_live = False
        self.fallbacks_total = 0  # leases that ended
        self.on_scan: Callable[[], None] = lambda: None
        nvml.on_scan = self._scanned

    @property
    def readings(self) -> list[GpuReading]:
        """Every GPU as last read, in the order of first sight."""
        return self.nvml.readings

    @property
    def uuids(self) -> list[str]:
        """In the order of first sight."""
        return [reading.uuid for reading in self.nvml.readings]

    async def take(self, limits: pb.NodeLimits) -> None:
        """New limits; raises BadReport, and then nothing has changed. With a disk that refuses nothing rises."""
        lease, before = self.lease, dict(self.lease.fallback_w)
        ranges = {
            r.uuid: (r.limit_min_w, r.limit_max_w)
            for r in self.readings
            if r.limit_min_w is not None and r.limit_max_w is not None
        }
        trial = NodeLease(dict(before), dict(lease.limit_w), dict(lease.clock_mhz))
        changed = trial.take(limits, self.uuids, ranges)
        if trial.fallback_w != before:
            leases = {uuid: Lease(watts, None, float("-inf")) for uuid, watts in trial.fallback_w.items()}
            try:
                await asyncio.to_thread(keep_fallbacks, self._state_dir, leases)
                self.trouble = ""
            except OSError as error:
                self.trouble = f"{self._state_dir}: fallbacks cannot be kept, nothing rises: {error.strerror or error}"
        if self.trouble:
            trial.limit_w = only_lower(trial.limit_w, {r.uuid: r for r in self.readings})
        caught_up = self.applied_sequence == lease.sequence
        lease.limit_w, lease.fallback_w, lease.sequence = trial.limit_w, trial.fallback_w, trial.sequence
        lease.clock_mhz = trial.clock_mhz
        if changed:
            self.hold()
        elif caught_up:
            self.applied_sequence = limits.sequence  # what is held already, under a new number

    def hold(self) -> None:
        """Have the next scan, which begins now, hold what the lease says now."""
        now = self._clock.now()
        live = self.lease.live(now.monotonic_s)
        if self._was_live and not live:
            self.fallbacks_total += 1
            log.warning("lease ended: fallbacks hold", gpus=len(self.lease.fallback_w))
        self._was_live = live
        self._wanted_since_s = now.monotonic_s
        due = self.lease.due({r.uuid: r for r in self.readings}, now.monotonic_s)
        if not live:
            # What a lease that has ended allowed is over: a site that comes back has to ask for it anew.
            self.lease.limit_w |= due
        self.nvml.hold_gpus(self._enforceable_w(), now)
        self.nvml.want_clocks(self._lockable_mhz())
        self.nvml.want(due)

    def _lockable_mhz(self) -> dict[str, int]:
        """Locks inside each board's range: a guard refuses a request whole that is not."""
        found: dict[str, int] = {}
        for reading in self.readings:
            mhz = self.lease.clock_mhz.get(reading.uuid)
            if mhz is None or reading.lost:
                continue
            least, most = reading.clock_min_mhz, reading.clock_max_mhz
            found[reading.uuid] = mhz if not mhz or least is None or most is None else min(max(mhz, least), most)
        return found

    def _enforceable_w(self) -> dict[str, float]:
        """Fallbacks of boards that are here and take limits: a guard refuses a request whole that names another."""
        found: dict[str, float] = {}
        for reading in self.readings:
            watts = self.lease.fallback_w.get(reading.uuid)
            least_w, most_w = reading.limit_min_w, reading.limit_max_w
            if watts is not None and not reading.lost and least_w is not None and most_w is not None:
                found[reading.uuid] = min(max(watts, least_w), most_w)
        return found

    def _scanned(self) -> None:
        """A scan has ended. What was wanted before it began was tried in it."""
        began_s = self.nvml.scan_began_s
        if began_s is not None and began_s >= self._wanted_since_s:
            self.applied_sequence = self.lease.sequence
        self.on_scan()

    def begin_session(self, lease_s: float) -> None:
        """Numbers start anew."""
        self.lease.begin(lease_s)
        self.applied_sequence = 0

    def outcomes(self) -> list[pb.GpuOutcome]:
        """What became of the limits that are held."""
        readings = {r.uuid: r for r in self.readings}
        told = outcomes(self.uuids, self.lease.limit_w, readings, self.nvml.attempts)
        return with_clocks(told, self.uuids, self.nvml.locks)

    async def watch(self) -> None:
        """Notice the end of the lease, and keep the guard's alive; until cancelled."""
        while True:
            live = self.lease.live(self._clock.now().monotonic_s)
            if live != self._was_live or not live:
                self._lapse(live)
            else:
                self.nvml.hold_gpus(self._enforceable_w(), self._clock.now())
            await asyncio.sleep(LOOK_S)

    def _lapse(self, live: bool) -> None:
        """Without a lease every look compares what stands with the fallback: a driver reload raises limits."""
        due = self.lease.due({r.uuid: r for r in self.readings}, self._clock.now().monotonic_s)
        if live != self._was_live or due != self.nvml.wanted_w:
            self.hold()
        else:
            self.nvml.hold_gpus(self._enforceable_w(), self._clock.now())
