"""A host's power at the wall, where something measures it: a file that a script keeps fresh, or the kernel's power meter.

NVML misses CPUs, NICs and fans. Many servers' controllers (BMC) tell their input power through ACPI, which the kernel
shows as a hwmon device named `power_meter` with `power1_average` in microwatts; anything else (ipmitool, a PDU) can be
written to a file by a script. A BMC over Redfish is `wall.py`'s. Without any the site models the host. Blocks on the disk.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from agent.bmc.payload import MOST_W
from agent.settings import GpuSettings

HWMON = Path("/sys/class/hwmon")
FRESH_S = 60.0


@dataclass(frozen=True, slots=True)
class HostFigure:
    """Watts at the wall, their source ("bmc", "pdu"), and how old they are [s]."""

    power_w: float
    source: str
    age_s: float


def host_power(settings: GpuSettings, hwmon: Path = HWMON) -> HostFigure | None:
    """Power at the wall by this machine's own means; None when nothing tells, or what it tells is old or no figure."""
    if settings.host_power_file is not None:
        return _of_file(settings.host_power_file, settings.host_power_source)
    for device in sorted(hwmon.glob("*")):
        try:
            if (device / "name").read_text(encoding="ascii").strip() == "power_meter":
                return _sane(float((device / "power1_average").read_text(encoding="ascii")) / 1e6, "bmc", 0.0)
        except (OSError, ValueError):
            continue
    return None


def _of_file(path: Path, source: str) -> HostFigure | None:
    try:
        age_s = max(0.0, time.time() - path.stat().st_mtime)
        if age_s > FRESH_S:
            return None
        return _sane(float(path.read_text(encoding="ascii").strip()), source, age_s)
    except (OSError, ValueError):
        return None


def _sane(watts: float, source: str, age_s: float) -> HostFigure | None:
    return HostFigure(watts, source, age_s) if math.isfinite(watts) and 0.0 < watts <= MOST_W else None
