"""Per-device series as Prometheus text, straight from columns: cached label prefixes, chunks, missing values omitted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from agent.backends import SiteInventory
from gridpivot.columns import DeviceTable

CHUNK = 2_000
# (column, metric, help); coded columns go out as their code, see docs/metrics.md. `_total` is a counter by its name.
SERIES = (
    ("power_w", "gridpivot_device_power_watts", "Wall power as read"),
    ("hashrate_hs", "gridpivot_device_hashrate_hashes_per_second", "Hashrate as read"),
    ("temp_c", "gridpivot_device_temperature_celsius", "Hottest chip or board"),
    ("state", "gridpivot_device_state", "DeviceState code"),
    ("mode", "gridpivot_device_mode", "Mode code read back"),
    ("desired_mode", "gridpivot_device_desired_mode", "Mode code wanted"),
    ("reason", "gridpivot_device_reason", "Reason code, 0 = none"),
    ("accepted_shares", "gridpivot_device_accepted_shares_total", "Accepted since the mining software started"),
    ("age_s", "gridpivot_device_reading_age_seconds", "Since the last good reading"),
)


def _escaped(value: str) -> str:
    """A label value as the text format wants it."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class DeviceSeries:
    """Renders the device table of one site; labels are made once."""

    def __init__(self, inventory: SiteInventory) -> None:
        macs = inventory.mac_addresses
        names = [_escaped(c.name) for c in inventory.classes]
        labels = []
        for row in range(inventory.device_count):
            mac = macs[6 * row : 6 * row + 6]
            device = mac.hex(":") if any(mac) else str(row)  # two unknown addresses must not be one series
            feeder = _escaped(inventory.feeders[int(inventory.feeder_index[row])]) if inventory.feeders else ""
            labels.append(f'{{device="{device}",class="{names[inventory.class_index[row]]}",feeder="{feeder}"}} ')
        self._prefixes = {metric: [metric + label for label in labels] for _, metric, _ in SERIES}

    def render(self, table: DeviceTable) -> Iterator[bytes]:
        """Chunks of text; NaN is left out, never written as 0."""
        for column, metric, help_text in SERIES:
            kind = "counter" if metric.endswith("_total") else "gauge"
            yield f"# HELP {metric} {help_text}\n# TYPE {metric} {kind}\n".encode()
            values, prefixes = table[column], self._prefixes[metric]
            for start in range(0, len(prefixes), CHUNK):
                part = values[start : start + CHUNK].astype(np.float64)
                known = np.flatnonzero(~np.isnan(part))
                lines = [f"{prefixes[start + i]}{part[i]:.10g}" for i in known.tolist()]
                if lines:
                    yield ("\n".join(lines) + "\n").encode()
