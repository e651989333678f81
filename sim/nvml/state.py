"""The state file behind the stand-in NVML, from outside: load and faults in, true power out.

The layout is nvml.c's `header` and `device`. Physics is only there: `settled()` takes the file's lock through the
library, which brings the state up to the present, so that a change of load counts from the moment it is made.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

STATE_VARIABLE = "GRIDPIVOT_SIM_NVML_STATE"
MAGIC, LAYOUT = 0x4C4D5647, 2

HEADER = np.dtype(
    [
        ("magic", "<u4"),
        ("layout", "<u4"),
        ("lock", "<u4"),
        ("count", "<u4"),  # GPUs that enumerate; lowering it takes the last ones off the bus
        ("init_error", "<u4"),
        ("stall_ms", "<u4"),  # every power reading waits this long
        ("generation", "<u4"),  # raised by one = driver reload
        ("total", "<u4"),
        ("tau_s", "<f8"),
        ("advanced_at_s", "<f8"),
        ("driver", "S32"),
    ]
)
DEVICE = np.dtype(
    [
        ("uuid", "S64"),
        ("name", "S64"),
        ("load", "<f8"),  # 0..1
        ("idle_w", "<f8"),
        ("max_w", "<f8"),
        ("power_w", "<f8"),
        ("energy_j", "<f8"),
        ("limit_mw", "<u4"),
        ("min_mw", "<u4"),
        ("max_mw", "<u4"),
        ("default_mw", "<u4"),
        ("cap_mw", "<u4"),  # the board enforces this if it is lower than the limit; 0 = none
        ("lost", "<u4"),
        ("ignores_set", "<u4"),
        ("generation", "<u4"),
        ("call_error", "<u4", (16,)),
        ("xids", "<u4"),
        ("xid", "<u4"),
        ("ecc_corrected", "<u4"),
        ("ecc_uncorrected", "<u4"),
        ("remapped_corrected", "<u4"),
        ("remapped_uncorrected", "<u4"),
        ("remap_pending", "<u4"),
        ("remap_failed", "<u4"),
        ("mig", "<u4"),
        ("lock_mhz", "<u4"),  # highest clock while locked; 0 = not locked
    ]
)
assert (HEADER.itemsize, DEVICE.itemsize) == (80, 304), "nvml.c asserts the same"


class Call(enum.IntEnum):
    """Calls that can be made to fail one by one: an index into `call_error`, whose value is an NVML return code."""

    POWER = 0
    ENERGY = 1
    LIMIT = 2
    ENFORCED = 3
    CONSTRAINTS = 4
    DEFAULT = 5
    SET = 6
    UTIL = 7
    TEMP = 8
    MEMORY = 9
    CLOCK = 10
    REASONS = 11
    PSTATE = 12
    PERSISTENCE = 13
    NAME = 14
    HEALTH = 15


def uuid_of(index: int) -> str:
    """UUID of simulated GPU `index`, in NVML's form."""
    return f"GPU-51300000-0000-4000-8000-{index:012x}"


def create(path: Path, count: int, *, idle_w: float = 75.0, min_w: float = 200.0, max_w: float = 700.0) -> None:
    """Write a state file of `count` idle GPUs with the limits of an H100 SXM (200-700 W, idle 70-78 W)."""
    header, devices = np.zeros((), HEADER), np.zeros(count, DEVICE)
    header["magic"], header["layout"] = MAGIC, LAYOUT
    header["count"] = header["total"] = count
    header["tau_s"], header["advanced_at_s"] = 0.4, time.monotonic()
    header["driver"] = b"580.0.0-simulated"
    devices["uuid"] = [uuid_of(i).encode() for i in range(count)]
    devices["name"] = b"NVIDIA H100 80GB HBM3 (simulated)"
    devices["idle_w"] = devices["power_w"] = idle_w
    devices["max_w"] = max_w
    devices["min_mw"] = round(1000 * min_w)
    for name in ("max_mw", "default_mw", "limit_mw"):
        devices[name] = round(1000 * max_w)
    fresh = path.with_name(f".{path.name}")
    fresh.write_bytes(header.tobytes() + devices.tobytes())
    fresh.replace(path)  # a library that still maps the old file keeps it, rather than a torn one


class NvmlState:
    """An open state file. Read and write `header` and `devices` inside `with state.settled():` only."""

    def __init__(self, path: Path, library: Path) -> None:
        self.path = path
        self._bytes: np.memmap[Any, np.dtype[np.uint8]] = np.memmap(path, np.uint8, mode="r+")
        self.header = self._bytes[: HEADER.itemsize].view(HEADER)
        self.devices = self._bytes[HEADER.itemsize :].view(DEVICE)
        if self.header["magic"][0] != MAGIC or self.header["layout"][0] != LAYOUT:
            raise ValueError(f"{path}: not a state file of layout {LAYOUT}; create it anew")
        self._address = ctypes.c_void_p(self._bytes.ctypes.data)
        functions = ctypes.CDLL(str(library))
        self._lock, self._unlock = functions.gridpivot_sim_lock, functions.gridpivot_sim_unlock
        self._lock.restype = self._unlock.restype = None

    @contextlib.contextmanager
    def settled(self) -> Iterator[npt.NDArray[np.void]]:
        """The devices as they are now, held still; what is written counts from now on."""
        self._lock(self._address)
        try:
            yield self.devices
        finally:
            self._unlock(self._address)

    def set_load(self, load: float, gpu: int | None = None) -> None:
        """Work as a share of what a GPU can do, 0..1; every GPU unless one is named."""
        with self.settled() as devices:
            devices["load"][slice(None) if gpu is None else gpu] = min(1.0, max(0.0, load))

    def set_limits(self, limit_w: float) -> None:
        """Limits of every GPU [W], as an administrator would have left them."""
        with self.settled() as devices:
            devices["limit_mw"] = np.clip(round(1000 * limit_w), devices["min_mw"], devices["max_mw"])

    def fail(self, gpu: int, call: Call, code: int) -> None:
        """Let one call of one GPU return this NVML code from now on; 0 heals it."""
        with self.settled() as devices:
            devices["call_error"][gpu, call] = code

    def lose(self, gpu: int, lost: bool = True) -> None:
        """Take a GPU off the bus, or put it back."""
        with self.settled() as devices:
            devices["lost"][gpu] = lost

    def xid(self, gpu: int, number: int) -> None:
        """A critical error, as the kernel log would number it."""
        with self.settled() as devices:
            devices["xid"][gpu] = number
            devices["xids"][gpu] += 1

    def reload_driver(self) -> None:
        """Limits go back to their defaults and energy counters to zero."""
        with self.settled():
            self.header["generation"] += 1
        with self.settled():
            pass  # the next look applies it

    def power_w(self) -> float:
        """True power of all GPUs now [W]."""
        with self.settled() as devices:
            return float(devices["power_w"].sum())

    def energy_j(self) -> float:
        """True energy of all GPUs since driver reload [J]."""
        with self.settled() as devices:
            return float(devices["energy_j"].sum())
