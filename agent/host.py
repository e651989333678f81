"""The box the agent stands on, through psutil. None is unknown; a container without sensors has no temperatures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class HostReading:
    """One look at the host. Ratios are 0 to 1; `booted_at_unix_s` is UTC; temperatures in Celsius by sensor."""

    cpu_ratio: float | None
    cpu_count: int | None
    load_1min: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    disk_used_bytes: int | None
    disk_total_bytes: int | None
    booted_at_unix_s: float | None
    temperatures_c: tuple[tuple[str, float], ...] = ()


def read_host(disk: Path = Path("/")) -> HostReading:
    """Read the host; `disk` is the file system to watch. CPU use is since the last call (None at the first).

    Never raises for what the host lacks.
    """
    memory = _memory()
    space = _disk(disk)
    return HostReading(
        cpu_ratio=_cpu_ratio(),
        cpu_count=psutil.cpu_count(),
        load_1min=_load(),
        memory_used_bytes=memory[0],
        memory_total_bytes=memory[1],
        disk_used_bytes=space[0],
        disk_total_bytes=space[1],
        booted_at_unix_s=_booted(),
        temperatures_c=_temperatures(),
    )


_primed = False


def _cpu_ratio() -> float | None:
    """psutil's first answer is a meaningless 0.0: unknown, not idle."""
    global _primed
    try:
        percent = psutil.cpu_percent(interval=None)
    except (OSError, psutil.Error):
        return None
    known, _primed = _primed, True
    return percent / 100 if known else None


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _memory() -> tuple[int | None, int | None]:
    try:
        memory = psutil.virtual_memory()
    except (OSError, psutil.Error):
        return None, None
    return memory.total - memory.available, memory.total


def _disk(path: Path) -> tuple[int | None, int | None]:
    try:
        usage = psutil.disk_usage(str(path))
    except (OSError, psutil.Error):
        return None, None
    return usage.used, usage.total


def _booted() -> float | None:
    try:
        return psutil.boot_time()
    except (OSError, psutil.Error):
        return None


def _temperatures() -> tuple[tuple[str, float], ...]:
    if not hasattr(psutil, "sensors_temperatures"):
        return ()
    try:
        chips = psutil.sensors_temperatures()
    except (OSError, psutil.Error, ValueError):
        return ()
    return tuple(
        (f"{chip}/{sensor.label or number}", float(sensor.current))
        for chip, sensors in sorted(chips.items())
        for number, sensor in enumerate(sensors)
        if sensor.current is not None
    )
