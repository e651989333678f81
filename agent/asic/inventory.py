"""A site's miners as columns: classes with their curves, where each device listens, which circuits it hangs on.

Built from the files of `inventory_file`, or from rows that a simulator made; checked whole before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.asic.family import Ports, Profiles
from agent.asic.inventory_file import ClassEntry, DeviceRow, InventoryFile, read_header, read_rows, stop_at
from agent.asic.registry import CAPABILITIES, FAMILIES
from agent.asic.transport import Endpoint
from agent.backends import Grouping, SiteInventory
from gridpivot.curves import NAMEPLATE, AiPool, MinerClass, miner_class
from gridpivot.errors import SettingsError
from gridpivot.vocabulary import Mode

LEVELS = ("feeder", "container", "pdu", "rack")


@dataclass(frozen=True, slots=True)
class AsicInventory:
    """A site's miners: the table's fixed order, where each listens, and which are locked for maintenance."""

    site: SiteInventory
    endpoints: tuple[Endpoint, ...]
    maintenance: npt.NDArray[np.bool_]
    profiles: tuple[Profiles, ...]  # by class
    rows: tuple[DeviceRow, ...]  # as written down, for locks and discovery


def load_inventory(path: Path, pools: Sequence[AiPool] = ()) -> AsicInventory:
    """Read and check an inventory; raises SettingsError."""
    header = read_header(path)
    table = path.parent / header.devices
    rows, lines = read_rows(table)
    return build_inventory(header, rows, pools, source=path, where=[f"{table}:{line}" for line in lines])


def build_inventory(
    header: InventoryFile,
    rows: Sequence[DeviceRow],
    pools: Sequence[AiPool] = (),
    *,
    source: Path | None = None,
    where: Sequence[str] = (),
) -> AsicInventory:
    """Check classes, feeders and duplicates and lay the rows out as columns; raises SettingsError."""
    classes = tuple(_miner_class(name, entry, source) for name, entry in header.classes.items())
    if len(classes) > 255 or len(header.feeders) > 65_535:
        raise SettingsError(f"{source}: at most 255 classes and 65,535 feeders fit the table; merge some")
    class_codes = {entry.name: code for code, entry in enumerate(classes)}
    feeder_codes = {name: code for code, name in enumerate(header.feeders)}
    faults: list[str] = []
    seen: dict[object, str] = {}
    for index, row in enumerate(rows):
        place = where[index] if index < len(where) else f"row {index + 1}"
        if row.class_name not in class_codes:
            faults.append(
                f"{place}: class {row.class_name!r} is not declared; add [class.{row.class_name}] or correct it"
            )
        if row.feeder not in feeder_codes:
            faults.append(f"{place}: feeder {row.feeder!r} is not in feeders; add it there or correct it")
        entry = header.classes.get(row.class_name)
        ports = FAMILIES[entry.family].ports if entry is not None else Ports()
        keys: list[object] = [(row.endpoint.host, row.endpoint.or_else(ports).api_port)]
        if row.mac:
            keys.append(row.mac.lower())
        for key in keys:
            if key in seen:
                shown = f"{key[0]}:{key[1]}" if isinstance(key, tuple) else key
                faults.append(f"{place}: {shown} is already at {seen[key]}; remove one of them")
            else:
                seen[key] = place
        stop_at(faults)
    if faults:
        raise SettingsError("\n".join(faults))
    site = SiteInventory(
        classes=classes,
        class_index=np.array([class_codes[row.class_name] for row in rows], dtype=np.uint8),
        feeders=header.feeders,
        feeder_index=np.array([feeder_codes[row.feeder] for row in rows], dtype=np.uint16),
        mac_addresses=b"".join(bytes.fromhex(row.mac.replace(":", "")) if row.mac else bytes(6) for row in rows),
        pools=tuple(pools),
        groupings=tuple(_grouping(level, [getattr(row, level) for row in rows]) for level in LEVELS),
    )
    families = {entry.name: FAMILIES[entry.family] for entry in classes}
    return AsicInventory(
        site=site,
        endpoints=tuple(row.endpoint.or_else(families[row.class_name].ports) for row in rows),
        maintenance=np.array([row.maintenance for row in rows], dtype=np.bool_),
        profiles=tuple(Profiles(e.normal_profile, e.low_profile, e.turbo_profile) for e in header.classes.values()),
        rows=tuple(rows),
    )


def _miner_class(name: str, entry: ClassEntry, source: Path | None) -> MinerClass:
    capabilities = CAPABILITIES.get(entry.family)
    if capabilities is None:
        raise SettingsError(
            f"{source}: class {name}: unknown family {entry.family!r}; known: {', '.join(CAPABILITIES)}"
        )
    modes = list(capabilities.modes())
    if entry.family == "luxos":
        # Low is found by its watts where no profile is named; overclocking is the owner's decision, made by naming it.
        modes = [mode for mode in modes if mode is not Mode.TURBO or entry.turbo_profile is not None]
    nameplate = None
    if entry.hashrate_th_per_s is not None and entry.power_w is not None:
        nameplate = (entry.hashrate_th_per_s, entry.power_w)
    elif entry.model not in NAMEPLATE:
        raise SettingsError(
            f"{source}: class {name}: no nameplate for model {entry.model!r}; give hashrate_th_per_s and power_w"
        )
    return miner_class(
        name,
        entry.family,
        entry.model,
        shed_s=entry.shed_s or capabilities.shed_s,
        wake_s=entry.wake_s or capabilities.wake_s,
        modes=modes,
        nameplate=nameplate,
    )


def _grouping(level: str, names: Sequence[str]) -> Grouping:
    """Devices by one level of the house; -1 = the inventory does not say."""
    known = tuple(sorted({name for name in names if name}))
    codes = {name: code for code, name in enumerate(known)} | {"": -1}
    return Grouping(level, known, np.array([codes[name] for name in names], dtype=np.int32))
