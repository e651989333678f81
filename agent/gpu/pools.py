"""GPU pools over NVML: implements `agent.backends.Pools`. Readings flow out of one thread, wanted limits into it.

`read` and `set_limit` never wait. A scan sets what is not as wanted and reads everything; a limit that comes in wakes
the next scan. While the driver does not answer, power is unknown and the last known limits stay what is charged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import structlog

from agent.backends import ClockState, PoolReading
from agent.gpu.accounting import Members, account, clock_state, limit_of, shares
from agent.gpu.clocks import RELEASED
from agent.gpu.guard_client import GuardAway, GuardClient, away
from agent.gpu.nvml import NvmlReader
from agent.gpu.outcomes import REMEDY, LimitOutcome, NvmlOutcome, NvmlRefused
from agent.gpu.reading import Attempt, ClockAttempt, GpuReading, Scan
from agent.gpu.worker import Worker
from agent.settings import GpuSettings
from gridpivot.clock import Clock, Instant

log = structlog.get_logger("agent.gpu")
CLOSE_WAIT_S = 1.0
STALE_BEATS = 3.0
GUARD_WAIT_S = 2.0
GOVERNOR_DEAD_S = 10.0  # a governor that has not ticked for so long renews no lease


class NvmlPools:
    """Pools of this host's GPUs. `run()` must be awaited by the service."""

    def __init__(
        self, worker: Worker, reader: NvmlReader, members: Sequence[Members], settings: GpuSettings, clock: Clock
    ) -> None:
        self.members = tuple(members)
        socket = settings.guard_socket
        deadline_s = min(GUARD_WAIT_S, settings.deadline_s)
        self._guard = None if socket is None else GuardClient(socket, settings.guard_lease_s, deadline_s)
        self._guard_said = ""
        self._fallback_w: dict[str, float] = {}
        self._held_at_s = float("-inf")
        self.settings = settings
        self._worker, self._reader, self._clock = worker, reader, clock
        self._readings: dict[str, GpuReading] = {}
        self._read_at_s: float | None = None
        self._last_limits_w: dict[str, float] = {}
        self._wanted_w: dict[str, float] = {}
        self._attempts: dict[str, Attempt] = {}
        self._wanted_mhz: dict[str, int] = {}
        self.locks: dict[str, ClockAttempt] = {}  # the newest try to lock each GPU's clock, or to let it go
        self._pending: asyncio.Future[Scan] | None = None
        self._pending_at_s = 0.0
        self._wake = asyncio.Event()
        self._closed = False
        self.on_scan: Callable[[], None] = lambda: None
        self._state = NvmlOutcome.OK
        self._scans: Counter[str] = Counter()
        self._limits: Counter[str] = Counter()
        self._calls: dict[str, int] = {}

    # -- the Pools face --------------------------------------------------------------------------------------------

    def read(self, now: Instant) -> Sequence[PoolReading]:
        """Newest reading per pool; power and demand are None while NVML does not answer."""
        stale_s = max(STALE_BEATS * self.settings.beat_s, self.settings.deadline_s)
        if self._read_at_s is None or now.monotonic_s - self._read_at_s > stale_s or self._state in _BLIND:
            at_s = now.monotonic_s if self._read_at_s is None else self._read_at_s
            return [self._blind(m, at_s) for m in self.members]
        return [account(m, self._readings, self._last_limits_w, self._read_at_s) for m in self.members]

    def _blind(self, members: Members, read_at_s: float) -> PoolReading:
        """Nothing is known but what was last enforced; before that, the most the pool may draw."""
        if all(uuid in self._last_limits_w for uuid in members.uuids):
            limit_w = members.host_w + sum(self._last_limits_w[uuid] for uuid in members.uuids)
        else:
            limit_w = members.declared.max_w
        return PoolReading(None, limit_w, None, 0, read_at_s)

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        """Ask for enforced limits that allow at most `limit_w` at the wall, from the next scan on, which begins now."""
        self._wanted_w |= shares(self.members[pool], limit_w, self._readings, self._last_limits_w)
        self._wake.set()

    # -- the ClockLocks face -----------------------------------------------------------------------------------------

    def lock_clocks(self, pool: int, mhz: int | None, now: Instant) -> None:
        """Lock the clocks of a pool's GPUs from the next scan on, which begins now; None lets them go."""
        self.want_clocks(self._wanted_mhz | dict.fromkeys(self.members[pool].uuids, mhz or RELEASED))

    def clocks(self, pool: int) -> ClockState:
        """How the locks of a pool stand."""
        return clock_state(self.members[pool].uuids, self._readings, self.locks)

    # -- the Fallbacks face ----------------------------------------------------------------------------------------

    def hold(self, fallback_w: Sequence[float], now: Instant) -> None:
        """The governor lives, and without it each pool falls back to this [W at the wall]. For a guard only."""
        self._held_at_s = now.monotonic_s
        for members, wall_w in zip(self.members, fallback_w, strict=True):
            self._fallback_w |= shares(members, wall_w, self._readings, self._last_limits_w)

    # -- the same, GPU by GPU: for a node, whose site's agent does the sharing out --------------------------------------

    def want(self, limits_w: Mapping[str, float]) -> None:
        """From the next scan on, which begins now, these limits and no others [W by UUID]."""
        self._wanted_w = dict(limits_w)
        self._wake.set()

    def want_clocks(self, clocks_mhz: Mapping[str, int]) -> None:
        """From the next scan on, which begins now, these locks [MHz by UUID, 0 = let go]; the rest stays as it is."""
        if clocks_mhz != self._wanted_mhz:
            self._wanted_mhz = dict(clocks_mhz)
            self._wake.set()

    def hold_gpus(self, fallback_w: Mapping[str, float], now: Instant) -> None:
        """Somebody governs, and without it each GPU falls back to this [W by UUID]. For a guard only."""
        self._held_at_s = now.monotonic_s
        self._fallback_w = dict(fallback_w)

    @property
    def wanted_w(self) -> dict[str, float]:
        """Limits that every scan holds [W by UUID]."""
        return dict(self._wanted_w)

    @property
    def fallback_w(self) -> dict[str, float]:
        """Fallbacks that the guard is told [W by UUID]."""
        return dict(self._fallback_w)

    @property
    def scan_began_s(self) -> float | None:
        """When the newest scan began [monotonic s]; None before the first."""
        return self._read_at_s

    @property
    def state(self) -> NvmlOutcome:
        """How NVML as a whole stands."""
        return self._state

    # -- what metrics and tests look at ------------------------------------------------------------------------------

    @property
    def readings(self) -> list[GpuReading]:
        """Every GPU as last read, lost ones too."""
        return list(self._readings.values())

    @property
    def attempts(self) -> dict[str, Attempt]:
        """The newest try to set each GPU's limit, by UUID."""
        return dict(self._attempts)

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Counts since the start by outcome: scans, NVML calls, limits."""
        return {"scans": dict(self._scans), "calls": dict(self._calls), "limits": dict(self._limits)}

    # -- scanning ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Scan at the beat, and at once for a new limit, until cancelled."""
        try:
            while True:
                started_s = self._clock.now().monotonic_s
                self._wake.clear()
                await self._scan(started_s)
                left_s = started_s + self.settings.beat_s - self._clock.now().monotonic_s
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, left_s)):
                        await self._wake.wait()
        finally:
            if self._pending is not None:
                self._pending.cancel()
            if self._guard is not None:
                self._guard.close()
            await asyncio.to_thread(self.close)

    async def _scan(self, started_s: float) -> None:
        """One scan within the deadline. While one hangs in the driver no second is begun: it would only queue up."""
        wanted_w, wanted_mhz = dict(self._wanted_w), dict(self._wanted_mhz)
        if self._guard is not None:
            self._note_attempts(await self._renew(self._guard, wanted_w, wanted_mhz, started_s))
            wanted_w, wanted_mhz = {}, {}
        if self._pending is None:
            job = self._worker.submit(self._reader.scan, wanted_w, started_s, wanted_mhz)
            self._pending, self._pending_at_s = asyncio.wrap_future(job), started_s
        await asyncio.wait([self._pending], timeout=self.settings.deadline_s)
        if not self._pending.done():
            self._note(NvmlOutcome.SLOW, REMEDY[NvmlOutcome.SLOW])
            return
        pending, self._pending = self._pending, None
        try:
            self.take(pending.result(), self._pending_at_s)
        except NvmlRefused as error:
            self._note(error.outcome, str(error))
        except Exception as error:  # a defect in the bindings must not end the site's agent
            self._note(NvmlOutcome.FAILED, repr(error))

    def take(self, scan: Scan, started_s: float) -> None:
        """A finished scan becomes what `read` gives."""
        self._readings = {r.uuid: r for r in scan.readings}
        self._read_at_s = started_s
        self._calls = dict(scan.calls)
        for reading in scan.readings:
            if not reading.lost:
                self._last_limits_w[reading.uuid] = limit_of(reading, self._last_limits_w.get(reading.uuid))
        self._note_attempts(scan.attempts)
        self.locks |= scan.locks
        self._note(NvmlOutcome.OK, "")
        self.on_scan()

    async def _renew(
        self, guard: GuardClient, wanted_w: dict[str, float], wanted_mhz: dict[str, int], now_s: float
    ) -> Mapping[str, Attempt]:
        """Limits and leases by the guard, as long as the governor gives signs of life."""
        fallback_w = enforceable(self._fallback_w, self._readings)
        if not fallback_w or now_s - self._held_at_s > GOVERNOR_DEAD_S:
            return {}
        said = ""
        attempts: Mapping[str, Attempt] = {}
        try:
            attempts, locks = await guard.renew(wanted_w, fallback_w, now_s, wanted_mhz)
            self.locks |= locks
        except GuardAway as error:
            said, attempts = str(error), away(wanted_w, str(error), now_s)
            self.locks |= {u: ClockAttempt(mhz, LimitOutcome.NO_GUARD, str(error)) for u, mhz in wanted_mhz.items()}
        if said != self._guard_said:
            (log.warning if said else log.info)("gpu guard", detail=said or "renews again")
        self._guard_said = said
        return attempts

    def _note_attempts(self, attempts: Mapping[str, Attempt]) -> None:
        for uuid, attempt in attempts.items():
            self._limits[attempt.outcome] += 1
            before = self._attempts.get(uuid)
            if attempt.outcome not in _FINE and (before is None or before.outcome is not attempt.outcome):
                log.warning("gpu limit", uuid=uuid, outcome=attempt.outcome.value, detail=attempt.detail)
            self._attempts[uuid] = attempt

    def _note(self, outcome: NvmlOutcome, detail: str) -> None:
        self._scans[outcome] += 1
        if outcome is not self._state:
            (log.info if outcome is NvmlOutcome.OK else log.warning)("gpus", outcome=outcome.value, detail=detail)
        self._state = outcome

    def close(self) -> None:
        """Let go of NVML; a thread that hangs in the driver is left behind."""
        if not self._closed:
            self._closed = True
            self._worker.submit(self._reader.close)
            self._worker.close(CLOSE_WAIT_S)


def enforceable(fallback_w: Mapping[str, float], readings: Mapping[str, GpuReading]) -> dict[str, float]:
    """Fallbacks of boards that are here and take limits [W by UUID].

    The guard refuses a request whole that names another; a board that was lost loses its lease, and falls back when it
    returns.
    """
    found: dict[str, float] = {}
    for uuid, watts in fallback_w.items():
        reading = readings.get(uuid)
        if reading is not None and not reading.lost and reading.limit_min_w is not None:
            found[uuid] = watts
    return found


_FINE = (LimitOutcome.OK, LimitOutcome.UNCHANGED)
# NVML as a whole said no: its last figures are not the present. A slow scan ages into this by itself.
_BLIND = (
    NvmlOutcome.NO_DRIVER,
    NvmlOutcome.NO_LIBRARY,
    NvmlOutcome.UNINITIALISED,
    NvmlOutcome.VERSION_MISMATCH,
    NvmlOutcome.FAILED,
)
