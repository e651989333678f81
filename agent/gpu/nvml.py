"""Reads GPUs and sets their power limits through NVML, GPU by GPU, keyed by UUID: indexes move between boots.

Blocking: every method belongs on the worker thread of `pools.py`. A metric that a GPU does not have is None, never 0;
a GPU that is lost takes nothing but itself away. A limit is written with the first version of the call (the second
one's binding never checks its return code) and read back, since requested, enforced and drawn are three figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from agent.gpu.clocks import CLOCK_SM, Clocks
from agent.gpu.health import Health
from agent.gpu.outcomes import BY_LIMIT, LimitOutcome, NvmlOutcome, NvmlRefused, refusal
from agent.gpu.reading import SW_POWER_CAP, Attempt, ClockAttempt, GpuReading, Scan

TEMPERATURE_GPU = 0  # NVML_TEMPERATURE_GPU
RETRY_REFUSED_S = 30.0
# These end a whole scan: NVML itself is not usable now, which says nothing about any one GPU.
_GLOBAL = (
    NvmlOutcome.UNINITIALISED,
    NvmlOutcome.NO_DRIVER,
    NvmlOutcome.NO_LIBRARY,
    NvmlOutcome.VERSION_MISMATCH,
)
_MISSING = (NvmlOutcome.NO_FUNCTION, NvmlOutcome.DEPRECATED)
_TAKEN = (LimitOutcome.OK, LimitOutcome.UNCHANGED, LimitOutcome.CLAMPED)


def _watts(milliwatts: int) -> float:
    return milliwatts / 1000.0


# Figure -> (bindings to try in turn, what it means). A later name serves drivers that lack or have dropped the earlier.
_METRICS: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "power_w": (("nvmlDeviceGetPowerUsage",), _watts),
    "energy_j": (("nvmlDeviceGetTotalEnergyConsumption",), _watts),  # mJ
    "limit_requested_w": (("nvmlDeviceGetPowerManagementLimit",), _watts),
    "limit_enforced_w": (("nvmlDeviceGetEnforcedPowerLimit",), _watts),
    "util_ratio": (("nvmlDeviceGetUtilizationRates",), lambda u: u.gpu / 100.0),
    "temp_c": (("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"), float),
    "sm_clock_hz": (("nvmlDeviceGetClockInfo",), lambda mhz: mhz * 1e6),
    "clock_event_reasons": (
        ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
        int,
    ),
}
_ARGUMENTS: dict[str, tuple[int, ...]] = {"temp_c": (TEMPERATURE_GPU,), "sm_clock_hz": (CLOCK_SM,)}
# Asked once per GPU: these do not move while a driver is loaded.
_FACTS: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "name": (("nvmlDeviceGetName",), str),
    "limit_default_w": (("nvmlDeviceGetPowerManagementDefaultLimit",), _watts),
}


def _refused_lately(before: Attempt | None, limit_w: float, now_s: float) -> bool:
    """Whether the same limit failed a moment ago for a reason that stays; a GPU that was lost is tried at once."""
    if before is None or before.limit_w != limit_w or before.outcome in (*_TAKEN, LimitOutcome.LOST):
        return False
    return now_s - before.at_s < RETRY_REFUSED_S


class NvmlReader:
    """All GPUs of this machine behind one initialised NVML."""

    def __init__(self, bindings: Any) -> None:
        self._nvml = bindings
        self._handles: dict[str, Any] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._order: list[str] = []  # every UUID ever seen: a lost GPU is still ours
        self._attempts: dict[str, Attempt] = {}
        self._open = False
        self._health = Health()
        self._clocks = Clocks()
        self.counts: Counter[str] = Counter()  # NVML calls by outcome

    def open(self) -> str:
        """Initialise NVML and find the GPUs; returns the driver's version. Raises NvmlRefused."""
        self._call("nvmlInitWithFlags", 0)
        self._open = True
        self._enumerate()
        return str(self._try(("nvmlSystemGetDriverVersion",)) or "unknown")

    def close(self) -> None:
        """Shut NVML down; never raises."""
        if self._open:
            self._open = False
            self._try(("nvmlShutdown",))

    def scan(self, wanted_w: Mapping[str, float], now_s: float, clocks_mhz: Mapping[str, int] | None = None) -> Scan:
        """Set the limits that are not yet as wanted [W by UUID], lock or let go clocks [MHz, 0 = let go], then read every GPU.

        Raises NvmlRefused when NVML as a whole is unusable; it is opened anew by the next scan.
        """
        try:
            if not self._open:
                self.open()
            self._health.hear(self._nvml)
            if len(self._handles) < len(self._order):
                self._enumerate()  # a GPU that was lost may be back
            attempts = {uuid: self._settle(uuid, limit_w, now_s) for uuid, limit_w in wanted_w.items()}
            locks = {uuid: lock for uuid, mhz in (clocks_mhz or {}).items() if (lock := self._lock(uuid, mhz, now_s))}
            readings = tuple(self._read(uuid, now_s) for uuid in self._order)
        except NvmlRefused:
            self._handles.clear()
            self._health.forget()
            self._clocks.forget()
            self.close()
            raise
        tried = {uuid: a for uuid, a in attempts.items() if a is not None}
        self._attempts.update(tried)
        return Scan(readings, tried, dict(self.counts), locks)

    # -- finding ---------------------------------------------------------------------------------------------------

    def _enumerate(self) -> None:
        self._handles.clear()
        for index in range(self._call("nvmlDeviceGetCount")):
            try:
                handle = self._call("nvmlDeviceGetHandleByIndex", index)
                uuid = str(self._call("nvmlDeviceGetUUID", handle))
            except NvmlRefused as error:
                if error.outcome in _GLOBAL:
                    raise
                continue  # one lost GPU must not hide the others
            self._handles[uuid] = handle
            if uuid not in self._order:
                self._order.append(uuid)
        self._health.watch(self._handles, self._call)

    def _facts_of(self, uuid: str, handle: Any) -> dict[str, Any]:
        """Name and range of a GPU, kept once they are known; a failure now is tried again by the next scan."""
        known = self._facts.setdefault(uuid, {})
        for figure, (names, meaning) in _FACTS.items():
            if figure not in known and (value := self._try(names, handle)) is not None:
                known[figure] = meaning(value)
        if "limit_max_w" not in known:
            constraints = self._try(("nvmlDeviceGetPowerManagementLimitConstraints",), handle)
            if constraints is not None:
                known["limit_min_w"], known["limit_max_w"] = map(_watts, constraints)
        if "clock_max_mhz" not in known:
            span = self._clocks.range_mhz(handle, self._try)
            if span is not None:
                known["clock_min_mhz"], known["clock_max_mhz"] = span
        return known

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, uuid: str, now_s: float) -> GpuReading:
        handle = self._handles.get(uuid)
        if handle is not None:
            try:
                figures: dict[str, Any] = dict(self._facts_of(uuid, handle))
                for figure, (names, meaning) in _METRICS.items():
                    value = self._try(names, handle, *_ARGUMENTS.get(figure, ()))
                    figures[figure] = None if value is None else meaning(value)
                reasons = figures["clock_event_reasons"]
                figures["throttled_by_power"] = None if reasons is None else bool(reasons & SW_POWER_CAP)
                figures |= self._health.figures(uuid, handle, self._try, now_s)
                memory = self._try(("nvmlDeviceGetMemoryInfo",), handle)
                if memory is not None:
                    figures["memory_used_bytes"], figures["memory_total_bytes"] = memory.used, memory.total
                return GpuReading(uuid, **figures)
            except NvmlRefused as error:
                if error.outcome is not NvmlOutcome.LOST:
                    raise
                self._drop(uuid)
        return GpuReading(uuid, **self._facts.get(uuid, {}), lost=True)

    def _try(self, names: tuple[str, ...], *arguments: Any) -> Any | None:
        """The first binding that this driver serves; None when the metric cannot be had. Raises for lost and global."""
        for name in names:
            try:
                return self._call(name, *arguments)
            except NvmlRefused as error:
                if error.outcome is NvmlOutcome.LOST or error.outcome in _GLOBAL:
                    if name == "nvmlShutdown":
                        return None
                    raise
                if error.outcome not in _MISSING:
                    return None
        return None

    def _call(self, name: str, *arguments: Any) -> Any:
        """One call of the bindings, its error as an outcome."""
        function = getattr(self._nvml, name, None)
        if function is None:
            self.counts[NvmlOutcome.NO_FUNCTION] += 1
            raise refusal(name, 13, "not in these bindings")
        try:
            value = function(*arguments)
        except self._nvml.NVMLError as error:
            refused = refusal(name, int(error.value), str(error))
            self.counts[refused.outcome] += 1
            raise refused from None
        self.counts[NvmlOutcome.OK] += 1
        return value

    # -- limits ----------------------------------------------------------------------------------------------------

    def _settle(self, uuid: str, limit_w: float, now_s: float) -> Attempt | None:
        """Bring one GPU's limit to what is wanted; None when it is so already or a refusal is still fresh."""
        handle, before = self._handles.get(uuid), self._attempts.get(uuid)
        if handle is None:
            lost = before is not None and before.outcome is LimitOutcome.LOST
            return None if lost else Attempt(limit_w, LimitOutcome.LOST, now_s)
        try:
            known = self._facts_of(uuid, handle)
            goal_mw = round(1000 * min(known.get("limit_max_w", limit_w), max(known.get("limit_min_w", 0.0), limit_w)))
            old_mw = self._try(("nvmlDeviceGetPowerManagementLimit",), handle)
            if old_mw == goal_mw:
                # Ours once read back, and not worth a word while it stays so.
                settled = before is not None and before.limit_w == limit_w and before.outcome in _TAKEN
                return None if settled else self._judge(handle, limit_w, goal_mw, now_s, LimitOutcome.UNCHANGED)
            if _refused_lately(before, limit_w, now_s):
                return None
            self._call("nvmlDeviceSetPowerManagementLimit", handle, goal_mw)
            return self._judge(handle, limit_w, goal_mw, now_s, LimitOutcome.OK)
        except NvmlRefused as error:
            if error.outcome in _GLOBAL:
                raise
            if error.outcome is NvmlOutcome.LOST:
                self._drop(uuid)
            return Attempt(limit_w, BY_LIMIT.get(error.outcome, LimitOutcome.FAILED), now_s, str(error))

    def _lock(self, uuid: str, mhz: int, now_s: float) -> ClockAttempt | None:
        """Bring one GPU's lock to what is wanted; None when it is so already, or a refusal is still fresh."""
        handle = self._handles.get(uuid)
        if handle is None:
            return ClockAttempt(mhz, LimitOutcome.LOST)
        try:
            known = self._facts_of(uuid, handle)
            least, most = known.get("clock_min_mhz"), known.get("clock_max_mhz")
            span = None if least is None or most is None else (least, most)
            settled = self._clocks.settle(uuid, handle, mhz, span, self._call, now_s)
        except NvmlRefused as error:
            if error.outcome is not NvmlOutcome.LOST:
                raise
            self._drop(uuid)
            return ClockAttempt(mhz, LimitOutcome.LOST, str(error))
        return None if settled is None else ClockAttempt(mhz, *settled)

    def _drop(self, uuid: str) -> None:
        """A board that is lost: it may come back as another driver left it."""
        self._handles.pop(uuid, None)
        self._clocks.forget({uuid: None})

    def _judge(self, handle: Any, limit_w: float, goal_mw: int, now_s: float, good: LimitOutcome) -> Attempt:
        """Read back what is requested and what is enforced now."""
        requested_mw = self._try(("nvmlDeviceGetPowerManagementLimit",), handle)
        enforced_mw = self._try(("nvmlDeviceGetEnforcedPowerLimit",), handle)
        if requested_mw is None:
            outcome, detail = LimitOutcome.UNVERIFIED, "the limit cannot be read back"
        elif requested_mw != goal_mw:
            outcome = LimitOutcome.IGNORED
            detail = f"asked {_watts(goal_mw):.0f} W, stayed at {_watts(requested_mw):.0f} W"
        elif abs(goal_mw - 1000 * limit_w) >= 1.0:
            outcome, detail = LimitOutcome.CLAMPED, f"asked {limit_w:.0f} W, the range ends at {_watts(goal_mw):.0f} W"
        elif enforced_mw is not None and enforced_mw < goal_mw:
            outcome, detail = LimitOutcome.CLAMPED, f"the board enforces {_watts(enforced_mw):.0f} W"
        else:
            outcome, detail = good, ""
        return Attempt(limit_w, outcome, now_s, detail)
