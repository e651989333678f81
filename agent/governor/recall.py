"""What every machine was last told, kept over a restart and a blackout: curtailed before is curtailed after.

Keyed by MAC address, so that a changed inventory or a new lease moves nothing. Only sleep is recalled: who was awake is
taken as found, since an agent's start must not wake anybody. A file that cannot be read is as good as none.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.backends import SiteInventory
from gridpivot.vocabulary import Mode

KEEP_S = 24 * 3600.0  # what is older says little about what is wanted now
_RECORD = np.dtype([("mac", "V6"), ("mode", "u1")])
_HEAD = b"gridpivot-desired-1\n"


class Recall:
    """The file of last orders. `save` blocks on the disk: call it from a thread."""

    def __init__(self, path: Path, inventory: SiteInventory) -> None:
        self._path = path
        macs = inventory.mac_addresses.ljust(6 * inventory.device_count, b"\x00")
        self._macs = np.frombuffer(macs, dtype="V6", count=inventory.device_count)
        self._known = np.array([any(bytes(mac)) for mac in self._macs], dtype=bool)

    def load(self, unix_s: float) -> npt.NDArray[np.uint8]:
        """Mode code by row, 0 = nothing is recalled; everything 0 when the file is absent, damaged or too old."""
        codes = np.zeros(len(self._macs), dtype=np.uint8)
        try:
            data = self._path.read_bytes()
        except OSError:
            return codes
        head, _, rest = data.partition(_HEAD)
        stamp, rest = rest[:8], rest[8:]
        if head or len(stamp) < 8 or len(rest) % _RECORD.itemsize:
            return codes
        age_s = unix_s - int.from_bytes(stamp, "big") / 1000.0
        if not -60.0 <= age_s <= KEEP_S:
            return codes
        records = np.frombuffer(rest, dtype=_RECORD)
        asleep = {bytes(mac) for mac in records["mac"][records["mode"] == Mode.SLEEP.code]}
        mine = [known and bytes(mac) in asleep for mac, known in zip(self._macs, self._known, strict=True)]
        codes[np.array(mine, dtype=bool)] = Mode.SLEEP.code
        return codes

    def save(self, desired: npt.NDArray[np.uint8], unix_s: float) -> None:
        """Replace the file whole, on the disk before it counts; raises OSError."""
        records = np.zeros(int(self._known.sum()), dtype=_RECORD)
        records["mac"], records["mode"] = self._macs[self._known], desired[self._known]
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(_HEAD + round(unix_s * 1000.0).to_bytes(8, "big") + records.tobytes())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
