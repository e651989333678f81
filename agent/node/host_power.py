"""A host's power at the wall, where something measures it: a file that a script keeps fresh, or the kernel's power meter.

NVML misses CPUs, NICs and fans. Many servers' controllers (BMC) tell their input power through ACPI, which the kernel
shows as a hwmon device named `power_meter` with `power1_average` in microwatts; anything else (ipmitool, a PDU) can be
written to a file by a script. Without either the site models the host. Blocks on the disk.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

from agent.settings import GpuSettings

HWMON = Path("/sys/class/hwmon")
FRESH_S = 60.0
MOST_W = 100_000.0


def host_power(settings: GpuSettings, hwmon: Path = HWMON) -> tuple[float, str] | None:
    """Watts at the wall and their source ("bmc", "pdu"); None when nothing tells, or what it tells is old or no figure."""
    if settings.host_power_file is not None:
        watts = _of_file(settings.host_power_file)
        return None if watts is None else (watts, settings.host_power_source)
    for device in sorted(hwmon.glob("*")):
        try:
            if (device / "name").read_text(encoding="ascii").strip() == "power_meter":
                return _sane(float((device / "power1_average").read_text(encoding="ascii")) / 1e6, "bmc")
        except (OSError, ValueError):
            continue
    return None


def _of_file(path: Path) -> float | None:
    try:
        if time.time() - path.stat().st_mtime > FRESH_S:
            return None
        found = _sane(float(path.read_text(encoding="ascii").strip()), "")
    except (OSError, ValueError):
        return None
    return None if found is None else found[0]


def _sane(watts: float, source: str) -> tuple[float, str] | None:
    return (watts, source) if math.isfinite(watts) and 0.0 < watts <= MOST_W else None
